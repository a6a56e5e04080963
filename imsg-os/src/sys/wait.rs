//! Waiting until a socket is ready.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::c_int;

use super::check;
use super::socket::{is_nonblocking, option};

/// A time, in microseconds. (`Duration` and `Instant` can panic, and the C library then has all the code
/// that prints this.)
type Micros = u64;

/// What to wait for.
#[derive(Clone, Copy)]
pub(crate) enum Interest {
    Readable,
    Writable,
}

/// Waiting in place of a call that does not, as that call would: if the socket waits, and up to
/// the time-out that the socket has.
pub(crate) struct Instead {
    interest: Interest,
    waits: bool,
    /// When the time-out is over, by the [clock](now), once there is something to wait for.
    end: Option<Option<Micros>>,
}

impl Instead {
    pub(crate) fn new(interest: Interest, waits: bool) -> Self {
        Self { interest, waits, end: None }
    }

    /// Waits until the call is worth another try; fails with `would_block` if it is not.
    pub(crate) fn wait(
        &mut self,
        socket: BorrowedFd<'_>,
        would_block: io::Error,
    ) -> io::Result<()> {
        if !self.waits || is_nonblocking(socket)? {
            return Err(would_block);
        }
        let end = match self.end {
            Some(end) => end,
            None => *self.end.insert(end_of_timeout(socket, self.interest)?),
        };
        if wait_until(socket, self.interest, end)? { Ok(()) } else { Err(would_block) }
    }
}

/// When a call that is made now would give up: by `SO_RCVTIMEO` or `SO_SNDTIMEO`.
fn end_of_timeout(socket: BorrowedFd<'_>, interest: Interest) -> io::Result<Option<Micros>> {
    let name = match interest {
        Interest::Readable => libc::SO_RCVTIMEO,
        Interest::Writable => libc::SO_SNDTIMEO,
    };
    // SAFETY: both options are a `timeval`, of integers.
    let value: libc::timeval = unsafe { option(socket, name)? };
    let seconds = Micros::try_from(value.tv_sec).unwrap_or(0);
    let timeout = micros(seconds, Micros::try_from(value.tv_usec).unwrap_or(0));
    // Zero is none; so is one that the clock cannot count.
    Ok(if timeout == 0 { None } else { now()?.checked_add(timeout) })
}

fn micros(seconds: u64, micros: u64) -> Micros {
    seconds.saturating_mul(SECOND).saturating_add(micros)
}

const SECOND: Micros = 1_000_000;

/// What the clock says that nobody sets.
fn now() -> io::Result<Micros> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the time.
    check(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) } as isize)?;
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Ok(micros(seconds, u64::try_from(now.tv_nsec).unwrap_or(0) / 1000))
}

/// `poll` does not tell when the peer shuts its reading side down (`SHUT_RD`), and sending fails then:
/// so it is tried again after this time.
const TRY_AGAIN: Micros = SECOND;

/// Waits until a socket is ready, is closed or has failed, or until it is worth a try.
pub(crate) fn wait(socket: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
    wait_until(socket, interest, None).map(drop)
}

/// As [`wait`], but says `false` when the time is over.
fn wait_until(socket: BorrowedFd<'_>, interest: Interest, end: Option<Micros>) -> io::Result<bool> {
    let patience = match interest {
        Interest::Readable => None,
        Interest::Writable => Some(TRY_AGAIN),
    };
    loop {
        let left = match end {
            Some(end) => Some(end.saturating_sub(now()?)),
            None => None,
        };
        let last = left.is_some_and(|left| patience.is_none_or(|patience| left <= patience));
        let time = if last { left } else { patience };
        let ready = match poll(socket, interest, time) {
            // More descriptors than `RLIMIT_NOFILE`, where that is 0: one is too many.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                select(socket, interest, time)
            }
            ready => ready,
        };
        match ready {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            ready => return Ok(ready? || !last),
        }
    }
}

/// Whether a socket takes something now.
pub(super) fn is_writable(socket: BorrowedFd<'_>) -> io::Result<bool> {
    poll(socket, Interest::Writable, Some(0))
}

fn poll(socket: BorrowedFd<'_>, interest: Interest, time: Option<Micros>) -> io::Result<bool> {
    let events = match interest {
        Interest::Readable => libc::POLLIN,
        Interest::Writable => libc::POLLOUT,
    };
    // A part of a millisecond counts as a whole one, as zero would not wait.
    let millis = time.map(|time| time.div_ceil(1000));
    poll_all(&mut [libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 }], millis)
}

/// Waits until one of these is ready, for so many milliseconds, or without a limit. Whether one is.
pub(crate) fn poll_all(fds: &mut [libc::pollfd], millis: Option<u64>) -> io::Result<bool> {
    let timeout = millis.map_or(-1, |millis| c_int::try_from(millis).unwrap_or(c_int::MAX));
    let len = libc::nfds_t::try_from(fds.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: there are so many `pollfd`, and they are borrowed for writing.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), len, timeout) };
    Ok(check(ready as isize)? > 0)
}

/// As [`poll`], where that cannot be called: the limit does not count here.
fn select(socket: BorrowedFd<'_>, interest: Interest, time: Option<Micros>) -> io::Result<bool> {
    let number = socket.as_raw_fd();
    if usize::try_from(number).map_or(true, |number| number >= libc::FD_SETSIZE) {
        // The limit of descriptors (`RLIMIT_NOFILE`) forbids to wait for this one. (A text of our own
        // would take memory, and the code that prints that there is none.)
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: a set is an array of integers, for which zero is a valid value: it is empty.
    let mut set: libc::fd_set = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the set is borrowed for writing, and the number is less than `FD_SETSIZE`.
    unsafe { libc::FD_SET(number, &mut set) };
    let (mut readable, mut writable) = (ptr::null_mut(), ptr::null_mut());
    match interest {
        Interest::Readable => readable = &raw mut set,
        Interest::Writable => writable = &raw mut set,
    }
    let mut timeout = time.map(|time| libc::timeval {
        tv_sec: (time / SECOND).try_into().unwrap_or(libc::time_t::MAX),
        tv_usec: (time % SECOND) as _,
    });
    let timeout = timeout.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: each pointer is null, or that of a value that outlives the call.
    let ready = unsafe { libc::select(number + 1, readable, writable, ptr::null_mut(), timeout) };
    Ok(check(ready as isize)? > 0)
}
