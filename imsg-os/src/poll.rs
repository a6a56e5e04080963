//! What an event loop waits for.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

use imsg_wire::{Dialect, Storage};

use crate::blocking::Channel;
use crate::sys;
use crate::turn::{Next, Turn};

/// Waits, by `poll`, for all channels of an event loop at once, and for what else it reads.
///
/// In each round the program gives a [turn](Channel::turn) to every channel, and then says what there
/// is to wait for:
///
/// ```
/// use imsg_os::{Channel, Message, Modern, Next, Poll, Sender, Turn};
/// use std::os::unix::net::{UnixListener, UnixStream};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use imsg_os::Header;
/// # let path = std::env::temp_dir().join(format!("imsg-poll-{}", std::process::id()));
/// # let path = &path;
/// # let (ours, theirs) = UnixStream::pair()?;
/// # let stop = &theirs; // it becomes readable when `ours` is closed
/// let listener = UnixListener::bind(path)?;
/// listener.set_nonblocking(true)?;
/// # let client = UnixStream::connect(path)?;
/// # std::fs::remove_file(path)?;
/// # let client = std::thread::spawn(move || {
/// #     let mut channel = Channel::new(client, Modern::new()).unwrap();
/// #     channel.tx.compose(Header::new(1), b"hello", None).unwrap();
/// #     channel.tx.flush().unwrap();
/// #     assert_eq!(channel.rx.recv().unwrap().unwrap().payload, b"hello");
/// #     drop((channel, ours));
/// # });
/// const CLIENTS: usize = 100; // fewer than this process may have descriptors
/// const LONGEST: usize = 1000; // no answer has more bytes of payload
/// let answers = Turn::new(LONGEST);
/// let mut clients = Vec::<Channel>::new();
/// let mut poll = Poll::new();
/// loop {
///     let mut waits = poll.begin();
///     waits.readable(stop);
///     if clients.len() < CLIENTS {
///         waits.readable(&listener); // or it is ready all along, and nothing can be accepted
///     }
///     clients.iter().for_each(|client| waits.channel(client, &answers));
///     waits.wait()?;
///
///     if poll.is_readable(stop) {
///         break;
///     }
///     clients.retain_mut(|client| {
///         let echo = |message: Message<'_>, tx: &mut Sender| {
///             let payload = message.payload.get(..LONGEST).unwrap_or(message.payload);
///             tx.compose(message.header, payload, None)
///         };
///         match client.turn(&answers, poll.is_readable(client), echo) {
///             Ok(next) => next != Next::Done,
///             Err(error) => {
///                 println!("a client is hung up on: {error}");
///                 false
///             }
///         }
///     });
///     if poll.is_readable(&listener)
///         && let Ok((socket, _)) = listener.accept()
///     {
///         clients.push(Channel::new(socket, Modern::new())?);
///     }
/// }
/// # client.join().unwrap();
/// # Ok(())
/// # }
/// ```
///
/// Of a channel it asks for what [`next`](Channel::next) says at that moment. So a message that was
/// composed in the turn of another channel is sent without more ado, and it does not wait when a turn
/// is to come [again](Next::Again). A turn of a channel of which nothing is to be read or sent makes
/// no system call.
///
/// It allocates when there is more to wait for than ever before.
#[derive(Default)]
pub struct Poll {
    fds: Vec<libc::pollfd>,
    /// Of each descriptor, by its number.
    readable: Vec<bool>,
}

