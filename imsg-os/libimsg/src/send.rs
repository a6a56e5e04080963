//! From a queue of buffers to a socket or a file.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// Sends what a socket takes in one call, and at most one descriptor: a call begins with the buffer
/// that has one, and ends before the next. Says whether there was anything in the queue.
pub(crate) fn send(queue: &mut Queue, fd: c_int) -> Result<bool, Errno> {
    let queued = queue.len() > 0;
    let descriptor = queue.first().and_then(|buf| buf.fd());
    let took_all = send_once(queue, fd, descriptor)?;
    // A call of C's that waits takes all. What fails here does so again, when the rest is sent.
    if descriptor.is_some() && !took_all && waits(fd) {
        let _ = send_once(queue, fd, None);
    }
    Ok(queued)
}

/// Sends the first buffers, up to the next that has a descriptor. Says whether the socket took all.
fn send_once(queue: &mut Queue, fd: c_int, descriptor: Option<c_int>) -> Result<bool, Errno> {
    let mut len = 0;
    let n = with_parts(queue, Until::Descriptor, |parts| {
        len = parts.iter().fold(0, |len: usize, part| len.saturating_add(part.len()));
        send_parts(fd, parts, descriptor)
    })?;
    if n > 0
        && let Some(buf) = queue.first()
    {
        buf.close_fd();
    }
    drain(queue, n);
    Ok(n >= len)
}

/// Writes what a socket or a file takes in one call, without descriptors: these are closed. Says
/// whether there was anything in the queue.
pub(crate) fn write(queue: &mut Queue, fd: c_int) -> Result<bool, Errno> {
    let queued = queue.len() > 0;
    let n = with_parts(queue, Until::End, |parts| write_parts(fd, parts))?;
    drain(queue, n);
    Ok(queued)
}

/// Up to where a queue is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The first buffer that has a descriptor, but for that at the front.
    Descriptor,
    End,
}

/// Writes the bytes of the first buffers, one behind the other, by a call that takes them in parts;
/// not, when there are none. Gives the bytes written.
fn with_parts(
    queue: &Queue,
    until: Until,
    mut write: impl FnMut(&[IoSlice<'_>]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut bufs = queue.iter();
    match (bufs.next(), bufs.next()) {
        (None, _) => Ok(0),
        (Some(one), None) if one.size() > 0 => write(&[IoSlice::new(one.unread())]),
        _ => with_many(queue, until, &mut write),
    }
}

/// As [`with_parts`]; apart from that, as it takes much of the stack.
#[inline(never)]
fn with_many(
    queue: &Queue,
    until: Until,
    write: &mut dyn FnMut(&[IoSlice<'_>]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let ends = |(at, buf): (usize, &Ibuf)| at > 0 && until == Until::Descriptor && buf.has_fd();
    let bufs = queue.iter().enumerate().take_while(|(at, buf)| !ends((*at, buf)));
    let mut bytes = bufs.map(|(_, buf)| buf.unread()).filter(|bytes| !bytes.is_empty()).peekable();
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
    // How much was sent since a queue was empty. It is about right if several threads send, or several
    // queues are not empty, which is enough.
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let sent = SENT.load(Ordering::Relaxed).saturating_add(n);
    SENT.store(sent, Ordering::Relaxed);
    while let Some(buf) = queue.first() {
        let size = buf.size();
        if n < size {
            let _ = buf.take(n);
            return;
        }
        n -= size;
        if let Some(buf) = queue.pop()
            && queue.len() == 0
        {
            buf.drop_last(sent);
            SENT.store(0, Ordering::Relaxed);
        }
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
    Ok(raw::send(socket, parts, descriptor)?)
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

/// Waits until it is worth another try to write.
pub(crate) fn wait(fd: c_int) -> Result<(), Errno> {
    // SAFETY: the program has it open, as it names it.
    Ok(raw::wait_writable(unsafe { borrow(fd) }?)?)
}
