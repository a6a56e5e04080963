//! The receiving half of a channel, however it waits.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use imsg_wire::{Ancillary, BadLength, Counts, Dialect, Error, NoRoom, Pairing, RecvBuf, Storage};

use crate::channel::more_than_offered;
use crate::error::RecvError;
use crate::reserve::Reserve;
use crate::sys;

/// How many descriptors a receiver holds before their messages are taken. Under exact pairing, two
/// would do. A peer of the older generation, after as many short sends, may have more of them on
/// their way before the first of their messages is whole; then the stream fails.
pub(crate) const RECEIVED: usize = 8;

/// A received message (`struct imsg`); its payload is borrowed from the
/// [`Receiver`](crate::Receiver).
pub type Message<'a> = imsg_wire::Message<'a, OwnedFd>;

/// The complete messages of a [`Receiver`](crate::Receiver); see
/// [`Receiver::messages`](crate::Receiver::messages).
pub type Received<'a, D> = imsg_wire::Received<'a, D, OwnedFd, RECEIVED>;

/// The receiving half of a [`Channel`](crate::channel::Channel), over a socket of the kind `K`.
pub struct Receiver<D: Dialect, S: Storage, K> {
    pub(crate) socket: Arc<K>,
    pub(crate) buf: Incoming<D, S>,
    pub(crate) reading: Reading,
}

/// How a half reads.
pub(crate) struct Reading {
    /// Whether the calls may block, if the socket does.
    pub(crate) waits: bool,
    pub(crate) reserve: Option<Reserve>,
    /// Whether the last read failed, and lost a descriptor by that.
    pub(crate) failed: bool,
}

/// What was received, and not taken yet.
pub(crate) type Incoming<D, S> = RecvBuf<D, S, OwnedFd, RECEIVED>;

impl<D: Dialect, S: Storage, K: AsFd> Receiver<D, S, K> {
    /// Takes a message that was read before (`imsgbuf_get`); `None` when none is complete.
    ///
    /// # Errors
    ///
    /// What broke the stream, after all messages that came before it.
    #[inline]
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, Error> {
        self.buf.next_message()
    }

    /// Iterates over the messages that were read before and are complete.
    ///
    /// An error is the last item.
    #[inline]
    pub fn messages(&mut self) -> Received<'_, D> {
        self.buf.messages()
    }

    /// Whether [`next_message`](Self::next_message) has a message or an error to return.
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

    /// Has the system fail what the peer sends with a descriptor (`SO_PASSRIGHTS`), in a program
    /// that never takes any. What is on its way still arrives.
    ///
    /// The peer's call fails with `EPERM`, and nothing of its message is sent: so this is for peers
    /// that have no reason to send one. A program that only does not take them [yet](Self::allow_descriptors)
    /// has nothing to call.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) on other systems than Linux 6.16 and later.
    pub fn refuse_descriptors(&mut self) -> io::Result<()> {
        sys::refuse_descriptors(self.as_fd())
    }

    /// Keeps a descriptor in reserve, so that a process at its limit (`RLIMIT_NOFILE`) still
    /// gets the next one that is sent, in place of a [message that lost
    /// it](crate::Missing::Dropped).
    ///
    /// [`is_at_limit`](Self::is_at_limit) tells that the reserve was used. It is filled again by a
    /// later read, when there is room. Until then, a read brings only what comes before the next
    /// descriptor, and fails with [`RecvError::DescriptorLimit`] when that is nothing. The socket
    /// stays readable then: close some descriptors before reading again, or the program spins.
    ///
    /// This costs a descriptor, and for each read one system call more, which copies the bytes a
    /// second time, and one for each descriptor received, as a look ahead (`MSG_PEEK`) shows
    /// whether one would be lost. A look that is filled goes through all that is queued, in search
    /// of a descriptor. At the limit, each read also tries to fill the reserve, and looks up to
    /// 128 KiB ahead when a descriptor waits. It cannot help when another thread takes the last
    /// place between the look and the read, or the place that the reserve makes free.
    ///
    /// # Errors
    ///
    /// When there is no room for the reserve, and on other systems than Linux, whose look ahead
    /// does not show descriptors.
    pub fn keep_reserve(&mut self) -> io::Result<()> {
        self.reading.reserve = Some(Reserve::new(self.as_fd())?);
        Ok(())
    }

    /// Whether the [reserve](Self::keep_reserve) is used up, as this process has as many
    /// descriptors as it may have.
    pub fn is_at_limit(&self) -> bool {
        self.reading.reserve.as_ref().is_some_and(Reserve::is_used_up)
    }

    /// Where the message starts, as an offset in the stream, that has not arrived completely, or for
    /// which a descriptor waits; `None` when the peer owes nothing, or messages are to be taken
    /// first. [`Deadline`](crate::Deadline) limits the time for it.
    pub fn unfinished(&self) -> Option<u64> {
        self.buf.unfinished()
    }

    /// What was taken: the bytes of messages, and the descriptors that they had.
    pub fn received(&self) -> Counts {
        self.buf.received()
    }

    /// How many bytes were read that were not taken: of whole messages, and of a part of one.
    pub fn unread_bytes(&self) -> usize {
        self.buf.unread_bytes()
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
}