impl Poll {
    /// Nothing to wait for yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { fds: Vec::new(), readable: Vec::new() }
    }

    /// Begins a round, with nothing to wait for yet.
    pub fn begin<'fd>(&mut self) -> Waits<'_, 'fd> {
        for fd in self.fds.drain(..) {
            if let Some(readable) = index(&fd).and_then(|number| self.readable.get_mut(number)) {
                *readable = false;
            }
        }
        Waits { poll: self, again: false, until: None, fds: PhantomData }
    }

    /// Whether this was found readable in the last round: there is something to read, the other side
    /// hung up, or something failed.
    ///
    /// Descriptors are known by their numbers. One that was opened since may have the number of one
    /// that was closed, so what is read for this should not wait. A turn never does.
    pub fn is_readable(&self, fd: &impl AsFd) -> bool {
        let number = usize::try_from(fd.as_fd().as_raw_fd()).ok();
        number.and_then(|number| self.readable.get(number)).is_some_and(|readable| *readable)
    }
}

/// Shows for how many it waited last.
impl fmt::Debug for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poll").field("len", &self.fds.len()).finish_non_exhaustive()
    }
}

/// Where it stands in `readable`.
fn index(fd: &libc::pollfd) -> Option<usize> {
    usize::try_from(fd.fd).ok()
}

/// What a round of an event loop waits for; see [`Poll`].
///
/// The descriptors are borrowed until it has waited.
#[derive(Debug)]
#[must_use = "it does not wait by itself"]
pub struct Waits<'poll, 'fd> {
    poll: &'poll mut Poll,
    again: bool,
    until: Option<Instant>,
    fds: PhantomData<BorrowedFd<'fd>>,
}

impl<'fd> Waits<'_, 'fd> {
    /// Adds a channel, whose next turn is this one. One that is [done](Next::Done) is left out.
    pub fn channel<D: Dialect, S: Storage, T: Storage>(
        &mut self,
        channel: &'fd Channel<D, S, T>,
        turn: &Turn,
    ) {
        match channel.next(turn) {
            Next::Again => self.again = true,
            Next::Poll { readable, writable } => {
                let input = if readable { libc::POLLIN } else { 0 };
                let output = if writable { libc::POLLOUT } else { 0 };
                self.add(channel.as_fd(), input | output);
            }
            Next::Done => {}
        }
    }

    /// Adds something else that is to be read, such as a listener, or what tells of signals.
    pub fn readable(&mut self, fd: &'fd impl AsFd) {
        self.add(fd.as_fd(), libc::POLLIN);
    }

    /// Limits the wait to this moment, if that is one and no other limit comes before: the end of a
    /// [`Deadline`](crate::Deadline), the time of a [restart](crate::Restarts), or that of the
    /// [request](crate::Requests) that expires next. The program looks at the clock afterwards.
    pub fn until(&mut self, limit: impl Into<Option<Instant>>) {
        self.until = self.until.into_iter().chain(limit.into()).min();
    }

    /// Waits until something is ready or the time is over, or a signal came. With nothing to wait
    /// for and no [limit](Self::until), only a signal ends it.
    ///
    /// # Errors
    ///
    /// What `poll` says: `EINVAL` when there are more descriptors than `RLIMIT_NOFILE` allows, so
    /// always with one that a sandbox has set to 0; `ENOMEM`, or `EAGAIN` on macOS, when the system
    /// has no memory.
    pub fn wait(self) -> io::Result<()> {
        let Self { poll: Poll { fds, readable }, again, until, .. } = self;
        let now = again.then_some(0);
        let millis = now.or_else(|| {
            // A part of a millisecond counts as a whole one, so that the time is over afterwards.
            let left = until?.saturating_duration_since(Instant::now());
            Some(u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
        });
        match sys::poll_all(fds, millis) {
            // Nothing is known of any of them.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            ready => _ = ready?,
        }
        for fd in fds.iter().filter(|fd| fd.revents & !libc::POLLOUT != 0) {
            let Some(number) = index(fd) else { continue };
            if readable.len() <= number {
                readable.resize(number + 1, false);
            }
            readable[number] = true;
        }
        Ok(())
    }

    /// What is asked for nothing is left out, as it would tell that the other side hung up.
    fn add(&mut self, fd: BorrowedFd<'fd>, events: libc::c_short) {
        if events != 0 {
            self.poll.fds.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
        }
    }
}
