//! The receive buffer: bytes and descriptors in, messages out.

use core::convert::Infallible;
use core::fmt;
use core::iter::FusedIterator;

use crate::counts::Counts;
use crate::descriptor::{Ancillary, Descriptor, Descriptors, Pairing, StreamRange};
use crate::dialect::{Dialect, header_len};
use crate::error::{BadLength, Error, NoRoom, NotOffered};
use crate::header::{DEFAULT_MAX_LEN, Frame};
use crate::message::{Message, Split, peek, split, truncated};
use crate::storage::{Storage, move_to_front};

/// Collects what was read from a stream and hands out whole messages (the reading half of
/// `struct imsgbuf`).
///
/// A round is: [`spare`](RecvBuf::spare) lends the place to read into, [`commit`](RecvBuf::commit)
/// says what was read, [`next_message`](RecvBuf::next_message) takes messages until there are no
/// more. Nothing is copied but the beginning of a message that is not complete yet: when there is
/// no complete one before it, it moves to the front once, so that the next read can be large. (And
/// messages that were not taken, when they are at the end of the storage: if that frees at least as
/// many bytes as it moves.)
///
/// `D` is the dialect, `S` the [`Storage`], `F` the type of a descriptor, and `N` how many
/// descriptors can be held before their messages are taken; at least two, and two are enough for
/// a peer under [`Pairing::Exact`] when messages are taken after each read.
///
/// ```
/// use imsg_wire::{Ancillary, Descriptor, Header, Modern, RecvBuf, SendBuf};
///
/// let mut sender: SendBuf<_, _, &str> = SendBuf::with_descriptors(Modern::new(), [0; 64]);
/// sender.compose(Header::new(1), b"take this", Some("descriptor"))?;
///
/// let mut receiver: RecvBuf<_, _, &str> = RecvBuf::with_descriptors(Modern::new(), [0; 64]);
/// receiver.allow_descriptors();
/// let sent = sender.chunk().unwrap();
/// let n = sent.bytes.len();
/// receiver.spare()?[..n].copy_from_slice(sent.bytes);
/// receiver.commit(n, Ancillary::One(*sent.descriptor.unwrap()))?;
///
/// let message = receiver.next_message()?.unwrap();
/// assert_eq!(message.payload, b"take this");
/// assert_eq!(message.descriptor, Descriptor::Here("descriptor"));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct RecvBuf<D, S, F = Infallible, const N: usize = 8> {
    storage: S,
    state: RecvState<D, F, N>,
}

/// All but the bytes, so that messages can borrow those while this goes on.
struct RecvState<D, F, const N: usize> {
    dialect: D,
    max_len: usize,
    /// Up to where the storage was told that bytes are not needed any more.
    released: usize,
    /// Where the next message starts in the storage.
    start: usize,
    /// Where the bytes received end in the storage.
    end: usize,
    /// The stream offset of `start`.
    offset: u64,
    /// How many descriptors were taken with messages.
    taken_descriptors: u64,
    /// The bytes lent by `spare` and not committed yet.
    offered: usize,
    finished: bool,
    failed: Option<Error>,
    descriptors: Descriptors<F, N>,
}

impl<D: Dialect, S: Storage> RecvBuf<D, S> {
    /// An empty buffer over `storage`, for messages without descriptors.
    ///
    /// The largest message is 16384 bytes, or what the storage can hold if that is less.
    pub fn new(dialect: D, storage: S) -> Self {
        Self::with_descriptors(dialect, storage)
    }
}

impl<D: Dialect, S: Storage, F, const N: usize> RecvBuf<D, S, F, N> {
    /// An empty buffer over `storage`, for messages with descriptors of the type `F`, once they are
    /// [allowed](RecvBuf::allow_descriptors).
    ///
    /// The largest message is 16384 bytes, or what the storage can hold if that is less.
    pub fn with_descriptors(dialect: D, storage: S) -> Self {
        let max_len = DEFAULT_MAX_LEN.min(storage.most()).min(dialect.max_len());
        let descriptors = Descriptors::new(dialect.pairing());
        Self {
            storage,
            state: RecvState {
                dialect,
                max_len,
                released: 0,
                start: 0,
                end: 0,
                offset: 0,
                taken_descriptors: 0,
                offered: 0,
                finished: false,
                failed: None,
                descriptors,
            },
        }
    }

