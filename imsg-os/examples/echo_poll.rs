//! An echo server for any number of clients, on `poll`.
//!
//! ```text
//! cargo run --release -p imsg-os --example echo_poll -- --listen /tmp/echo
//! ```
//!
//! It does the same as `echo_mio` and `echo_tokio`. Nothing here waits but `poll`. The memory for a client is that of its channel: no message is taken before there is
//! room for its answer, and then nothing is read, so that a client that does not read is held up by
//! the kernel, and nobody else is. A client has 64 messages answered, and then the others have their
//! turn. It may be silent as long as it likes, but not in the middle of a message, nor may it leave
//! its answers unread: so one that passed its own end of the connection over the connection and
//! died, and has no end of the stream, is hung up on all the same.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, mem};

use clap::Parser;
use imsg_os::{
    Any, Channel, Deadline, Endian, HEADER_LEN, Header, Message, Next, Refused, Sender, Turn,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Sends each message back to the client that it came from, with its type, id and descriptor.
///
/// Ends when its standard input does.
#[derive(Parser)]
#[command(name = "echo_poll")]
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
    let listener = UnixListener::bind(path)?;
    let served = writeln!(io::stdout(), "listening on {path:?}").map_err(Into::into);
    let served = served.and_then(|()| serve(&listener, dialect, patience));
    fs::remove_file(path)?;
    served
}

/// Serves clients until standard input ends.
fn serve(listener: &UnixListener, dialect: Any, patience: Duration) -> Result<(), Box<dyn Error>> {
    listener.set_nonblocking(true)?;
    let mut clients = Vec::<Client>::new();
    let mut number = 0;
    // Whether the system has no place for another client. It does not say when it has.
    let mut crowded = false;
    loop {
        let on_listener = if crowded { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut until = crowded.then(|| Instant::now() + Duration::from_secs(1));
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), on_listener),
        ];
        for client in &clients {
            fds.push(PollFd::new(client.channel.as_fd(), client.wants()));
            until = until.into_iter().chain(client.next_turn).min();
        }
        match poll(&mut fds, timeout(until)) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(Errno::EINVAL) => {
                let number = fds.len();
                return Err(format!("{number} descriptors are more than RLIMIT_NOFILE").into());
            }
            Err(error) => return Err(error.into()),
        }
        let events: Vec<_> =
            fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR)).collect();

        if !events[0].is_empty() && !matches!(stdin.lock().read(&mut [0; 512]), Ok(1..)) {
            return Ok(());
        }
        let now = Instant::now();
        let is_time = until.is_some_and(|at| at <= now);
        let mut of_clients = events[2..].iter();
        clients.retain_mut(|client| {
            let events = of_clients.next().copied().unwrap_or(PollFlags::empty());
            let is_idle = events.is_empty() && !is_time;
            is_idle
                || client.serve(events, now).unwrap_or_else(|error| {
                    complain(format_args!("client {}: {error}", client.number));
                    false
                })
        });
        if !events[1].is_empty() || crowded {
            let refused = loop {
                match listener.accept() {
                    Ok((socket, _)) => {
                        number += 1;
                        clients.push(Client::new(socket, dialect, number, patience)?);
                    }
                    Err(error) => break error,
                }
            };
            let was_crowded = mem::replace(&mut crowded, refused.kind() != ErrorKind::WouldBlock);
            if crowded && !was_crowded {
                complain(format_args!("cannot take another client: {refused}"));
            }
        }
    }
}

/// The time until then, rounded up, so that it is over afterwards.
fn timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else { return PollTimeout::NONE };
    let millis = until.saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

struct Client {
    number: u64,
    channel: Channel<Any>,
    turn: Turn,
    next: Next,
    to_send: Deadline,
    to_read: Deadline,
    /// When it has a turn though `poll` says nothing of it.
    next_turn: Option<Instant>,
}

impl Client {
    fn new(socket: UnixStream, dialect: Any, number: u64, patience: Duration) -> io::Result<Self> {
        let mut channel = Channel::new(socket, dialect)?;
        channel.rx.allow_descriptors();
        // An answer is as long as its message.
        let turn = Turn::new(channel.tx.max_len() - HEADER_LEN);
        let next = channel.next(&turn);
        let [to_send, to_read] = [Deadline::new(patience); 2];
        Ok(Self { number, channel, turn, next, to_send, to_read, next_turn: None })
    }

    /// What to wait for.
    fn wants(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if let Next::Poll { readable, writable } = self.next {
            flags.set(PollFlags::POLLIN, readable);
            flags.set(PollFlags::POLLOUT, writable);
        }
        flags
    }

    /// Does what can be done without waiting, when it is time to. `false` when there will be no
    /// more.
    fn serve(&mut self, events: PollFlags, now: Instant) -> Result<bool, Box<dyn Error>> {
        if events.is_empty() && self.next_turn.is_none_or(|at| at > now) {
            return Ok(true);
        }
        // It may also have hung up.
        let readable = events.intersects(!PollFlags::POLLOUT);
        self.next = self.channel.turn(&self.turn, readable, echo)?;

        let Channel { rx, tx } = &self.channel;
        // While nothing is read, the rest of a message cannot come.
        let reads = matches!(self.next, Next::Poll { readable: true, .. });
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
        let again = (self.next == Next::Again).then_some(now);
        self.next_turn = [again, to_send, to_read].into_iter().flatten().min();
        Ok(self.next != Next::Done)
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
    let _ = writeln!(io::stderr(), "echo_poll: {text}");
}
