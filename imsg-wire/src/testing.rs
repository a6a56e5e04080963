//! Test and fuzz your handler: two ends joined in memory, without sockets (feature `testing`).
//!
//! A [`Pair`] has a client, which is the test, and a server, which has the handler that is tested:
//! a function of a [`Message`] and of something that it can [`Compose`](crate::Compose) to. The two
//! [`Link`]s between them carry bytes and descriptors by the rules of a [`Kernel`].
//!
//! ```
//! use imsg_wire::testing::{Kernel, Pair, Token, Tokens};
//! use imsg_wire::typed::Protocol;
//! use imsg_wire::{Compose, Message, Modern};
//!
//! imsg_wire::protocol! {
//!     enum Request<F> {
//!         1 => Keep + F, // in a program, `+ OwnedFd`, without the parameter
//!         2 => Count,
//!     }
//! }
//!
//! imsg_wire::protocol! {
//!     enum Answer { 3 => Kept { files: u32 } }
//! }
//!
//! /// What is tested.
//! fn handle<F: std::fmt::Debug + 'static>(
//!     kept: &mut Vec<F>,
//!     message: Message<'_, F>,
//!     tx: &mut impl Compose<Descriptor = F>,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let id = message.header.id;
//!     match message.try_into()? {
//!         Request::Keep { descriptor } => kept.push(descriptor),
//!         Request::Count => Answer::Kept { files: kept.len() as u32 }.compose(tx, id)?,
//!     }
//!     Ok(())
//! }
//!
//! let tokens = Tokens::default();
//! for kernel in Kernel::ALL {
//!     let mut pair = Pair::new(Modern::new(), kernel);
//!     pair.server.rx.allow_descriptors();
//!     Request::Keep { descriptor: tokens.open(1) }.compose(&mut pair.client.tx, 1)?;
//!     Request::<Token>::Count.compose(&mut pair.client.tx, 2)?;
//!
//!     // No call sends or reads more than three bytes.
//!     let mut kept = Vec::new();
//!     pair.exchange(std::iter::repeat(3), |message, tx| handle(&mut kept, message, tx))?;
//!
//!     let answer = pair.client.rx.next_message()?.expect("an answer");
//!     assert!(matches!(answer.try_into()?, Answer::Kept { files: 1 }));
//!     assert_eq!(tokens.count(), 1, "the server has it, and nobody else");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What the calls do is the test's to choose, for instance by `proptest`: how many bytes each sends
//! or reads, and when the process can have no more descriptors, so that the next one is
//! [dropped](crate::Missing::Dropped). [`Link::put`] sends what no honest client would.
//!
//! No call that sends fails here: that too many descriptors are on their way (`ETOOMANYREFS`), or that
//! one cannot be sent (`EPERM`, `EINVAL`), is to be tested over real sockets.
//!
#![cfg_attr(feature = "arbitrary", doc = include_str!("testing/fuzz.md"))]
//! # Time
//!
//! Nothing here waits, so time limits are not for here. Those of a handler that is awaited are
//! tested over `imsg_os::tokio`, in the paused time of its runtime; the page of that module shows
//! how.
//!
//! # What it is made of
//!
//! The modules below are what this library itself is tested with: a model of a [socket](kernel) on
//! each kernel, of what `imsg-os` [does with it](shim), and of [senders] that are not this library.

#[cfg(feature = "arbitrary")]
mod arbitrary;
pub mod kernel;
pub mod senders;
pub mod shim;
#[cfg(feature = "arbitrary")]
mod stream;
mod token;

use alloc::vec;
use alloc::vec::Vec;
use core::error;
use core::fmt;

use crate::dialect::{Dialect, header_len};
use crate::header::DEFAULT_MAX_LEN;
use crate::message::Message;
use crate::recv::RecvBuf;
use crate::send::SendBuf;
use crate::storage::Storage;

pub use kernel::Kernel;
use kernel::Socket;
use senders::Sender;
use shim::Shim;
pub use shim::{Broken, ReadOutcome};
#[cfg(feature = "arbitrary")]
pub use stream::{Damage, Stream};
pub use token::{Duplicate, Token, Tokens};

