//! A message whose payload is written where it is sent from.

use core::fmt;

use zerocopy::IntoBytes;

use crate::dialect::{Dialect, header_len};
use crate::error::{Reason, Refused};
use crate::header::{Frame, Header};
use crate::payload::Writer;
use crate::send::{SendBuf, SendState};
use crate::storage::Storage;

impl<D: Dialect, S: Storage, F, const N: usize> SendBuf<D, S, F, N> {
    /// Begins a message whose payload is written in place (`imsg_create`).
    ///
    /// It is queued by [`Writer::close`], and forgotten when the writer is dropped before that.
    ///
    /// ```
    /// use imsg_wire::{Header, Modern, SendBuf};
    ///
    /// let mut queue = SendBuf::new(Modern::new(), [0; 64]);
    /// let mut message = queue.create(Header::new(1), None)?;
    /// message.add(b"in ")?;
    /// message.add(b"place")?;
    /// message.close();
    /// queue.create(Header::new(2), None)?.add(b"given up")?;
    /// assert_eq!(queue.queue_len(), 1);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refused`] when there is no room for a header or for the descriptor, which is given back.
    pub fn create(
        &mut self,
        header: Header,
        descriptor: Option<F>,
    ) -> Result<Writer<'_, Pending<'_, D, F, N>>, Refused<F>> {
        let Self { storage, state } = self;
        if let Err(reason) = state.admit(descriptor.is_some()) {
            return Err(Refused { reason, descriptor });
        }
        let len = header_len::<D>();
        let space = state.space(storage, state.max_len);
        let free = space.len();
        let Some((raw, payload)) = space.split_at_mut_checked(len) else {
            let reason = Reason::Full { len, free };
            return Err(Refused { reason, descriptor });
        };
        state.lent = state.end.saturating_add(free.min(state.max_len));
        let max_len = state.max_len.saturating_sub(len);
        let header = state.sign(header);
        Ok(Writer::over(payload, max_len, Pending { state, raw, header, descriptor }))
    }
}

/// What a [`Writer`] over the space of a [`SendBuf`] holds until its message is closed.
pub struct Pending<'a, D: Dialect, F, const N: usize> {
    state: &'a mut SendState<D, F, N>,
    raw: &'a mut [u8],
    header: Header,
    descriptor: Option<F>,
}

/// A message in place that is not queued yet: what a [`Writer`] holds that
/// [`Compose::create`](crate::Compose::create) made. Only [`Pending`] is one.
pub trait InPlace: Sized + sealed::Sealed {
    /// The type of a descriptor.
    type Descriptor;

    #[doc(hidden)]
    fn close_with(
        writer: Writer<'_, Self>,
        descriptor: Option<Self::Descriptor>,
    ) -> Result<(), Refused<Self::Descriptor>>;

    #[doc(hidden)]
    fn into_descriptor(self) -> Option<Self::Descriptor>;
}

mod sealed {
    pub trait Sealed {}
}

impl<P: InPlace> Writer<'_, P> {
    /// Queues the message (`imsg_close`).
    pub fn close(self) {
        // Only another descriptor could be refused.
        let _ = P::close_with(self, None);
    }

    /// Gives the message up, and its descriptor back (`ibuf_free`, which closes it; so does
    /// dropping the writer).
    pub fn abandon(self) -> Option<P::Descriptor> {
        self.finish().1.into_descriptor()
    }
}

impl<D: Dialect, F, const N: usize> sealed::Sealed for Pending<'_, D, F, N> {}

impl<D: Dialect, F, const N: usize> InPlace for Pending<'_, D, F, N> {
    type Descriptor = F;

    #[inline]
    fn close_with(writer: Writer<'_, Self>, descriptor: Option<F>) -> Result<(), Refused<F>> {
        let (payload_len, Pending { state, raw, header, descriptor: held }) = writer.finish();
        if let Err(reason) = state.admit(descriptor.is_some()) {
            return Err(Refused { reason, descriptor });
        }
        let descriptor = descriptor.or(held);
        let len = header_len::<D>().saturating_add(payload_len);
        let frame = Frame { header, len, marked: descriptor.is_some() };
        if state.dialect.encode(&frame).write_to(raw).is_ok() {
            state.queue(state.end.wrapping_add(len), descriptor);
            state.lent = 0;
        }
        Ok(())
    }

    fn into_descriptor(self) -> Option<F> {
        self.descriptor
    }
}

impl<D: Dialect, F, const N: usize> fmt::Debug for Pending<'_, D, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("header", &self.header).finish_non_exhaustive()
    }
}
