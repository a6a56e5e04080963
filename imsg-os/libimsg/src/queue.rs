//! Queues of buffers, as `TAILQ` of `<sys/queue.h>` lays them out.

use std::ptr;

use libc::c_int;

use crate::ibuf::{Ibuf, OwnedIbuf};

/// `TAILQ_ENTRY(ibuf)`.
#[derive(Debug)]
#[repr(C)]
pub struct Entry {
    next: *mut Ibuf,
    prev: *mut *mut Ibuf,
}

impl Entry {
    pub(crate) const NONE: Self = Self { next: ptr::null_mut(), prev: ptr::null_mut() };
}

/// A queue that owns its buffers: `struct msgbuf` of the classic interface, whose programs look at
/// `queued`, and `struct ibufqueue` of the modern one.
///
/// One of zeros is an empty one. While something is in it, it must not move.
#[derive(Debug)]
#[repr(C)]
pub struct Queue {
    first: *mut Ibuf,
    last: *mut *mut Ibuf,
    queued: u32,
    /// What a classic `msgbuf` writes to.
    pub(crate) fd: c_int,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self { first: ptr::null_mut(), last: ptr::null_mut(), queued: 0, fd: -1 }
    }

    /// Empties it in place, as `TAILQ_INIT` does.
    ///
    /// # Safety
    ///
    /// It may be written to. What was in it is forgotten.
    pub(crate) unsafe fn init(queue: *mut Self) {
        // SAFETY: the caller promises it; nothing is read.
        unsafe {
            queue.write(Self::new());
            (*queue).last = &raw mut (*queue).first;
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.queued
    }

    pub(crate) fn push(&mut self, buf: OwnedIbuf) {
        let buf = buf.into_raw();
        let end = self.end();
        // SAFETY: `buf` is a buffer that nothing else knows; `end` is the `next` of the last one
        // in this queue, or its head.
        unsafe {
            (*buf).entry = Entry { next: ptr::null_mut(), prev: end };
            *end = buf;
            self.last = &raw mut (*buf).entry.next;
        }
        self.queued = self.queued.wrapping_add(1);
    }

    pub(crate) fn pop(&mut self) -> Option<OwnedIbuf> {
        if self.first.is_null() {
            return None;
        }
        let buf = self.first;
        // SAFETY: what is in the queue are buffers that it owns.
        let next = unsafe { (*buf).entry.next };
        self.first = next;
        if next.is_null() {
            self.last = &raw mut self.first;
        } else {
            // SAFETY: as above.
            unsafe { (*next).entry.prev = &raw mut self.first };
        }
        self.queued = self.queued.saturating_sub(1);
        // SAFETY: the queue owned it, and does not know it any more.
        Some(unsafe { OwnedIbuf::from_raw(buf) })
    }

    /// Moves all of `from` behind what is here.
    pub(crate) fn concat(&mut self, from: &mut Self) {
        if from.first.is_null() {
            return;
        }
        let end = self.end();
        // SAFETY: `end` is the `next` of the last one here, or the head; the first one of `from` is
        // a buffer that `from` owns, and gives up below.
        unsafe {
            *end = from.first;
            (*from.first).entry.prev = end;
        }
        self.last = from.last;
        self.queued = self.queued.wrapping_add(from.queued);
        from.first = ptr::null_mut();
        from.last = &raw mut from.first;
        from.queued = 0;
    }

    /// Where the next buffer is to be linked. (The head of an empty one may be of zeros.)
    fn end(&mut self) -> *mut *mut Ibuf {
        if self.first.is_null() { &raw mut self.first } else { self.last }
    }

    pub(crate) fn clear(&mut self) {
        while self.pop().is_some() {}
    }

    pub(crate) fn first(&mut self) -> Option<&mut Ibuf> {
        // SAFETY: it is null, or a buffer of this queue.
        unsafe { self.first.as_mut() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Ibuf> {
        // SAFETY: as above; the queue is borrowed as long as they are.
        let mut next = unsafe { self.first.as_ref() };
        std::iter::from_fn(move || {
            let buf = next?;
            // SAFETY: as above.
            next = unsafe { buf.entry.next.as_ref() };
            Some(buf)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use super::*;

    fn buf(byte: u8) -> OwnedIbuf {
        OwnedIbuf::of(&[byte]).expect("memory")
    }

    fn queue(bytes: &[u8]) -> Box<Queue> {
        let mut queue = Box::new(Queue::new());
        for byte in bytes {
            queue.push(buf(*byte));
        }
        queue
    }

    fn bytes(queue: &mut Queue) -> Vec<u8> {
        let listed: Vec<u8> = queue.iter().map(|buf| buf.unread()[0]).collect();
        let popped: Vec<u8> =
            std::iter::from_fn(|| queue.pop()).map(|buf| buf.unread()[0]).collect();
        assert_eq!(listed, popped);
        popped
    }

    #[test]
    fn buffers_come_out_as_they_went_in() {
        let mut queue = queue(&[1, 2]);
        assert_eq!(queue.pop().map(|buf| buf.unread()[0]), Some(1));
        queue.push(buf(3));
        assert_eq!(queue.len(), 2);
        assert_eq!(bytes(&mut queue), [2, 3]);
        assert_eq!(queue.len(), 0);
        queue.push(buf(4));
        assert_eq!(bytes(&mut queue), [4]);
    }

    #[test]
    fn a_queue_of_zeros_is_an_empty_one() {
        // SAFETY: all of its fields are pointers and integers.
        let mut queue: Box<Queue> = Box::new(unsafe { MaybeUninit::zeroed().assume_init() });
        assert!(queue.pop().is_none());
        queue.push(buf(1));
        assert_eq!(bytes(&mut queue), [1]);
    }

    #[test]
    fn a_queue_goes_behind_another_whichever_is_empty() {
        for (to, from) in [(&[1, 2][..], &[3, 4][..]), (&[], &[1]), (&[1], &[]), (&[], &[])] {
            let (mut to_queue, mut from_queue) = (queue(to), queue(from));
            to_queue.concat(&mut from_queue);
            assert_eq!((to_queue.len() as usize, from_queue.len()), (to.len() + from.len(), 0));
            from_queue.push(buf(9));
            to_queue.push(buf(8));
            assert_eq!(bytes(&mut from_queue), [9]);
            assert_eq!(bytes(&mut to_queue), [to, from, &[8]].concat());
        }
    }
}
