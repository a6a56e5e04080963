//! A stream socket with a receive buffer and a send buffer.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use imsg_wire::{
    Ancillary, BadLength, DEFAULT_MAX_LEN, Dialect, Header, Modern, NoRoom, NotOffered, Pairing,
    Pending, Received, RecvBuf, Refused, SendBuf, Storage,
};
use zerocopy::{Immutable, IntoBytes};

use crate::error::{NotAStream, RecvError, SendError};
use crate::sys::{self, Credentials, Interest};

/// How many descriptors a receiver holds before their messages are taken. Under exact pairing, two
/// would do. A peer of the older generation, after as many short sends, may have more of them on
/// their way before the first of their messages is whole; then the stream fails.
const RECEIVED: usize = 8;

/// How many descriptors a sender queues.
const QUEUED: usize = 16;

/// The bytes of each buffer of a [`Channel::new`]: four of the largest messages.
const BUFFER: usize = 4 * DEFAULT_MAX_LEN;

/// A received message (`struct imsg`); its payload is borrowed from the [`Receiver`].
pub type Message<'a> = imsg_wire::Message<'a, OwnedFd>;

/// The complete messages of a [`Receiver`]; see [`Receiver::messages`].
pub type Messages<'a, D> = Received<'a, D, OwnedFd, RECEIVED>;

/// Writes the payload of a message in place; see [`Sender::create`].
pub type Writer<'a, D> = imsg_wire::Writer<'a, Pending<'a, D, OwnedFd, QUEUED>>;

/// A stream socket that carries messages both ways (`struct imsgbuf`).
///
/// The halves are separate fields, so that a reply can be composed while the message that it
/// answers is still borrowed. They can also be moved apart, into two threads; the socket is closed
/// when both are gone.
///
/// Whether the calls block is up to the socket; [`Receiver::recv`] and [`Sender::flush`] wait on
/// either kind, for as long as it takes: neither a signal nor a time-out of the socket
/// (`SO_RCVTIMEO`) ends them. For a time limit, use [`Receiver::read`] and [`Sender::write`] with
/// an event loop.
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
#[derive(Debug)]
pub struct Channel<D: Dialect = Modern, S: Storage = Box<[u8]>> {
    /// The receiving half.
    pub rx: Receiver<D, S>,
    /// The sending half.
    pub tx: Sender<D, S>,
}

impl<D: Dialect + Clone> Channel<D> {
    /// A channel over a connected Unix stream socket (`imsgbuf_init`), with a buffer of 64 KiB for each
    /// direction.
    ///
    /// # Errors
    ///
    /// [`NotAStream`] when it is something else; it is given back.
    pub fn new(socket: impl Into<OwnedFd>, dialect: D) -> Result<Self, NotAStream> {
        let buffer = || vec![0; BUFFER].into_boxed_slice();
        Self::with_storage(socket, dialect, buffer(), buffer())
    }

    /// Two channels that are connected to each other.
    ///
    /// # Errors
    ///
    /// What `socketpair` says.
    pub fn pair(dialect: D) -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self::new(one, dialect.clone())?, Self::new(other, dialect)?))
    }
}

impl<D: Dialect + Clone, S: Storage> Channel<D, S> {
    /// A channel over a connected Unix stream socket, with the given memory for what is received and
    /// for what is to be sent.
    ///
    /// ```
    /// use imsg_os::{Channel, Classic};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (socket, _peer) = UnixStream::pair()?;
    /// let (mut received, mut queued) = ([0; 4096], [0; 1024]);
    /// let channel =
    ///     Channel::with_storage(socket, Classic::new(), &mut received[..], &mut queued[..])?;
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
        queued: S,
    ) -> Result<Self, NotAStream> {
        let socket = socket.into();
        if let Err(error) = sys::require_stream(socket.as_fd()) {
            return Err(NotAStream { socket, error });
        }
        let socket = Arc::new(socket);
        let buf = RecvBuf::new(dialect.clone(), received);
        let rx = Receiver { socket: Arc::clone(&socket), buf, reserve: None };
        let mut tx = Sender { socket, buf: SendBuf::new(dialect, queued) };
        tx.buf.set_pid(std::process::id());
        Ok(Self { rx, tx })
    }
}

impl<D: Dialect, S: Storage> Channel<D, S> {
    /// Who is at the other end: the process that connected, or that made the socket pair, at the
    /// time that it did.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        sys::peer_credentials(self.as_fd())
    }
}

impl<D: Dialect, S: Storage> AsFd for Channel<D, S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rx.as_fd()
    }
}

impl<D: Dialect, S: Storage> AsRawFd for Channel<D, S> {
    fn as_raw_fd(&self) -> RawFd {
        self.rx.as_raw_fd()
    }
}

