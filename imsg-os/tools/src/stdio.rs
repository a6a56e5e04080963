//! Standard input, output and error, whatever whoever started this made of them.
//!
//! They belong to others, too, who may have made them non-blocking. So these wait where the standard
//! library would fail, and lose what is not written yet. They have no buffers.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

/// One of them.
pub(crate) struct Stdio<T>(pub(crate) T);

/// Standard output.
pub(crate) fn output() -> Stdio<io::Stdout> {
    Stdio(io::stdout())
}

impl<T: AsFd> Stdio<T> {
    /// Tries until it is done, and waits meanwhile.
    fn patiently(
        &self,
        ready: PollFlags,
        mut attempt: impl FnMut(&T) -> nix::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match attempt(&self.0) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => wait_for(&self.0, ready)?,
                done => return Ok(done?),
            }
        }
    }
}

impl<T: AsFd> Read for Stdio<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.patiently(PollFlags::POLLIN, |from| unistd::read(from, bytes))
    }
}

impl<T: AsFd> Write for Stdio<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(PollFlags::POLLOUT, |to| unistd::write(to, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait_for(what: &impl AsFd, ready: PollFlags) -> nix::Result<()> {
    let mut fds = [PollFd::new(what.as_fd(), ready)];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}
