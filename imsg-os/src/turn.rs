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
/// fn answer(request: Message<'_>, tx: &mut Sender) -> Result<(), Refused<OwnedFd>> {
///     tx.compose(Header { pid: 0, ..request.header }, request.payload, None)
/// }
///
/// let turn = Turn::new(1000); // no answer has more bytes of payload
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
    edge_triggered: bool,
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
        Self { room: Some(room), messages: 64, edge_triggered: false }
    }

    /// A turn in which messages are handled however full the queue is, for a handler that composes
    /// nothing to this channel.
    ///
    /// A handler that composes to another channel is handed a message also when that one is full. If
    /// the message must not be lost then, take it without a turn, by
    /// [`next_message`](crate::Receiver::next_message), once the other channel
    /// [has room](crate::Sender::has_room).
    ///
    /// At one end of a channel at least, messages have to be taken in this way. When both ends hold
    /// them back until answers have room, and each has its queue full, both wait for ever. That is
    /// not so where one end asks and the other one answers, if the one that asks has no more
    /// questions out than all answers to them have room.
    #[must_use]
    pub const fn silent() -> Self {
        Self { room: None, messages: 64, edge_triggered: false }
    }

    /// Sets how many messages are handled in a turn, before other peers have theirs; 64 if this is
    /// not called. One is the least.
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

    /// Reads, handles and writes until nothing can be done, or the messages are used up.
    fn run<D: Dialect, S: Storage, T: Storage, E>(
        &self,
        channel: &mut Channel<D, S, T>,
        readable: bool,
        mut handle: impl FnMut(Message<'_>, &mut Sender<D, T>) -> Result<(), E>,
    ) -> Result<Next, TurnError<E>> {
        let mut reads = readable || self.edge_triggered || channel.tx.gone.is_some();
        let mut left = self.messages;
        if let Some(room) = self.room
            && let Err(reason @ Reason::TooLong { .. }) = channel.tx.has_room(room, true)
        {
            return Err(TurnError::Send(SendError::Refused(reason)));
        }
        loop {
            let Channel { rx, tx } = &mut *channel;
            if reads && self.may_read(rx, tx) {
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
                && self.has_room(tx)
                && let Some(message) = rx.next_message().map_err(RecvError::Protocol)?
            {
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
            let goes_on = self.has_room(tx) && rx.is_ready() || reads && self.may_read(rx, tx);
            match (goes_on, left) {
                (true, 0) => return Ok(Next::Again),
                (true, _) => {}
                (false, _) => {
                    return tx.gone.take().map_or(Ok(channel.next(self)), |gone| Err(gone.into()));
                }
            }
        }
    }

    fn has_room<D: Dialect, S: Storage>(&self, tx: &Sender<D, S>) -> bool {
        self.room.is_none_or(|room| tx.has_room(room, true).is_ok())
    }

    /// Whether reading makes sense: the stream goes on, and what it brings can be handled.
    fn may_read<D: Dialect, S: Storage, T: Storage>(
        &self,
        rx: &Receiver<D, S>,
        tx: &Sender<D, T>,
    ) -> bool {
        !rx.buf.is_finished() && !rx.is_ready() && self.has_room(tx)
    }
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
    /// Another turn when the socket is ready for one of these; at least one is true.
    ///
    /// An event that the peer hung up, or that something failed, is always a reason too. With
    /// edge-triggered events the program may wait for both, all the time.
    Poll {
        /// Whether to wait until there is something to read.
        readable: bool,
        /// Whether to wait until the socket takes more.
        writable: bool,
    },
    /// Nothing: the peer has closed its end, every message was handled, and all is sent.
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
        let queued = self.tx.queue_bytes() > 0;
        if !turn.has_room(&self.tx) {
            // Something is queued then, unless there never is room, which the turn will say.
            Next::Poll { readable: false, writable: true }
        } else if self.rx.is_ready() {
            Next::Again
        } else if !self.rx.buf.is_finished() {
            Next::Poll { readable: true, writable: queued }
        } else if queued {
            Next::Poll { readable: false, writable: true }
        } else {
            Next::Done
        }
    }
}
