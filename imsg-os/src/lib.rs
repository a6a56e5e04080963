//! imsg over Unix sockets: whole messages, and file descriptors, between processes.
//!
//! A [`Channel`] is a stream socket with a queue of messages in each direction. It never allocates
//! after construction. The protocol is in [`imsg_wire`]; this crate makes the system calls.
//! With the feature `tokio`, the module of that name has a channel to be awaited.
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
//! ```text
//! socket ──► rx: Receiver ──► Message ──► program ──► tx: Sender ──► socket
//! ```
//!
//! Programs in `examples/` show it at work. To begin with, `pass_descriptor` has two processes,
//! `imsg_init` is what the manual page of that name shows, and `tasks_tokio` a server with two tasks
//! for each client. `privsep` is a parent that opens files and a sandboxed worker that reads
//! them, and `echo_poll`, `echo_mio` and `echo_tokio` are servers for many clients. `supervisor` is
//! a daemon to begin one with: two workers that talk to each other, a configuration that is read
//! again, and a parent that starts those again that die. The command `imsg`, in `tools/`, is a
//! larger program: a decoder of captured streams, a relay, and a client of tmux.
//!
//! # Blocking, event loops, tokio
//!
//! | | receive | send |
//! | --- | --- | --- |
//! | blocking | [`Receiver::recv`] | [`Sender::compose`], then [`Sender::flush`] |
//! | event loop | [`Channel::turn`] and [`Poll`]; or [`Receiver::read`] and then [`Receiver::messages`] | the same; or [`Sender::compose`] and then [`Sender::write`]. [`Channel`](Channel#in-an-event-loop) tells how to write one |
//! | tokio | `tokio::Receiver::recv` | `tokio::Sender::reserve`, `compose`, then `flush`; `tokio::Client` for calls |
//!
//! Nothing is sent before it is flushed or written, and what is queued when a channel is dropped is
//! lost. No call is ended by a signal. To limit the time of one read without an event loop, give the
//! socket a limit before it becomes a channel ([`UnixStream::set_read_timeout`]) and use
//! [`Receiver::read`], which then says [`ReadOutcome::WouldBlock`] when the time is over;
//! [`Receiver::recv`] waits on. A peer that sends a byte now and then is never late by that: the time
//! for a whole message is for the program to count, by a [`Deadline`].
//!
//! A [`Turn`] of an event loop is bounded in messages, so that other peers have theirs, and never
//! forgets a message that it held back for want of room. [`Poll`] waits for all channels at once, and
//! has one limit of time for all that there are. [`Requests`] keeps what waits for a reply, and
//! [`Restarts`] tells when to start a worker again that died. [`Receiver::received`] and
//! [`Sender::sent`] are numbers to watch.
//!
//! A flush waits in vain when the peer shuts down its *reading* side (`SHUT_RD`) and the socket is
//! full, as `poll` does not say so: a send has to fail. [`Sender::flush`] tries once a
//! second. An event loop, and tokio's flush, learn it when they next try: give them a time limit.
//!
//! [`UnixStream::set_read_timeout`]: std::os::unix::net::UnixStream::set_read_timeout
//!
//! # When something is wrong
//!
//! | | means | so |
//! | --- | --- | --- |
//! | [`RecvError::Protocol`] | the peer broke the protocol, or the stream ended inside a message | it is final: drop the channel |
//! | [`RecvError::Io`] | the system call failed; `ECONNRESET` when the peer closed without reading all | drop the channel, once the messages that came before are taken |
//! | [`RecvError::Full`] | messages must be taken first | take them, then read on |
//! | [`RecvError::DescriptorLimit`] | a descriptor would be lost | close some, then read on |
//! | [`Missing`] in a message | its descriptor is not there; the message is whole | refuse what it asks for |
//! | [`Refused`] | the message was not queued; the descriptor is given back | flush, then compose again; but [`Reason::TooLong`] never fits, and a message whose descriptor is [`Reason::Missing`] is not forwarded |
//! | `EPIPE`, `ECONNRESET`, `ENOTCONN` from a flush | the peer is gone, or reads no more | messages it sent before can still be received |
//! | `ETOOMANYREFS` (Linux), `EMFILE` (OpenBSD) from a flush | too many descriptors are on their way | try again when the peer has read |
//! | `ENOBUFS`, `ENOMEM` from a flush | the system has no memory for it | try again later |
//! | `EPERM` from a flush (Linux) | the peer [refuses descriptors](Receiver::refuse_descriptors), or a security module does | [take the message back](Sender::take_back), and tell its author |
//! | `EINVAL` from a flush (Linux) | its descriptor cannot be sent, as that of an `io_uring` | the same |
//!
//! [`RecvError`] and [`SendError`] become a [`std::io::Error`] by `?`, of which the details are lost
//! but for an error number or a kind. [`Refused`] becomes a [`SendError`], and what [`Receiver::next_message`] and
//! [`Receiver::messages`] return becomes a [`RecvError`]. What a peer did exactly is in
//! [`imsg_wire::Error`]:
//!
//! ```
//! # use imsg_os::{Channel, Error, Header, Modern, RecvError};
//! # use std::io::Write;
//! # use std::os::unix::net::UnixStream;
//! # let (socket, mut peer) = UnixStream::pair()?;
//! # peer.write_all(&[0; 16])?;
//! # let mut channel = Channel::new(socket, Modern::new())?;
//! match channel.rx.recv() {
//!     Ok(Some(message)) => println!("{message:?}"),
//!     Ok(None) => println!("the peer closed its end"),
//!     Err(RecvError::Protocol(Error::Length { offset, error })) => {
//! #       assert_eq!((offset, error.len), (0, 0));
//!         println!("the message at byte {offset} cannot have {} bytes", error.len);
//!     }
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A peer that dies or hangs up shows in one of these ways: the end of the stream, `None`, between
//! two messages; [`Error::Truncated`] inside one; `ECONNRESET` once, on Linux, if it left something
//! of ours unread, and then the end; `EPIPE` or `ECONNRESET` when something is sent to it. What it
//! sent before can still be received, so receive to the end before giving up on a failed flush. Why
//! it died, a process that started it learns from `Child::wait`, which says more than the channel.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! | --- | --- |
//! | `arbitrary` | `testing::Stream`, what a peer of a declared protocol may send, to fuzz a handler |
//! | `process` | `imsg_os::process`, programs that are started with a channel, ended and reaped |
//! | `testing` | `imsg_os::testing`, two ends joined in memory, to test a handler without sockets |
//! | `tokio` | `imsg_os::tokio`, a channel to be awaited, whose futures are cancel safe, and a client for calls |
//! | `zeroize` | `Wiping`, a storage that overwrites what is not needed any more |
//!
//! # Coming from C, or from `privsep`
//!
//! The table of functions is on the page of [`imsg_wire`]. Where it names a method of `RecvBuf` or
//! `SendBuf`, [`Receiver`] or [`Sender`] has one of the same name, or does it itself.
//!
//! The crate `privsep` sends the classic header and never marks a message that has a descriptor. A
//! program that talks to one sets [`Pairing::Unmarked`] on its receiver; what it sends itself is
//! marked, which `privsep` does not look at. What `privsep` does beside messages, to start processes
//! and to drop their privileges, this crate leaves to others, such as `command-fds` and `nix`, but for
//! the feature `process`.
//!
//! # Testing a handler
//!
//! A handler that is generic over [`Compose`], in place of a [`Sender`], can be tested without sockets:
//! with the feature `testing`, `imsg_os::testing` joins it to a client in memory, cuts what both send at
//! any byte and drops descriptors, as any kernel may. Its page also shows how to fuzz it, and that of
//! `imsg_os::tokio` how to test limits of time.
//!
//! # Starting a process with a channel
//!
//! The worker finds its end as descriptor 3, and takes it up with [`inherited`]. With the feature
//! `process`, `process::Worker` starts it, ends it and reaps it, as in `pass_descriptor`; `imsg_init` does it by
//! hand, with the crate `command-fds`. What matters is that the parent keeps no copy of the worker's
//! end: the end of the worker would go unnoticed.
//!
//! # Typed protocols
//!
//! [`protocol!`] declares what one side says: type numbers, fields, and whether a descriptor comes
//! with a message. The enum that it makes is composed to a sender and made of a received message,
//! and what is not of the protocol is an error that says why, and gives the descriptor back. What
//! stands in the payload for each kind of field is on the page of [`typed`]. The examples
//! `pass_descriptor`, `privsep` and `supervisor` do it so.
//!
//! ```
//! use imsg_os::typed::Protocol;
//! use imsg_os::{Channel, Modern, protocol};
//! use std::os::fd::OwnedFd;
//!
//! protocol! {
//!     enum Request<'a> {
//!         1 => Resize { width: u32, height: u32 },
//!         2 => Print(&'a str),
//!         3 => Read { name: &'a str } + OwnedFd,
//!     }
//! }
//! # use imsg_os::Header;
//! # let (mut ours, mut theirs) = Channel::pair(Modern::new())?;
//! # theirs.rx.allow_descriptors();
//! # let descriptor = std::fs::File::open("/dev/null")?.into();
//!
//! Request::Resize { width: 80, height: 24 }.compose(&mut ours.tx, 1)?;
//! Request::Print("hello").compose(&mut ours.tx, 2)?;
//! Request::Read { name: "null", descriptor }.compose(&mut ours.tx, 3)?;
//! ours.tx.flush()?;
//! # ours.tx.compose(Header::new(1), b"short", None)?;
//! # ours.tx.compose(Header::new(4), b"", None)?;
//! # ours.tx.flush()?;
//! # drop(ours);
//!
//! # let mut seen = Vec::new();
//! while let Some(message) = theirs.rx.recv()? {
//!     match Request::try_from(message) {
//!         Ok(Request::Resize { width, .. }) => println!("{width} columns"),
//!         Ok(Request::Print(text)) => println!("{text}"),
//!         Ok(Request::Read { name, descriptor: _file }) => println!("to read: {name}"),
//!         Err(bad) => {
//! #           seen.push(bad.to_string());
//!             println!("refused: {bad}");
//!         }
//!     }
//! }
//! # assert_eq!(seen.len(), 2);
//! # assert!(seen[0].contains("width") || seen[0].contains("height"), "{}", seen[0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Systems
//!
//! Tested on Linux. For Android, FreeBSD, NetBSD, macOS, OpenBSD and DragonFly it is
//! compiled; it was run on none of them. What their kernels do otherwise was read in
//! their sources, is listed in [`mod@imsg_wire::protocol`], and is treated so:
//!
//! - Where a read fails as this process cannot have a descriptor (the BSDs, macOS), the message has
//!   it [dropped](Missing::Dropped), as on Linux. On FreeBSD since 15, which may lose data then, the
//!   read fails.
//! - On the BSDs and macOS, descriptors that are not wanted are received and closed, but not on
//!   FreeBSD since 15.
//! - On macOS and NetBSD, a send that must not wait asks `poll` first, as `MSG_DONTWAIT` is only for
//!   reads there.
//! - On macOS, a received descriptor is made close-on-exec right after it arrives and not by the
//!   same call.
//! - On macOS and NetBSD, `EMSGSIZE` for a descriptor is a full socket.
//! - Only Linux tells the pid of a peer, and can [keep a reserve](Receiver::keep_reserve) and
//!   [refuse descriptors](Receiver::refuse_descriptors).
//!
//! On Linux, no send with a descriptor waits in the kernel, as gVisor, which looks like Linux, loses
//! it then: `poll` waits in its place, as long as the time-out of the socket (`SO_SNDTIMEO`) says.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod blocking;
pub mod channel;
mod deadline;
mod error;
mod poll;
#[cfg(feature = "process")]
pub mod process;
pub mod raw;
mod reserve;
mod restarts;
mod sys;
#[cfg(feature = "tokio")]
pub mod tokio;
mod turn;

pub use blocking::{Channel, Receiver, Sender};
pub use channel::receiver::{Message, ReadOutcome, Received};
pub use channel::sender::{WriteOutcome, Writer};
pub use deadline::Deadline;
pub use error::{NotAStream, RecvError, SendError, is_peer_gone};
pub use imsg_wire;
#[cfg(feature = "zeroize")]
pub use imsg_wire::Wiping;
#[cfg(feature = "testing")]
#[doc(no_inline)]
pub use imsg_wire::testing;
pub use imsg_wire::{
    Any, BadLength, Classic, Compose, Counts, DEFAULT_MAX_LEN, Descriptor, DescriptorError,
    Dialect, Endian, Error, Fault, HEADER_LEN, Header, Missing, Modern, OwnedMessage, Pairing,
    ReadError, Reader, Reason, Refused, Requests, Storage, TooLarge, Violation, WriteError,
};
#[doc(no_inline)]
pub use imsg_wire::{protocol, typed};
pub use poll::{Poll, Waits};
pub use restarts::Restarts;
pub use sys::{Credentials, Pages, inherited};
pub use turn::{Next, Turn, TurnError};
