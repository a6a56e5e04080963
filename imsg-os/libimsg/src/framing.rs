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
    pub(crate) fn read(
        &mut self,
        fd: c_int,
        source: Source,
        queue: &mut Queue,
    ) -> Result<Read, Errno> {
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
        self.split(queue)?;
        Ok(Read::Bytes(n))
    }

    /// Makes messages of what was read.
    fn split(&mut self, queue: &mut Queue) -> Result<(), Errno> {
        let mut used = 0;
        let mut result = Ok(());
        while result.is_ok() && used < self.filled {
            match self.step(used, queue) {
                Ok(0) => break,
                Ok(n) => used = used.saturating_add(n),
                Err(error) => result = Err(error),
            }
        }
        let (bytes, filled) = (self.bytes.bytes_mut(), self.filled);
        if used > 0
            && let Some(rest) = bytes.get(used..filled)
        {
            let (place, rest_len) = (bytes.as_ptr().cast_mut(), rest.len());
            // SAFETY: both lie within the memory, which is borrowed for writing.
            unsafe { ptr::copy(place.wrapping_add(used), place, rest_len) };
            self.filled = rest_len;
        }
        // It belongs to a header in the bytes that it came with, or to the one at their end.
        if self.filled == 0 || result.is_err() {
            self.descriptor = None;
        }
        result
    }

    /// Makes what it can of the bytes at `at`, and says how many it used.
    fn step(&mut self, at: usize, queue: &mut Queue) -> Result<usize, Errno> {
        let unread = self.bytes.bytes().get(at..self.filled).unwrap_or_default();
        let message = match &mut self.partial {
            Some(message) => message,
            None => {
                let Some(header) = unread.get(..self.header_len) else {
                    return Ok(0);
                };
                let place = header.as_ptr().cast_mut();
                let mut header = Ibuf::on_stack(place, self.header_len, ON_STACK);
                let mut fd = self.descriptor.take().map_or(NO_FD, IntoRawFd::into_raw_fd);
                // SAFETY: so `new` was promised.
                let message = unsafe { (self.read_header)(&mut header, self.arg, &mut fd) };
                if fd >= 0 {
                    // SAFETY: the program did not take it.
                    self.descriptor = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                }
                if message.is_null() {
                    return Err(Errno::last());
                }
                // SAFETY: as above.
                self.partial.insert(unsafe { OwnedIbuf::from_raw(message) })
            }
        };
        let n = message.left().min(unread.len());
        message.add_bytes(unread.get(..n).unwrap_or_default())?;
        if message.left() > 0 {
            return Ok(n);
        }
        if let Some(message) = self.partial.take() {
            queue.push(message);
        }
        // A message without a byte would come again and again.
        if n == 0 { Err(Errno(libc::EINVAL)) } else { Ok(n) }
    }
}
