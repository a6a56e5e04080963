//! imsg over Unix sockets: whole messages, and file descriptors, between processes.
//!
//! A [`Channel`] is a stream socket with a queue of messages in each direction. It never allocates
//! after construction. The protocol is in [`imsg_wire`]; this crate makes the system calls.
//!
//! ```
//! use imsg_os::{Channel, Descriptor, Header, Modern};
//! use std::io::Read;
//!
//! let (mut parent, mut worker) = Channel::pair(Modern::new())?;
//! worker.rx.allow_descriptors();
//!
//! let file = std::fs::File::open("Cargo.toml")?;
//! parent.tx.compose(Header::new(1), b"read this", Some(file.into()))?;
//! parent.tx.flush()?;
//!
//! let message = worker.rx.recv()?.expect("the parent is there");
//! assert_eq!(message.payload, b"read this");
//! let Descriptor::Here(file) = message.descriptor else { panic!("no descriptor") };
//! let mut text = String::new();
//! std::fs::File::from(file).read_to_string(&mut text)?;
//! assert!(text.contains("imsg"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Three programs show it at work: `privsep` is a parent that opens files and a sandboxed worker that
//! reads them, `tmux` a client of a real server, with an event loop, and `dump` a decoder of captured
//! streams. They are in `examples/`.

#![deny(missing_docs)]
#![deny(unsafe_code)]

mod channel;
mod error;
mod sys;

pub use channel::{
    Channel, Message, Messages, ReadOutcome, Receiver, Sender, WriteOutcome, Writer,
};
pub use error::{NotAStream, RecvError, SendError};
pub use imsg_wire;
#[cfg(feature = "zeroize")]
pub use imsg_wire::Wiping;
pub use imsg_wire::{
    Any, BadLength, Classic, DEFAULT_MAX_LEN, Descriptor, Dialect, Endian, Error, Fault,
    HEADER_LEN, Header, Missing, Modern, OwnedMessage, Pairing, ReadError, Reader, Reason, Refused,
    Storage, Violation, WriteError,
};
pub use sys::{Credentials, inherited};
