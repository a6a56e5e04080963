//! Where the bytes of a buffer are kept: memory of the caller's.

/// Memory that a buffer works in: an array, a `&mut [u8]`, a `Box<[u8]>`, or anything else that
/// lends its bytes.
///
/// A storage is expected to keep its length; one that does not makes messages fail, but nothing
/// panics.
pub trait Storage {
    /// All bytes of the storage.
    fn bytes(&self) -> &[u8];

    /// All bytes of the storage.
    fn bytes_mut(&mut self) -> &mut [u8];
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
