//! The messages, and what is in them.
//!
//! The id of every message is the version of the protocol. Numbers are in this machine's byte
//! order, and strings end with a NUL. A file that one side reads or writes for the other is a
//! *stream*, whose number the server chooses.

use imsg_os::{Header, Message, ReadError, Reader};
use zerocopy::native_endian::{I32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Error;

/// The version that tmux has had since 2.1.
pub(crate) const VERSION: u32 = 8;

/// The version is in the lower bits of an id, and of the others tmux says nothing.
const VERSION_MASK: u32 = 0xff;

/// From the server: its version is another one. The id of this says which.
pub(crate) const OTHER_VERSION: u32 = 12;

// From the client, to introduce itself; in the order in which they are sent.

/// What the client can do: a [`LongFlags`].
pub(crate) const IDENTIFY_LONGFLAGS: u32 = 111;
/// The kind of its terminal: a string.
pub(crate) const IDENTIFY_TERM: u32 = 101;
/// What that can do: a [`Number`].
pub(crate) const IDENTIFY_FEATURES: u32 = 109;
/// The path of its terminal: a string.
pub(crate) const IDENTIFY_TTYNAME: u32 = 102;
/// Its working directory: a string.
pub(crate) const IDENTIFY_CWD: u32 = 108;
/// Its standard input, as a descriptor.
pub(crate) const IDENTIFY_STDIN: u32 = 104;
/// Its standard output, as a descriptor.
pub(crate) const IDENTIFY_STDOUT: u32 = 110;
/// Its process: a [`Number`].
pub(crate) const IDENTIFY_CLIENTPID: u32 = 107;
/// A variable of its environment: a string `NAME=value`.
pub(crate) const IDENTIFY_ENVIRON: u32 = 105;
/// That was all. Nothing of the above may follow.
pub(crate) const IDENTIFY_DONE: u32 = 106;

/// From the client: run this command. A [`Number`] of strings, which follow it.
pub(crate) const COMMAND: u32 = 200;
/// From the server: detach from the session.
const DETACH: u32 = 201;
/// From the server: the same, and send a signal to the parent.
const DETACHKILL: u32 = 202;
/// From the server: the command has ended. Nothing, or a [`Number`], its status, and a string to
/// print.
const EXIT: u32 = 203;
/// From the server: the client may end.
const EXITED: u32 = 204;
/// From the client: it will end.
pub(crate) const EXITING: u32 = 205;
/// From the server: the client is attached to a session, and has its terminal no more.
const READY: u32 = 207;
/// From the server: it ends.
const SHUTDOWN: u32 = 210;
/// From the server: what it made of the client's flags.
const FLAGS: u32 = 218;

/// From the server: read this file. An [`Open`], and a path.
const READ_OPEN: u32 = 300;
/// From the client: a part of it. A [`Stream`], and data.
pub(crate) const READ: u32 = 301;
/// From the client: that was all of it. An [`Outcome`].
pub(crate) const READ_DONE: u32 = 302;
/// From the server: write this file. An [`OpenToWrite`], and a path.
const WRITE_OPEN: u32 = 303;
/// From the server: a part of it. A [`Stream`], and data.
pub(crate) const WRITE: u32 = 304;
/// From the client: go on, or do not. An [`Outcome`].
pub(crate) const WRITE_READY: u32 = 305;
/// From the server: that was all of it. A [`Stream`].
pub(crate) const WRITE_CLOSE: u32 = 306;
/// From the server: read no more of this file. A [`Stream`].
const READ_CANCEL: u32 = 307;

/// A message from the server, when it runs a command. Its types, above, say what each is for.
pub(crate) enum FromServer<'a> {
    ReadOpen(&'a Open),
    ReadCancel(Stream),
    WriteOpen(&'a Open),
    Write(Stream, &'a [u8]),
    WriteClose(Stream),
    Exit { status: i32, text: &'a [u8] },
    Detach,
    Exited,
    Shutdown,
    Flags,
    Ready,
}

impl<'a> TryFrom<&Message<'a>> for FromServer<'a> {
    type Error = Error;

    fn try_from(message: &Message<'a>) -> Result<Self, Error> {
        let Header { msg_type, id, .. } = message.header;
        let server = id & VERSION_MASK;
        if msg_type == OTHER_VERSION || server != VERSION {
            return Err(Error::Version { server });
        }
        let mut reader = message.reader();
        let known = match msg_type {
            READ_OPEN => read_open(reader).map(Self::ReadOpen),
            READ_CANCEL => reader.data().map(Self::ReadCancel),
            WRITE_OPEN => write_open(reader).map(Self::WriteOpen),
            WRITE => reader.get_value().map(|stream| Self::Write(stream, reader.rest())),
            WRITE_CLOSE => reader.data().map(Self::WriteClose),
            EXIT => exit(reader).map(|(status, text)| Self::Exit { status, text }),
            DETACH | DETACHKILL => Ok(Self::Detach),
            EXITED => Ok(Self::Exited),
            SHUTDOWN => Ok(Self::Shutdown),
            FLAGS => Ok(Self::Flags),
            READY => Ok(Self::Ready),
            _ => return Err(Error::Unexpected { msg_type }),
        };
        known.map_err(|error| Error::Payload { msg_type, error })
    }
}

/// A header as every message of tmux has it.
pub(crate) fn header(msg_type: u32) -> Header {
    Header { msg_type, id: VERSION, pid: u32::MAX }
}

#[derive(IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LongFlags(U64);

impl LongFlags {
    /// The client takes UTF-8; to others, the server sends `_` in place of what is not ASCII.
    pub(crate) const UTF8: Self = Self(U64::new(0x10000));
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Number(pub(crate) I32);

#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub(crate) struct Stream(pub(crate) I32);

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Open {
    pub(crate) stream: Stream,
    /// A descriptor of the client's; -1 to open the path.
    pub(crate) fd: I32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OpenToWrite {
    open: Open,
    /// Of `open`.
    _flags: I32,
}

/// How it went with a stream: 0, or an `errno`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Outcome {
    pub(crate) stream: Stream,
    pub(crate) error: I32,
}

// The paths do not matter, as no file is opened by its path; but they have to end.

fn read_open(mut reader: Reader<'_>) -> Result<&Open, ReadError> {
    let open = reader.get_ref()?;
    last_string(reader)?;
    Ok(open)
}

fn write_open(mut reader: Reader<'_>) -> Result<&Open, ReadError> {
    let OpenToWrite { open, .. } = reader.get_ref()?;
    last_string(reader)?;
    Ok(open)
}

/// The status of a command, and a text to print.
fn exit(mut reader: Reader<'_>) -> Result<(i32, &[u8]), ReadError> {
    if reader.remaining() == 0 {
        return Ok((0, b""));
    }
    let Number(status) = reader.get_value()?;
    Ok((status.get(), last_string(reader)?))
}

/// Reads a string that may be left out, and is the last thing in a message.
fn last_string(mut reader: Reader<'_>) -> Result<&[u8], ReadError> {
    if reader.remaining() == 0 {
        return Ok(b"");
    }
    let string = reader.get_cstr()?;
    reader.expect_end()?;
    Ok(string.to_bytes())
}
