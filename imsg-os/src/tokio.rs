//! Channels to be awaited, over [`tokio::net::UnixStream`] (feature `tokio`).
//!
//! A [`Channel`] here is like the [blocking one](crate::Channel), with the same limits, but its
//! calls are awaited where those wait. It has no `send_borrowed` and no way to take the socket out,
//! and a socket that it refuses is closed. Its halves are owned, and can be moved into two tasks.
//!
//! Every future of a channel is cancel safe: what it does, it does in steps that are not
//! interrupted, between which all bytes and descriptors are in the buffers of the half. Dropping it
//! loses nothing, and the next call goes on where it was.
//!
//! This is why no single call of a channel both takes a descriptor and waits: a future that owns a
//! descriptor would close it when it is dropped. Sending is three steps instead.
//! [`Sender::reserve`] waits for room, [`Sender::compose`] queues a message at once, and
//! [`Sender::flush`] waits for it to be sent.
//!
//! ```
//! use imsg_os::tokio::Channel;
//! use imsg_os::{Descriptor, Header, Modern};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut client, mut server) = Channel::pair(Modern::new())?;
//! server.rx.allow_descriptors();
//!
//! let server = tokio::spawn(async move {
//!     while let Some(mut request) = server.rx.recv().await? {
//!         server.tx.reserve(request.payload.len()).await?;
//!         let descriptor = request.descriptor.take();
//!         server.tx.forward(&request, descriptor)?;
//!         server.tx.flush().await?;
//!     }
//!     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//! });
//!
//! client.rx.allow_descriptors();
//! let file = std::fs::File::open("Cargo.toml")?;
//! client.tx.reserve(5).await?;
//! client.tx.compose(Header::new(1), b"hello", Some(file.into()))?;
//! client.tx.flush().await?;
//!
//! let reply = client.rx.recv().await?.expect("the server is there");
//! assert_eq!(reply.payload, b"hello");
//! assert!(matches!(reply.descriptor, Descriptor::Here(_)));
//!
//! drop(client);
//! server.await?.expect("the server saw the end of the stream");
//! # Ok(())
//! # }
//! ```
//!
//! The message keeps its descriptor while this waits for room. Between two tasks, messages go as
//! [`OwnedMessage`](crate::OwnedMessage)s through a channel of the runtime's, and
//! `rx.set_max_len(HEADER_LEN + CAPACITY)` ends the stream of a peer that sends one which would not
//! fit; the example `tasks_tokio` does so, and has a time limit for clients that send nothing:
//! `timeout(limit, rx.recv())`.
//!
//! A task that always finds something to do gives way to others now and then, as
//! [`recv`](Receiver::recv), [`reserve`](Sender::reserve) and [`flush`](Sender::flush) take part in
//! the runtime's cooperative scheduling, also when they have nothing to wait for.
//! [`messages`](Receiver::messages) does not: it hands out what the buffer holds.
//!
//! A [`Client`] is for several tasks that call one peer, and wait for its replies. Its calls take a
//! descriptor and wait, so one that is given up may close its descriptor.
//!
//! In one task, `tokio::select!` over `rx.recv()` and, while something is
//! [queued](Sender::queue_len), `tx.flush()` does both.
//!
//! As the blocking channel, this one allocates nothing once it is made; what the runtime does to
//! wait is its own. A descriptor is closed where it is dropped, which can block the thread of the
//! runtime for as long as its file system likes (FUSE, NFS).
//!
//! # Tests of time limits
//!
//! In the paused time of tokio (its feature `test-util`), the clock moves to the next timer as soon
//! as no task can go on, so that a limit of minutes takes none. The runtime knows nothing of a peer
//! in another thread or process, which would be given no time to answer. So a test has both ends in
//! one runtime of one thread:
//!
//! ```
//! use imsg_os::tokio::Channel;
//! use imsg_os::{Header, Modern};
//! use std::time::Duration;
//! use tokio::time::{Instant, sleep, timeout};
//!
//! /// Answers a client until it is idle for too long.
//! async fn serve(mut channel: Channel) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!     while let Some(request) = timeout(Duration::from_secs(30), channel.rx.recv()).await?? {
//!         channel.tx.forward(&request, None)?;
//!         channel.tx.flush().await?;
//!     }
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // #[tokio::test(start_paused = true)]
//! let (mut client, server) = Channel::pair(Modern::new())?;
//! let server = tokio::spawn(serve(server));
//!
//! sleep(Duration::from_secs(29)).await;
//! client.tx.compose(Header::new(1), b"in time", None)?;
//! client.tx.flush().await?;
//! assert_eq!(client.rx.recv().await?.expect("an answer").payload, b"in time");
//!
//! let start = Instant::now();
//! assert!(client.rx.recv().await?.is_none(), "the server hangs up");
//! assert!(start.elapsed() >= Duration::from_secs(29));
//! assert!(server.await?.unwrap_err().is::<tokio::time::error::Elapsed>());
//! # Ok(())
//! # }
//! ```

