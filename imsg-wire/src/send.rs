//! The send buffer: messages in, bytes and descriptors out.

mod gathered;
mod in_place;
mod lent;
mod room;

use core::convert::Infallible;
use core::fmt;

use heapless::Deque;
use zerocopy::{Immutable, IntoBytes};

use crate::abbreviated::Abbreviated;
use crate::counts::Counts;
use crate::descriptor::Descriptor;
use crate::dialect::{Dialect, header_len};
use crate::error::{BadLength, NotOffered, Reason, Refused};
use crate::header::{DEFAULT_MAX_LEN, Frame, Header};
use crate::message::{Message, peek, split};
use crate::storage::{Storage, move_to_front};

pub use gathered::Gathered;
pub use in_place::{InPlace, Pending};
pub use lent::Lent;

/// Queues messages and says what to send next (the writing half of `struct imsgbuf`).
///
/// A round is: [`compose`](SendBuf::compose) messages, send what [`chunk`](SendBuf::chunk) shows,
/// and tell [`consume`](SendBuf::consume) how much of it the kernel took.
///
/// Messages lie one behind the other in the storage. Bytes move to its front only when that frees
/// at least as many bytes as it moves. So a message may be [refused](Reason::Full) although there
/// is as much room in all, but it always fits when it is no longer than the storage less twice what
/// is queued; in an empty queue, every message up to the maximum does.
///
/// `D` is the dialect, `S` the [`Storage`], `F` the type of a descriptor, and `N` how many
/// descriptors can be queued.
///
/// ```
/// use imsg_wire::{Header, Modern, SendBuf};
///
/// let mut queue: SendBuf<_, _, &str> = SendBuf::with_descriptors(Modern::new(), [0; 256]);
/// queue.compose(Header::new(1), b"first", None)?;
/// queue.compose(Header::new(2), b"second", Some("descriptor"))?;
/// queue.compose(Header::new(3), b"third", None)?;
///
/// // A send with a descriptor begins with the message that owns it.
/// let chunk = queue.chunk().unwrap();
/// assert_eq!((chunk.bytes.len(), chunk.descriptor), (16 + 5, None));
/// assert_eq!(queue.consume(16 + 5)?, None);
///
/// let chunk = queue.chunk().unwrap();
/// assert_eq!(chunk.bytes.len(), 16 + 6 + 16 + 5);
/// assert_eq!(chunk.descriptor, Some(&"descriptor"));
/// // The kernel has it with the first byte: it can be closed here.
/// assert_eq!(queue.consume(1)?, Some("descriptor"));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct SendBuf<D, S, F = Infallible, const N: usize = 16> {
    storage: S,
    state: SendState<D, F, N>,
}

/// What to send next, by one `sendmsg`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a, F> {
    /// The bytes; never empty.
    pub bytes: &'a [u8],
    /// The descriptor that belongs to the first byte.
    pub descriptor: Option<&'a F>,
}

impl<F: fmt::Debug> fmt::Debug for Chunk<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("bytes", &Abbreviated(self.bytes))
            .field("descriptor", &self.descriptor)
            .finish()
    }
}

/// All but the bytes, so that a [`Writer`](crate::Writer) can fill those while it holds this.
struct SendState<D, F, const N: usize> {
    dialect: D,
    max_len: usize,
    pid: u32,
    /// How many bytes before `start` were taken back, and the storage was not told of it.
    unreleased: usize,
    /// Where the bytes to send start in the storage.
    start: usize,
    /// Where they end.
    end: usize,
    /// How many bytes behind `start` the message ends that is partly sent; 0 when none is.
    boundary: usize,
    /// Where the space ends that a message in place may have written to, if it was not closed.
    lent: usize,
    /// How many messages were not sent completely.
    messages: usize,
    /// How many descriptors were sent.
    sent_descriptors: u64,
    /// How many bytes of `offset` were taken back.
    taken_back: u64,
    /// The stream offset of `start`.
    offset: u64,
    /// Descriptors with the stream offsets of their messages.
    descriptors: Deque<(u64, F), N>,
}

impl<D: Dialect, S: Storage> SendBuf<D, S> {
    /// An empty queue over `storage`, for messages without descriptors.
    ///
    /// The largest message is 16384 bytes, or what the storage holds if that is less.
    pub fn new(dialect: D, storage: S) -> Self {
        Self::with_descriptors(dialect, storage)
    }
}

