//! Messages that own their payload: kept, queued, and handed to other threads.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;

use heapless::Deque;
use imsg_wire::{
    Ancillary, Descriptor, Header, Message, Missing, Modern, OwnedMessage, RecvBuf, SendBuf,
};

// ---- Which threads a message may go to

/// Whether a type is [`Send`]: the constant of the type's own, where it has one, hides that of the
/// trait.
struct Probe<T>(PhantomData<T>);

trait NotSend {
    const IS_SEND: bool = false;
}

impl<T> NotSend for Probe<T> {}

impl<T: Send> Probe<T> {
    const IS_SEND: bool = true;
}

#[test]
fn a_message_with_a_file_may_go_to_another_thread() {
    const { assert!(Probe::<OwnedMessage<64, OwnedFd>>::IS_SEND) };
}

#[test]
fn a_message_that_cannot_have_a_descriptor_may_go_to_another_thread() {
    const { assert!(Probe::<OwnedMessage<64, Infallible>>::IS_SEND) };
}

#[test]
fn a_message_whose_descriptor_must_stay_stays_in_its_thread() {
    const { assert!(!Probe::<OwnedMessage<64, Rc<()>>>::IS_SEND) };
}

#[test]
fn a_message_may_be_kept_for_ever() {
    fn is_static<T: 'static>(_: T) {}
    let payload = b"borrowed".to_vec();
    is_static(owned(message(&payload, Descriptor::Here(Arc::new(())))));
}

// ---- To another thread

#[test]
fn a_message_is_forwarded_by_another_thread_as_it_was_received() {
    let (to_thread, from_receiver) = mpsc::channel::<OwnedMessage<64, Arc<&str>>>();
    let forwarder = thread::spawn(move || {
        let mut queue: SendBuf<_, _, Arc<&str>> =
            SendBuf::with_descriptors(Modern::new(), [0; 256]);
        for mut message in from_receiver {
            let descriptor = message.descriptor.take();
            queue.forward(&message.view(), descriptor).expect("room for all");
        }
        let chunk = queue.chunk().expect("messages were forwarded");
        (chunk.bytes.to_vec(), chunk.descriptor.cloned())
    });

    let sent = stream();
    let descriptor = Arc::new("descriptor");
    let mut received: RecvBuf<_, _, Arc<&str>> = RecvBuf::with_descriptors(Modern::new(), [0; 256]);
    received.allow_descriptors();
    received.spare().expect("room")[..sent.len()].copy_from_slice(&sent);
    received.commit(sent.len(), Ancillary::One(Arc::clone(&descriptor))).expect("what was lent");
    for message in received.messages() {
        let message = OwnedMessage::try_from(message.expect("a good message"));
        to_thread.send(message.expect("at most 64 bytes")).expect("the thread is there");
    }
    drop(to_thread);

    let (forwarded, with) = forwarder.join().expect("the thread does not panic");
    assert_eq!(forwarded, sent);
    assert!(with.is_some_and(|it| Arc::ptr_eq(&it, &descriptor)));
}

// ---- Kept

#[test]
fn an_owned_message_has_all_of_a_message() {
    let kept = owned(message(b"payload", Descriptor::Here("descriptor")));
    assert_eq!(kept.header, HEADER);
    assert_eq!(kept.payload(), b"payload");
    assert_eq!(kept.descriptor, Descriptor::Here("descriptor"));
}

#[test]
fn an_owned_message_may_have_no_payload() {
    assert_eq!(owned(message(b"", Descriptor::<()>::None)).payload(), b"");
}

#[test]
fn an_owned_message_says_why_its_descriptor_is_missing() {
    let missing: Descriptor<()> = Descriptor::Missing(Missing::Dropped);
    assert_eq!(owned(message(b"payload", missing)).descriptor, missing);
}

#[test]
fn the_view_of_an_owned_message_has_its_header_and_payload() {
    let kept = owned(message(b"payload", Descriptor::Here("descriptor")));
    let view = kept.view();
    assert_eq!((view.header, view.payload), (HEADER, &b"payload"[..]));
}

#[test]
fn the_view_of_an_owned_message_leaves_the_descriptor_there() {
    let descriptor = Rc::new(());
    let kept = owned(message(b"payload", Descriptor::Here(Rc::clone(&descriptor))));
    assert_eq!(kept.view().descriptor, Descriptor::None);
    assert_eq!(Rc::strong_count(&descriptor), 2);
}

#[test]
fn a_dropped_message_drops_its_descriptor() {
    let descriptor = Rc::new(());
    drop(owned(message(b"payload", Descriptor::Here(Rc::clone(&descriptor)))));
    assert_eq!(Rc::strong_count(&descriptor), 1);
}

#[test]
fn a_payload_may_have_all_of_the_capacity() {
    let kept: Result<OwnedMessage<7>, _> = message(b"payload", Descriptor::None).try_into();
    assert_eq!(kept.expect("seven bytes").payload(), b"payload");
}

