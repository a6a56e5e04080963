//! One turn of a channel in an event loop.

use std::error;
use std::fmt;
use std::io;
use std::mem;

use imsg_wire::{Dialect, Reason, Storage};

use crate::blocking::{Channel, Receiver, Sender};
use crate::channel::receiver::{Message, ReadOutcome};
use crate::channel::sender::WriteOutcome;
use crate::error::{RecvError, SendError, is_peer_gone, is_temporary};

/// What a [turn](Channel::turn) of a channel in an event loop may do.
///
/// With another `poll` than [ours](crate::Poll), the loop is this:
///
/// ```
/// use imsg_os::{Channel, Header, Message, Modern, Next, Refused, Sender, Turn};
/// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
/// use std::os::fd::{AsFd, OwnedFd};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (mut channel, mut client) = Channel::pair(Modern::new())?;
/// # client.tx.compose(Header::new(1), b"hello", None)?;
/// # client.tx.flush()?;
/// # client.tx.compose(Header::new(2), b"!", None)?;
/// # client.tx.flush()?;
/// # let (mut tx, mut rx) = (client.tx, client.rx);
/// # let client = std::thread::spawn(move || {
/// #     assert_eq!(rx.recv().unwrap().unwrap().payload, b"hello");
/// #     drop(tx);
/// #     assert_eq!(rx.recv().unwrap().unwrap().payload, b"!");
/// # });
/// const LONGEST: usize = 1000; // no answer has more bytes of payload
///
/// fn answer(request: Message<'_>, tx: &mut Sender) -> Result<(), Refused<OwnedFd>> {
///     let payload = request.payload.get(..LONGEST).unwrap_or(request.payload);
///     tx.compose(Header { pid: 0, ..request.header }, payload, None)
/// }
///
/// let turn = Turn::new(LONGEST);
/// let mut readable = false;
/// loop {
///     let wanted = match channel.turn(&turn, readable, answer)? {
///         Next::Again => PollFlags::empty(),
///         Next::Poll { readable, writable } => {
///             let mut flags = PollFlags::empty();
///             flags.set(PollFlags::POLLIN, readable);
///             flags.set(PollFlags::POLLOUT, writable);
///             flags
///         }
///         Next::Done => break,
///     };
///     let timeout = if wanted.is_empty() { PollTimeout::ZERO } else { PollTimeout::NONE };
///     let mut fds = [PollFd::new(channel.as_fd(), wanted)]; // a server has others here
///     poll(&mut fds, timeout)?;
///     // Anything but `POLLOUT` alone: the peer may have hung up.
///     readable = fds[0].revents().is_some_and(|flags| flags.intersects(!PollFlags::POLLOUT));
/// }
/// # drop(channel);
/// # client.join().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// `None` for a handler that composes nothing.
    room: Option<usize>,
    messages: usize,
    /// Of [`at_most`](Self::at_most), whatever `messages` is set to before or later.
    limit: usize,
    edge_triggered: bool,
    saying: bool,
}

impl Turn {
    /// A turn in which a message is handled only when an answer with a payload of `room` bytes, and
    /// with a descriptor, would not be refused.
    ///
    /// What the handler composes for one message has to fit into that. If this is several messages,
    /// 16 bytes are added for the header of each but one, and there can be too many descriptors.
    /// Answers without a payload need a `room` of 0; for no answers there is [`silent`](Self::silent).
    #[must_use]
    pub const fn new(room: usize) -> Self {
        Self { room: Some(room), ..Self::silent() }
    }

    /// A turn in which messages are handled however full the queue is, for a handler that composes
    /// nothing to this channel.
    ///
    /// A handler that composes to another channel is handed a message also when that one is full,
    /// unless the turn is [limited](Self::at_most) to what has room there.
    ///
    /// At one end of a channel at least, messages have to be taken in this way. When both ends hold
    /// them back until answers have room, and each has its queue full, both wait for ever. That is
    /// not so where one end asks and the other one answers, if the one that asks has no more
    /// questions out than all answers to them have room.
    #[must_use]
    pub const fn silent() -> Self {
        Self { room: None, messages: 64, limit: usize::MAX, edge_triggered: false, saying: false }
    }

