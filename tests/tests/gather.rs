//! Messages that are sent from where their payload is.

use imsg_wire::{
    Counts, Descriptor, Header, Message, Modern, NotOffered, Reason, Refused, SendBuf,
};
use proptest::collection::vec;
use proptest::prelude::*;

const STORAGE: usize = 256;

/// What a kernel got: bytes, and descriptors with the offset of the byte that they came with.
#[derive(Debug, Default, PartialEq)]
struct Stream {
    bytes: Vec<u8>,
    descriptors: Vec<(usize, u8)>,
}

type Queue<const LEN: usize> = SendBuf<Modern, [u8; LEN], u8>;

impl Stream {
    /// Takes `most` bytes of the parts at most.
    fn send(&mut self, parts: &[&[u8]], descriptor: Option<&u8>, most: usize) -> usize {
        let offered = parts.concat();
        let n = most.min(offered.len());
        if n > 0 {
            self.descriptors.extend(descriptor.map(|one| (self.bytes.len(), *one)));
        }
        self.bytes.extend(&offered[..n]);
        n
    }

    fn send_queued<const LEN: usize>(&mut self, queue: &mut Queue<LEN>, most: usize) {
        if let Some(chunk) = queue.chunk() {
            let n = self.send(&[chunk.bytes], chunk.descriptor, most);
            queue.consume(n).unwrap();
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Compose { len: usize, descriptor: bool },
    Gather { len: usize, descriptor: bool, forward: bool, takes: Vec<usize> },
    Lend { len: usize, first: usize, takes: Vec<usize> },
    Send(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let takes = || vec(0..120_usize, 0..4);
    let len = 0..100_usize;
    prop_oneof![
        (len.clone(), any::<bool>())
            .prop_map(|(len, descriptor)| Step::Compose { len, descriptor }),
        (len.clone(), any::<bool>(), any::<bool>(), takes()).prop_map(
            |(len, descriptor, forward, takes)| Step::Gather { len, descriptor, forward, takes }
        ),
        (len, 1..120_usize, takes()).prop_map(|(len, first, takes)| Step::Lend {
            len,
            first,
            takes
        }),
        (0..400_usize).prop_map(Step::Send),
    ]
}

proptest! {
    #[test]
    fn the_stream_is_that_of_composed_messages_whatever_the_kernel_takes(
        steps in vec(step(), 1..60),
    ) {
        let mut queue = Queue::<STORAGE>::with_descriptors(Modern::new(), [0; STORAGE]);
        let mut sent = Stream::default();
        // It has room for all, and is sent at the end.
        let mut composed: SendBuf<_, _, u8, 64> =
            SendBuf::with_descriptors(Modern::new(), vec![0; 1 << 14]);
        for (step, number) in steps.into_iter().zip(0_u8..) {
            let header = Header { id: number.into(), pid: 7, ..Header::new(1) };
            let payload = [number; 100];
            match step {
                Step::Compose { len, descriptor } => {
                    let descriptor = descriptor.then_some(number);
                    if queue.compose(header, &payload[..len], descriptor).is_ok() {
                        composed.compose(header, &payload[..len], descriptor).unwrap();
                    }
                }
                Step::Gather { len, descriptor, forward, takes } => {
                    let descriptor = descriptor.then_some(number);
                    let payload = &payload[..len];
                    let room = queue.has_room(len, descriptor.is_some());
                    let whole = Message { header, payload, descriptor: Descriptor::<()>::None };
                    let message = match forward {
                        true => queue.gather_forward(&whole, descriptor),
                        false => queue.gather(header, payload, descriptor),
                    };
                    let mut message = match message {
                        Ok(message) => message,
                        Err(Refused { reason, descriptor: returned }) => {
                            prop_assert_eq!((Err(reason), returned), (room, descriptor));
                            continue;
                        }
                    };
                    prop_assert_eq!(room, Ok(()));
                    for most in takes {
                        let n = sent.send(&message.parts(), message.descriptor(), most);
                        message.consume(n).unwrap();
                    }
                    drop(message);
                    composed.compose(header, payload, descriptor).unwrap();
                }
                Step::Lend { len, first, takes } => {
                    let Ok(lent) = queue.lend(header, &payload[..len]) else { continue };
                    let n = sent.send(&lent.parts(), Some(&number), first);
                    let mut rest = lent.sent(n).unwrap().expect("something was sent");
                    for most in takes {
                        let n = sent.send(&rest.parts(), rest.descriptor(), most);
                        rest.consume(n).unwrap();
                    }
                    drop(rest);
                    composed.compose(header, &payload[..len], Some(number)).unwrap();
                }
                Step::Send(most) => sent.send_queued(&mut queue, most),
            }
            let bytes = sent.bytes.len();
            let descriptors = sent.descriptors.len() as u64;
            prop_assert_eq!(queue.sent(), Counts { bytes: bytes as u64, descriptors });
            prop_assert_eq!(queue.queue_bytes(), composed.queue_bytes() - bytes);
        }
        while !queue.is_empty() {
            sent.send_queued(&mut queue, usize::MAX);
        }
        prop_assert_eq!(queue.queue_len(), 0);
        let mut expected = Stream::default();
        while let Some(chunk) = composed.chunk() {
            let n = expected.send(&[chunk.bytes], chunk.descriptor, usize::MAX);
            composed.consume(n).unwrap();
        }
        prop_assert_eq!(sent, expected);
    }
}

fn queue() -> Queue<STORAGE> {
    SendBuf::with_descriptors(Modern::new(), [0; STORAGE])
}

#[test]
fn a_message_that_was_sent_leaves_nothing_in_the_queue() {
    let mut queue = queue();
    let mut message = queue.gather(Header::new(1), b"payload", Some(1)).unwrap();
    assert_eq!(message.consume(23), Ok(Some(1)), "to be closed");
    assert!(message.parts().concat().is_empty());
    drop(message);
    assert_eq!((queue.queue_len(), queue.queue_bytes()), (0, 0));
}

#[test]
fn a_message_of_which_a_part_was_sent_counts_until_the_rest_is() {
    let mut queue = queue();
    let mut message = queue.gather(Header::new(1), b"payload", None).unwrap();
    message.consume(20).unwrap();
    drop(message);
    queue.compose(Header::new(2), b"", None).unwrap();
    assert_eq!(queue.queue_len(), 2);
    assert!(queue.take_back().is_none(), "its first byte was sent");
    queue.consume(3).unwrap();
    assert_eq!(queue.queue_len(), 1);
}

#[test]
fn a_message_with_a_descriptor_waits_for_what_is_queued() {
    let mut queue = queue();
    queue.compose(Header::new(1), b"", None).unwrap();
    let mut message = queue.gather(Header::new(2), b"payload", Some(2)).unwrap();
    assert_eq!(message.parts().map(<[u8]>::len), [16, 0, 0]);
    assert_eq!(message.descriptor(), None);
    message.consume(16).unwrap();
    assert_eq!(message.parts().map(<[u8]>::len), [0, 16, 7]);
    assert_eq!(message.descriptor(), Some(&2));
}

#[test]
fn more_bytes_than_there_are_parts_are_not_sent() {
    let mut queue = queue();
    queue.compose(Header::new(1), b"", None).unwrap();
    let mut message = queue.gather(Header::new(2), b"payload", None).unwrap();
    let refused = NotOffered { claimed: 40, offered: 39, returned: () };
    assert_eq!(message.consume(40), Err(refused));
    drop(message);
    assert_eq!((queue.queue_len(), queue.queue_bytes()), (2, 39));
}

#[test]
fn a_message_for_which_there_is_no_room_is_refused_before_anything_is_sent() {
    let mut queue = queue();
    queue.compose(Header::new(1), &[0_u8; 200], None).unwrap();
    let refused = queue.gather(Header::new(2), &[0_u8; 100], Some(2)).unwrap_err();
    assert_eq!(
        refused,
        Refused { reason: Reason::Full { len: 116, free: 40 }, descriptor: Some(2) }
    );
}
