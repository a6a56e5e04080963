//! A socket that was open when this program was started.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use super::check;
use super::recv::set_close_on_exec;
use super::socket::require_connected_stream;

/// Takes up a socket that was open when this program was started, by convention as descriptor 3,
/// and sets close-on-exec on it.
///
/// A descriptor that has close-on-exec set is refused: it was not there when the program started,
/// or was taken up before. The standard library sets it on everything that it opens, and owns 0 to
/// 2, which are refused too.
///
/// ```no_run
/// use imsg_os::{Channel, Modern, inherited};
///
/// // SAFETY: nothing else in this program takes up descriptor 3.
/// let socket = unsafe { inherited(3) }?;
/// let channel = Channel::new(socket, Modern::new())?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The process that starts the program has to close its own copy of this end of the socket, or it
/// will not see the end of the stream when the program dies; the [crate documentation](crate) shows
/// how.
///
/// # Errors
///
/// When there is no Unix stream socket of this number, or it is not one that was inherited. The
/// text names the number of the descriptor; an error number of the system is in the text only.
///
/// # Safety
///
/// If the number is that of a descriptor without close-on-exec, nothing else in this process owns
/// it, or takes ownership of it later: it would have two owners, and be closed twice.
pub unsafe fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the caller promises the same.
    unsafe { take_up(number) }.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("descriptor {number} is no inherited channel: {error}"),
        )
    })
}

/// # Safety
///
/// As [`inherited`].
unsafe fn take_up(number: RawFd) -> io::Result<OwnedFd> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if (0..=2).contains(&number) {
        return refused("it belongs to the standard library");
    }
    // No two threads find the same descriptor without close-on-exec.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the call takes integers, and fails for a number that is not open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    check(flags as isize)?;
    if flags & libc::FD_CLOEXEC != 0 {
        return refused("this process opened it, or took it up before");
    }
    // SAFETY: it is open, and stays so while it is borrowed, as the caller promises that it has no
    // owner.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    require_connected_stream(socket)?;
    set_close_on_exec(socket)?;
    // SAFETY: it is open and nothing in this process owns it, as above; from here on it has
    // close-on-exec and is not taken again.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
