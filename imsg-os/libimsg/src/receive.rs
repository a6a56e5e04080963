//! From a socket to messages: the receive buffer of `imsg-wire` over memory of C's.

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use imsg_os::{ReadOutcome, RecvError, raw};
use imsg_wire::{
    Ancillary, Descriptor, Dialect, Error, Frame, HEADER_LEN, Message, Modern, Pairing, RecvBuf,
};
use libc::{c_char, c_int};

use crate::dialect::Native;
use crate::errno::Errno;
use crate::ibuf::OwnedIbuf;
use crate::memory::Memory;
use crate::send::borrow;

/// How many bytes are read at once (`IBUF_READ_SIZE`).
pub(crate) const READ_SIZE: usize = 65535;

const BAD_MESSAGE: Errno = Errno(libc::EBADMSG);

/// How many descriptors can wait for their messages.
const DESCRIPTORS: usize = 32;

/// What was received and not taken, and what became of the stream.
pub(crate) struct Incoming {
    buf: RecvBuf<Native, Memory, OwnedFd, DESCRIPTORS>,
    reader: raw::Reader,
    /// The rule that the program set, in place of the dialect's.
    pairing: Option<Pairing>,
    /// What broke the stream.
    fault: Option<Error>,
    text: Text,
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// So many bytes, which are not none.
    Bytes(usize),
    WouldBlock,
    Closed,
    /// Nothing: messages have to be taken first.
    Full,
}

/// Which calls read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Those for a socket.
    Socket,
    /// Those for anything that can be read from; descriptors are closed.
    Any,
}

/// A message that was taken.
pub(crate) struct Taken {
    pub(crate) frame: Frame,
    /// What was asked for: the payload, or the whole message. None, when that has no bytes.
    pub(crate) buf: Option<OwnedIbuf>,
    pub(crate) descriptor: Descriptor<OwnedFd>,
}

/// What a buffer of a taken message has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Payload,
    /// The header too, as the modern interface has it, whatever the dialect.
    Message,
}

impl Incoming {
    #[inline(never)]
    pub(crate) fn new(dialect: Native, memory: Memory) -> Self {
        let buf = RecvBuf::with_descriptors(dialect, memory);
        let reader = raw::Reader::default();
        Self { buf, reader, pairing: None, fault: None, text: Text::new() }
    }

    pub(crate) fn allow_descriptors(&mut self) {
        self.buf.allow_descriptors();
    }

    /// Sets the rule that the program named, if nothing was read yet.
    pub(crate) fn set_pairing(&mut self, rule: c_int) -> Result<(), Errno> {
        let rule = match rule {
            0 if self.is_new() => Pairing::Exact,
            1 if self.is_new() => Pairing::Ordered,
            _ => return Err(Errno(libc::EINVAL)),
        };
        self.pair_by(rule);
        Ok(())
    }

    fn pair_by(&mut self, rule: Pairing) {
        self.pairing = Some(rule);
        self.buf.set_pairing(rule);
    }

    /// Takes what the program set for another one: the rule, and whether descriptors are allowed.
    pub(crate) fn set_as(&mut self, other: &Self) {
        if let Some(rule) = other.pairing {
            self.pair_by(rule);
        }
        if other.buf.descriptors_allowed() {
            self.allow_descriptors();
        }
    }

    /// Sets the largest message, header included. What cannot be is left as it is.
    pub(crate) fn set_max_len(&mut self, max_len: usize) {
        if max_len != self.buf.max_len() {
            let _ = self.buf.set_max_len(max_len);
        }
    }

    /// Whether nothing was read yet.
    pub(crate) fn is_new(&self) -> bool {
        self.buf.offset() == 0 && self.is_empty() && !self.buf.is_finished()
    }

