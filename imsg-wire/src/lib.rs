//! imsg, the message framing of OpenBSD for privilege separation, without I/O.
//!
//! A message is a 16-byte header, a payload, and at most one file descriptor, on a local stream
//! socket. This crate holds every rule of the protocol; it never allocates, panics or does I/O,
//! and has no `unsafe`. The crate `imsg-os` adds the sockets.
//!
//! ```text
//! bytes read ──► RecvBuf ──► Message ──► program ──► SendBuf ──► bytes to send
//! ```
//!
//! - [`split`] and [`Messages`] parse bytes that are in memory.
//! - [`RecvBuf`] and [`SendBuf`] work on streams, over memory of the caller's.
//! - [`Classic`], [`Modern`] and [`Any`] are the dialects; [`Detected`] tells them apart.
//! - [`descriptor`] has the rules by which descriptors find their messages.
//! - [`protocol`] is the specification of what is on the wire.
//!
//! ```
//! use imsg_wire::{Ancillary, Header, Modern, RecvBuf, SendBuf};
//!
//! let mut queue = SendBuf::<_, _>::new(Modern::new(), [0; 1024]);
//! queue.compose(Header { id: 7, ..Header::new(1) }, b"hello", None)?;
//!
//! let mut received = RecvBuf::<_, _>::new(Modern::new(), [0; 1024]);
//! while let Some(chunk) = queue.chunk() {
//!     let spare = received.spare()?;
//!     let n = chunk.bytes.len().min(spare.len()); // a real program sends and receives here
//!     spare[..n].copy_from_slice(&chunk.bytes[..n]);
//!     received.commit(n, Ancillary::Nothing)?;
//!     queue.consume(n)?;
//! }
//! let message = received.next_message()?.unwrap();
//! assert_eq!((message.header.id, message.payload), (7, &b"hello"[..]));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
#![doc = include_str!("c_functions.md")]
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod descriptor;
mod dialect;
mod error;
mod header;
mod message;
mod owned;
pub mod payload;
pub mod protocol;
mod recv;
mod send;
mod storage;

pub use descriptor::{Ancillary, Descriptor, Missing, Pairing};
pub use dialect::{Any, Classic, Detected, Dialect, Endian, Modern};
pub use error::{
    BadLength, Error, Fault, NoRoom, NotOffered, ReadError, Reason, Refused, Violation, WriteError,
};
pub use header::{DEFAULT_MAX_LEN, Frame, HEADER_LEN, Header};
pub use message::{Message, Messages, Split, split};
pub use owned::OwnedMessage;
pub use payload::{Reader, Writer};
pub use recv::{Received, RecvBuf};
pub use send::{Chunk, Lent, Pending, SendBuf};
pub use storage::Storage;
#[cfg(feature = "zeroize")]
pub use storage::Wiping;
