//! Sending.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use libc::c_int;

use super::wait::{Instead, Interest, is_writable};
use super::{Control, is_nonblocking, message_header, retry};

/// Room for the control message of one descriptor.
// SAFETY: `CMSG_SPACE` only computes.
const ONE_CONTROL: usize = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;

#[cfg(any(target_os = "macos", target_os = "ios"))]
const SEND_FLAGS: c_int = 0;
#[cfg(not(any(target_os = "macos", target_os = "ios")))]
const SEND_FLAGS: c_int = libc::MSG_NOSIGNAL;

/// Sends bytes, and a descriptor with the first of them. Where it `waits`, so does this for room,
/// if the socket does, up to the time-out that the socket has.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptor: Option<BorrowedFd<'_>>,
    waits: bool,
) -> io::Result<usize> {
    let shortened = few(parts);
    let parts = if SENDS_WAIT && !waits && !is_nonblocking(socket)? {
        if !is_writable(socket)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        &shortened
    } else {
        parts
    };
    let Some(descriptor) = descriptor else {
        return send_bytes(socket, parts, if waits { 0 } else { libc::MSG_DONTWAIT });
    };
    // gVisor drops the descriptor of a `sendmsg` that waits, and says that it was sent: so none
    // does, and what waits is `poll`.
    let mut instead = Instead::new(Interest::Writable, waits);
    loop {
        match send_what_fits(socket, parts, descriptor) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                instead.wait(socket, error)?;
            }
            result => return result,
        }
    }
}

/// Sends bytes, waiting as the socket does; or bytes and a descriptor, without waiting.
pub(crate) fn send_once(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    match descriptor {
        Some(descriptor) => send_what_fits(socket, parts, descriptor),
        None => send_bytes(socket, parts, 0),
    }
}

fn send_bytes(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], flags: c_int) -> io::Result<usize> {
    let flags = SEND_FLAGS | flags;
    if let [bytes] = parts {
        return retry(|| {
            // SAFETY: the pointer and the length are those of `bytes`, which are borrowed.
            unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) }
        });
    }
    let header = header_of(parts);
    // SAFETY: `header` points to `parts`, which are borrowed, and which `sendmsg` does not change.
    retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &header, flags) })
}

/// A header that may only be sent.
fn header_of(parts: &[IoSlice<'_>]) -> libc::msghdr {
    let mut header = message_header(&mut []);
    // An `IoSlice` is an `iovec`.
    header.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_iovlen = parts.len() as _;
    header
}

/// Here only reads look at `MSG_DONTWAIT`, so that a send which must not wait takes no more bytes than
/// there is room for.
const SENDS_WAIT: bool = FAILS_WHEN_FULL;

/// Here a `sendmsg` with a descriptor fails with `EMSGSIZE` when there is not room for all of it,
/// although it only has to wait, or to send less.
const FAILS_WHEN_FULL: bool =
    cfg!(any(target_os = "macos", target_os = "ios", target_os = "netbsd"));

/// With so many bytes, a descriptor finds room wherever `poll` says that there is some: it does
/// so from 2048 bytes on.
const FEW: usize = 512;

/// The first of them, in a slice that takes the place of `parts`.
fn few<'a>(parts: &'a [IoSlice<'_>]) -> [IoSlice<'a>; 1] {
    let first: &[u8] = parts.first().map_or(&[], |part| part);
    [IoSlice::new(first.get(..FEW).unwrap_or(first))]
}

fn send_what_fits(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let is_full = |error: &io::Error| error.raw_os_error() == Some(libc::EMSGSIZE);
    match send_with_descriptor(socket, parts, descriptor) {
        Err(error) if FAILS_WHEN_FULL && is_full(&error) => {
            send_with_descriptor(socket, &few(parts), descriptor).map_err(|error| {
                if is_full(&error) { io::ErrorKind::WouldBlock.into() } else { error }
            })
        }
        result => result,
    }
}

fn send_with_descriptor(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let mut header = header_of(parts);
    let mut control = Control::<ONE_CONTROL> { bytes: [MaybeUninit::zeroed(); ONE_CONTROL] };
    header.msg_control = ptr::from_mut(&mut control).cast();
    header.msg_controllen = ONE_CONTROL as _;
    // SAFETY: the control buffer of `header` has room for one header.
    let message = unsafe { libc::CMSG_FIRSTHDR(&header) };
    // SAFETY: `CMSG_LEN` only computes.
    let len = unsafe { libc::CMSG_LEN(size_of::<RawFd>() as u32) };
    // SAFETY: `message` points to a header in the control buffer, which is aligned for it; the
    // whole of it is zeroed, and a header of zeros is valid.
    let fields = unsafe { &mut *message };
    fields.cmsg_level = libc::SOL_SOCKET;
    fields.cmsg_type = libc::SCM_RIGHTS;
    fields.cmsg_len = len as _;
    // SAFETY: the control buffer has room for one descriptor behind the header.
    unsafe { libc::CMSG_DATA(message).cast::<RawFd>().write_unaligned(descriptor.as_raw_fd()) };
    retry(|| {
        let flags = SEND_FLAGS | libc::MSG_DONTWAIT;
        // SAFETY: `header` points to `parts`, which are borrowed, and which `sendmsg` does not
        // change, and to `control`; all of them outlive the call.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &header, flags) }
    })
}
