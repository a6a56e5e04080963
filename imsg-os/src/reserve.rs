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
        let mut instead = Instead::new(Interest::Readable, waits);
        loop {
            match self.try_recv(socket, buf) {
                Err(RecvError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    instead.wait(socket, error)?;
                }
                result => return result,
            }
        }
    }

    fn try_recv(
        &mut self,
        socket: BorrowedFd<'_>,
        buf: &mut [u8],
    ) -> Result<(usize, Ancillary<OwnedFd>), RecvError> {
        self.refill(socket);
        // A descriptor that is seen is installed, and has to make room for itself: it is closed.
        let (seen, dropped) = match self.look_ahead(socket, buf)? {
            Some((0, _)) => return Ok((0, Ancillary::Nothing)),
            Some((n, ancillary)) => (n, matches!(ancillary, Ancillary::Dropped)),
            None => {
                // Nothing is there, but a descriptor may come until this reads.
                self.spare = None;
                (buf.len(), false)
            }
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

    /// What a read would bring; `None` when that is nothing, but a read has to be made.
    fn look_ahead(
        &self,
        socket: BorrowedFd<'_>,
        buf: &mut [u8],
    ) -> io::Result<Option<(usize, Ancillary<OwnedFd>)>> {
        let is_empty = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        match self.look.ahead(socket, buf) {
            // An urgent byte hides what is behind it. Once it is taken, its place keeps the socket
            // readable until a read has gone over it.
            Err(error) if is_empty(&error) && sys::take_urgent(socket) => {
                match self.look.ahead(socket, buf) {
                    Err(error) if is_empty(&error) => Ok(None),
                    seen => seen.map(Some),
                }
            }
            seen => seen.map(Some),
        }
    }

    fn refill(&mut self, socket: BorrowedFd<'_>) {
        if self.spare.is_none() {
            self.spare = socket.try_clone_to_owned().ok();
        }
    }
}
