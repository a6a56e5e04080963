//! What can go wrong.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use imsg_os::typed::BadMessage;
use imsg_os::{Reason, RecvError, Refused, WriteError, is_peer_gone};

use super::patience::Wait;
use super::protocol::VERSION;
use crate::probe::ProbeError;

#[derive(Debug)]
pub(crate) enum Error {
    /// Nobody listens on the socket, or it is no socket of ours.
    NoServer { path: PathBuf, error: io::Error },
    /// The dialect of the server is not known.
    Probe(ProbeError),
    /// The server takes too long for this.
    Silence(Wait),
    /// `poll` takes no more descriptors than the limit is (`RLIMIT_NOFILE`).
    TooManyToWaitFor(usize),
    /// The server has another version of the protocol.
    Version { server: u32 },
    /// The server is gone, and did not say how the command ended.
    Gone,
    /// The command attached this client to a session.
    Attached,
    /// The server sent what it has no reason to send.
    Bad(BadMessage<OwnedFd>),
    /// The server writes to a stream that is not open.
    Stream { msg_type: u32, stream: i32 },
    /// The server breaks the rules of imsg.
    Protocol(imsg_os::Error),
    /// A message cannot be sent; as a command that is too long.
    Refused(Reason),
    /// A message cannot be written; the same.
    Write(WriteError),
    /// Standard output, or standard error, takes no more.
    Output(io::Error),
    /// The system does not do what is asked of it.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer { path, error } => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    write!(f, "no server running on {}: {error}", path.display())
                }
                _ => write!(f, "cannot connect to {}: {error}", path.display()),
            },
            Self::Probe(error) => write!(f, "{error}; use --dialect"),
            Self::Silence(wait) => write!(f, "gave up waiting for {wait}"),
            Self::TooManyToWaitFor(number) => write!(
                f,
                "the limit of open files (RLIMIT_NOFILE) is less than the {number} that are waited for"
            ),
            Self::Version { server } => write!(
                f,
                "the server speaks version {server} of the protocol, and this client version \
                 {VERSION}"
            ),
            Self::Gone => f.write_str("the server exited unexpectedly"),
            Self::Attached => {
                f.write_str("the command attaches to a session, which this client cannot do")
            }
            Self::Bad(bad) => write!(f, "the server sent a {bad}"),
            Self::Stream { msg_type, stream } => write!(
                f,
                "the server sent a message of type {msg_type} for stream {stream}, which is not open"
            ),
            Self::Protocol(error) => write!(f, "the server broke the protocol: {error}"),
            Self::Refused(reason) => write!(f, "cannot ask the server: {reason}"),
            Self::Write(error) => write!(f, "cannot ask the server: {error}"),
            Self::Output(error) => write!(f, "cannot print: {error}"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if is_peer_gone(&error) { Self::Gone } else { Self::Io(error) }
    }
}

impl From<imsg_os::Error> for Error {
    fn from(error: imsg_os::Error) -> Self {
        match error {
            // It was killed in the middle of a message.
            imsg_os::Error::Truncated { .. } => Self::Gone,
            error => Self::Protocol(error),
        }
    }
}

impl From<RecvError> for Error {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Io(error) => error.into(),
            RecvError::Protocol(error) => error.into(),
            error => Self::Io(io::Error::other(error)),
        }
    }
}

impl<F> From<Refused<F>> for Error {
    fn from(refused: Refused<F>) -> Self {
        Self::Refused(refused.reason)
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<BadMessage<OwnedFd>> for Error {
    fn from(bad: BadMessage<OwnedFd>) -> Self {
        Self::Bad(bad)
    }
}
