//! Signals to other processes.

use std::io;

use super::check;

/// Asks a process to end. It must be a child that was not reaped, or the number may be another's.
pub(crate) fn terminate(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the call takes integers.
    let result = unsafe { libc::kill(pid, libc::SIGTERM) };
    check(result as isize).map(drop)
}
