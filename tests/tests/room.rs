//! `SendBuf::has_room` says what `compose`, `create` and `forward` do.

use imsg_wire::{Descriptor, Header, Message, Modern, Reason, SendBuf};
use proptest::prelude::*;

/// So few that they are often full.
const DESCRIPTORS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Queues a message of this payload, if there is room, in one of the ways.
    Queue { way: u8, len: usize, descriptor: bool },
    /// Begins a message in place of a payload of this length, and gives it up.
    GiveUp(usize),
    /// Sends so many bytes.
    Send(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, 0..120_usize, any::<bool>())
            .prop_map(|(way, len, descriptor)| Step::Queue { way, len, descriptor }),
        1 => (0..100_usize).prop_map(Step::GiveUp),
        3 => (0..90_usize).prop_map(Step::Send),
    ]
}

type Queue = SendBuf<Modern, [u8; 128], u8, DESCRIPTORS>;

fn queue(queue: &mut Queue, way: u8, payload: &[u8], descriptor: bool) -> Result<(), Reason> {
    let descriptor = descriptor.then_some(1);
    let header = Header::new(1);
    match way {
        0 => queue.compose(header, payload, descriptor).map_err(|refused| refused.reason),
        1 => {
            let message = Message { header, payload, descriptor: Descriptor::<u8>::None };
            queue.forward(&message, descriptor).map_err(|refused| refused.reason)
        }
        _ => {
            let mut writer = queue.create(header, descriptor).map_err(|refused| refused.reason)?;
            // Whether it fits shows here; the reason is one of the payload's own.
            let len = payload.len() + 16;
            writer.add(payload).map_err(|_| Reason::Full { len, free: 0 })?;
            writer.close();
            Ok(())
        }
    }
}

fn queue_after(steps: &[Step]) -> Queue {
    let mut tx = Queue::with_descriptors(Modern::new(), [0; 128]);
    for step in steps {
        match *step {
            Step::Queue { way, len, descriptor } => {
                let _ = queue(&mut tx, way, &[0; 128][..len], descriptor);
            }
            Step::GiveUp(_) => {}
            Step::Send(n) => {
                let n = n.min(tx.chunk().map_or(0, |chunk| chunk.bytes.len()));
                tx.consume(n).unwrap();
            }
        }
    }
    tx
}

fn too_long(len: usize, max: usize) -> Reason {
    Reason::TooLong { len: len + 16, max }
}

proptest! {
    #[test]
    fn a_message_is_taken_if_and_only_if_there_is_room_for_it(
        max_len in 16..=128_usize,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut tx = Queue::with_descriptors(Modern::new(), [0; 128]);
        tx.set_max_len(max_len).unwrap();
        for step in steps {
            match step {
                Step::Queue { way, len, descriptor } => {
                    let room = tx.has_room(len, descriptor);
                    let fits_later = matches!(room, Err(reason) if reason != too_long(len, max_len));
                    prop_assert_eq!(tx.room_for(len, descriptor) == 0, fits_later);
                    let queued = queue(&mut tx, way, &[0; 128][..len], descriptor);
                    prop_assert_eq!(room.is_ok(), queued.is_ok(), "{:?} {:?}", room, queued);
                    prop_assert_eq!(
                        matches!(room, Err(Reason::TooLong { .. })),
                        len + 16 > max_len
                    );
                    if way == 0 && len + 16 <= max_len {
                        prop_assert_eq!(room, queued);
                    }
                }
                Step::GiveUp(len) => {
                    if let Ok(mut writer) = tx.create(Header::new(1), None) {
                        let _ = writer.add(&[0_u8; 128][..len]);
                    }
                }
                Step::Send(n) => {
                    let n = n.min(tx.chunk().map_or(0, |chunk| chunk.bytes.len()));
                    tx.consume(n).unwrap();
                }
            }
        }
        prop_assert!(tx.has_room(max_len - 16, true).is_ok() || !tx.is_empty());
    }
}

proptest! {
    #[test]
    fn as_many_messages_are_taken_as_there_is_room_for(
        steps in prop::collection::vec(step(), 0..20),
        len in 0..60_usize,
        messages in prop::collection::vec((0..3_u8, 0..=60_usize), 8),
        descriptor: bool,
    ) {
        let mut tx = queue_after(&steps);
        let room = tx.room_for(len, descriptor);
        for (n, (way, shorter)) in messages.into_iter().take(room).enumerate() {
            let queued = queue(&mut tx, way, &[0; 128][..len.min(shorter)], descriptor);
            prop_assert!(queued.is_ok(), "{} of {}", n, room);
        }
    }
}

/// A queue with 16 bytes free behind what is queued, which may be moved until they are used.
fn movable_queue() -> Queue {
    let mut tx = Queue::with_descriptors(Modern::new(), [0; 128]);
    for _ in 0..7 {
        tx.compose(Header::new(1), b"", None).expect("room for eight");
    }
    tx.consume(56).expect("seven are queued");
    tx
}

proptest! {
    #[test]
    fn what_room_was_made_for_is_taken_also_in_several_messages(
        steps in prop::collection::vec(step(), 0..20),
        room in 0..=112_usize,
        messages in prop::collection::vec((0..3_u8, 0..=60_usize), 8),
    ) {
        let mut tx = queue_after(&steps);
        let (before, queued) = (tx.has_room(room, true), tx.queue_bytes());
        prop_assert_eq!(tx.make_room(room, true), before);
        prop_assert_eq!(tx.queue_bytes(), queued);
        let mut left = if before.is_ok() { room + 16 } else { 0 };
        for (way, len) in messages {
            if let Some(len) = left.checked_sub(16).map(|most| most.min(len)) {
                prop_assert_eq!(queue(&mut tx, way, &[0; 128][..len], false), Ok(()));
                left -= 16 + len;
            }
        }
    }
}

#[test]
fn room_is_made_for_two_messages_the_first_of_which_fits_where_the_other_does_not() {
    let mut tx = movable_queue();
    tx.make_room(16, false).expect("room after a move");
    for _ in 0..2 {
        tx.compose(Header::new(1), b"", None).expect("room for both");
    }
}

#[test]
fn the_room_is_that_for_messages_the_first_of_which_is_short() {
    let mut tx = movable_queue();
    assert_eq!(tx.room_for(16, false), 1);
    tx.compose(Header::new(1), b"", None).expect("room behind the others");
    assert_eq!(tx.room_for(16, false), 0);
}

#[test]
fn an_empty_queue_has_room_for_as_many_as_it_takes_and_never_lacks_room_for_what_never_fits() {
    let tx = Queue::with_descriptors(Modern::new(), [0; 128]);
    assert_eq!([0, 16, 112, 113].map(|len| tx.room_for(len, false)), [8, 4, 1, usize::MAX]);
    assert_eq!([0, 48].map(|len| tx.room_for(len, true)), [DESCRIPTORS, 2]);
}

#[test]
fn a_message_that_just_fits_behind_the_others_moves_none_of_them() {
    let mut queue = Queue::with_descriptors(Modern::new(), [0; 128]);
    queue.compose(Header::new(1), &[1_u8; 48], None).expect("room for half");
    queue.compose(Header::new(2), &[2_u8; 16], None).expect("room for a quarter");
    queue.consume(64).expect("the first message");
    let before = queue.chunk().expect("the second message").bytes.as_ptr();
    queue.compose(Header::new(3), &[3_u8; 16], None).expect("room for the last quarter");
    assert_eq!(queue.chunk().expect("both messages").bytes.as_ptr(), before);
}
