//! Messages larger than a socket takes, sent from where their payload is.

#![cfg(target_os = "linux")]

mod common;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use common::{ByHand, in_both_dialects, leaving_no_descriptor, number_of, numbered, watched};
use imsg_os::{
    Channel, Descriptor, Dialect, Header, Modern, Pages, Reason, Receiver, Refused, WriteOutcome,
};
use nix::sys::socket::{setsockopt, sockopt};

/// More than a socket takes at once, if the dialect can say that.
fn large<D: Dialect>(d: &D) -> usize {
    d.max_len().min(1 << 20)
}

fn payload<D: Dialect>(d: &D) -> Vec<u8> {
    (0..large(d) - 16).map(|at| (at % 251) as u8).collect()
}

/// Two connected channels for large messages, whose sockets take little at once.
fn pair<D: ByHand>(d: D) -> (Channel<D>, Channel<D>) {
    let (one, other) = UnixStream::pair().unwrap();
    let make = |socket: UnixStream| {
        setsockopt(&socket, sockopt::SndBuf, &0).unwrap();
        let storage = || Pages::new(large(&d) + 64).expect("memory");
        let mut channel = Channel::with_storage(socket, d, storage(), storage()).unwrap();
        channel.rx.set_max_len(large(&d)).unwrap();
        channel.tx.set_max_len(large(&d)).unwrap();
        channel.rx.allow_descriptors();
        channel
    };
    (make(one), make(other))
}

/// The next message: its id, whether the payload is the large one, and the number of its descriptor.
fn next<D: ByHand>(d: D, rx: &mut Receiver<D>) -> (u32, bool, Option<u64>) {
    let message = rx.recv().unwrap().expect("a message");
    let number = match message.descriptor {
        Descriptor::Here(descriptor) => Some(number_of(descriptor)),
        _ => None,
    };
    (message.header.id, message.payload == payload(&d), number)
}

fn header(id: u32) -> Header {
    Header { id, ..Header::new(1) }
}

in_both_dialects! {
    a_large_message_arrives_behind_what_was_queued
    a_large_message_arrives_with_its_descriptor
    a_large_message_arrives_with_a_lent_descriptor
    what_a_socket_does_not_take_is_queued
    a_relay_passes_large_messages_on
}

fn a_large_message_arrives_behind_what_was_queued<D: ByHand>(d: D) {
    let (mut ours, mut theirs) = pair(d);
    let receiver = thread::spawn(move || [next(d, &mut theirs.rx), next(d, &mut theirs.rx)]);
    ours.tx.compose(header(1), b"queued", Some(numbered(7))).unwrap();
    ours.tx.gather(header(2), &payload(&d)[..(1 << 15)], None).unwrap().flush().unwrap();
    assert_eq!(receiver.join().unwrap(), [(1, false, Some(7)), (2, false, None)]);
}

fn a_large_message_arrives_with_its_descriptor<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (mut ours, mut theirs) = pair(d);
        let receiver = thread::spawn(move || next(d, &mut theirs.rx));
        ours.tx.gather(header(1), &payload(&d)[..], Some(numbered(7))).unwrap().flush().unwrap();
        assert_eq!(receiver.join().unwrap(), (1, true, Some(7)));
    });
}

fn a_large_message_arrives_with_a_lent_descriptor<D: ByHand>(d: D) {
    let (mut ours, mut theirs) = pair(d);
    let receiver = thread::spawn(move || next(d, &mut theirs.rx));
    let sent = ours.tx.send_borrowed(header(1), &payload(&d)[..], numbered(7).as_fd()).unwrap();
    assert_eq!(sent, WriteOutcome::All);
    assert_eq!(receiver.join().unwrap(), (1, true, Some(7)));
}

fn what_a_socket_does_not_take_is_queued<D: ByHand>(d: D) {
    let (mut ours, mut theirs) = pair(d);
    ours.set_nonblocking(true);
    let large = payload(&d);
    let mut message = ours.tx.gather(header(1), &large[..], Some(numbered(7))).unwrap();
    assert_eq!(message.write().unwrap(), WriteOutcome::WouldBlock);
    drop(message);
    let queued = ours.tx.queue_bytes();
    assert!(queued > 0 && queued < large.len(), "{queued} bytes are queued");
    let receiver = thread::spawn(move || next(d, &mut theirs.rx));
    ours.tx.flush().unwrap();
    assert_eq!(receiver.join().unwrap(), (1, true, Some(7)));
}

