//! Streams whose messages a program delimits itself (`msgbuf_new_reader`): they need not be imsg, and
//! so none of its rules apply.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;

use imsg_os::raw;
use imsg_wire::{Ancillary, Storage};
use libc::{c_int, c_void};

use crate::errno::Errno;
use crate::ibuf::{Ibuf, NO_FD, ON_STACK, OwnedIbuf};
use crate::memory::Memory;
use crate::queue::Queue;
use crate::receive::{READ_SIZE, Read, Source, read};
use crate::send::borrow;

/// What a program gives: it looks at a header, and makes a buffer for the whole message. It may take
/// the descriptor.
pub(crate) type ReadHeader =
    unsafe extern "C" fn(header: *mut Ibuf, arg: *mut c_void, fd: *mut c_int) -> *mut Ibuf;

/// A stream, and what was read of it.
pub(crate) struct Framing {
    header_len: usize,
    read_header: ReadHeader,
    arg: *mut c_void,
    bytes: Memory,
    /// How many bytes were read and not used.
    filled: usize,
    /// The message that is arriving.
    partial: Option<OwnedIbuf>,
    /// What came with the bytes of a header that is not complete.
    descriptor: Option<OwnedFd>,
}

impl Framing {
    /// # Safety
    ///
    /// The function can be called with `arg` as long as this is there, and gives null or a buffer
    /// that nothing else owns.
    pub(crate) unsafe fn new(
        header_len: usize,
        read_header: ReadHeader,
        arg: *mut c_void,
    ) -> Result<Self, Errno> {
        if header_len == 0 || header_len > READ_SIZE / 2 {
            return Err(Errno(libc::EINVAL));
        }
        let bytes = Memory::new(READ_SIZE)?;
        let (filled, partial, descriptor) = (0, None, None);
        Ok(Self { header_len, read_header, arg, bytes, filled, partial, descriptor })
    }

    pub(crate) fn reset(&mut self) {
        self.filled = 0;
        self.partial = None;
        self.descriptor = None;
    }

    /// Reads once, and puts what is complete into a queue.
    ///
    /// # Errors
    ///
    /// What the system or the program says.
    ///
    /// # Safety
    ///
    /// Both are there. The function of the program may use them too: nothing refers to them while it is
    /// called.
    pub(crate) unsafe fn read(
        this: *mut Self,
        fd: c_int,
        source: Source,
        queue: *mut Queue,
    ) -> Result<Read, Errno> {
        // SAFETY: so the caller promises.
        let read = unsafe { &mut *this }.fill(fd, source)?;
        if let Read::Bytes(_) = read {
            // SAFETY: as above.
            unsafe { Self::split(this, queue) }?;
        }
        Ok(read)
    }

    fn fill(&mut self, fd: c_int, source: Source) -> Result<Read, Errno> {
        // SAFETY: the program has it open, as it names it.
        let file = unsafe { borrow(fd) }?;
        let spare = self.bytes.bytes_mut().get_mut(self.filled..).unwrap_or_default();
        let received = match source {
            Source::Socket => raw::recv(file, spare, true),
            Source::Any => read(file, spare),
        };
        let (n, ancillary) = match received.map_err(Errno::from) {
            Ok((0, Ancillary::Nothing)) => return Ok(Read::Closed),
            Ok(received) => received,
            Err(Errno(libc::EAGAIN)) => return Ok(Read::WouldBlock),
            Err(error) => return Err(error),
        };
        self.filled = self.filled.saturating_add(n);
        if let Ancillary::One(descriptor) = ancillary {
            self.descriptor = Some(descriptor);
        }
        Ok(Read::Bytes(n))
    }

    /// Makes messages of what was read.
    ///
    /// # Safety
    ///
    /// As [`read`](Self::read).
    unsafe fn split(this: *mut Self, queue: *mut Queue) -> Result<(), Errno> {
        let mut used = 0;
        let result = loop {
            // SAFETY: so the caller promises.
            match unsafe { Self::step(this, used, queue) } {
                Ok(0) => break Ok(()),
                Ok(n) => used = used.saturating_add(n),
                Err(error) => break Err(error),
            }
        };
        // SAFETY: as above.
        let this = unsafe { &mut *this };
        this.keep(used);
        // It belongs to a header in the bytes that it came with, or to the one at their end.
        if this.filled == 0 || result.is_err() {
            this.descriptor = None;
        }
        result
    }