#[test]
fn a_message_without_a_payload_needs_no_capacity() {
    let kept: Result<OwnedMessage<0>, _> = message(b"", Descriptor::None).try_into();
    assert_eq!(kept.expect("no bytes").payload(), b"");
}

#[test]
fn a_message_that_is_too_long_is_refused_and_its_descriptor_given_back() {
    let descriptor = Rc::new(());
    let too_long = message(b"payload", Descriptor::Here(Rc::clone(&descriptor)));
    let too_large = OwnedMessage::<6, _>::try_from(too_long).expect_err("seven bytes");
    assert_eq!((too_large.len, too_large.capacity), (7, 6));
    assert_eq!(
        too_large.to_string(),
        "a payload of 7 bytes is longer than the 6 bytes kept for it"
    );
    assert_eq!(too_large.descriptor, Descriptor::Here(descriptor));
}

#[test]
fn a_message_of_parts_is_the_one_that_is_taken_again_with_its_descriptor() {
    for descriptor in [Descriptor::None, Descriptor::Here(7), Descriptor::Missing(Missing::Dropped)]
    {
        let mut kept = OwnedMessage::<7, u8>::new(HEADER, b"payload", descriptor).unwrap();
        let message = kept.take();
        assert_eq!((message.header, message.payload), (HEADER, &b"payload"[..]));
        assert_eq!(message.descriptor, descriptor);
        assert_eq!(kept.take().descriptor, Descriptor::None);
    }
}

// ---- Queued

#[test]
fn messages_queue_in_their_order() {
    let mut kept: Deque<OwnedMessage<8, Rc<()>>, 4> = Deque::new();
    for payload in [&b"one"[..], b"two", b"three"] {
        let message = message(payload, Descriptor::Here(Rc::new(())));
        kept.push_back(message.try_into().expect("at most eight bytes")).expect("room for four");
    }
    let payloads: Vec<_> = kept.iter().map(OwnedMessage::payload).collect();
    assert_eq!(payloads, [&b"one"[..], b"two", b"three"]);
}

#[test]
fn a_full_queue_gives_a_message_back_with_its_descriptor() {
    let descriptor = Rc::new(());
    let mut kept: Deque<OwnedMessage<8, Rc<()>>, 1> = Deque::new();
    kept.push_back(owned_small(&descriptor)).expect("room for one");
    let given_back = kept.push_back(owned_small(&descriptor)).expect_err("one is there");
    assert_eq!(given_back.descriptor, Descriptor::Here(descriptor));
}

#[test]
fn a_dropped_queue_drops_the_descriptors_of_its_messages() {
    let descriptor = Rc::new(());
    let mut kept: Deque<OwnedMessage<8, Rc<()>>, 4> = Deque::new();
    for _ in 0..4 {
        kept.push_back(owned_small(&descriptor)).expect("room for four");
    }
    drop(kept);
    assert_eq!(Rc::strong_count(&descriptor), 1);
}

#[test]
fn a_refused_message_can_be_put_back() {
    let descriptor = Rc::new(());
    let mut kept = owned_small(&descriptor);
    let mut queue: SendBuf<_, _, Rc<()>> = SendBuf::with_descriptors(Modern::new(), [0; 16]);
    let attached = kept.descriptor.take();
    let refused = queue.forward(&kept.view(), attached).expect_err("room for a header only");
    kept.descriptor = Descriptor::Here(refused.descriptor.expect("what was attached"));
    assert!(matches!(&kept.descriptor, Descriptor::Here(it) if Rc::ptr_eq(it, &descriptor)));
}

// ---- Helpers

const HEADER: Header = Header { msg_type: 1, id: 2, pid: 3 };

fn message<F>(payload: &[u8], descriptor: Descriptor<F>) -> Message<'_, F> {
    Message { header: HEADER, payload, descriptor }
}

fn owned<F: std::fmt::Debug>(message: Message<'_, F>) -> OwnedMessage<64, F> {
    message.try_into().expect("at most 64 bytes")
}

fn owned_small(descriptor: &Rc<()>) -> OwnedMessage<8, Rc<()>> {
    let message = message(b"payload", Descriptor::Here(Rc::clone(descriptor)));
    message.try_into().expect("at most eight bytes")
}

/// A message with a descriptor, and one without, neither from this process.
fn stream() -> Vec<u8> {
    let mut queue: SendBuf<_, _, ()> = SendBuf::with_descriptors(Modern::new(), [0; 256]);
    queue.compose(Header { msg_type: 1, id: 2, pid: 77 }, b"first", Some(())).expect("room");
    let second = Header { msg_type: 3, id: 4, pid: u32::MAX };
    queue.compose(second, b"second", None).expect("room");
    queue.chunk().expect("two messages").bytes.to_vec()
}
