//! Channels that wait in the system call, or not at all: over any socket, in any event loop.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use imsg_wire::{Dialect, Header, Modern, Storage};
use zerocopy::{Immutable, IntoBytes};

use crate::channel::receiver::{self, Message, ReadOutcome};
use crate::channel::sender::{self, WriteOutcome};
use crate::channel::{self, Gathered, default_storage, more_than_offered};
use crate::error::{NotAStream, RecvError, SendError};
use crate::sys::{self, Interest, Pages};

/// A stream socket that carries messages both ways (`struct imsgbuf`).
///
/// The halves are separate fields, so that a reply can be composed while the message that it
/// answers is still borrowed. They can also be moved apart, into two threads; the socket is closed,
/// and the peer sees the end, when both are gone. Beware that a `move` closure takes only the half
/// that it uses, and the other one stays where it was and keeps the socket open: begin the closure
/// with `let mut channel = channel;` to take both.
///
/// It can hold 8 received descriptors, of messages that were not taken yet, and 16 that are queued.
///
/// Whether the calls block is up to the socket when the channel is made, so make it non-blocking
/// first if it is to be ([`UnixStream::set_nonblocking`]), or say so to the channel
/// ([`set_nonblocking`](Channel::set_nonblocking)). `O_NONBLOCK` belongs to the open file, and
/// whoever else has it can change it; a channel that does not wait never does, whatever becomes of
/// it. [`Receiver::recv`] and [`Sender::flush`] wait on either kind, for as long as it takes:
/// neither a signal nor a time-out of the socket (`SO_RCVTIMEO`, `SO_SNDTIMEO`) ends them. Such a
/// time-out ends one [`Receiver::read`] or [`Sender::write`]; to limit the time for a whole
/// message, use these and a [`Deadline`](crate::Deadline), in an event loop; see below.
///
/// ```
/// use imsg_os::{Channel, Header, Modern};
///
/// let (mut client, mut server) = Channel::pair(Modern::new())?;
/// client.tx.compose(Header { id: 5, ..Header::new(1) }, b"ping", None)?;
/// client.tx.flush()?;
///
/// let request = server.rx.recv()?.expect("a request");
/// let reply = Header { id: request.header.id, ..Header::new(2) };
/// server.tx.compose(reply, request.payload, None)?;
/// server.tx.flush()?;
/// drop(server);
///
/// assert_eq!(client.rx.recv()?.expect("a reply").payload, b"ping");
/// assert!(client.rx.recv()?.is_none(), "the server hung up");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Messages, and their descriptors, passed on to another channel:
///
/// ```
/// # use imsg_os::{Channel, Header, Modern, Reason, Refused};
/// # let (mut from, mut there) = Channel::pair(Modern::new())?;
/// # let (mut to, _peer) = Channel::pair(Modern::new())?;
/// # there.tx.compose(Header::new(1), b"", None)?;
/// # there.tx.flush()?;
/// # drop(there);
/// while let Some(mut message) = from.rx.recv()? {
///     let descriptor = message.descriptor.take();
///     match to.tx.forward(&message, descriptor) {
///         Err(Refused { reason: Reason::Full { .. } | Reason::DescriptorsFull, descriptor }) => {
///             to.tx.flush()?; // it makes room
///             to.tx.forward(&message, descriptor)?;
///         }
///         Err(refused) => println!("not passed on: {refused}"), // its descriptor is missing
///         Ok(()) => {}
///     }
/// }
/// to.tx.flush()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # In an event loop
///
/// A [`turn`](Channel::turn) does all that can be done without waiting, and [`Poll`](crate::Poll)
/// waits for what the turns need, so that the loop is: a turn of each channel, then one wait for all.
/// `Poll` has an example of a server. This is a worker, which passes what its parent asks on to
/// another one, and the answers back:
///
/// ```
/// use imsg_os::{Channel, Header, Modern, Next, Poll, Requests, Turn};
/// use std::time::{Duration, Instant};
///
/// const QUESTION: usize = 255; // the longest payloads, in bytes
/// const ANSWER: usize = 1000;
/// const PLACES: usize = 32;
/// const PATIENCE: Duration = Duration::from_secs(5);
/// const NO_ANSWER: u32 = 9;
///
/// struct Asked {
///     id: u32,
///     until: Instant,
/// }
///
/// /// Takes as many questions as the other worker has room for; and for their answers, and those to
/// /// come, there are places and room.
/// fn questions(parent: &Channel, other: &Channel, asked: &Requests<Asked, PLACES>) -> Turn {
///     let answers = parent.tx.room_for(ANSWER, false).min(PLACES).saturating_sub(asked.len());
///     Turn::silent().at_most(other.tx.room_for(QUESTION, false).min(answers))
/// }
///
/// fn run(mut parent: Channel, mut other: Channel) -> Result<(), Box<dyn std::error::Error>> {
///     let mut asked = Requests::new();
///     let mut poll = Poll::new();
///     loop {
///         let turn = questions(&parent, &other, &asked);
///         let next = parent.turn(&turn, poll.is_readable(&parent), |message, _| {
///             let until = Instant::now() + PATIENCE;
///             let asked = asked.insert(Asked { id: message.header.id, until });
///             let id = asked.map_err(|_| "more questions than places")?;
///             other.tx.compose(Header { id, ..Header::new(1) }, message.payload, None)?;
///             Ok::<_, Box<dyn std::error::Error>>(())
///         })?;
///         if next == Next::Done {
///             return Ok(()); // the parent hung up
///         }
///         let next = other.turn(&Turn::silent(), poll.is_readable(&other), |message, _| {
///             let Some(Asked { id, .. }) = asked.take(message.header.id) else {
///                 return Ok(()); // too late
///             };
///             parent.tx.compose(Header { id, ..Header::new(2) }, message.payload, None)
///         })?;
///         if next == Next::Done {
///             return Err("the other worker hung up".into());
///         }
///         let now = Instant::now();
///         for (_, Asked { id, .. }) in asked.expire(|_, asked| asked.until <= now) {
///             parent.tx.compose(Header { id, ..Header::new(NO_ANSWER) }, b"", None)?;
///         }
///
///         let mut waits = poll.begin();
///         waits.channel(&parent, &questions(&parent, &other, &asked));
///         waits.channel(&other, &Turn::silent());
///         waits.until(asked.iter().map(|(_, asked)| asked.until).min());
///         waits.wait()?;
///     }
/// }
/// # let (ours, mut parent) = Channel::pair(Modern::new())?;
/// # let (theirs, mut other) = Channel::pair(Modern::new())?;
/// # let worker = std::thread::spawn(move || run(ours, theirs).map_err(|e| e.to_string()));
/// # for id in 0..100 {
/// #     parent.tx.compose(Header { id, ..Header::new(1) }, b"?", None)?;
/// # }
/// # parent.tx.flush()?;
/// # let other = std::thread::spawn(move || {
/// #     while let Some(message) = other.rx.recv().unwrap() {
/// #         other.tx.compose(message.header, b"!", None).unwrap();
/// #         other.tx.flush().unwrap();
/// #     }
/// # });
/// # for id in 0..100 {
/// #     let answer = parent.rx.recv()?.expect("an answer");
/// #     assert_eq!((answer.header.id, answer.payload), (id, &b"!"[..]));
/// # }
/// # drop(parent);
/// # worker.join().unwrap()?;
/// # other.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// | there is | so |
/// | --- | --- |
/// | a handler that answers | [`Turn::new`](crate::Turn::new), with room for the longest answer: no message is taken before |
/// | a handler that passes messages on to another channel, keeps them in a table, or answers later | [`Turn::at_most`](crate::Turn::at_most), with as many as have room there, and with 0 while the other one is being started, and `until` the time of that |
/// | two ends that both answer | one of them takes messages by a [silent](crate::Turn::silent) turn, or both wait for ever |
/// | something long to say, as a configuration when a worker starts | a queue that has room for it: [`with_storage`](Channel::with_storage) and [`Pages`](crate::Pages), of which only what was used is resident; or, for what is not in memory or has no limit, [`Turn::saying`](crate::Turn::saying) |
/// | a message for a channel outside of its turn | compose it; the next wait and the next turn send it |
/// | a limit of time | [`Deadline`](crate::Deadline) for the peer to complete a message, [`Requests::expire`](crate::Requests::expire) for replies, [`Restarts`](crate::Restarts) for when a worker is started again; and [`Waits::until`](crate::Waits::until) for each |
/// | a peer that died | a turn says [`Next::Done`](crate::Next::Done), or an error that [tells so](crate::TurnError::is_peer_gone): [`Requests::drain`](crate::Requests::drain) has what it left unanswered |
/// | a channel to another worker that fails, though that lives | end this worker: its parent starts it again, and gives both a new channel. A worker that only drops the channel waits for ever |
/// | a peer that does not read | a limit of your own: the time since [`sent`](Sender::sent) has changed while something is [queued](Sender::queue_bytes), and `until` its end |
/// | signals | a socket that is written to by a handler, as by the crate `signal-hook`, and [`Waits::readable`](crate::Waits::readable); read it empty each time |
/// | an error that [goes by](crate::TurnError::is_temporary) | no turn for the channel, and no wait, until some time later, as it may be ready all along |
///
/// The turn that a channel waits for has to be of the kind that it will have. The examples
/// `echo_poll` and `echo_mio` are servers for many clients, and `supervisor` is a daemon.
///
/// A program that takes the steps itself makes the socket non-blocking, and keeps to this. Ask `poll`
/// for writability only while something is [queued](Sender::queue_len). With edge-triggered events,
/// read until it would block. Where an answer may find no [room](Sender::has_room), ask for that
/// before a message is taken, and read on only when [`is_ready`](Receiver::is_ready) is false: with
/// messages left, a read can be [`RecvError::Full`]. When a write has made room, take the messages
/// that were left before waiting, as no event comes for them. Read also when the event says that the
/// peer hung up (`POLLHUP`), or that something failed. The example `imsg_init` has the whole loop
/// around poll(2).
///
/// ```
/// use imsg_os::{Channel, Modern, ReadOutcome};
///
/// /// Whether the channel is to be kept.
/// fn on_event(channel: &mut Channel<Modern>) -> Result<bool, Box<dyn std::error::Error>> {
///     let outcome = channel.rx.read()?;
///     for message in channel.rx.messages() {
///         let message = message?;
///         channel.tx.compose(message.header, message.payload, None)?;
///     }
///     let _ = channel.tx.write()?; // what is left waits for the next event
///     Ok(outcome != ReadOutcome::Closed)
/// }
/// # let (socket, peer) = std::os::unix::net::UnixStream::pair()?;
/// # socket.set_nonblocking(true)?;
/// # let mut channel = Channel::new(socket, Modern::new())?;
/// # assert!(on_event(&mut channel)?);
/// # drop(peer);
/// # assert!(!on_event(&mut channel)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`UnixStream::set_nonblocking`]: std::os::unix::net::UnixStream::set_nonblocking
pub type Channel<D = Modern, S = Pages, T = S> = channel::Channel<D, S, OwnedFd, T>;