fn a_relay_passes_large_messages_on<D: ByHand>(d: D) {
    let (mut ours, mut from) = pair(d);
    let (mut to, mut theirs) = pair(d);
    let sender = thread::spawn(move || {
        ours.tx.gather(header(1), &payload(&d)[..], Some(numbered(7))).unwrap().flush().unwrap();
    });
    let receiver = thread::spawn(move || next(d, &mut theirs.rx));
    let mut message = from.rx.recv().unwrap().expect("a message");
    let descriptor = message.descriptor.take();
    to.tx.gather_forward(&message, descriptor).unwrap().flush().unwrap();
    assert_eq!(receiver.join().unwrap(), (1, true, Some(7)));
    sender.join().unwrap();
}

#[test]
fn a_message_that_is_too_long_is_refused_with_its_descriptor() {
    let (mut ours, _theirs) = Channel::pair(Modern::new()).unwrap();
    let (descriptor, watch) = watched();
    let refused = ours.tx.gather(header(1), &[0_u8; 1 << 15], Some(descriptor)).unwrap_err();
    assert!(matches!(refused, Refused { reason: Reason::TooLong { .. }, .. }), "{refused}");
    let returned = refused.descriptor.expect("the descriptor");
    assert!(watch.sees_it_open());
    drop(returned);
    assert!(watch.sees_it_closed());
}

#[test]
fn a_message_to_a_peer_that_is_gone_stays_queued() {
    let (mut ours, theirs) = Channel::pair(Modern::new()).unwrap();
    drop(theirs);
    let error = ours.tx.gather(header(1), b"payload", None).unwrap().flush().unwrap_err();
    assert!(imsg_os::is_peer_gone(&error), "{error}");
    assert_eq!(ours.tx.queue_len(), 1);
}

/// The same, awaited.
#[cfg(feature = "tokio")]
mod awaited {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use imsg_os::tokio::Channel;
    use tokio::net::UnixStream;
    use tokio::runtime::Builder;

    use super::*;

    fn pair<D: ByHand>(d: D) -> (Channel<D>, Channel<D>) {
        let (one, other) = UnixStream::pair().unwrap();
        let make = |stream: UnixStream| {
            setsockopt(&stream, sockopt::SndBuf, &0).unwrap();
            let storage = || Pages::new(large(&d)).expect("memory");
            let mut channel = Channel::with_storage(stream, d, storage(), storage()).unwrap();
            channel.rx.set_max_len(large(&d)).unwrap();
            channel.tx.set_max_len(large(&d)).unwrap();
            channel.rx.allow_descriptors();
            channel
        };
        (make(one), make(other))
    }

    async fn next<D: ByHand>(d: D, mut channel: Channel<D>) -> (bool, Option<u64>) {
        let mut message = channel.rx.recv().await.unwrap().expect("a message");
        let number = message.descriptor.take().map(number_of);
        (message.payload == payload(&d), number)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(test);
    }

    in_both_dialects! {
        a_large_message_arrives_that_is_awaited
        a_flush_that_is_dropped_queues_what_it_did_not_send
    }

    fn a_large_message_arrives_that_is_awaited<D: ByHand>(d: D) {
        run(async {
            let (mut ours, theirs) = pair(d);
            let large = payload(&d);
            let flush = async {
                ours.tx.gather(header(1), &large[..], Some(numbered(7))).unwrap().flush().await
            };
            let (sent, received) = tokio::join!(flush, next(d, theirs));
            sent.unwrap();
            assert_eq!(received, (true, Some(7)));
        });
    }

    fn a_flush_that_is_dropped_queues_what_it_did_not_send<D: ByHand>(d: D) {
        run(async {
            let (mut ours, theirs) = pair(d);
            let large = payload(&d);
            let message = ours.tx.gather(header(1), &large[..], Some(numbered(7))).unwrap();
            {
                let flush = pin!(message.flush());
                assert!(flush.poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            assert!(ours.tx.queue_bytes() > 0);
            let (sent, received) = tokio::join!(ours.tx.flush(), next(d, theirs));
            sent.unwrap();
            assert_eq!(received, (true, Some(7)));
        });
    }
}