    /// Sets the largest message to be accepted, in bytes, header included
    /// (`imsgbuf_set_maxsize`, which counts the payload only).
    ///
    /// # Errors
    ///
    /// [`BadLength`] when it is less than a header, or more than the storage can hold or the dialect
    /// can state; nothing changes then.
    pub fn set_max_len(&mut self, max_len: usize) -> Result<(), BadLength> {
        let most = self.state.dialect.max_len().min(self.storage.most());
        self.state.max_len = BadLength::check(max_len, header_len::<D>(), most)?;
        Ok(())
    }

    /// The largest message accepted, in bytes, header included.
    pub fn max_len(&self) -> usize {
        self.state.max_len
    }

    /// Sets the rule that pairs descriptors with messages, in place of the default of the dialect.
    ///
    /// To be called before anything is received: descriptors that are already there are paired by
    /// the new rule.
    pub fn set_pairing(&mut self, rule: Pairing) {
        self.state.descriptors.set_rule(rule);
    }

    /// Allows descriptors to be received from here on (`imsgbuf_allow_fdpass`).
    ///
    /// Until then nothing asks the kernel for them, and a marked message says that its descriptor
    /// was [not allowed](crate::Missing::NotAllowed). Under [`Pairing::Ordered`], call this before
    /// anything is read.
    pub fn allow_descriptors(&mut self) {
        let received = self.state.unread() as u64;
        self.state.descriptors.allow_from(self.state.offset.wrapping_add(received));
    }

    /// Whether descriptors may be received.
    pub fn descriptors_allowed(&self) -> bool {
        self.state.descriptors.is_allowed()
    }

    /// Lends the place to read into. It is never empty.
    ///
    /// # Errors
    ///
    /// [`NoRoom::Full`] when messages must be taken first, or the storage has to grow for one and
    /// cannot; [`NoRoom::Finished`] after
    /// [`finish`](RecvBuf::finish), and [`NoRoom::Failed`] when the stream is broken and no message
    /// is left before that.
    pub fn spare(&mut self) -> Result<&mut [u8], NoRoom> {
        let state = &mut self.state;
        state.offered = 0;
        state.release(&mut self.storage);
        if state.finished && state.failed.is_none() {
            return Err(NoRoom::Finished);
        }
        let next = state.next(self.storage.bytes());
        let ready = next.map_err(|error| NoRoom::Failed(state.fail(error)))?.is_some();
        if !ready || state.is_movable(self.storage.bytes().len()) {
            state.move_to_front(&mut self.storage);
        }
        if !ready {
            if state.end == 0 {
                self.storage.shrink();
            }
            // What was dropped for messages that are gone takes no room any more.
            state.descriptors.advance(state.offset);
            if !state.grow(&mut self.storage) {
                return Err(NoRoom::Full);
            }
        }
        let bytes = self.storage.bytes_mut();
        let storage = bytes.len();
        let full = if state.descriptors.is_full() {
            Some(Error::TooManyDescriptors { offset: state.offset, capacity: N })
        } else if state.end >= storage {
            Some(Error::StorageTooSmall { storage, need: header_len::<D>() })
        } else {
            None
        };
        match full {
            Some(_) if ready => Err(NoRoom::Full),
            Some(error) => Err(NoRoom::Failed(state.fail(error))),
            None => {
                let spare = bytes.get_mut(state.end..).unwrap_or_default();
                state.offered = spare.len();
                Ok(spare)
            }
        }
    }

