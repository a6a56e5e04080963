//! Payloads, field by field: what `ibuf` does, over borrowed bytes.
//!
//! The names are those of `ibuf_add(3)`: `n16` is a 16-bit number in network order (big-endian),
//! `h16` one in the host's order, a *strbuf* is a string in a field of fixed size, padded with
//! NUL. A call that fails changes nothing.
//!
//! # C structs
//!
//! Most programs send C structs as they lie in memory. [`Reader`] and [`Writer`] take any type
//! for which `zerocopy` can see that all bytes are accounted for. Padding is not: name it.
//!
//! ```c
//! struct request {        /* 16 bytes */
//!     uint8_t  kind;      /* then 3 bytes of padding */
//!     uint32_t count;
//!     uint64_t cookie;
//! };
//! ```
//!
//! ```
//! use imsg_wire::{Header, Modern, Reader, SendBuf};
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
//! #[repr(C)]
//! struct Request {
//!     kind: u8,
//!     _padding: [u8; 3],
//!     count: u32,
//!     cookie: u64,
//! }
//!
//! let request = Request { kind: 1, _padding: [0; 3], count: 2, cookie: 3 };
//! let mut queue = SendBuf::new(Modern::new(), [0; 64]);
//! queue.compose(Header::new(1), &request, None)?;
//!
//! let payload = &queue.chunk().unwrap().bytes[16..];
//! let received: Request = Reader::new(payload).data()?;
//! assert_eq!((received.kind, received.count, received.cookie), (1, 2, 3));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! Without the named padding, `derive(IntoBytes)` does not compile. In C it does, and the padding
//! carries whatever was in memory to the other process.
//!
//! A payload has no alignment, so a `Request` is copied out. A type that needs none, as its fields
//! are byte arrays or the integers of [`zerocopy::byteorder`], can be borrowed with
//! [`get_ref`](Reader::get_ref). A struct followed by packed strings, such as the commands that
//! tmux sends, is read in steps:
//!
//! ```
//! use imsg_wire::Reader;
//! use zerocopy::{FromBytes, IntoBytes};
//!
//! #[derive(FromBytes)]
//! #[repr(C)]
//! struct MsgCommand {
//!     argc: i32,
//! }
//!
//! let payload = [2_i32.to_ne_bytes().as_slice(), b"new-session\0", b"-d\0"].concat();
//! let mut reader = Reader::new(&payload);
//! let command: MsgCommand = reader.get_value()?;
//! let arguments: Result<Vec<_>, _> = (0..command.argc).map(|_| reader.get_cstr()).collect();
//! assert_eq!(arguments?, [c"new-session", c"-d"]);
//! reader.expect_end()?;
//! # Ok::<(), imsg_wire::ReadError>(())
//! ```

mod count;
mod numbers;
mod reader;
mod writer;

pub use count::Count;
pub use reader::Reader;
pub use writer::Writer;
