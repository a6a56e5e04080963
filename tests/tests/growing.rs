//! Receive buffers over a storage that grows, and what they tell of the next message.

use std::cell::Cell;
use std::rc::Rc;

use imsg_wire::{Ancillary, BadLength, Header, Modern, NoRoom, RecvBuf, SendBuf, Storage};
use proptest::prelude::*;

/// What a storage starts with, and the least that a buffer works with.
const FIRST: usize = 64;

/// Memory that grows up to `most` bytes, unless it is told not to.
struct Growing {
    bytes: Vec<u8>,
    most: usize,
    refuses: Rc<Cell<bool>>,
}

impl Growing {
    fn up_to(most: usize) -> Self {
        Self { bytes: vec![0; FIRST], most, refuses: Rc::default() }
    }
}

impl Storage for Growing {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn most(&self) -> usize {
        self.most
    }

    fn grow(&mut self, len: usize) -> bool {
        if self.refuses.get() || len > self.most {
            return false;
        }
        self.bytes.resize(len.max(self.bytes.len()), 0xff);
        true
    }

    fn shrink(&mut self) {
        self.bytes.truncate(FIRST);
    }
}

fn buffer(most: usize) -> RecvBuf<Modern, Growing> {
    let mut buffer = RecvBuf::new(Modern::new(), Growing::up_to(most));
    buffer.set_max_len(most).unwrap();
    buffer
}

/// A stream of messages with payloads of these lengths, whose bytes tell them apart.
fn stream(lens: &[usize]) -> Vec<u8> {
    let total = lens.iter().map(|len| 16 + len).sum();
    let mut queue = SendBuf::new(Modern::new(), vec![0; total]);
    queue.set_max_len(total).unwrap();
    for (number, len) in lens.iter().enumerate() {
        queue.compose(Header::new(number as u32), &payload(number, *len)[..], None).unwrap();
    }
    queue.chunk().unwrap().bytes.to_vec()
}

fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + number) as u8).collect()
}

/// Gives the buffer the next bytes of the stream, and says how many it took.
fn receive(buffer: &mut RecvBuf<Modern, Growing>, stream: &[u8]) -> Result<usize, NoRoom> {
    let spare = buffer.spare()?;
    let n = spare.len().min(stream.len());
    spare[..n].copy_from_slice(&stream[..n]);
    buffer.commit(n, Ancillary::Nothing).unwrap();
    Ok(n)
}

proptest! {
    #[test]
    fn messages_longer_than_the_storage_arrive_whole(
        lens in prop::collection::vec(prop_oneof![0..40_usize, 40..3000_usize], 1..8),
        chunks in prop::collection::vec(1..500_usize, 1..20),
    ) {
        let stream = stream(&lens);
        let mut buffer = buffer(4000);
        let (mut sent, mut taken) = (0, 0);
        for chunk in chunks.iter().cycle() {
            let end = stream.len().min(sent + chunk);
            sent += receive(&mut buffer, &stream[sent..end]).unwrap();
            loop {
                let announced = buffer.next_len();
                let Some(message) = buffer.next_message().unwrap() else {
                    prop_assert_eq!(announced, None);
                    break;
                };
                prop_assert_eq!(announced, Some(message.payload.len()));
                prop_assert_eq!(message.payload, &payload(taken, lens[taken])[..]);
                taken += 1;
            }
            if sent == stream.len() {
                break;
            }
        }
        prop_assert_eq!(taken, lens.len());
        buffer.finish();
        prop_assert!(buffer.next_message().unwrap().is_none());
    }

    #[test]
    fn what_a_header_states_takes_no_memory_before_it_arrives(arrived in 16..5000_usize) {
        let stream = stream(&[100_000]);
        let mut buffer = buffer(200_000);
        let mut sent = 0;
        while sent < arrived {
            sent += receive(&mut buffer, &stream[sent..arrived]).unwrap();
        }
        let storage = buffer.into_storage().bytes.len();
        prop_assert!(storage <= FIRST.max(2 * arrived), "{} bytes for {}", storage, arrived);
    }
}

proptest! {
    #[test]
    fn the_last_step_to_a_long_message_is_from_half_of_it(len in 200..5000_usize) {
        let stream = stream(&[len]);
        let mut buffer = buffer(6000);
        let mut lens = vec![FIRST];
        let mut sent = 0;
        while sent < stream.len() {
            sent += receive(&mut buffer, &stream[sent..]).unwrap();
            let now = buffer.storage().bytes.len();
            if lens.last() != Some(&now) {
                lens.push(now);
            }
        }
        lens.reverse();
        prop_assert_eq!(lens[..2].to_vec(), vec![stream.len(), stream.len().div_ceil(2)]);
    }
}