/// The receiving half of a [`Channel`].
pub type Receiver<D = Modern, S = Pages> = channel::Receiver<D, S, OwnedFd>;

/// The sending half of a [`Channel`].
pub type Sender<D = Modern, S = Pages> = channel::Sender<D, S, OwnedFd>;

impl<D: Dialect + Clone> Channel<D> {
    /// A channel over a connected Unix stream socket (`imsgbuf_init`), with a buffer of 64 KiB for
    /// each direction, of which only the [pages](Pages) are resident that were used.
    ///
    /// Messages may have 16384 bytes with their header
    /// ([`DEFAULT_MAX_LEN`](crate::DEFAULT_MAX_LEN)), and up to 64 KiB by `set_max_len`; for larger
    /// ones, use [`with_storage`](Channel::with_storage). So may a server with many clients whose
    /// messages are small, as each buffer is in pages of its own, and small ones are side by side.
    ///
    /// # Errors
    ///
    /// [`NotAStream`] when it is something else, or there is no memory; it is given back.
    pub fn new(socket: impl Into<OwnedFd>, dialect: D) -> Result<Self, NotAStream> {
        match (default_storage(), default_storage()) {
            (Ok(received), Ok(queued)) => Self::with_storage(socket, dialect, received, queued),
            (Err(error), _) | (_, Err(error)) => Err(NotAStream { socket: socket.into(), error }),
        }
    }

