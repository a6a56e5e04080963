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

/// Waits, by `poll`, for all channels of an event loop at once, and for what else it has.
///
/// `T` is what the program calls each by. In each round it says what there is to wait for, and gives
/// a [turn](Channel::turn) to whatever is named then:
///
/// ```
/// use imsg_os::{Channel, Header, Message, Modern, Next, Poll, Sender, Turn};
/// use std::collections::BTreeMap;
/// use std::os::unix::net::UnixListener;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// enum Of {
///     Listener,
///     Client(u64),
/// }
///
/// # let path = std::env::temp_dir().join(format!("imsg-poll-{}", std::process::id()));
/// # let path = &path;
/// # let listener = UnixListener::bind(path)?;
/// # std::fs::remove_file(path).ok();
/// # let listener = UnixListener::bind(path)?;
/// # let client = std::os::unix::net::UnixStream::connect(path)?;
/// # std::fs::remove_file(path)?;
/// # let client = std::thread::spawn(move || {
/// #     let mut channel = Channel::new(client, Modern::new()).unwrap();
/// #     channel.tx.compose(Header::new(1), b"hello", None).unwrap();
/// #     channel.tx.flush().unwrap();
/// #     assert_eq!(channel.rx.recv().unwrap().unwrap().payload, b"hello");
/// # });
/// let answers = Turn::new(1000); // no answer has more bytes of payload
/// let mut clients = BTreeMap::new();
/// let mut poll = Poll::new();
/// loop {
///     let mut waits = poll.begin();
///     waits.readable(Of::Listener, &listener);
///     for (number, client) in &clients {
///         waits.channel(Of::Client(*number), client, &answers);
///     }
///     for (of, readable) in waits.wait()? {
///         match of {
///             Of::Listener => {
///                 let (socket, _) = listener.accept()?;
///                 let number = clients.keys().last().map_or(0, |last| last + 1);
///                 clients.insert(number, Channel::new(socket, Modern::new())?);
///             }
///             Of::Client(number) => {
///                 let Some(client) = clients.get_mut(&number) else { continue };
///                 let echo = |message: Message<'_>, tx: &mut Sender| {
///                     tx.compose(message.header, message.payload, None)
///                 };
///                 match client.turn(&answers, readable, echo) {
///                     Ok(Next::Again | Next::Poll { .. }) => continue,
///                     Ok(Next::Done) => println!("client {number} hung up"),
///                     Err(error) => println!("client {number}: {error}"),
///                 }
///                 clients.remove(&number);
///             }
///         }
///     }
/// #   if clients.is_empty() { break }
/// }
/// # client.join().unwrap();
/// # Ok(())
/// # }
/// ```
///
/// Of a channel it asks for what [`next`](Channel::next) says at that moment. So a message that was
/// composed in the turn of another channel is sent without more ado, and a turn that is to come
/// [again](Next::Again) makes it not wait. An event may be given to a channel that has taken the place
/// of the one that it was for: a turn that reads in vain does no harm.
///
/// It allocates when there is more to wait for than ever before.
pub struct Poll<T> {
    fds: Vec<libc::pollfd>,
    /// Of each, what it is called, and whether it is named though nothing happens.
    entries: Vec<(T, bool)>,
}

impl<T> Poll<T> {
    /// Nothing to wait for yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { fds: Vec::new(), entries: Vec::new() }
    }

    /// Begins a round, with nothing to wait for yet.
    pub fn begin<'fd>(&mut self) -> Waits<'_, 'fd, T> {
        self.fds.clear();
        self.entries.clear();
        Waits { poll: self, until: None, _fds: PhantomData }
    }

    fn ready(&mut self) -> impl Iterator<Item = (T, bool)> {
        self.entries.drain(..).zip(&self.fds).filter_map(|((token, again), fd)| {
            let readable = fd.revents & !libc::POLLOUT != 0;
            (again || fd.revents != 0).then_some((token, readable))
        })
    }
}

impl<T> Default for Poll<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows for how many it waited last.
impl<T> fmt::Debug for Poll<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poll").field("len", &self.fds.len()).finish_non_exhaustive()
    }
}

/// What a round of an event loop waits for; see [`Poll`].
///
/// The descriptors `'fd` are borrowed until it has waited.
pub struct Waits<'poll, 'fd, T> {
    poll: &'poll mut Poll<T>,
    until: Option<Instant>,
    _fds: PhantomData<BorrowedFd<'fd>>,
}

impl<'poll, 'fd, T> Waits<'poll, 'fd, T> {
    /// Adds a channel, which is named when it is to have a turn of this kind.
    pub fn channel<D: Dialect, S: Storage, U: Storage>(
        &mut self,
        token: T,
        channel: &'fd Channel<D, S, U>,
        turn: &Turn,
    ) {
        let mut events = 0;
        let next = channel.next(turn);
        if let Next::Poll { readable, writable } = next {
            events |= if readable { libc::POLLIN } else { 0 };
            events |= if writable { libc::POLLOUT } else { 0 };
        }
        self.add(token, channel.as_fd(), events, next == Next::Again);
    }

    /// Adds a descriptor, which is named when there is something to read, or when the other side hung
    /// up or something failed: that of signals, or a listener.
    pub fn readable(&mut self, token: T, fd: &'fd impl AsFd) {
        self.add(token, fd.as_fd(), libc::POLLIN, false);
    }

    /// Limits the wait to this moment, if that is one and no other limit comes before: that of a
    /// [`Deadline`](crate::Deadline), of a [restart](crate::Restarts), or of the
    /// [request](crate::Requests) that expires next.
    ///
    /// The program compares them with the clock afterwards; nothing is named for it.
    pub fn until(&mut self, limit: impl Into<Option<Instant>>) {
        self.until = self.until.into_iter().chain(limit.into()).min();
    }

    /// Waits, and names what is ready, in the order in which it was added, each with whether it is
    /// readable: which it also is when the other side hung up, or something failed.
    ///
    /// Nothing may be ready: the time is over, or a signal came.
    ///
    /// # Errors
    ///
    /// What `poll` says: `EINVAL` when there are more descriptors than `RLIMIT_NOFILE` allows, or
    /// `ENOMEM`.
    pub fn wait(self) -> io::Result<impl Iterator<Item = (T, bool)> + use<'poll, T>> {
        let Poll { fds, entries } = &mut *self.poll;
        let millis = if entries.iter().any(|(_, again)| *again) {
            Some(0)
        } else {
            self.until.map(|until| {
                // A part of a millisecond counts as a whole one, so that the time is over afterwards.
                let left = until.saturating_duration_since(Instant::now());
                u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
            })
        };
        match sys::poll_all(fds, millis) {
            // Nothing is known of any of them then.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                fds.iter_mut().for_each(|fd| fd.revents = 0);
            }
            ready => _ = ready?,
        }
        Ok(self.poll.ready())
    }

    fn add(&mut self, token: T, fd: BorrowedFd<'fd>, events: libc::c_short, again: bool) {
        // Of what is asked for nothing, it would be told that the other side hung up: a negative
        // number is passed over.
        let fd = if events == 0 { -1 } else { fd.as_raw_fd() };
        self.poll.fds.push(libc::pollfd { fd, events, revents: 0 });
        self.poll.entries.push((token, again));
    }
}

/// Shows how many it has, and until when it waits.
impl<T> fmt::Debug for Waits<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waits").field("poll", &self.poll).field("until", &self.until).finish()
    }
}
