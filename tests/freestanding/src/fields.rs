//! A format of `serde` that has what a header is made of: structs, numbers and truth values.

use core::fmt::{self, Write};

use serde::ser::{Impossible, Serialize, SerializeStruct, Serializer};

/// Writes each number and truth value, and a space behind it.
pub struct Fields<'a, W>(pub &'a mut W);

macro_rules! written {
    ($($name:ident($type:ty);)*) => {$(
        fn $name(self, value: $type) -> fmt::Result {
            write!(self.0, "{value} ")
        }
    )*};
}

macro_rules! refused {
    ($($name:ident($($type:ty),*) -> $result:ty;)*) => {$(
        fn $name(self, $(_: $type),*) -> Result<$result, fmt::Error> {
            Err(fmt::Error)
        }
    )*};
}

type Name = &'static str;

impl<W: Write> Serializer for Fields<'_, W> {
    type Error = fmt::Error;
    type Ok = ();
    type SerializeMap = Impossible<(), fmt::Error>;
    type SerializeSeq = Impossible<(), fmt::Error>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), fmt::Error>;
    type SerializeTuple = Impossible<(), fmt::Error>;
    type SerializeTupleStruct = Impossible<(), fmt::Error>;
    type SerializeTupleVariant = Impossible<(), fmt::Error>;

    written! {
        serialize_bool(bool);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
    }

    refused! {
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(Name) -> ();
        serialize_unit_variant(Name, u32, Name) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(Name, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(Name, u32, Name, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct_variant(Name, u32, Name, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> fmt::Result {
        Err(fmt::Error)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: Name, _: &T) -> fmt::Result {
        Err(fmt::Error)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: Name,
        _: u32,
        _: Name,
        _: &T,
    ) -> fmt::Result {
        Err(fmt::Error)
    }

    fn serialize_struct(self, _: Name, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> fmt::Result {
        Err(fmt::Error)
    }
}

impl<W: Write> SerializeStruct for Fields<'_, W> {
    type Error = fmt::Error;
    type Ok = ();

    fn serialize_field<T: Serialize + ?Sized>(&mut self, _: Name, value: &T) -> fmt::Result {
        value.serialize(Fields(self.0))
    }

    fn end(self) -> fmt::Result {
        Ok(())
    }
}
