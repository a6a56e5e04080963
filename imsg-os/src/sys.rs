//! The system calls, and all `unsafe` code of the crate.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use imsg_wire::Ancillary;
use libc::{c_int, c_void};

/// The most descriptors that the kernel passes in one call. On Linux this is `SCM_MAX_FD`; of the
/// others, macOS takes up to 512.
const MOST_DESCRIPTORS: usize =
    if cfg!(any(target_os = "linux", target_os = "android")) { 253 } else { 512 };

/// Room for what else a socket may be set to receive: credentials (`SO_PASSCRED`), a pidfd
/// (`SO_PASSPIDFD`), a time stamp, a security label.
const OTHER_CONTROL: usize = 512;

/// Room for the control messages of one read.
///
/// It holds all descriptors that can come at once, as macOS installs those that do not fit, and
/// nobody could close them then.
// SAFETY: `CMSG_SPACE` only computes.
const CONTROL: usize = unsafe { libc::CMSG_SPACE((MOST_DESCRIPTORS * size_of::<RawFd>()) as u32) }
    as usize
    + OTHER_CONTROL;

/// Room for the control message of one descriptor.
// SAFETY: `CMSG_SPACE` only computes.
const ONE_CONTROL: usize = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;

/// A buffer for control messages, which are aligned as their header is.
#[repr(C)]
union Control<const LEN: usize> {
    bytes: [MaybeUninit<u8>; LEN],
    _align: libc::cmsghdr,
}

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

/// Reads once from a socket, and what came beside the bytes if `descriptors` are wanted.
///
/// Without that the kernel closes descriptors that were sent.
pub(crate) fn recv(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    descriptors: bool,
) -> io::Result<(usize, Ancillary<OwnedFd>)> {
    if descriptors {
        return recv_with_descriptors(socket, buf, 0);
    }
    let n = retry(|| {
        // SAFETY: the pointer and the length are those of `buf`, which is borrowed for writing.
        unsafe { libc::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), 0) }
    })?;
    Ok((n, Ancillary::Nothing))
}

/// Looks at what [`recv`] would read, and leaves it there. Descriptors that are seen are installed,
/// as if they were received; so it is on Linux, and only there.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn peek(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
) -> io::Result<(usize, Ancillary<OwnedFd>)> {
    recv_with_descriptors(socket, buf, libc::MSG_PEEK)
}

/// Elsewhere, what is seen in place of descriptors are none of this process.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn peek(_: BorrowedFd<'_>, _: &mut [u8]) -> io::Result<(usize, Ancillary<OwnedFd>)> {
    Err(io::ErrorKind::Unsupported.into())
}

fn recv_with_descriptors(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: c_int,
) -> io::Result<(usize, Ancillary<OwnedFd>)> {
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut control = Control::<CONTROL> { bytes: [MaybeUninit::uninit(); CONTROL] };
    let mut header = message_header(&mut iov);
    header.msg_control = ptr::from_mut(&mut control).cast();
    let n = retry(|| {
        header.msg_controllen = CONTROL as _;
        // SAFETY: `header` points to `iov`, which describes `buf`, and to `control`, both writable
        // and of the lengths stated; all of them outlive the call.
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
                if rights {
                    taken = match taken {
                        Ancillary::Nothing => Ancillary::One(descriptor),
                        _ => Ancillary::Several,
                    };
                }
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

fn set_close_on_exec(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the call takes an integer.
    let result = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    check(result as isize).map(drop)
}

#[cfg(any(target_os = "macos", target_os = "ios"))]
const SEND_FLAGS: c_int = 0;
#[cfg(not(any(target_os = "macos", target_os = "ios")))]
const SEND_FLAGS: c_int = libc::MSG_NOSIGNAL;

/// Sends bytes, and a descriptor with the first of them.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    match descriptor {
        None => retry(|| {
            // SAFETY: the pointer and the length are those of `bytes`, which are borrowed.
            unsafe {
                libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), SEND_FLAGS)
            }
        }),
        Some(descriptor) => send_with_descriptor(socket, bytes, descriptor),
    }
}

