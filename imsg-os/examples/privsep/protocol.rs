//! The messages, and what is in them.
//!
//! The id of a request is chosen by the parent; the answer has the same.
//!
//! Each side has an enum of what it says. [`TryFrom`] makes it of a message, and refuses types and
//! payloads that are not of this protocol; `parts` is the way back.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use imsg_os::Message;
use zerocopy::native_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The descriptor on which the worker finds the channel.
pub(crate) const CHANNEL: RawFd = 3;

const READY: u32 = 1;
const READ: u32 = 2;
const SUMMARY: u32 = 3;
const FAILURE: u32 = 4;

/// From the parent.
pub(crate) enum Request<'a> {
    /// Read the file that comes with this, and has this path.
    Read(&'a Path),
}

impl Request<'_> {
    /// The type and the payload of the message.
    pub(crate) fn parts(&self) -> (u32, &[u8]) {
        match self {
            Self::Read(path) => (READ, path.as_os_str().as_bytes()),
        }
    }
}

impl<'m, 'a> TryFrom<&'m Message<'a>> for Request<'a> {
    type Error = Mistake<'m>;

    fn try_from(message: &'m Message<'a>) -> Result<Self, Mistake<'m>> {
        match message.header.msg_type {
            READ => Ok(Self::Read(Path::new(OsStr::from_bytes(message.payload)))),
            _ => Err(Mistake::Unexpected(message)),
        }
    }
}

/// From the worker.
pub(crate) enum Answer {
    /// The first: its privileges are given up, and this is what that came to.
    Ready(Layers),
    /// The file was read.
    Summary(Summary),
    /// The file cannot be read.
    Failure(Failure),
}

impl Answer {
    /// The type and the payload of the message.
    pub(crate) fn parts(&self) -> (u32, &[u8]) {
        match self {
            Self::Ready(layers) => (READY, layers.as_bytes()),
            Self::Summary(summary) => (SUMMARY, summary.as_bytes()),
            Self::Failure(failure) => (FAILURE, failure.as_bytes()),
        }
    }
}

impl<'m> TryFrom<&'m Message<'_>> for Answer {
    type Error = Mistake<'m>;

    fn try_from(message: &'m Message<'_>) -> Result<Self, Mistake<'m>> {
        match message.header.msg_type {
            READY => decode(message.payload).map(Self::Ready),
            SUMMARY => decode(message.payload).map(Self::Summary),
            FAILURE => decode(message.payload).map(Self::Failure),
            _ => Err(Mistake::Unexpected(message)),
        }
    }
}

fn decode<T: FromBytes>(payload: &[u8]) -> Result<T, Mistake<'static>> {
    T::read_from_bytes(payload)
        .map_err(|_| Mistake::Size { len: payload.len(), due: size_of::<T>() })
}

/// What the other side should not have sent.
pub(crate) enum Mistake<'m> {
    /// A message of a type that it does not send, or does not send now.
    Unexpected(&'m Message<'m>),
    /// A payload that has not the size of what is due.
    Size { len: usize, due: usize },
}

impl fmt::Display for Mistake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected(message) => write!(f, "an unexpected message: {message:?}"),
            Self::Size { len, due } => write!(f, "{len} bytes where {due} are due"),
        }
    }
}

// Payloads are structs without padding, in this machine's byte order, like the header before them.
// A payload has no alignment, so neither have their fields.

/// What stands between the worker and the rest of the system.
#[derive(Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Layers {
    pub(crate) user: U32,
    pub(crate) group: U32,
    /// Whether it was root before.
    pub(crate) was_root: u8,
    /// Whether no program that it executes gets more privileges than it has.
    pub(crate) no_new_privileges: u8,
    /// The version of Landlock, or 0 without.
    pub(crate) landlock: U32,
}

/// What there is to say about a file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Summary {
    pub(crate) size: U64,
    pub(crate) lines: U64,
    pub(crate) sha256: [u8; 32],
    /// What came of opening the path without help: 0 or an `errno`.
    pub(crate) own_open: I32,
}

/// Why a file cannot be read.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Failure {
    pub(crate) errno: I32,
}
