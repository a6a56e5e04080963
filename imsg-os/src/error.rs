//! What can go wrong on a channel.

use std::error;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

/// Nothing was received.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// The system call failed. `ECONNRESET` is how Linux says that the peer closed with data of
    /// ours unread.
    Io(io::Error),
    /// The stream is broken, now and for good: the peer broke the protocol, or it ended inside a
    /// message.
    Protocol(imsg_wire::Error),
    /// The buffer is full: take messages before reading on. Nothing was asked of the kernel.
    Full,
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Protocol(error) => error.fmt(f),
            Self::Full => imsg_wire::NoRoom::Full.fmt(f),
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

/// A channel cannot be made of what was given, which is given back.
#[derive(Debug)]
pub struct NotAStream {
    /// What was given.
    pub socket: OwnedFd,
    /// Why not: it is no socket, or no stream socket.
    pub error: io::Error,
}

impl fmt::Display for NotAStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a channel needs a stream socket: {}", self.error)
    }
}

impl error::Error for NotAStream {}

impl From<NotAStream> for io::Error {
    fn from(error: NotAStream) -> Self {
        error.error
    }
}
