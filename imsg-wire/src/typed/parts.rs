//! What the code that [`protocol!`](crate::protocol!) makes is built on.

use crate::descriptor::Descriptor;
use crate::header::Header;
use crate::message::Message;
use crate::payload::Reader;
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

    /// Reads the next field.
    #[inline]
    pub fn field<T, E: Encoding<'a, T>>(&mut self, field: &'static str) -> Result<T, Mistake> {
        E::read(&mut self.reader).map_err(|error| Mistake::Field { field, error })
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
