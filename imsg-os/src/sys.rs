//! The system calls, and all `unsafe` code of the crate.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

mod inherit;
mod pages;
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), path = "sys/no_peek.rs")]
mod peek;
mod recv;
mod send;
#[cfg(feature = "process")]
mod signal;
mod socket;
#[cfg(feature = "process")]
mod spawn;
mod wait;

pub use inherit::inherited;
pub use pages::Pages;
pub(crate) use peek::Look;
pub(crate) use recv::{has_lost_descriptor, recv, take_urgent};
pub(crate) use send::send;
#[cfg(feature = "process")]
pub(crate) use signal::terminate;
pub use socket::Credentials;
pub(crate) use socket::{
    is_nonblocking, pair, peer_credentials, refuse_descriptors, require_connected_stream,
    shutdown_write,
};
#[cfg(feature = "process")]
pub(crate) use spawn::Taken;
pub(crate) use wait::{Instead, Interest, poll_all, wait};

/// A buffer for control messages, which are aligned as their header is.
#[repr(C)]
union Control<const LEN: usize> {
    bytes: [MaybeUninit<u8>; LEN],
    _align: libc::cmsghdr,
}

fn message_header(iov: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all fields are integers and pointers, for which zero is a valid value.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = iov.as_mut_ptr();
    header.msg_iovlen = iov.len() as _;
    header
}

/// Calls again when a signal came in between.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
