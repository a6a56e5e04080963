//! Descriptors between honest peers over real sockets: each arrives with its message, each is
//! owned by exactly one place, and none is left behind.

#![cfg(target_os = "linux")]

mod common;

use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use common::{
    ByHand, Got, filler, in_both_dialects, leaving_no_descriptor, next, number_of, numbered,
    receive_to_the_end, watched,
};
use imsg_os::{
    Channel, Descriptor, Header, Missing, ReadOutcome, RecvError, SendError, WriteOutcome,
};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{setsockopt, sockopt};

in_both_dialects! {
    ten_thousand_descriptors_arrive_with_their_messages_and_none_is_left
    a_received_descriptor_is_close_on_exec
    a_descriptor_that_is_not_allowed_is_missing_and_closed
    a_reserve_receives_no_descriptor_that_is_not_allowed
    descriptors_are_received_from_the_time_that_they_are_allowed
    a_marked_header_that_straddles_a_read_keeps_its_descriptor
    a_message_that_is_sent_in_many_parts_brings_its_descriptor_once
    a_full_queue_of_received_descriptors_loses_none
    a_descriptor_arrives_beside_credentials
    a_sent_descriptor_is_closed_at_once
    a_queued_descriptor_is_closed_with_its_sender
    a_descriptor_in_flight_is_closed_with_its_receiver
    a_descriptor_in_flight_outlives_its_sender
    a_descriptor_that_was_read_is_closed_with_its_receiver
    a_descriptor_is_closed_with_its_message
    a_refused_message_gives_its_descriptor_back
    a_borrowed_descriptor_is_sent_behind_what_is_queued_and_stays_open
    a_borrowed_descriptor_is_sent_once_when_the_socket_takes_a_part
    a_borrowed_descriptor_is_not_sent_when_the_socket_is_full
}

fn ten_thousand_descriptors_arrive_with_their_messages_and_none_is_left<D: ByHand>(d: D) {
    const COUNT: u32 = 10_000;
    leaving_no_descriptor(|| {
        let (mut sender, mut receiver) = Channel::pair(d).unwrap();
        receiver.rx.allow_descriptors();
        let sending = thread::spawn(move || {
            for n in 0..COUNT {
                let descriptor = Some(numbered(u64::from(n)));
                sender.tx.compose(Header::new(n), b"", descriptor).unwrap();
                // At times with a queue of several, at times without.
                if n % 7 != 0 {
                    sender.tx.flush().unwrap();
                }
            }
            sender.tx.flush().unwrap();
            drop(sender);
        });

        for n in 0..COUNT {
            let delivered = Got::Message(n, Descriptor::Here(u64::from(n)));
            assert_eq!(next(&mut receiver.rx), delivered);
        }
        assert_eq!(next(&mut receiver.rx), Got::End);
        sending.join().unwrap();
    });
}

fn a_received_descriptor_is_close_on_exec<D: ByHand>(d: D) {
    let (mut sender, mut receiver) = pair_that_passes(d);
    send_numbered(&mut sender, 1);
    send_numbered(&mut sender, 2);

    for _ in 0..2 {
        let flags = fcntl(receive_descriptor(&mut receiver), FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    }
}

fn a_descriptor_that_is_not_allowed_is_missing_and_closed<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (mut sender, mut receiver) = Channel::pair(d).unwrap();
        let (descriptor, watch) = watched();
        sender.tx.compose(Header::new(1), b"", Some(descriptor)).unwrap();
        sender.tx.flush().unwrap();

        let missing = Got::Message(1, Descriptor::Missing(Missing::NotAllowed));
        assert_eq!(next(&mut receiver.rx), missing);
        assert!(watch.sees_it_closed());
    });
}

fn a_reserve_receives_no_descriptor_that_is_not_allowed<D: ByHand>(d: D) {
    let (mut sender, mut receiver) = Channel::pair(d).unwrap();
    receiver.rx.keep_reserve().unwrap();
    send_numbered(&mut sender, 1);

    let missing = Got::Message(1, Descriptor::Missing(Missing::NotAllowed));
    assert_eq!(next(&mut receiver.rx), missing);
}

fn descriptors_are_received_from_the_time_that_they_are_allowed<D: ByHand>(d: D) {
    let (mut sender, mut receiver) = Channel::pair(d).unwrap();
    send_numbered(&mut sender, 1);
    assert_eq!(receiver.rx.read().unwrap(), ReadOutcome::Data);
    receiver.rx.allow_descriptors();
    send_numbered(&mut sender, 2);
    drop(sender);

    let missing = Got::Message(1, Descriptor::Missing(Missing::NotAllowed));
    let delivered = Got::Message(2, Descriptor::Here(2));
    assert_eq!(receive_to_the_end(&mut receiver.rx), [missing, delivered, Got::End]);
}