/// A client and a server, and what is on its way between them.
///
/// The buffers are those of a channel of `imsg-os`, 64 KiB each, and may be replaced by others.
/// `F` is the type of a descriptor: [`Token`], or, for a handler that takes no other, `OwnedFd`.
#[derive(Debug)]
pub struct Pair<D, F = Token> {
    /// The test's own end.
    pub client: End<D, F>,
    /// The end of the handler.
    pub server: End<D, F>,
    /// From the client to the server.
    pub to_server: Link<F>,
    /// From the server to the client.
    pub to_client: Link<F>,
}

/// One end of a connection.
#[derive(Debug)]
pub struct End<D, F = Token> {
    /// What was received.
    pub rx: RecvBuf<D, Vec<u8>, F>,
    /// What is to be sent.
    pub tx: SendBuf<D, Vec<u8>, F>,
}

impl<D: Dialect + Clone, F> Pair<D, F> {
    /// Two ends that speak `dialect`, with room for any amount on the way.
    pub fn new(dialect: D, kernel: Kernel) -> Self {
        Self::with_capacity(dialect, kernel, usize::MAX)
    }

    /// Two ends with room for `capacity` bytes on the way, for each direction. A descriptor may need
    /// [some room](kernel::CONTROL) beside its bytes, and some kernels send none unless there is
    /// [more](shim::FEW).
    pub fn with_capacity(dialect: D, kernel: Kernel, capacity: usize) -> Self {
        let storage = || vec![0; 4 * DEFAULT_MAX_LEN];
        let end = |dialect: &D| End {
            rx: RecvBuf::with_descriptors(dialect.clone(), storage()),
            tx: SendBuf::with_descriptors(dialect.clone(), storage()),
        };
        let link = || Link::with_capacity(kernel, capacity);
        Self { client: end(&dialect), server: end(&dialect), to_server: link(), to_client: link() }
    }
}

impl<D: Dialect, F: Duplicate> Pair<D, F> {
    /// Has both ends send and read, and `handle` what arrives at the server, until nothing moves.
    ///
    /// The [`calls`](Call) go around: the client sends, the server reads, handles and sends, the
    /// client reads. When they are used up, the others are without limits.
    ///
    /// A message is handled when the largest answer has room, as in a turn of an event loop. What
    /// arrives at the client stays in its buffer. When that is full, the test takes what is in it
    /// and exchanges on.
    ///
    /// # Errors
    ///
    /// [`Stopped`]. After an error of the handler, the next exchange goes on behind its message.
    pub fn exchange<E>(
        &mut self,
        calls: impl IntoIterator<Item: Into<Call>>,
        mut handle: impl FnMut(Message<'_, F>, &mut SendBuf<D, Vec<u8>, F>) -> Result<(), E>,
    ) -> Result<(), Stopped<E>> {
        let Self { client, server, to_server, to_client } = self;
        let mut calls = calls.into_iter();
        let mut next = move || calls.next().map_or(Call::UNLIMITED, Into::into);
        loop {
            let mut moved = to_server.send(&mut client.tx, next()) > 0;
            let outcome = to_server.read(&mut server.rx, next()).map_err(Stopped::Server)?;
            moved |= matches!(outcome, ReadOutcome::Data(_));
            while server.has_room_for_any()
                && let Some(message) = server.rx.next_message().map_err(Stopped::server)?
            {
                moved = true;
                handle(message, &mut server.tx).map_err(Stopped::Handler)?;
            }
            moved |= to_client.send(&mut server.tx, next()) > 0;
            let outcome = to_client.read(&mut client.rx, next()).map_err(Stopped::Client)?;
            moved |= matches!(outcome, ReadOutcome::Data(_));
            if !moved {
                return Ok(());
            }
        }
    }
}

impl<D: Dialect, F> End<D, F> {
    /// Whether the largest message can be queued.
    fn has_room_for_any(&self) -> bool {
        let largest = self.tx.max_len().saturating_sub(header_len::<D>());
        self.tx.has_room(largest, true).is_ok()
    }
}

/// A system call that sends or reads, by what limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// How many bytes it sends or reads at most. One is the least.
    pub bytes: usize,
    /// How many descriptors the process can have more than it has, if it reads. Without any, the
    /// kernel [drops](crate::Missing::Dropped) what comes; FreeBSD since 15 then
    /// [breaks](Broken::Read) the stream.
    pub slots: usize,
}

