//! Channels to be awaited: what they share with the blocking ones in short, waiting, and futures
//! that are dropped at any time.

#![cfg(all(feature = "tokio", target_os = "linux"))]

mod common;

use std::cell::Cell;
use std::env;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Poll;

use common::{
    ByHand, in_both_dialects, leaving_no_descriptor, number_of, numbered, send, unmarked, watched,
};
use imsg_os::tokio::{Channel, Receiver, Sender};
use imsg_os::{
    Classic, Credentials, Descriptor, Header, Modern, Pages, Pairing, ReadOutcome, Reason,
    RecvError, SendError,
};
use imsg_wire::Error;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{getgid, getuid};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_io().build().expect("make a runtime")
}

/// Two connected channels that pass descriptors.
fn pair<D: ByHand>(d: D) -> (Channel<D>, Channel<D>) {
    let (mut one, mut other) = Channel::pair(d).unwrap();
    one.rx.allow_descriptors();
    other.rx.allow_descriptors();
    (one, other)
}

/// Two connected channels with small buffers, the sockets' too, so that they are full often.
fn narrow_pair<D: ByHand>(d: D) -> (Channel<D>, Channel<D>) {
    let (one, other) = UnixStream::pair().unwrap();
    let narrow = |stream: UnixStream| {
        setsockopt(&stream, sockopt::SndBuf, &0).unwrap();
        let buffer = || Pages::new(4096).expect("memory");
        let mut channel = Channel::with_storage(stream, d, buffer(), buffer()).unwrap();
        channel.rx.allow_descriptors();
        channel
    };
    (narrow(one), narrow(other))
}

/// Polls a future once.
async fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

in_both_dialects! {
    messages_of_all_sizes_pass_both_ways
    descriptors_arrive_with_their_messages
    halves_work_in_two_tasks
    a_reserve_waits_until_the_peer_reads_and_the_message_is_not_refused
    a_stream_that_ends_within_a_message_is_truncated
    what_is_queued_and_received_is_closed_with_its_channel
    futures_that_are_dropped_at_any_time_lose_no_byte_and_no_descriptor
}

fn messages_of_all_sizes_pass_both_ways<D: ByHand>(d: D) {
    runtime().block_on(async {
        let (mut client, mut server) = pair(d);
        let largest = client.tx.max_len() - 16;
        for (n, len) in [0, 1, 15, 16, 17, 4096, largest - 1, largest].into_iter().enumerate() {
            let header = Header { msg_type: n as u32, id: !0, pid: n as u32 + 1 };
            let payload: Vec<u8> = (0..len).map(|i| (i + n) as u8).collect();
            client.tx.reserve(len).await.unwrap();
            client
                .tx
                .compose_parts(header, &[&payload[..len / 2], &payload[len / 2..]], None)
                .unwrap();
            client.tx.flush().await.unwrap();
            let request = server.rx.recv().await.unwrap().expect("a request");
            assert_eq!((request.header, request.payload), (header, &payload[..]));

            server.tx.forward(&request, None).unwrap();
            server.tx.flush().await.unwrap();
            let reply = client.rx.recv().await.unwrap().expect("a reply");
            assert_eq!((reply.header, reply.payload), (header, &payload[..]));
        }
        client.tx.create(Header::new(1), None).unwrap().close();
        assert_eq!((client.tx.queue_len(), client.tx.queue_bytes()), (1, 16));
        client.tx.flush().await.unwrap();
        assert_eq!(client.tx.queue_len(), 0);
        let message = server.rx.recv().await.unwrap().unwrap();
        assert_eq!(message.header.pid, std::process::id());
    });
}

fn descriptors_arrive_with_their_messages<D: ByHand>(d: D) {
    runtime().block_on(async {
        let (mut one, mut other) = pair(d);
        for n in 0..8 {
            let descriptor = (n % 3 != 0).then(|| numbered(n));
            one.tx.compose(Header::new(n as u32), b"", descriptor).unwrap();
        }
        one.tx.flush().await.unwrap();

        for n in 0..8 {
            let message = other.rx.recv().await.unwrap().expect("a message");
            assert_eq!(message.header.msg_type, n as u32);
            match message.descriptor {
                Descriptor::Here(descriptor) => {
                    let flags = fcntl(&descriptor, FcntlArg::F_GETFD).unwrap();
                    assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
                    assert_eq!(number_of(descriptor), n);
                }
                Descriptor::None => assert_eq!(n % 3, 0),
                Descriptor::Missing(why) => panic!("missing: {why:?}"),
            }
        }
    });
}

