//! How much can be queued.

use crate::dialect::{Dialect, header_len};
use crate::error::Reason;
use crate::send::SendBuf;
use crate::storage::Storage;

impl<D: Dialect, S: Storage, F, const N: usize> SendBuf<D, S, F, N> {
    /// Makes room for several messages that are a reply together, before the first is composed:
    /// as [`has_room`](SendBuf::has_room), but all that follow one another fit too, up to this many
    /// bytes of payload, where each message but one takes those of its header.
    ///
    /// `has_room` does not promise that. A short message goes where it fits, and then there may be
    /// nothing that makes room for the next.
    ///
    /// ```
    /// use imsg_wire::{HEADER_LEN, Header, Modern, SendBuf};
    ///
    /// let mut queue = SendBuf::new(Modern::new(), [0; 64]);
    /// queue.make_room(HEADER_LEN + 4, false)?;
    /// queue.compose(Header::new(1), b"", None)?;
    /// queue.compose(Header::new(2), b"more", None)?;
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`has_room`](SendBuf::has_room).
    pub fn make_room(&mut self, payload_len: usize, descriptor: bool) -> Result<(), Reason> {
        self.has_room(payload_len, descriptor)?;
        let len = header_len::<D>().saturating_add(payload_len);
        self.state.make_space(&mut self.storage, len);
        Ok(())
    }

    /// How many messages can be queued now at least, before one is refused for want of room, each
    /// with a payload of up to this many bytes, and with a descriptor or without.
    ///
    /// There can be room for more once some were queued, as what is there may be moved then. A message
    /// that is [too long](Reason::TooLong) is never refused for want of room, so that is `usize::MAX`:
    /// who waits for room would wait for ever. Give no more than [`max_len`](SendBuf::max_len) allows,
    /// as otherwise nothing holds shorter messages back.
    ///
    /// ```
    /// use imsg_wire::{Header, Modern, SendBuf};
    ///
    /// let mut queue = SendBuf::new(Modern::new(), [0; 64]);
    /// assert_eq!(queue.room_for(4, false), 3); // of 20 bytes each
    /// queue.compose(Header::new(1), b"long", None)?;
    /// assert_eq!(queue.room_for(4, false), 2);
    /// # Ok::<(), imsg_wire::Refused>(())
    /// ```
    pub fn room_for(&self, payload_len: usize, descriptor: bool) -> usize {
        match self.has_room(payload_len, descriptor) {
            Ok(()) => {}
            Err(Reason::TooLong { .. }) => return usize::MAX,
            Err(_) => return 0,
        }
        let len = header_len::<D>().saturating_add(payload_len);
        let storage = self.storage.bytes().len();
        let (start, queued) = (self.state.start, self.state.queued());
        let behind = storage.saturating_sub(self.state.end);
        let free = if behind >= len {
            behind
        } else if start >= queued.saturating_add(behind) {
            storage.saturating_sub(queued)
        } else {
            // Nothing may be moved any more once short messages lie in the space behind.
            len
        };
        let descriptors =
            if descriptor { N.saturating_sub(self.state.descriptors.len()) } else { usize::MAX };
        free.checked_div(len).unwrap_or(usize::MAX).min(descriptors)
    }
}