impl<D: Dialect, S: Storage, K: AsFd> AsFd for Receiver<D, S, K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<D: Dialect, S: Storage, K: AsFd> AsRawFd for Receiver<D, S, K> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<D: Dialect, S: Storage, K: fmt::Debug> fmt::Debug for Receiver<D, S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("socket", &self.socket).field("buf", &self.buf).finish()
    }
}

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

/// Reads once from the socket.
pub(crate) fn read<D: Dialect, S: Storage>(
    socket: BorrowedFd<'_>,
    buf: &mut Incoming<D, S>,
    reading: &mut Reading,
) -> Result<ReadOutcome, RecvError> {
    let Reading { waits, reserve, failed } = reading;
    read_by(buf, failed, |spare, allowed| match reserve {
        Some(reserve) if allowed => reserve.recv(socket, spare, *waits),
        _ => sys::recv(socket, spare, allowed, *waits).map_err(RecvError::Io),
    })
}

/// Reads once, by a call that is told whether descriptors are wanted. `failed` is that of
/// [`Reading`].
pub(crate) fn read_by<D: Dialect, S: Storage, const N: usize>(
    buf: &mut RecvBuf<D, S, OwnedFd, N>,
    failed: &mut bool,
    recv: impl FnOnce(&mut [u8], bool) -> Result<(usize, Ancillary<OwnedFd>), RecvError>,
) -> Result<ReadOutcome, RecvError> {
    let allowed = buf.descriptors_allowed();
    let Some(spare) = spare(buf)? else {
        return Ok(ReadOutcome::Closed);
    };
    let received = recv(spare, allowed);
    let had_failed = std::mem::take(failed);
    let (n, ancillary) = match received {
        Ok((0, Ancillary::Nothing)) => {
            buf.finish();
            return Ok(ReadOutcome::Closed);
        }
        Ok(received) => received,
        Err(RecvError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            *failed = had_failed;
            return Ok(ReadOutcome::WouldBlock);
        }
        // The bytes come with the next read. If that fails too, something else is wrong.
        Err(RecvError::Io(error)) if !had_failed && sys::has_lost_descriptor(&error) => {
            *failed = true;
            (0, Ancillary::Dropped)
        }
        Err(error) => return Err(error),
    };
    buf.commit(n, ancillary).map_err(more_than_offered)?;
    Ok(ReadOutcome::Data)
}

/// The place to read into; none when the stream has ended.
pub(crate) fn spare<D: Dialect, S: Storage, const N: usize>(
    buf: &mut RecvBuf<D, S, OwnedFd, N>,
) -> Result<Option<&mut [u8]>, RecvError> {
    match buf.spare() {
        Ok(spare) => Ok(Some(spare)),
        Err(NoRoom::Full) => Err(RecvError::Full),
        Err(NoRoom::Finished) => Ok(None),
        Err(NoRoom::Failed(error)) => Err(error.into()),
    }
}