fn halves_work_in_two_tasks<D: ByHand>(d: D) {
    const COUNT: u32 = 1000;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_io().build().unwrap();
    runtime.block_on(async {
        let (one, other) = narrow_pair(d);
        let tasks = [one, other].map(|Channel { mut rx, mut tx }| {
            let sending = tokio::spawn(async move {
                for n in 0..COUNT {
                    tx.reserve(100).await.unwrap();
                    let descriptor = (n % 5 == 0).then(|| numbered(n.into()));
                    tx.compose(Header::new(n), &[n as u8; 100], descriptor).unwrap();
                }
                tx.flush().await.unwrap();
                tx.shutdown().unwrap();
            });
            let receiving = tokio::spawn(async move {
                for n in 0..COUNT {
                    let mut message = rx.recv().await.unwrap().expect("a message");
                    assert_eq!(
                        (message.header.msg_type, message.payload),
                        (n, &[n as u8; 100][..])
                    );
                    let number = message.descriptor.take().map(number_of);
                    assert_eq!(number, (n % 5 == 0).then_some(n.into()));
                }
                assert!(rx.recv().await.unwrap().is_none());
            });
            [sending, receiving]
        });
        for task in tasks.into_iter().flatten() {
            task.await.unwrap();
        }
    });
}

fn a_reserve_waits_until_the_peer_reads_and_the_message_is_not_refused<D: ByHand>(d: D) {
    runtime().block_on(async {
        let (mut sender, mut receiver) = narrow_pair(d);
        let mut sent = 0;
        while poll_once(sender.tx.reserve(1000)).await.is_ready() {
            sender
                .tx
                .compose(Header::new(sent), &[0_u8; 1000], Some(numbered(sent.into())))
                .unwrap();
            sent += 1;
        }
        assert!(sent > 4, "more than the buffer holds: {sent}");
        assert!(sender.tx.queue_bytes() > 0);

        let receiving = tokio::spawn(async move {
            let mut received = Vec::new();
            while let Some(mut message) = receiver.rx.recv().await.unwrap() {
                let number = message.descriptor.take().map(number_of).expect("a descriptor");
                received.push((message.header.msg_type, number));
            }
            received
        });
        sender.tx.reserve(1000).await.unwrap();
        sender.tx.compose(Header::new(sent), &[0_u8; 1000], Some(numbered(sent.into()))).unwrap();
        sender.tx.flush().await.unwrap();
        drop(sender);

        let all = (0..=sent).map(|n| (n, u64::from(n)));
        assert!(receiving.await.unwrap().into_iter().eq(all));
    });
}

#[test]
fn a_reserve_makes_room_for_a_descriptor() {
    runtime().block_on(async {
        let (mut sender, _receiver) = pair(Modern::new());
        let mut refused = numbered(0);
        loop {
            match sender.tx.compose(Header::new(1), b"", Some(refused)) {
                Ok(()) => refused = numbered(0),
                Err(error) => {
                    assert_eq!(error.reason, Reason::DescriptorsFull);
                    refused = error.descriptor.expect("it is given back");
                    break;
                }
            }
        }
        sender.tx.reserve(0).await.unwrap();
        sender.tx.compose(Header::new(1), b"", Some(refused)).unwrap();
    });
}

#[test]
fn a_reserve_sends_nothing_when_there_is_room() {
    runtime().block_on(async {
        let (mut sender, _receiver) = pair(Modern::new());
        sender.tx.compose(Header::new(1), b"", None).unwrap();
        sender.tx.reserve(1000).await.unwrap();
        assert_eq!(sender.tx.queue_len(), 1);
    });
}

#[test]
fn a_reserve_of_more_than_ever_fits_fails_at_once_in_a_full_queue() {
    runtime().block_on(async {
        let (mut sender, _receiver) = narrow_pair(Modern::new());
        while poll_once(sender.tx.reserve(1000)).await.is_ready() {
            sender.tx.compose(Header::new(1), &[0_u8; 1000], None).unwrap();
        }

        for len in [4096 - 15, usize::MAX] {
            let failed = poll_once(sender.tx.reserve(len)).await;
            let Poll::Ready(Err(SendError::Refused(Reason::TooLong { max, .. }))) = failed else {
                panic!("{failed:?}")
            };
            assert_eq!(max, 4096);
        }
        assert!(poll_once(sender.tx.reserve(4096 - 16)).await.is_pending());
    });
}

