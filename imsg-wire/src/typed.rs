//! Typed protocols: enums for the messages of a protocol, made by [`protocol!`](crate::protocol!).
//!
//! # What stands in a payload
//!
//! A field without `as` stands there as it lies in memory; the others say how. Fields follow each
//! other without padding.
//!
//! | declared | on the wire | C |
//! | --- | --- | --- |
//! | `n: u32`, `n: [u16; 4]`, `s: Struct`, `e: Enum` | [its bytes](Value), numbers in the host's order | `imsg_compose(…, &s, sizeof s)`, `ibuf_add_h32` |
//! | `n: U32<BigEndian>` of `zerocopy` | its bytes, in the order that it has | |
//! | `n: u32 as Network` | [in network order](Network) | `ibuf_add_n32` |
//! | `s: &'a Struct` | its bytes, [borrowed](Borrowed); for types without alignment | |
//! | `s: &'a CStr` | the string [and a NUL](Terminated) | `strlen(s) + 1` bytes |
//! | `s: &'a str as Terminated`, `s: &'a [u8] as Terminated` | the same; the field has no NUL | |
//! | `s: &'a str as Padded<32>`, or `CStr`, or `[u8]` | the string in 32 bytes, [padded with NUL](Padded) | `char s[32]`, `ibuf_add_strbuf` |
//! | `s: &'a str as Counted<u16>`, `s: &'a [T] as Counted<u16>` | [how many](Counted), then the elements; `Counted<Network16>` in network order, `Counted<usize>` as `size_t` | |
//! | `s: &'a str`, `s: &'a [u8]`, `s: &'a [T]` | [the rest](Rest), so it has to be the last field | |
//! | `s: Any as Own` | what [`Own`](Encoding) says | |
//!
//! A type of a program's own needs `TryFromBytes` (or `FromBytes`), `IntoBytes` and `Immutable` of
//! `zerocopy`; borrowed, also `KnownLayout` and `Unaligned`. So padding has to be named, and an
//! `enum` with a `repr` is a C enum whose values are checked.
//!
//! # How strict it is
//!
//! `TryFrom` accepts a message only as [`compose`](Protocol::compose) makes it: of a known type,
//! with all fields, nothing behind them, and a descriptor exactly where one is declared. What is
//! behind the NUL of a padded string is the exception: C leaves it as it was. Anything else is
//! [`BadMessage`], which says what is wrong and has the descriptor, if one came. The stream goes on
//! behind it.

mod declare;
mod encoding;
mod error;
mod parts;

use crate::compose::Compose;
use crate::descriptor::{Descriptor, DescriptorError};
use crate::error::{Reason, Refused, WriteError};
use crate::header::Header;
use crate::payload::Writer;
use crate::send::InPlace;

pub use encoding::{
    Borrowed, Counted, Encoding, InMemory, Network, Network16, Network32, Network64, Padded, Plain,
    Rest, Terminated, Value,
};
pub use error::{BadMessage, Mistake};
#[doc(hidden)]
pub use parts::{Field, Parts, check_order};

