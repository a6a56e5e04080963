//! A message that is sent from where its payload is.

use core::fmt;

use zerocopy::{Immutable, IntoBytes};

use crate::descriptor::Descriptor;
use crate::dialect::{Dialect, header_len};
use crate::error::{NotOffered, Reason, Refused};
use crate::header::{Frame, Header};
use crate::message::Message;
use crate::send::{SendBuf, fill};
use crate::storage::Storage;

impl<D: Dialect, S: Storage, F, const N: usize> SendBuf<D, S, F, N> {
    /// Queues a message as [`compose`](SendBuf::compose) does, but does not copy its payload yet, so
    /// that it can be sent from where it is: by one `sendmsg`, with what is queued. Only what was
    /// not sent when the [`Gathered`] is dropped is copied to the queue.
    ///
    /// There has to be room for all of the message, as that may be all that is not sent. In a storage
    /// of memory that is mapped when it is first written to, room that is not used costs none.
    ///
    /// ```
    /// use imsg_wire::{Header, Modern, SendBuf};
    ///
    /// let mut queue = SendBuf::new(Modern::new(), [0; 128]);
    /// queue.compose(Header::new(1), b"first", None)?;
    /// let mut second = queue.gather(Header::new(2), b"second", None)?;
    /// assert_eq!(second.parts().map(<[u8]>::len), [16 + 5, 16, 6]);
    /// second.consume(16 + 5 + 16 + 2)?;
    /// drop(second);
    /// assert_eq!(queue.chunk().unwrap().bytes, b"cond");
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`compose`](SendBuf::compose).
    pub fn gather<'a, T: IntoBytes + Immutable + ?Sized>(
        &'a mut self,
        header: Header,
        payload: &'a T,
        descriptor: Option<F>,
    ) -> Result<Gathered<'a, D, S, F, N>, Refused<F>> {
        let header = self.state.sign(header);
        self.gather_signed(header, payload.as_bytes(), descriptor)
    }

    /// Queues a received message again as [`forward`](SendBuf::forward) does, but without copying
    /// its payload yet; see [`gather`](SendBuf::gather).
    ///
    /// # Errors
    ///
    /// As [`forward`](SendBuf::forward).
    pub fn gather_forward<'a, G>(
        &'a mut self,
        message: &Message<'a, G>,
        descriptor: Option<F>,
    ) -> Result<Gathered<'a, D, S, F, N>, Refused<F>> {
        if let (Descriptor::Missing(missing), None) = (&message.descriptor, &descriptor) {
            return Err(Refused { reason: Reason::Missing(*missing), descriptor });
        }
        self.gather_signed(message.header, message.payload, descriptor)
    }

    fn gather_signed<'a>(
        &'a mut self,
        header: Header,
        payload: &'a [u8],
        descriptor: Option<F>,
    ) -> Result<Gathered<'a, D, S, F, N>, Refused<F>> {
        let marked = descriptor.is_some();
        if let Err(reason) = self.has_room(payload.len(), marked) {
            return Err(Refused { reason, descriptor });
        }
        let Self { storage, state } = self;
        state.release_abandoned(storage);
        let len = header_len::<D>().saturating_add(payload.len());
        let header = state.dialect.encode(&Frame { header, len, marked });
        Ok(Gathered { queue: self, header, payload, descriptor, sent: 0 })
    }
}

/// A message behind all that is queued, whose payload is still where the caller has it; see
/// [`SendBuf::gather`].
///
/// A round is that of the queue: send what [`parts`](Gathered::parts) shows, with the
/// [`descriptor`](Gathered::descriptor), and tell [`consume`](Gathered::consume) how much of it the
/// kernel took.
///
/// Dropping it queues what was not sent. So it must not be [forgotten](core::mem::forget): a message
/// of which a part was sent would never end then.
pub struct Gathered<'a, D: Dialect, S: Storage, F, const N: usize> {
    pub(super) queue: &'a mut SendBuf<D, S, F, N>,
    pub(super) header: D::Raw,
    pub(super) payload: &'a [u8],
    /// The descriptor, until it is sent.
    pub(super) descriptor: Option<F>,
    /// How many bytes of the message were sent.
    pub(super) sent: usize,
}