impl<D: Dialect, S: Storage, F, const N: usize> SendBuf<D, S, F, N> {
    /// An empty queue over `storage`, for messages with descriptors of the type `F`.
    ///
    /// The largest message is 16384 bytes, or what the storage holds if that is less.
    pub fn with_descriptors(dialect: D, storage: S) -> Self {
        let max_len = DEFAULT_MAX_LEN.min(storage.bytes().len()).min(dialect.max_len());
        Self {
            storage,
            state: SendState {
                dialect,
                max_len,
                pid: 0,
                unreleased: 0,
                start: 0,
                end: 0,
                boundary: 0,
                lent: 0,
                messages: 0,
                sent_descriptors: 0,
                taken_back: 0,
                offset: 0,
                descriptors: Deque::new(),
            },
        }
    }

    /// Sets the largest message to be composed, in bytes, header included
    /// (`imsgbuf_set_maxsize`, which counts the payload only).
    ///
    /// # Errors
    ///
    /// [`BadLength`] when it is less than a header, or more than the storage holds or the dialect
    /// can state; nothing changes then.
    pub fn set_max_len(&mut self, max_len: usize) -> Result<(), BadLength> {
        let most = self.state.dialect.max_len().min(self.storage.bytes().len());
        self.state.max_len = BadLength::check(max_len, header_len::<D>(), most)?;
        Ok(())
    }

    /// The largest message that can be composed, in bytes, header included.
    pub fn max_len(&self) -> usize {
        self.state.max_len
    }

    /// Sets the pid that stands in composed messages whose header says 0: that of this process.
    pub fn set_pid(&mut self, pid: u32) {
        self.state.pid = pid;
    }

