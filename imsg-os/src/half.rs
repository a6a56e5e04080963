//! What both kinds of channels do, however they wait for the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use imsg_wire::{DEFAULT_MAX_LEN, Dialect, NoRoom, NotOffered, Pending, RecvBuf, SendBuf, Storage};

use crate::error::RecvError;
use crate::reserve::Reserve;
use crate::sys;

/// How many descriptors a receiver holds before their messages are taken. Under exact pairing, two
/// would do. A peer of the older generation, after as many short sends, may have more of them on
/// their way before the first of their messages is whole; then the stream fails.
pub(crate) const RECEIVED: usize = 8;

/// How many descriptors a sender queues.
pub(crate) const QUEUED: usize = 16;

/// The bytes of each buffer of a `Channel::new`: four of the largest messages.
pub(crate) const BUFFER: usize = 4 * DEFAULT_MAX_LEN;

/// A received message (`struct imsg`); its payload is borrowed from the
/// [`Receiver`](crate::Receiver).
pub type Message<'a> = imsg_wire::Message<'a, OwnedFd>;

/// The complete messages of a [`Receiver`](crate::Receiver); see
/// [`Receiver::messages`](crate::Receiver::messages).
pub type Received<'a, D> = imsg_wire::Received<'a, D, OwnedFd, RECEIVED>;

/// Writes the payload of a message in place; see [`Sender::create`](crate::Sender::create).
pub type Writer<'a, D> = imsg_wire::Writer<'a, Pending<'a, D, OwnedFd, QUEUED>>;

/// What a [`Receiver::read`](crate::Receiver::read) brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "the stream may have ended"]
pub enum ReadOutcome {
    /// Data: there may be messages now.
    Data,
    /// There was nothing, and the socket does not wait, or not any longer.
    WouldBlock,
    /// The peer has closed its end. Take messages once more before stopping: some may still be
    /// there, and if the stream ended inside a message, the error that says so comes from
    /// [`next_message`](crate::Receiver::next_message) or
    /// [`messages`](crate::Receiver::messages), not from a read.
    Closed,
}

/// How far a [`Sender::write`](crate::Sender::write) came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "something may still be queued"]
pub enum WriteOutcome {
    /// The queue is empty.
    All,
    /// The socket takes no more now, and does not wait, or not any longer.
    WouldBlock,
}

/// What a receiving half holds.
pub(crate) type Incoming<D, S> = RecvBuf<D, S, OwnedFd, RECEIVED>;

/// What a sending half holds.
pub(crate) type Outgoing<D, S> = SendBuf<D, S, OwnedFd, QUEUED>;

/// The place to read into; none when the stream has ended.
pub(crate) fn spare<D: Dialect, S: Storage>(
    buf: &mut Incoming<D, S>,
) -> Result<Option<&mut [u8]>, RecvError> {
    match buf.spare() {
        Ok(spare) => Ok(Some(spare)),
        Err(NoRoom::Full) => Err(RecvError::Full),
        Err(NoRoom::Finished) => Ok(None),
        Err(NoRoom::Failed(error)) => Err(error.into()),
    }
}

/// Reads once from the socket.
pub(crate) fn read<D: Dialect, S: Storage>(
    socket: BorrowedFd<'_>,
    buf: &mut Incoming<D, S>,
    reserve: &mut Option<Reserve>,
) -> Result<ReadOutcome, RecvError> {
    let allowed = buf.descriptors_allowed();
    let Some(spare) = spare(buf)? else {
        return Ok(ReadOutcome::Closed);
    };
    let received = match reserve {
        Some(reserve) if allowed => reserve.recv(socket, spare),
        _ => sys::recv(socket, spare, allowed).map_err(RecvError::Io),
    };
    match received {
        Ok((0, _)) => {
            buf.finish();
            Ok(ReadOutcome::Closed)
        }
        Ok((n, ancillary)) => {
            buf.commit(n, ancillary).map_err(more_than_offered)?;
            Ok(ReadOutcome::Data)
        }
        Err(RecvError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            Ok(ReadOutcome::WouldBlock)
        }
        Err(error) => Err(error),
    }
}

