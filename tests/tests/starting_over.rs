//! Buffers that are used for one connection after the other.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use imsg_wire::{
    Ancillary, Classic, Descriptor, Dialect, Error, Header, Missing, Modern, NoRoom, RecvBuf,
    SendBuf, Storage, Wiping,
};

/// A stream of one message with a descriptor and one without.
fn stream<D: Dialect>(dialect: D) -> Vec<u8> {
    let mut queue: SendBuf<D, _, u8> = SendBuf::with_descriptors(dialect, [0; 128]);
    queue.compose(Header::new(1), b"marked", Some(1)).unwrap();
    queue.compose(Header::new(2), b"not", None).unwrap();
    queue.chunk().unwrap().bytes.to_vec()
}

fn receive<D: Dialect, F, const N: usize>(
    received: &mut RecvBuf<D, impl Storage, F, N>,
    bytes: &[u8],
    ancillary: Ancillary<F>,
) {
    received.spare().unwrap()[..bytes.len()].copy_from_slice(bytes);
    assert!(received.commit(bytes.len(), ancillary).is_ok());
}

#[test]
fn a_stream_that_broke_is_forgotten_with_its_descriptors() {
    let descriptor = Rc::new(());
    let mut received: RecvBuf<_, _, Rc<()>> = RecvBuf::with_descriptors(Modern::new(), [0; 128]);
    received.set_max_len(64).unwrap();
    received.allow_descriptors();
    for _ in 0..2 {
        receive(&mut received, &[0; 16], Ancillary::One(Rc::clone(&descriptor)));
        assert!(matches!(received.next_message(), Err(Error::Length { offset: 0, .. })));
        assert!(matches!(received.spare(), Err(NoRoom::Failed(_))));
        received.reset();
        assert_eq!(Rc::strong_count(&descriptor), 1);

        let bytes = stream(Modern::new());
        receive(&mut received, &bytes, Ancillary::One(Rc::clone(&descriptor)));
        let message = received.next_message().unwrap().unwrap();
        assert_eq!(message.descriptor, Descriptor::Here(Rc::clone(&descriptor)));
        assert_eq!(received.max_len(), 64);
        received.finish();
        received.reset();
    }
}

#[test]
fn whether_descriptors_are_allowed_stays() {
    let bytes = stream(Classic::new());
    for allowed in [false, true] {
        let mut received: RecvBuf<_, _, u8> = RecvBuf::with_descriptors(Classic::new(), [0; 128]);
        receive(&mut received, &bytes, Ancillary::Nothing);
        if allowed {
            received.allow_descriptors();
        }
        received.reset();
        assert_eq!(received.descriptors_allowed(), allowed);
        receive(&mut received, &bytes, Ancillary::Nothing);
        let why = if allowed { Missing::NotSent } else { Missing::NotAllowed };
        let message = received.next_message().unwrap().unwrap();
        assert_eq!(message.descriptor, Descriptor::Missing(why));
    }
}

#[test]
fn several_descriptors_of_an_old_stream_are_no_fault_of_the_new_one() {
    let mut received: RecvBuf<_, _, u8> = RecvBuf::with_descriptors(Modern::new(), [0; 128]);
    received.allow_descriptors();
    receive(&mut received, &[1], Ancillary::Several);
    received.reset();
    receive(&mut received, &stream(Modern::new()), Ancillary::One(9));
    assert_eq!(received.next_message().unwrap().unwrap().descriptor, Descriptor::Here(9));
}

#[test]
fn a_queue_that_starts_over_is_empty_and_keeps_its_pid_and_maximum() {
    let descriptor = Rc::new(());
    let mut queue: SendBuf<_, _, Rc<()>> = SendBuf::with_descriptors(Modern::new(), [0; 128]);
    queue.set_pid(99);
    queue.set_max_len(64).unwrap();
    queue.compose(Header::new(1), b"first", None).unwrap();
    queue.compose(Header::new(2), b"second", Some(Rc::clone(&descriptor))).unwrap();
    queue.consume(7).unwrap();
    queue.create(Header::new(3), None).unwrap().add(b"given up").unwrap();
    queue.reset();
    assert!(queue.is_empty() && queue.chunk().is_none());
    assert_eq!((queue.queue_len(), queue.max_len()), (0, 64));
    assert_eq!(Rc::strong_count(&descriptor), 1);

    let mut new: SendBuf<_, _, Rc<()>> = SendBuf::with_descriptors(Modern::new(), [0; 128]);
    new.set_pid(99);
    for queue in [&mut queue, &mut new] {
        queue.compose(Header::new(4), b"again", Some(Rc::clone(&descriptor))).unwrap();
    }
    assert_eq!(queue.chunk(), new.chunk());
}

#[test]
fn nothing_of_the_old_connection_is_left_in_a_wiping_storage() {
    let mut memory = [0; 64];
    let mut received: RecvBuf<_, _, u8> =
        RecvBuf::with_descriptors(Modern::new(), Wiping::new(&mut memory[..]));
    receive(&mut received, &[0xaa; 40], Ancillary::Nothing);
    received.reset();
    assert_eq!(received.spare().unwrap(), [0; 64]);
}

#[test]
fn a_queue_that_starts_over_releases_all_of_its_storage() {
    struct Recorder([u8; 64], Rc<RefCell<Vec<Range<usize>>>>);

    impl Storage for Recorder {
        fn bytes(&self) -> &[u8] {
            &self.0
        }

        fn bytes_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }

        fn release(&mut self, range: Range<usize>) {
            self.1.borrow_mut().push(range);
        }
    }

    let released: Rc<RefCell<Vec<Range<usize>>>> = Rc::default();
    let storage = Recorder([0; 64], Rc::clone(&released));
    let mut queue: SendBuf<_, _, u8> = SendBuf::with_descriptors(Modern::new(), storage);
    queue.compose(Header::new(1), b"secret", None).unwrap();
    assert!(released.borrow().is_empty());
    queue.reset();
    assert_eq!(*released.borrow(), std::slice::from_ref(&(0..64)));
}

#[test]
fn what_came_without_a_byte_is_not_given_to_the_next_connection() {
    let mut received: RecvBuf<_, _, Rc<()>> = RecvBuf::with_descriptors(Modern::new(), [0; 64]);
    received.allow_descriptors();
    let descriptor = Rc::new(());
    received.spare().unwrap();
    received.commit(0, Ancillary::One(Rc::clone(&descriptor))).unwrap();

    received.reset();

    assert_eq!(Rc::strong_count(&descriptor), 1, "it is not dropped");
    let mut sent: SendBuf<_, _, u8> = SendBuf::with_descriptors(Modern::new(), [0; 64]);
    sent.compose(Header::new(1), b"", Some(1)).unwrap();
    let bytes = sent.chunk().unwrap().bytes;
    received.spare().unwrap()[..bytes.len()].copy_from_slice(bytes);
    received.commit(bytes.len(), Ancillary::Nothing).unwrap();
    let message = received.next_message().unwrap().expect("a message");
    assert_eq!(message.descriptor, Descriptor::Missing(Missing::NotSent));
}
