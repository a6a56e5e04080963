//! Where the bytes of a buffer are kept: memory of the caller's.

use core::ops::Range;

/// Memory that a buffer works in: an array, a `&mut [u8]`, a `Box<[u8]>`, or anything else that
/// lends its bytes.
///
/// A storage is expected to keep its length; messages are lost in one that does not, but nothing
/// panics.
///
/// Types that are both `AsRef<[u8]>` and `AsMut<[u8]>` are storages that do nothing about what is
/// [released](Storage::release).
pub trait Storage {
    /// All bytes of the storage.
    fn bytes(&self) -> &[u8];

    /// All bytes of the storage.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Says that the bytes of a range are not needed any more: they were consumed, moved
    /// elsewhere, or given up. The range lies within the storage, and may be empty.
    fn release(&mut self, range: Range<usize>) {
        let _ = range;
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]> + ?Sized> Storage for T {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.as_mut()
    }
}