    /// Sets how many messages are handled in a turn, before other peers have theirs; 64 if this is
    /// not called. One is the least. There are as many reads at most: with [edge-triggered
    /// events](Self::edge_triggered), a peer that sends a byte at a time is not read for longer.
    #[must_use]
    pub const fn messages(self, messages: usize) -> Self {
        Self { messages: if messages == 0 { 1 } else { messages }, ..self }
    }

    /// For events that only tell that a socket *has become* ready (`mio`, `EPOLLET`, `EV_CLEAR`): a
    /// turn reads until it would block, or says to come [again](Next::Again), whatever it is told
    /// about the socket.
    #[must_use]
    pub const fn edge_triggered(self) -> Self {
        Self { edge_triggered: true, ..self }
    }

    /// A turn with no more messages than this either, and none when it is 0: for a handler that passes
    /// messages on to where there may be no room for them, such as a second channel.
    ///
    /// Say it anew before each turn, and each time before waiting. At 0 the messages stay where they
    /// are and nothing is read, so the kernel holds the peer up; what is queued is sent.
    ///
    /// ```
    /// use imsg_os::{Channel, Modern, Next, Requests, Turn};
    ///
    /// # use imsg_os::Header;
    /// # let (mut client, mut peer) = Channel::pair(Modern::new())?;
    /// # let (mut worker, mut end) = Channel::pair(Modern::new())?;
    /// # for id in 0..50 {
    /// #     peer.tx.compose(Header { id, ..Header::new(1) }, b"?", None)?;
    /// # }
    /// # peer.tx.flush()?;
    /// const QUESTION: usize = 255; // the longest, in bytes
    /// let mut asked = Requests::<u32, 32>::new(); // with which id
    /// let answers = Turn::new(1000);
    ///
    /// // As many questions as the worker and the table take.
    /// let room = worker.tx.room_for(QUESTION, false).min(32 - asked.len());
    /// let next = client.turn(&answers.at_most(room), true, |message, _| {
    ///     let Ok(id) = asked.insert(message.header.id) else { return Ok(()) }; // not with that limit
    ///     let header = imsg_os::Header { id, pid: 0, ..message.header };
    ///     worker.tx.compose(header, message.payload, None)
    /// })?;
    /// # assert_eq!((asked.len(), next), (32, Next::Again));
    ///
    /// // What to wait for.
    /// let room = worker.tx.room_for(QUESTION, false).min(32 - asked.len());
    /// let next = client.next(&answers.at_most(room));
    /// assert_eq!(next, Next::Poll { readable: false, writable: false }); // not for this client
    /// # worker.tx.flush()?;
    /// # let id = end.rx.recv()?.expect("a question").header.id;
    /// # assert_eq!(asked.take(id), Some(0));
    /// # let next = client.next(&answers.at_most(32 - asked.len()));
    /// # assert_eq!(next, Next::Again);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// This does not stall, as the program waits for what is full: a channel whose queue is full until
    /// it can write, a full table until replies come. That wakes the program, which asks what to wait
    /// for, now with a limit that is not 0; and [`next`](Channel::next) says to come
    /// [again](Next::Again) if messages were left. With edge-triggered events, give the channel a turn
    /// then, as its event may have come before.
    ///
    /// But two channels must not each wait for room in the other. So messages of the one that is passed
    /// on to are handled without a limit, by a [silent](Self::silent) turn: the page of
    /// [`Channel`](crate::Channel#in-an-event-loop) has a worker that keeps room for all answers.
    #[must_use]
    pub const fn at_most(self, messages: usize) -> Self {
        Self { limit: if messages < self.limit { messages } else { self.limit }, ..self }
    }

