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
///
/// What is dropped is the kernel's again. But on Linux, up to 16 of the 64 KiB that
/// [`Channel::new`](crate::Channel::new) takes are kept for the next ones, with 4 KiB of zeros
/// resident in each: to have the kernel map a page, and take it back, costs more than all that a short
/// connection does besides. That is done by `madvise`: a filter for system calls has to let it pass, or
/// refuse it with an error. What a program has set for such memory by calls of its own, as that it is
/// not inherited, it undoes before the drop.
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
        if len == kept::LEN
            && let Some(start) = kept::take()
        {
            return Ok(Self { start, len });
        }
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
        // SAFETY: the mapping is that of `new`, of this length, and no reference to it outlives this
        // value, which does not touch it again if it is kept.
        if self.len == kept::LEN && unsafe { kept::keep(self.start) } {
            return;
        }
        // SAFETY: the mapping is that of `new`, and no reference to it outlives this value.
        let unmapped = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert_eq!(unmapped, 0, "the kernel takes back what it gave");
    }
}

/// Mappings that were dropped, as if they were new.
///
/// No lock is taken, so that a thread that is in here when the process forks leaves nothing behind in
/// the child; and what is kept is private memory, of which each of the two has its own from then on.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod kept {
    use std::ptr::{self, NonNull};
    use std::sync::atomic::{AtomicPtr, Ordering};

    use imsg_wire::DEFAULT_MAX_LEN;

    /// The length of each.
    pub(super) const LEN: usize = 4 * DEFAULT_MAX_LEN;

    /// How much of each stays resident: a page, where it is of the usual size.
    const RESIDENT: usize = 4096;

    static KEPT: [AtomicPtr<u8>; 16] = [const { AtomicPtr::new(ptr::null_mut()) }; 16];

    /// One that nobody else has now.
    pub(super) fn take() -> Option<NonNull<u8>> {
        KEPT.iter().filter(|place| !is_free(place)).find_map(|place| {
            // What was written to it before is seen.
            NonNull::new(place.swap(ptr::null_mut(), Ordering::Acquire))
        })
    }

    /// Has it be all zeros, and keeps it. Says `false`, and it stays the caller's, if there is no place
    /// for it, or if the kernel does not take back what is in it, as of memory that is locked.
    ///
    /// # Safety
    ///
    /// It is a private mapping of `LEN` bytes, of no file, that can be written to and that nothing else
    /// refers to; and the caller forgets it if it is kept.
    pub(super) unsafe fn keep(start: NonNull<u8>) -> bool {
        if !KEPT.iter().any(is_free) {
            return false;
        }
        // SAFETY: it lies within the mapping, whose pages read as zeros afterwards, and nothing refers
        // to them.
        let taken_back = unsafe {
            libc::madvise(start.add(RESIDENT).as_ptr().cast(), LEN - RESIDENT, libc::MADV_DONTNEED)
        };
        if taken_back != 0 {
            return false;
        }
        // SAFETY: as above; the mapping can be written to.
        unsafe { start.write_bytes(0, RESIDENT) };
        KEPT.iter().filter(|place| is_free(place)).any(|place| {
            let free = ptr::null_mut();
            let order = (Ordering::Release, Ordering::Relaxed);
            place.compare_exchange(free, start.as_ptr(), order.0, order.1).is_ok()
        })
    }

    fn is_free(place: &AtomicPtr<u8>) -> bool {
        place.load(Ordering::Relaxed).is_null()
    }
}

/// Elsewhere, nothing has a mapping be zeros again and is known to be cheaper than a new one.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kept {
    use std::ptr::NonNull;

    /// Of no mapping.
    pub(super) const LEN: usize = 0;

    pub(super) fn take() -> Option<NonNull<u8>> {
        None
    }

    pub(super) unsafe fn keep(_: NonNull<u8>) -> bool {
        false
    }
}