impl Call {
    /// All that there is.
    pub const UNLIMITED: Self = Self { bytes: usize::MAX, slots: usize::MAX };
}

impl From<usize> for Call {
    fn from(bytes: usize) -> Self {
        Self { bytes, ..Self::UNLIMITED }
    }
}

impl From<(usize, usize)> for Call {
    fn from((bytes, slots): (usize, usize)) -> Self {
        Self { bytes, slots }
    }
}

/// One direction of a connection in memory.
///
/// What the kernel drops, it closes; so do reads of a buffer that does not allow descriptors.
#[derive(Debug)]
pub struct Link<F = Token> {
    socket: Socket<F>,
    shim: Shim,
}

impl<F> Link<F> {
    /// A direction with room for any amount on the way.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self::with_capacity(kernel, usize::MAX)
    }

    /// A direction with room for `capacity` bytes on the way; see [`Pair::with_capacity`].
    #[must_use]
    pub fn with_capacity(kernel: Kernel, capacity: usize) -> Self {
        Self { socket: Socket::with_capacity(kernel, capacity), shim: Shim::default() }
    }

    /// Sends once: how many bytes; none when nothing is queued, or the other side has to read first.
    pub fn send(&mut self, from: &mut impl Sender<Descriptor = F>, call: Call) -> usize
    where
        F: Duplicate,
    {
        let (mut bytes, descriptor) = from.chunk();
        if bytes.is_empty() {
            return 0;
        }
        bytes.truncate(call.bytes.max(1));
        let Self { socket, shim } = self;
        let sent = shim.send(socket, &bytes, descriptor, false, &mut |all| all, |_| {});
        // What fails is to be tried again, when there is more room.
        let Ok(n) = sent else {
            return 0;
        };
        from.consume(n);
        n
    }

    /// Sends these bytes, of which the first one brings the descriptor, whatever they are: how many
    /// there was room for.
    pub fn put(&mut self, bytes: &[u8], descriptor: Option<F>) -> usize {
        self.socket.sendmsg(bytes, Vec::from_iter(descriptor), |all| all).unwrap_or(0)
    }

    /// Says that nothing more will be sent. What was sent before is still read.
    pub fn close(&mut self) {
        self.socket.close();
    }

    /// Reads once.
    ///
    /// # Errors
    ///
    /// When nothing more can be read.
    pub fn read<D: Dialect, S: Storage, const N: usize>(
        &mut self,
        to: &mut RecvBuf<D, S, F, N>,
        call: Call,
    ) -> Result<ReadOutcome, Broken> {
        let outcome = self.shim.read(&mut self.socket, to, call.bytes.max(1), call.slots);
        drop(self.socket.take_lost());
        outcome
    }

    /// Whether all that was sent has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.socket.is_empty()
    }
}

/// Why an [exchange](Pair::exchange) stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped<E> {
    /// The handler said so.
    Handler(E),
    /// The server can receive no more. It has handled all that came before.
    Server(Broken),
    /// The client can receive no more.
    Client(Broken),
}

impl<E> Stopped<E> {
    fn server(error: crate::Error) -> Self {
        Self::Server(Broken::Stream(error))
    }
}

impl<E: fmt::Display> fmt::Display for Stopped<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(error) => error.fmt(f),
            Self::Server(broken) => write!(f, "the server can receive no more: {broken}"),
            Self::Client(broken) => write!(f, "the client can receive no more: {broken}"),
        }
    }
}

/// Also where `E` is a `Box<dyn Error>`, which is no `Error` itself.
impl<E: fmt::Display + fmt::Debug> error::Error for Stopped<E> {}