    /// Sets whether the program has more to say on this channel than the queue had room for, such as
    /// the rest of a long list. Then the channel comes [again](Next::Again) as soon as nothing is
    /// queued any more, when no event would come. While something is queued, it waits until it can
    /// write, and the program can compose more each time.
    ///
    /// Compose what has room, then give the channel its turn. Ask for the room by
    /// [`room_for`](crate::Sender::room_for), so that a message that never fits is an error of
    /// `compose`, and the program does not try for ever:
    ///
    /// ```
    /// use imsg_os::{Channel, Header, Modern, Next, Turn};
    ///
    /// # let (mut channel, mut peer) = Channel::pair(Modern::new())?;
    /// let mut list = (0..100_000_u32).peekable(); // far more than the queue takes
    /// # let mut turns = 0;
    /// # let mut received = 0..100_000;
    /// loop {
    ///     while channel.tx.room_for(4, false) > 0
    ///         && let Some(number) = list.next()
    ///     {
    ///         channel.tx.compose(Header::new(1), &number, None)?;
    ///     }
    ///     let turn = Turn::silent().saying(list.peek().is_some());
    ///     let next = channel.turn(&turn, false, |message, _| {
    ///         println!("{message:?}");
    ///         Ok::<_, std::convert::Infallible>(())
    ///     })?;
    ///     // Others have their turn here, and the program waits for what `next` says.
    /// #   turns += 1;
    /// #   match next {
    /// #       Next::Poll { writable: false, .. } => break,
    /// #       Next::Again => {}
    /// #       _ => {
    /// #           let _ = peer.rx.read()?;
    /// #           for message in peer.rx.messages() {
    /// #               let number = u32::from_ne_bytes(message?.payload.try_into()?);
    /// #               assert_eq!(Some(number), received.next());
    /// #           }
    /// #       }
    /// #   }
    /// }
    /// # assert!(turns > 10 && list.next().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Where all of it is held in memory anyway, a queue that is large enough is simpler: see
    /// [`Pages`](crate::Pages), of which only what was used is resident.
    #[must_use]
    pub const fn saying(self, more: bool) -> Self {
        Self { saying: more, ..self }
    }

    /// How many messages are handled.
    fn bound(&self) -> usize {
        self.messages.min(self.limit)
    }

