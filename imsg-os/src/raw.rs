//! Single reads and sends, for those who keep the socket and the queue themselves: the C library is
//! built on these.
//!
//! A program takes a [`Channel`](crate::Channel), which does the rest too. These call the kernel as
//! a channel does: descriptors are close-on-exec, nothing raises `SIGPIPE`, and a call that a signal
//! interrupts is made again.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};

use imsg_wire::{Ancillary, Dialect, RecvBuf, Storage};

use crate::channel::receiver::{ReadOutcome, read_by};
use crate::error::RecvError;
use crate::sys;

/// What a stream is read by, besides its buffer.
#[derive(Debug, Default)]
pub struct Reader {
    /// Whether the last read failed, and lost a descriptor by that.
    failed: bool,
}

impl Reader {
    /// Reads once from a socket into a buffer, as [`Receiver::read`](crate::Receiver::read) does.
    /// It waits if the socket does.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read<D: Dialect, S: Storage, const N: usize>(
        &mut self,
        socket: BorrowedFd<'_>,
        buf: &mut RecvBuf<D, S, OwnedFd, N>,
    ) -> Result<ReadOutcome, RecvError> {
        self.read_by(buf, |spare, descriptors| recv(socket, spare, descriptors))
    }

    /// As [`read`](Self::read), but by a call that is told where to read to, and whether descriptors
    /// are wanted. It gives the bytes read, 0 at the end, and what came with them.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_by<D: Dialect, S: Storage, const N: usize>(
        &mut self,
        buf: &mut RecvBuf<D, S, OwnedFd, N>,
        recv: impl FnOnce(&mut [u8], bool) -> io::Result<(usize, Ancillary<OwnedFd>)>,
    ) -> Result<ReadOutcome, RecvError> {
        read_by(buf, &mut self.failed, |spare, allowed| recv(spare, allowed).map_err(RecvError::Io))
    }
}

/// Reads once from a socket, and what came beside the bytes if `descriptors` are wanted; others are
/// closed. No bytes, and nothing beside them, are the end of the stream. It waits if the socket does.
///
/// # Errors
///
/// What the system says.
pub fn recv(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors: bool,
) -> io::Result<(usize, Ancillary<OwnedFd>)> {
    sys::recv(socket, bytes, descriptors, true)
}

/// Sends what a socket takes of `parts`, one behind the other, and a descriptor with the first byte.
/// There are 1024 parts at most, and one byte at least.
///
/// It waits if the socket does, unless there is a descriptor: a send with one never waits, as gVisor
/// loses it then. Poll, and send again.
///
/// # Errors
///
/// What the system says.
pub fn send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    sys::send_once(socket, parts, descriptor)
}
