//! From a queue of buffers to a socket or a file.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use heapless::Vec;
use imsg_os::raw;
use libc::c_int;

use crate::errno::Errno;
use crate::ibuf::{Ibuf, NO_FD};
use crate::memory;
use crate::queue::Queue;

/// The most buffers in one call, which is what kernels take (`IOV_MAX`).
const MOST: usize = 1024;

/// The most bytes of small buffers that are joined for one call, and how many a small one has.
const JOINED: usize = 16 * 1024;
const SMALL: usize = 256;

const AGAIN: Errno = Errno(libc::EAGAIN);

/// Sends what a socket takes in one call, and at most one descriptor: a call begins with the buffer
/// that has one, and ends before the next. Says whether there was anything in the queue.
pub(crate) fn send(queue: &mut Queue, fd: c_int) -> Result<bool, Errno> {
    let queued = queue.len() > 0;
    let descriptor = queue.first().and_then(|buf| buf.fd());
    let together = queue.iter().enumerate().take_while(|(at, buf)| *at == 0 || !buf.has_fd());
    let bufs = together.map(|(_, buf)| buf);
    let n = with_parts(bufs, |parts| send_parts(fd, parts, descriptor))?;
    if n > 0
        && let Some(buf) = queue.first()
    {
        buf.close_fd();
    }
    drain(queue, n);
    Ok(queued)
}

/// Writes what a socket or a file takes in one call, without descriptors: these are closed. Says
/// whether there was anything in the queue.
pub(crate) fn write(queue: &mut Queue, fd: c_int) -> Result<bool, Errno> {
    let queued = queue.len() > 0;
    let n = with_parts(queue.iter(), |parts| write_parts(fd, parts))?;
    drain(queue, n);
    Ok(queued)
}

/// Writes the bytes of buffers, one behind the other, by a call that takes them in parts; not, when
/// there are none. Gives the bytes written.
fn with_parts<'a>(
    bufs: impl Iterator<Item = &'a Ibuf>,
    write: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut bytes = bufs.map(Ibuf::unread).filter(|bytes| !bytes.is_empty()).peekable();
    // For the kernel, a part costs more than to copy a small one.
    let mut joined = Vec::<u8, JOINED>::new();
    let fits = |len: usize, small: &[u8]| small.len() <= SMALL && len + small.len() <= JOINED;
    while let Some(small) = bytes.next_if(|bytes| fits(joined.len(), bytes)) {
        let _ = joined.extend_from_slice(small);
    }
    let mut parts = Vec::<IoSlice<'_>, MOST>::new();
    if !joined.is_empty() {
        let _ = parts.push(IoSlice::new(&joined));
    }
    for bytes in bytes {
        if parts.push(IoSlice::new(bytes)).is_err() {
            break;
        }
    }
    let written = if parts.is_empty() { Ok(0) } else { write(&parts) };
    drop(parts);
    // SAFETY: these are bytes of `joined`, which may be secret.
    unsafe { memory::wipe(joined.as_mut_ptr(), joined.len()) };
    written
}

/// Goes on behind `n` bytes, and frees the buffers that are read to their end.
fn drain(queue: &mut Queue, mut n: usize) {
    while let Some(buf) = queue.first() {
        let size = buf.size();
        if n < size {
            let _ = buf.take(n);
            return;
        }
        n -= size;
        drop(queue.pop());
    }
}

fn send_parts(fd: c_int, parts: &[IoSlice<'_>], descriptor: Option<c_int>) -> Result<usize, Errno> {
    // SAFETY: the program has it open, as it names it, and the queue has its own.
    let socket = unsafe { borrow(fd) }?;
    let descriptor = match descriptor {
        // SAFETY: as above.
        Some(descriptor) => Some(unsafe { borrow(descriptor) }?),
        None => None,
    };
    loop {
        match raw::send(socket, parts, descriptor).map_err(Errno::from) {
            // A send with a descriptor never waits by itself.
            Err(AGAIN) if descriptor.is_some() && waits(fd) => wait(fd)?,
            sent => return sent,
        }
    }
}

fn write_parts(fd: c_int, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let len = c_int::try_from(parts.len()).unwrap_or(c_int::MAX);
    loop {
        // SAFETY: an `IoSlice` is an `iovec`, and there are as many, of bytes that are borrowed.
        let n = unsafe { libc::writev(fd, parts.as_ptr().cast(), len) };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) if Errno::last() == Errno(libc::EINTR) => {}
            Err(_) => return Err(Errno::last()),
        }
    }
}

/// Sees a descriptor of the program's.
///
/// # Safety
///
/// It is open as long as this is used, if it is one.
pub(crate) unsafe fn borrow<'a>(fd: c_int) -> Result<BorrowedFd<'a>, Errno> {
    if fd == NO_FD {
        return Err(Errno(libc::EBADF));
    }
    // SAFETY: so the caller promises; the one value that cannot be borrowed is taken care of.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Whether calls on it wait.
fn waits(fd: c_int) -> bool {
    // SAFETY: the call takes integers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags != -1 && flags & libc::O_NONBLOCK == 0
}

/// Waits until it is worth another try to write; fails with `EAGAIN` when the time-out of the socket
/// (`SO_SNDTIMEO`) is over.
pub(crate) fn wait(fd: c_int) -> Result<(), Errno> {
    let timeout = timeout(fd);
    // `poll` does not tell that the peer reads no more (`SHUT_RD`), which a try does.
    let patience = timeout.unwrap_or(c_int::MAX).min(1000);
    let mut waiting = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: it is one, borrowed for writing.
    match unsafe { libc::poll(&mut waiting, 1, patience) } {
        0 if timeout.is_some_and(|timeout| timeout <= patience) => Err(AGAIN),
        -1 if Errno::last() != Errno(libc::EINTR) => Err(Errno::last()),
        _ => Ok(()),
    }
}

/// The time-out of a socket, in milliseconds.
fn timeout(fd: c_int) -> Option<c_int> {
    let mut value = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut len = size_of::<libc::timeval>() as libc::socklen_t;
    let place = (&raw mut value).cast();
    // SAFETY: the option is a `timeval`, for which there is room.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, place, &mut len) };
    if result != 0 || (value.tv_sec, value.tv_usec) == (0, 0) {
        return None;
    }
    let seconds = u64::try_from(value.tv_sec).unwrap_or(0);
    let millis = u64::try_from(value.tv_usec / 1000).unwrap_or(0);
    let timeout = seconds.saturating_mul(1000).saturating_add(millis).max(1);
    Some(c_int::try_from(timeout).unwrap_or(c_int::MAX))
}
