//! A model of the kernel's half of an `AF_UNIX` stream socket.
//!
//! It keeps what matters to imsg: where a `recvmsg` ends, and with which byte descriptors arrive.

use std::collections::VecDeque;

/// Whose rules a [`Socket`] follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// A read ends behind the first socket buffer that brought descriptors.
    Linux,
    /// A read ends before a socket buffer with descriptors, unless it begins with that.
    Bsd,
}

/// One direction of a connection: bytes and descriptors on their way.
#[derive(Debug)]
pub struct Socket<F> {
    flavour: Flavour,
    queue: VecDeque<Buffer<F>>,
}

/// A socket buffer (an skb on Linux).
#[derive(Debug)]
struct Buffer<F> {
    bytes: Vec<u8>,
    read: usize,
    descriptors: Vec<F>,
}

impl<F> Socket<F> {
    /// A connection with nothing on its way.
    pub fn new(flavour: Flavour) -> Self {
        Self { flavour, queue: VecDeque::new() }
    }

    /// Whether all that was sent has been read.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends all of `bytes`, cut into socket buffers.
    ///
    /// `size` chooses how many of the bytes left, at least one, go into the next buffer. The
    /// descriptors ride on the first; without bytes nothing is sent.
    pub fn sendmsg(
        &mut self,
        mut bytes: &[u8],
        mut descriptors: Vec<F>,
        mut size: impl FnMut(usize) -> usize,
    ) {
        while !bytes.is_empty() {
            let (first, rest) = bytes.split_at(size(bytes.len()));
            assert!(!first.is_empty(), "a socket buffer holds at least one byte");
            self.queue.push_back(Buffer {
                bytes: first.to_vec(),
                read: 0,
                descriptors: std::mem::take(&mut descriptors),
            });
            bytes = rest;
        }
    }

    /// Reads into `space`: how many bytes, and the descriptors that came with them. `None` when
    /// there is nothing to read.
    pub fn recvmsg(&mut self, space: &mut [u8]) -> Option<(usize, Vec<F>)> {
        if self.queue.is_empty() || space.is_empty() {
            return None;
        }
        let mut n = 0;
        let mut descriptors = Vec::new();
        while n < space.len()
            && let Some(buffer) = self.queue.front_mut()
        {
            let carries = !buffer.descriptors.is_empty();
            if carries && n > 0 && self.flavour == Flavour::Bsd {
                break;
            }
            descriptors.append(&mut buffer.descriptors);
            n += buffer.read_into(&mut space[n..]);
            if buffer.read == buffer.bytes.len() {
                self.queue.pop_front();
            }
            if carries && self.flavour == Flavour::Linux {
                break;
            }
        }
        Some((n, descriptors))
    }
}

impl<F> Buffer<F> {
    fn read_into(&mut self, space: &mut [u8]) -> usize {
        let unread = &self.bytes[self.read..];
        let n = unread.len().min(space.len());
        space[..n].copy_from_slice(&unread[..n]);
        self.read += n;
        n
    }
}
