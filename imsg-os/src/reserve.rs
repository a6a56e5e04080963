//! How a process at its limit of descriptors still gets the next one.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use imsg_wire::Ancillary;

use crate::error::RecvError;
use crate::sys::{self, Instead, Interest, Look};

/// A descriptor that is kept to be closed when there is no room for one that arrives.
pub(crate) struct Reserve {
    spare: Option<OwnedFd>,
    look: Look,
}

impl Reserve {
    pub(crate) fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { look: Look::new()?, spare: Some(socket.try_clone_to_owned()?) })
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.spare.is_none()
    }

    /// Reads once, and gives the reserve up if a descriptor would be lost otherwise. Without it,
    /// this reads what comes before the descriptor.
    pub(crate) fn recv(
        &mut self,
        socket: BorrowedFd<'_>,
        buf: &mut [u8],
        waits: bool,
    ) -> Result<(usize, Ancillary<OwnedFd>), RecvError> {
        self.refill(socket);
        // A descriptor that is seen is installed, and has to make room for itself: it is closed.
        let (seen, dropped) = match self.look_ahead(socket, buf, waits)? {
            (0, _) => return Ok((0, Ancillary::Nothing)),
            (n, ancillary) => (n, matches!(ancillary, Ancillary::Dropped)),
        };
        // No further than was seen: behind that, a descriptor may have arrived since.
        let (len, touched) = if dropped && self.spare.take().is_none() {
            (self.look.before_descriptor(socket, buf).min(seen), buf.len())
        } else {
            (seen, seen)
        };
        let received = match buf.get_mut(..len) {
            Some(place @ [_, ..]) => sys::recv(socket, place, true, false).map_err(RecvError::Io),
            _ => Err(RecvError::DescriptorLimit),
        };
        self.refill(socket);
        // What was not received must not linger.
        let n = received.as_ref().map_or(0, |(n, _)| *n);
        buf.get_mut(n..touched).unwrap_or_default().fill(0);
        received
    }

    fn look_ahead(
        &self,
        socket: BorrowedFd<'_>,
        buf: &mut [u8],
        waits: bool,
    ) -> io::Result<(usize, Ancillary<OwnedFd>)> {
        let mut instead = Instead::new(Interest::Readable, waits);
        loop {
            let would_block = match self.look.ahead(socket, buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => error,
                seen => return seen,
            };
            // An urgent byte is not seen, and keeps the socket readable until it is taken.
            if sys::take_urgent(socket)
                && let Ok(seen) = self.look.ahead(socket, buf)
            {
                return Ok(seen);
            }
            instead.wait(socket, would_block)?;
        }
    }

    fn refill(&mut self, socket: BorrowedFd<'_>) {
        if self.spare.is_none() {
            self.spare = socket.try_clone_to_owned().ok();
        }
    }
}