    /// Reads, handles and writes until nothing can be done, or the messages are used up.
    fn run<D: Dialect, S: Storage, T: Storage, E>(
        &self,
        channel: &mut Channel<D, S, T>,
        readable: bool,
        mut handle: impl FnMut(Message<'_>, &mut Sender<D, T>) -> Result<(), E>,
    ) -> Result<Next, TurnError<E>> {
        let mut reads = readable || self.edge_triggered || channel.tx.gone.is_some();
        let (mut left, mut reads_left) = (self.bound(), self.bound());
        if let Some(room) = self.room
            && let Err(reason @ Reason::TooLong { .. }) = channel.tx.has_room(room, true)
        {
            return Err(TurnError::Send(SendError::Refused(reason)));
        }
        loop {
            let Channel { rx, tx } = &mut *channel;
            if reads && self.may_read(rx, tx) {
                reads_left = reads_left.saturating_sub(1);
                match read_now(rx) {
                    Ok(outcome) => {
                        let on = self.edge_triggered || tx.gone.is_some();
                        reads = on && outcome == ReadOutcome::Data;
                    }
                    Err(error) => {
                        // What is queued may have the descriptors that there is no room for.
                        let _ = write_now(tx);
                        return Err(error.into());
                    }
                }
            }
            while left > 0
                && self.may_handle(tx)
                && let Some(message) = rx.next_message().map_err(RecvError::Protocol)?
            {
                if let Some(room) = self.room {
                    // The handler may compose several messages, of which a short one comes first.
                    let _ = tx.make_room(room, true);
                }
                left -= 1;
                handle(message, tx).map_err(TurnError::Handler)?;
            }
            match write_now(tx) {
                Ok(_) => {}
                Err(error) if is_peer_gone(&error) => {
                    // Its last words are read to the end. What is queued must not hold them back.
                    tx.buf.reset();
                    reads |= tx.gone.is_none();
                    tx.gone = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
            // What is to be done now is what the write made room for.
            let handles = self.may_handle(tx) && rx.is_ready();
            let reads_on = reads && self.may_read(rx, tx);
            if handles && left == 0 || reads_on && reads_left == 0 {
                return Ok(Next::Again);
            }
            if !handles && !reads_on {
                // Where the peer is gone, its last words come first, which a limit may hold back.
                let held_back = self.bound() == 0 && !is_over(rx);
                let gone = tx.gone.take_if(|_| !held_back);
                return gone.map_or(Ok(channel.next(self)), |gone| Err(gone.into()));
            }
        }
    }

    /// Whether a message can be handled, if there is one.
    fn may_handle<D: Dialect, S: Storage>(&self, tx: &Sender<D, S>) -> bool {
        self.bound() > 0 && self.room.is_none_or(|room| tx.has_room(room, true).is_ok())
    }

    /// Whether reading makes sense: the stream goes on, and what it brings can be handled.
    fn may_read<D: Dialect, S: Storage, T: Storage>(
        &self,
        rx: &Receiver<D, S>,
        tx: &Sender<D, T>,
    ) -> bool {
        !rx.buf.is_finished() && !rx.is_ready() && self.may_handle(tx)
    }
}

/// Whether every message was handled, and there will be no more.
fn is_over<D: Dialect, S: Storage>(rx: &Receiver<D, S>) -> bool {
    rx.buf.is_finished() && !rx.is_ready()
}

/// Reads without waiting, whether the socket does or not.
fn read_now<D: Dialect, S: Storage>(rx: &mut Receiver<D, S>) -> Result<ReadOutcome, RecvError> {
    let waits = mem::replace(&mut rx.reading.waits, false);
    let outcome = rx.read();
    rx.reading.waits = waits;
    outcome
}

/// Sends without waiting, whether the socket does or not.
fn write_now<D: Dialect, S: Storage>(tx: &mut Sender<D, S>) -> io::Result<WriteOutcome> {
    let waits = mem::replace(&mut tx.waits, false);
    let outcome = tx.write();
    tx.waits = waits;
    outcome
}

/// What comes after a [turn](Channel::turn).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "the channel stalls unless this is done"]
pub enum Next {
    /// Another turn, once the other peers have had theirs, without waiting: there is more to do.
    Again,
    /// Another turn when the socket is ready for one of these.
    ///
    /// Neither is true only where a turn of [no messages](Turn::at_most) left nothing to do for now:
    /// then do not wait for this socket at all, not even by a `poll` that asks for nothing, as that
    /// would tell that the peer hung up, again and again.
    ///
    /// An event that the peer hung up, or that something failed, is always a reason too. With
    /// edge-triggered events the program may wait for both, all the time, and is woken then whenever
    /// the peer reads.
    Poll {
        /// Whether to wait until there is something to read.
        readable: bool,
        /// Whether to wait until the socket takes more.
        writable: bool,
    },
    /// Nothing: the peer has closed its end, every message was handled, and all is sent.
    ///
    /// A peer may close its sending side alone, and wait for answers. To one whose answer comes from
    /// elsewhere, keep the channel until that is composed and sent.
    Done,
}

/// Why a [turn](Channel::turn) ended early.
#[derive(Debug)]
pub enum TurnError<E> {
    /// Nothing can be received. All messages that arrived before were handled, and what was
    /// composed then is queued; all but [`RecvError::DescriptorLimit`] is final.
    Receive(RecvError),
    /// What is queued cannot be sent, as [`Sender::write`] has it. Where the peer is gone, all that
    /// it sent before was handled first, and what was queued is [dropped](imsg_wire::SendBuf::reset), answers
    /// too. Otherwise it stays queued. Or no answer of the size of the turn
    /// [ever fits](Reason::TooLong).
    Send(SendError),
    /// The handler said so. Its message is taken; the next turn goes on behind it.
    Handler(E),
}

impl<E> TurnError<E> {
    /// Whether this is how it shows that the peer is gone, or reads no more.
    #[must_use]
    pub fn is_peer_gone(&self) -> bool {
        match self {
            Self::Receive(error) => error.is_peer_gone(),
            Self::Send(error) => error.is_peer_gone(),
            Self::Handler(_) => false,
        }
    }

    /// Whether the channel is as good as before, and another turn may succeed once this process or
    /// the system has more room: for descriptors of this process ([`RecvError::DescriptorLimit`]) or
    /// on their way (`ETOOMANYREFS` on Linux, `EMFILE` on OpenBSD), or for what is sent (`ENOBUFS`,
    /// `ENOMEM`).
    ///
    /// The socket may be ready all the time until then, so wait for a while before that turn.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Receive(error) => matches!(error, RecvError::DescriptorLimit),
            Self::Send(SendError::Io(error)) => is_temporary(error),
            Self::Send(SendError::Refused(_)) | Self::Handler(_) => false,
        }
    }
}

impl<E: fmt::Display> fmt::Display for TurnError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receive(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
            Self::Handler(error) => error.fmt(f),
        }
    }
}