#[test]
fn a_receive_waits_for_a_whole_message() {
    runtime().block_on(async {
        let (socket, peer) = StdUnixStream::pair().unwrap();
        let mut channel = Channel::from_std(socket, Modern::new()).unwrap();
        let message = unmarked(Modern::new(), 7);
        assert!(poll_once(channel.rx.recv()).await.is_pending());
        send(&peer, &message[..17], []);
        assert_eq!(channel.rx.read().await.unwrap(), ReadOutcome::Data);
        assert!(!channel.rx.is_ready());
        assert!(poll_once(channel.rx.recv()).await.is_pending());
        send(&peer, &message[17..], []);
        assert_eq!(channel.rx.recv().await.unwrap().expect("a message").header.msg_type, 7);
    });
}

/// Runs `flood`, which never has to wait, beside another task of the same thread, and tells how often
/// that had its turn until the flood was over.
fn turns_beside<F: Future>(flood: F) -> usize {
    runtime().block_on(async {
        let turns = Rc::new(Cell::new(0));
        let local = tokio::task::LocalSet::new();
        let counted = Rc::clone(&turns);
        local.spawn_local(async move {
            loop {
                counted.set(counted.get() + 1);
                tokio::task::yield_now().await;
            }
        });
        local.run_until(flood).await;
        turns.get()
    })
}

#[test]
fn a_flood_of_buffered_messages_lets_other_tasks_have_their_turn() {
    let turns = turns_beside(async {
        let (mut one, mut other) = Channel::pair(Modern::new()).unwrap();
        while one.tx.compose(Header::new(1), b"", None).is_ok() {}
        let count = one.tx.queue_len();
        one.tx.flush().await.unwrap();
        for _ in 0..count {
            other.rx.recv().await.unwrap().expect("a message");
        }
        assert_eq!(count, 4096);
    });
    assert!(turns >= 16, "{turns}");
}

#[test]
fn room_that_is_there_lets_other_tasks_have_their_turn() {
    let turns = turns_beside(async {
        let (mut channel, _peer) = Channel::pair(Modern::new()).unwrap();
        for _ in 0..4096 {
            channel.tx.reserve(0).await.unwrap();
        }
    });
    assert!(turns >= 16, "{turns}");
}

#[test]
fn a_flush_of_nothing_lets_other_tasks_have_their_turn() {
    let turns = turns_beside(async {
        let (mut channel, _peer) = Channel::pair(Modern::new()).unwrap();
        for _ in 0..4096 {
            channel.tx.flush().await.unwrap();
        }
    });
    assert!(turns >= 16, "{turns}");
}

#[test]
fn a_read_into_a_full_buffer_fails_at_once_and_loses_no_message() {
    runtime().block_on(async {
        let (mut sender, mut receiver) = narrow_pair(Modern::new());
        // It fills the buffer, and leaves nothing to be read in the socket.
        sender.tx.compose(Header::new(1), &[0_u8; 4096 - 16], None).unwrap();
        let sending = tokio::spawn(async move { sender.tx.flush().await.map(|()| sender) });
        while !receiver.rx.is_ready() {
            assert_eq!(receiver.rx.read().await.unwrap(), ReadOutcome::Data);
        }
        let _sender = sending.await.unwrap().unwrap();

        let full = poll_once(receiver.rx.read()).await;
        assert!(matches!(full, Poll::Ready(Err(RecvError::Full))), "{full:?}");
        assert_eq!(receiver.rx.messages().count(), 1);
        assert!(receiver.rx.next_message().unwrap().is_none());
        assert!(poll_once(receiver.rx.read()).await.is_pending());
    });
}

#[test]
fn a_broken_stream_fails_at_once_when_it_is_read_again() {
    runtime().block_on(async {
        let (socket, peer) = StdUnixStream::pair().unwrap();
        let mut channel = Channel::from_std(socket, Modern::new()).unwrap();
        let broken = Modern::header(1, 15, false);
        send(&peer, &[&unmarked(Modern::new(), 1)[..], &broken].concat(), []);
        assert_eq!(channel.rx.read().await.unwrap(), ReadOutcome::Data);
        assert!(poll_once(channel.rx.read()).await.is_pending());

        assert!(channel.rx.recv().await.unwrap().is_some());
        let broken = channel.rx.recv().await.map(drop);
        assert!(matches!(broken, Err(RecvError::Protocol(Error::Length { .. }))), "{broken:?}");
        let again = poll_once(channel.rx.read()).await;
        assert!(
            matches!(again, Poll::Ready(Err(RecvError::Protocol(Error::Length { .. })))),
            "{again:?}"
        );
    });
}

