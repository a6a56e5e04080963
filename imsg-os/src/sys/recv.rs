//! Receiving.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use imsg_wire::Ancillary;
use libc::c_int;

use super::{Control, check, message_header, retry};

/// The most descriptors that a kernel gives in one read: 253 on Linux (`SCM_MAX_FD`), 254 on XNU,
/// DragonFly and FreeBSD, about 500 on FreeBSD from 15 on, and about 1020 on NetBSD. Of those, only
/// XNU leaks what does not fit.
const MOST_DESCRIPTORS: usize =
    if cfg!(any(target_os = "linux", target_os = "android")) { 253 } else { 512 };

/// Room for what else a socket may be set to receive: credentials (`SO_PASSCRED`), a pidfd
/// (`SO_PASSPIDFD`), a time stamp, a security label.
const OTHER_CONTROL: usize = 512;

/// Room for the control messages of one read.
///
/// It holds all descriptors that can come at once on XNU, which installs those that do not fit, and
/// nobody could close them then.
// SAFETY: `CMSG_SPACE` only computes.
const CONTROL: usize = unsafe { libc::CMSG_SPACE((MOST_DESCRIPTORS * size_of::<RawFd>()) as u32) }
    as usize
    + OTHER_CONTROL;

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
))]
const RECV_FLAGS: c_int = libc::MSG_CMSG_CLOEXEC;
#[cfg(any(target_os = "macos", target_os = "ios"))]
const RECV_FLAGS: c_int = 0;

/// Reads once from a socket, and what came beside the bytes if `descriptors` are wanted; no bytes,
/// and nothing beside them, are the end of the stream. Where it `waits`, so does this for data, if
/// the socket does.
///
/// Descriptors that are not wanted are closed.
pub(crate) fn recv(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    descriptors: bool,
    waits: bool,
) -> io::Result<(usize, Ancillary<OwnedFd>)> {
    let flags = if waits { 0 } else { libc::MSG_DONTWAIT };
    if descriptors {
        return recv_with_descriptors(socket, buf, flags);
    }
    if needs_control() {
        let mut failed = false;
        let n = loop {
            match recv_with_descriptors(socket, buf, flags) {
                // Without it, as it is not wanted, the bytes come now.
                Err(error) if !failed && has_lost_descriptor(&error) => failed = true,
                // Not the end, but a descriptor without a byte.
                Ok((0, ancillary)) if !matches!(ancillary, Ancillary::Nothing) => failed = false,
                received => break received?.0,
            }
        };
        return Ok((n, Ancillary::Nothing));
    }
    let n = retry(|| {
        // SAFETY: the pointer and the length are those of `buf`, which is borrowed for writing.
        unsafe { libc::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags) }
    })?;
    Ok((n, Ancillary::Nothing))
}

/// Whether a read that has no room for descriptors is wrong here: XNU installs them and tells
/// nobody, and older DragonFly forgets them in the kernel; and on these and the other BSDs, one that
/// came without a byte looks like the end of the stream. FreeBSD since 15 waits on then, and may
/// lose data when it is asked for descriptors.
fn needs_control() -> bool {
    if cfg!(target_os = "freebsd") {
        return keeps_data();
    }
    !cfg!(any(target_os = "linux", target_os = "android"))
}

/// Whether a failed read has lost a descriptor that this process cannot have, as it has no free
/// number for it or may not see its file; the bytes stay, and come with the next read. (Linux and
/// gVisor give the bytes at once, and say what is missing.)
pub(crate) fn has_lost_descriptor(error: &io::Error) -> bool {
    let lost: &[c_int] = match () {
        () if cfg!(any(target_os = "openbsd", target_os = "netbsd")) => {
            &[libc::EMSGSIZE, libc::EPERM]
        }
        () if cfg!(any(target_os = "macos", target_os = "ios", target_os = "dragonfly")) => {
            &[libc::EMSGSIZE]
        }
        () if keeps_data() => &[libc::EMFILE],
        () => &[],
    };
    error.raw_os_error().is_some_and(|number| lost.contains(&number))
}

/// Whether this is a FreeBSD whose failed reads lose no data, as those from 15 on may.
#[cfg(target_os = "freebsd")]
fn keeps_data() -> bool {
    static KEEPS: std::sync::LazyLock<bool> = std::sync::LazyLock::new(is_before_15);
    *KEEPS
}

#[cfg(target_os = "freebsd")]
fn is_before_15() -> bool {
    let mut version: c_int = 0;
    let mut len = size_of::<c_int>();
    let place = ptr::from_mut(&mut version).cast();
    // SAFETY: the name ends with a NUL; the place has the length stated, and is borrowed for
    // writing.
    let result =
        unsafe { libc::sysctlbyname(c"kern.osreldate".as_ptr(), place, &mut len, ptr::null(), 0) };
    result == 0 && version < 1_500_000
}

#[cfg(not(target_os = "freebsd"))]
fn keeps_data() -> bool {
    false
}

/// Takes an urgent byte (`MSG_OOB`), which is not part of the stream, out of its way, and says
/// whether there was one.
pub(crate) fn take_urgent(socket: BorrowedFd<'_>) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_OOB | libc::MSG_DONTWAIT;
    // SAFETY: the pointer and the length are those of a byte, borrowed for writing.
    unsafe { libc::recv(socket.as_raw_fd(), ptr::from_mut(&mut byte).cast(), 1, flags) == 1 }
}

