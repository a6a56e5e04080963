//! An echo server for any number of clients, on `mio`.
//!
//! ```text
//! cargo run --release -p imsg-os --example echo_mio -- --listen /tmp/echo
//! ```
//!
//! It does the same as `echo_poll` and `echo_tokio`. The memory for a client is that of its channel:
//! no message is taken before there is room for its answer, and then nothing is read, so that a
//! client that does not read is held up by the kernel, and nobody else is.
//!
//! `mio` tells only that a socket has become ready, once (edge-triggered). So a client has one turn
//! after the other until a read would block, or until there is no room: then something is queued,
//! and the event that says that the socket takes more gives the turn in which reading goes on. No
//! other event would: what the client sent meanwhile may have been told before.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, mem, thread};

use clap::Parser;
use imsg_os::{Any, Channel, Endian, HEADER_LEN, Header, ReadOutcome, Sender, WriteOutcome};
use mio::net::UnixListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

/// Sends each message back to the client that it came from, with its type, id and descriptor.
///
/// Ends when its standard input does.
#[derive(Parser)]
#[command(name = "echo_mio")]
struct Arguments {
    /// Where to make the socket
    #[arg(long, value_name = "PATH")]
    listen: PathBuf,

    /// The dialect of imsg that the clients speak: classic or modern
    #[arg(long, value_parser = dialect, default_value = "modern")]
    dialect: Any,
}

fn dialect(name: &str) -> Result<Any, &'static str> {
    match name {
        "classic" => Ok(Any::Classic(Endian::NATIVE)),
        "modern" => Ok(Any::Modern(Endian::NATIVE)),
        _ => Err("it is neither classic nor modern"),
    }
}

// The tokens of clients are between these.
const LISTENER: Token = Token(0);
const END: Token = Token(usize::MAX);

fn main() -> ExitCode {
    let Arguments { listen, dialect } = Arguments::parse();
    match run(&listen, dialect) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{}: {error}", listen.display()));
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, dialect: Any) -> Result<(), Box<dyn Error>> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
    let mut listener = UnixListener::bind(path)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    // Shared, as its event would be gone with the last of it.
    let waker = Arc::new(Waker::new(poll.registry(), END)?);
    let ends = Arc::clone(&waker);
    thread::spawn(move || {
        // By a thread, as `mio` cannot wait for a file.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        ends.wake()
    });
    writeln!(io::stdout(), "listening on {}", path.display())?;

    let (mut clients, mut number) = (BTreeMap::new(), 0);
    let mut turns = BTreeSet::new();
    // Whether the system has no place for another client. It does not say when it has.
    let mut crowded = false;
    loop {
        let timeout = match (turns.is_empty(), crowded) {
            (false, _) => Some(Duration::ZERO),
            (true, true) => Some(Duration::from_secs(1)),
            (true, false) => None,
        };
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => turns.extend(events.iter().map(|event| event.token())),
        }
        if turns.contains(&END) {
            return Ok(fs::remove_file(path)?);
        }
        if turns.remove(&LISTENER) || crowded {
            let refused = loop {
                match listener.accept() {
                    Ok((socket, _)) => {
                        number += 1;
                        let channel = Channel::new(socket, dialect)?;
                        let client = Client::new(channel, poll.registry(), Token(number))?;
                        clients.insert(Token(number), client);
                    }
                    Err(error) => break error,
                }
            };
            let was_crowded = mem::replace(&mut crowded, refused.kind() != ErrorKind::WouldBlock);
            if crowded && !was_crowded {
                complain(format_args!("cannot take another client: {refused}"));
            }
        }
        for token in mem::take(&mut turns) {
            let Some(client) = clients.get_mut(&token) else { continue };
            let turn = client.serve().and_then(|turn| {
                client.register(poll.registry(), token)?;
                Ok(turn)
            });
            match turn {
                Ok(Turn::Again) => _ = turns.insert(token),
                Ok(Turn::Wait) => {}
                Ok(Turn::Done) => _ = clients.remove(&token),
                Err(error) => {
                    complain(format_args!("client {}: {error}", token.0));
                    clients.remove(&token);
                }
            }
        }
    }
}

struct Client {
    channel: Channel<Any>,
    /// What is waited for.
    interest: Interest,
    /// Whether it will send no more.
    ended: bool,
}

/// What comes after a turn.
enum Turn {
    /// Another one, after the others have had theirs: there may be more to read.
    Again,
    /// Another one when the socket is ready.
    Wait,
    /// Nothing.
    Done,
}

impl Client {
    fn new(mut channel: Channel<Any>, registry: &Registry, token: Token) -> io::Result<Self> {
        channel.rx.allow_descriptors();
        let interest = Interest::READABLE;
        registry.register(&mut SourceFd(&channel.as_raw_fd()), token, interest)?;
        Ok(Self { channel, interest, ended: false })
    }

    /// Waits for the socket to take more only when something is queued.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = match self.channel.tx.queue_bytes() {
            0 => Interest::READABLE,
            _ => Interest::READABLE | Interest::WRITABLE,
        };
        if interest == self.interest {
            return Ok(());
        }
        self.interest = interest;
        registry.reregister(&mut SourceFd(&self.channel.as_raw_fd()), token, interest)
    }

    /// Answers what has arrived, and reads once.
    fn serve(&mut self) -> Result<Turn, Box<dyn Error>> {
        let Channel { rx, tx } = &mut self.channel;
        loop {
            while has_room(tx)
                && let Some(mut message) = rx.next_message()?
            {
                // A pid of 0 stands for that of this process. The answer has no descriptor where
                // there was no place to receive one.
                let header = Header { pid: 0, ..message.header };
                tx.compose(header, message.payload, message.descriptor.take())?;
            }
            // What is still there waits for room. A write that blocks may have made some all the
            // same; and nothing is read on while messages are there.
            let blocked = tx.write()? == WriteOutcome::WouldBlock;
            if !rx.is_ready() || (blocked && !has_room(tx)) {
                break;
            }
        }
        if self.ended {
            return Ok(if tx.queue_bytes() > 0 { Turn::Wait } else { Turn::Done });
        }
        if !has_room(tx) {
            return Ok(Turn::Wait);
        }
        match rx.read()? {
            ReadOutcome::WouldBlock => return Ok(Turn::Wait),
            ReadOutcome::Data => {}
            ReadOutcome::Closed => self.ended = true,
        }
        Ok(Turn::Again)
    }
}

/// Whether a message of any length, with a descriptor, would not be refused.
fn has_room(tx: &Sender<Any>) -> bool {
    tx.has_room(tx.max_len() - HEADER_LEN, true).is_ok()
}

/// Is `eprintln`, but does not panic when nobody listens.
fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "echo_mio: {text}");
}