impl<D: Dialect, S: Storage, F, const N: usize> Gathered<'_, D, S, F, N> {
    /// What to send next, by one `sendmsg`: what is queued, the header and the payload, each of
    /// which may be empty. All are when everything is sent.
    ///
    /// As a [chunk](SendBuf::chunk), they begin with the message that owns their descriptor. So they
    /// have nothing of this message as long as another one's descriptor has to be sent before, or as
    /// its own has to wait for what is queued.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 3] {
        let queued = self.queue.chunk().map(|chunk| chunk.bytes).unwrap_or_default();
        let alone = queued.is_empty();
        let last = queued.len() == self.queue.queue_bytes();
        if alone || last && self.descriptor.is_none() {
            let [header, payload] = unsent(&self.header, self.payload, self.sent);
            [queued, header, payload]
        } else {
            [queued, &[], &[]]
        }
    }

    /// The descriptor that belongs to the first byte of the [`parts`](Gathered::parts).
    #[must_use]
    pub fn descriptor(&self) -> Option<&F> {
        match self.queue.chunk() {
            Some(chunk) => chunk.descriptor,
            None => self.descriptor.as_ref(),
        }
    }

    /// Says that the kernel took the first `n` bytes of the [`parts`](Gathered::parts), and gives
    /// back the descriptor that went with them, to be closed.
    ///
    /// # Errors
    ///
    /// [`NotOffered`] when `n` is more than they have; nothing is consumed then.
    pub fn consume(&mut self, n: usize) -> Result<Option<F>, NotOffered> {
        let [queued, header, payload] = self.parts().map(<[u8]>::len);
        let offered = queued.saturating_add(header).saturating_add(payload);
        if n > offered {
            return Err(NotOffered { claimed: n, offered, returned: () });
        }
        let of_queue = self.queue.consume(n.min(queued))?;
        let n = n.saturating_sub(queued);
        if n == 0 {
            return Ok(of_queue);
        }
        let state = &mut self.queue.state;
        state.offset = state.offset.wrapping_add(n as u64);
        self.sent = self.sent.saturating_add(n);
        // One with a descriptor begins its `sendmsg`, so that the queue had none to give back.
        let Some(descriptor) = self.descriptor.take() else {
            return Ok(of_queue);
        };
        state.sent_descriptors = state.sent_descriptors.wrapping_add(1);
        Ok(Some(descriptor))
    }
}

/// Queues what was not sent.
impl<D: Dialect, S: Storage, F, const N: usize> Drop for Gathered<'_, D, S, F, N> {
    fn drop(&mut self) {
        let rest = unsent(&self.header, self.payload, self.sent);
        let len = rest.iter().fold(0_usize, |len, part| len.saturating_add(part.len()));
        let SendBuf { storage, state } = &mut *self.queue;
        // There is room, as there was when this was made, and nothing was queued since.
        if len == 0 || !fill(state.space(storage, len), &rest) {
            return;
        }
        state.queue(state.end.wrapping_add(len), self.descriptor.take());
        if self.sent > 0 {
            state.boundary = len;
        }
    }
}

/// What is left of a message when so many bytes were sent.
fn unsent<'a, R: IntoBytes + Immutable>(
    header: &'a R,
    payload: &'a [u8],
    sent: usize,
) -> [&'a [u8]; 2] {
    let header = header.as_bytes();
    let of_payload = sent.saturating_sub(header.len());
    [header.get(sent..).unwrap_or_default(), payload.get(of_payload..).unwrap_or_default()]
}

impl<D: Dialect, S: Storage, F, const N: usize> fmt::Debug for Gathered<'_, D, S, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = header_len::<D>().saturating_add(self.payload.len());
        f.debug_struct("Gathered")
            .field("len", &len)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}