/// The modern C library loses this descriptor.
fn a_marked_header_that_straddles_a_read_keeps_its_descriptor<D: ByHand>(d: D) {
    const STORAGE: usize = 97;
    for inside in 1..16 {
        let (mut sender, socket) = sender_and_socket(d);
        let mut receiver = Channel::with_storage(socket, d, [0; STORAGE], [0; STORAGE]).unwrap();
        receiver.rx.allow_descriptors();
        let payload = &filler(d, STORAGE)[..STORAGE - inside - 16];
        sender.tx.compose(Header::new(0), payload, None).unwrap();
        send_numbered(&mut sender, 1);
        drop(sender);

        let delivered = [Got::Message(1, Descriptor::Here(1)), Got::End];
        let got = receive_to_the_end(&mut receiver.rx);
        assert_eq!(got, delivered, "{inside} bytes of the header in the first read");
    }
}

fn a_message_that_is_sent_in_many_parts_brings_its_descriptor_once<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (mut sender, mut receiver) = non_blocking_sender(d);
        let descriptor = Some(numbered(1));
        let payload = vec![1_u8; sender.tx.max_len() - 16];
        sender.tx.compose(Header::new(1), &payload[..], descriptor).unwrap();
        sender.tx.compose(Header::new(2), b"", Some(numbered(2))).unwrap();
        let mut parts = 1;
        while sender.tx.write().unwrap() == WriteOutcome::WouldBlock {
            parts += 1;
            assert_eq!(receiver.rx.read().unwrap(), ReadOutcome::Data);
        }
        drop(sender);

        assert!(parts > 2, "{parts} parts");
        let first = Got::Message(1, Descriptor::Here(1));
        let second = Got::Message(2, Descriptor::Here(2));
        assert_eq!(receive_to_the_end(&mut receiver.rx), [first, second, Got::End]);
    });
}

fn a_full_queue_of_received_descriptors_loses_none<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (mut sender, mut receiver) = pair_that_passes(d);
        let count = 40;
        (0..count).for_each(|n| send_numbered(&mut sender, n));
        drop(sender);
        let full = loop {
            match receiver.rx.read() {
                Ok(ReadOutcome::Data) => {}
                other => break other,
            }
        };

        assert!(matches!(full, Err(RecvError::Full)), "{full:?}");
        for n in 0..count {
            let delivered = Got::Message(n, Descriptor::Here(u64::from(n)));
            assert_eq!(next(&mut receiver.rx), delivered);
        }
        assert_eq!(next(&mut receiver.rx), Got::End);
    });
}

/// Their control message takes room, too.
fn a_descriptor_arrives_beside_credentials<D: ByHand>(d: D) {
    let (mut sender, mut receiver) = pair_that_passes(d);
    setsockopt(&receiver, sockopt::PassCred, &true).unwrap();
    send_numbered(&mut sender, 1);
    sender.tx.compose(Header::new(2), b"", None).unwrap();
    sender.tx.flush().unwrap();
    drop(sender);

    let first = Got::Message(1, Descriptor::Here(1));
    let second = Got::Message(2, Descriptor::None);
    assert_eq!(receive_to_the_end(&mut receiver.rx), [first, second, Got::End]);
}

fn a_sent_descriptor_is_closed_at_once<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (mut sender, receiver) = pair_that_passes(d);
        let before = common::open_descriptors();
        send_numbered(&mut sender, 1);

        assert_eq!(common::open_descriptors(), before);
        drop(receiver);
    });
}

fn a_queued_descriptor_is_closed_with_its_sender<D: ByHand>(d: D) {
    let (mut sender, _receiver) = pair_that_passes(d);
    let (descriptor, watch) = watched();
    sender.tx.compose(Header::new(1), b"", Some(descriptor)).unwrap();
    assert!(watch.sees_it_open());

    drop(sender);

    assert!(watch.sees_it_closed());
}

fn a_descriptor_in_flight_is_closed_with_its_receiver<D: ByHand>(d: D) {
    let (mut sender, receiver) = pair_that_passes(d);
    let (descriptor, watch) = watched();
    sender.tx.compose(Header::new(1), b"", Some(descriptor)).unwrap();
    sender.tx.flush().unwrap();
    assert!(watch.sees_it_open());

    drop(receiver);

    assert!(watch.sees_it_closed());
}

fn a_descriptor_in_flight_outlives_its_sender<D: ByHand>(d: D) {
    let (mut sender, mut receiver) = pair_that_passes(d);
    send_numbered(&mut sender, 1);

    drop(sender);

    assert_eq!(number_of(receive_descriptor(&mut receiver)), 1);
}

fn a_descriptor_that_was_read_is_closed_with_its_receiver<D: ByHand>(d: D) {
    let (mut sender, mut receiver) = pair_that_passes(d);
    let (descriptor, watch) = watched();
    sender.tx.compose(Header::new(1), b"", Some(descriptor)).unwrap();
    sender.tx.flush().unwrap();
    assert_eq!(receiver.rx.read().unwrap(), ReadOutcome::Data);
    assert!(watch.sees_it_open());

    drop(receiver);

    assert!(watch.sees_it_closed());
}