fn a_stream_that_ends_within_a_message_is_truncated<D: ByHand>(d: D) {
    runtime().block_on(async {
        let (socket, peer) = StdUnixStream::pair().unwrap();
        let mut channel = Channel::from_std(socket, d).unwrap();
        send(&peer, &[&unmarked(d, 1)[..], &unmarked(d, 2)[..18]].concat(), []);
        drop(peer);

        assert_eq!(channel.rx.recv().await.unwrap().unwrap().header.msg_type, 1);
        for _ in 0..2 {
            let error = channel.rx.recv().await.unwrap_err();
            let truncated = Error::Truncated { offset: 20, have: 18, need: 20 };
            assert!(matches!(error, RecvError::Protocol(error) if error == truncated));
        }
    });
}

#[test]
fn the_end_of_the_stream_is_read_again_and_again() {
    runtime().block_on(async {
        let (mut one, other) = pair(Modern::new());
        let Channel { rx: mut still, tx } = other;
        tx.shutdown().unwrap();
        for _ in 0..2 {
            assert!(one.rx.recv().await.unwrap().is_none());
            assert_eq!(one.rx.read().await.unwrap(), ReadOutcome::Closed);
        }
        one.tx.compose(Header::new(1), b"", None).unwrap();
        one.tx.flush().await.unwrap();
        assert!(still.recv().await.unwrap().is_some());
    });
}

#[test]
fn a_peer_that_is_gone_is_an_error_of_what_sends() {
    runtime().block_on(async {
        let (mut sender, receiver) = narrow_pair(Modern::new());
        while poll_once(sender.tx.reserve(1000)).await.is_ready() {
            sender.tx.compose(Header::new(1), &[0_u8; 1000], None).unwrap();
        }
        let gone = |kind| matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        let failed = tokio::spawn(async move {
            let SendError::Io(reserve) = sender.tx.reserve(1000).await.unwrap_err() else {
                panic!()
            };
            (reserve.kind(), sender.tx.flush().await.unwrap_err().kind())
        });
        tokio::task::yield_now().await;
        drop(receiver);
        let (reserve, flush) = failed.await.unwrap();
        assert!(gone(reserve) && gone(flush), "{reserve} {flush}");
    });
}

#[test]
fn a_flush_of_nothing_asks_nothing_of_the_socket() {
    runtime().block_on(async {
        let (mut sender, receiver) = pair(Modern::new());
        drop(receiver);
        sender.tx.flush().await.unwrap();
    });
}

