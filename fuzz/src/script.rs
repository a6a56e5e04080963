//! What the scripts of several targets are made of.

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use imsg_wire::{Any, Endian};

/// The steps that the rest of the input makes, `most` at most.
///
/// A `Vec` would ask before each step whether it is the last one, so that random inputs make
/// scripts of one or two steps.
pub(crate) fn rest<'a, T: Arbitrary<'a>>(u: &mut Unstructured<'a>, most: usize) -> Result<Vec<T>> {
    let mut steps = Vec::new();
    while !u.is_empty() && steps.len() < most {
        steps.push(u.arbitrary()?);
    }
    Ok(steps)
}

/// Bytes, `most` at most.
pub(crate) fn bytes<'a>(u: &mut Unstructured<'a>, most: usize) -> Result<&'a [u8]> {
    let len = u.int_in_range(0..=most)?;
    u.bytes(len.min(u.len()))
}

pub(crate) fn dialect(u: &mut Unstructured<'_>) -> Result<Any> {
    let endian = if u.arbitrary()? { Endian::Big } else { Endian::Little };
    Ok(if u.arbitrary()? { Any::Modern(endian) } else { Any::Classic(endian) })
}

/// The bytes of a stream at most: two of the largest classic messages.
pub(crate) const MOST: usize = 1 << 17;

/// What is in the payload of a message at `offset`. It tells where in the stream it belongs, and
/// has no zeros, as those are what is left of bytes that are wiped.
pub(crate) fn content(offset: usize, len: usize) -> &'static [u8] {
    static CONTENT: LazyLock<Vec<u8>> =
        LazyLock::new(|| (1..=u8::MAX).cycle().take(MOST + 0xff).collect());
    &CONTENT[offset % 0xff..][..len]
}
