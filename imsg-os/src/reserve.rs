//! How a process at its limit of descriptors still gets the next one.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use imsg_wire::Ancillary;

use crate::error::RecvError;
use crate::sys;

/// A descriptor that is kept to be closed when there is no room for one that arrives.
pub(crate) struct Reserve {
    spare: Option<OwnedFd>,
}

impl Reserve {
    pub(crate) fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self { spare: Some(socket.try_clone_to_owned()?) })
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.spare.is_none()
    }

    /// Reads once, and gives the reserve up if a descriptor would be lost otherwise.
    pub(crate) fn recv(
        &mut self,
        socket: BorrowedFd<'_>,
        buf: &mut [u8],
    ) -> Result<(usize, Ancillary<OwnedFd>), RecvError> {
        self.refill(socket);
        // A descriptor that is seen is installed, and has to make room for itself: it is closed.
        let (n, dropped) = match sys::peek(socket, buf)? {
            (0, _) => return Ok((0, Ancillary::Nothing)),
            (n, ancillary) => (n, matches!(ancillary, Ancillary::Dropped)),
        };
        let seen = buf.get_mut(..n).unwrap_or_default();
        if dropped && self.spare.take().is_none() {
            seen.fill(0);
            return Err(RecvError::DescriptorLimit);
        }
        // No further than was seen: behind that, a descriptor may have arrived since.
        let received = sys::recv(socket, seen, true);
        self.refill(socket);
        // What was not received must not linger.
        let n = received.as_ref().map_or(0, |(n, _)| *n);
        seen.get_mut(n..).unwrap_or_default().fill(0);
        Ok(received?)
    }

    fn refill(&mut self, socket: BorrowedFd<'_>) {
        if self.spare.is_none() {
            self.spare = socket.try_clone_to_owned().ok();
        }
    }
}