    /// Queues a message (`imsg_compose`, `imsg_compose_ibuf`). The payload is bytes, or any value
    /// that `zerocopy` can see as bytes. (Of a `Vec`, give `&vec[..]`; `b""` is empty; a
    /// literal such as `&[0; 4]` is four `i32`, so 16 bytes.)
    ///
    /// # Errors
    ///
    /// [`Refused`] when the message is too long or there is no room; nothing is queued then, and
    /// the descriptor is given back.
    #[inline]
    pub fn compose<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        header: Header,
        payload: &T,
        descriptor: Option<F>,
    ) -> Result<(), Refused<F>> {
        self.compose_parts(header, &[payload.as_bytes()], descriptor)
    }

    /// Queues a message whose payload is all of `parts`, one behind the other (`imsg_composev`).
    ///
    /// # Errors
    ///
    /// As [`compose`](SendBuf::compose).
    #[inline]
    pub fn compose_parts(
        &mut self,
        header: Header,
        parts: &[&[u8]],
        descriptor: Option<F>,
    ) -> Result<(), Refused<F>> {
        let header = self.state.sign(header);
        self.state.append(&mut self.storage, header, parts, descriptor)
    }

    /// Queues a received message again, with the pid that it has (`imsg_forward`).
    ///
    /// A descriptor goes with it only if it is named; C drops it. A message whose descriptor is
    /// [missing](Descriptor::Missing) is refused unless one is named, as its receiver would take
    /// it for one that never had any.
    ///
    /// ```
    /// use imsg_wire::{Descriptor, Header, Message, Modern, SendBuf};
    ///
    /// # fn main() -> Result<(), imsg_wire::Refused<&'static str>> {
    /// let mut message = Message {
    ///     header: Header { pid: 77, ..Header::new(1) },
    ///     payload: b"hello",
    ///     descriptor: Descriptor::Here("descriptor"),
    /// };
    /// let mut queue: SendBuf<_, _, &str> = SendBuf::with_descriptors(Modern::new(), [0; 64]);
    /// let descriptor = message.descriptor.take();
    /// queue.forward(&message, descriptor)?;
    /// assert_eq!(queue.chunk().unwrap().descriptor, Some(&"descriptor"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`compose`](SendBuf::compose), and [`Reason::Missing`].
    pub fn forward<G>(
        &mut self,
        message: &Message<'_, G>,
        descriptor: Option<F>,
    ) -> Result<(), Refused<F>> {
        if let (Descriptor::Missing(missing), None) = (&message.descriptor, &descriptor) {
            return Err(Refused { reason: Reason::Missing(*missing), descriptor });
        }
        let parts = [message.payload];
        self.state.append(&mut self.storage, message.header, &parts, descriptor)
    }

    /// Whether a message can be queued now, with a payload of this many bytes and with a descriptor
    /// or without.
    ///
    /// When it can, so can every shorter one, in any way: composed, forwarded or written in place.
    ///
    /// ```
    /// use imsg_wire::{Header, Modern, Reason, SendBuf};
    ///
    /// let mut queue = SendBuf::new(Modern::new(), [0; 64]);
    /// queue.compose(Header::new(1), &[0_u8; 32], None)?;
    /// assert_eq!(queue.has_room(0, false), Ok(()));
    /// assert_eq!(queue.has_room(1, false), Err(Reason::Full { len: 17, free: 16 }));
    /// assert_eq!(queue.has_room(49, false), Err(Reason::TooLong { len: 65, max: 64 }));
    /// # Ok::<(), imsg_wire::Refused>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Why not; [`Reason::TooLong`] before the others, as only that never ends.
    pub fn has_room(&self, payload_len: usize, descriptor: bool) -> Result<(), Reason> {
        let len = header_len::<D>().saturating_add(payload_len);
        self.state.check_len(len)?;
        self.state.admit(descriptor)?;
        let free = self.state.free(self.storage.bytes().len(), len);
        if free < len { Err(Reason::Full { len, free }) } else { Ok(()) }
    }

    /// What to send next; `None` when the queue is empty.
    ///
    /// It begins with the message that owns its descriptor, and ends where the next descriptor's
    /// message starts. Sending less than all of it is fine.
    #[inline]
    pub fn chunk(&self) -> Option<Chunk<'_, F>> {
        let bytes = self.storage.bytes().get(self.state.start..)?.get(..self.state.chunk_len())?;
        if bytes.is_empty() {
            return None;
        }
        Some(Chunk { bytes, descriptor: self.state.first_descriptor() })
    }

    /// Says that the kernel took the first `n` bytes of the [`chunk`](SendBuf::chunk), and gives
    /// back the descriptor that went with them, to be closed.
    ///
    /// # Errors
    ///
    /// [`NotOffered`] when `n` is more than the chunk has; nothing is consumed then.
    #[inline]
    pub fn consume(&mut self, n: usize) -> Result<Option<F>, NotOffered> {
        let Self { storage, state } = self;
        let offered = state.chunk_len();
        if n > offered {
            return Err(NotOffered { claimed: n, offered, returned: () });
        }
        if n == 0 {
            return Ok(None);
        }
        let sent = state.first_descriptor().is_some();
        let descriptor = if sent { state.pop_descriptor() } else { None };
        state.count_sent(storage.bytes(), n);
        state.pass(storage, n);
        if state.start == state.end {
            state.start = 0;
            state.end = 0;
        }
        Ok(descriptor)
    }

    /// Takes the next message to be sent out of the queue, with its descriptor. `None` when nothing
    /// is queued, or when the peer has the beginning of that message already.
    ///
    /// This is for a message that cannot be sent, ever, and keeps those behind it from being sent:
    /// there are descriptors that a kernel does not pass on, and peers that refuse them. The storage
    /// is told that its bytes are not needed any more when the next ones are sent.
    ///
    /// ```
    /// use imsg_wire::{Descriptor, Header, Modern, SendBuf};
    ///
    /// let mut queue: SendBuf<_, _, &str> = SendBuf::with_descriptors(Modern::new(), [0; 64]);
    /// queue.compose(Header::new(1), b"take this", Some("descriptor"))?;
    /// queue.compose(Header::new(2), b"", None)?;
    ///
    /// let message = queue.take_back().unwrap();
    /// assert_eq!((message.header.msg_type, message.payload), (1, &b"take this"[..]));
    /// assert_eq!(message.descriptor, Descriptor::Here("descriptor"));
    ///
    /// queue.consume(1)?;
    /// assert!(queue.take_back().is_none(), "its first byte was sent");
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn take_back(&mut self) -> Option<Message<'_, F>> {
        let Self { storage, state } = self;
        state.pass(storage, 0);
        if state.boundary > 0 {
            return None;
        }
        let queued = storage.bytes().get(state.start..state.end)?;
        let (frame, payload, _) = split(&state.dialect, queued, usize::MAX).ok()??;
        let sent_with = state.first_descriptor().is_some();
        let descriptor = if sent_with { state.descriptors.pop_front() } else { None };
        state.messages = state.messages.wrapping_sub(1);
        state.taken_back = state.taken_back.wrapping_add(frame.len as u64);
        // The storage is told later, as the message is borrowed.
        state.unreleased = frame.len;
        state.start = state.start.saturating_add(frame.len);
        state.offset = state.offset.wrapping_add(frame.len as u64);
        let descriptor = descriptor.map_or(Descriptor::None, |(_, here)| Descriptor::Here(here));
        Some(Message { header: frame.header, payload, descriptor })
    }

    /// How many messages were queued and not sent completely (`imsgbuf_queuelen`).
    pub fn queue_len(&self) -> usize {
        self.state.messages
    }

    /// How many bytes are queued, headers included.
    pub fn queue_bytes(&self) -> usize {
        self.state.queued()
    }

    /// What was sent: all bytes, and the descriptors.
    pub fn sent(&self) -> Counts {
        let SendState { sent_descriptors, offset, taken_back, .. } = self.state;
        Counts { bytes: offset.wrapping_sub(taken_back), descriptors: sent_descriptors }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.state.queued() == 0
    }

    /// Starts over, on a new connection: forgets what is queued, and drops its descriptors. The
    /// maximum and the pid stay.
    pub fn reset(&mut self) {
        let Self { storage, state } = self;
        storage.release(0..storage.bytes().len());
        state.descriptors.clear();
        state.unreleased = 0;
        state.start = 0;
        state.end = 0;
        state.boundary = 0;
        state.lent = 0;
        state.messages = 0;
        state.sent_descriptors = 0;
        state.taken_back = 0;
        state.offset = 0;
    }

    /// Gives the storage back, and forgets what is in it.
    pub fn into_storage(self) -> S {
        let mut storage = self.storage;
        storage.release(0..storage.bytes().len());
        storage
    }
}

