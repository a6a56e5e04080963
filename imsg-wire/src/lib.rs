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
//! - [`Requests`] keeps what waits for a reply.
//! - [`Classic`], [`Modern`] and [`Any`] are the dialects; [`Detected`] tells them apart.
//! - [`descriptor`] has the rules by which descriptors find their messages.
//! - [`protocol!`] declares the messages of a program, with their fields; see below.
//! - [`mod@protocol`] is the specification of what is on the wire.
//!
//! ```
//! use imsg_wire::{Ancillary, Header, Modern, RecvBuf, SendBuf};
//!
//! let mut queue = SendBuf::new(Modern::new(), [0; 1024]);
//! queue.compose(Header::new(1).with_id(7), b"hello", None)?;
//!
//! let mut received = RecvBuf::new(Modern::new(), [0; 1024]);
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
//! # Typed protocols
//!
//! [`protocol!`] makes an enum of the messages that one side sends: their type numbers, fields and
//! descriptors. [`compose`](typed::Protocol::compose) writes one where it is sent from, and
//! `TryFrom` takes a received message apart; what is not of the protocol is a
//! [`BadMessage`](typed::BadMessage) that says why, and has the descriptor if one came. The bytes
//! are those of the same protocol written by hand, or in C: what stands there for each kind of
//! field is on the page of [`typed`].
//!
//! ```
//! use imsg_wire::typed::{Counted, Protocol};
//! use imsg_wire::{Descriptor, Header, Message, Modern, SendBuf};
//!
//! imsg_wire::protocol! {
//!     /// What the parent says to a worker.
//!     enum ToWorker<'a> {
//!         3 => ConfBegin { generation: u32 },
//!         4 => ConfEntry { name: &'a str as Counted<u16>, value: &'a [u8] },
//!         8 => Stop,
//!     }
//! }
//!
//! let mut queue = SendBuf::new(Modern::new(), [0; 256]);
//! ToWorker::ConfEntry { name: "listen", value: b"*" }.compose(&mut queue, 7)?;
//!
//! fn apply(message: Message<'_>) -> String {
//!     match ToWorker::try_from(message) {
//!         Ok(ToWorker::ConfBegin { generation }) => format!("configuration {generation}"),
//!         Ok(ToWorker::ConfEntry { name, value }) => format!("{name} has {} bytes", value.len()),
//!         Ok(ToWorker::Stop) => "the end".into(),
//!         Err(bad) => bad.to_string(),
//!     }
//! }
//! let payload = &queue.chunk().unwrap().bytes[16..];
//! let message = |msg_type| {
//!     Message { header: Header::new(msg_type), payload, descriptor: Descriptor::None }
//! };
//! assert_eq!(apply(message(4)), "listen has 1 bytes");
//! assert_eq!(apply(message(8)), "bad message of type 8 (Stop): the payload is 9 bytes too long");
//! # Ok::<(), imsg_wire::Refused>(())
//! ```
//!
//! # Which dialect
//!
//! Both ends must speak the same one. Programs that only talk to themselves take [`Modern`], whose
//! peers all keep to the stricter rule of descriptors. For a program written in C, the version
//! decides: [`mod@protocol`] lists them. [`Any`] is for one that is known only at run time;
//! [`Detected::of`] tells it from a header, once one carries a descriptor.
//!
//! # How much memory
//!
//! - The storage of a [`RecvBuf`] has to hold the largest message that may come. More lets one read
//!   bring many messages: `imsg-os` uses 64 KiB.
//! - The storage of a [`SendBuf`] has to hold what is composed between two sends; if the peer may be
//!   slow, twice what is queued and the next message.
//! - The maximum of both starts at 16384 bytes, or what the storage holds if that is less.
//!   [`RecvBuf::set_max_len`] and [`SendBuf::set_max_len`] change it.
//! - The last parameter, `N`, is how many descriptors each can hold. A buffer without descriptors has
//!   that room too, as it may be told that one was lost. `RecvBuf<D, S, Infallible, 2>` and
//!   `SendBuf<D, S, Infallible, 1>`, made by `with_descriptors`, take the least.
//!
//! # When something is wrong
//!
//! | | means | so |
//! | --- | --- | --- |
//! | [`Error`] | the peer broke the protocol, or the stream ended inside a message | it is final: close the connection |
//! | [`Missing`] in a message | its descriptor is not there; the message is whole | refuse what it asks for; [`Missing::Dropped`] is the fault of the kernel, not of the peer |
//! | [`ReadError`] | the payload is not what its type promises | a fault of the peer; the stream goes on |
//! | [`typed::BadMessage`] | it is none of the declared protocol | a fault of the peer; the stream goes on |
//! | [`NoRoom::Full`] | messages must be taken first | take them, then read on |
//! | [`Refused`], [`Reason::Full`], [`Reason::DescriptorsFull`] | the queue is full | send, then compose again; until then stop taking messages that need an answer |
//! | [`Reason::Missing`] | a message to be forwarded is marked, and its descriptor is not there | as for [`Missing`] |
//! | [`Reason::TooLong`] | it never fits | raise the maximum on both ends, or send it in parts |
//! | [`Reason::Payload`] | a field cannot be written as it is declared | a fault of the program, or of what it was given |
//! | [`WriteError`] | a field does not fit the message | as for [`Reason`]; what was written stays |
//! | [`NotOffered`] | the program claimed more than the buffer lent | a fault of the program |
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! | --- | --- |
//! | `arbitrary` | `Arbitrary` for [`Header`] and [`Frame`], and `testing::Stream`, what a peer may send, to fuzz a handler; it needs the standard library |
//! | `zeroize` | `Wiping`, a storage that overwrites what is not needed any more |
//! | `serde` | `Serialize` and `Deserialize` for [`Header`] and [`Frame`] |
//! | `defmt` | `defmt::Format` for the same |
//! | `testing` | `testing`, two ends joined in memory, to test a handler without sockets; it allocates, and can panic |
//!
#![doc = include_str!("c_functions.md")]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(feature = "testing")]
extern crate alloc;
// For the descriptors of a program.
#[cfg(all(feature = "testing", unix))]
extern crate std;

mod abbreviated;
mod compose;
mod counts;
pub mod descriptor;
mod dialect;
mod error;
mod header;
mod message;
mod owned;
pub mod payload;
#[doc = include_str!("../PROTOCOL.md")]
pub mod protocol {}
mod recv;
mod requests;
mod send;
mod storage;
#[cfg(feature = "testing")]
pub mod testing;
pub mod typed;
#[cfg(feature = "zeroize")]
mod wiping;

pub use compose::Compose;
pub use counts::Counts;
pub use descriptor::{Ancillary, Descriptor, DescriptorError, Fault, Missing, Pairing, Violation};
pub use dialect::{Any, Classic, Detected, Dialect, Endian, Modern};
pub use error::{BadLength, Error, NoRoom, NotOffered, ReadError, Reason, Refused, WriteError};
pub use header::{DEFAULT_MAX_LEN, Frame, HEADER_LEN, Header};
pub use message::{Message, Messages, Split, split};
pub use owned::{OwnedMessage, TooLarge};
pub use payload::{Reader, Writer};
pub use recv::{Received, RecvBuf};
pub use requests::Requests;
pub use send::{Chunk, Gathered, InPlace, Lent, Pending, SendBuf};
pub use storage::Storage;
#[cfg(feature = "zeroize")]
pub use wiping::Wiping;
