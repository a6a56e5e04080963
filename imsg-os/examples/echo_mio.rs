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
use std::time::{Duration, Instant};
use std::{fs, mem, thread};

use clap::Parser;
use imsg_os::{
    Any, Channel, Deadline, Endian, HEADER_LEN, Header, Message, Next, Refused, Sender, Turn,
};
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
            complain(format_args!("{listen:?}: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, dialect: Any, patience: Duration) -> Result<(), Box<dyn Error>> {
    // Past a limit for the size of files, a complaint is to fail, and not to end this program.
    let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
    let mut listener = UnixListener::bind(path)?;
    let served = serve(path, &mut listener, dialect, patience);
    fs::remove_file(path)?;
    served
}

/// Serves clients until standard input ends.
fn serve(
    path: &Path,
    listener: &mut UnixListener,
    dialect: Any,
    patience: Duration,
) -> Result<(), Box<dyn Error>> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
    poll.registry().register(listener, LISTENER, Interest::READABLE)?;
    // Shared, as its event would be gone with the last of it.
    let waker = Arc::new(Waker::new(poll.registry(), END)?);
    let ends = Arc::clone(&waker);
    thread::Builder::new().spawn(move || {
        // By a thread, as `mio` cannot wait for a file.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        ends.wake()
    })?;
    writeln!(io::stdout(), "listening on {path:?}")?;

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
            return Ok(());
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
            let turn = client.serve(poll.registry(), now);
            limits.extend(client.limit.map(|limit| (limit, token)));
            match turn {
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
    to_send: Deadline,
    to_read: Deadline,
    /// When its time is over, if it has to do something.
    limit: Option<Instant>,
    token: Token,
    /// Whether there is an event when the socket takes more.
    is_watched: bool,
}

impl Client {
    fn new(
        mut channel: Channel<Any>,
        registry: &Registry,
        token: Token,
        patience: Duration,
    ) -> io::Result<Self> {
        channel.rx.allow_descriptors();
        registry.register(&mut SourceFd(&channel.as_raw_fd()), token, Interest::READABLE)?;
        // An answer is as long as its message.
        let turn = Turn::new(channel.tx.max_len() - HEADER_LEN).edge_triggered();
        let [to_send, to_read] = [Deadline::new(patience); 2];
        Ok(Self { channel, turn, to_send, to_read, limit: None, token, is_watched: false })
    }

    /// Does what can be done without waiting, for a while.
    fn serve(&mut self, registry: &Registry, now: Instant) -> Result<Next, Box<dyn Error>> {
        let next = self.channel.turn(&self.turn, true, echo)?;
        let Channel { rx, tx } = &self.channel;
        // While nothing is read, the rest of a message cannot come.
        let reads = matches!(next, Next::Poll { readable: true, .. });
        let to_send = self.to_send.update(rx.unfinished().filter(|_| reads), now);
        let unread = (tx.queue_bytes() > 0).then(|| tx.sent().bytes);
        let to_read = self.to_read.update(unread, now);
        let over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        if over(to_send) {
            return Err("it did not complete a message in time".into());
        }
        if over(to_read) {
            return Err("it did not read its answers in time".into());
        }
        self.watch(registry, next)?;
        self.limit = to_send.into_iter().chain(to_read).min();
        Ok(next)
    }

    /// Asks for the event that the socket takes more while something is queued, as otherwise it comes
    /// for each answer that is read. An event of what happened in between comes too.
    fn watch(&mut self, registry: &Registry, next: Next) -> io::Result<()> {
        let writable = matches!(next, Next::Poll { writable: true, .. });
        if writable != self.is_watched {
            let also = writable.then_some(Interest::WRITABLE);
            let interest = also.map_or(Interest::READABLE, |also| also | Interest::READABLE);
            let fd = self.channel.as_raw_fd();
            registry.reregister(&mut SourceFd(&fd), self.token, interest)?;
            self.is_watched = writable;
        }
        Ok(())
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