    /// Says that the first `n` bytes that [`spare`](RecvBuf::spare) lent were read, and what came
    /// with them.
    ///
    /// What came with no bytes, where `n` is 0, belongs to the bytes of the next commit. That is:
    ///
    /// - [`Ancillary::Dropped`] after a read that failed, as this process can have no more
    ///   descriptors, and left its bytes to the next one: so it is on the BSDs and XNU.
    /// - [`Ancillary::One`] after a read of no bytes that brought a descriptor all the same, which
    ///   is not the end of the stream: so it may be on FreeBSD from 15 on.
    ///
    /// If something comes with those bytes as well, they have that, and a descriptor from before
    /// is closed; but if something was dropped before, the two count as [`Ancillary::Several`].
    /// The [module documentation](crate::descriptor) says why.
    ///
    /// # Errors
    ///
    /// [`NotOffered`] when `n` is more than was lent, or when nothing is; nothing is received then,
    /// and what came with the bytes is given back.
    pub fn commit(
        &mut self,
        n: usize,
        ancillary: Ancillary<F>,
    ) -> Result<(), NotOffered<Ancillary<F>>> {
        let state = &mut self.state;
        let offered = state.offered;
        let not_offered = |returned| NotOffered { claimed: n, offered, returned };
        let unexpected = offered == 0 && !matches!(ancillary, Ancillary::Nothing);
        if n > offered || unexpected {
            return Err(not_offered(ancillary));
        }
        let start = state.offset.wrapping_add(state.unread() as u64);
        let range = StreamRange { start, end: start.wrapping_add(n as u64) };
        state.descriptors.arrived(range, ancillary).map_err(not_offered)?;
        state.end = state.end.saturating_add(n);
        state.offered = 0;
        Ok(())
    }

    /// Says that the stream has ended: nothing more will be read.
    ///
    /// The messages that arrived can still be taken; after them comes an
    /// [error](Error::Truncated) if the stream ended inside a message.
    pub fn finish(&mut self) {
        self.state.finished = true;
        self.state.offered = 0;
    }

    /// Whether the stream has ended, as [`finish`](RecvBuf::finish) said.
    pub fn is_finished(&self) -> bool {
        self.state.finished
    }

    /// How many bytes the payload of the next message has, if
    /// [`next_message`](RecvBuf::next_message) has one to return, or an error about its descriptor.
    #[inline]
    pub fn next_len(&self) -> Option<usize> {
        let (_, payload, _) = self.state.next(self.storage.bytes()).ok()??;
        Some(payload.len())
    }

    /// Whether [`next_message`](RecvBuf::next_message) has a message or an error to return.
    #[inline]
    pub fn is_ready(&self) -> bool {
        !matches!(self.state.next(self.storage.bytes()), Ok(None))
    }

    /// Whether [`next_message`](RecvBuf::next_message) has a message to return, and no descriptor is
    /// there to be paired. Where this is asked first, the compiler leaves out of that all but what
    /// such a message needs.
    #[doc(hidden)]
    #[inline]
    pub fn is_plainly_ready(&self) -> bool {
        let plain = self.state.plain(self.storage.bytes());
        matches!(self.state.next_plain(plain), Some(Some(_)))
    }

