//! Messages that are passed on, and what becomes of their descriptors.

use imsg_wire::{
    Descriptor, Header, Message, Missing, Modern, OwnedMessage, Reason, Refused, SendBuf,
};

const WHYS: [Missing; 3] = [Missing::NotAllowed, Missing::Dropped, Missing::NotSent];

#[test]
fn a_message_whose_descriptor_is_missing_is_not_passed_on_as_one_that_has_none() {
    for why in WHYS {
        let mut queue = queue();
        let mut message = message(Descriptor::Missing(why));
        let descriptor = message.descriptor.take();
        let refused = queue.forward(&message, descriptor);
        assert_eq!(refused, Err(Refused { reason: Reason::Missing(why), descriptor: None }));
        assert!(queue.is_empty());
    }
}

#[test]
fn a_message_that_was_kept_does_not_forget_that_its_descriptor_is_missing() {
    for why in WHYS {
        let kept: OwnedMessage<8, &str> = message(Descriptor::Missing(why)).try_into().unwrap();
        let refused = queue().forward(&kept.view(), None).unwrap_err();
        assert_eq!(refused.reason, Reason::Missing(why));
    }
}

#[test]
fn another_descriptor_can_take_the_place_of_a_missing_one() {
    let mut queue = queue();
    let message = message(Descriptor::Missing(Missing::Dropped));
    assert_eq!(queue.forward(&message, Some("another")), Ok(()));
    assert_eq!(queue.chunk().unwrap().descriptor, Some(&"another"));
}

#[test]
fn a_message_without_a_descriptor_is_passed_on_without_one() {
    let mut queue = queue();
    assert_eq!(queue.forward(&message(Descriptor::None), None), Ok(()));
    assert_eq!(queue.chunk().unwrap().descriptor, None);
}

fn queue() -> SendBuf<Modern, [u8; 64], &'static str> {
    SendBuf::with_descriptors(Modern::new(), [0; 64])
}

fn message(descriptor: Descriptor<&str>) -> Message<'_, &str> {
    Message { header: Header::new(1), payload: b"payload", descriptor }
}
