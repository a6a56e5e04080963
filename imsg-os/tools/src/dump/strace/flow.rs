//! One direction of a socket, as one process sees it.

use std::fmt;

use imsg_os::imsg_wire::{Ancillary, Detected, Message, RecvBuf, split};
use imsg_os::{Any, Dialect, Endian, HEADER_LEN, Pages};

use super::call::Moved;
use crate::relay::Side;

/// The memory for what a stream has that is not printed yet: more than what is read at a time and a
/// message that has begun.
const BUFFER: usize = 256 * 1024;

/// How many descriptors may wait for their messages.
const FILES: usize = 16;

type Buffer = RecvBuf<Side, Pages, String, FILES>;

pub(super) struct Flow {
    state: State,
    side: Side,
}

enum State {
    /// The first byte that comes is the first of the stream.
    AtStart,
    /// It began before the log, so that a message has to be found.
    Unknown,
    /// It is a stream of messages.
    Known(Box<Buffer>),
    /// It is something else, or over, or broken.
    Over,
}

impl Flow {
    pub(super) fn new(dialect: Option<Any>, from_start: bool) -> Self {
        let state = if from_start { State::AtStart } else { State::Unknown };
        Self { state, side: Side::new(dialect) }
    }

    /// Whether nothing of it is unfinished.
    pub(super) fn is_between(&self) -> bool {
        !matches!(&self.state, State::Known(buf) if buf.unread_bytes() > 0)
    }

    /// Takes what was received or sent, and gives the messages that are complete now, with the names of
    /// their dialects. Returns what there is to note.
    pub(super) fn take(
        &mut self,
        moved: &Moved,
        print: impl FnMut(Message<'_, String>, &'static str),
    ) -> Result<Option<String>, Broken> {
        let mut bytes = &moved.bytes[..];
        let mut note = None;
        match self.state {
            State::Over => return Ok(None),
            State::AtStart if self.may_begin(bytes) => self.state = State::Known(self.buffer()?),
            State::AtStart => self.state = State::Over,
            State::Unknown => {
                if let Some(skipped) = self.first_message(bytes) {
                    note = Some(format!(
                        "a stream that began before the log: {skipped} bytes skipped"
                    ));
                    bytes = &bytes[skipped..];
                    self.state = State::Known(self.buffer()?);
                }
            }
            State::Known(_) => {}
        }
        let State::Known(buf) = &mut self.state else { return Ok(None) };
        let taken = if moved.count == 0 {
            end(buf).map(|()| false)
        } else {
            feed(buf, &self.side, bytes, moved, print).map(|()| true)
        };
        if !matches!(taken, Ok(true)) {
            self.state = State::Over;
        }
        taken.map(|_| note)
    }

    fn buffer(&self) -> Result<Box<Buffer>, Broken> {
        let storage = Pages::new(BUFFER).map_err(|_| Broken("no memory is left for it".into()))?;
        let mut buf = Box::new(RecvBuf::with_descriptors(self.side.clone(), storage));
        // It is less than the buffer.
        let _ = buf.set_max_len(Dialect::max_len(&self.side));
        buf.allow_descriptors();
        Ok(buf)
    }

    /// Whether a stream of messages can begin so.
    fn may_begin(&self, bytes: &[u8]) -> bool {
        bytes.first_chunk().is_none_or(|header| self.is_header(header))
    }

    fn is_header(&self, header: &[u8; HEADER_LEN]) -> bool {
        match self.side.known() {
            Some(dialect) => split(&dialect, header, Dialect::max_len(&self.side)).is_ok(),
            None => Detected::of(header, Endian::NATIVE, u16::MAX) != Detected::Contradicts,
        }
    }

    /// Where the first message begins, as far as one can tell: from there on, one message follows the
    /// other to the end of these bytes.
    fn first_message(&self, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|start| self.are_messages(&bytes[*start..]))
    }

    /// Whether these are messages, and at least one is whole.
    fn are_messages(&self, mut bytes: &[u8]) -> bool {
        let mut whole = 0;
        while let Some(header) = bytes.first_chunk() {
            if !self.is_header(header) {
                return false;
            }
            let dialect = self.side.known().unwrap_or_else(|| {
                let classic = Any::Classic(Endian::NATIVE);
                match Detected::of(header, Endian::NATIVE, u16::MAX) {
                    Detected::Classic => classic,
                    _ => Any::Modern(Endian::NATIVE),
                }
            });
            let len = dialect.decode(header).len;
            match bytes.get(len..) {
                Some(rest) => bytes = rest,
                None => return whole > 0,
            }
            whole += 1;
        }
        whole > 0
    }
}

/// Takes the bytes of a call, and what came with them.
fn feed(
    buf: &mut Buffer,
    side: &Side,
    mut bytes: &[u8],
    moved: &Moved,
    mut print: impl FnMut(Message<'_, String>, &'static str),
) -> Result<(), Broken> {
    let mut ancillary = match &moved.files[..] {
        _ if moved.dropped => Ancillary::Dropped,
        [] => Ancillary::Nothing,
        [file] => Ancillary::One(file.clone()),
        _ => Ancillary::Several,
    };
    while !bytes.is_empty() {
        let spare = buf.spare()?;
        let n = spare.len().min(bytes.len());
        spare[..n].copy_from_slice(&bytes[..n]);
        bytes = &bytes[n..];
        if buf.commit(n, std::mem::replace(&mut ancillary, Ancillary::Nothing)).is_err() {
            return Err(Broken("more descriptors wait than a stream may have waiting".into()));
        }
        // To ask whether a message is there may show the dialect, and with that the rule.
        while buf.is_ready() {
            buf.set_pairing(side.pairing());
            let Some(message) = buf.next_message()? else { break };
            print(message, side.name());
        }
    }
    if moved.bytes.len() < moved.count {
        let (has, count) = (moved.bytes.len(), moved.count);
        return Err(Broken(format!(
            "the log has only {has} of {count} bytes; \"-s 131072\" makes it have all"
        )));
    }
    Ok(())
}

/// Checks that the stream ended behind a message.
fn end(buf: &mut Buffer) -> Result<(), Broken> {
    buf.finish();
    buf.next_message()?;
    Ok(())
}

/// Why no more of a stream is understood.
pub(super) struct Broken(String);

impl<E: std::error::Error> From<E> for Broken {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