    /// Takes the next message (`imsgbuf_get`); `None` when none is complete.
    ///
    /// # Errors
    ///
    /// What broke the stream, after all messages that came before it. The buffer then stays
    /// failed, and has closed all descriptors that it held.
    #[inline]
    pub fn next_message(&mut self) -> Result<Option<Message<'_, F>>, Error> {
        let Self { storage, state } = self;
        let bytes = storage.bytes();
        match state.next_plain(state.plain(bytes)) {
            Some(Some((frame, payload, _))) => Ok(Some(state.take_plain(frame, payload))),
            Some(None) => Ok(None),
            None => state.take_paired(bytes),
        }
    }

    /// Iterates over the messages that are complete. They borrow the buffer, not the iterator, so
    /// that several can be held at a time.
    ///
    /// An error is the last item.
    #[inline]
    pub fn messages(&mut self) -> Received<'_, D, F, N> {
        let Self { storage, state } = self;
        let bytes = storage.bytes();
        Received { bytes, plain: state.plain(bytes), state, failed: false }
    }

    /// Where the message starts, as an offset in the stream, that has not arrived completely, or for
    /// which a descriptor waits; `None` when the sender owes nothing, or messages are to be taken
    /// first.
    ///
    /// As long as this is the same, nothing was completed: a program that limits the time for it
    /// keeps a clock beside it.
    pub fn unfinished(&self) -> Option<u64> {
        let state = &self.state;
        let waits = state.unread() > 0 || state.descriptors.holds_any();
        (waits && !self.is_ready()).then_some(state.offset)
    }

    /// The stream offset of the next message, in bytes.
    pub fn offset(&self) -> u64 {
        self.state.offset
    }

    /// Starts over, on a new connection: forgets what was received, and drops the descriptors that
    /// no message had. An end or an error of the old stream is forgotten too. The maximum, the
    /// pairing rule and whether descriptors are allowed stay.
    ///
    /// ```
    /// use imsg_wire::{Ancillary, Modern, NoRoom, RecvBuf};
    ///
    /// let mut received = RecvBuf::new(Modern::new(), [0; 64]);
    /// received.spare()?[..3].fill(1);
    /// received.commit(3, Ancillary::Nothing)?;
    /// received.finish();
    /// assert!(received.next_message().is_err(), "it ended inside a message");
    ///
    /// received.reset();
    /// assert_eq!((received.spare()?.len(), received.offset()), (64, 0));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn reset(&mut self) {
        let Self { storage, state } = self;
        storage.release(0..storage.bytes().len());
        state.released = 0;
        state.start = 0;
        state.end = 0;
        state.offset = 0;
        state.offered = 0;
        state.finished = false;
        state.failed = None;
        state.descriptors.reset();
        state.taken_descriptors = 0;
    }

    /// What was taken: the bytes of messages, and the descriptors that they had.
    pub fn received(&self) -> Counts {
        let RecvState { offset, taken_descriptors, .. } = self.state;
        Counts { bytes: offset, descriptors: taken_descriptors }
    }

    /// How many bytes arrived that were not taken: of whole messages, and of a part of one.
    pub fn unread_bytes(&self) -> usize {
        self.state.unread()
    }

    /// Has the storage [shrink](Storage::shrink), if all that arrived was taken.
    ///
    /// [`spare`](RecvBuf::spare) does that too; this is for a program that may not read for a long
    /// time. What `spare` lent before is not lent any more.
    pub fn shrink(&mut self) {
        let Self { storage, state } = self;
        if state.unread() > 0 {
            return;
        }
        state.offered = 0;
        state.release(storage);
        state.move_to_front(storage);
        storage.shrink();
    }

    /// The storage, to see how large it is. What is in it, only the messages tell.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Puts `storage` in place of the one that there is, and gives that one, if all that arrived was
    /// taken. Its bytes are not [released](Storage::release): a program that took a message can keep
    /// it where it is, and need not copy it.
    ///
    /// # Errors
    ///
    /// `storage`, as long as something is left to be taken, or if it is smaller than the
    /// [longest message](RecvBuf::set_max_len).
    ///
    /// ```
    /// use imsg_wire::{Ancillary, Header, Modern, RecvBuf, SendBuf};
    ///
    /// let mut sent = SendBuf::new(Modern::new(), [0; 24]);
    /// sent.compose(Header::new(1), b"a secret", None)?;
    /// let mut received = RecvBuf::new(Modern::new(), vec![0; 24]);
    /// received.spare()?.copy_from_slice(sent.chunk().unwrap().bytes);
    /// received.commit(24, Ancillary::Nothing)?;
    /// assert_eq!(received.replace_storage(vec![0; 48]), Err(vec![0; 48]), "it is not taken");
    ///
    /// received.next_message()?.unwrap();
    /// let message = received.replace_storage(vec![0; 48]).unwrap();
    /// assert_eq!(message[16..], *b"a secret");
    /// assert_eq!((received.spare()?.len(), received.offset()), (48, 24));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn replace_storage(&mut self, storage: S) -> Result<S, S> {
        let state = &mut self.state;
        if state.unread() > 0 || storage.most() < state.max_len {
            return Err(storage);
        }
        state.offered = 0;
        state.released = 0;
        state.start = 0;
        state.end = 0;
        Ok(core::mem::replace(&mut self.storage, storage))
    }

    /// Gives the storage back, and forgets what is in it.
    pub fn into_storage(self) -> S {
        let mut storage = self.storage;
        storage.release(0..storage.bytes().len());
        storage
    }
}

