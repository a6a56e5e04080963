//! What counts what follows it.

use zerocopy::{ByteOrder, FromBytes, Immutable, IntoBytes, U16, U32, U64};

/// A number that says how many bytes or elements follow it: one of the host's order, or one of
/// [`zerocopy::byteorder`].
pub trait Count: FromBytes + IntoBytes + Immutable + Sized {
    /// The number, if it can be that large.
    fn of(count: usize) -> Option<Self>;

    /// The number; at most `usize::MAX`, which no payload has.
    fn get(&self) -> usize;
}

macro_rules! counts {
    ($([$($order:ident)?] $count:ty, $int:ident;)*) => {$(
        impl $(<$order: ByteOrder>)? Count for $count {
            #[inline]
            fn of(count: usize) -> Option<Self> {
                $int::try_from(count).ok().map(Self::from)
            }

            #[inline]
            fn get(&self) -> usize {
                usize::try_from($int::from(*self)).unwrap_or(usize::MAX)
            }
        }
    )*};
}

counts! {
    [] u8, u8;
    [] u16, u16;
    [] u32, u32;
    [] u64, u64;
    [] usize, usize;
    [O] U16<O>, u16;
    [O] U32<O>, u32;
    [O] U64<O>, u64;
}