    /// Keeps what was read but for the first bytes.
    fn keep(&mut self, used: usize) {
        let (bytes, filled) = (self.bytes.bytes_mut(), self.filled);
        if let Some(rest) = bytes.get(used..filled).map(<[u8]>::len) {
            let place = bytes.as_mut_ptr();
            // SAFETY: both lie within the memory, which is borrowed for writing.
            unsafe { ptr::copy(place.add(used), place, rest) };
            self.filled = rest;
        }
    }

    /// Makes what it can of the bytes at `at`, and says how many it used.
    ///
    /// # Safety
    ///
    /// As [`read`](Self::read).
    unsafe fn step(this: *mut Self, at: usize, queue: *mut Queue) -> Result<usize, Errno> {
        // SAFETY: so the caller promises.
        let framing = unsafe { &mut *this };
        if framing.partial.is_none() {
            let Some(mut header) = framing.header(at) else {
                return Ok(0);
            };
            let mut fd = framing.descriptor.take().map_or(NO_FD, IntoRawFd::into_raw_fd);
            let (read_header, arg) = (framing.read_header, framing.arg);
            // SAFETY: so `new` was promised.
            let message = unsafe { read_header(&mut header, arg, &mut fd) };
            // SAFETY: so the caller promises, also after that call.
            unsafe { &mut *this }.begin(message, fd)?;
        }
        // SAFETY: as above.
        let (n, message) = unsafe { &mut *this }.proceed(at)?;
        if let Some(message) = message {
            // SAFETY: as above.
            unsafe { &mut *queue }.push(message);
            // A message without a byte would come again and again.
            if n == 0 {
                return Err(Errno(libc::EINVAL));
            }
        }
        Ok(n)
    }

    /// The header at `at`, if it is complete, for the program.
    fn header(&mut self, at: usize) -> Option<Ibuf> {
        let unread = self.bytes.bytes_mut().get_mut(at..self.filled)?;
        let header = unread.get_mut(..self.header_len)?;
        Some(Ibuf::on_stack(header.as_mut_ptr(), header.len(), ON_STACK))
    }

    /// Begins a message that the program made, and keeps the descriptor if that left it.
    fn begin(&mut self, message: *mut Ibuf, fd: c_int) -> Result<(), Errno> {
        let error = Errno::last();
        if fd >= 0 {
            // SAFETY: the program did not take it.
            self.descriptor = Some(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        if message.is_null() {
            return Err(error);
        }
        // SAFETY: so `new` was promised.
        self.partial = Some(unsafe { OwnedIbuf::from_raw(message) });
        Ok(())
    }

    /// Gives the message that is arriving its bytes, those at `at`: how many it took, and the message if
    /// it is complete.
    fn proceed(&mut self, at: usize) -> Result<(usize, Option<OwnedIbuf>), Errno> {
        let Some(message) = &mut self.partial else {
            return Ok((0, None));
        };
        let unread = self.bytes.bytes().get(at..self.filled).unwrap_or_default();
        let n = message.left().min(unread.len());
        message.add_bytes(unread.get(..n).unwrap_or_default())?;
        let is_complete = message.left() == 0;
        Ok((n, self.partial.take_if(|_| is_complete)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn none(_: *mut Ibuf, _: *mut c_void, _: *mut c_int) -> *mut Ibuf {
        ptr::null_mut()
    }

    #[test]
    fn bytes_that_were_not_used_move_to_the_front() {
        // SAFETY: the function can be called with anything.
        let mut framing = unsafe { Framing::new(2, none, ptr::null_mut()) }.expect("memory");
        for (used, kept) in [(0, &b"abcde"[..]), (2, b"cde"), (4, b"e"), (5, b"")] {
            framing.bytes.bytes_mut()[..5].copy_from_slice(b"abcde");
            framing.filled = 5;
            framing.keep(used);
            assert_eq!(&framing.bytes.bytes()[..framing.filled], kept);
        }
    }
}
