//! The messages, and what is in them.
//!
//! The id of a request is chosen by the parent; the answer has the same.

use std::os::fd::OwnedFd;

use imsg_os::protocol;
use zerocopy::native_endian::{I32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::layers::Layers;

protocol! {
    /// From the parent.
    pub(crate) enum Request<'a> {
        /// Read the file that comes with this, and has this path.
        2 => Read(&'a [u8]) + OwnedFd,
    }
}

protocol! {
    /// From the worker.
    pub(crate) enum Answer {
        /// The first: its privileges are given up, and this is what that came to.
        1 => Ready(Layers),
        /// The file was read.
        3 => Summary(Summary),
        /// The file cannot be read.
        4 => Failure(Failure),
    }
}

// Payloads are structs without padding, in this machine's byte order, like the header before them.
// A payload has no alignment, so neither have their fields.

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
