//! What is in a captured stream, without an allocator or an operating system.

use core::fmt::{self, Display, Formatter};

use imsg_wire::{Any, DEFAULT_MAX_LEN, Error, Frame, Messages};

/// One message of a capture. As text, it is a line.
pub(crate) struct Line<'a> {
    offset: u64,
    frame: Frame,
    payload: &'a [u8],
}

/// Lists the messages in `capture`. The last item is an error if the stream is not whole.
pub(crate) fn list(capture: &[u8], dialect: Any) -> impl Iterator<Item = Result<Line<'_>, Error>> {
    let mut messages = Messages::new(dialect, capture, DEFAULT_MAX_LEN);
    let mut ended = false;
    core::iter::from_fn(move || {
        let offset = messages.offset();
        match messages.next() {
            Some(Ok((frame, payload))) => Some(Ok(Line { offset, frame, payload })),
            // The iterator ends where no whole message is left; whether that is the end of the
            // capture is asked once.
            _ if ended => None,
            _ => {
                ended = true;
                messages.clone().finish().err().map(Err)
            }
        }
    })
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
