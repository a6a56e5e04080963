//! How long a client waits for what, and what it says of that.

use std::fmt;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use imsg_os::{Any, Deadline, Sender};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::Error;
use crate::complain::complain;

/// What a client waits for. A number changes when there is some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// That something of ours is read.
    ToBeRead(u64),
    /// The rest of a message.
    Message(u64),
    /// What there is to read for the server.
    Input,
    /// Whoever reads what the server has sent.
    Output,
    /// Whatever the server says next.
    Command(u64),
    /// The same, after it has said how the command ended.
    Farewell(u64),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToBeRead(_) => "the server to read what was sent to it",
            Self::Message(_) => "the server to complete a message",
            Self::Input => "standard input",
            Self::Output => "standard output to take what the server sent",
            Self::Command(_) => "the server to end the command",
            Self::Farewell(_) => "the server to end the connection",
        })
    }
}

/// The limits of time of a client.
pub(crate) struct Patience {
    to_be_read: Deadline,
    message: Deadline,
    silence: Option<Deadline>,
    said: Option<Said>,
}

/// What was said of waiting, and when it is time to.
struct Said {
    wait: Option<Wait>,
    pause: Deadline,
    is_said: bool,
}

/// After how long it is said what is waited for.
const PAUSE: Duration = Duration::from_secs(1);

impl Patience {
    /// The last one only if the server may not say nothing for as long as it likes.
    pub(crate) fn new(patience: Duration, silence: Option<Duration>, verbose: bool) -> Self {
        let said = Said { wait: None, pause: Deadline::new(PAUSE), is_said: false };
        Self {
            to_be_read: Deadline::new(patience),
            message: Deadline::new(patience),
            silence: silence.map(Deadline::new),
            said: verbose.then_some(said),
        }
    }

    /// Until when to wait for this at most; an error when it has taken too long. It has to be asked
    /// each time that there is something to wait for.
    pub(crate) fn limit(&mut self, wait: Wait, now: Instant) -> Result<Option<Instant>, Wait> {
        let read = if let Wait::ToBeRead(sent) = wait { Some(sent) } else { None };
        let message = if let Wait::Message(offset) = wait { Some(offset) } else { None };
        let heard = match wait {
            Wait::Command(heard) | Wait::Farewell(heard) => Some(heard),
            _ => None,
        };
        let limits = [
            self.to_be_read.update(read, now),
            self.message.update(message, now),
            self.silence.as_mut().and_then(|silence| silence.update(heard, now)),
        ];
        let limit = limits.into_iter().flatten().min();
        if limit.is_some_and(|limit| limit <= now) {
            return Err(wait);
        }
        let to_say = self.said.as_mut().and_then(|said| said.update(wait, now));
        Ok(limit.into_iter().chain(to_say).min())
    }

    /// Waits until the server has read something.
    pub(crate) fn until_writable(&mut self, tx: &Sender<Any>) -> Result<(), Error> {
        let now = Instant::now();
        let limit = self.limit(Wait::ToBeRead(tx.sent().bytes), now).map_err(Error::Silence)?;
        match poll(&mut [PollFd::new(tx.as_fd(), PollFlags::POLLOUT)], timeout(limit, now)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::Io(errno.into())),
        }
    }
}

/// The time until then, rounded up, so that it is over afterwards.
pub(crate) fn timeout(limit: Option<Instant>, now: Instant) -> PollTimeout {
    let Some(limit) = limit else { return PollTimeout::NONE };
    let left = limit.saturating_duration_since(now).as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

impl Said {
    /// Says what is waited for when that has been the same for a while. Until then, tells when it
    /// is time to.
    fn update(&mut self, wait: Wait, now: Instant) -> Option<Instant> {
        if self.wait != Some(wait) {
            self.wait = Some(wait);
            self.is_said = false;
            self.pause = Deadline::new(PAUSE);
        }
        if self.is_said {
            return None;
        }
        let time = self.pause.update(Some(0), now)?;
        if time > now {
            return Some(time);
        }
        complain("tmux", format_args!("waiting for {wait}"));
        self.is_said = true;
        None
    }
}
