//! From a program to a queue: the same for both interfaces.

use imsg_wire::{Dialect, Frame, HEADER_LEN, Header};
use libc::{c_int, iovec};

use crate::dialect::Native;
use crate::errno::Errno;
use crate::ibuf::{Ibuf, OwnedIbuf};
use crate::queue::Queue;

/// A part of a payload, as the program names it: nobody has looked at it yet.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) data: *const u8,
    pub(crate) len: usize,
}

/// How the messages of an `imsgbuf` are made.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) dialect: Native,
    /// The largest one, header included.
    pub(crate) max_len: usize,
    /// What stands for a pid of 0.
    pub(crate) pid: u32,
}

impl Terms {
    /// A header as the program names it.
    pub(crate) fn header(&self, msg_type: u32, id: u32, pid: libc::pid_t) -> Header {
        let pid = if pid == 0 { self.pid } else { pid as u32 };
        Header { msg_type, id, pid }
    }

    /// The length of a message.
    fn len(&self, payload: usize) -> Result<usize, Errno> {
        let len = payload.saturating_add(HEADER_LEN);
        if len > self.max_len { Err(Errno(libc::ERANGE)) } else { Ok(len) }
    }

    fn encode(&self, header: Header, len: usize, marked: bool) -> [u8; HEADER_LEN] {
        self.dialect.encode(&Frame { header, len, marked })
    }

    /// Queues a message of parts. The descriptor is the queue's then, unless this fails.
    ///
    /// # Safety
    ///
    /// All parts have as many bytes as they say, unless that makes more than the largest message.
    pub(crate) unsafe fn compose(
        &self,
        queue: &mut Queue,
        header: Header,
        fd: c_int,
        parts: impl Iterator<Item = Piece> + Clone,
    ) -> Result<(), Errno> {
        let payload = parts.clone().fold(0, |len: usize, part| len.saturating_add(part.len));
        let len = self.len(payload)?;
        // SAFETY: as many bytes are written as it has.
        let mut buf = unsafe { OwnedIbuf::unwritten(len, len) }?;
        buf.add_bytes(&self.encode(header, len, fd >= 0))?;
        for part in parts {
            // SAFETY: so the caller promises; the buffer is new.
            unsafe { buf.add(part.data, part.len) }?;
        }
        buf.set_fd(fd);
        queue.push(buf);
        Ok(())
    }

    /// Queues a header, and a buffer that is the payload. This has no descriptor.
    pub(crate) fn compose_ibuf(
        &self,
        queue: &mut Queue,
        header: Header,
        mut payload: OwnedIbuf,
    ) -> Result<(), Errno> {
        let len = self.len(payload.size())?;
        let header = OwnedIbuf::of(&self.encode(header, len, false))?;
        payload.close_fd();
        queue.push(header);
        queue.push(payload);
        Ok(())
    }

    /// Begins a message, with room for a payload.
    pub(crate) fn create(&self, header: Header, payload: usize) -> Result<OwnedIbuf, Errno> {
        let len = self.len(payload)?;
        let mut buf = OwnedIbuf::zeroed(len, self.max_len)?;
        buf.add_bytes(&self.encode(header, HEADER_LEN, false))?;
        Ok(buf)
    }

    /// Queues a message that was begun: its header gets the length, and the mark.
    pub(crate) fn close(&self, queue: &mut Queue, mut buf: OwnedIbuf) {
        self.mark(&mut buf);
        queue.push(buf);
    }

    fn mark(&self, buf: &mut Ibuf) {
        if let Some(raw) = buf.unread().first_chunk() {
            let header = self.dialect.decode(raw).header;
            let header = self.encode(header, buf.size(), buf.has_fd());
            let _ = buf.set_bytes(0, &header);
        }
    }
}

/// The parts of a payload.
///
/// # Safety
///
/// There are as many as stated, none if that is negative, and they do not change as long as this is
/// used.
pub(crate) unsafe fn pieces(
    iov: *const iovec,
    count: c_int,
) -> impl Iterator<Item = Piece> + Clone {
    let count = usize::try_from(count).unwrap_or(0);
    (0..count).map(move |at| {
        // SAFETY: so the caller promises.
        let part = unsafe { &*iov.add(at) };
        Piece { data: part.iov_base.cast(), len: part.iov_len }
    })
}