mod client;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use ::tokio::io::Interest;
use ::tokio::net::UnixStream;
use ::tokio::task::coop::consume_budget;
use imsg_wire::{Dialect, Modern, Reason, Storage};

use crate::channel::receiver::{self, Message, ReadOutcome};
use crate::channel::sender::{self, Outgoing, WriteOutcome};
use crate::channel::{self, Gathered, default_storage};
use crate::error::{RecvError, SendError};
use crate::sys::{self, Pages};

pub use client::{CallError, Client, Driver, Reply};

/// A stream socket that carries messages both ways (`struct imsgbuf`), to be awaited.
///
/// The halves are separate fields, so that a reply can be composed while the message that it
/// answers is still borrowed. They can also be moved apart, into two tasks; the socket is closed
/// when both are gone.
pub type Channel<D = Modern, S = Pages, T = S> = channel::Channel<D, S, UnixStream, T>;

/// The receiving half of a [`Channel`].
pub type Receiver<D = Modern, S = Pages> = channel::Receiver<D, S, UnixStream>;

/// The sending half of a [`Channel`].
///
/// What is queued is only sent by [`reserve`](Sender::reserve) and [`flush`](Sender::flush), and
/// lost when this is dropped.
pub type Sender<D = Modern, S = Pages> = channel::Sender<D, S, UnixStream>;

impl<D: Dialect + Clone> Channel<D> {
    /// A channel over a connected stream (`imsgbuf_init`), with a buffer of 64 KiB for each
    /// direction, of which only the [pages](Pages) are resident that were used.
    ///
    /// # Errors
    ///
    /// As [`with_storage`](Channel::with_storage), and `ENOMEM`.
    pub fn new(stream: UnixStream, dialect: D) -> io::Result<Self> {
        Self::with_storage(stream, dialect, default_storage()?, default_storage()?)
    }

    /// A channel over a connected Unix stream socket of another kind: one of the standard library,
    /// or one that was [inherited](crate::inherited). It is made non-blocking, in every process
    /// that has this end of it.
    ///
    /// ```
    /// use imsg_os::Modern;
    /// use imsg_os::tokio::Channel;
    /// use std::os::unix::net::UnixStream;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let (socket, peer) = UnixStream::pair()?;
    /// let mut channel = Channel::from_std(socket, Modern::new())?;
    /// drop(peer);
    /// assert!(channel.rx.recv().await.unwrap().is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`with_storage`](Channel::with_storage), and what the runtime says.
    ///
    /// # Panics
    ///
    /// As [`UnixStream::from_std`]: outside of a runtime, or in one whose I/O is not enabled.
    pub fn from_std(socket: impl Into<OwnedFd>, dialect: D) -> io::Result<Self> {
        let socket = socket.into();
        // Before it is made non-blocking, as it may be something else.
        sys::require_connected_stream(socket.as_fd())?;
        let socket = StdUnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Self::new(UnixStream::from_std(socket)?, dialect)
    }

    /// Two channels that are connected to each other.
    ///
    /// # Errors
    ///
    /// What `socketpair` and the runtime say.
    ///
    /// # Panics
    ///
    /// As [`UnixStream::pair`]: outside of a runtime, or in one whose I/O is not enabled.
    pub fn pair(dialect: D) -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self::new(one, dialect.clone())?, Self::new(other, dialect)?))
    }
}

impl<D: Dialect + Clone, S: Storage, T: Storage> Channel<D, S, T> {
    /// A channel over a connected stream, with the given memory for what is received and for what
    /// is to be sent.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when it is not a Unix stream socket, as a
    /// stream that was made of a descriptor can be.
    pub fn with_storage(
        stream: UnixStream,
        dialect: D,
        received: S,
        queued: T,
    ) -> io::Result<Self> {
        sys::require_connected_stream(stream.as_fd())?;
        Ok(Self::over(stream, dialect, received, queued, false))
    }
}

impl<D: Dialect, S: Storage> Receiver<D, S> {
    /// Takes the next message, and waits for one when there is none (`imsgbuf_read`, `poll` and
    /// `imsgbuf_get`). `None` is the end of the stream.
    ///
    /// Cancel safe: dropped before it is ready, it has taken no message; what was read of one is
    /// kept.
    ///
    /// # Errors
    ///
    /// [`RecvError`]; the end of the stream inside a message is one.
    pub async fn recv(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        if self.buf.is_ready() {
            // It costs nothing to the runtime, so a flood of messages would hold up other tasks.
            consume_budget().await;
        }
        while !self.buf.is_ready() {
            if self.read().await? == ReadOutcome::Closed {
                break;
            }
        }
        Ok(self.buf.next_message()?)
    }

