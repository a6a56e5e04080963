//! How fields stand in a payload.

use core::ffi::CStr;
use core::marker::PhantomData;

use zerocopy::{
    BE, FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes, U16, U32, U64, Unaligned,
};

use crate::error::{ReadError, WriteError};
use crate::payload::{Count, Reader, Writer};

/// How a value of type `T` stands in a payload: what follows `as` in
/// [`protocol!`](crate::protocol!).
///
/// A program adds its own by implementing this for a type of its own:
///
/// ```
/// use imsg_wire::typed::Encoding;
/// use imsg_wire::{ReadError, Reader, WriteError, Writer};
///
/// /// A field that old peers leave out. It can only be the last one.
/// enum Late {}
///
/// impl<'a> Encoding<'a, Option<u32>> for Late {
///     const TAKES_REST: bool = true;
///
///     fn len(value: &Option<u32>) -> usize {
///         if value.is_some() { size_of::<u32>() } else { 0 }
///     }
///
///     fn write<P>(value: &Option<u32>, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
///         value.map_or(Ok(()), |value| writer.add_h32(value))
///     }
///
///     fn read(reader: &mut Reader<'a>) -> Result<Option<u32>, ReadError> {
///         if reader.remaining() == 0 { Ok(None) } else { reader.get_h32().map(Some) }
///     }
/// }
///
/// imsg_wire::protocol! {
///     enum Request {
///         1 => Open { flags: u32, mode: Option<u32> as Late },
///     }
/// }
/// # use imsg_wire::{Descriptor, Header, Message};
/// # let message: Message<'_> =
/// #     Message { header: Header::new(1), payload: &[0; 4], descriptor: Descriptor::None };
/// # assert!(matches!(Request::try_from(message), Ok(Request::Open { flags: 0, mode: None })));
/// # let message: Message<'_> =
/// #     Message { header: Header::new(1), payload: &[0; 5], descriptor: Descriptor::None };
/// # assert!(Request::try_from(message).is_err());
/// ```
#[diagnostic::on_unimplemented(
    message = "a field of type `{T}` cannot be encoded as `{Self}`",
    note = "the encodings, and the types that each takes, are on the page of `imsg_wire::typed`"
)]
pub trait Encoding<'a, T> {
    /// Whether it takes all bytes that are left, so that no field can follow. It is a compile error
    /// if one does.
    const TAKES_REST: bool = false;

    /// How many bytes [`write`](Encoding::write) appends.
    fn len(value: &T) -> usize;

    /// Appends the value.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when it cannot be written so, or does not fit.
    fn write<P>(value: &T, writer: &mut Writer<'_, P>) -> Result<(), WriteError>;

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when there is none, or when it is none that [`write`](Encoding::write) makes;
    /// [`ReadError::Invalid`] for what the others do not say.
    fn read(reader: &mut Reader<'a>) -> Result<T, ReadError>;
}

/// A field without `as`: as it lies in memory. `E` is the encoding that follows from its type.
///
/// | type | encoding |
/// | --- | --- |
/// | a number, an array, a struct, an enum: any type that `zerocopy` can see as bytes | [`Value`] |
/// | `&'a T` of such a type that needs no alignment | [`Borrowed`] |
/// | `&'a CStr` | [`Terminated`] |
/// | `&'a str`, `&'a [T]` | [`Rest`] |
#[derive(Debug)]
pub struct Plain<E>(PhantomData<E>);

/// A type whose [plain](Plain) encoding is `E`.
pub trait InMemory<'a, E> {}

impl<T: TryFromBytes + IntoBytes + Immutable> InMemory<'_, Value> for T {}
impl<'a, T> InMemory<'a, Borrowed> for &'a T where
    T: TryFromBytes + IntoBytes + Immutable + KnownLayout + Unaligned
{
}
impl<'a> InMemory<'a, Terminated> for &'a CStr {}
impl<'a> InMemory<'a, Rest> for &'a str {}
impl<'a, T> InMemory<'a, Rest> for &'a [T] where
    T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned
{
}

impl<'a, T, E> Encoding<'a, T> for Plain<E>
where
    T: InMemory<'a, E>,
    E: Encoding<'a, T>,
{
    const TAKES_REST: bool = E::TAKES_REST;

    #[inline]
    fn len(value: &T) -> usize {
        E::len(value)
    }

    #[inline]
    fn write<P>(value: &T, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        E::write(value, writer)
    }

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<T, ReadError> {
        E::read(reader)
    }
}

/// A value as it lies in memory, numbers in the host's order: C's `imsg_compose(…, &value, sizeof
/// value)`, `ibuf_add_h32`.
///
/// A type that not all bytes make, as `bool` and enums, is [`ReadError::Invalid`] when they do not.
#[derive(Debug)]
pub enum Value {}

impl<'a, T: TryFromBytes + IntoBytes + Immutable> Encoding<'a, T> for Value {
    #[inline]
    fn len(_: &T) -> usize {
        size_of::<T>()
    }

    #[inline]
    fn write<P>(value: &T, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        writer.add(value)
    }

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<T, ReadError> {
        let bytes = reader.get(size_of::<T>())?;
        T::try_read_from_bytes(bytes).map_err(|_| ReadError::Invalid)
    }
}

/// A [`Value`] that is not copied. A payload has no alignment, so its type needs none.
#[derive(Debug)]
pub enum Borrowed {}

impl<'a, T> Encoding<'a, &'a T> for Borrowed
where
    T: TryFromBytes + IntoBytes + Immutable + KnownLayout + Unaligned,
{
    #[inline]
    fn len(_: &&'a T) -> usize {
        size_of::<T>()
    }

    #[inline]
    fn write<P>(value: &&'a T, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        writer.add(*value)
    }

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<&'a T, ReadError> {
        let bytes = reader.get(size_of::<T>())?;
        T::try_ref_from_bytes(bytes).map_err(|_| ReadError::Invalid)
    }
}

