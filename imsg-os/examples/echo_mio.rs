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
//! `mio` tells only that a socket has become ready, once (edge-triggered). So a turn of a client goes
//! on until a read would block, or until there is no room: then something is queued, and the event
//! that says that the socket takes more gives the turn in which reading goes on.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, mem, thread};

use clap::Parser;
use imsg_os::{Any, Channel, Endian, HEADER_LEN, Header, Message, Next, Refused, Sender, Turn};
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
            match client.channel.turn(&client.turn, true, echo) {
                Ok(Next::Again) => _ = turns.insert(token),
                Ok(Next::Poll { .. }) => {}
                Ok(Next::Done) => _ = clients.remove(&token),
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
    turn: Turn,
}

impl Client {
    fn new(mut channel: Channel<Any>, registry: &Registry, token: Token) -> io::Result<Self> {
        channel.rx.allow_descriptors();
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&channel.as_raw_fd()), token, interest)?;
        // An answer is as long as its message.
        let turn = Turn::new(channel.tx.max_len() - HEADER_LEN).edge_triggered();
        Ok(Self { channel, turn })
    }
}

fn echo(mut message: Message<'_>, tx: &mut Sender<Any>) -> Result<(), Refused<OwnedFd>> {
    // A pid of 0 stands for that of this process. The answer has no descriptor where there was no
    // place to receive one.
    let header = Header { pid: 0, ..message.header };
    tx.compose(header, message.payload, message.descriptor.take())
}

/// Is `eprintln`, but does not panic when nobody listens.
fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "echo_mio: {text}");
}
