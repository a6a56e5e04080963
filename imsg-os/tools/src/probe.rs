//! Which dialect does a tmux server speak?

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use imsg_os::{Any, Channel, Classic, Endian, Header, ReadOutcome, RecvError, WriteOutcome};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// From a client: its standard input, as a descriptor.
const IDENTIFY_STDIN: u32 = 104;

/// From a server: its version is another one.
const OTHER_VERSION: u32 = 12;

/// Asks for the dialect, on a connection of its own, and waits that long for the answer.
///
/// It is a message that only a classic server understands: one that carries a descriptor, and has
/// a version that no server has. A classic server (up to 3.5a) answers that its version is another.
/// A modern one (since 3.6) reads a length that is out of range, and hangs up. Neither does more,
/// and neither takes harm.
pub(crate) fn probe(socket: UnixStream, patience: Duration) -> Result<Any, ProbeError> {
    let end = Instant::now() + patience;
    let modern = Ok(Any::Modern(Endian::NATIVE));
    socket.set_nonblocking(true)?;
    let mut channel = Channel::new(socket, Classic::new()).map_err(io::Error::from)?;
    let question = Header { pid: u32::MAX, ..Header::new(IDENTIFY_STDIN) };
    let descriptor = File::open("/dev/null")?.into();
    channel.tx.compose(question, b"", Some(descriptor)).map_err(io::Error::other)?;
    while channel.tx.write()? == WriteOutcome::WouldBlock {
        wait_until(end, &channel, PollFlags::POLLOUT)?;
    }
    let mut ended = false;
    loop {
        match channel.rx.next_message() {
            Ok(Some(message)) => match message.header.msg_type {
                OTHER_VERSION => return Ok(Any::Classic(Endian::NATIVE)),
                msg_type => return Err(ProbeError::Answer { msg_type }),
            },
            Ok(None) if ended => return modern,
            Ok(None) => {}
            Err(error) if error.is_peer_gone() => return modern,
            Err(error) => return Err(RecvError::from(error).into()),
        }
        match channel.rx.read() {
            Ok(ReadOutcome::Data) => {}
            Ok(ReadOutcome::WouldBlock) => wait_until(end, &channel, PollFlags::POLLIN)?,
            Ok(ReadOutcome::Closed) => ended = true,
            Err(error) if error.is_peer_gone() => return modern,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Connects, and waits that long for a place in the queue of a server that accepts nobody.
pub(crate) fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let end = Instant::now() + patience;
    loop {
        match mio::net::UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                // No event tells that there is one.
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(io::Error::new(ErrorKind::TimedOut, "it accepts no connection"));
            }
            connected => return connected.map(UnixStream::from),
        }
    }
}

fn wait_until(end: Instant, what: &impl AsFd, flags: PollFlags) -> Result<(), ProbeError> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ProbeError::Silence);
    }
    let left = PollTimeout::try_from(left.as_nanos().div_ceil(1_000_000));
    match poll(&mut [PollFd::new(what.as_fd(), flags)], left.unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

/// Why the dialect is not known.
#[derive(Debug)]
pub(crate) enum ProbeError {
    /// It says what no known server says.
    Answer { msg_type: u32 },
    /// It says nothing, or not all of it.
    Silence,
    /// It breaks the rules, or the system does not do what is asked of it.
    Failed(RecvError),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { msg_type } => write!(
                f,
                "the server answered the probe for its dialect with a message of type {msg_type}"
            ),
            Self::Silence => {
                f.write_str("the server did not answer the probe for its dialect in time")
            }
            Self::Failed(error) => write!(f, "the probe for its dialect failed: {error}"),
        }
    }
}

impl std::error::Error for ProbeError {}

impl From<RecvError> for ProbeError {
    fn from(error: RecvError) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}
