//! Why a message is none of a protocol.

use core::convert::Infallible;
use core::error;
use core::fmt;

use crate::descriptor::{Descriptor, DescriptorError};
use crate::error::ReadError;
use crate::header::Header;

/// A received message is none of the protocol. Gives the descriptor back.
///
/// It is a fault of the peer; the stream goes on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BadMessage<F = Infallible> {
    /// The header of the message.
    pub header: Header,
    /// The name of the message that has this type, if there is one.
    pub name: Option<&'static str>,
    /// What is wrong.
    pub mistake: Mistake,
    /// What came with the message.
    pub descriptor: Descriptor<F>,
}

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mistake {
    /// No message has this type.
    Type,
    /// A field is not there, or not what it should be.
    Field {
        /// The name of the field; 0 in a message that has one without a name.
        field: &'static str,
        /// Why it was not read.
        error: ReadError,
    },
    /// Something follows the last field.
    TooLong {
        /// The bytes behind the last field.
        extra: usize,
    },
    /// A descriptor is missing, or not expected.
    Descriptor(DescriptorError),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type => f.write_str("the type is unknown"),
            Self::Field { field, error } => write!(f, "field {field}: {error}"),
            Self::TooLong { extra } => write!(f, "the payload is {extra} bytes too long"),
            Self::Descriptor(error) => error.fmt(f),
        }
    }
}

impl error::Error for Mistake {}

impl<F> fmt::Display for BadMessage<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad message of type {}", self.header.msg_type)?;
        if let Some(name) = self.name {
            write!(f, " ({name})")?;
        }
        write!(f, ": {}", self.mistake)
    }
}

impl<F: fmt::Debug> error::Error for BadMessage<F> {}

// Not derived, as `Debug` of a string can panic as far as the linker sees. These are identifiers.

impl fmt::Debug for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type => f.write_str("Type"),
            Self::Field { field, error } => f
                .debug_struct("Field")
                .field("field", &format_args!("{field}"))
                .field("error", error)
                .finish(),
            Self::TooLong { extra } => f.debug_struct("TooLong").field("extra", extra).finish(),
            Self::Descriptor(error) => f.debug_tuple("Descriptor").field(error).finish(),
        }
    }
}

impl<F: fmt::Debug> fmt::Debug for BadMessage<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BadMessage")
            .field("header", &self.header)
            .field("name", &format_args!("{}", self.name.unwrap_or("None")))
            .field("mistake", &self.mistake)
            .field("descriptor", &self.descriptor)
            .finish()
    }
}
