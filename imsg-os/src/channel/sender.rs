//! The sending half of a channel, however it waits.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use imsg_wire::{
    BadLength, Compose, Counts, Dialect, Header, Pending, Reason, Refused, SendBuf, Storage,
};
use zerocopy::{Immutable, IntoBytes};

use crate::channel::more_than_offered;
use crate::channel::receiver::Message;
use crate::sys;

/// How many descriptors a sender queues.
pub(crate) const QUEUED: usize = 16;

/// Writes the payload of a message in place; see [`Sender::create`](crate::Sender::create).
pub type Writer<'a, D> = imsg_wire::Writer<'a, Pending<'a, D, OwnedFd, QUEUED>>;

/// The sending half of a [`Channel`](crate::channel::Channel), over a socket of the kind `K`.
///
/// What is queued is lost when this is dropped.
pub struct Sender<D: Dialect, S: Storage, K> {
    pub(crate) socket: Arc<K>,
    pub(crate) buf: Outgoing<D, S>,
    /// Whether the calls may block, if the socket does.
    pub(crate) waits: bool,
    /// Why a turn dropped what was queued. It says so when it has read the last words of the peer.
    pub(crate) gone: Option<io::Error>,
}

/// What is queued, and not sent yet.
pub(crate) type Outgoing<D, S> = SendBuf<D, S, OwnedFd, QUEUED>;

impl<D: Dialect, S: Storage, K: AsFd> Sender<D, S, K> {
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
    /// As [`compose`](Self::compose).
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
    /// As [`compose`](Self::compose), and [`Reason::Missing`] when the descriptor of the message
    /// is [missing](crate::Missing) and none is named in its place.
    pub fn forward<F>(
        &mut self,
        message: &imsg_wire::Message<'_, F>,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), Refused<OwnedFd>> {
        self.buf.forward(message, descriptor)
    }

    /// Queues a message as [`compose`](Self::compose) does, but without copying its payload as long
    /// as the [`Gathered`] lives, which sends it from where it is, behind all that is queued. What it
    /// did not send is copied to the queue when it is dropped.
    ///
    /// For one large message this saves a copy of it, which is a tenth of the time for 64 KiB, and up
    /// to a quarter for megabytes. Several small ones are composed, and then flushed together.
    ///
    /// There has to be room for all of the message, as for `compose`: the largest is that of the
    /// [storage](Self::set_max_len). Of [`Pages`](crate::Pages), only those that were written to
    /// are resident, so that a large storage costs nothing for what the socket takes at once.
    ///
    /// ```
    /// # use imsg_os::{Channel, Header, Modern};
    /// # let (mut channel, mut peer) = Channel::pair(Modern::new())?;
    /// let payload = vec![7_u8; 16000];
    /// channel.tx.gather(Header::new(1), &payload[..], None)?.flush()?;
    /// assert_eq!(peer.rx.recv()?.expect("a message").payload, payload);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`compose`](Self::compose).
    pub fn gather<'a, T: IntoBytes + Immutable + ?Sized>(
        &'a mut self,
        header: Header,
        payload: &'a T,
        descriptor: Option<OwnedFd>,
    ) -> Result<Gathered<'a, D, S, K>, Refused<OwnedFd>> {
        let Self { socket, buf, waits, .. } = self;
        let message = buf.gather(header, payload, descriptor)?;
        Ok(Gathered { socket, message, waits: *waits })
    }

    /// Queues a received message again as [`forward`](Self::forward) does, but without copying its
    /// payload first; see [`gather`](Self::gather).
    ///
    /// It pays from about 512 KiB on. What was just received is in the cache of the processor, and to
    /// copy less than that costs no more than to send it in several parts.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    pub fn gather_forward<'a, F>(
        &'a mut self,
        message: &imsg_wire::Message<'a, F>,
        descriptor: Option<OwnedFd>,
    ) -> Result<Gathered<'a, D, S, K>, Refused<OwnedFd>> {
        let Self { socket, buf, waits, .. } = self;
        let message = buf.gather_forward(message, descriptor)?;
        Ok(Gathered { socket, message, waits: *waits })
    }

    /// Takes the next message to be sent out of the queue, with its descriptor. `None` when nothing
    /// is queued, or when the peer has the beginning of that message already.
    ///
    /// This is for a message that can never be sent, as its descriptor is of a kind that the kernel
    /// does not pass on, or as the peer refuses descriptors: [`flush`](crate::Sender::flush) fails
    /// again and again then, and nothing behind the message is sent. (Not after a flush that would
    /// block: FreeBSD since 15 may have queued the descriptor then, without a byte, and the next
    /// marked message would be taken for its owner.)
    pub fn take_back(&mut self) -> Option<Message<'_>> {
        self.buf.take_back()
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

    /// Makes room for several messages that are a reply together, before the first is composed: up to
    /// this many bytes of payload, where each message but one takes those of its header. A
    /// [turn](crate::Turn::new) does it.
    ///
    /// # Errors
    ///
    /// As [`has_room`](Self::has_room), which does not promise this.
    pub fn make_room(&mut self, payload_len: usize, descriptor: bool) -> Result<(), Reason> {
        self.buf.make_room(payload_len, descriptor)
    }

    /// How many messages can be queued now at least, before one is refused for want of room, each
    /// with a payload of up to this many bytes, and with a descriptor or without.
    ///
    /// It says how many messages of another channel can be [passed on](crate::Turn::at_most) to this
    /// one. A message that is [too long](Reason::TooLong) is never refused for want of room, so that
    /// is `usize::MAX`: who waits for room would wait for ever. Give no more than
    /// [`max_len`](Self::max_len) allows, as otherwise nothing holds shorter messages back.
    pub fn room_for(&self, payload_len: usize, descriptor: bool) -> usize {
        self.buf.room_for(payload_len, descriptor)
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

    /// What was sent: all bytes, and the descriptors.
    pub fn sent(&self) -> Counts {
        self.buf.sent()
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

    /// Ends the stream: the peer will read its end, and can still send. What is queued is not sent;
    /// flush first.
    ///
    /// ```
    /// # use imsg_os::{Channel, Modern};
    /// # let (channel, mut peer) = Channel::pair(Modern::new())?;
    /// let Channel { mut rx, mut tx } = channel;
    /// tx.flush()?;
    /// tx.shutdown()?;
    /// # drop(peer.rx.recv());
    /// # drop(peer);
    /// assert!(rx.recv().unwrap().is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn shutdown(self) -> io::Result<()> {
        sys::shutdown_write(self.as_fd())
    }
}