/// The messages of a protocol, in one direction: what [`protocol!`](crate::protocol!) makes an enum
/// to.
pub trait Protocol: Sized {
    /// The type number and the name of each message, in the order of their declaration.
    const TYPES: &'static [(u32, &'static str)];

    /// The type number of this message.
    fn msg_type(&self) -> u32;

    /// The bytes of its payload.
    fn payload_len(&self) -> usize;

    /// Writes its payload.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when a field cannot be encoded, or does not fit. Fields before it may have
    /// been written.
    fn write_payload<P>(&self, writer: &mut Writer<'_, P>) -> Result<(), WriteError>;

    /// The name of this message, as for a log.
    fn name(&self) -> &'static str {
        Self::name_of(self.msg_type()).unwrap_or_default()
    }

    /// The name of the message that has this type number, if there is one.
    fn name_of(msg_type: u32) -> Option<&'static str> {
        let mut types = Self::TYPES.iter();
        types.find(|(number, _)| *number == msg_type).map(|(_, name)| *name)
    }

    /// Whether this message can be queued now.
    ///
    /// # Errors
    ///
    /// Why not, as [`SendBuf::has_room`](crate::SendBuf::has_room).
    fn has_room<Q>(&self, queue: &Q) -> Result<(), Reason>
    where
        Q: Compose,
        Self: Carries<Q::Descriptor>,
    {
        queue.has_room(self.payload_len(), self.has_descriptor())
    }

    /// Queues this message, with the given id and the pid of this process.
    ///
    /// # Errors
    ///
    /// As [`compose_as`](Protocol::compose_as).
    #[inline]
    fn compose<Q>(self, queue: &mut Q, id: u32) -> Result<(), Refused<Q::Descriptor>>
    where
        Q: Compose,
        Self: Carries<Q::Descriptor>,
    {
        self.compose_as(queue, id, 0)
    }

    /// Queues this message, with the given id and pid. Its fields are written where they are sent
    /// from.
    ///
    /// # Errors
    ///
    /// [`Refused`] with the descriptor, when there is no [room](Protocol::has_room), and with
    /// [`Reason::Payload`] when a field cannot be encoded: a string has a NUL in it or does not fit
    /// its field, or there are more elements than their count can say. Nothing is queued then.
    fn compose_as<Q>(self, queue: &mut Q, id: u32, pid: u32) -> Result<(), Refused<Q::Descriptor>>
    where
        Q: Compose,
        Self: Carries<Q::Descriptor>,
    {
        let refuse =
            |message: Self, reason| Err(Refused { reason, descriptor: message.into_descriptor() });
        if let Err(reason) = self.has_room(queue) {
            return refuse(self, reason);
        }
        let header = Header { msg_type: self.msg_type(), id, pid };
        let mut writer = match queue.create(header, None) {
            Ok(writer) => writer,
            Err(Refused { reason, .. }) => return refuse(self, reason),
        };
        match self.write_payload(&mut writer) {
            Ok(()) => InPlace::close_with(writer, self.into_descriptor()),
            Err(error) => refuse(self, error.into()),
        }
    }
}

/// A message that carries descriptors of type `F`, or none.
pub trait Carries<F> {
    /// Whether a descriptor goes with this message.
    fn has_descriptor(&self) -> bool;

    /// The descriptor, if one goes with this message. The rest is dropped.
    fn into_descriptor(self) -> Option<F>;
}

/// What may follow `+` in [`protocol!`](crate::protocol!): the type of a descriptor, or an `Option`
/// of that.
#[diagnostic::on_unimplemented(
    message = "a message with `+ {Self}` cannot carry a descriptor of type `{F}`",
    note = "write `+ {F}` where the message always has a descriptor, or `+ Option<{F}>`"
)]
pub trait Attached<F>: Sized {
    /// What a message has, if it is what this type allows. It is left in place otherwise.
    ///
    /// # Errors
    ///
    /// [`DescriptorError`] when a descriptor is missing.
    fn take(descriptor: &mut Descriptor<F>) -> Result<Self, DescriptorError>;

    /// Whether there is a descriptor.
    fn is_here(&self) -> bool;

    /// The descriptor.
    fn into_option(self) -> Option<F>;
}

impl<F> Attached<F> for F {
    fn take(descriptor: &mut Descriptor<F>) -> Result<Self, DescriptorError> {
        descriptor.take_required()
    }

    fn is_here(&self) -> bool {
        true
    }

    fn into_option(self) -> Option<F> {
        Some(self)
    }
}

impl<F> Attached<F> for Option<F> {
    fn take(descriptor: &mut Descriptor<F>) -> Result<Self, DescriptorError> {
        descriptor.take_optional()
    }

    fn is_here(&self) -> bool {
        self.is_some()
    }

    fn into_option(self) -> Option<F> {
        self
    }
}