fn a_descriptor_is_closed_with_its_message<D: ByHand>(d: D) {
    let (mut sender, mut receiver) = pair_that_passes(d);
    let (descriptor, watch) = watched();
    sender.tx.compose(Header::new(1), b"", Some(descriptor)).unwrap();
    sender.tx.flush().unwrap();
    let message = receiver.rx.recv().unwrap().unwrap();
    assert!(watch.sees_it_open());

    drop(message);

    assert!(watch.sees_it_closed());
}

fn a_refused_message_gives_its_descriptor_back<D: ByHand>(d: D) {
    let (mut sender, _receiver) = pair_that_passes(d);
    let payload = vec![0_u8; sender.tx.max_len()];

    let refused = sender.tx.compose(Header::new(1), &payload[..], Some(numbered(1))).unwrap_err();

    assert_eq!(refused.descriptor.map(number_of), Some(1));
}

fn a_borrowed_descriptor_is_sent_behind_what_is_queued_and_stays_open<D: ByHand>(d: D) {
    let (mut sender, mut receiver) = pair_that_passes(d);
    let descriptor = numbered(2);
    sender.tx.compose(Header::new(1), b"", Some(numbered(1))).unwrap();

    let _ = sender.tx.send_borrowed(Header::new(2), b"", descriptor.as_fd()).unwrap();

    assert_eq!(next(&mut receiver.rx), Got::Message(1, Descriptor::Here(1)));
    drop(receive_descriptor(&mut receiver));
    assert_eq!(number_of(descriptor), 2);
}

fn a_borrowed_descriptor_is_sent_once_when_the_socket_takes_a_part<D: ByHand>(d: D) {
    let (mut sender, mut receiver) = non_blocking_sender(d);
    let payload = vec![1_u8; sender.tx.max_len() - 16];
    let sent = sender.tx.send_borrowed(Header::new(1), &payload[..], numbered(1).as_fd());
    assert_eq!(sent.unwrap(), WriteOutcome::WouldBlock);
    assert_eq!(sender.tx.queue_len(), 1);
    while sender.tx.write().unwrap() == WriteOutcome::WouldBlock {
        assert_eq!(receiver.rx.read().unwrap(), ReadOutcome::Data);
    }
    drop(sender);

    let delivered = Got::Message(1, Descriptor::Here(1));
    assert_eq!(receive_to_the_end(&mut receiver.rx), [delivered, Got::End]);
}

fn a_borrowed_descriptor_is_not_sent_when_the_socket_is_full<D: ByHand>(d: D) {
    let (mut sender, mut receiver) = non_blocking_sender(d);
    let (descriptor, watch) = watched();
    let error = loop {
        if let Err(error) = sender.tx.send_borrowed(Header::new(0), b"", numbered(0).as_fd()) {
            break error;
        }
    };
    assert!(is_would_block(&error), "{error:?}");

    let error = sender.tx.send_borrowed(Header::new(1), b"", descriptor.as_fd()).unwrap_err();

    assert!(is_would_block(&error), "{error:?}");
    assert_eq!(sender.tx.queue_len(), 0);
    drop(descriptor);
    assert!(watch.sees_it_closed());
    drop(sender);
    while let Got::Message(msg_type, _) = next(&mut receiver.rx) {
        assert_eq!(msg_type, 0);
    }
}

fn is_would_block(error: &SendError) -> bool {
    matches!(error, SendError::Io(error) if error.kind() == ErrorKind::WouldBlock)
}

fn pair_that_passes<D: ByHand>(d: D) -> (Channel<D>, Channel<D>) {
    let (sender, mut receiver) = Channel::pair(d).unwrap();
    receiver.rx.allow_descriptors();
    (sender, receiver)
}

fn sender_and_socket<D: ByHand>(d: D) -> (Channel<D>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Channel::new(ours, d).unwrap(), theirs)
}

/// Its socket takes little at a time.
fn non_blocking_sender<D: ByHand>(d: D) -> (Channel<D>, Channel<D>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    setsockopt(&ours, sockopt::SndBuf, &0).unwrap();
    let mut receiver = Channel::new(theirs, d).unwrap();
    receiver.rx.allow_descriptors();
    (Channel::new(ours, d).unwrap(), receiver)
}

fn send_numbered<D: ByHand>(sender: &mut Channel<D>, number: u32) {
    let descriptor = Some(numbered(u64::from(number)));
    sender.tx.compose(Header::new(number), b"", descriptor).unwrap();
    sender.tx.flush().unwrap();
}

#[track_caller]
fn receive_descriptor<D: ByHand>(receiver: &mut Channel<D>) -> OwnedFd {
    let message = receiver.rx.recv().unwrap().expect("a message");
    match message.descriptor {
        Descriptor::Here(descriptor) => descriptor,
        other => panic!("{other:?}"),
    }
}