#[test]
fn a_socket_of_another_family_is_refused_and_stays_as_it_was() {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let copy = socket.try_clone().unwrap();
        let error = Channel::from_std(socket, Modern::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let flags = OFlag::from_bits_retain(fcntl(&copy, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));

        copy.set_nonblocking(true).unwrap();
        let disguised = StdUnixStream::from(std::os::fd::OwnedFd::from(copy));
        let stream = UnixStream::from_std(disguised).unwrap();
        let error = Channel::new(stream, Modern::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_channel_and_its_halves_are_one_socket() {
    runtime().block_on(async {
        let (one, _other) = Channel::pair(Classic::new()).unwrap();
        assert_eq!(one.as_raw_fd(), one.rx.as_fd().as_raw_fd());
        assert_eq!(one.as_raw_fd(), one.tx.as_fd().as_raw_fd());
        let me = Credentials {
            pid: Some(std::process::id()),
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
        };
        assert_eq!(one.peer_credentials().unwrap(), me);
    });
}

#[test]
fn settings_are_those_of_the_buffers() {
    runtime().block_on(async {
        let (mut one, mut other) = Channel::pair(Classic::new()).unwrap();
        one.tx.set_max_len(20).unwrap();
        one.tx.set_pid(5);
        assert!(one.tx.compose(Header::new(1), b"12345", None).is_err());
        one.tx.compose(Header::new(1), b"1234", None).unwrap();
        one.tx.flush().await.unwrap();
        other.rx.set_pairing(Pairing::Exact);
        other.rx.set_max_len(20).unwrap();
        let message = other.rx.recv().await.unwrap().unwrap();
        assert_eq!((message.header.pid, message.payload), (5, &b"1234"[..]));
        assert!(other.rx.set_max_len(15).is_err());
        assert_eq!((one.tx.max_len(), other.rx.max_len()), (20, 20));
    });
}

fn what_is_queued_and_received_is_closed_with_its_channel<D: ByHand>(d: D) {
    runtime().block_on(async {
        let (mut sender, mut receiver) = pair(d);
        let ((queued, queued_watch), (received, received_watch)) = (watched(), watched());
        sender.tx.compose(Header::new(1), b"", Some(received)).unwrap();
        sender.tx.flush().await.unwrap();
        sender.tx.compose(Header::new(2), b"", Some(queued)).unwrap();
        assert_eq!(receiver.rx.read().await.unwrap(), ReadOutcome::Data);
        assert!(queued_watch.sees_it_open() && received_watch.sees_it_open());
        drop((sender, receiver));
        assert!(queued_watch.sees_it_closed() && received_watch.sees_it_closed());
    });
}

#[test]
fn a_read_at_the_limit_of_descriptors_goes_on_once_there_is_room() {
    leaving_no_descriptor(|| {
        runtime().block_on(async {
            let (mut sender, mut receiver) = pair(Modern::new());
            receiver.rx.keep_reserve().unwrap();
            for n in 0..2 {
                sender.tx.compose(Header::new(n), b"", Some(numbered(n.into()))).unwrap();
            }
            sender.tx.flush().await.unwrap();
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
            let mut slots = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                slots.push(file);
            }

            let message = receiver.rx.recv().await.unwrap().expect("a message");
            let Descriptor::Here(first) = message.descriptor else { panic!("it was lost") };
            assert!(receiver.rx.is_at_limit());
            let limit = receiver.rx.recv().await;
            assert!(matches!(limit, Err(RecvError::DescriptorLimit)), "{limit:?}");
            drop(slots);
            let message = receiver.rx.recv().await.unwrap().expect("a message");
            let Descriptor::Here(second) = message.descriptor else { panic!("it was lost") };
            assert_eq!((number_of(first), number_of(second)), (0, 1));
        });
    });
}

/// How many futures of each kind were dropped before they were ready; nearly all were polled.
#[derive(Default)]
struct Cancelled {
    recv: AtomicU64,
    read: AtomicU64,
    reserve: AtomicU64,
    flush: AtomicU64,
}

impl Cancelled {
    fn kinds(&self) -> [u64; 4] {
        [&self.recv, &self.read, &self.reserve, &self.flush]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

/// How many futures of each kind are dropped in a run, at least: fewer where that would take long.
static ENOUGH: LazyLock<u64> = LazyLock::new(|| {
    let usual = if common::is_emulated() { 500 } else { 15_000 };
    env::var("IMSG_TEST_DROPPED").map_or(usual, |count| count.parse().expect("a count"))
});

fn futures_that_are_dropped_at_any_time_lose_no_byte_and_no_descriptor<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        run(d, Builder::new_current_thread().enable_io().build().unwrap());
        run(d, Builder::new_multi_thread().worker_threads(2).enable_io().build().unwrap());
    });
}

fn run<D: ByHand>(d: D, runtime: Runtime) {
    let cancelled = Arc::new(Cancelled::default());
    let (messages, descriptors) = runtime.block_on(async {
        let (one, other) = narrow_pair(d);
        let (a, b) = (Dice(1), Dice(2));
        let tasks = [(one, a), (other, b)].map(|(Channel { rx, tx }, Dice(seed))| {
            let sending = send_until_enough(tx, Dice(seed * 10), Arc::clone(&cancelled));
            let receiving = receive_all(rx, Dice(seed * 10 + 1), Arc::clone(&cancelled));
            (tokio::spawn(sending), tokio::spawn(receiving))
        });
        let mut sent = Vec::new();
        let mut received = Vec::new();
        for (sending, receiving) in tasks {
            sent.push(sending.await.unwrap());
            received.push(receiving.await.unwrap());
        }
        // What one sent, the other received.
        received.reverse();
        assert_eq!(received, sent);
        sent.into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    });
    let [recv, read, reserve, flush] = cancelled.kinds();
    eprintln!(
        "dropped: {recv} recv, {read} read, {reserve} reserve, {flush} flush; \
         passed: {messages} messages, {descriptors} descriptors"
    );
}

/// Sends numbered messages until enough futures were dropped. Returns how many, and how many of
/// them had a descriptor.
async fn send_until_enough<D: ByHand>(
    mut tx: Sender<D>,
    mut dice: Dice,
    cancelled: Arc<Cancelled>,
) -> (u64, u64) {
    let (mut messages, mut descriptors) = (0, 0);
    while cancelled.kinds().iter().any(|count| *count < *ENOUGH) {
        let longest = if dice.below(2) == 0 { 4096 - 16 } else { 200 };
        let len = dice.below(longest + 1) as usize;
        while !finished(tx.reserve(len), &mut dice, &cancelled.reserve, Result::unwrap).await {}
        let number = messages;
        let descriptor = is_marked(number).then(|| numbered(number));
        descriptors += u64::from(is_marked(number));
        let header = Header { id: len as u32, ..Header::new(number as u32) };
        tx.compose(header, payload(number, len), descriptor).expect("there is room");
        messages += 1;
        if dice.below(8) == 0 {
            // Not always until all is sent.
            for _ in 0..dice.below(10) {
                if finished(tx.flush(), &mut dice, &cancelled.flush, Result::unwrap).await {
                    break;
                }
            }
        }
    }
    while !finished(tx.flush(), &mut dice, &cancelled.flush, Result::unwrap).await {}
    assert_eq!((tx.queue_len(), tx.queue_bytes()), (0, 0));
    tx.shutdown().unwrap();
    (messages, descriptors)
}

/// Receives numbered messages until the stream ends. Returns how many, and how many of them had a
/// descriptor.
async fn receive_all<D: ByHand>(
    mut rx: Receiver<D>,
    mut dice: Dice,
    cancelled: Arc<Cancelled>,
) -> (u64, u64) {
    let (mut messages, mut descriptors) = (0, 0);
    let mut check = |message: imsg_os::Message<'_>| {
        let Header { msg_type, id, .. } = message.header;
        assert_eq!(u64::from(msg_type), messages);
        assert_eq!(message.payload, payload(messages, id as usize));
        match message.descriptor {
            Descriptor::Here(descriptor) => {
                assert_eq!(number_of(descriptor), messages);
                descriptors += 1;
            }
            Descriptor::None => assert!(!is_marked(messages), "message {messages}"),
            Descriptor::Missing(why) => panic!("message {messages}: {why:?}"),
        }
        messages += 1;
    };
    let mut ended = false;
    while !ended {
        if dice.below(2) == 0 {
            finished(rx.recv(), &mut dice, &cancelled.recv, |received| {
                match received.expect("receive") {
                    Some(message) => check(message),
                    None => ended = true,
                }
            })
            .await;
        } else {
            finished(rx.read(), &mut dice, &cancelled.read, |read| match read {
                Ok(ReadOutcome::Data | ReadOutcome::Closed) | Err(RecvError::Full) => {}
                other => panic!("{other:?}"),
            })
            .await;
            if dice.below(2) == 0 {
                rx.messages().for_each(|message| check(message.unwrap()));
            } else if let Some(message) = rx.next_message().unwrap() {
                check(message);
            }
        }
    }
    (messages, descriptors)
}

