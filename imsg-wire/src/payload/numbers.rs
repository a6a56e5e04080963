//! Numbers in a payload: the same functions for each of their kinds.

use super::reader::Reader;
use super::writer::Writer;
use crate::error::{ReadError, WriteError};

macro_rules! numbers {
    ($($int:ident $get:ident $add:ident $set:ident $from:ident $to:ident $order:literal;)*) => {
        impl Reader<'_> {$(
            #[doc = concat!("Reads a number in ", $order, " (`ibuf_", stringify!($get), "`).")]
            ///
            /// # Errors
            ///
            /// [`ReadError::Short`] when there are not enough bytes.
            #[inline]
            pub fn $get(&mut self) -> Result<$int, ReadError> {
                self.get_value().map($int::$from)
            }
        )*}

        impl<P> Writer<'_, P> {$(
            #[doc = concat!("Appends a number in ", $order, " (`ibuf_", stringify!($add), "`).")]
            ///
            /// # Errors
            ///
            /// As [`add`](Writer::add).
            #[inline]
            pub fn $add(&mut self, value: $int) -> Result<(), WriteError> {
                self.add(&value.$to())
            }
        )*

        $(
            #[doc = concat!(
                "Overwrites a number in ", $order, ", `offset` bytes from the start (`ibuf_",
                stringify!($set), "`)."
            )]
            ///
            /// # Errors
            ///
            /// As [`set`](Writer::set).
            #[inline]
            pub fn $set(&mut self, offset: usize, value: $int) -> Result<(), WriteError> {
                self.set(offset, &value.$to())
            }
        )*}
    };
}

numbers! {
    u8 get_n8 add_n8 set_n8 from_be_bytes to_be_bytes "a byte";
    u16 get_n16 add_n16 set_n16 from_be_bytes to_be_bytes "network order";
    u32 get_n32 add_n32 set_n32 from_be_bytes to_be_bytes "network order";
    u64 get_n64 add_n64 set_n64 from_be_bytes to_be_bytes "network order";
    u16 get_h16 add_h16 set_h16 from_ne_bytes to_ne_bytes "host order";
    u32 get_h32 add_h32 set_h32 from_ne_bytes to_ne_bytes "host order";
    u64 get_h64 add_h64 set_h64 from_ne_bytes to_ne_bytes "host order";
}