/// Takes the socket out; what is in the buffers is lost.
///
/// Fails, and gives the channel back, when the two halves are not of the same channel, so that
/// the socket has another owner.
impl<D: Dialect, S: Storage> TryFrom<Channel<D, S>> for OwnedFd {
    type Error = Channel<D, S>;

    fn try_from(channel: Channel<D, S>) -> Result<Self, Self::Error> {
        let Channel { rx, tx } = channel;
        if !Arc::ptr_eq(&rx.socket, &tx.socket) {
            return Err(Channel { rx, tx });
        }
        let Sender { socket, buf } = tx;
        drop(socket);
        match Arc::try_unwrap(rx.socket) {
            Ok(socket) => Ok(socket),
            // Does not happen: the halves have the only two owners of the socket.
            Err(socket) => {
                let tx = Sender { socket: Arc::clone(&socket), buf };
                Err(Channel { rx: Receiver { socket, ..rx }, tx })
            }
        }
    }
}

/// The receiving half of a [`Channel`].
pub struct Receiver<D: Dialect = Modern, S: Storage = Box<[u8]>> {
    socket: Arc<OwnedFd>,
    buf: RecvBuf<D, S, OwnedFd, RECEIVED>,
    reserve: Option<Reserve>,
}

/// What a [`Receiver::read`] brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "the stream may have ended"]
pub enum ReadOutcome {
    /// Data: there may be messages now.
    Data,
    /// There was nothing, and the socket does not wait, or not any longer.
    WouldBlock,
    /// The peer has closed its end. Messages may still be there.
    Closed,
}

impl<D: Dialect, S: Storage> Receiver<D, S> {
    /// Takes the next message, and waits for one when there is none (`imsgbuf_read`, `poll` and
    /// `imsgbuf_get`). `None` is the end of the stream.
    ///
    /// # Errors
    ///
    /// [`RecvError`]; the end of the stream inside a message is one.
    pub fn recv(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        while !self.buf.is_ready() {
            match self.read()? {
                ReadOutcome::Data => {}
                ReadOutcome::WouldBlock => sys::wait(self.as_fd(), Interest::Readable)?,
                ReadOutcome::Closed => break,
            }
        }
        Ok(self.buf.next_message()?)
    }

