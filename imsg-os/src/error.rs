//! What can go wrong on a channel.

use std::error;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

/// Why a read brought nothing, or no message can be taken.
///
/// As an [`io::Error`], it has the error number that libutil gives, or that comes closest; a stream
/// that ended inside a message is of kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), without
/// a number.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// The system call failed. `ECONNRESET` is how Linux says, once, that the peer closed with data
    /// of ours unread.
    Io(io::Error),
    /// The stream is broken, now and for good: the peer broke the protocol, or it ended inside a
    /// message.
    Protocol(imsg_wire::Error),
    /// The buffer is full, of bytes or of descriptors: take messages before reading on. Nothing was
    /// asked of the kernel.
    Full,
    /// A descriptor is next, but this process cannot have another one (`RLIMIT_NOFILE`), and the
    /// [reserve](crate::Receiver::keep_reserve) is used up. Nothing was read: close some, and read
    /// again. (While the reserve is used up, a descriptor that a security module forbids looks the
    /// same.)
    DescriptorLimit,
}

impl RecvError {
    /// Whether this is how it shows that the peer is gone: it reset the connection, or the stream
    /// ended inside a message.
    #[must_use]
    pub fn is_peer_gone(&self) -> bool {
        match self {
            Self::Io(error) => is_peer_gone(error),
            Self::Protocol(error) => error.is_peer_gone(),
            Self::Full | Self::DescriptorLimit => false,
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Protocol(error) => error.fmt(f),
            Self::Full => imsg_wire::NoRoom::Full.fmt(f),
            Self::DescriptorLimit => {
                f.write_str("a descriptor waits, and this process has no room for another one")
            }
        }
    }
}

impl error::Error for RecvError {}

impl From<io::Error> for RecvError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<imsg_wire::Error> for RecvError {
    fn from(error: imsg_wire::Error) -> Self {
        Self::Protocol(error)
    }
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        let number = match error {
            RecvError::Io(error) => return error,
            RecvError::Full => libc::ENOBUFS,
            RecvError::DescriptorLimit => libc::EMFILE,
            RecvError::Protocol(imsg_wire::Error::Length { .. }) => libc::ERANGE,
            RecvError::Protocol(imsg_wire::Error::Truncated { .. }) => {
                return io::ErrorKind::UnexpectedEof.into();
            }
            RecvError::Protocol(_) => libc::EBADMSG,
        };
        Self::from_raw_os_error(number)
    }
}

/// A message was not sent.
///
/// As an [`io::Error`], it has the error number that libutil gives, or that comes closest.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The system call failed, or would block.
    Io(io::Error),
    /// The message cannot be sent, or not before what is queued.
    Refused(imsg_wire::Reason),
}

impl SendError {
    /// Whether this is how it shows that the peer is gone, or reads no more.
    #[must_use]
    pub fn is_peer_gone(&self) -> bool {
        matches!(self, Self::Io(error) if is_peer_gone(error))
    }
}

/// Whether an error of a [flush](crate::Sender::flush) or a [write](crate::Sender::write), or one
/// that was made of a [`RecvError`] or a [`SendError`], says that the peer is gone.
///
/// What it sent before can still be received.
///
/// ```
/// use imsg_os::{Channel, Header, Modern, is_peer_gone};
///
/// let (mut channel, peer) = Channel::pair(Modern::new())?;
/// channel.tx.compose(Header::new(1), b"are you there?", None).unwrap();
/// drop(peer);
/// assert!(is_peer_gone(&channel.tx.flush().unwrap_err()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn is_peer_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof)
}

/// Whether a flush may succeed later, when this process, the system or the peer made room.
pub(crate) fn is_temporary(error: &io::Error) -> bool {
    const NUMBERS: [i32; 4] = [libc::ETOOMANYREFS, libc::EMFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|number| NUMBERS.contains(&number))
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Refused(reason) => reason.fmt(f),
        }
    }
}

impl error::Error for SendError {}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<imsg_wire::Reason> for SendError {
    fn from(reason: imsg_wire::Reason) -> Self {
        Self::Refused(reason)
    }
}

impl From<imsg_wire::WriteError> for SendError {
    fn from(error: imsg_wire::WriteError) -> Self {
        Self::Refused(error.into())
    }
}

/// Closes the descriptor that is given back.
impl From<imsg_wire::Refused<OwnedFd>> for SendError {
    fn from(refused: imsg_wire::Refused<OwnedFd>) -> Self {
        Self::Refused(refused.reason)
    }
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        let number = match error {
            SendError::Io(error) => return error,
            SendError::Refused(imsg_wire::Reason::TooLong { .. }) => libc::ERANGE,
            SendError::Refused(imsg_wire::Reason::Missing(_)) => libc::EBADMSG,
            SendError::Refused(imsg_wire::Reason::Payload(_)) => libc::EINVAL,
            SendError::Refused(_) => libc::ENOBUFS,
        };
        Self::from_raw_os_error(number)
    }
}

/// A channel cannot be made of what was given, which is given back.
#[derive(Debug)]
pub struct NotAStream {
    /// What was given.
    pub socket: OwnedFd,
    /// Why not: it is no socket, of another type or family, listens, or is not connected; or there is
    /// no memory for a channel.
    pub error: io::Error,
}

impl fmt::Display for NotAStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a channel needs a connected Unix stream socket: {}", self.error)
    }
}

impl error::Error for NotAStream {}

impl From<NotAStream> for io::Error {
    fn from(error: NotAStream) -> Self {
        error.error
    }
}
