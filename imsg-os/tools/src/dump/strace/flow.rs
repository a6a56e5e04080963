//! One direction of a socket, as one process sees it.

use std::fmt;

use imsg_os::imsg_wire::{Ancillary, Detected, Message, RecvBuf, split};
use imsg_os::{Any, Dialect, Endian, HEADER_LEN};

use super::call::Moved;
use crate::relay::Side;

/// The memory for what a stream has that is not printed yet: more than what is read at a time and a
/// message that has begun.
const BUFFER: usize = 256 * 1024;

/// How many descriptors may wait for their messages.
const FILES: usize = 16;

pub(super) struct Flow {
    state: State,
    side: Side,
    buf: RecvBuf<Side, Box<[u8]>, String, FILES>,
    /// How many messages were found.
    messages: u64,
}

enum State {
    /// The first byte that comes is the first of the stream.
    AtStart,
    /// It began before the log, so that a message has to be found.
    Unknown,
    /// Messages were found.
    Known,
    /// It is something else, or broken.
    Over,
}

impl Flow {
    pub(super) fn new(dialect: Option<Any>, from_start: bool) -> Self {
        let side = Side::new(dialect);
        let mut buf = RecvBuf::new(side.clone(), vec![0; BUFFER].into_boxed_slice());
        // It is less than the buffer.
        let _ = buf.set_max_len(Dialect::max_len(&side));
        buf.allow_descriptors();
        let state = if from_start { State::AtStart } else { State::Unknown };
        Self { state, side, buf, messages: 0 }
    }

    /// Whether nothing of it is unfinished.
    pub(super) fn is_between(&self) -> bool {
        self.buf.unread_bytes() == 0
    }

    /// Takes what was received or sent, and gives the messages that are complete now, with the names of
    /// their dialects. Returns what there is to note.
    pub(super) fn take(
        &mut self,
        moved: &Moved,
        mut print: impl FnMut(Message<'_, String>, &'static str),
    ) -> Result<Option<String>, Broken> {
        let mut bytes = &moved.bytes[..];
        let mut note = None;
        match self.state {
            State::Over => return Ok(None),
            _ if moved.count == 0 => return self.end(),
            State::AtStart if !self.may_begin(bytes) => {
                self.state = State::Over;
                return Ok(None);
            }
            State::Unknown => {
                let Some(skipped) = self.first_message(bytes) else { return Ok(None) };
                note = Some(format!("a stream that began before the log: {skipped} bytes skipped"));
                bytes = &bytes[skipped..];
            }
            State::AtStart | State::Known => {}
        }
        self.state = State::Known;
        let mut ancillary = match &moved.files[..] {
            _ if moved.dropped => Ancillary::Dropped,
            [] => Ancillary::Nothing,
            [file] => Ancillary::One(file.clone()),
            _ => Ancillary::Several,
        };
        while !bytes.is_empty() {
            let spare = self.buf.spare().map_err(|error| broken(&mut self.state, error))?;
            let n = spare.len().min(bytes.len());
            spare[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            let ancillary = std::mem::replace(&mut ancillary, Ancillary::Nothing);
            if self.buf.commit(n, ancillary).is_err() {
                return Err(broken(
                    &mut self.state,
                    "more descriptors than a stream may have waiting",
                ));
            }
            self.take_messages(&mut print)?;
        }
        if moved.bytes.len() < moved.count {
            let (has, count) = (moved.bytes.len(), moved.count);
            return Err(broken(
                &mut self.state,
                format_args!(
                    "the log has only {has} of {count} bytes; \"-s 131072\" makes it have all"
                ),
            ));
        }
        Ok(note)
    }

    fn take_messages(
        &mut self,
        print: &mut impl FnMut(Message<'_, String>, &'static str),
    ) -> Result<(), Broken> {
        // To ask whether a message is there may show the dialect, and with that the rule.
        while self.buf.is_ready() {
            self.buf.set_pairing(self.side.pairing());
            let name = self.side.name();
            match self.buf.next_message() {
                Ok(Some(message)) => {
                    self.messages += 1;
                    print(message, name);
                }
                Ok(None) => break,
                Err(error) => return Err(broken(&mut self.state, error)),
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Option<String>, Broken> {
        self.buf.finish();
        self.state = State::Over;
        match self.buf.next_message() {
            Err(error) if self.messages > 0 => Err(broken(&mut self.state, error)),
            _ => Ok(None),
        }
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

fn broken(state: &mut State, why: impl fmt::Display) -> Broken {
    *state = State::Over;
    Broken(why.to_string())
}

/// Why no more of a stream is understood.
pub(super) struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