/// Waits for a future in one of several ways, most of which drop it early. Tells whether it became
/// ready, after `then` had its output.
async fn finished<F: Future>(
    future: F,
    dice: &mut Dice,
    cancelled: &AtomicU64,
    then: impl FnOnce(F::Output),
) -> bool {
    let output = match dice.below(16) {
        // Not even polled.
        0 => {
            drop(future);
            return false;
        }
        1 => Some(future.await),
        2 | 3 => {
            let others = dice.below(3);
            tokio::select! {
                output = future => Some(output),
                () = yields(others) => None,
            }
        }
        4..8 => poll_at_most(pin!(future), 2 + dice.below(3)).await,
        _ => poll_at_most(pin!(future), 1).await,
    };
    if output.is_none() {
        cancelled.fetch_add(1, Ordering::Relaxed);
        // Others have to go on.
        tokio::task::yield_now().await;
    }
    output.map(then).is_some()
}

async fn yields(count: u64) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Polls a future so many times, as soon as it asks for it or before.
async fn poll_at_most<F: Future>(mut future: Pin<&mut F>, times: u64) -> Option<F::Output> {
    for _ in 0..times {
        match poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
            Poll::Ready(output) => return Some(output),
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
    None
}

fn is_marked(number: u64) -> bool {
    number % 3 != 1
}

/// Bytes that tell the message, and where they are in it.
fn payload(number: u64, len: usize) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..251 + 4096).map(|i| (i % 251) as u8).collect());
    &BYTES[(number % 251) as usize..][..len]
}

/// Numbers that are the same in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % end
    }
}
