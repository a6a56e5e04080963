//! What a worker says of the privileges that it gave up.

use zerocopy::native_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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
