//! Payloads, field by field.

use core::fmt;

use zerocopy::{Immutable, IntoBytes};

use crate::dialect::Dialect;
use crate::error::Reason;
use crate::send::Pending;

/// Writes a payload, field by field (`struct ibuf`, and the `ibuf_add` functions).
///
/// The bytes go into a slice, or straight into the queue of a [`SendBuf`](crate::SendBuf), whose
/// [`create`](crate::SendBuf::create) makes such a writer; only that one can be closed.
pub struct Writer<'a, P = ()> {
    buf: &'a mut [u8],
    len: usize,
    max: usize,
    pending: P,
}

impl<'a> Writer<'a> {
    /// A writer that fills `buf` from its start.
    pub fn new(buf: &'a mut [u8]) -> Self {
        let max = buf.len();
        Self::over(buf, max, ())
    }
}

impl<'a, P> Writer<'a, P> {
    pub(crate) fn over(buf: &'a mut [u8], max: usize, pending: P) -> Self {
        Self { buf, len: 0, max, pending }
    }

    /// Appends bytes, or a value that `zerocopy` can see as bytes (`ibuf_add`).
    ///
    /// # Errors
    ///
    /// [`Reason::TooLong`] beyond the maximum, [`Reason::Full`] where there is no room now;
    /// nothing is written then.
    #[inline]
    pub fn add<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> Result<(), Reason> {
        let value = value.as_bytes();
        let len = self.len.saturating_add(value.len());
        if len > self.max {
            return Err(Reason::TooLong { len, max: self.max });
        }
        let free = self.buf.len().saturating_sub(self.len);
        let rest = self.buf.get_mut(self.len..).unwrap_or_default();
        if value.write_to_prefix(rest).is_err() {
            return Err(Reason::Full { len: value.len(), free });
        }
        self.len = len;
        Ok(())
    }

    /// The bytes written so far.
    pub fn written(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }

    /// How many bytes can still be written.
    pub fn remaining(&self) -> usize {
        self.max.min(self.buf.len()).saturating_sub(self.len)
    }
}

impl<D: Dialect, F, const N: usize> Writer<'_, Pending<'_, D, F, N>> {
    /// Queues the message (`imsg_close`).
    pub fn close(self) {
        self.pending.close(self.len);
    }

    /// Gives the message up, and its descriptor back. Dropping the writer closes the descriptor.
    pub fn abandon(self) -> Option<F> {
        self.pending.abandon()
    }
}

impl<P> fmt::Debug for Writer<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("written", &crate::message::Abbreviated(self.written()))
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}
