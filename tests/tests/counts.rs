//! The numbers that the buffers tell, beside those that the test counts itself.

use imsg_wire::{Ancillary, Counts, Descriptor, Header, Modern, RecvBuf, SendBuf};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Queue {
        len: usize,
        descriptor: bool,
    },
    /// Sends a message with a descriptor that is only lent, but for so many of its bytes.
    Lend {
        len: usize,
        unsent: usize,
    },
    TakeBack,
    Send(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..60_usize, any::<bool>()).prop_map(|(len, descriptor)| Step::Queue { len, descriptor }),
        1 => (0..60_usize, 0..16_usize).prop_map(|(len, unsent)| Step::Lend { len, unsent }),
        1 => Just(Step::TakeBack),
        4 => (0..90_usize).prop_map(Step::Send),
    ]
}

proptest! {
    #[test]
    fn what_is_sent_and_what_is_received_are_counted(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut tx: SendBuf<_, _, u8> = SendBuf::with_descriptors(Modern::new(), [0; 256]);
        let mut rx: RecvBuf<_, _, u8> = RecvBuf::with_descriptors(Modern::new(), [0; 256]);
        rx.allow_descriptors();
        let (mut sent, mut taken) = (Counts::default(), Counts::default());
        for step in steps {
            match step {
                Step::Queue { len, descriptor } => {
                    let _ = tx.compose(Header::new(1), &[0; 60][..len], descriptor.then_some(1));
                }
                Step::Lend { len, unsent } => {
                    let Ok(lent) = tx.lend(Header::new(1), &[0; 60][..len]) else { continue };
                    let bytes = lent.parts().concat();
                    let n = bytes.len() - unsent;
                    rx.spare().unwrap()[..n].copy_from_slice(&bytes[..n]);
                    rx.commit(n, if n > 0 { Ancillary::One(1) } else { Ancillary::Nothing }).unwrap();
                    lent.sent(n).unwrap();
                    sent.bytes += n as u64;
                    sent.descriptors += u64::from(n > 0);
                }
                Step::TakeBack => {
                    tx.take_back();
                }
                Step::Send(n) => {
                    let Some(chunk) = tx.chunk() else { continue };
                    let spare = rx.spare().unwrap();
                    let n = n.min(chunk.bytes.len()).min(spare.len());
                    spare[..n].copy_from_slice(&chunk.bytes[..n]);
                    let ancillary = match chunk.descriptor {
                        Some(one) if n > 0 => Ancillary::One(*one),
                        _ => Ancillary::Nothing,
                    };
                    sent.bytes += n as u64;
                    sent.descriptors += u64::from(matches!(ancillary, Ancillary::One(_)));
                    rx.commit(n, ancillary).unwrap();
                    tx.consume(n).unwrap();
                }
            }
            for message in rx.messages() {
                let message = message.unwrap();
                taken.bytes += 16 + message.payload.len() as u64;
                taken.descriptors += u64::from(matches!(message.descriptor, Descriptor::Here(_)));
            }
            prop_assert_eq!(tx.sent(), sent);
            prop_assert_eq!(rx.received(), taken);
            prop_assert_eq!(rx.offset(), taken.bytes);
            prop_assert_eq!(taken.bytes + rx.unread_bytes() as u64, sent.bytes);
        }
    }
}
