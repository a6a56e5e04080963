//! Memory of C's `malloc`.

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

use imsg_wire::Storage;
use libc::{c_int, c_void};

use crate::errno::Errno;

const NO_MEMORY: Errno = Errno(libc::ENOMEM);

/// Memory of `len` bytes, of any content; to be given to [`free`].
pub(crate) fn allocate(len: usize) -> Result<NonNull<u8>, Errno> {
    // SAFETY: `malloc` takes any length. Of none, it may give no memory.
    NonNull::new(unsafe { libc::malloc(len.max(1)) }.cast()).ok_or(NO_MEMORY)
}

/// Memory of `len` zeros; to be given to [`free`].
pub(crate) fn allocate_zeroed(len: usize) -> Result<NonNull<u8>, Errno> {
    // SAFETY: `calloc` takes any lengths.
    NonNull::new(unsafe { libc::calloc(1, len.max(1)) }.cast()).ok_or(NO_MEMORY)
}

/// Puts a value into memory of its own; to be given to [`free`].
pub(crate) fn put<T>(value: T) -> Result<NonNull<T>, Errno> {
    let place = allocate(size_of::<T>())?.cast::<T>();
    // SAFETY: `malloc` gave room for it, aligned for all types.
    unsafe { place.write(value) };
    Ok(place)
}

/// # Safety
///
/// The memory is of this module, or of C's `malloc`, and nothing uses it any more.
pub(crate) unsafe fn free(memory: NonNull<u8>) {
    // SAFETY: so the caller promises.
    unsafe { libc::free(memory.as_ptr().cast()) };
}

/// What [`free_later`] was given last.
static LATER: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// Frees memory, but no sooner than this or [`free_kept`] is called again; so that of one call is kept
/// at a time.
///
/// It is for the last buffer of a queue that was sent, which mostly lies behind all others. With its
/// end in use, glibc keeps the heap. Else, each time that 128 KiB were queued and sent, it gives them
/// back to the kernel, which maps them anew for the next messages; that costs more than these do.
///
/// # Safety
///
/// As of [`free`].
pub(crate) unsafe fn free_later(memory: NonNull<u8>) {
    free_kept();
    let before = LATER.swap(memory.as_ptr(), Ordering::AcqRel);
    if let Some(before) = NonNull::new(before) {
        // SAFETY: another thread was given it, in between.
        unsafe { free(before) };
    }
}

/// Frees what is kept.
pub(crate) fn free_kept() {
    if LATER.load(Ordering::Relaxed).is_null() {
        return;
    }
    if let Some(kept) = NonNull::new(LATER.swap(ptr::null_mut(), Ordering::AcqRel)) {
        // SAFETY: so the caller of `free_later` promised, and nobody else has it now.
        unsafe { free(kept) };
    }
}

/// Overwrites with zeros, in a way that the compiler cannot remove.
///
/// # Safety
///
/// The bytes may be written to.
pub(crate) unsafe fn wipe(bytes: *mut u8, len: usize) {
    type Fill = unsafe extern "C" fn(*mut c_void, c_int, usize) -> *mut c_void;
    static FILL: Fill = libc::memset;
    if len > 0 {
        // SAFETY: it is there; as far as the compiler knows, it may be anything by now, which may
        // look at what was written.
        let fill = unsafe { ptr::read_volatile(&raw const FILL) };
        // SAFETY: the caller promises that the bytes may be written to.
        unsafe { fill(bytes.cast(), 0, len) };
    }
}

/// How large the memory of a receive buffer may stay, once it has grown for a message: a peer that
/// sends one long message does not hold as much for good, and one that sends many of medium length
/// does not cost an allocation each.
const KEPT: usize = 256 * 1024;

/// The memory that a receive buffer works in. It is wiped before it is given back.
pub(crate) struct Memory {
    bytes: NonNull<u8>,
    len: usize,
    /// How many it had first.
    first: usize,
    /// Whether it is of `malloc`: so it can grow, and is to be freed.
    owned: bool,
}

impl Memory {
    pub(crate) fn new(len: usize) -> Result<Self, Errno> {
        Ok(Self { bytes: allocate_zeroed(len)?, len, first: len, owned: true })
    }

    /// How many bytes it has, if it is of `malloc` and so large that it is not
    /// [kept](Storage::shrink).
    #[inline]
    pub(crate) fn len_of_large(&self) -> Option<usize> {
        (self.owned && self.len > KEPT.max(self.first)).then_some(self.len)
    }

    /// As many bytes as this had first.
    pub(crate) fn another(&self) -> Result<Self, Errno> {
        Self::new(self.first)
    }

    /// The memory, which is the caller's to wipe and to free, if it was of `malloc`.
    pub(crate) fn into_raw(self) -> (NonNull<u8>, usize) {
        let Self { bytes, len, .. } = *ManuallyDrop::new(self);
        (bytes, len)
    }

    /// Has as many bytes as first, if there is memory for them. All are zeros then.
    #[cold]
    fn start_over(&mut self) {
        if let Ok(another) = self.another() {
            *self = another;
        }
    }

    /// Over memory of the caller's, which stays as long as it is.
    ///
    /// # Safety
    ///
    /// The bytes are initialized, and nothing else uses them while this is there.
    pub(crate) unsafe fn over(bytes: NonNull<u8>, len: usize) -> Self {
        Self { bytes, len, first: len, owned: false }
    }
}

impl Storage for Memory {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes are initialized, and there as long as this.
        unsafe { slice::from_raw_parts(self.bytes.as_ptr(), self.len) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nothing else uses them.
        unsafe { slice::from_raw_parts_mut(self.bytes.as_ptr(), self.len) }
    }

    fn most(&self) -> usize {
        if self.owned { isize::MAX.unsigned_abs() } else { self.len }
    }

    #[cold]
    fn grow(&mut self, len: usize) -> bool {
        if len <= self.len {
            return true;
        }
        // Not by `realloc`, which leaves a copy behind that nobody wipes.
        let Some(mut larger) = Some(len).filter(|_| self.owned).and_then(|len| Self::new(len).ok())
        else {
            return false;
        };
        let (kept, _) = larger.bytes_mut().split_at_mut(self.len);
        kept.copy_from_slice(self.bytes());
        larger.first = self.first;
        *self = larger;
        true
    }

    fn shrink(&mut self) {
        if self.len_of_large().is_some() {
            self.start_over();
        }
    }
}

impl Drop for Memory {
    #[inline(never)]
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: it is of this module, and not used any more.
            unsafe {
                wipe(self.bytes.as_ptr(), self.len);
                free(self.bytes);
            }
        }
    }
}