impl<D: Dialect, F, const N: usize> RecvState<D, F, N> {
    fn unread(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Tells the storage which messages were taken, now that they cannot be borrowed.
    fn release(&mut self, storage: &mut impl Storage) {
        storage.release(self.released..self.start);
        self.released = self.start;
    }

    /// Whether messages that are there fill the storage to its end, and may be moved: it frees at least
    /// as many bytes as it moves, and makes room for what can be received.
    fn is_movable(&self, storage: usize) -> bool {
        self.end == storage && self.start >= self.unread() && !self.descriptors.is_full()
    }

    /// Must not be called while a complete message is there that is not [movable](Self::is_movable),
    /// as that could be moved any number of times.
    fn move_to_front(&mut self, storage: &mut impl Storage) {
        let bytes = storage.bytes_mut();
        let (start, end) = (self.start, self.end);
        if start == 0 || end > bytes.len() {
            return;
        }
        if start < end {
            move_to_front(bytes, start..end);
        }
        self.released = 0;
        self.start = 0;
        self.end = end.saturating_sub(start);
        storage.release(self.end.max(start)..end);
    }

    /// Has the storage grow when the message that is arriving has filled it: to what the message
    /// needs, or half of that, a quarter and so on, but to no more than twice what there is, so that a
    /// header alone takes no memory. (From twice to twice, the last step might be one of few bytes,
    /// which are copied as often as more.) Says `false` when it cannot.
    fn grow(&self, storage: &mut impl Storage) -> bool {
        let bytes = storage.bytes();
        let len = bytes.len();
        // Of a storage that never grows, the compiler leaves out the rest.
        if storage.most() == len {
            return true;
        }
        let need = match bytes.get(self.start..self.end) {
            Some(unread) if self.end == len => peek(&self.dialect, unread, self.max_len),
            _ => return true,
        };
        match need {
            Ok(Some(frame)) if frame.len > len => {
                let mut wanted = frame.len;
                while wanted > len.saturating_mul(2) {
                    wanted = wanted.div_ceil(2);
                }
                storage.grow(wanted)
            }
            _ => true,
        }
    }

    /// What arrived and was not taken, if that is all there is to it: nothing is wrong, and no
    /// descriptor is there to be paired. So it is nearly always, and then the way to a message is
    /// short.
    #[inline]
    fn plain<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let unread = bytes.get(self.start..self.end)?;
        (self.failed.is_none() && self.descriptors.is_empty()).then_some(unread)
    }