    /// Reads once from the socket (`imsgbuf_read`, and `ibuf_read` when descriptors are not
    /// allowed).
    ///
    /// With edge-triggered readiness, read until it would block.
    ///
    /// # Errors
    ///
    /// [`RecvError::Full`] when messages must be taken first, and what the system or the protocol
    /// say. The messages that arrived before an error can still be taken.
    pub fn read(&mut self) -> Result<ReadOutcome, RecvError> {
        let allowed = self.buf.descriptors_allowed();
        let spare = match self.buf.spare() {
            Ok(spare) => spare,
            Err(NoRoom::Full) => return Err(RecvError::Full),
            Err(NoRoom::Finished) => return Ok(ReadOutcome::Closed),
            Err(NoRoom::Failed(error)) => return Err(error.into()),
        };
        let socket = self.socket.as_fd();
        let received = match &mut self.reserve {
            Some(reserve) if allowed => reserve.recv(socket, spare),
            _ => sys::recv(socket, spare, allowed).map_err(RecvError::Io),
        };
        match received {
            Ok((0, _)) => {
                self.buf.finish();
                Ok(ReadOutcome::Closed)
            }
            Ok((n, ancillary)) => {
                self.buf.commit(n, ancillary).map_err(more_than_offered)?;
                Ok(ReadOutcome::Data)
            }
            Err(RecvError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(ReadOutcome::WouldBlock)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a message that was read before (`imsgbuf_get`); `None` when none is complete.
    ///
    /// # Errors
    ///
    /// What broke the stream, after all messages that came before it.
    #[inline]
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, imsg_wire::Error> {
        self.buf.next_message()
    }

    /// Iterates over the messages that were read before and are complete.
    ///
    /// An error is the last item.
    #[inline]
    pub fn messages(&mut self) -> Messages<'_, D> {
        self.buf.messages()
    }

    /// Whether [`next_message`](Receiver::next_message) has a message or an error to return.
    pub fn is_ready(&self) -> bool {
        self.buf.is_ready()
    }

    /// Allows descriptors to be received from here on (`imsgbuf_allow_fdpass`).
    ///
    /// Each is close-on-exec from the moment that it exists. Until this is called, the kernel
    /// closes what the peer sends, and marked messages say so. Under [`Pairing::Ordered`], which is
    /// the default of the classic dialect, call this before the first read.
    pub fn allow_descriptors(&mut self) {
        self.buf.allow_descriptors();
    }

    /// Keeps a descriptor in reserve, so that a process at its limit (`RLIMIT_NOFILE`) still gets
    /// the next one that is sent, in place of a [message that lost it](crate::Missing::Dropped).
    ///
    /// [`is_at_limit`](Receiver::is_at_limit) tells that the reserve was used. It is filled again
    /// by a later read, when there is room; until then, a read that would lose a descriptor fails
    /// with [`RecvError::DescriptorLimit`] and reads nothing. The socket stays readable then: close
    /// some descriptors before polling it again.
    ///
    /// This costs a descriptor, and for each read one system call more, which copies the bytes a
    /// second time, and one for each descriptor received, as a look ahead (`MSG_PEEK`) shows whether
    /// one would be lost. At the limit, each read also tries to fill the reserve. It cannot help when
    /// another thread takes the last place between the look and the read, or the place that the
    /// reserve makes free.
    ///
    /// # Errors
    ///
    /// When there is no room for the reserve, and on other systems than Linux, whose look ahead
    /// does not show descriptors.
    pub fn keep_reserve(&mut self) -> io::Result<()> {
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.reserve = Some(Reserve { spare: Some(self.socket.try_clone()?) });
        Ok(())
    }

    /// Whether the [reserve](Receiver::keep_reserve) is used up, as this process has as many
    /// descriptors as it may have.
    pub fn is_at_limit(&self) -> bool {
        self.reserve.as_ref().is_some_and(|reserve| reserve.spare.is_none())
    }

    /// Sets the rule that pairs descriptors with messages, in place of the dialect's default.
    pub fn set_pairing(&mut self, rule: Pairing) {
        self.buf.set_pairing(rule);
    }

    /// Sets the largest message to be accepted, in bytes, header included
    /// (`imsgbuf_set_maxsize`).
    ///
    /// # Errors
    ///
    /// [`BadLength`] when it is less than a header, or more than the storage holds or the dialect
    /// can state; nothing changes then.
    pub fn set_max_len(&mut self, max_len: usize) -> Result<(), BadLength> {
        self.buf.set_max_len(max_len)
    }

    /// The largest message accepted, in bytes, header included.
    pub fn max_len(&self) -> usize {
        self.buf.max_len()
    }
}

/// A descriptor that is kept to be closed when there is no room for one that arrives.
struct Reserve {
    spare: Option<OwnedFd>,
}

impl Reserve {
    /// Reads once, and gives the reserve up if a descriptor would be lost otherwise.
    fn recv(
        &mut self,
        socket: BorrowedFd<'_>,
        buf: &mut [u8],
    ) -> Result<(usize, Ancillary<OwnedFd>), RecvError> {
        self.refill(socket);
        // A descriptor that is seen is installed, and has to make room for itself: it is closed.
        let (n, dropped) = match sys::peek(socket, buf)? {
            (0, _) => return Ok((0, Ancillary::Nothing)),
            (n, ancillary) => (n, matches!(ancillary, Ancillary::Dropped)),
        };
        let seen = buf.get_mut(..n).unwrap_or_default();
        if dropped && self.spare.take().is_none() {
            seen.fill(0);
            return Err(RecvError::DescriptorLimit);
        }
        // No further than was seen: behind that, a descriptor may have arrived since.
        let received = sys::recv(socket, seen, true);
        self.refill(socket);
        // What was not received must not linger.
        let n = received.as_ref().map_or(0, |(n, _)| *n);
        seen.get_mut(n..).unwrap_or_default().fill(0);
        Ok(received?)
    }

    fn refill(&mut self, socket: BorrowedFd<'_>) {
        if self.spare.is_none() {
            self.spare = socket.try_clone_to_owned().ok();
        }
    }
}

/// The sending half of a [`Channel`].
pub struct Sender<D: Dialect = Modern, S: Storage = Box<[u8]>> {
    socket: Arc<OwnedFd>,
    buf: SendBuf<D, S, OwnedFd, QUEUED>,
}

/// How far a [`Sender::write`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "something may still be queued"]
pub enum WriteOutcome {
    /// The queue is empty.
    All,
    /// The socket takes no more now, and does not wait, or not any longer.
    WouldBlock,
}

impl<D: Dialect, S: Storage> Sender<D, S> {
    /// Queues a message (`imsg_compose`, `imsg_compose_ibuf`). A pid of 0 stands for the process
    /// that made the channel. The payload is bytes, or any value that `zerocopy` can see as bytes.
    /// (A literal such as `&[0; 4]` is four `i32`, so 16 bytes.)
    ///
    /// # Errors
    ///
    /// [`Refused`] when it is too long or there is no room, with the descriptor in it; nothing is
    /// queued then.
    #[inline]
    pub fn compose<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        header: Header,
        payload: &T,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), Refused<OwnedFd>> {
        self.buf.compose(header, payload, descriptor)
    }

    /// Queues a message whose payload is all of `parts`, one behind the other (`imsg_composev`).
    ///
    /// # Errors
    ///
    /// As [`compose`](Sender::compose).
    #[inline]
    pub fn compose_parts(
        &mut self,
        header: Header,
        parts: &[&[u8]],
        descriptor: Option<OwnedFd>,
    ) -> Result<(), Refused<OwnedFd>> {
        self.buf.compose_parts(header, parts, descriptor)
    }

    /// Begins a message whose payload is written in place (`imsg_create`); it is queued by
    /// [`Writer::close`](imsg_wire::Writer::close).
    ///
    /// # Errors
    ///
    /// As [`compose`](Sender::compose).
    pub fn create(
        &mut self,
        header: Header,
        descriptor: Option<OwnedFd>,
    ) -> Result<Writer<'_, D>, Refused<OwnedFd>> {
        self.buf.create(header, descriptor)
    }