    /// Whether all that was read is taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.buf.unread_bytes() == 0
    }

    /// Whether the stream has ended, or broken.
    pub(crate) fn is_over(&self) -> bool {
        self.buf.is_finished() || self.is_broken()
    }

    /// Starts over; what was set stays.
    #[inline(never)]
    pub(crate) fn reset(&mut self) {
        self.buf.reset();
        self.reader = raw::Reader::default();
        self.fault = None;
    }

    /// Reads once.
    ///
    /// # Errors
    ///
    /// What the system says, or what broke the stream, once no message is left before that.
    #[inline(never)]
    pub(crate) fn read(&mut self, fd: c_int, source: Source) -> Result<Read, Errno> {
        // SAFETY: the program has it open, as it names it.
        let file = unsafe { borrow(fd) }?;
        // The program reads on behind the end: from another socket, or to hear the same again.
        if self.buf.is_finished() && self.is_empty() && !self.buf.is_ready() {
            self.reset();
        }
        let before = self.buf.unread_bytes();
        loop {
            let outcome = self.reader.read_by(&mut self.buf, |spare, descriptors| match source {
                Source::Socket => raw::recv(file, spare, descriptors),
                Source::Any => read(file, spare),
            });
            match outcome {
                Ok(ReadOutcome::Data) => {}
                Ok(ReadOutcome::WouldBlock) => return Ok(Read::WouldBlock),
                Ok(ReadOutcome::Closed) => return Ok(Read::Closed),
                Err(RecvError::Full) if self.buf.is_ready() => return Ok(Read::Full),
                Err(RecvError::Full) => return Err(Errno(libc::ENOMEM)),
                Err(RecvError::Io(error)) => return Err(error.into()),
                Err(RecvError::Protocol(error)) => return self.fail(error).map(|()| Read::Closed),
                // Without a reserve, there is no other error.
                Err(_) => return Err(Errno(libc::EMFILE)),
            }
            // Not the end, but what came without a byte: those it belongs to are next.
            if let n @ 1.. = self.buf.unread_bytes().saturating_sub(before) {
                return Ok(Read::Bytes(n));
            }
        }
    }

    /// The place to read into, if there is any.
    pub(crate) fn spare(&mut self) -> Option<&mut [u8]> {
        self.buf.spare().ok()
    }

    /// Takes over bytes that somebody else read.
    ///
    /// # Safety
    ///
    /// There are as many. They may lie in the memory of this, behind what it has.
    pub(crate) unsafe fn take_over(&mut self, bytes: *const u8, n: usize) {
        let Some(spare) = self.spare() else { return };
        let n = n.min(spare.len());
        // SAFETY: so the caller promises, and the place is as long.
        unsafe { ptr::copy(bytes, spare.as_mut_ptr(), n) };
        // It was lent just before.
        let _ = self.buf.commit(n, Ancillary::Nothing);
    }

    /// What broke the stream, if no message is left before that.
    #[inline(never)]
    pub(crate) fn check(&mut self) -> Result<(), Errno> {
        if self.next_len().is_some() {
            return Ok(());
        }
        match self.buf.next_message() {
            Ok(_) => Ok(()),
            Err(error) => self.fail(error),
        }
    }

    /// How long the payload of the next message is, if there is one, or what is wrong with its
    /// descriptor.
    #[inline]
    fn next_len(&self) -> Option<usize> {
        // A program asks for a message until there is none: mostly, not a byte is left then.
        if self.is_empty() { None } else { self.buf.next_len() }
    }

    /// Takes the next message, if one is complete.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and nothing is lost; or what broke the stream.
    #[inline(always)]
    pub(crate) fn next(&mut self, part: Part) -> Result<Option<Taken>, Errno> {
        let Some(len) = self.next_len() else {
            return self.check().map(|()| None);
        };
        let room = if part == Part::Message { HEADER_LEN } else { 0 };
        if part == Part::Message && self.fills_memory(room.saturating_add(len)) {
            return self.hand_over();
        }
        // Before the message is taken, as it could not be put back.
        let mut buf = match room.saturating_add(len) {
            0 => None,
            // SAFETY: all of it is written below, or it is freed unread.
            size => Some(unsafe { OwnedIbuf::unwritten(size, size) }?),
        };
        let message = match self.buf.next_message() {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(error) => return self.fail(error).map(|()| None),
        };
        let frame = frame_of(&message);
        if let Some(buf) = &mut buf {
            if part == Part::Message {
                buf.add_bytes(&Modern::new().encode(&frame))?;
            }
            buf.add_bytes(message.payload)?;
        }
        let descriptor = message.descriptor;
        // The next read may be a long time off.
        if self.is_empty() {
            self.buf.shrink();
        }
        Ok(Some(Taken { frame, buf, descriptor }))
    }

    /// Whether a message, header included, is all that was received, and has memory of its own length
    /// that is not kept once it is taken.
    #[inline]
    fn fills_memory(&self, size: usize) -> bool {
        self.buf.storage().len_of_large() == Some(size) && self.buf.unread_bytes() == size
    }

    /// Takes such a message, in the memory that it lies in.
    #[cold]
    fn hand_over(&mut self) -> Result<Option<Taken>, Errno> {
        // Both before the message is taken, as it could not be put back.
        let memory = self.buf.storage().another()?;
        let mut buf = OwnedIbuf::zeroed(0, 0)?;
        let (frame, descriptor) = match self.buf.next_message() {
            Ok(Some(message)) => (frame_of(&message), message.descriptor),
            Ok(None) => return Ok(None),
            Err(error) => return self.fail(error).map(|()| None),
        };
        // Nothing is left, as the message was all.
        let (bytes, len) = self.buf.replace_storage(memory).map_err(|_| BAD_MESSAGE)?.into_raw();
        // SAFETY: this is memory of `malloc`, as `fills_memory` saw, and all of it was zeros at first.
        unsafe { buf.set_memory(bytes, len) };
        buf.set_bytes(0, &Modern::new().encode(&frame))?;
        Ok(Some(Taken { frame, buf: Some(buf), descriptor }))
    }

    /// Keeps what broke the stream. A stream that ends inside a message is one that ends, in C.
    fn fail(&mut self, error: Error) -> Result<(), Errno> {
        self.fault = Some(error);
        match error {
            Error::Truncated { .. } => Ok(()),
            Error::Length { .. } => Err(Errno(libc::ERANGE)),
            _ => Err(BAD_MESSAGE),
        }
    }

    /// Whether something broke the stream.
    pub(crate) fn is_broken(&self) -> bool {
        self.fault.is_some()
    }

    /// What broke the stream, as a string; null when nothing did.
    pub(crate) fn fault(&mut self) -> *const c_char {
        // The end of a stream inside a message shows when the next one is to be taken.
        let _ = self.check();
        match &self.fault {
            Some(error) => self.text.of(error),
            None => ptr::null(),
        }
    }
}

