//! Models of senders that are not ours.

use std::collections::VecDeque;

use imsg_wire::{HEADER_LEN, Header};

/// The sender of C programs before imsg-buffer.c 1.13 of 2021, in the classic dialect.
///
/// A `sendmsg` takes queued messages up to and including the first that still has its descriptor,
/// so the descriptor arrives with the first byte of whatever was queued before it. A short send
/// takes the descriptor all the same; what is left is sent again, together with later messages up
/// to and including the next one with a descriptor.
#[derive(Debug)]
pub struct Ends<F> {
    queue: VecDeque<Queued<F>>,
}

#[derive(Debug)]
struct Queued<F> {
    unsent: VecDeque<u8>,
    descriptor: Option<F>,
}

impl<F> Default for Ends<F> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<F> Ends<F> {
    /// Queues a message. The pid is written as it stands in the header.
    ///
    /// # Panics
    ///
    /// When the message is longer than a classic header can say.
    pub fn compose(&mut self, header: Header, payload: &[u8], descriptor: Option<F>) {
        let len = u16::try_from(HEADER_LEN + payload.len()).expect("a classic length has 16 bits");
        let flags = u16::from(descriptor.is_some());
        let mut unsent = VecDeque::with_capacity(usize::from(len));
        unsent.extend(header.msg_type.to_ne_bytes());
        unsent.extend(len.to_ne_bytes());
        unsent.extend(flags.to_ne_bytes());
        unsent.extend(header.id.to_ne_bytes());
        unsent.extend(header.pid.to_ne_bytes());
        unsent.extend(payload);
        self.queue.push_back(Queued { unsent, descriptor });
    }

    /// How many bytes the next `sendmsg` offers to the kernel.
    pub fn offered(&self) -> usize {
        let buffers = self.queue.iter().take(self.gathered());
        buffers.map(|queued| queued.unsent.len()).sum()
    }

    /// Does the next `sendmsg`, of which the kernel takes `n` bytes: those, and the descriptor
    /// that went with them.
    ///
    /// # Panics
    ///
    /// When `n` is 0, or more than is [offered](Self::offered).
    pub fn sendmsg(&mut self, n: usize) -> (Vec<u8>, Option<F>) {
        assert!(1 <= n && n <= self.offered(), "{n} bytes were not offered");
        let last = self.gathered().checked_sub(1).and_then(|last| self.queue.get_mut(last));
        let descriptor = last.and_then(|queued| queued.descriptor.take());
        let mut bytes = Vec::with_capacity(n);
        while bytes.len() < n
            && let Some(queued) = self.queue.front_mut()
        {
            let most = queued.unsent.len().min(n - bytes.len());
            bytes.extend(queued.unsent.drain(..most));
            if queued.unsent.is_empty() {
                self.queue.pop_front();
            }
        }
        (bytes, descriptor)
    }

    /// How many of the queued messages the next `sendmsg` takes.
    fn gathered(&self) -> usize {
        let first = self.queue.iter().position(|queued| queued.descriptor.is_some());
        first.map_or(self.queue.len(), |first| first + 1)
    }
}