    /// Waits until there is something to read, and reads once (`imsgbuf_read`, and `ibuf_read` when
    /// descriptors are not allowed). Never [`ReadOutcome::WouldBlock`].
    ///
    /// Cancel safe: dropped before it is ready, it has read nothing.
    ///
    /// # Errors
    ///
    /// [`RecvError::Full`], at once, when messages must be taken first; otherwise what the system
    /// or the protocol say. The messages that arrived before an error can still be taken.
    pub async fn read(&mut self) -> Result<ReadOutcome, RecvError> {
        // Otherwise there is nothing to wait for.
        if receiver::spare(&mut self.buf)?.is_none() {
            return Ok(ReadOutcome::Closed);
        }
        let Self { socket, buf, reading } = self;
        let read = || match receiver::read(socket.as_fd(), buf, reading) {
            Ok(ReadOutcome::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            outcome => Ok(outcome),
        };
        socket.async_io(Interest::READABLE, read).await?
    }
}

impl<D: Dialect, S: Storage> Sender<D, S> {
    /// Waits, and sends, until there is room for a message with a payload of `len` bytes and with
    /// a descriptor: the next one that is composed, forwarded or created is not refused unless its
    /// payload is longer than that, or it is to be forwarded and its own descriptor is missing.
    ///
    /// Sends nothing when there is room. With a peer that does not read, this is where the program
    /// waits; so does one that waits itself for this side to read.
    ///
    /// Cancel safe: what it did not send stays queued.
    ///
    /// ```
    /// # use imsg_os::tokio::Channel;
    /// # use imsg_os::{Header, Modern, Reason, SendError};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut channel, _peer) = Channel::pair(Modern::new())?;
    /// channel.tx.reserve(100).await?;
    /// channel.tx.compose(Header::new(1), &[0_u8; 100], None)?; // not refused
    ///
    /// let error = channel.tx.reserve(1 << 20).await.unwrap_err();
    /// assert!(matches!(error, SendError::Refused(Reason::TooLong { .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`] with [`Reason::TooLong`], at once, when such a message never fits,
    /// and what the system says, as for [`flush`](Sender::flush).
    pub async fn reserve(&mut self, len: usize) -> Result<(), SendError> {
        let settled = |buf: &Outgoing<D, S>| {
            matches!(buf.has_room(len, true), Ok(()) | Err(Reason::TooLong { .. }))
        };
        self.send_until(settled).await?;
        Ok(self.buf.has_room(len, true)?)
    }

    /// Sends all that is queued, and waits as long as that takes (`imsgbuf_flush`).
    ///
    /// Cancel safe: what it did not send stays queued.
    ///
    /// # Errors
    ///
    /// What the system says: `EPIPE` or `ECONNRESET` when the peer is gone, without a signal;
    /// `ETOOMANYREFS` (Linux) when too many descriptors are on their way; the [crate
    /// documentation](crate#when-something-is-wrong) has the others, and what to do. What was not
    /// sent stays queued, and can be [taken back](Sender::take_back), or tried again once the peer
    /// has read; trying at once spins, as the socket is writable.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.send_until(Outgoing::is_empty).await
    }

    /// Sends until it is `enough`, or all.
    async fn send_until(&mut self, enough: impl Fn(&Outgoing<D, S>) -> bool) -> io::Result<()> {
        let Self { socket, buf, .. } = self;
        if enough(buf) {
            consume_budget().await;
            return Ok(());
        }
        let write = || match sender::write(socket.as_fd(), buf, false)? {
            WriteOutcome::WouldBlock if !enough(buf) => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        };
        socket.async_io(Interest::WRITABLE, write).await
    }
}

impl<D: Dialect, S: Storage> Gathered<'_, D, S, UnixStream> {
    /// Sends all that is queued and this message, and waits as long as that takes, as
    /// [`Sender::flush`] does.
    ///
    /// Cancel safe: what it did not send is queued when it is dropped.
    ///
    /// ```
    /// # use imsg_os::tokio::Channel;
    /// # use imsg_os::{Header, Modern};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (mut channel, mut peer) = Channel::pair(Modern::new())?;
    /// let payload = vec![7_u8; 16000];
    /// channel.tx.reserve(payload.len()).await?;
    /// channel.tx.gather(Header::new(1), &payload[..], None)?.flush().await?;
    /// assert_eq!(peer.rx.recv().await?.expect("a message").payload, payload);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As there; what was not sent is queued.
    pub async fn flush(mut self) -> io::Result<()> {
        let Self { socket, message, .. } = &mut self;
        let write = || match sender::write_gathered(socket.as_fd(), message, false)? {
            WriteOutcome::WouldBlock => Err(io::ErrorKind::WouldBlock.into()),
            WriteOutcome::All => Ok(()),
        };
        socket.async_io(Interest::WRITABLE, write).await
    }
}
