//! The messages, and what is in them.
//!
//! The id of every message is the version of the protocol. Numbers are in this machine's byte
//! order, and strings end with a NUL. A file that one side reads or writes for the other is a
//! *stream*, whose number the server chooses.

use std::os::fd::OwnedFd;

use imsg_os::imsg_wire::Writer;
use imsg_os::typed::{Encoding, Protocol, Terminated};
use imsg_os::{Any, Header, Message, ReadError, Reader, Refused, Sender, WriteError, protocol};

use super::error::Error;

/// The version that tmux has had since 2.1.
pub(crate) const VERSION: u32 = 8;

/// The version is in the lower bits of an id, and of the others tmux says nothing.
const VERSION_MASK: u32 = 0xff;

/// From the server: its version is another one. The id of this says which.
const OTHER_VERSION: u32 = 12;

protocol! {
    /// From the client.
    pub(crate) enum FromClient<'a> {
        // To introduce itself, in the order in which they are sent.

        /// What the client can do.
        111 => LongFlags(u64),
        /// The kind of its terminal.
        101 => Term(&'a [u8] as Terminated),
        /// What that can do.
        109 => Features(i32),
        /// The path of its terminal.
        102 => TtyName(&'a [u8] as Terminated),
        /// Its working directory.
        108 => Cwd(&'a [u8] as Terminated),
        /// Its standard input.
        104 => Stdin + OwnedFd,
        /// Its standard output.
        110 => Stdout + OwnedFd,
        /// Its process.
        107 => ClientPid(i32),
        /// A variable of its environment: `NAME=value`.
        105 => Environ(&'a [u8] as Terminated),
        /// That was all. Nothing of the above may follow.
        106 => Done,

        /// Run this command: strings behind each other.
        200 => Command { argc: i32, argv: &'a [u8] },
        /// The client will end.
        205 => Exiting,
        /// A part of a file.
        READ = 301 => Read { stream: i32, data: &'a [u8] },
        /// That was all of it, or an `errno`.
        302 => ReadDone { stream: i32, error: i32 },
        /// Go on, or an `errno`.
        305 => WriteReady { stream: i32, error: i32 },
    }
}

impl FromClient<'_> {
    /// The client can do UTF-8; to others, the server sends `_` in place of what is not ASCII.
    pub(crate) const UTF8: u64 = 0x10000;

    /// Queues the message.
    pub(crate) fn say(self, tx: &mut Sender<Any>) -> Result<(), Refused<OwnedFd>> {
        let Header { id, pid, .. } = header(self.msg_type());
        self.compose_as(tx, id, pid)
    }
}

/// A header as every message of tmux has it.
pub(crate) fn header(msg_type: u32) -> Header {
    Header { msg_type, id: VERSION, pid: u32::MAX }
}

protocol! {
    /// From the server, when it runs a command.
    pub(crate) enum FromServer<'a> {
        /// Detach from the session.
        201 => Detach(&'a [u8]),
        /// The same, and send a signal to the parent.
        202 => DetachKill(&'a [u8]),
        /// The command has ended, with this status and a text to print.
        203 => Exit((i32, &'a [u8]) as Ending),
        /// The client may end.
        204 => Exited,
        /// The client is attached to a session, and has its terminal no more.
        207 => Ready,
        /// The server ends.
        210 => Shutdown,
        /// What the server made of the client's flags.
        218 => Flags(u64),
        // A file has a path, or it is a descriptor of the client's and not -1. The paths do not
        // matter, as no file is opened by its path; but they have to end.

        /// Read this file.
        300 => ReadOpen { stream: i32, fd: i32, path: &'a [u8] as Last },
        /// Write this file, opened with these flags.
        303 => WriteOpen { stream: i32, fd: i32, flags: i32, path: &'a [u8] as Last },
        /// A part of it.
        WRITE = 304 => Write { stream: i32, data: &'a [u8] },
        /// That was all of it.
        WRITE_CLOSE = 306 => WriteClose { stream: i32 },
        /// Read no more of this file.
        307 => ReadCancel { stream: i32 },
    }
}

impl<'a> FromServer<'a> {
    /// What a message says, if it is of this version.
    pub(crate) fn parse(message: Message<'a>) -> Result<Self, Error> {
        let Header { msg_type, id, .. } = message.header;
        let server = id & VERSION_MASK;
        if msg_type == OTHER_VERSION || server != VERSION {
            return Err(Error::Version { server });
        }
        Ok(message.try_into()?)
    }
}

/// A string that may be left out, and is the last thing in a message.
pub(crate) enum Last {}

impl<'a> Encoding<'a, &'a [u8]> for Last {
    const TAKES_REST: bool = true;

    fn len(string: &&'a [u8]) -> usize {
        if string.is_empty() { 0 } else { Terminated::len(string) }
    }

    fn write<P>(string: &&'a [u8], writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        if string.is_empty() { Ok(()) } else { Terminated::write(string, writer) }
    }

    fn read(reader: &mut Reader<'a>) -> Result<&'a [u8], ReadError> {
        if reader.remaining() == 0 { Ok(b"") } else { Terminated::read(reader) }
    }
}

/// The status of a command and a text. Both may be left out: then it was successful.
pub(crate) enum Ending {}

impl<'a> Encoding<'a, (i32, &'a [u8])> for Ending {
    const TAKES_REST: bool = true;

    fn len((_, text): &(i32, &'a [u8])) -> usize {
        size_of::<i32>() + Last::len(text)
    }

    fn write<P>(
        (status, text): &(i32, &'a [u8]),
        writer: &mut Writer<'_, P>,
    ) -> Result<(), WriteError> {
        writer.add(status)?;
        Last::write(text, writer)
    }

    fn read(reader: &mut Reader<'a>) -> Result<(i32, &'a [u8]), ReadError> {
        if reader.remaining() == 0 {
            return Ok((0, b""));
        }
        Ok((reader.get_value()?, Last::read(reader)?))
    }
}
