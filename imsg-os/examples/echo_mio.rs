//! An echo server for any number of clients, on `mio`.
//!
//! ```text
//! cargo run --release -p imsg-os --example echo_mio -- --listen /tmp/echo
//! ```
//!
//! It does the same as `echo_poll` and `echo_tokio`. The memory for a client is that of its channel:
//! no message is taken before there is room for its answer, and then nothing is read, so that a
//! client that does not read is held up by the kernel, and nobody else is. A client has 64 messages
//! answered, and then the others have their turn. It may be silent as long as it likes, but not in
//! the middle of a message, nor may it leave its answers unread: so one that passed its own end of
//! the connection over the connection and died, and has no end of the stream, is hung up on all the
//! same.
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
use std::time::{Duration, Instant};
use std::{fs, mem, thread};

use clap::Parser;
use imsg_os::{
    Any, Channel, Deadline, Endian, HEADER_LEN, Header, ReadOutcome, Sender, WriteOutcome,
};
use mio::net::UnixListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

/// How many messages of a client are answered before the others have their turn.
const TURN: usize = 64;

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

    /// How long a client may take for a message, from its first byte to its last, and to take
    /// something of an answer. It is hung up on then
    #[arg(long, value_parser = seconds, value_name = "SECONDS", default_value = "30")]
    patience: Duration,
}

fn seconds(number: &str) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    Ok(Duration::try_from_secs_f64(number.parse()?)?)
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
    let Arguments { listen, dialect, patience } = Arguments::parse();
    match run(&listen, dialect, patience) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{}: {error}", listen.display()));
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, dialect: Any, patience: Duration) -> Result<(), Box<dyn Error>> {
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
    // When the time of those is over that have to do something.
    let mut limits = BTreeSet::<(Instant, Token)>::new();
    // Whether the system has no place for another client. It does not say when it has.
    let mut crowded = false;
    loop {
        let now = Instant::now();
        let next_turn = (!turns.is_empty()).then_some(now);
        let retry = crowded.then(|| now + Duration::from_secs(1));
        let limit = limits.first().map(|&(at, _)| at);
        let until = [next_turn, retry, limit].into_iter().flatten().min();
        match poll.poll(&mut events, until.map(|until| until.saturating_duration_since(now))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => turns.extend(events.iter().map(|event| event.token())),
        }
        let now = Instant::now();
        turns.extend(limits.iter().take_while(|(at, _)| *at <= now).map(|&(_, token)| token));
        if turns.contains(&END) {
            return Ok(fs::remove_file(path)?);
        }
        if turns.remove(&LISTENER) || crowded {
            let refused = loop {
                match listener.accept() {
                    Ok((socket, _)) => {
                        number += 1;
                        let channel = Channel::new(socket, dialect)?;
                        let (registry, token) = (poll.registry(), Token(number));
                        let client = Client::new(channel, registry, token, patience)?;
                        clients.insert(token, client);
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
            if let Some(limit) = client.limit.take() {
                limits.remove(&(limit, token));
            }
            let turn = client.serve().and_then(|turn| {
                client.register(poll.registry(), token)?;
                client.limit = client.check_time(now)?;
                Ok(turn)
            });
            limits.extend(client.limit.map(|limit| (limit, token)));
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
    /// How many bytes of answers were queued, ever.
    answered: u64,
    to_send: Deadline,
    to_read: Deadline,
    /// When its time is over, if it has to do something.
    limit: Option<Instant>,
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
    fn new(
        mut channel: Channel<Any>,
        registry: &Registry,
        token: Token,
        patience: Duration,
    ) -> io::Result<Self> {
        channel.rx.allow_descriptors();
        let interest = Interest::READABLE;
        registry.register(&mut SourceFd(&channel.as_raw_fd()), token, interest)?;
        let [to_send, to_read] = [Deadline::new(patience); 2];
        Ok(Self { channel, interest, ended: false, answered: 0, to_send, to_read, limit: None })
    }

    /// When its time is over. An error is that it is.
    fn check_time(&mut self, now: Instant) -> Result<Option<Instant>, Box<dyn Error>> {
        let Channel { rx, tx } = &self.channel;
        // While nothing is read, the rest of a message cannot come.
        let reads = !self.ended && has_room(tx);
        let unfinished = if reads { rx.unfinished() } else { None };
        let sent = self.answered - tx.queue_bytes() as u64;
        let unread = (tx.queue_bytes() > 0).then_some(sent);
        let to_send = self.to_send.update(unfinished, now);
        let to_read = self.to_read.update(unread, now);
        let over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        if over(to_send) {
            return Err("it did not complete a message in time".into());
        }
        if over(to_read) {
            return Err("it did not read its answers in time".into());
        }
        Ok(to_send.into_iter().chain(to_read).min())
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

    /// Answers what has arrived, for a while, and then reads once.
    fn serve(&mut self) -> Result<Turn, Box<dyn Error>> {
        let Channel { rx, tx } = &mut self.channel;
        let mut left = TURN;
        loop {
            while left > 0
                && has_room(tx)
                && let Some(mut message) = rx.next_message()?
            {
                left -= 1;
                // A pid of 0 stands for that of this process. The answer has no descriptor where
                // there was no place to receive one.
                let header = Header { pid: 0, ..message.header };
                tx.compose(header, message.payload, message.descriptor.take())?;
                self.answered += (HEADER_LEN + message.payload.len()) as u64;
            }
            // What is still there waits for room, or for its turn. A write that blocks may have
            // made some all the same; and nothing is read on while messages are there.
            let blocked = tx.write()? == WriteOutcome::WouldBlock;
            if !rx.is_ready() || (blocked && !has_room(tx)) {
                break;
            }
            if left == 0 {
                return Ok(Turn::Again);
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