/// All that is left of the payload, so it can only be the last field: bytes, other elements without
/// alignment, or text that is not terminated.
#[derive(Debug)]
pub enum Rest {}

impl<'a, T> Encoding<'a, &'a [T]> for Rest
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned,
{
    const TAKES_REST: bool = true;

    #[inline]
    fn len(value: &&'a [T]) -> usize {
        size_of_val(*value)
    }

    #[inline]
    fn write<P>(value: &&'a [T], writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        writer.add(*value)
    }

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<&'a [T], ReadError> {
        let rest = reader.data_ref()?;
        reader.skip(size_of_val(rest))?;
        Ok(rest)
    }
}

impl<'a> Encoding<'a, &'a str> for Rest {
    const TAKES_REST: bool = true;

    #[inline]
    fn len(value: &&'a str) -> usize {
        value.len()
    }

    #[inline]
    fn write<P>(value: &&'a str, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        writer.add(*value)
    }

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<&'a str, ReadError> {
        reader.get_str(reader.remaining())
    }
}

/// A number in network order (`ibuf_add_n32`).
#[derive(Debug)]
pub enum Network {}

macro_rules! network {
    ($($int:ident),*) => {$(
        impl<'a> Encoding<'a, $int> for Network {
            #[inline]
            fn len(_: &$int) -> usize {
                size_of::<$int>()
            }

            #[inline]
            fn write<P>(value: &$int, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
                writer.add(&value.to_be_bytes())
            }

            #[inline]
            fn read(reader: &mut Reader<'a>) -> Result<$int, ReadError> {
                reader.get_value().map($int::from_be_bytes)
            }
        }
    )*};
}

network!(u16, u32, u64, u128, i16, i32, i64, i128);

/// A string with a NUL behind it, and none in it: C's `strlen(s) + 1` bytes.
///
/// The field has the string without its NUL, unless it is a `CStr`.
#[derive(Debug)]
pub enum Terminated {}

