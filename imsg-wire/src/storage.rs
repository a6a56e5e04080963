//! Where the bytes of a buffer are kept: memory of the caller's.

use core::ops::Range;

use zerocopy::IntoBytes;

/// Memory that a buffer works in: an array, a `&mut [u8]`, a `Box<[u8]>`, or anything else that
/// lends its bytes.
///
/// A storage is expected to keep its length, unless it is asked to [grow](Storage::grow) or
/// [shrink](Storage::shrink); messages are lost in one that does not, but nothing panics.
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

    /// The most bytes that it can have: more than it has, in one that can [grow](Storage::grow).
    fn most(&self) -> usize {
        self.bytes().len()
    }

    /// Has it grow to `len` bytes at least, and keeps those that it has; says `false`, and changes
    /// nothing, when it cannot.
    ///
    /// A [`RecvBuf`](crate::RecvBuf) asks for this while a message arrives that does not fit.
    fn grow(&mut self, len: usize) -> bool {
        let _ = len;
        false
    }

    /// Says that nothing is kept in it now, so that it may give up what it has grown by.
    fn shrink(&mut self) {}
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

/// Moves the bytes of `range` to the front. The range lies within `bytes`.
//
// `copy_within` checks the range once more, in a function of its own when the compiler optimises for
// size, and so keeps a panic.
pub(crate) fn move_to_front(bytes: &mut [u8], range: Range<usize>) {
    if range.len() > range.start {
        return move_down(bytes, range);
    }
    if let Some((front, back)) = bytes.split_at_mut_checked(range.start) {
        // It fits, as it does not overlap its place.
        let _ = back.get(..range.len()).map(|moved| moved.write_to_prefix(front));
    }
}

/// As [`move_to_front`], of a range that overlaps its place.
fn move_down(bytes: &mut [u8], mut range: Range<usize>) {
    let mut to = 0;
    move_blocks::<64>(bytes, &mut to, &mut range);
    move_blocks::<8>(bytes, &mut to, &mut range);
    move_blocks::<1>(bytes, &mut to, &mut range);
}

/// Moves as many blocks of `N` bytes as there are in `range`. Each is read before it is written, so
/// that it may overlap its place.
fn move_blocks<const N: usize>(bytes: &mut [u8], to: &mut usize, range: &mut Range<usize>) {
    while let Some(&block) = bytes.get(range.clone()).and_then(|rest| rest.first_chunk::<N>()) {
        if let Some(place) = bytes.get_mut(*to..).and_then(|rest| rest.first_chunk_mut()) {
            *place = block;
        }
        *to = to.saturating_add(N);
        range.start = range.start.saturating_add(N);
    }
}

#[cfg(test)]
mod tests {
    use super::move_to_front;

    #[test]
    fn a_range_arrives_at_the_front_whether_it_overlaps_that_or_not() {
        // Miri takes milliseconds for each.
        let step = if cfg!(miri) { 13 } else { 1 };
        let bytes: [u8; 200] = core::array::from_fn(|at| at as u8);
        for start in (0..=bytes.len()).step_by(step) {
            for end in (start..=bytes.len()).step_by(step) {
                let mut moved = bytes;
                move_to_front(&mut moved, start..end);
                let (front, behind) = moved.split_at(end - start);
                assert_eq!(front, &bytes[start..end], "{start}..{end}");
                assert!(behind[start..] == bytes[end..], "{start}..{end}");
            }
        }
    }
}