impl<D, S, F, const N: usize> fmt::Debug for SendBuf<D, S, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.state;
        f.debug_struct("SendBuf")
            .field("messages", &state.messages)
            .field("bytes", &state.end.saturating_sub(state.start))
            .field("descriptors", &state.descriptors.len())
            .field("max_len", &state.max_len)
            .finish_non_exhaustive()
    }
}

impl<D: Dialect, F, const N: usize> SendState<D, F, N> {
    /// A pid of 0 stands for this process.
    #[inline]
    fn sign(&self, header: Header) -> Header {
        if header.pid == 0 { Header { pid: self.pid, ..header } } else { header }
    }

    #[inline]
    fn queued(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    #[inline]
    fn append(
        &mut self,
        storage: &mut impl Storage,
        header: Header,
        parts: &[&[u8]],
        descriptor: Option<F>,
    ) -> Result<(), Refused<F>> {
        let len = parts.iter().fold(header_len::<D>(), |len, part| len.saturating_add(part.len()));
        let frame = Frame { header, len, marked: descriptor.is_some() };
        match self.admit(frame.marked).and_then(|()| self.write(storage, &frame, parts)) {
            Ok(end) => {
                self.queue(end, descriptor);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, descriptor }),
        }
    }

    /// Writes a message behind the queue, and says where it ends.
    #[inline]
    fn write(
        &mut self,
        storage: &mut impl Storage,
        frame: &Frame,
        parts: &[&[u8]],
    ) -> Result<usize, Reason> {
        let len = frame.len;
        self.check_len(len)?;
        self.make_space(storage, len);
        let bytes = storage.bytes_mut();
        let full = Reason::Full { len, free: bytes.len().saturating_sub(self.end) };
        let end = self.end.wrapping_add(len);
        let space = bytes.get_mut(self.end..end);
        let Some((raw, payload)) =
            space.and_then(|space| space.split_at_mut_checked(header_len::<D>()))
        else {
            return Err(full);
        };
        let written = self.dialect.encode(frame).write_to(raw).is_ok();
        if fill(payload, parts) && written { Ok(end) } else { Err(full) }
    }

    /// Whether a message of `len` bytes can fit at all.
    #[inline]
    fn check_len(&self, len: usize) -> Result<(), Reason> {
        let max = self.max_len;
        if len > max { Err(Reason::TooLong { len, max }) } else { Ok(()) }
    }

    /// Whether another descriptor, if the message has one, can be queued.
    #[inline]
    fn admit(&self, marked: bool) -> Result<(), Reason> {
        if marked && self.descriptors.is_full() { Err(Reason::DescriptorsFull) } else { Ok(()) }
    }

    /// Goes on behind `n` bytes that are not needed any more.
    #[inline]
    fn pass(&mut self, storage: &mut impl Storage, n: usize) {
        let from = self.start.saturating_sub(self.unreleased);
        self.unreleased = 0;
        self.start = self.start.saturating_add(n);
        self.offset = self.offset.wrapping_add(n as u64);
        storage.release(from..self.start);
    }

    /// Tells the storage that the bytes of a message in place that was not closed are not needed.
    #[inline]
    fn release_abandoned(&mut self, storage: &mut impl Storage) {
        if self.end < self.lent {
            storage.release(self.end..self.lent);
        }
        self.lent = 0;
    }

