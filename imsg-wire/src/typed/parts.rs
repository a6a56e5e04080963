//! What the code that [`protocol!`](crate::protocol!) makes is built on.

use crate::descriptor::Descriptor;
use crate::error::WriteError;
use crate::header::Header;
use crate::message::Message;
use crate::payload::{Reader, Writer};
use crate::typed::{Attached, BadMessage, Encoding, Mistake, Protocol};

/// A message while it is taken apart.
#[derive(Debug)]
pub struct Parts<'a, F> {
    header: Header,
    reader: Reader<'a>,
    descriptor: Descriptor<F>,
}

impl<'a, F> Parts<'a, F> {
    /// Begins with all of it.
    pub fn new(message: Message<'a, F>) -> Self {
        let reader = message.reader();
        Self { header: message.header, reader, descriptor: message.descriptor }
    }

    /// The type number that it has.
    pub fn msg_type(&self) -> u32 {
        self.header.msg_type
    }

    /// Says that the last field was read.
    #[inline]
    pub fn end(&self) -> Result<(), Mistake> {
        match self.reader.remaining() {
            0 => Ok(()),
            extra => Err(Mistake::TooLong { extra }),
        }
    }

    /// Takes the descriptor out.
    pub fn attached<A: Attached<F>>(&mut self) -> Result<A, Mistake> {
        A::take(&mut self.descriptor).map_err(Mistake::Descriptor)
    }

    /// Makes the message of what was read, if no descriptor is left over.
    pub fn finish<M: Protocol>(self, read: Result<M, Mistake>) -> Result<M, BadMessage<F>> {
        let Self { header, descriptor, .. } = self;
        let settled = descriptor.expect_none().map_err(Mistake::Descriptor);
        let mistake = match read.and_then(|message| settled.map(|()| message)) {
            Ok(message) => return Ok(message),
            Err(mistake) => mistake,
        };
        let name = M::name_of(header.msg_type);
        Err(BadMessage { header, name, mistake, descriptor })
    }
}

/// A type that can be encoded as `E`. It is [`Encoding`] from the side of the type, so that what the
/// compiler says points to that.
#[diagnostic::on_unimplemented(
    message = "a field of type `{Self}` cannot be encoded as `{E}`",
    note = "the encodings, and the types that each takes, are on the page of `imsg_wire::typed`",
    note = "without `as`, it is `Plain`: derive `TryFromBytes` (or `FromBytes`), `IntoBytes` and \
            `Immutable` of `zerocopy` for the type, and if it is borrowed, `KnownLayout` and \
            `Unaligned`"
)]
pub trait Field<'a, E>: Sized {
    /// As there.
    const TAKES_REST: bool;

    /// As there.
    fn encoded_len(&self) -> usize;

    /// As there.
    ///
    /// # Errors
    ///
    /// As there.
    fn write<P>(&self, writer: &mut Writer<'_, P>) -> Result<(), WriteError>;

    /// Reads the next field of a message.
    ///
    /// # Errors
    ///
    /// As there.
    fn read<F>(parts: &mut Parts<'a, F>, name: &'static str) -> Result<Self, Mistake>;
}

impl<'a, T, E: Encoding<'a, T>> Field<'a, E> for T {
    const TAKES_REST: bool = E::TAKES_REST;

    #[inline]
    fn encoded_len(&self) -> usize {
        E::len(self)
    }

    #[inline]
    fn write<P>(&self, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        E::write(self, writer)
    }

    #[inline]
    fn read<F>(parts: &mut Parts<'a, F>, field: &'static str) -> Result<Self, Mistake> {
        E::read(&mut parts.reader).map_err(|error| Mistake::Field { field, error })
    }
}

/// Panics, at compile time, with the message of the first field that takes the rest of a payload
/// and is not the last one.
pub const fn check_order(fields: &[(bool, &str)]) {
    let mut fields = fields;
    while let [(takes_rest, message), rest @ ..] = fields {
        if *takes_rest && !rest.is_empty() {
            panic!("{}", *message);
        }
        fields = rest;
    }
}