#[test]
fn a_storage_is_replaced_when_all_is_taken_and_keeps_what_was() {
    let stream = stream(&[1000, 10]);
    let mut buffer = buffer(2000);
    let mut sent = 0;
    while !buffer.is_ready() {
        sent += receive(&mut buffer, &stream[sent..]).unwrap();
    }
    let refused = buffer.replace_storage(Growing::up_to(2000));
    assert!(refused.is_err_and(|refused| refused.most == 2000), "a message is not taken");
    assert!(buffer.next_message().unwrap().is_some());
    let refused = buffer.replace_storage(Growing::up_to(1999));
    assert!(
        refused.is_err_and(|refused| refused.most == 1999),
        "too small for the longest message"
    );
    let Ok(taken) = buffer.replace_storage(Growing::up_to(2000)) else {
        panic!("all is taken");
    };
    assert_eq!(taken.bytes, stream[..1016]);
    assert_eq!(buffer.offset(), 1016);
    receive(&mut buffer, &stream[sent..]).unwrap();
    assert_eq!(buffer.next_message().unwrap().unwrap().payload, payload(1, 10));
}

#[test]
fn a_buffer_shrinks_when_its_last_message_was_taken() {
    let stream = stream(&[1000]);
    let mut buffer = buffer(2000);
    let mut sent = 0;
    while sent < stream.len() {
        sent += receive(&mut buffer, &stream[sent..]).unwrap();
    }
    buffer.shrink();
    assert!(buffer.next_message().unwrap().is_some(), "what is there stays");
    buffer.shrink();
    assert_eq!(buffer.into_storage().bytes.len(), FIRST);
}

#[test]
fn a_buffer_that_shrinks_lends_nothing() {
    let mut buffer = buffer(100);
    buffer.spare().unwrap();
    buffer.shrink();
    assert!(buffer.commit(1, Ancillary::Nothing).is_err());
}

proptest! {
    /// A program that always leaves so many messages.
    #[test]
    fn messages_that_are_left_do_not_stop_the_stream(left in 1..4_usize, storage in 160..400_usize) {
        let lens = [4; 200];
        let stream = stream(&lens);
        let mut buffer = RecvBuf::new(Modern::new(), vec![0; storage]);
        let mut rest = &stream[..];
        let mut taken = 0;
        while !rest.is_empty() {
            let spare = buffer.spare().unwrap();
            let n = spare.len().min(20).min(rest.len());
            spare[..n].copy_from_slice(&rest[..n]);
            buffer.commit(n, Ancillary::Nothing).unwrap();
            rest = &rest[n..];
            while buffer.unread_bytes() > left * 20 {
                let message = buffer.next_message().unwrap().unwrap();
                prop_assert_eq!(message.payload, payload(taken, 4));
                taken += 1;
            }
        }
    }
}

#[test]
fn a_storage_that_cannot_grow_now_loses_nothing() {
    let stream = stream(&[10, 300]);
    let storage = Growing::up_to(400);
    let refuses = Rc::clone(&storage.refuses);
    let mut buffer = RecvBuf::new(Modern::new(), storage);
    refuses.set(true);
    let mut sent = receive(&mut buffer, &stream).unwrap();
    assert_eq!(buffer.spare().unwrap_err(), NoRoom::Full);
    assert!(buffer.is_ready(), "the first message is to be taken");
    assert_eq!(buffer.next_message().unwrap().unwrap().payload, payload(0, 10));
    sent += receive(&mut buffer, &stream[sent..]).unwrap();
    for _ in 0..2 {
        assert_eq!(buffer.spare().unwrap_err(), NoRoom::Full);
        assert!(!buffer.is_ready(), "nothing can be taken");
    }
    refuses.set(false);
    while sent < stream.len() {
        sent += receive(&mut buffer, &stream[sent..]).unwrap();
    }
    assert_eq!(buffer.next_message().unwrap().unwrap().payload, payload(1, 300));
}

#[test]
fn a_storage_may_shrink_when_nothing_is_in_it() {
    let stream = stream(&[300]);
    let mut buffer = buffer(400);
    for _ in 0..2 {
        let mut sent = 0;
        while sent < stream.len() {
            sent += receive(&mut buffer, &stream[sent..]).unwrap();
        }
        assert_eq!(buffer.next_message().unwrap().unwrap().payload, payload(0, 300));
        assert_eq!(buffer.spare().unwrap().len(), FIRST);
    }
}

#[test]
fn the_largest_message_is_what_the_storage_can_have() {
    let mut buffer = RecvBuf::new(Modern::new(), Growing::up_to(1000));
    assert_eq!(buffer.max_len(), 1000);
    assert_eq!(buffer.set_max_len(1001), Err(BadLength { len: 1001, min: 16, max: 1000 }));
    let buffer = RecvBuf::new(Modern::new(), Growing::up_to(100_000));
    assert_eq!(buffer.max_len(), imsg_wire::DEFAULT_MAX_LEN);
}
