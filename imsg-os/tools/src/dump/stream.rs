//! Messages out of a stream of bytes, one at a time.

use std::fmt;
use std::io::{self, Read};

use imsg_os::imsg_wire::{Detected, Frame, split};
use imsg_os::{Any, BadLength, Dialect, Endian, HEADER_LEN};

use crate::dialect::name;

/// How much is read at a time at most.
const CHUNK: usize = 64 * 1024;

/// How the headers are to be read.
#[derive(Clone, Copy)]
pub(crate) enum Framing {
    /// In a dialect that is known.
    Given(Any),
    /// In the dialect that they tell.
    Detect { order: Endian, max_len: u16 },
}

/// A message, and where it was found.
pub(crate) struct Entry<'a> {
    pub(crate) offset: u64,
    /// The dialect, unless its header may be of either.
    pub(crate) told: Option<Any>,
    pub(crate) frame: Frame,
    pub(crate) payload: &'a [u8],
}

/// Keeps no more of the stream than one message and what was read last.
pub(crate) struct Stream<R> {
    input: R,
    framing: Framing,
    max_len: usize,
    /// The dialect that only one kind of sender writes, and where that header is.
    told: Option<(Any, u64)>,
    buf: Vec<u8>,
    /// Where in `buf` the next message starts.
    start: usize,
    /// Where in `buf` the bytes end that were read.
    end: usize,
    /// The stream offset of `start`.
    offset: u64,
    /// How many bytes the message at `start` has, as far as known.
    need: usize,
}

impl<R: Read> Stream<R> {
    pub(crate) fn new(input: R, framing: Framing, max_len: usize) -> Self {
        let buf = vec![0; CHUNK];
        let need = HEADER_LEN;
        Self { input, framing, max_len, told: None, buf, start: 0, end: 0, offset: 0, need }
    }

    /// Takes a message that was read before; `None` when none is complete.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry<'_>>, Error> {
        let offset = self.offset;
        let unread = &self.buf[self.start..self.end];
        let Some(header) = unread.first_chunk() else {
            self.need = HEADER_LEN;
            return Ok(None);
        };
        let (told, dialect) = match self.framing {
            Framing::Given(dialect) => (Some(dialect), dialect),
            Framing::Detect { order, max_len } => {
                let told = dialect_of(header, order, max_len, offset)?;
                agree(&mut self.told, told, offset)?;
                // When it may be either, they mean the same.
                (told, told.unwrap_or(Any::Modern(order)))
            }
        };
        let message = split(&dialect, unread, self.max_len)
            .map_err(|error| Error::Length { offset, error })?;
        let Some((frame, payload, _)) = message else {
            self.need = dialect.decode(header).len;
            return Ok(None);
        };
        self.start += frame.len;
        self.offset += frame.len as u64;
        Ok(Some(Entry { offset, told, frame, payload }))
    }

    /// Reads on, once there is no complete message left. `false` is the end of the stream.
    pub(crate) fn read(&mut self) -> Result<bool, Error> {
        // Not every system's copy sees that there is nothing to move, for each part of a long message.
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buf.len() {
            // A message that is longer than this, and not longer than the maximum.
            let more = self.buf.try_reserve_exact(self.end);
            more.map_err(|_| Error::Memory { offset: self.offset, need: self.need })?;
            self.buf.resize(self.end * 2, 0);
        }
        let room = self.buf.len().min(self.end + CHUNK);
        loop {
            match self.input.read(&mut self.buf[self.end..room]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Checks that the stream ended behind a message.
    pub(crate) fn expect_end(&self) -> Result<(), Error> {
        match self.end - self.start {
            0 => Ok(()),
            have => Err(Error::Truncated { offset: self.offset, have, need: self.need }),
        }
    }
}

/// The dialect that a header tells, if only one has such a header.
fn dialect_of(
    header: &[u8; HEADER_LEN],
    order: Endian,
    max_len: u16,
    offset: u64,
) -> Result<Option<Any>, Error> {
    let (classic, modern) = (Any::Classic(order), Any::Modern(order));
    match Detected::of(header, order, max_len) {
        Detected::Classic => Ok(Some(classic)),
        Detected::Modern => Ok(Some(modern)),
        Detected::Either => Ok(None),
        Detected::Contradicts => {
            let wrong = |dialect| split(&dialect, header, max_len.into()).err();
            Err(Error::NoDialect { offset, classic: wrong(classic), modern: wrong(modern) })
        }
    }
}

/// Checks that headers which only one dialect has are all of the same.
fn agree(before: &mut Option<(Any, u64)>, told: Option<Any>, offset: u64) -> Result<(), Error> {
    let Some(told) = told else { return Ok(()) };
    match *before.get_or_insert((told, offset)) {
        (other, at) if other != told => Err(Error::Mixed { offset, told, other, at }),
        _ => Ok(()),
    }
}

/// Why no more messages can be found.
pub(crate) enum Error {
    Io(io::Error),
    Length {
        offset: u64,
        error: BadLength,
    },
    /// No dialect has such a header; each with what is wrong with its length there.
    NoDialect {
        offset: u64,
        classic: Option<BadLength>,
        modern: Option<BadLength>,
    },
    /// Different headers tell different dialects.
    Mixed {
        offset: u64,
        told: Any,
        other: Any,
        at: u64,
    },
    Truncated {
        offset: u64,
        have: usize,
        need: usize,
    },
    /// The system does not give this program enough for such a message.
    Memory {
        offset: u64,
        need: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Length { offset, error } => write!(f, "at offset {offset}, {error}"),
            Self::NoDialect { offset, classic: Some(classic), modern: Some(modern) } => {
                if classic == modern {
                    return write!(f, "at offset {offset}, {classic}");
                }
                write!(f, "at offset {offset}, a header of neither dialect: ")?;
                write!(f, "as a classic one, {classic}; as a modern one, {modern}")
            }
            Self::NoDialect { offset, classic: None, modern: Some(modern) } => {
                write!(f, "at offset {offset}, a header of neither dialect: ")?;
                write!(f, "as a classic one, it has unknown flags; as a modern one, {modern}")
            }
            Self::NoDialect { offset, .. } => {
                write!(f, "at offset {offset}, a header of neither dialect")
            }
            Self::Mixed { offset, told, other, at } => {
                let (told, other) = (name(Some(*told)), name(Some(*other)));
                write!(f, "at offset {offset}, a {told} header in a stream that is {other} ")?;
                write!(f, "by the header at offset {at}")
            }
            Self::Truncated { offset, have, need } => {
                write!(f, "the stream ends inside the message at offset {offset}, ")?;
                write!(f, "after {have} of {need} bytes")
            }
            Self::Memory { offset, need } => {
                write!(f, "at offset {offset}, no memory is left for a message of {need} bytes")
            }
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
