//! In place of looking ahead, where what is seen in place of descriptors are none of this process.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use imsg_wire::Ancillary;

/// There is none here.
#[derive(Debug)]
pub(crate) enum Look {}

impl Look {
    pub(crate) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn ahead(
        &self,
        _: BorrowedFd<'_>,
        _: &mut [u8],
    ) -> io::Result<(usize, Ancillary<OwnedFd>)> {
        match *self {}
    }

    pub(crate) fn before_descriptor(&self, _: BorrowedFd<'_>, _: &mut [u8]) -> usize {
        match *self {}
    }
}
