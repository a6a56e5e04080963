//! What can go wrong.

use core::error;
use core::fmt;

use crate::descriptor::{Missing, Violation};

/// A length is out of range: the one that a header states (libutil fails with `ERANGE`), or a
/// maximum to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BadLength {
    /// The length, in bytes, header included.
    pub len: usize,
    /// The smallest length allowed: that of a header, in bytes.
    pub min: usize,
    /// The largest length allowed, in bytes.
    pub max: usize,
}

impl BadLength {
    /// Gives `len` back if it is in range.
    #[inline]
    pub(crate) fn check(len: usize, min: usize, max: usize) -> Result<usize, Self> {
        if len < min || len > max { Err(Self { len, min, max }) } else { Ok(len) }
    }
}

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, min, max } = self;
        write!(f, "a length of {len} bytes is out of range; {min} to {max} are allowed")
    }
}

impl error::Error for BadLength {}

/// Why no more messages can be received from a stream.
///
/// Every error is final, as a stream cannot be resynchronised: the buffer that returned it returns
/// it again. Offsets are bytes from the start of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// A header states a length out of range (`ERANGE`).
    Length {
        /// Where the message starts.
        offset: u64,
        /// What is wrong with its length.
        error: BadLength,
    },
    /// The stream ended inside a message.
    Truncated {
        /// Where the message starts.
        offset: u64,
        /// How many bytes of it arrived.
        have: usize,
        /// How many bytes it has as far as known: of its header, until that is whole.
        need: usize,
    },
    /// The peer broke a rule of descriptor passing.
    Descriptor(Violation),
    /// Descriptors fill the queue, and no complete message is there to take one.
    TooManyDescriptors {
        /// Where the next message starts.
        offset: u64,
        /// How many descriptors the queue holds.
        capacity: usize,
    },
    /// The storage cannot hold a header, or has become shorter.
    StorageTooSmall {
        /// The bytes of the storage.
        storage: usize,
        /// The bytes needed.
        need: usize,
    },
}

impl Error {
    /// Whether this is how it shows that the peer is gone: the stream ended inside a message.
    #[must_use]
    pub fn is_peer_gone(&self) -> bool {
        matches!(self, Self::Truncated { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { offset, error } => write!(f, "at offset {offset}, {error}"),
            Self::Truncated { offset, have, need } => write!(
                f,
                "the stream ended inside the message at offset {offset}, after {have} of {need} bytes"
            ),
            Self::Descriptor(violation) => violation.fmt(f),
            Self::TooManyDescriptors { offset, capacity } => write!(
                f,
                "{capacity} descriptors arrived before offset {offset} and no message claims them"
            ),
            Self::StorageTooSmall { storage, need } => {
                write!(f, "the storage has {storage} bytes where {need} bytes are needed")
            }
        }
    }
}

impl error::Error for Error {}

/// A receive buffer has no place to read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoRoom {
    /// Bytes or descriptors fill it. Messages are there: take them, then read on. When
    /// [none is](crate::RecvBuf::is_ready), the storage has to [grow](crate::Storage::grow), and
    /// cannot now.
    Full,
    /// The stream has ended.
    Finished,
    /// The stream is broken.
    Failed(Error),
}

impl NoRoom {
    /// Whether this is how it shows that the peer is gone: the stream ended, between two messages
    /// or inside one.
    #[must_use]
    pub fn is_peer_gone(&self) -> bool {
        match self {
            Self::Full => false,
            Self::Finished => true,
            Self::Failed(error) => error.is_peer_gone(),
        }
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the buffer is full: take messages before reading on"),
            Self::Finished => f.write_str("the stream has ended"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl error::Error for NoRoom {}

/// More was said to be done than was offered.
///
/// The buffer did not change. `T` is what the caller handed in, given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NotOffered<T = ()> {
    /// The bytes claimed.
    pub claimed: usize,
    /// The bytes offered.
    pub offered: usize,
    /// What the caller handed in.
    pub returned: T,
}

impl<T> fmt::Display for NotOffered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { claimed, offered, .. } = self;
        write!(f, "{claimed} bytes were claimed as done where {offered} bytes were offered")
    }
}

impl<T: fmt::Debug> error::Error for NotOffered<T> {}