/// A string in a field of `N` bytes, padded with NUL, of which there is one at least
/// (`ibuf_add_strbuf`; `char name[N]` in a struct). What is behind the first NUL is not looked at.
#[derive(Debug)]
pub enum Padded<const N: usize> {}

/// What a string in memory is made of, and made from.
trait Text<'a>: Sized {
    fn text(&self) -> &[u8];
    fn of(string: &'a CStr) -> Result<Self, ReadError>;
}

impl<'a> Text<'a> for &'a CStr {
    fn text(&self) -> &[u8] {
        self.to_bytes()
    }

    fn of(string: &'a CStr) -> Result<Self, ReadError> {
        Ok(string)
    }
}

impl<'a> Text<'a> for &'a [u8] {
    fn text(&self) -> &[u8] {
        self
    }

    fn of(string: &'a CStr) -> Result<Self, ReadError> {
        Ok(string.to_bytes())
    }
}

impl<'a> Text<'a> for &'a str {
    fn text(&self) -> &[u8] {
        self.as_bytes()
    }

    fn of(string: &'a CStr) -> Result<Self, ReadError> {
        string.to_str().map_err(|_| ReadError::NotUtf8)
    }
}

macro_rules! strings {
    ($($string:ty),*) => {$(
        impl<'a> Encoding<'a, &'a $string> for Terminated {
            #[inline]
            fn len(value: &&'a $string) -> usize {
                value.text().len().saturating_add(1)
            }

            #[inline]
            fn write<P>(value: &&'a $string, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
                writer.add_strbuf(value.text(), Self::len(value))
            }

            #[inline]
            fn read(reader: &mut Reader<'a>) -> Result<&'a $string, ReadError> {
                Text::of(reader.get_cstr()?)
            }
        }

        impl<'a, const N: usize> Encoding<'a, &'a $string> for Padded<N> {
            #[inline]
            fn len(_: &&'a $string) -> usize {
                N
            }

            #[inline]
            fn write<P>(value: &&'a $string, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
                writer.add_strbuf(value.text(), N)
            }

            #[inline]
            fn read(reader: &mut Reader<'a>) -> Result<&'a $string, ReadError> {
                Text::of(reader.get_strbuf(N)?)
            }
        }
    )*};
}

strings!(CStr, [u8], str);

/// How many there are, as a number of type `L`, and then the elements: bytes, text, or any that
/// need no alignment. Nothing terminates it.
///
/// `Counted<u16>` counts in the host's order, `Counted<Network16>` in network order,
/// `Counted<usize>` as C's `size_t` does.
#[derive(Debug)]
pub struct Counted<L>(PhantomData<L>);

/// 16 bits in network order.
pub type Network16 = U16<BE>;
/// 32 bits in network order.
pub type Network32 = U32<BE>;
/// 64 bits in network order.
pub type Network64 = U64<BE>;

impl<'a, L, T> Encoding<'a, &'a [T]> for Counted<L>
where
    L: Count,
    T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned,
{
    #[inline]
    fn len(value: &&'a [T]) -> usize {
        size_of::<L>().saturating_add(size_of_val(*value))
    }

    #[inline]
    fn write<P>(value: &&'a [T], writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        let count = value.len();
        writer.add(&L::of(count).ok_or(WriteError::Count { count })?)?;
        writer.add(*value)
    }

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<&'a [T], ReadError> {
        let count: L = reader.get_value()?;
        reader.get_slice(count.get())
    }
}

impl<'a, L: Count> Encoding<'a, &'a str> for Counted<L> {
    #[inline]
    fn len(value: &&'a str) -> usize {
        size_of::<L>().saturating_add(value.len())
    }

    #[inline]
    fn write<P>(value: &&'a str, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        writer.add_counted::<L>(value)
    }

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<&'a str, ReadError> {
        reader.get_counted_str::<L>()
    }
}
