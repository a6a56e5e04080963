//! An echo server for any number of clients, on `poll`.
//!
//! ```text
//! cargo run --release -p imsg-os --example echo_poll -- --listen /tmp/echo
//! ```
//!
//! It does the same as `echo_mio` and `echo_tokio`. Nothing here waits but `poll`, so each socket is
//! non-blocking. The memory for a client is that of its channel: no message is taken before there is
//! room for its answer, and then nothing is read, so that a client that does not read is held up by
//! the kernel, and nobody else is. A client has 64 messages answered, and then the others have their
//! turn. It may be silent as long as it likes, but not in the middle of a message, nor may it leave
//! its answers unread: so one that passed its own end of the connection over the connection and
//! died, and has no end of the stream, is hung up on all the same.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, mem};

use clap::Parser;
use imsg_os::{
    Any, Channel, Deadline, Endian, HEADER_LEN, Header, ReadOutcome, Sender, WriteOutcome,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How many messages of a client are answered before the others have their turn.
const TURN: usize = 64;

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
            complain(format_args!("{}: {error}", listen.display()));
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, dialect: Any, patience: Duration) -> Result<(), Box<dyn Error>> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    writeln!(io::stdout(), "listening on {}", path.display())?;

    let mut clients = Vec::<Client>::new();
    let mut number = 0;
    // Whether the system has no place for another client. It does not say when it has.
    let mut crowded = false;
    loop {
        let on_listener = if crowded { PollFlags::empty() } else { PollFlags::POLLIN };
        let retry = crowded.then(|| Instant::now() + Duration::from_secs(1));
        let timeout = timeout(clients.iter().filter_map(|c| c.next_turn).chain(retry).min());
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), on_listener),
        ];
        fds.extend(clients.iter().map(|c| PollFd::new(c.channel.as_fd(), c.wants())));
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();

        if ready[0] && !matches!(stdin.lock().read(&mut [0; 512]), Ok(1..)) {
            return Ok(fs::remove_file(path)?);
        }
        let mut of_clients = ready[2..].iter();
        clients.retain_mut(|client| {
            let ready = of_clients.next() == Some(&true);
            client.turn(ready).unwrap_or_else(|error| {
                complain(format_args!("client {}: {error}", client.number));
                false
            })
        });
        if ready[1] || crowded {
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
    /// Whether it will send no more.
    ended: bool,
    /// How many bytes of answers were queued, ever.
    answered: u64,
    to_send: Deadline,
    to_read: Deadline,
    /// When it has a turn though `poll` says nothing of it.
    next_turn: Option<Instant>,
}

impl Client {
    fn new(socket: UnixStream, dialect: Any, number: u64, patience: Duration) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let mut channel = Channel::new(socket, dialect)?;
        channel.rx.allow_descriptors();
        let [to_send, to_read] = [Deadline::new(patience); 2];
        Ok(Self { number, channel, ended: false, answered: 0, to_send, to_read, next_turn: None })
    }

    fn reads(&self) -> bool {
        let Channel { rx, tx } = &self.channel;
        !self.ended && !rx.is_ready() && has_room(tx)
    }

    /// What to wait for. When it is nothing, there is a turn left that waits for nothing.
    fn wants(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.reads());
        flags.set(PollFlags::POLLOUT, self.channel.tx.queue_bytes() > 0);
        flags
    }

    /// Serves it when it is time to. `false` when there will be no more.
    fn turn(&mut self, ready: bool) -> Result<bool, Box<dyn Error>> {
        let now = Instant::now();
        if !ready && self.next_turn.is_none_or(|at| at > now) {
            return Ok(true);
        }
        let goes_on = self.serve()?;
        let Channel { rx, tx } = &self.channel;
        // While nothing is read, the rest of a message cannot come.
        let unfinished = if self.reads() { rx.unfinished() } else { None };
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
        let again = (rx.is_ready() && has_room(tx)).then_some(now);
        self.next_turn = [again, to_send, to_read].into_iter().flatten().min();
        Ok(goes_on)
    }

    /// Does what can be done without waiting, for a while. `false` when there will be no more.
    fn serve(&mut self) -> Result<bool, Box<dyn Error>> {
        // Once, and not until it would block: `poll` says again what is left, and others wait.
        if self.reads() && self.channel.rx.read()? == ReadOutcome::Closed {
            self.ended = true;
        }
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
            if left == 0 || !rx.is_ready() || (blocked && !has_room(tx)) {
                return Ok(!self.ended || rx.is_ready() || tx.queue_bytes() > 0);
            }
        }
    }
}

/// Whether a message of any length, with a descriptor, would not be refused.
fn has_room(tx: &Sender<Any>) -> bool {
    tx.has_room(tx.max_len() - HEADER_LEN, true).is_ok()
}

/// Is `eprintln`, but does not panic when nobody listens.
fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "echo_poll: {text}");
}
