//! The dialects of the two interfaces.

use imsg_wire::{Classic, Dialect, Frame, HEADER_LEN, Modern, Pairing};

/// One of the two, in the byte order of this machine. (`imsg_wire::Any` has the other order too,
/// and each use of it twice the code.)
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Native {
    Classic,
    Modern,
}

impl Dialect for Native {
    type Raw = [u8; HEADER_LEN];

    #[inline]
    fn decode(&self, raw: &Self::Raw) -> Frame {
        match self {
            Self::Classic => Classic::new().decode(raw),
            Self::Modern => Modern::new().decode(raw),
        }
    }

    #[inline]
    fn encode(&self, frame: &Frame) -> Self::Raw {
        match self {
            Self::Classic => Classic::new().encode(frame),
            Self::Modern => Modern::new().encode(frame),
        }
    }

    #[inline]
    fn max_len(&self) -> usize {
        match self {
            Self::Classic => Classic::new().max_len(),
            Self::Modern => Modern::new().max_len(),
        }
    }

    fn pairing(&self) -> Pairing {
        match self {
            Self::Classic => Classic::new().pairing(),
            Self::Modern => Modern::new().pairing(),
        }
    }
}