    /// The free bytes, after an attempt to make them `wanted` at least.
    #[inline]
    fn space<'a, S: Storage>(&mut self, storage: &'a mut S, wanted: usize) -> &'a mut [u8] {
        self.make_space(storage, wanted);
        storage.bytes_mut().get_mut(self.end..).unwrap_or_default()
    }

    /// Moves what is queued to the front, if there is not room for `wanted` bytes behind it, and it
    /// may be moved.
    #[inline]
    fn make_space(&mut self, storage: &mut impl Storage, wanted: usize) {
        self.release_abandoned(storage);
        let len = storage.bytes().len();
        if self.end.wrapping_add(wanted) > len && self.is_movable(len) {
            self.move_to_front(storage);
        }
    }

    /// How many bytes [`space`](SendState::space) would give in a storage of `storage` bytes.
    fn free(&self, storage: usize, wanted: usize) -> usize {
        let behind = storage.saturating_sub(self.end);
        if behind < wanted && self.is_movable(storage) {
            storage.saturating_sub(self.queued())
        } else {
            behind
        }
    }

    /// Whether moving what is queued to the front frees at least as many bytes as it moves.
    fn is_movable(&self, storage: usize) -> bool {
        self.start >= self.queued() && self.end <= storage
    }

    /// Moves what is queued, and [may be moved](Self::is_movable), to the front.
    #[cold]
    fn move_to_front(&mut self, storage: &mut impl Storage) {
        let (queued, end) = (self.queued(), self.end);
        if queued > 0 {
            move_to_front(storage.bytes_mut(), self.start..end);
        }
        // Also what was taken back, unless something lies there now.
        let from = self.start.saturating_sub(self.unreleased).max(queued);
        storage.release(from..end);
        self.unreleased = 0;
        self.start = 0;
        self.end = queued;
    }

    /// Counts a message in that was written behind the queue and ends at `end`.
    #[inline]
    fn queue(&mut self, end: usize, descriptor: Option<F>) {
        if let Some(descriptor) = descriptor {
            let offset = self.offset.wrapping_add(self.queued() as u64);
            // There is room, as `admit` was asked and nothing was queued since.
            let _ = self.descriptors.push_back((offset, descriptor));
        }
        self.end = end;
        self.messages = self.messages.wrapping_add(1);
    }

    /// Takes out the descriptor that was sent.
    fn pop_descriptor(&mut self) -> Option<F> {
        self.sent_descriptors = self.sent_descriptors.wrapping_add(1);
        self.descriptors.pop_front().map(|(_, descriptor)| descriptor)
    }

    #[inline]
    fn first_descriptor(&self) -> Option<&F> {
        let (offset, descriptor) = self.descriptors.front()?;
        (*offset == self.offset).then_some(descriptor)
    }

    /// How many bytes can be sent before the next descriptor but one that belongs to the first.
    #[inline]
    fn chunk_len(&self) -> usize {
        let queued = self.queued();
        if self.descriptors.is_empty() {
            return queued;
        }
        let next = self.descriptors.iter().map(|(offset, _)| *offset).find(|at| *at != self.offset);
        match next {
            Some(at) => usize::try_from(at.wrapping_sub(self.offset)).unwrap_or(queued),
            None => queued,
        }
    }

    /// Takes the messages off the count that end within the next `n` bytes.
    #[inline]
    fn count_sent(&mut self, bytes: &[u8], n: usize) {
        if n == self.queued() {
            self.messages = 0;
            self.boundary = 0;
            return;
        }
        self.count_partly_sent(bytes, n);
    }

    fn count_partly_sent(&mut self, bytes: &[u8], n: usize) {
        // `boundary` is where the message ends whose first bytes were sent before, if any.
        let partly = self.boundary > 0;
        if partly && self.boundary <= n {
            self.messages = self.messages.wrapping_sub(1);
        }
        while self.boundary < n {
            let at = self.start.saturating_add(self.boundary);
            let rest = bytes.get(at..self.end).unwrap_or_default();
            let Ok(Some(frame)) = peek(&self.dialect, rest, usize::MAX) else {
                break;
            };
            self.boundary = self.boundary.saturating_add(frame.len);
            if self.boundary <= n {
                self.messages = self.messages.wrapping_sub(1);
            }
        }
        self.boundary = self.boundary.saturating_sub(n);
    }
}

/// Writes `parts` one behind the other; says `false` when they do not fit.
#[inline]
fn fill(mut space: &mut [u8], parts: &[&[u8]]) -> bool {
    for part in parts {
        let Some((place, rest)) = space.split_at_mut_checked(part.len()) else {
            return false;
        };
        if part.write_to(place).is_err() {
            return false;
        }
        space = rest;
    }
    true
}