/// Also where `E` is a `Box<dyn Error>`, which is no `Error` itself.
impl<E: fmt::Display + fmt::Debug> error::Error for TurnError<E> {}

/// Has the error number of what it is; the error of a handler is [wrapped](io::Error::other).
impl<E> From<TurnError<E>> for io::Error
where
    E: Into<Box<dyn error::Error + Send + Sync>>,
{
    fn from(error: TurnError<E>) -> Self {
        match error {
            TurnError::Receive(error) => error.into(),
            TurnError::Send(error) => error.into(),
            TurnError::Handler(error) => io::Error::other(error),
        }
    }
}

impl<E> From<RecvError> for TurnError<E> {
    fn from(error: RecvError) -> Self {
        Self::Receive(error)
    }
}

impl<E> From<io::Error> for TurnError<E> {
    fn from(error: io::Error) -> Self {
        Self::Send(SendError::Io(error))
    }
}

impl<D: Dialect, S: Storage, T: Storage> Channel<D, S, T> {
    /// Does all that can be done without waiting: reads, hands messages to `handle` while an answer
    /// has room, sends, and goes on if that made room.
    ///
    /// `readable` is whether the event loop said that there is something to read, that the peer hung
    /// up, or that something failed; `false` is right for a first turn, and after [`Next::Again`].
    /// [`Turn`] has an example.
    ///
    /// Afterwards nothing can be done before the socket is ready for what [`Next`] says, unless that
    /// is to come again. So a program that waits for it never stalls by itself: not for messages that
    /// are held back until there is room, nor for what was read with edge-triggered events before.
    /// While something is held back, nothing is read, and the kernel holds the peer up. Two that hold
    /// each other up stall: see [`Turn::silent`].
    ///
    /// It never waits, whether the socket does or not, unless `handle` does. What is composed
    /// outside of a turn changes what to wait for: [`next`](Self::next) tells. It can take the room
    /// of answers, so let it leave as much as they need.
    ///
    /// # Errors
    ///
    /// [`TurnError`].
    pub fn turn<E>(
        &mut self,
        turn: &Turn,
        readable: bool,
        handle: impl FnMut(Message<'_>, &mut Sender<D, T>) -> Result<(), E>,
    ) -> Result<Next, TurnError<E>> {
        turn.run(self, readable, handle)
    }

    /// What to do next with a channel that has its [turns](Self::turn): for one to which something
    /// was composed since the last, as an answer to a message of another peer. Ask it right before
    /// waiting.
    ///
    /// With edge-triggered events, give the channel a turn in its place, as the socket may have been
    /// writable all the time.
    pub fn next(&self, turn: &Turn) -> Next {
        let Self { rx, tx } = self;
        let queued = tx.queue_bytes() > 0;
        if turn.saying && !queued && tx.gone.is_none() {
            Next::Again
        } else if is_over(rx) {
            match (queued, &tx.gone) {
                (true, _) => Next::Poll { readable: false, writable: true },
                (false, Some(_)) => Next::Again, // it says why
                (false, None) => Next::Done,
            }
        } else if !turn.may_handle(tx) {
            // Something is queued then, unless the turn takes no messages, or there never is room,
            // which the turn will say.
            Next::Poll { readable: false, writable: queued || turn.bound() > 0 }
        } else if rx.is_ready() || tx.gone.is_some() {
            Next::Again
        } else {
            Next::Poll { readable: true, writable: queued }
        }
    }
}