/// Sends what the socket takes.
pub(crate) fn write<D: Dialect, S: Storage>(
    socket: BorrowedFd<'_>,
    buf: &mut Outgoing<D, S>,
) -> io::Result<WriteOutcome> {
    while let Some(chunk) = buf.chunk() {
        let descriptor = chunk.descriptor.map(AsFd::as_fd);
        match sys::send(socket, chunk.bytes, descriptor) {
            // The kernel has the descriptor now, so the one given back is closed.
            Ok(n) => {
                drop(buf.consume(n).map_err(more_than_offered)?);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(WriteOutcome::WouldBlock);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(WriteOutcome::All)
}

/// Does not happen: the kernel reads and takes no more than it is given. Allocates nothing.
pub(crate) fn more_than_offered<T>(_: NotOffered<T>) -> io::Error {
    io::ErrorKind::Other.into()
}

/// What a receiving half does without waiting.
macro_rules! receiver_methods {
    () => {
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
        pub fn messages(&mut self) -> Received<'_, D> {
            self.buf.messages()
        }

        /// Whether [`next_message`](Receiver::next_message) has a message or an error to return.
        ///
        /// A function that returns the message asks this first, as the borrow checker does not
        /// accept `if let Some(message) = rx.next_message()? { return … }` in a loop.
        pub fn is_ready(&self) -> bool {
            self.buf.is_ready()
        }

        /// Allows descriptors to be received from here on (`imsgbuf_allow_fdpass`).
        ///
        /// Each is close-on-exec from the moment that it exists. Until this is called, the kernel
        /// closes what the peer sends, and marked messages say so. Under [`Pairing::Ordered`],
        /// which is the default of the classic dialect, call this before the first read.
        pub fn allow_descriptors(&mut self) {
            self.buf.allow_descriptors();
        }

        /// Keeps a descriptor in reserve, so that a process at its limit (`RLIMIT_NOFILE`) still
        /// gets the next one that is sent, in place of a [message that lost
        /// it](crate::Missing::Dropped).
        ///
        /// [`is_at_limit`](Receiver::is_at_limit) tells that the reserve was used. It is filled
        /// again by a later read, when there is room; until then, a read that would lose a
        /// descriptor fails with [`RecvError::DescriptorLimit`] and reads nothing. The socket stays
        /// readable then: close some descriptors before reading again, or the program spins.
        ///
        /// This costs a descriptor, and for each read one system call more, which copies the bytes
        /// a second time, and one for each descriptor received, as a look ahead (`MSG_PEEK`) shows
        /// whether one would be lost. At the limit, each read also tries to fill the reserve. It
        /// cannot help when another thread takes the last place between the look and the read, or
        /// the place that the reserve makes free.
        ///
        /// # Errors
        ///
        /// When there is no room for the reserve, and on other systems than Linux, whose look ahead
        /// does not show descriptors.
        pub fn keep_reserve(&mut self) -> io::Result<()> {
            self.reserve = Some(Reserve::new(self.as_fd())?);
            Ok(())
        }

        /// Whether the [reserve](Receiver::keep_reserve) is used up, as this process has as many
        /// descriptors as it may have.
        pub fn is_at_limit(&self) -> bool {
            self.reserve.as_ref().is_some_and(Reserve::is_used_up)
        }

        /// Sets the rule that pairs descriptors with messages, in place of the dialect's default.
        pub fn set_pairing(&mut self, rule: Pairing) {
            self.buf.set_pairing(rule);
        }

        /// Sets the largest message to be accepted, in bytes, header included
        /// (`imsgbuf_set_maxsize`, which counts the payload only).
        ///
        /// # Errors
        ///
        /// [`BadLength`] when it is less than a header, or more than the storage holds or the
        /// dialect can state; nothing changes then.
        pub fn set_max_len(&mut self, max_len: usize) -> Result<(), BadLength> {
            self.buf.set_max_len(max_len)
        }

        /// The largest message accepted, in bytes, header included.
        pub fn max_len(&self) -> usize {
            self.buf.max_len()
        }
    };
}
pub(crate) use receiver_methods;

/// What a sending half does without waiting.
macro_rules! sender_methods {
    () => {
        /// Queues a message (`imsg_compose`, `imsg_compose_ibuf`). A pid of 0 stands for the
        /// process that made the channel. The payload is bytes, or any value that `zerocopy` can
        /// see as bytes. (Of a `Vec`, give `&vec[..]`; `b""` is empty; a literal such as `&[0; 4]`
        /// is four `i32`, so 16 bytes.)
        ///
        /// # Errors
        ///
        /// [`Refused`] when it is too long or there is no room, with the descriptor in it; nothing
        /// is queued then.
        #[inline]
        pub fn compose<T: IntoBytes + Immutable + ?Sized>(
            &mut self,
            header: Header,
            payload: &T,
            descriptor: Option<OwnedFd>,
        ) -> Result<(), Refused<OwnedFd>> {
            self.buf.compose(header, payload, descriptor)
        }

        /// Queues a message whose payload is all of `parts`, one behind the other
        /// (`imsg_composev`).
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
        /// [`Refused`] when there is no room for a header or for the descriptor, which is given
        /// back. What does not fit of the payload is refused when it is written.
        pub fn create(
            &mut self,
            header: Header,
            descriptor: Option<OwnedFd>,
        ) -> Result<Writer<'_, D>, Refused<OwnedFd>> {
            self.buf.create(header, descriptor)
        }

        /// Queues a received message again, with the pid that it has (`imsg_forward`), and with the
        /// descriptor that is named: that of the message, once it was taken out, or none.
        ///
        /// # Errors
        ///
        /// As [`compose`](Sender::compose), and [`Reason::Missing`] when the descriptor of the message
        /// is [missing](crate::Missing) and none is named in its place.
        pub fn forward<F>(
            &mut self,
            message: &imsg_wire::Message<'_, F>,
            descriptor: Option<OwnedFd>,
        ) -> Result<(), Refused<OwnedFd>> {
            self.buf.forward(message, descriptor)
        }

        /// Whether a message can be queued now, with a payload of this many bytes and with a
        /// descriptor or without. When it can, so can every shorter one.
        ///
        /// # Errors
        ///
        /// Why not; [`Reason::TooLong`] if it never fits.
        pub fn has_room(&self, payload_len: usize, descriptor: bool) -> Result<(), Reason> {
            self.buf.has_room(payload_len, descriptor)
        }

        /// Sets the pid that stands in messages whose header says 0, as after a `fork`. It is that
        /// of the process that made the channel.
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
        /// (`imsgbuf_set_maxsize`, which counts the payload only).
        ///
        /// # Errors
        ///
        /// [`BadLength`] when it is less than a header, or more than the storage holds or the
        /// dialect can state; nothing changes then.
        pub fn set_max_len(&mut self, max_len: usize) -> Result<(), BadLength> {
            self.buf.set_max_len(max_len)
        }

        /// The largest message that can be composed, in bytes, header included.
        pub fn max_len(&self) -> usize {
            self.buf.max_len()
        }
    };
}
pub(crate) use sender_methods;

/// The traits of the halves.
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
pub(crate) use half_traits;

/// What a channel does by its halves.
macro_rules! channel_traits {
    () => {
        impl<D: Dialect, S: Storage> Channel<D, S> {
            /// Who is at the other end: the process that connected, or that made the socket pair,
            /// at the time that it did.
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
    };
}
pub(crate) use channel_traits;
