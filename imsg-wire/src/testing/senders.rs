//! Senders: ours, and models of those that are not.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::dialect::Dialect;
use crate::header::{HEADER_LEN, Header};
use crate::send::SendBuf;
use crate::storage::Storage;

/// A queue of messages, whatever it makes of them.
pub trait Sender {
    /// The type of a descriptor.
    type Descriptor;

    /// What the next `sendmsg` offers, and the descriptor that goes with its first byte.
    fn chunk(&self) -> (Vec<u8>, Option<&Self::Descriptor>);

    /// Goes on behind the `n` bytes, not none, that the kernel took, and gives back the descriptor
    /// that went with them.
    ///
    /// # Panics
    ///
    /// When `n` is 0, or more than is [offered](Self::offered).
    fn consume(&mut self, n: usize) -> Option<Self::Descriptor>;

    /// How many bytes the next `sendmsg` offers; 0 when there is nothing to send.
    fn offered(&self) -> usize {
        self.chunk().0.len()
    }
}

/// Ours: a `sendmsg` begins with the message that has a descriptor, as it does in imsg-buffer.c 1.13
/// and later.
impl<D: Dialect, S: Storage, F, const N: usize> Sender for SendBuf<D, S, F, N> {
    type Descriptor = F;

    fn chunk(&self) -> (Vec<u8>, Option<&F>) {
        self.chunk().map_or((Vec::new(), None), |it| (it.bytes.to_vec(), it.descriptor))
    }

    fn consume(&mut self, n: usize) -> Option<F> {
        match self.consume(n) {
            Ok(descriptor) => descriptor,
            Err(error) => panic!("{error}"),
        }
    }

    fn offered(&self) -> usize {
        self.chunk().map_or(0, |chunk| chunk.bytes.len())
    }
}

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

    /// Does the next `sendmsg`, of which the kernel takes `n` bytes: those, and the descriptor
    /// that went with them.
    ///
    /// # Panics
    ///
    /// When `n` is 0, or more than is [offered](Self::offered).
    pub fn sendmsg(&mut self, n: usize) -> (Vec<u8>, Option<F>) {
        let (mut bytes, _) = self.chunk();
        bytes.truncate(n);
        (bytes, self.consume(n))
    }

    /// How many of the queued messages the next `sendmsg` takes.
    fn gathered(&self) -> usize {
        let first = self.queue.iter().position(|queued| queued.descriptor.is_some());
        first.map_or(self.queue.len(), |first| first + 1)
    }
}

impl<F> Sender for Ends<F> {
    type Descriptor = F;

    fn chunk(&self) -> (Vec<u8>, Option<&F>) {
        let gathered = self.gathered();
        let bytes = self.queue.iter().take(gathered).flat_map(|queued| &queued.unsent);
        let last = gathered.checked_sub(1).and_then(|last| self.queue.get(last));
        (bytes.copied().collect(), last.and_then(|queued| queued.descriptor.as_ref()))
    }

    fn consume(&mut self, mut n: usize) -> Option<F> {
        assert!(1 <= n && n <= self.offered(), "{n} bytes were not offered");
        let last = self.gathered().checked_sub(1).and_then(|last| self.queue.get_mut(last));
        let descriptor = last.and_then(|queued| queued.descriptor.take());
        while n > 0
            && let Some(queued) = self.queue.front_mut()
        {
            let sent = queued.unsent.len().min(n);
            queued.unsent.drain(..sent);
            n -= sent;
            if queued.unsent.is_empty() {
                self.queue.pop_front();
            }
        }
        descriptor
    }

    fn offered(&self) -> usize {
        let buffers = self.queue.iter().take(self.gathered());
        buffers.map(|queued| queued.unsent.len()).sum()
    }
}

/// A sender that never marks, and sends each message by itself, such as the crate `privsep`.
#[derive(Debug)]
pub struct Unmarking<F> {
    queue: VecDeque<(Vec<u8>, Option<F>)>,
}

impl<F> Default for Unmarking<F> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<F> Unmarking<F> {
    /// Queues a message. The pid is written as it stands in the header.
    ///
    /// # Panics
    ///
    /// When the message is longer than a classic header can say.
    pub fn compose(&mut self, header: Header, payload: &[u8], descriptor: Option<F>) {
        let mut unmarked = Ends::<F>::default();
        unmarked.compose(header, payload, None);
        self.queue.push_back((unmarked.chunk().0, descriptor));
    }
}

impl<F> Sender for Unmarking<F> {
    type Descriptor = F;

    fn chunk(&self) -> (Vec<u8>, Option<&F>) {
        let first = self.queue.front();
        first.map_or((Vec::new(), None), |(bytes, it)| (bytes.clone(), it.as_ref()))
    }

    fn consume(&mut self, n: usize) -> Option<F> {
        let (bytes, descriptor) = self.queue.front_mut().expect("something to send");
        bytes.drain(..n);
        let descriptor = descriptor.take();
        if bytes.is_empty() {
            self.queue.pop_front();
        }
        descriptor
    }
}