    /// Two channels that are connected to each other.
    ///
    /// Before a `fork`, make a pair of sockets instead, and in each process the channel of one
    /// after it: so neither keeps the other's end open, and messages have the right pid.
    ///
    /// # Errors
    ///
    /// What `socketpair` says.
    pub fn pair(dialect: D) -> io::Result<(Self, Self)> {
        let [one, other] = sys::pair()?;
        let over = |socket, dialect| -> io::Result<Self> {
            Ok(Self::over(socket, dialect, default_storage()?, default_storage()?, true))
        };
        Ok((over(one, dialect.clone())?, over(other, dialect)?))
    }
}

impl<D: Dialect + Clone, S: Storage, T: Storage> Channel<D, S, T> {
    /// A channel over a connected Unix stream socket, with the given memory for what is received
    /// and for what is to be sent, which may be of two types.
    ///
    /// ```
    /// use imsg_os::{Channel, Classic};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (socket, _peer) = UnixStream::pair()?;
    /// let mut received = vec![0; 4096];
    /// let channel = Channel::with_storage(socket, Classic::new(), &mut received[..], [0; 1024])?;
    /// assert_eq!(channel.rx.max_len(), 4096);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotAStream`] when it is something else; it is given back.
    pub fn with_storage(
        socket: impl Into<OwnedFd>,
        dialect: D,
        received: S,
        queued: T,
    ) -> Result<Self, NotAStream> {
        let socket = socket.into();
        let checked = sys::require_connected_stream(socket.as_fd());
        match checked.and_then(|()| sys::is_nonblocking(socket.as_fd())) {
            Ok(nonblocking) => Ok(Self::over(socket, dialect, received, queued, !nonblocking)),
            Err(error) => Err(NotAStream { socket, error }),
        }
    }
}

