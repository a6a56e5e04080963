//! Programs that are started with a channel to this one (feature `process`).
//!
//! A parent starts its workers, and introduces them to each other by passing each one end of a
//! connected pair:
//!
//! ```
//! use imsg_os::process::{Worker, connected_pair};
//! use imsg_os::{Channel, Header, Modern};
//! use std::process::Command;
//! use std::time::Duration;
//!
//! let start = || -> Result<_, Box<dyn std::error::Error>> {
//!     let mut command = Command::new("sh");
//!     command.args(["-c", "cat <&3 >/dev/null"]); // ends when the channel does
//!     let (worker, socket) = Worker::start(command)?;
//!     Ok((worker, Channel::new(socket, Modern::new())?))
//! };
//! let (mut one, mut to_one) = start()?;
//! let (mut other, mut to_other) = start()?;
//!
//! let (end, other_end) = connected_pair()?;
//! to_one.tx.compose(Header::new(1), b"", Some(end))?;
//! to_other.tx.compose(Header::new(1), b"", Some(other_end))?;
//! to_one.tx.flush()?;
//! to_other.tx.flush()?;
//!
//! drop((to_one, to_other)); // they see the end of the stream
//! assert!(one.end(Duration::from_secs(10))?.success());
//! assert!(other.end(Duration::from_secs(10))?.success());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Restarts`](crate::Restarts) tells when to start one again that died, and whether. The example
//! `supervisor` is a daemon of three processes.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};

use crate::sys;

/// The number of the descriptor that is the worker's end of the channel, which it takes up by
/// [`inherited`](crate::inherited).
pub const CHANNEL: RawFd = 3;

/// A process that was started with a channel to this one.
///
/// It is killed, and reaped, when this is dropped; how it ended is lost then.
#[derive(Debug)]
pub struct Worker {
    /// The process. To wait for it without a limit, drop the channel first. The channel ends a
    /// moment before `try_wait` tells how the process did; `SIGCHLD` comes when it can.
    pub child: Child,
}

impl Worker {
    /// Starts a program whose descriptor 3 is the other end of the socket that is returned, of which
    /// a channel is made: the [blocking one](crate::Channel::new), or that of tokio by `from_std`.
    ///
    /// This process keeps no other copy of either end, and no program that it starts has one. So
    /// each side sees the end of the stream when the other one is gone. What else the program
    /// inherits is up to `command`; it must not have a descriptor 3 of its own by `command_fds`.
    ///
    /// A program that is started from a terminal and ends its workers itself has them leave its process
    /// group ([`process_group(0)`](std::os::unix::process::CommandExt::process_group)): the terminal's
    /// Ctrl-C goes to all of a group.
    ///
    /// # Errors
    ///
    /// What the system says: there is no such program, for instance.
    pub fn start(mut command: Command) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let taken = sys::Taken::new(CHANNEL, &mut command);
        let mapping = FdMapping { parent_fd: theirs.into(), child_fd: CHANNEL };
        command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
        let child = taken.while_taken(ours.as_fd(), || command.spawn())?;
        // The command has the worker's end, and is dropped here.
        Ok((Self { child }, ours))
    }

    /// Asks the process to end (`SIGTERM`), unless it did.
    ///
    /// # Errors
    ///
    /// What the system says: this process may have no right to, as after it changed its user.
    pub fn terminate(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            // It is not reaped, so the number is still its own.
            None => sys::terminate(self.child.id()),
            Some(_) => Ok(()),
        }
    }

    /// Waits until the process has ended by itself, for this long; then it is killed. Tells how it
    /// ended.
    ///
    /// Drop the channel first, so that it sees the end, or [ask](Self::terminate) it. An event loop
    /// stands still meanwhile, so it gives a short limit, or asks [`child`](Self::child) now and
    /// then: `try_wait` does not wait.
    ///
    /// # Errors
    ///
    /// What the system says. The process is there then, as where this one has no right to kill it,
    /// and can be waited for by [`child`](Self::child).
    pub fn end(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let end = Instant::now().checked_add(limit);
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            let now = Instant::now();
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(now));
            if left.is_zero() {
                self.child.kill()?;
                return self.child.wait();
            }
            // No system but Linux has a call for it that leaves the signals of the program alone.
            thread::sleep(pause.min(left));
            pause = (2 * pause).min(Duration::from_millis(50));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Does nothing when it was reaped. One that may not be killed is not waited for.
        if self.child.kill().is_ok() {
            let _ = self.child.wait();
        }
    }
}

/// Two sockets that are connected to each other, to be passed to two workers in a message each.
///
/// ```
/// use imsg_os::process::connected_pair;
/// use imsg_os::{Channel, Modern};
///
/// let (one, other) = connected_pair()?; // what the workers get
/// let mut channel = Channel::new(one, Modern::new())?; // what a worker does with it
/// drop(other);
/// assert!(channel.rx.recv().unwrap().is_none());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// What `socketpair` says.
pub fn connected_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = UnixStream::pair()?;
    Ok((one.into(), other.into()))
}
