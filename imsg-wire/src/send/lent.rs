//! A message whose descriptor is not given away.

use core::fmt;

use zerocopy::{Immutable, IntoBytes};

use crate::dialect::{Dialect, header_len};
use crate::error::{NotOffered, Reason};
use crate::header::{Frame, Header};
use crate::send::SendBuf;
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
    /// assert_eq!(lent.bytes().len(), 16 + 12);
    /// lent.sent(20)?; // together with the descriptor
    /// assert_eq!(queue.chunk().unwrap().bytes, b"look at this".split_at(4).1);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Reason::TooLong`], and [`Reason::Full`] when the queue is not empty.
    pub fn lend<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        header: Header,
        payload: &T,
    ) -> Result<Lent<'_, D, S, F, N>, Reason> {
        let payload = payload.as_bytes();
        let len = header_len::<D>().saturating_add(payload.len());
        if !self.is_empty() {
            return Err(Reason::Full { len, free: 0 });
        }
        let frame = Frame { header: self.state.sign(header), len, marked: true };
        self.state.write(&mut self.storage, &frame, &[payload])?;
        self.state.lent = self.state.end.saturating_add(len);
        Ok(Lent { queue: self, len })
    }
}

/// A message that is to be sent at once with a descriptor that stays the caller's; see
/// [`SendBuf::lend`].
#[must_use = "it is forgotten unless it is said to be sent"]
pub struct Lent<'a, D, S, F, const N: usize> {
    queue: &'a mut SendBuf<D, S, F, N>,
    len: usize,
}

impl<D: Dialect, S: Storage, F, const N: usize> Lent<'_, D, S, F, N> {
    /// The bytes to send, with the descriptor.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let SendBuf { storage, state } = &*self.queue;
        storage.bytes().get(state.end..).and_then(|bytes| bytes.get(..self.len)).unwrap_or_default()
    }

    /// Says that the kernel took the first `n` bytes, and the descriptor with them if that is more
    /// than none. The rest is queued.
    ///
    /// # Errors
    ///
    /// [`NotOffered`] when `n` is more than there are; nothing is queued then.
    pub fn sent(self, n: usize) -> Result<(), NotOffered> {
        let Self { queue, len } = self;
        if n > len {
            return Err(NotOffered { claimed: n, offered: len, returned: () });
        }
        if n > 0 {
            queue.state.queue(len, None);
            queue.state.lent = 0;
            queue.state.sent_descriptors = queue.state.sent_descriptors.wrapping_add(1);
            queue.consume(n)?;
        }
        Ok(())
    }
}

impl<D, S, F, const N: usize> fmt::Debug for Lent<'_, D, S, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("len", &self.len).finish_non_exhaustive()
    }
}