impl<D: Dialect, S: Storage, T: Storage> Channel<D, S, T> {
    /// Whether [`Receiver::read`], [`Sender::write`], [`Gathered::write`] and
    /// [`Sender::send_borrowed`] wait, or say that they would.
    ///
    /// This changes how the channel makes its calls, and nothing about the socket (`O_NONBLOCK`),
    /// which may be shared with other processes.
    pub fn set_nonblocking(&mut self, nonblocking: bool) {
        self.rx.reading.waits = !nonblocking;
        self.tx.waits = !nonblocking;
    }
}

/// Takes the socket out; what is in the buffers is lost.
///
/// Fails, and gives the channel back, when the two halves are not of the same channel, so that
/// the socket has another owner.
impl<D: Dialect, S: Storage, T: Storage> TryFrom<Channel<D, S, T>> for OwnedFd {
    type Error = Channel<D, S, T>;

    fn try_from(channel: Channel<D, S, T>) -> Result<Self, Self::Error> {
        let Channel { rx, tx } = channel;
        if !Arc::ptr_eq(&rx.socket, &tx.socket) {
            return Err(Channel { rx, tx });
        }
        let Sender { socket, buf, waits, gone } = tx;
        drop(socket);
        match Arc::try_unwrap(rx.socket) {
            Ok(socket) => Ok(socket),
            // Does not happen: the halves have the only two owners of the socket.
            Err(socket) => {
                let tx = Sender { socket: Arc::clone(&socket), buf, waits, gone };
                Err(Channel { rx: Receiver { socket, ..rx }, tx })
            }
        }
    }
}

impl<D: Dialect, S: Storage> Receiver<D, S> {
    /// Takes the next message, and waits for one when there is none (`imsgbuf_read`, `poll` and
    /// `imsgbuf_get`). `None` is the end of the stream.
    ///
    /// # Errors
    ///
    /// [`RecvError`]; the end of the stream inside a message is one.
    #[inline]
    pub fn recv(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        if self.buf.is_plainly_ready() {
            return Ok(self.buf.next_message()?);
        }
        self.recv_next()
    }

    /// As [`recv`](Self::recv), for all but the usual message that was read with the one before it.
    fn recv_next(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        if !self.buf.is_ready() {
            self.fill()?;
        }
        Ok(self.buf.next_message()?)
    }

    /// Reads, at least once, until a message is ready or the stream ends.
    fn fill(&mut self) -> Result<(), RecvError> {
        loop {
            match self.read()? {
                ReadOutcome::Data if self.buf.is_ready() => return Ok(()),
                ReadOutcome::Data => {}
                ReadOutcome::WouldBlock => sys::wait(self.as_fd(), Interest::Readable)?,
                ReadOutcome::Closed => return Ok(()),
            }
        }
    }

