//! The send buffer: messages in, bytes and descriptors out.

use core::convert::Infallible;
use core::fmt;

use heapless::Deque;
use zerocopy::{Immutable, IntoBytes};

use crate::descriptor::Descriptor;
use crate::dialect::{Dialect, header_len};
use crate::error::{BadLength, NotOffered, Reason, Refused};
use crate::header::{DEFAULT_MAX_LEN, Frame, Header};
use crate::message::{Message, peek};
use crate::payload::Writer;
use crate::storage::{Storage, move_to_front};

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
/// let mut queue: SendBuf<_, _, &str> = SendBuf::new(Modern::new(), [0; 256]);
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
    state: State<D, F, N>,
}

/// What to send next, by one `sendmsg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a, F> {
    /// The bytes; never empty.
    pub bytes: &'a [u8],
    /// The descriptor that belongs to the first byte.
    pub descriptor: Option<&'a F>,
}

/// All but the bytes, so that a [`Writer`] can fill those while it holds this.
struct State<D, F, const N: usize> {
    dialect: D,
    max_len: usize,
    pid: u32,
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
    /// The stream offset of `start`.
    offset: u64,
    /// Descriptors with the stream offsets of their messages.
    descriptors: Deque<(u64, F), N>,
}

impl<D: Dialect, S: Storage, F, const N: usize> SendBuf<D, S, F, N> {
    /// An empty queue over `storage`.
    ///
    /// The largest message is 16384 bytes, or what the storage holds if that is less.
    pub fn new(dialect: D, storage: S) -> Self {
        let max_len = DEFAULT_MAX_LEN.min(storage.bytes().len()).min(dialect.max_len());
        Self {
            storage,
            state: State {
                dialect,
                max_len,
                pid: 0,
                start: 0,
                end: 0,
                boundary: 0,
                lent: 0,
                messages: 0,
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
    /// let mut queue: SendBuf<_, _, &str> = SendBuf::new(Modern::new(), [0; 64]);
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

    /// Begins a message whose payload is written in place (`imsg_create`).
    ///
    /// It is queued by [`Writer::close`], and forgotten when the writer is dropped before that.
    ///
    /// ```
    /// use imsg_wire::{Header, Modern, SendBuf};
    ///
    /// let mut queue = SendBuf::<_, _>::new(Modern::new(), [0; 64]);
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

    /// Makes a message whose descriptor is not given away, but only lent for one `sendmsg`, which
    /// the caller makes. The queue must be empty, as this message cannot wait in it.
    ///
    /// It is queued by [`Lent::sent`], but for the bytes that were sent, and forgotten when that
    /// is not called.
    ///
    /// ```
    /// use imsg_wire::{Header, Modern, SendBuf};
    ///
    /// let mut queue = SendBuf::<_, _>::new(Modern::new(), [0; 64]);
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

    /// Whether a message can be queued now, with a payload of this many bytes and with a descriptor
    /// or without.
    ///
    /// When it can, so can every shorter one, in any way: composed, forwarded or written in place.
    ///
    /// ```
    /// use imsg_wire::{Header, Modern, Reason, SendBuf};
    ///
    /// let mut queue = SendBuf::<_, _>::new(Modern::new(), [0; 64]);
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
        let descriptor = if sent { state.descriptors.pop_front() } else { None };
        state.count_sent(storage.bytes(), n);
        let start = state.start;
        state.start = start.saturating_add(n);
        storage.release(start..state.start);
        state.offset = state.offset.wrapping_add(n as u64);
        if state.start == state.end {
            state.start = 0;
            state.end = 0;
        }
        Ok(descriptor.map(|(_, descriptor)| descriptor))
    }

    /// How many messages were queued and not sent completely (`imsgbuf_queuelen`).
    pub fn queue_len(&self) -> usize {
        self.state.messages
    }

    /// How many bytes are queued, headers included.
    pub fn queue_bytes(&self) -> usize {
        self.state.queued()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.state.queued() == 0
    }

    /// Gives the storage back, and forgets what is in it.
    pub fn into_storage(self) -> S {
        let mut storage = self.storage;
        storage.release(0..storage.bytes().len());
        storage
    }
}

impl<D: Dialect, F, const N: usize> State<D, F, N> {
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
            Ok(()) => {
                self.queue(len, descriptor);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, descriptor }),
        }
    }

    #[inline]
    fn write(
        &mut self,
        storage: &mut impl Storage,
        frame: &Frame,
        parts: &[&[u8]],
    ) -> Result<(), Reason> {
        let len = frame.len;
        self.check_len(len)?;
        let space = self.space(storage, len);
        let full = Reason::Full { len, free: space.len() };
        let Some(space) = space.get_mut(..len) else {
            return Err(full);
        };
        let Some((raw, mut payload)) = space.split_at_mut_checked(header_len::<D>()) else {
            return Err(full);
        };
        let header = self.dialect.encode(frame);
        let written = header.write_to(raw);
        for part in parts {
            let Some((place, rest)) = payload.split_at_mut_checked(part.len()) else {
                return Err(full);
            };
            if part.write_to(place).is_err() {
                return Err(full);
            }
            payload = rest;
        }
        written.map_err(|_| full)
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

    /// The free bytes, after an attempt to make them `wanted` at least.
    #[inline]
    fn space<'a, S: Storage>(&mut self, storage: &'a mut S, wanted: usize) -> &'a mut [u8] {
        if self.end < self.lent {
            storage.release(self.end..self.lent);
        }
        self.lent = 0;
        if storage.bytes().len().saturating_sub(self.end) < wanted {
            self.move_to_front(storage);
        }
        storage.bytes_mut().get_mut(self.end..).unwrap_or_default()
    }

    /// How many bytes [`space`](State::space) would give in a storage of `storage` bytes.
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

    /// Moves what is queued to the front, if it may be moved.
    fn move_to_front(&mut self, storage: &mut impl Storage) {
        let bytes = storage.bytes_mut();
        if !self.is_movable(bytes.len()) {
            return;
        }
        let (queued, end) = (self.queued(), self.end);
        if queued > 0 {
            move_to_front(bytes, self.start..end);
        }
        storage.release(self.start..end);
        self.start = 0;
        self.end = queued;
    }

    /// Counts the `len` bytes that were written behind the queue in.
    #[inline]
    fn queue(&mut self, len: usize, descriptor: Option<F>) {
        if let Some(descriptor) = descriptor {
            let offset = self.offset.wrapping_add(self.queued() as u64);
            // There is room, as `admit` was asked and nothing was queued since.
            let _ = self.descriptors.push_back((offset, descriptor));
        }
        self.end = self.end.saturating_add(len);
        self.messages = self.messages.saturating_add(1);
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
            self.messages = self.messages.saturating_sub(1);
        }
        while self.boundary < n {
            let at = self.start.saturating_add(self.boundary);
            let rest = bytes.get(at..self.end).unwrap_or_default();
            let Ok(Some(frame)) = peek(&self.dialect, rest, usize::MAX) else {
                break;
            };
            self.boundary = self.boundary.saturating_add(frame.len);
            if self.boundary <= n {
                self.messages = self.messages.saturating_sub(1);
            }
        }
        self.boundary = self.boundary.saturating_sub(n);
    }
}

/// What a [`Writer`] over the space of a [`SendBuf`] holds until its message is closed.
pub struct Pending<'a, D: Dialect, F, const N: usize> {
    state: &'a mut State<D, F, N>,
    raw: &'a mut [u8],
    header: Header,
    descriptor: Option<F>,
}

impl<D: Dialect, F, const N: usize> Writer<'_, Pending<'_, D, F, N>> {
    /// Queues the message (`imsg_close`).
    pub fn close(self) {
        let (payload_len, Pending { state, raw, header, descriptor }) = self.finish();
        let len = header_len::<D>().saturating_add(payload_len);
        let frame = Frame { header, len, marked: descriptor.is_some() };
        if state.dialect.encode(&frame).write_to(raw).is_ok() {
            state.queue(len, descriptor);
            state.lent = 0;
        }
    }

    /// Gives the message up, and its descriptor back (`ibuf_free`, which closes it; so does
    /// dropping the writer).
    pub fn abandon(self) -> Option<F> {
        self.finish().1.descriptor
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

impl<D: Dialect, F, const N: usize> fmt::Debug for Pending<'_, D, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("header", &self.header).finish_non_exhaustive()
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