/// A message was not queued. Gives the descriptor back.
///
/// The queue did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refused<F = core::convert::Infallible> {
    /// Why.
    pub reason: Reason,
    /// The descriptor that was to go with the message.
    pub descriptor: Option<F>,
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It is longer than the maximum, and never fits (`ERANGE`).
    TooLong {
        /// Its length in bytes, header included.
        len: usize,
        /// The largest length allowed, in bytes.
        max: usize,
    },
    /// There is no room now. It fits once the queue is flushed.
    Full {
        /// Its length in bytes, header included.
        len: usize,
        /// The bytes free.
        free: usize,
    },
    /// No more descriptors can be queued until some are sent.
    DescriptorsFull,
    /// It is to be forwarded, and its descriptor is missing.
    Missing(Missing),
    /// A field of its payload cannot be written.
    Payload(WriteError),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len, max } => {
                write!(f, "a message of {len} bytes is longer than the maximum of {max} bytes")
            }
            Self::Full { len, free } => {
                write!(f, "the queue has {free} bytes free, and the message {len} bytes")
            }
            Self::DescriptorsFull => f.write_str("the queue cannot hold another descriptor"),
            Self::Missing(missing) => missing.fmt(f),
            Self::Payload(error) => error.fmt(f),
        }
    }
}

impl error::Error for Reason {}

impl From<WriteError> for Reason {
    fn from(error: WriteError) -> Self {
        Self::Payload(error)
    }
}

/// For a message in place, whose descriptor was dropped with its writer.
impl<F> From<WriteError> for Refused<F> {
    fn from(error: WriteError) -> Self {
        Reason::from(error).into()
    }
}

/// For a message whose descriptor is still the caller's.
impl<F> From<Reason> for Refused<F> {
    fn from(reason: Reason) -> Self {
        Self { reason, descriptor: None }
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<F: fmt::Debug> error::Error for Refused<F> {}

/// Why a field of a payload was not read. Nothing was consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadError {
    /// The payload ends before the field does (`EBADMSG`).
    Short {
        /// The bytes needed.
        need: usize,
        /// The bytes left.
        have: usize,
    },
    /// What is left has another size than the value (`EBADMSG`).
    Size {
        /// The bytes of the value.
        expected: usize,
        /// The bytes left.
        have: usize,
    },
    /// What is left has a size that the value cannot have (`EBADMSG`).
    Shape {
        /// The bytes left.
        have: usize,
    },
    /// A string has no NUL behind it (`EOVERFLOW`).
    Unterminated {
        /// The bytes searched.
        len: usize,
    },
    /// A string is not UTF-8.
    NotUtf8,
    /// The bytes are no value of the type, as 2 is no `bool`.
    Invalid,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { need, have } => {
                write!(f, "the payload has {have} bytes left where {need} are needed")
            }
            Self::Size { expected, have } => {
                write!(f, "the payload has {have} bytes left where {expected} are expected")
            }
            Self::Shape { have } => {
                write!(f, "the payload has {have} bytes left, which make no whole value")
            }
            Self::Unterminated { len } => write!(f, "a string has no end within {len} bytes"),
            Self::NotUtf8 => f.write_str("a string is not UTF-8"),
            Self::Invalid => f.write_str("the value is not one of its type"),
        }
    }
}

impl error::Error for ReadError {}

/// Why a field of a payload was not written. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteError {
    /// The payload would be longer than its maximum (`ERANGE`).
    TooLong {
        /// The length that it would have, in bytes.
        len: usize,
        /// The largest length allowed, in bytes.
        max: usize,
    },
    /// There is no room now. It fits once the queue is flushed.
    Full {
        /// The bytes to write.
        len: usize,
        /// The bytes free.
        free: usize,
    },
    /// A string does not fit its field with a NUL behind it (`EOVERFLOW`), or has a NUL in it.
    String {
        /// The bytes of the string.
        len: usize,
        /// The bytes of the field.
        field: usize,
    },
    /// There are more elements than the number in front of them can say.
    Count {
        /// How many there are.
        count: usize,
    },
    /// What is to be overwritten was not written yet (`ERANGE`).
    Outside {
        /// Where to write, in bytes from the start.
        offset: usize,
        /// The bytes to write.
        len: usize,
        /// The bytes written so far.
        written: usize,
    },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len, max } => {
                write!(f, "a payload of {len} bytes is longer than the maximum of {max} bytes")
            }
            Self::Full { len, free } => {
                write!(f, "there is room for {free} bytes, and {len} are to be written")
            }
            Self::String { len, field } => {
                write!(
                    f,
                    "a string of {len} bytes has a NUL in it, or does not fit a field of {field} \
                     bytes with one behind it"
                )
            }
            Self::Count { count } => {
                write!(f, "the number in front of {count} elements cannot say how many they are")
            }
            Self::Outside { offset, len, written } => {
                write!(
                    f,
                    "{len} bytes at offset {offset} do not lie within the {written} bytes written"
                )
            }
        }
    }
}

impl error::Error for WriteError {}