    /// Reads once from the socket (`imsgbuf_read`, and `ibuf_read` when descriptors are not
    /// allowed). A signal does not end it, but a time-out of the socket (`SO_RCVTIMEO`) does.
    ///
    /// With edge-triggered readiness, read until it would block.
    ///
    /// # Errors
    ///
    /// [`RecvError::Full`] when messages must be taken first, and what the system or the protocol
    /// say. The messages that arrived before an error can still be taken.
    pub fn read(&mut self) -> Result<ReadOutcome, RecvError> {
        receiver::read(self.socket.as_fd(), &mut self.buf, &mut self.reading)
    }
}

impl<D: Dialect, S: Storage> Sender<D, S> {
    /// Sends a message at once, with a descriptor that stays the caller's.
    ///
    /// What is queued is sent first. When the socket takes only a part of the message, the
    /// descriptor is with the peer, and the rest is queued:
    /// [`WouldBlock`](WriteOutcome::WouldBlock) says so.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing of the message was sent or queued then. On a non-blocking socket
    /// that is full, it is one of kind [`WouldBlock`](io::ErrorKind::WouldBlock).
    pub fn send_borrowed<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        header: Header,
        payload: &T,
        descriptor: BorrowedFd<'_>,
    ) -> Result<WriteOutcome, SendError> {
        if self.write()? == WriteOutcome::WouldBlock {
            return Err(SendError::Io(io::ErrorKind::WouldBlock.into()));
        }
        let message = self.buf.lend(header, payload)?;
        let parts = message.parts().map(IoSlice::new);
        let n = sys::send(self.socket.as_fd(), &parts, Some(descriptor), self.waits)?;
        if let Some(mut rest) = message.sent(n).map_err(more_than_offered)?
            && self.waits
        {
            // An error would hide that the descriptor was sent: the next write has it again.
            let _ = sender::write_gathered(self.socket.as_fd(), &mut rest, true);
        }
        Ok(if self.buf.is_empty() { WriteOutcome::All } else { WriteOutcome::WouldBlock })
    }

    /// Sends what the socket takes (`imsgbuf_write`). A signal does not end it, but a time-out of
    /// the socket (`SO_SNDTIMEO`) does.
    ///
    /// # Errors
    ///
    /// What the system says: `EPIPE` or `ECONNRESET` when the peer is gone, without a signal;
    /// `ETOOMANYREFS` (Linux) when too many descriptors are on their way; the [crate
    /// documentation](crate#when-something-is-wrong) has the others, and what to do. What was not
    /// sent stays queued, and can be tried again or [taken back](Sender::take_back).
    pub fn write(&mut self) -> io::Result<WriteOutcome> {
        sender::write(self.socket.as_fd(), &mut self.buf, self.waits)
    }

    /// Sends all that is queued, and waits as long as that takes (`imsgbuf_flush`).
    ///
    /// A peer that never reads makes this wait for ever; so does one that waits itself for this
    /// side to read. On Linux, one that shuts down its reading side ends it within a second;
    /// elsewhere, where the channel does not wait.
    ///
    /// # Errors
    ///
    /// As [`write`](Sender::write).
    pub fn flush(&mut self) -> io::Result<()> {
        while self.write()? == WriteOutcome::WouldBlock {
            sys::wait(self.as_fd(), Interest::Writable)?;
        }
        Ok(())
    }
}

impl<D: Dialect, S: Storage> Gathered<'_, D, S, OwnedFd> {
    /// Sends what the socket takes, as [`Sender::write`] does, of what is queued and of this message.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write(&mut self) -> io::Result<WriteOutcome> {
        sender::write_gathered(self.socket.as_fd(), &mut self.message, self.waits)
    }

    /// Sends all that is queued and this message, and waits as long as that takes, as
    /// [`Sender::flush`] does.
    ///
    /// # Errors
    ///
    /// As there; what was not sent is queued.
    pub fn flush(mut self) -> io::Result<()> {
        while self.write()? == WriteOutcome::WouldBlock {
            sys::wait(self.socket.as_fd(), Interest::Writable)?;
        }
        Ok(())
    }
}