impl<D: Dialect, S: Storage, K: AsFd> Compose for Sender<D, S, K> {
    type Descriptor = OwnedFd;
    type Pending<'a>
        = Pending<'a, D, OwnedFd, QUEUED>
    where
        Self: 'a;

    fn compose_parts(
        &mut self,
        header: Header,
        parts: &[&[u8]],
        descriptor: Option<OwnedFd>,
    ) -> Result<(), Refused<OwnedFd>> {
        self.buf.compose_parts(header, parts, descriptor)
    }

    fn create(
        &mut self,
        header: Header,
        descriptor: Option<OwnedFd>,
    ) -> Result<Writer<'_, D>, Refused<OwnedFd>> {
        self.buf.create(header, descriptor)
    }

    fn forward<F>(
        &mut self,
        message: &imsg_wire::Message<'_, F>,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), Refused<OwnedFd>> {
        self.buf.forward(message, descriptor)
    }

    fn has_room(&self, payload_len: usize, descriptor: bool) -> Result<(), Reason> {
        self.buf.has_room(payload_len, descriptor)
    }
}

impl<D: Dialect, S: Storage, K: AsFd> AsFd for Sender<D, S, K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<D: Dialect, S: Storage, K: AsFd> AsRawFd for Sender<D, S, K> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<D: Dialect, S: Storage, K: fmt::Debug> fmt::Debug for Sender<D, S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("socket", &self.socket).field("buf", &self.buf).finish()
    }
}

/// A message that is sent from where its payload is, over a socket of the kind `K`; see
/// [`Sender::gather`].
///
/// What was not sent is queued when this is dropped. So it must not be
/// [forgotten](std::mem::forget): a message of which a part was sent would never end then.
pub struct Gathered<'a, D: Dialect, S: Storage, K> {
    pub(crate) socket: &'a K,
    pub(crate) message: imsg_wire::Gathered<'a, D, S, OwnedFd, QUEUED>,
    pub(crate) waits: bool,
}

impl<D: Dialect, S: Storage, K: fmt::Debug> fmt::Debug for Gathered<'_, D, S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { socket, message, .. } = self;
        f.debug_struct("Gathered").field("socket", socket).field("message", message).finish()
    }
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

/// Sends what the socket takes.
pub(crate) fn write<D: Dialect, S: Storage>(
    socket: BorrowedFd<'_>,
    buf: &mut Outgoing<D, S>,
    waits: bool,
) -> io::Result<WriteOutcome> {
    while let Some(chunk) = buf.chunk() {
        let descriptor = chunk.descriptor.map(AsFd::as_fd);
        match sys::send(socket, &[IoSlice::new(chunk.bytes)], descriptor, waits) {
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

/// Sends what the socket takes of what is queued, and of a message behind it.
pub(crate) fn write_gathered<D: Dialect, S: Storage>(
    socket: BorrowedFd<'_>,
    message: &mut imsg_wire::Gathered<'_, D, S, OwnedFd, QUEUED>,
    waits: bool,
) -> io::Result<WriteOutcome> {
    loop {
        let parts = message.parts().map(IoSlice::new);
        let Some(first) = parts.iter().position(|part| !part.is_empty()) else {
            return Ok(WriteOutcome::All);
        };
        let descriptor = message.descriptor().map(AsFd::as_fd);
        match sys::send(socket, &parts[first..], descriptor, waits) {
            Ok(n) => drop(message.consume(n).map_err(more_than_offered)?),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(WriteOutcome::WouldBlock);
            }
            Err(error) => return Err(error),
        }
    }
}
