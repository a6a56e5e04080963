//! What is sent, and what comes back.

use std::fmt;
use std::io::{self, PipeReader};
use std::os::fd::AsFd;

use imsg_os::imsg_wire::Frame;
use imsg_os::{Any, Descriptor, Dialect, HEADER_LEN, Header};
use nix::libc::{dev_t, ino_t};
use nix::sys::stat::fstat;

/// The device of a file, and its number there.
pub(crate) type Identity = (dev_t, ino_t);

/// A message to be sent.
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    /// Whether its header says that it has a descriptor.
    pub(crate) marked: bool,
    pub(crate) file: Option<File>,
}

/// A file that can be told from all others: one end of a pipe.
pub(crate) struct File {
    pub(crate) pipe: PipeReader,
    pub(crate) identity: Identity,
}

impl File {
    pub(crate) fn new() -> io::Result<Self> {
        let (pipe, _) = io::pipe()?;
        let identity = identity(&pipe)?;
        Ok(Self { pipe, identity })
    }
}

impl Message {
    pub(crate) fn plain(header: Header, len: usize) -> Self {
        Self { header, payload: noise(header.msg_type, len), marked: false, file: None }
    }

    /// One that has a descriptor, and says so.
    pub(crate) fn with_file(header: Header, len: usize) -> io::Result<Self> {
        Ok(Self { marked: true, file: Some(File::new()?), ..Self::plain(header, len) })
    }

    pub(crate) fn bytes(&self, dialect: Any) -> Vec<u8> {
        let len = HEADER_LEN + self.payload.len();
        let frame = Frame { header: self.header, len, marked: self.marked };
        [&dialect.encode(&frame)[..], &self.payload].concat()
    }

    /// What is to come back.
    pub(crate) fn due(&self) -> Answer {
        let file = self.file.as_ref().filter(|_| self.marked).map(|file| file.identity);
        Answer { header: self.header, payload: self.payload.clone(), file, is_missing: false }
    }
}

/// A message that came back.
#[derive(PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    pub(crate) file: Option<Identity>,
    /// Whether it is marked, and there is no descriptor.
    pub(crate) is_missing: bool,
}

impl Answer {
    /// Takes a message that was received, and closes its descriptor.
    pub(crate) fn of(message: imsg_os::Message<'_>) -> io::Result<Self> {
        let (header, payload) = (message.header, message.payload.to_vec());
        let (file, is_missing) = match message.descriptor {
            Descriptor::None => (None, false),
            Descriptor::Here(descriptor) => (Some(identity(&descriptor)?), false),
            Descriptor::Missing(_) => (None, true),
        };
        Ok(Self { header, payload, file, is_missing })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header { msg_type, id, pid } = self.header;
        let len = self.payload.len();
        write!(f, "type {msg_type} id {id} pid {pid} payload {len}")?;
        match self.file {
            Some((_, file)) => write!(f, " with file {file}"),
            None if self.is_missing => f.write_str(" marked, but without a file"),
            None => f.write_str(" without a file"),
        }
    }
}

fn identity(file: &impl AsFd) -> io::Result<Identity> {
    let stat = fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Bytes that depend on where they are and in which message.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}
