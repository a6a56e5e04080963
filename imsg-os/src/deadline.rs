//! A limit of time for each message.

use std::time::{Duration, Instant};

/// How long a message may take to arrive, from its first byte to its last.
///
/// A peer can stop in the middle of a message, and it can do so for ever: it can pass its own end
/// of the connection over the connection and die, so that not even the end of the stream comes. A
/// server for peers that it does not trust has such a limit, or they use up its descriptors. Peers
/// that have nothing to say may be silent as long as they like.
///
/// It is looked at after each read, once the messages that arrived were taken, and tells until when
/// to wait:
///
/// ```
/// use imsg_os::{Channel, Deadline, Modern};
/// use std::io::Write;
/// use std::os::unix::net::UnixStream;
/// use std::time::{Duration, Instant};
///
/// let (mut peer, socket) = UnixStream::pair()?;
/// socket.set_nonblocking(true)?;
/// let mut channel = Channel::new(socket, Modern::new())?;
/// let mut deadline = Deadline::new(Duration::from_secs(10));
/// assert_eq!(deadline.update(channel.rx.unfinished(), Instant::now()), None);
///
/// peer.write_all(&[0; 7])?;
/// let _ = channel.rx.read()?;
/// for message in channel.rx.messages() {
///     println!("{:?}", message?);
/// }
/// let now = Instant::now();
/// let end = deadline.update(channel.rx.unfinished(), now).expect("a message has begun");
/// assert_eq!(end, now + Duration::from_secs(10)); // wait no longer, then give the peer up
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    limit: Duration,
    /// What is waited for, and since when.
    waiting: Option<(u64, Instant)>,
}

impl Deadline {
    /// A limit of this duration for each message.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit, waiting: None }
    }

    /// When the time is over that the peer has; `None` while nothing is
    /// [unfinished](crate::Receiver::unfinished), or when the clock cannot count so far.
    ///
    /// It is over when that is not later than `now`.
    pub fn update(&mut self, unfinished: Option<u64>, now: Instant) -> Option<Instant> {
        let since = |offset| match self.waiting {
            Some((before, since)) if before == offset => (offset, since),
            _ => (offset, now),
        };
        self.waiting = unfinished.map(since);
        self.waiting?.1.checked_add(self.limit)
    }
}
