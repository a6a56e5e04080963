//! Messages that own their payload.

use core::convert::Infallible;
use core::error;
use core::fmt;

use heapless::Vec;

use crate::abbreviated::Abbreviated;
use crate::descriptor::Descriptor;
use crate::header::Header;
use crate::message::Message;

/// A message with its own copy of the payload, of `CAPACITY` bytes at most: to be kept for later,
/// queued, or handed to another thread (what is pushed to an `ibufq` by `imsg_ibufq_push`).
///
/// It takes its whole capacity, whatever the payload has. So choose that for the messages which
/// are really kept, `size_of` the largest payload of their types, rather than the maximum of the
/// buffer: a queue of 64 messages of up to 112 bytes takes 9 KiB, one of 64 of the default maximum
/// takes 1 MiB. It does not wipe its payload when it is dropped.
///
/// ```
/// use heapless::Deque;
/// use imsg_wire::{Header, Message, Modern, OwnedMessage, Descriptor, SendBuf};
///
/// let message = Message {
///     header: Header { pid: 5, ..Header::new(1) },
///     payload: b"for later",
///     descriptor: Descriptor::Here("descriptor"),
/// };
///
/// let mut kept: Deque<OwnedMessage<64, &str>, 8> = Deque::new();
/// let message = OwnedMessage::try_from(message).expect("at most 64 bytes");
/// kept.push_back(message).expect("at most 8 messages");
///
/// let mut queue: SendBuf<_, _, &str> = SendBuf::with_descriptors(Modern::new(), [0; 256]);
/// while let Some(mut message) = kept.pop_front() {
///     let descriptor = message.descriptor.take();
///     queue.forward(&message.view(), descriptor)?;
/// }
/// assert_eq!(queue.queue_len(), 1);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct OwnedMessage<const CAPACITY: usize, F = Infallible> {
    /// Type, id and pid, as the sender wrote them.
    pub header: Header,
    /// What the sender attached.
    pub descriptor: Descriptor<F>,
    payload: Vec<u8, CAPACITY>,
}

impl<const CAPACITY: usize, F> OwnedMessage<CAPACITY, F> {
    /// A message of these parts.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] when the payload is longer than `CAPACITY` bytes.
    pub fn new(
        header: Header,
        payload: &[u8],
        descriptor: Descriptor<F>,
    ) -> Result<Self, TooLarge<F>> {
        match Vec::from_slice(payload) {
            Ok(payload) => Ok(Self { header, descriptor, payload }),
            Err(_) => Err(TooLarge { len: payload.len(), capacity: CAPACITY, descriptor }),
        }
    }

    /// The message as it was received, with its descriptor, which is taken out of this.
    ///
    /// ```
    /// use imsg_wire::{Descriptor, Header, OwnedMessage};
    ///
    /// let here = Descriptor::Here("descriptor");
    /// let mut kept = OwnedMessage::<64, _>::new(Header::new(1), b"for later", here)?;
    /// let message = kept.take();
    /// assert_eq!((message.payload, message.descriptor), (&b"for later"[..], here));
    /// assert_eq!(kept.take().descriptor, Descriptor::None);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn take(&mut self) -> Message<'_, F> {
        let descriptor = core::mem::replace(&mut self.descriptor, Descriptor::None);
        Message { header: self.header, payload: &self.payload, descriptor }
    }

    /// The bytes after the header.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The message as it was received, without its descriptor, which this keeps.
    #[must_use]
    pub fn view(&self) -> Message<'_> {
        let descriptor = match self.descriptor {
            Descriptor::Missing(missing) => Descriptor::Missing(missing),
            Descriptor::None | Descriptor::Here(_) => Descriptor::None,
        };
        Message { header: self.header, payload: &self.payload, descriptor }
    }
}

impl<'a, const CAPACITY: usize, F> TryFrom<Message<'a, F>> for OwnedMessage<CAPACITY, F> {
    type Error = TooLarge<F>;

    /// Copies the payload; as [`new`](OwnedMessage::new).
    fn try_from(message: Message<'a, F>) -> Result<Self, TooLarge<F>> {
        Self::new(message.header, message.payload, message.descriptor)
    }
}

/// A payload is longer than the capacity of an [`OwnedMessage`]. Gives the descriptor back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TooLarge<F = Infallible> {
    /// The length of the payload, in bytes.
    pub len: usize,
    /// The capacity, in bytes.
    pub capacity: usize,
    /// What came with the message.
    pub descriptor: Descriptor<F>,
}

impl<F> fmt::Display for TooLarge<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, capacity, .. } = self;
        write!(f, "a payload of {len} bytes is longer than the {capacity} bytes kept for it")
    }
}

impl<F: fmt::Debug> error::Error for TooLarge<F> {}

impl<const CAPACITY: usize, F: fmt::Debug> fmt::Debug for OwnedMessage<CAPACITY, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedMessage")
            .field("header", &self.header)
            .field("payload", &Abbreviated(&self.payload))
            .field("descriptor", &self.descriptor)
            .finish()
    }
}