/// What a message says of itself, apart from its payload.
fn frame_of(message: &Message<'_, OwnedFd>) -> Frame {
    let marked = !matches!(message.descriptor, Descriptor::None);
    let len = HEADER_LEN.saturating_add(message.payload.len());
    Frame { header: message.header, len, marked }
}

/// Reads from a socket, without descriptors, or from a file.
pub(crate) fn read(
    file: BorrowedFd<'_>,
    spare: &mut [u8],
) -> io::Result<(usize, Ancillary<OwnedFd>)> {
    match raw::recv(file, spare, false) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
            Ok((read_file(file, spare)?, Ancillary::Nothing))
        }
        received => received,
    }
}

fn read_file(file: BorrowedFd<'_>, spare: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and the length are those of `spare`, which is borrowed for writing.
        let n = unsafe { libc::read(file.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len()) };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) if Errno::last() == Errno(libc::EINTR) => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
}

/// Text for C, cut off where it is too long.
struct Text {
    bytes: [u8; Self::LEN],
    len: usize,
}

impl Text {
    const LEN: usize = 192;

    const fn new() -> Self {
        Self { bytes: [0; Self::LEN], len: 0 }
    }

    fn of(&mut self, value: &impl fmt::Display) -> *const c_char {
        *self = Self::new();
        // It does not fit, at worst.
        let _ = write!(self, "{value}");
        self.bytes.as_ptr().cast()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte stays a NUL.
        let end = self.len.saturating_add(text.len());
        let place = self.bytes.get_mut(self.len..end).filter(|_| end < Self::LEN);
        for (place, byte) in place.ok_or(fmt::Error)?.iter_mut().zip(text.as_bytes()) {
            *place = *byte;
        }
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn text_that_is_too_long_is_cut_off_behind_what_fits() {
        let mut text = Text::new();
        for (value, expected) in [("short", 5), (&"x".repeat(191), 191), (&"x".repeat(192), 0)] {
            let place = text.of(&value);
            // SAFETY: the text is in the memory of `text`, and ends with a NUL.
            assert_eq!(unsafe { CStr::from_ptr(place) }.count_bytes(), expected);
        }
    }

    #[test]
    fn the_longest_sentence_about_a_fault_fits() {
        let longest = Error::Truncated { offset: u64::MAX, have: usize::MAX, need: usize::MAX };
        let said = longest.to_string();
        assert!(said.len() < Text::LEN, "{} bytes", said.len());
    }
}
