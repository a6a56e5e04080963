//! A message whose descriptor is not given away.

use core::fmt;

use zerocopy::{Immutable, IntoBytes};

use crate::dialect::{Dialect, header_len};
use crate::error::{NotOffered, Reason};
use crate::header::{Frame, Header};
use crate::send::{Gathered, SendBuf};
use crate::storage::Storage;

impl<D: Dialect, S: Storage, F, const N: usize> SendBuf<D, S, F, N> {
    /// Makes a message whose descriptor is not given away, but only lent for one `sendmsg`, which
    /// the caller makes. The queue must be empty, as this message cannot wait in it.
    ///
    /// It is queued by [`Lent::sent`], but for the bytes that were sent, and forgotten when that
    /// is not called.
    ///
    /// ```
    /// use imsg_wire::{Header, Modern, SendBuf};
    ///
    /// let mut queue = SendBuf::new(Modern::new(), [0; 64]);
    /// let lent = queue.lend(Header::new(1), b"look at this")?;
    /// assert_eq!(lent.parts().map(<[u8]>::len), [16, 12]);
    /// lent.sent(20)?; // together with the descriptor
    /// assert_eq!(queue.chunk().unwrap().bytes, b"look at this".split_at(4).1);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Reason::TooLong`], and [`Reason::Full`] when the queue is not empty.
    pub fn lend<'a, T: IntoBytes + Immutable + ?Sized>(
        &'a mut self,
        header: Header,
        payload: &'a T,
    ) -> Result<Lent<'a, D, S, F, N>, Reason> {
        let payload = payload.as_bytes();
        let len = header_len::<D>().saturating_add(payload.len());
        if !self.is_empty() {
            return Err(Reason::Full { len, free: 0 });
        }
        self.has_room(payload.len(), false)?;
        let Self { storage, state } = self;
        state.release_abandoned(storage);
        let header = state.dialect.encode(&Frame { header: state.sign(header), len, marked: true });
        Ok(Lent { queue: self, header, payload })
    }
}

/// A message that is to be sent at once with a descriptor that stays the caller's; see
/// [`SendBuf::lend`].
#[must_use = "it is forgotten unless it is said to be sent"]
pub struct Lent<'a, D: Dialect, S, F, const N: usize> {
    queue: &'a mut SendBuf<D, S, F, N>,
    header: D::Raw,
    payload: &'a [u8],
}

impl<'a, D: Dialect, S: Storage, F, const N: usize> Lent<'a, D, S, F, N> {
    /// The bytes to send, with the descriptor: the header and the payload.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 2] {
        [self.header.as_bytes(), self.payload]
    }

    /// Says that the kernel took the first `n` bytes, and the descriptor with them if that is more
    /// than none. The rest is queued, once what this returns is dropped: until then it can be sent
    /// from where it is.
    ///
    /// # Errors
    ///
    /// [`NotOffered`] when `n` is more than there are; nothing is queued then.
    pub fn sent(self, n: usize) -> Result<Option<Gathered<'a, D, S, F, N>>, NotOffered> {
        let Self { queue, header, payload } = self;
        let offered = header_len::<D>().saturating_add(payload.len());
        if n > offered {
            return Err(NotOffered { claimed: n, offered, returned: () });
        }
        if n == 0 {
            return Ok(None);
        }
        let state = &mut queue.state;
        state.offset = state.offset.wrapping_add(n as u64);
        state.sent_descriptors = state.sent_descriptors.wrapping_add(1);
        Ok(Some(Gathered { queue, header, payload, descriptor: None, sent: n }))
    }
}

impl<D: Dialect, S, F, const N: usize> fmt::Debug for Lent<'_, D, S, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = header_len::<D>().saturating_add(self.payload.len());
        f.debug_struct("Lent").field("len", &len).finish_non_exhaustive()
    }
}