fn recv_with_descriptors(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: c_int,
) -> io::Result<(usize, Ancillary<OwnedFd>)> {
    let mut iov = [libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() }];
    // SAFETY: this is `buf`, which is borrowed for writing.
    unsafe { recv_into(socket, &mut iov, flags) }
}

/// # Safety
///
/// Each of `iov` is memory that may be written to, or cannot be.
pub(super) unsafe fn recv_into(
    socket: BorrowedFd<'_>,
    iov: &mut [libc::iovec],
    flags: c_int,
) -> io::Result<(usize, Ancillary<OwnedFd>)> {
    let mut control = Control::<CONTROL> { bytes: [MaybeUninit::uninit(); CONTROL] };
    let mut header = message_header(iov);
    header.msg_control = ptr::from_mut(&mut control).cast();
    let n = retry(|| {
        header.msg_controllen = CONTROL as _;
        // SAFETY: `header` points to `iov`, which the caller promises can be written to, and to
        // `control`, which is writable and of the length stated; all of them outlive the call.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, RECV_FLAGS | flags) }
    })?;
    let truncated = header.msg_flags & libc::MSG_CTRUNC != 0;
    // SAFETY: `recvmsg` succeeded with this header, whose control buffer is still there, and this
    // is the only time that its descriptors are taken.
    let received = unsafe { take_descriptors(&header) };
    let ancillary = match received {
        Ancillary::Nothing if truncated => Ancillary::Dropped,
        // The kernel installs descriptors until one fails: there were more than the one.
        Ancillary::One(_) if truncated => Ancillary::Several,
        received => received,
    };
    Ok((n, ancillary))
}

/// Takes the descriptors out of the control messages of a read. Several are closed.
///
/// # Safety
///
/// `header` is as a successful `recvmsg` left it, its control buffer is alive, the descriptors in
/// it were installed for this process, and nothing else takes them.
unsafe fn take_descriptors(header: &libc::msghdr) -> Ancillary<OwnedFd> {
    let mut taken = Ancillary::Nothing;
    #[allow(clippy::unnecessary_cast, reason = "it is a u32 on some systems")]
    let end = header.msg_control.addr() + header.msg_controllen as usize;
    // SAFETY: the control buffer of `header` is alive, and the kernel wrote `msg_controllen` bytes
    // of control messages there.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: a non-null pointer from `CMSG_FIRSTHDR` or `CMSG_NXTHDR` is that of a whole header
    // within the control buffer, which is aligned for it.
    while let Some(message) = unsafe { next.as_ref() } {
        // SAFETY: as above; the data follow the header.
        let data = unsafe { libc::CMSG_DATA(next) };
        // SAFETY: `CMSG_LEN` only computes.
        let header_len = unsafe { libc::CMSG_LEN(0) } as usize;
        #[allow(clippy::unnecessary_cast, reason = "it is a u32 on some systems")]
        let len = (message.cmsg_len as usize).saturating_sub(header_len);
        // A message that was cut off keeps the length that it had on some systems.
        let len = len.min(end.saturating_sub(data.addr()));
        let rights =
            message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS;
        if rights || is_pidfd(message) {
            let mut here = Ancillary::Nothing;
            for i in 0..len / size_of::<RawFd>() {
                // SAFETY: the kernel wrote raw descriptors to `data`, of which `len` bytes lie
                // within the control buffer; they need not be aligned.
                let raw = unsafe { data.cast::<RawFd>().add(i).read_unaligned() };
                if raw < 0 {
                    // In place of a pidfd, an error.
                    continue;
                }
                // SAFETY: the kernel installed this descriptor for us in this call, and nobody
                // else knows of it.
                let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
                close_on_exec(&descriptor);
                here = match here {
                    Ancillary::Nothing => Ancillary::One(descriptor),
                    _ => Ancillary::Several,
                };
            }
            if rights {
                taken = match (taken, here) {
                    // So gVisor says that this process cannot have what was sent.
                    (Ancillary::Nothing, Ancillary::Nothing) => Ancillary::Dropped,
                    (Ancillary::Nothing, here) => here,
                    // These FreeBSDs show a control message that came without a byte, as when a
                    // send was tried again, together with the one that the bytes came with.
                    (taken, Ancillary::Nothing) => taken,
                    (_, here) if cfg!(target_os = "freebsd") => here,
                    _ => Ancillary::Several,
                };
            }
        }
        // SAFETY: `next` is a header within the control buffer of `header`.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    taken
}

/// Whether this is the pidfd that `SO_PASSPIDFD` brings with every read.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_pidfd(message: &libc::cmsghdr) -> bool {
    const SCM_PIDFD: c_int = 4;
    message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == SCM_PIDFD
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_pidfd(_: &libc::cmsghdr) -> bool {
    false
}

/// Where `recvmsg` cannot do it: another thread that starts a program in between shares the
/// descriptor with it.
fn close_on_exec(descriptor: &OwnedFd) {
    if RECV_FLAGS == 0 {
        let _ = set_close_on_exec(descriptor.as_fd());
    }
}

pub(super) fn set_close_on_exec(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the call takes an integer.
    let result = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    check(result as isize).map(drop)
}
