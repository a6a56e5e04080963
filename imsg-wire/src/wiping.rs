//! A storage that keeps no secrets.

use core::fmt;
use core::ops::Range;

use zeroize::Zeroize;

use crate::storage::Storage;

/// A storage that overwrites with zeros what its buffer does not need any more, in a way that
/// the compiler cannot remove, and all of it when it is dropped.
///
/// In a [`RecvBuf`](crate::RecvBuf), the bytes of messages that were taken are overwritten
/// before the next read, as messages may be borrowed until then; in a
/// [`SendBuf`](crate::SendBuf), bytes are overwritten when the kernel took them, and those of
/// a message in place that was given up before the next message is composed.
///
/// Each byte is written once more than without it; a message that is created in place and
/// given up costs as many as the largest message has.
///
/// Moving an inline array leaves a copy behind that nothing overwrites. So borrow or box it:
///
/// ```
/// use imsg_wire::{Ancillary, Modern, RecvBuf, Wiping};
///
/// let mut memory = [0; 64];
/// let mut buf = RecvBuf::new(Modern::new(), Wiping::new(&mut memory[..]));
/// let spare = buf.spare()?;
/// spare[4] = 16 + 6; // on a little-endian machine
/// spare[16..][..6].copy_from_slice(b"secret");
/// buf.commit(16 + 6, Ancillary::Nothing)?;
/// drop(buf);
/// assert_eq!(memory, [0; 64]);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Wiping<S: Storage>(S);

impl<S: Storage> Wiping<S> {
    /// Wipes what is released of `storage`.
    pub fn new(storage: S) -> Self {
        Self(storage)
    }
}

impl<S: Storage> Storage for Wiping<S> {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    fn release(&mut self, range: Range<usize>) {
        if let Some(bytes) = self.0.bytes_mut().get_mut(range.clone()) {
            bytes.zeroize();
        }
        self.0.release(range);
    }
}

impl<S: Storage> Drop for Wiping<S> {
    fn drop(&mut self) {
        self.0.bytes_mut().zeroize();
    }
}

impl<S: Storage> fmt::Debug for Wiping<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiping").field("bytes", &self.0.bytes().len()).finish_non_exhaustive()
    }
}
