//! What one side of a connection speaks: a dialect that is given, or one that shows.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use imsg_os::imsg_wire::{Detected, Frame};
use imsg_os::{Any, DEFAULT_MAX_LEN, Dialect, Endian, HEADER_LEN, Pages, Pairing};

use crate::dialect;

pub(crate) const CLASSIC: Any = Any::Classic(Endian::NATIVE);
pub(crate) const MODERN: Any = Any::Modern(Endian::NATIVE);

/// The largest message that is carried from and to a modern program. It may have raised its
/// maximum, as OpenBGPD does to this; what a classic one takes is built into it.
const MODERN_MAX_LEN: usize = 128 * 1024 + HEADER_LEN;

/// The least memory for what is received, and for what is to be sent.
const BUFFER: usize = 64 * 1024;

/// The dialect of one side, which both of its halves share.
///
/// Until it shows, headers are read as what they tell themselves to be. Its first header that only
/// one dialect has settles it: on a little-endian machine, that of the first message with a
/// descriptor. Before that both dialects are the same bytes, also of what is written.
#[derive(Clone)]
pub(crate) struct Side {
    known: Rc<Cell<Option<Any>>>,
    max_len: usize,
}

impl Side {
    /// Without a dialect, it is to be found out.
    pub(crate) fn new(dialect: Option<Any>) -> Self {
        let max_len = match dialect {
            Some(Any::Classic(_)) => DEFAULT_MAX_LEN,
            Some(Any::Modern(_)) => MODERN_MAX_LEN,
            // Of longer ones, no header tells the dialect.
            None => u16::MAX.into(),
        };
        Self { known: Rc::new(Cell::new(dialect)), max_len }
    }

    pub(crate) fn known(&self) -> Option<Any> {
        self.known.get()
    }

    pub(crate) fn name(&self) -> &'static str {
        dialect::name(self.known())
    }

    /// The bytes of each buffer. Room for two of the largest messages lets one be sent while the
    /// next one is received.
    pub(crate) fn buffer(&self) -> io::Result<Pages> {
        Pages::new(BUFFER.max(2 * self.max_len))
    }

    /// Whether this side understands a message, or why not.
    pub(crate) fn takes(&self, frame: &Frame) -> Result<(), String> {
        let max = match self.known() {
            Some(Any::Modern(_)) => self.max_len,
            Some(Any::Classic(_)) => DEFAULT_MAX_LEN,
            None if frame.len > DEFAULT_MAX_LEN
                || CLASSIC.encode(frame) != MODERN.encode(frame) =>
            {
                let why =
                    "the client has not shown its dialect yet, which has to be given for this";
                return Err(format!("{why} (--listen-dialect)"));
            }
            None => return Ok(()),
        };
        if frame.len > max {
            let len = frame.len;
            return Err(format!("it has {len} bytes, and the other side takes {max} at most"));
        }
        Ok(())
    }
}

impl Dialect for Side {
    type Raw = [u8; HEADER_LEN];

    fn decode(&self, raw: &Self::Raw) -> Frame {
        if self.known().is_none() {
            // The buffers read the header of each message, in order, and nothing else.
            match Detected::of(raw, Endian::NATIVE, u16::MAX) {
                Detected::Classic => self.known.set(Some(CLASSIC)),
                Detected::Modern => self.known.set(Some(MODERN)),
                // What is none has a length that is out of range.
                Detected::Either | Detected::Contradicts => {}
            }
        }
        self.known().unwrap_or(MODERN).decode(raw)
    }

    fn encode(&self, frame: &Frame) -> Self::Raw {
        self.known().unwrap_or(MODERN).encode(frame)
    }

    fn max_len(&self) -> usize {
        self.max_len
    }

    /// Before the dialect shows, no header is marked and nothing is paired, so the rule need only
    /// keep the descriptors that arrive: a classic peer of the older generation sends the first one
    /// ahead of its message.
    fn pairing(&self) -> Pairing {
        self.known().map_or(Pairing::Ordered, |dialect| dialect.pairing())
    }
}
