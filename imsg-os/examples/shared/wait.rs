//! Waiting for what turns of channels wait for.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use imsg_os::{Channel, Next, Turn, TurnError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::low_level::pipe;

use crate::complain::complain;

/// A socket to be waited for.
pub(crate) struct Socket<'a> {
    fd: BorrowedFd<'a>,
    next: Next,
    readable: &'a mut bool,
}

impl<'a> Socket<'a> {
    /// A channel, and whether its next turn has something to read.
    pub(crate) fn channel(channel: &'a Channel, turn: &Turn, readable: &'a mut bool) -> Self {
        Self { fd: channel.as_fd(), next: channel.next(turn), readable }
    }

    /// What has only something to read.
    pub(crate) fn input(fd: &'a impl AsFd, readable: &'a mut bool) -> Self {
        let next = Next::Poll { readable: true, writable: false };
        Self { fd: fd.as_fd(), next, readable }
    }
}

/// Waits until one of these has something to do, and says of each whether it is readable, which it
/// also is when it has hung up or failed.
pub(crate) fn wait(sockets: Vec<Socket<'_>>) -> io::Result<()> {
    let mut timeout = PollTimeout::NONE;
    let mut fds = Vec::new();
    for socket in &sockets {
        let mut flags = PollFlags::empty();
        match socket.next {
            Next::Again => timeout = PollTimeout::ZERO,
            Next::Poll { readable, writable } => {
                flags.set(PollFlags::POLLIN, readable);
                flags.set(PollFlags::POLLOUT, writable);
            }
            Next::Done => {}
        }
        fds.push(PollFd::new(socket.fd, flags));
    }
    match poll(&mut fds, timeout) {
        // After a signal, nothing is known to be readable.
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    for (socket, fd) in sockets.into_iter().zip(fds) {
        let events = fd.revents().unwrap_or(PollFlags::POLLERR);
        *socket.readable = events.intersects(!PollFlags::POLLOUT);
    }
    Ok(())
}

/// What becomes readable when one of these signals comes.
pub(crate) fn on_signals(signals: &[i32]) -> io::Result<UnixStream> {
    let (ours, handlers) = UnixStream::pair()?;
    for signal in signals {
        pipe::register(*signal, handlers.try_clone()?)?;
    }
    Ok(ours)
}

/// Whether a peer that is trusted, and may die, is there after this turn. Any other end of the
/// channel is an error.
pub(crate) fn is_there(
    peer: impl Display,
    turn: Result<Next, TurnError<impl Display>>,
) -> crate::Result<bool> {
    match turn {
        Ok(next) => Ok(next != Next::Done),
        Err(error) if error.is_peer_gone() => Ok(false),
        Err(error) => Err(format!("{peer}: {error}").into()),
    }
}

/// Whether a channel goes on after this turn. Complains of an error.
pub(crate) fn goes_on(peer: impl Display, turn: Result<Next, impl Display>) -> bool {
    turn.map(|next| next != Next::Done).unwrap_or_else(|error| {
        complain("supervisor", format_args!("{peer}: {error}"));
        false
    })
}
