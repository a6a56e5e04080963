//! Memory that the kernel maps.

use std::io;
use std::ptr::{self, NonNull};
use std::slice;

/// Memory of the kernel's, as a storage for a channel: zeros, and resident only as far as it was
/// written to, a page at a time. So a channel that is idle has the buffers of a busy one and costs
/// little memory.
///
/// ```
/// use imsg_os::{Channel, Modern, Pages};
/// use std::os::unix::net::UnixStream;
///
/// const LARGEST: usize = 1 << 20;
/// let (socket, _peer) = UnixStream::pair()?;
/// let [received, queued] = [Pages::new(LARGEST)?, Pages::new(LARGEST)?];
/// let mut channel = Channel::with_storage(socket, Modern::new(), received, queued)?;
/// channel.rx.set_max_len(LARGEST)?;
/// channel.tx.set_max_len(LARGEST)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// (A boxed slice of zeros may be resident from the start, as an allocator that used the memory before
/// has to overwrite it.)
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is owned by this value alone, and is shared as it is.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `len` bytes.
    ///
    /// # Errors
    ///
    /// What the system says: `ENOMEM` when there is no room, `EINVAL` when `len` is 0.
    pub fn new(len: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsRef<[u8]> for Pages {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped at `start` until this is dropped. They are zeros, or were
        // written since, and nobody else has a pointer to them.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsMut<[u8]> for Pages {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_ref`; this is borrowed mutably, so that no other reference is there.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is that of `new`, and no reference to it outlives this value.
        let unmapped = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert_eq!(unmapped, 0, "the kernel takes back what it gave");
    }
}
