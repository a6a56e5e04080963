//! Errors as C has them: a number in `errno`, and a result that says to look there.

use std::io;

use libc::c_int;

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

impl Errno {
    /// What the last call of the C library left.
    pub(crate) fn last() -> Self {
        // SAFETY: the place belongs to this thread.
        Self(unsafe { *place() })
    }

    pub(crate) fn set(self) {
        // SAFETY: as above.
        unsafe { *place() = self.0 };
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(match error.kind() {
            io::ErrorKind::WouldBlock => libc::EAGAIN,
            _ => libc::EIO,
        }))
    }
}

/// What a C function returns: the result, or `failed`, with the reason in `errno`.
pub(crate) trait Answer<T> {
    fn answer(self, failed: T) -> T;
}

impl<T> Answer<T> for Result<T, Errno> {
    fn answer(self, failed: T) -> T {
        self.unwrap_or_else(|error| {
            error.set();
            failed
        })
    }
}

/// 0, or -1 and the reason in `errno`.
pub(crate) fn status(result: Result<(), Errno>) -> c_int {
    result.map(|()| 0).answer(-1)
}

fn place() -> *mut c_int {
    // SAFETY: these take nothing, and give a place that is there as long as the thread.
    unsafe {
        #[cfg(any(target_os = "linux", target_os = "dragonfly"))]
        return libc::__errno_location();
        #[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
        return libc::__error();
        #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
        return libc::__errno();
    }
}