    /// Queues a received message again, with the pid that it has (`imsg_forward`), and with the
    /// descriptor that is named: that of the message, once it was
    /// [taken](imsg_wire::Descriptor::take) out, or none.
    ///
    /// # Errors
    ///
    /// As [`compose`](Sender::compose).
    pub fn forward<F>(
        &mut self,
        message: &imsg_wire::Message<'_, F>,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), Refused<OwnedFd>> {
        self.buf.forward(message, descriptor)
    }

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
        let n = sys::send(self.socket.as_fd(), message.bytes(), Some(descriptor))?;
        message.sent(n).map_err(more_than_offered)?;
        // Not written on: an error would hide that the descriptor was sent.
        Ok(if self.buf.is_empty() { WriteOutcome::All } else { WriteOutcome::WouldBlock })
    }

    /// Sends what the socket takes (`imsgbuf_write`).
    ///
    /// # Errors
    ///
    /// What the system says: `EPIPE` or `ECONNRESET` when the peer is gone, without a signal;
    /// `ETOOMANYREFS` (Linux), `EMSGSIZE` or `ENOBUFS` (BSD) when too many descriptors are on their
    /// way. What was not sent stays queued, and can be tried again once the peer has read.
    pub fn write(&mut self) -> io::Result<WriteOutcome> {
        while let Some(chunk) = self.buf.chunk() {
            let descriptor = chunk.descriptor.map(AsFd::as_fd);
            match sys::send(self.socket.as_fd(), chunk.bytes, descriptor) {
                // The kernel has the descriptor now, so the one given back is closed.
                Ok(n) => {
                    drop(self.buf.consume(n).map_err(more_than_offered)?);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(WriteOutcome::WouldBlock);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(WriteOutcome::All)
    }

    /// Sends all that is queued, and waits as long as that takes (`imsgbuf_flush`).
    ///
    /// A peer that never reads makes this wait for ever; so does one that waits itself for this
    /// side to read.
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

    /// Ends the stream: the peer will read its end, and can still send. What is queued is not sent.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn shutdown(self) -> io::Result<()> {
        sys::shutdown_write(self.as_fd())
    }

    /// Sets the pid that stands in messages whose header says 0, as after a `fork`. It is that of
    /// the process that made the channel.
    pub fn set_pid(&mut self, pid: u32) {
        self.buf.set_pid(pid);
    }

    /// How many messages were queued and not sent completely (`imsgbuf_queuelen`).
    pub fn queue_len(&self) -> usize {
        self.buf.queue_len()
    }

    /// How many bytes are queued, headers included.
    pub fn queue_bytes(&self) -> usize {
        self.buf.queue_bytes()
    }

    /// Sets the largest message to be composed, in bytes, header included
    /// (`imsgbuf_set_maxsize`).
    ///
    /// # Errors
    ///
    /// [`BadLength`] when it is less than a header, or more than the storage holds or the dialect
    /// can state; nothing changes then.
    pub fn set_max_len(&mut self, max_len: usize) -> Result<(), BadLength> {
        self.buf.set_max_len(max_len)
    }

    /// The largest message that can be composed, in bytes, header included.
    pub fn max_len(&self) -> usize {
        self.buf.max_len()
    }
}

/// Does not happen: the kernel reads and takes no more than it is given. Allocates nothing.
fn more_than_offered<T>(_: NotOffered<T>) -> io::Error {
    io::ErrorKind::Other.into()
}

macro_rules! half_traits {
    ($($half:ident),*) => {$(
        impl<D: Dialect, S: Storage> AsFd for $half<D, S> {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.socket.as_fd()
            }
        }

        impl<D: Dialect, S: Storage> AsRawFd for $half<D, S> {
            fn as_raw_fd(&self) -> RawFd {
                self.socket.as_raw_fd()
            }
        }

        impl<D: Dialect, S: Storage> fmt::Debug for $half<D, S> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($half))
                    .field("socket", &self.socket)
                    .field("buf", &self.buf)
                    .finish()
            }
        }
    )*};
}
half_traits!(Receiver, Sender);
