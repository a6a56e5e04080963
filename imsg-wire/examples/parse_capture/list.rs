//! What is in a captured stream, without an allocator or an operating system.

use core::fmt::{self, Display, Formatter};

use imsg_wire::{Any, DEFAULT_MAX_LEN, Error, Frame, Messages};

/// One message of a capture. As text, it is a line.
pub(crate) struct Line<'a> {
    offset: u64,
    frame: Frame,
    payload: &'a [u8],
}

/// Shows the messages in `capture`, up to what is wrong with it, if anything is.
pub(crate) fn list(
    capture: &[u8],
    dialect: Any,
    mut show: impl FnMut(Line<'_>),
) -> Result<(), Error> {
    let mut messages = Messages::new(dialect, capture, DEFAULT_MAX_LEN);
    let mut offset = 0;
    while let Some(message) = messages.next() {
        let (frame, payload) = message?;
        show(Line { offset, frame, payload });
        offset = messages.offset();
    }
    messages.finish() // an error if the last message was cut off
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { offset, frame, payload } = self;
        let header = frame.header;
        write!(f, "{offset:8}  type {} id {} pid {}", header.msg_type, header.id, header.pid)?;
        if frame.marked {
            f.write_str("  +fd")?;
        }
        write!(f, "  {} bytes", payload.len())?;
        if !payload.is_empty() {
            let start = payload.get(..16).unwrap_or(payload);
            write!(f, "  \"{}\"", start.escape_ascii())?;
        }
        Ok(())
    }
}
