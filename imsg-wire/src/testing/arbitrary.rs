//! `Arbitrary` for what tests choose.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::header::{DEFAULT_MAX_LEN, Frame, HEADER_LEN, Header};
use crate::testing::{Call, Kernel};

/// One with a length that a message can have.
impl<'a> Arbitrary<'a> for Frame {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            header: u.arbitrary()?,
            len: u.int_in_range(HEADER_LEN..=DEFAULT_MAX_LEN)?,
            marked: u.arbitrary()?,
        })
    }
}

impl<'a> Arbitrary<'a> for Header {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self { msg_type: u.arbitrary()?, id: u.arbitrary()?, pid: u.arbitrary()? })
    }
}

/// Mostly of a few bytes; one in eight has no slot for a descriptor.
impl<'a> Arbitrary<'a> for Call {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let bytes = u.arbitrary::<u8>()?.into();
        Ok(Self { bytes, slots: if u.ratio(1, 8)? { 0 } else { usize::MAX } })
    }
}

impl<'a> Arbitrary<'a> for Kernel {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        u.choose(&Self::ALL).copied()
    }
}
