//! Looking ahead, which shows descriptors on Linux only.

use std::hint;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use imsg_wire::Ancillary;
use libc::c_void;

use super::recv::recv_into;

/// Looks ahead in the receive queue of a socket, and never waits.
///
/// A look that is filled with bytes goes on, without bytes, until it finds a descriptor, so it does
/// not say whether that is among the bytes. But a look which comes to memory that cannot be
/// written to shows whole buffers of the kernel only, and a descriptor arrives with the first byte
/// of a buffer: so two of these find out where the bytes before it end.
#[derive(Debug)]
pub(crate) struct Look {
    /// Cannot be written to.
    wall: NonNull<c_void>,
}

// SAFETY: nothing reads or writes what it points to, and any thread may unmap it.
unsafe impl Send for Look {}
// SAFETY: as above.
unsafe impl Sync for Look {}

/// One byte is enough for the wall, and what is mapped is at least a page.
const WALL: usize = 1;

/// The kernel makes no larger buffer for a Unix stream socket: 48 KiB with pages of 4 KiB, and 80
/// with pages of 64.
const LARGEST_BUFFER: usize = 128 * 1024;

/// What `recvmsg` takes at most (`UIO_MAXIOV`).
const MOST_PLACES: usize = 1024;

impl Look {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: this maps new memory, and changes none that is mapped.
        let wall = unsafe { libc::mmap(ptr::null_mut(), WALL, libc::PROT_NONE, flags, -1, 0) };
        match NonNull::new(wall) {
            Some(wall) if wall.as_ptr() != libc::MAP_FAILED => Ok(Self { wall }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What a read would bring, and whether a descriptor comes with it or, if `buf` is filled,
    /// behind it. Descriptors that are seen are installed, as if they were received.
    pub(crate) fn ahead(
        &self,
        socket: BorrowedFd<'_>,
        buf: &mut [u8],
    ) -> io::Result<(usize, Ancillary<OwnedFd>)> {
        let mut place = [libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() }];
        // SAFETY: this is `buf`, which is borrowed for writing.
        unsafe { recv_into(socket, &mut place, libc::MSG_PEEK | libc::MSG_DONTWAIT) }
    }

    /// How many bytes can be read before the next descriptor arrives; 0 also if that cannot be told.
    /// `buf` is overwritten.
    pub(crate) fn before_descriptor(&self, socket: BorrowedFd<'_>, buf: &mut [u8]) -> usize {
        // A short place would be used more often than one call has places.
        let mut own = [0; 512];
        let buf = if buf.len() < own.len() { &mut own[..] } else { buf };
        let before = match self.whole_buffers(socket, buf, LARGEST_BUFFER) {
            Ok((n, Ancillary::Nothing)) => n,
            // The last of these buffers has it. Without its last byte, those before it are left.
            Ok((n, _)) => match self.whole_buffers(socket, buf, n.saturating_sub(1)) {
                Ok((n, Ancillary::Nothing)) => n,
                _ => 0,
            },
            // As always on gVisor, whose looks show no more than one buffer anyway.
            Err(_) => 0,
        };
        // What was only seen must not linger.
        own.fill(0);
        hint::black_box(&own);
        before
    }

    /// Looks at those buffers of the kernel that lie wholly in the next `len` bytes, or at none if
    /// `buf` is so short that it cannot hold so many, being used again and again.
    fn whole_buffers(
        &self,
        socket: BorrowedFd<'_>,
        buf: &mut [u8],
        len: usize,
    ) -> io::Result<(usize, Ancillary<OwnedFd>)> {
        let wall = libc::iovec { iov_base: self.wall.as_ptr(), iov_len: WALL };
        let mut places = [wall; MOST_PLACES];
        let (mut left, mut used) = (len, 0);
        for place in &mut places[..MOST_PLACES - 1] {
            if left == 0 {
                break;
            }
            let len = left.min(buf.len());
            *place = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: len };
            left -= len;
            used += 1;
        }
        if left > 0 {
            return Ok((0, Ancillary::Dropped));
        }
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: all are `buf`, which is borrowed for writing, and behind them is the wall, which
        // cannot be written to.
        unsafe { recv_into(socket, &mut places[..=used], flags) }
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        // SAFETY: this was mapped by `new`, and nothing points to it any more.
        unsafe { libc::munmap(self.wall.as_ptr(), WALL) };
    }
}
