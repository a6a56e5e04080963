//! What is tried. Each case is named after the section of `PROTOCOL.md` that asks for it.

mod descriptors;
mod faults;
mod messages;

use imsg_os::{Any, DEFAULT_MAX_LEN, HEADER_LEN};

use super::session::{Result, Session};

/// The longest payload.
const MOST: usize = DEFAULT_MAX_LEN - HEADER_LEN;

/// How much receivers read at a time.
const READS: [usize; 3] = [4096, 65535, 65536];

const LIMITS: &str = "3 Limits";
const MESSAGES: &str = "2 Messages";
const READING: &str = "4 Reading";
const SENDING: &str = "5 Sending a descriptor";
const PAIRING: &str = "6 Receiving a descriptor";
const SECURITY: &str = "9 Security considerations";

pub(crate) struct Case {
    pub(crate) section: &'static str,
    pub(crate) name: String,
    /// Whether a receiver that is right for senders of both generations cannot tell that this is a
    /// fault.
    pub(crate) cannot_be_told: bool,
    pub(crate) run: Box<dyn Fn(&mut Session) -> Result>,
}

impl Case {
    fn new(
        section: &'static str,
        name: impl Into<String>,
        run: impl Fn(&mut Session) -> Result + 'static,
    ) -> Self {
        Self { section, name: name.into(), cannot_be_told: false, run: Box::new(run) }
    }

    /// One that can be told only where all senders are of the newer generation, as modern ones are.
    fn told_if(self, can_be_told: bool) -> Self {
        Self { cannot_be_told: !can_be_told, ..self }
    }

    pub(crate) fn title(&self) -> String {
        format!("{}: {}", self.section, self.name)
    }
}

/// All cases for a program that speaks this dialect.
pub(crate) fn all(dialect: Any) -> Vec<Case> {
    let is_classic = matches!(dialect, Any::Classic(_));
    let mut cases = messages::cases(is_classic);
    cases.extend(descriptors::cases(is_classic));
    cases.extend(faults::cases(is_classic));
    cases
}

/// Messages without descriptors that have so many bytes together, headers included.
fn filler(session: &mut Session, bytes: usize) -> Vec<super::message::Message> {
    let mut messages = Vec::new();
    let mut left = bytes;
    while left > 0 {
        // The rest has to be a message, too.
        let len = match left {
            ..4096 => left,
            4096..8192 => left / 2,
            _ => 4000,
        };
        messages.push(session.plain(len - HEADER_LEN));
        left -= len;
    }
    messages
}
