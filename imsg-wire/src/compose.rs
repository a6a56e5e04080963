//! The one trait of all that can be composed to.

use zerocopy::{Immutable, IntoBytes};

use crate::dialect::Dialect;
use crate::error::{Reason, Refused};
use crate::header::Header;
use crate::message::Message;
use crate::payload::Writer;
use crate::send::{InPlace, Pending, SendBuf};
use crate::storage::Storage;

/// What messages can be composed to: a [`SendBuf`], and the senders of `imsg-os`.
///
/// Code that is generic over it can be tested without a socket. Each method is that of
/// [`SendBuf`] with the same name.
///
/// ```
/// use imsg_wire::{Compose, Header, Modern, Refused, SendBuf};
///
/// fn greet<Q: Compose>(queue: &mut Q, id: u32) -> Result<(), Refused<Q::Descriptor>> {
///     queue.compose(Header { id, ..Header::new(1) }, b"hello", None)
/// }
///
/// let mut queue = SendBuf::new(Modern::new(), [0; 64]);
/// greet(&mut queue, 7)?;
/// assert_eq!(queue.chunk().unwrap().bytes[16..], *b"hello");
/// # Ok::<(), Refused>(())
/// ```
pub trait Compose {
    /// The type of a descriptor.
    type Descriptor;

    /// What the writer of a message in place holds.
    type Pending<'a>: InPlace<Descriptor = Self::Descriptor>
    where
        Self: 'a;

    /// Queues a message; see [`SendBuf::compose`].
    ///
    /// # Errors
    ///
    /// As there.
    fn compose<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        header: Header,
        payload: &T,
        descriptor: Option<Self::Descriptor>,
    ) -> Result<(), Refused<Self::Descriptor>> {
        self.compose_parts(header, &[payload.as_bytes()], descriptor)
    }

    /// Queues a message whose payload is in parts; see [`SendBuf::compose_parts`].
    ///
    /// # Errors
    ///
    /// As there.
    fn compose_parts(
        &mut self,
        header: Header,
        parts: &[&[u8]],
        descriptor: Option<Self::Descriptor>,
    ) -> Result<(), Refused<Self::Descriptor>>;

    /// Begins a message in place; see [`SendBuf::create`].
    ///
    /// # Errors
    ///
    /// As there.
    fn create(
        &mut self,
        header: Header,
        descriptor: Option<Self::Descriptor>,
    ) -> Result<Writer<'_, Self::Pending<'_>>, Refused<Self::Descriptor>>;

    /// Queues a received message again; see [`SendBuf::forward`].
    ///
    /// # Errors
    ///
    /// As there.
    fn forward<G>(
        &mut self,
        message: &Message<'_, G>,
        descriptor: Option<Self::Descriptor>,
    ) -> Result<(), Refused<Self::Descriptor>>;

    /// Whether a message can be queued now; see [`SendBuf::has_room`].
    ///
    /// # Errors
    ///
    /// As there.
    fn has_room(&self, payload_len: usize, descriptor: bool) -> Result<(), Reason>;
}

impl<D: Dialect, S: Storage, F, const N: usize> Compose for SendBuf<D, S, F, N> {
    type Descriptor = F;
    type Pending<'a>
        = Pending<'a, D, F, N>
    where
        Self: 'a;

    fn compose_parts(
        &mut self,
        header: Header,
        parts: &[&[u8]],
        descriptor: Option<F>,
    ) -> Result<(), Refused<F>> {
        self.compose_parts(header, parts, descriptor)
    }

    fn create(
        &mut self,
        header: Header,
        descriptor: Option<F>,
    ) -> Result<Writer<'_, Pending<'_, D, F, N>>, Refused<F>> {
        self.create(header, descriptor)
    }

    fn forward<G>(
        &mut self,
        message: &Message<'_, G>,
        descriptor: Option<F>,
    ) -> Result<(), Refused<F>> {
        self.forward(message, descriptor)
    }

    fn has_room(&self, payload_len: usize, descriptor: bool) -> Result<(), Reason> {
        self.has_room(payload_len, descriptor)
    }
}