    /// What is next in what is [plain](Self::plain); `None` where the bytes alone do not say it.
    #[inline]
    fn next_plain<'a>(&self, plain: Option<&'a [u8]>) -> Option<Option<Split<'a>>> {
        match split(&self.dialect, plain?, self.max_len) {
            Ok(None) if self.finished => None,
            next => next.ok(),
        }
    }

    /// The next message, and the bytes behind it, or what is wrong before it. Its descriptor is
    /// still to be found.
    #[inline]
    fn next<'a>(&self, bytes: &'a [u8]) -> Result<Option<Split<'a>>, Error> {
        match self.next_plain(self.plain(bytes)) {
            Some(next) => Ok(next),
            None => self.next_unpaired(bytes),
        }
    }

    /// As [`next`](Self::next), whatever is there.
    #[cold]
    fn next_unpaired<'a>(&self, bytes: &'a [u8]) -> Result<Option<Split<'a>>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(unread) = bytes.get(self.start..self.end) else {
            return Err(Error::StorageTooSmall { storage: bytes.len(), need: self.end });
        };
        if let Some(violation) = self.descriptors.violation(self.offset) {
            return Err(Error::Descriptor(violation));
        }
        match split(&self.dialect, unread, self.max_len) {
            Ok(None) if self.finished => self.end_of_stream(unread).map_or(Ok(None), Err),
            Ok(message) => Ok(message),
            Err(error) => Err(Error::Length { offset: self.offset, error }),
        }
    }

    /// Takes the next message, of what is [plain](Self::plain).
    #[inline]
    fn take_plain<'a>(&mut self, frame: Frame, payload: &'a [u8]) -> Message<'a, F> {
        let descriptor = self.descriptors.unclaimed(self.offset, frame.marked);
        self.pass(frame);
        Message { header: frame.header, payload, descriptor }
    }

    #[cold]
    fn take_paired<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Message<'a, F>>, Error> {
        self.try_take(bytes).map_err(|error| self.fail(error))
    }

    fn try_take<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Message<'a, F>>, Error> {
        let next = self.next_unpaired(bytes)?;
        self.descriptors.advance(self.offset);
        let Some((frame, payload, rest)) = next else {
            return Ok(None);
        };
        let Self { dialect, max_len, .. } = self;
        let end = self.offset.wrapping_add(frame.len as u64);
        let message = StreamRange { start: self.offset, end };
        let descriptor = self
            .descriptors
            .claim(message, frame.marked, |until| {
                has_mark(dialect, rest, *max_len, until.saturating_sub(end))
            })
            .map_err(Error::Descriptor)?;
        if matches!(descriptor, Descriptor::Here(_)) {
            self.taken_descriptors = self.taken_descriptors.wrapping_add(1);
        }
        self.pass(frame);
        Ok(Some(Message { header: frame.header, payload, descriptor }))
    }

    /// Goes on behind the message that was taken.
    #[inline]
    fn pass(&mut self, frame: Frame) {
        self.start = self.start.wrapping_add(frame.len);
        self.offset = self.offset.wrapping_add(frame.len as u64);
    }

    /// What is wrong with a stream that ends here, behind `unread`, which is no whole message.
    fn end_of_stream(&self, unread: &[u8]) -> Option<Error> {
        truncated(&self.dialect, unread, self.max_len, self.offset)
            .or_else(|| self.descriptors.violation_at_end(self.offset).map(Error::Descriptor))
    }

    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.descriptors.clear();
        self.offered = 0;
        self.failed = Some(error);
        error
    }
}

/// Whether a marked header lies wholly in the first `len` bytes of `bytes`, which start with one.
#[cold]
fn has_mark<D: Dialect>(dialect: &D, mut bytes: &[u8], max_len: usize, len: u64) -> bool {
    let mut left = usize::try_from(len).unwrap_or(usize::MAX);
    while left >= header_len::<D>() {
        let Ok(Some(Frame { len, marked, .. })) = peek(dialect, bytes, max_len) else {
            return false;
        };
        if marked {
            return true;
        }
        let Some(rest) = bytes.get(len..) else {
            return false;
        };
        bytes = rest;
        left = left.saturating_sub(len);
    }
    false
}

/// The complete messages of a [`RecvBuf`]; see [`RecvBuf::messages`].
pub struct Received<'a, D, F, const N: usize> {
    bytes: &'a [u8],
    /// What [the state says](RecvState::plain), in hand, so that it is not read from there for each
    /// message. Nothing arrives as long as this lives.
    plain: Option<&'a [u8]>,
    state: &'a mut RecvState<D, F, N>,
    failed: bool,
}

impl<'a, D: Dialect, F, const N: usize> Iterator for Received<'a, D, F, N> {
    type Item = Result<Message<'a, F>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.state.next_plain(self.plain) {
            Some(Some((frame, payload, rest))) => {
                self.plain = Some(rest);
                Some(Ok(self.state.take_plain(frame, payload)))
            }
            Some(None) => None,
            None => {
                let taken = self.state.take_paired(self.bytes);
                self.plain = self.state.plain(self.bytes);
                self.failed = taken.is_err();
                taken.transpose()
            }
        }
    }
}

impl<D, S, F, const N: usize> fmt::Debug for RecvBuf<D, S, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.state;
        f.debug_struct("RecvBuf")
            .field("unread", &state.end.saturating_sub(state.start))
            .field("offset", &state.offset)
            .field("max_len", &state.max_len)
            .field("finished", &state.finished)
            .field("failed", &state.failed)
            .finish_non_exhaustive()
    }
}

impl<D: Dialect, F, const N: usize> FusedIterator for Received<'_, D, F, N> {}

impl<D, F, const N: usize> fmt::Debug for Received<'_, D, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unread = self.state.end.saturating_sub(self.state.start);
        f.debug_struct("Received").field("unread", &unread).finish_non_exhaustive()
    }
}
