//! What sockets are, and how they are set.

use std::io;
use std::mem::MaybeUninit;
#[cfg(any(target_os = "macos", target_os = "ios"))]
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use libc::c_int;

use super::check;

/// Fails unless this is a Unix stream socket, as others lose descriptors silently, and one that is
/// connected or was, as others never have anything to read.
pub(crate) fn require_connected_stream(socket: BorrowedFd<'_>) -> io::Result<()> {
    let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    // SAFETY: `SO_TYPE` is an integer.
    let socket_type: c_int = unsafe { option(socket, libc::SO_TYPE)? };
    if socket_type != libc::SOCK_STREAM {
        return invalid("it is a socket of another type");
    }
    let peer = address(socket, libc::getpeername);
    // The peer of a Unix socket is one.
    let of_peer = peer.as_ref().is_ok_and(is_unix);
    if !of_peer && !is_unix(&address(socket, libc::getsockname)?) {
        return invalid("it is not a Unix socket");
    }
    if !was_connected(socket, peer)? {
        // SAFETY: `SO_ACCEPTCONN` is an integer.
        let listens = unsafe { option::<c_int>(socket, libc::SO_ACCEPTCONN) };
        return invalid(match listens {
            Ok(1..) => "it listens for connections, and is none",
            _ => "it is not connected",
        });
    }
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    no_sigpipe(socket)?;
    Ok(())
}

/// Two sockets that are connected to each other, of which all is known that
/// [`require_connected_stream`] finds out.
pub(crate) fn pair() -> io::Result<[OwnedFd; 2]> {
    let (one, other) = UnixStream::pair()?;
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    for socket in [&one, &other] {
        no_sigpipe(socket.as_fd())?;
    }
    Ok([one.into(), other.into()])
}

/// Whether a socket is connected to a peer, or to one that is gone, of which this is the address.
fn was_connected(socket: BorrowedFd<'_>, peer: io::Result<libc::sockaddr>) -> io::Result<bool> {
    match peer {
        Ok(_) => Ok(true),
        // So say the BSDs too of a socket whose peer is gone, which can still have something to read.
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            let mut byte = 0_u8;
            let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
            let place = ptr::from_mut(&mut byte).cast();
            // SAFETY: the pointer and the length are those of a byte, borrowed for writing.
            let result = unsafe { libc::recv(socket.as_raw_fd(), place, 1, flags) };
            let never = |error: io::Error| {
                matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::EINVAL))
            };
            Ok(!check(result).is_err_and(never))
        }
        // So XNU says of a socket that is shut down both ways, as when its peer is gone.
        Err(error)
            if cfg!(any(target_os = "macos", target_os = "ios"))
                && error.raw_os_error() == Some(libc::EINVAL) =>
        {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

fn is_unix(address: &libc::sockaddr) -> bool {
    c_int::from(address.sa_family) == libc::AF_UNIX
}

/// The beginning of the address that `getsockname` or `getpeername` tells.
fn address(
    socket: BorrowedFd<'_>,
    tell: unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> c_int,
) -> io::Result<libc::sockaddr> {
    // SAFETY: all fields are integers, for which zero is a valid value.
    let mut address: libc::sockaddr = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut len = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `address`, borrowed for writing; a longer
    // address is cut off.
    let result = unsafe { tell(socket.as_raw_fd(), &mut address, &mut len) };
    check(result as isize)?;
    Ok(address)
}

/// Whether the open file is set not to wait (`O_NONBLOCK`); whoever else has it can change that.
pub(crate) fn is_nonblocking(socket: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the descriptor is open, and the call takes integers.
    let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
    check(flags as isize)?;
    Ok(flags & libc::O_NONBLOCK != 0)
}

/// Has the kernel fail a send of the peer that has a descriptor (`SO_PASSRIGHTS`).
#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(any(target_arch = "sparc", target_arch = "sparc64"))
))]
pub(crate) fn refuse_descriptors(socket: BorrowedFd<'_>) -> io::Result<()> {
    const SO_PASSRIGHTS: c_int = 83;
    set_option(socket, SO_PASSRIGHTS, 0)
        // gVisor takes any option, and has only those that it tells.
        // SAFETY: `SO_PASSRIGHTS` is an integer.
        .and_then(|()| unsafe { option::<c_int>(socket, SO_PASSRIGHTS) })
        .map(drop)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => io::ErrorKind::Unsupported.into(),
            _ => error,
        })
}

#[cfg(not(all(
    any(target_os = "linux", target_os = "android"),
    not(any(target_arch = "sparc", target_arch = "sparc64"))
)))]
pub(crate) fn refuse_descriptors(_: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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
    match set_option(socket, libc::SO_NOSIGPIPE, 1) {
        // The peer is gone. A send can raise the signal then, which Rust's runtime ignores.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}

#[allow(dead_code, reason = "some systems have nothing to set")]
fn set_option(socket: BorrowedFd<'_>, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of an integer, as the option takes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            ptr::from_ref(&value).cast(),
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
pub(super) unsafe fn option<T>(socket: BorrowedFd<'_>, name: c_int) -> io::Result<T> {
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