fn send_with_descriptor(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let base = bytes.as_ptr().cast::<c_void>().cast_mut();
    let mut iov = libc::iovec { iov_base: base, iov_len: bytes.len() };
    let mut control = Control::<ONE_CONTROL> { bytes: [MaybeUninit::zeroed(); ONE_CONTROL] };
    let mut header = message_header(&mut iov);
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
        // SAFETY: `header` points to `iov`, which describes `bytes`, which `sendmsg` does not
        // change, and to `control`; all of them outlive the call.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &header, SEND_FLAGS) }
    })
}

fn message_header(iov: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all fields are integers and pointers, for which zero is a valid value.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header
}

/// What to wait for.
#[derive(Clone, Copy)]
pub(crate) enum Interest {
    Readable,
    Writable,
}

/// Waits until a socket is ready, is closed or has failed.
pub(crate) fn wait(socket: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
    let events = match interest {
        Interest::Readable => libc::POLLIN,
        Interest::Writable => libc::POLLOUT,
    };
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    retry(|| {
        // SAFETY: there is one `pollfd`, as stated, and it is borrowed for writing.
        unsafe { libc::poll(&mut poll, 1, -1) as isize }
    })
    .map(drop)
}

/// Fails unless this is a stream socket, and a Unix socket, as others lose descriptors silently.
pub(crate) fn require_stream(socket: BorrowedFd<'_>) -> io::Result<()> {
    let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    // SAFETY: `SO_TYPE` is an integer.
    let socket_type: c_int = unsafe { option(socket, libc::SO_TYPE)? };
    if socket_type != libc::SOCK_STREAM {
        return invalid("it is a socket of another type");
    }
    if family(socket)? != libc::AF_UNIX {
        return invalid("it is not a Unix socket");
    }
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    no_sigpipe(socket)?;
    Ok(())
}

fn family(socket: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: all fields are integers, for which zero is a valid value.
    let mut address: libc::sockaddr = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut len = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `address`, borrowed for writing; a longer
    // address is cut off.
    let result = unsafe { libc::getsockname(socket.as_raw_fd(), &mut address, &mut len) };
    check(result as isize)?;
    Ok(c_int::from(address.sa_family))
}

/// Ends one direction of a connection: the other side reads an end of stream.
pub(crate) fn shutdown_write(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the call takes integers.
    let result = unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
    check(result as isize).map(drop)
}

/// In place of `MSG_NOSIGNAL`, which does not exist here.
#[cfg(any(target_os = "macos", target_os = "ios"))]
fn no_sigpipe(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: the pointer and the length are those of an integer, as the option takes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NOSIGPIPE,
            ptr::from_ref(&on).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    check(result as isize).map(drop)
}

/// Who is at the other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The process, where the system tells: on Linux, unless it is in another pid namespace.
    pub pid: Option<u32>,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    // SAFETY: `SO_PEERCRED` is a `ucred`, of integers.
    let peer: libc::ucred = unsafe { option(socket, libc::SO_PEERCRED)? };
    let pid = u32::try_from(peer.pid).ok().filter(|pid| *pid != 0);
    Ok(Credentials { pid, uid: peer.uid, gid: peer.gid })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: both pointers are those of integers of the right type, borrowed for writing.
    let result = unsafe { libc::getpeereid(socket.as_raw_fd(), &mut uid, &mut gid) };
    check(result as isize)?;
    Ok(Credentials { pid: None, uid, gid })
}

/// Reads a socket option.
///
/// # Safety
///
/// The value of the option is a `T`, and every bit pattern is a valid one.
unsafe fn option<T>(socket: BorrowedFd<'_>, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `value`, borrowed for writing.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value.as_mut_ptr().cast(),
            &mut len,
        )
    };
    check(result as isize)?;
    // SAFETY: it was zeroed, the kernel wrote some or all of it, and any bits are a `T`.
    Ok(unsafe { value.assume_init() })
}

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
    require_stream(socket)?;
    set_close_on_exec(socket)?;
    // SAFETY: it is open and nothing in this process owns it, as above; from here on it has
    // close-on-exec and is not taken again.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Calls again when a signal came in between.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
