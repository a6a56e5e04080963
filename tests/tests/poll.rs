//! `Poll` waits for what it was told, no longer than it was told, and for nothing else.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use imsg_os::{
    Channel, Header, Message, Modern, Next, Pages, Poll, Refused, Requests, Sender, Turn,
};
use imsg_tests::process::PATIENCE;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

const SHORT: Duration = Duration::from_millis(20);

fn pair() -> (Channel, Channel) {
    Channel::pair(Modern::new()).unwrap()
}

/// Waits for one channel, and tells whether it is readable.
fn wait_for(poll: &mut Poll, channel: &Channel, turn: &Turn) -> bool {
    let limit = Instant::now() + PATIENCE;
    let mut waits = poll.begin();
    waits.channel(channel, turn);
    waits.until(limit);
    waits.wait().unwrap();
    assert!(Instant::now() < limit, "nothing was ready");
    poll.is_readable(channel)
}

/// Waits for one channel in vain.
fn wait_in_vain_for(channel: &Channel, turn: &Turn) {
    let limit = Instant::now() + SHORT;
    let mut poll = Poll::new();
    let mut waits = poll.begin();
    waits.channel(channel, turn);
    waits.until(limit);
    waits.wait().unwrap();
    assert!(Instant::now() >= limit, "there was something to do");
    assert!(!poll.is_readable(channel));
}

fn nothing(message: Message<'_>, _: &mut Sender) -> Result<(), Infallible> {
    panic!("{message:?}");
}

#[test]
fn a_wait_tells_which_channel_has_something_to_read() {
    let (one, _peer) = pair();
    let (other, mut peer) = pair();
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();

    let mut poll = Poll::new();
    let mut waits = poll.begin();
    waits.channel(&one, &Turn::new(0));
    waits.channel(&other, &Turn::new(0));
    waits.wait().unwrap();

    assert!(!poll.is_readable(&one) && poll.is_readable(&other));
}

#[test]
fn nothing_is_readable_before_the_first_wait_or_when_the_next_has_begun() {
    let (channel, peer) = pair();
    drop(peer);
    let mut poll = Poll::new();
    assert!(!poll.is_readable(&channel));
    assert!(wait_for(&mut poll, &channel, &Turn::new(0)));

    let _ = poll.begin();

    assert!(!poll.is_readable(&channel));
}

#[test]
fn a_peer_that_hung_up_is_something_to_read_even_where_only_room_is_waited_for() {
    let (mut channel, peer) = pair();
    while channel.next(&Turn::new(16_000)) != (Next::Poll { readable: false, writable: true }) {
        channel.tx.compose(Header::new(1), &[0_u8; 1000], None).unwrap();
    }
    drop(peer);

    assert!(wait_for(&mut Poll::new(), &channel, &Turn::new(16_000)));
}

#[test]
fn what_was_composed_ends_a_wait_when_it_can_be_sent() {
    let (mut channel, mut peer) = pair();
    channel.tx.compose(Header::new(7), b"", None).unwrap();

    let readable = wait_for(&mut Poll::new(), &channel, &Turn::new(0));

    let _ = channel.turn(&Turn::new(0), readable, nothing).unwrap();
    assert_eq!((readable, peer.rx.recv().unwrap().unwrap().header.msg_type), (false, 7));
}

#[test]
fn a_turn_that_is_to_come_again_ends_a_wait() {
    let (mut channel, mut peer) = pair();
    for _ in 0..2 {
        peer.tx.compose(Header::new(1), b"", None).unwrap();
    }
    peer.tx.flush().unwrap();
    let turn = Turn::new(0).messages(1);
    let next = channel.turn(&turn, true, |_, _| Ok::<_, Infallible>(())).unwrap();
    assert_eq!(next, Next::Again);

    assert!(!wait_for(&mut Poll::new(), &channel, &turn));
}

#[test]
fn a_wait_lasts_until_the_first_of_its_limits_and_not_less() {
    let (channel, _peer) = pair();
    let start = Instant::now();
    let mut poll = Poll::new();
    let mut waits = poll.begin();
    waits.channel(&channel, &Turn::new(0));
    for limit in [None, Some(start + PATIENCE), Some(start + SHORT), Some(start + 2 * PATIENCE)] {
        waits.until(limit);
    }
    waits.wait().unwrap();

    let waited = start.elapsed();
    assert!(waited >= SHORT && waited < PATIENCE, "{waited:?}");
}

#[test]
fn a_limit_that_is_over_and_one_that_no_clock_counts_are_limits() {
    let mut poll = Poll::new();
    let (channel, peer) = pair();
    let mut waits = poll.begin();
    waits.channel(&channel, &Turn::new(0));
    waits.until(Instant::now());
    waits.wait().unwrap();

    drop(peer);
    let far = Instant::now().checked_add(Duration::from_secs(1 << 40));
    let mut waits = poll.begin();
    waits.channel(&channel, &Turn::new(0));
    waits.until(far);
    waits.wait().unwrap();
    assert!(poll.is_readable(&channel));
}

#[test]
fn a_wait_for_nothing_but_a_moment_lasts_until_then() {
    let limit = Instant::now() + SHORT;
    let mut poll = Poll::new();
    let mut waits = poll.begin();
    waits.until(limit);
    waits.wait().unwrap();
    assert!(Instant::now() >= limit);
}

#[test]
fn a_descriptor_that_is_added_twice_is_readable_when_one_of_both_says_so() {
    let (channel, mut peer) = pair();
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();
    let mut poll = Poll::new();
    for reversed in [false, true] {
        let mut waits = poll.begin();
        let mut turns = [Turn::new(0), Turn::silent().saying(true)];
        if reversed {
            turns.reverse();
        }
        turns.iter().for_each(|turn| waits.channel(&channel, turn));
        waits.readable(&channel);
        waits.wait().unwrap();
        assert!(poll.is_readable(&channel));
    }
}

#[test]
fn more_descriptors_than_the_process_may_have_are_an_error_and_none_is_readable() {
    let (channel, peer) = pair();
    drop(peer);
    let mut poll = Poll::new();
    assert!(wait_for(&mut poll, &channel, &Turn::new(0)));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = soft.min(1000); // more than all tests here have
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();

    let mut waits = poll.begin();
    (0..=limit).for_each(|_| waits.readable(&channel));
    let error = waits.wait().unwrap_err();

    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert!(!poll.is_readable(&channel));
    assert!(wait_for(&mut poll, &channel, &Turn::new(0)));
}

#[test]
fn a_signal_ends_a_wait_and_nothing_is_readable() {
    extern "C" fn ignore(_: i32) {}
    let action = SigAction::new(SigHandler::Handler(ignore), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    #[expect(unsafe_code, reason = "a handler may do little")]
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let (channel, _peer) = pair();
    // SAFETY: it takes nothing.
    #[expect(unsafe_code, reason = "the standard library does not tell which thread this is")]
    let waiting = unsafe { libc::pthread_self() };
    let over = AtomicBool::new(false);

    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // SAFETY: that thread waits for this one.
                #[expect(unsafe_code, reason = "the standard library sends no signals")]
                let failed = unsafe { libc::pthread_kill(waiting, libc::SIGUSR1) };
                assert_eq!(failed, 0);
                thread::yield_now();
            }
        });
        assert!(!wait_for(&mut Poll::new(), &channel, &Turn::new(0)));
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_channel_whose_messages_are_held_back_is_not_waited_for_though_its_peer_hung_up() {
    let (channel, mut peer) = pair();
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();
    drop(peer);

    wait_in_vain_for(&channel, &Turn::new(0).at_most(0));

    assert!(wait_for(&mut Poll::new(), &channel, &Turn::new(0).at_most(1)));
}

#[test]
fn a_channel_that_is_done_is_not_waited_for() {
    let (mut channel, peer) = pair();
    drop(peer);
    assert_eq!(channel.turn(&Turn::new(0), true, nothing).unwrap(), Next::Done);

    wait_in_vain_for(&channel, &Turn::new(0));
}

/// The longest payload of what is passed on.
const LARGEST: usize = 100;
const MESSAGES: u32 = 5000;

fn payload(id: u32) -> &'static [u8] {
    &[1; LARGEST][..id as usize * 37 % (LARGEST + 1)]
}

/// Two channels, the queue of the second of which takes a few messages only.
fn narrow() -> [(Channel, Channel); 2] {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let [received, queued] = [Pages::new(1 << 12), Pages::new(1 << 10)].map(Result::unwrap);
    let mut to = Channel::with_storage(ours, Modern::new(), received, queued).unwrap();
    to.tx.set_max_len(1 << 10).unwrap();
    [pair(), (to, Channel::new(theirs, Modern::new()).unwrap())]
}

/// Runs an event loop that passes messages on, until the first peer has hung up and all is sent.
/// `room` is how many messages may be taken, and `forward` does it.
fn pass_on<T>(
    [(mut from, mut source), (mut to, mut sink)]: [(Channel, Channel); 2],
    state: &mut T,
    room: impl Fn(&T, &Sender) -> usize,
    mut forward: impl FnMut(&mut T, Message<'_>, &mut Sender) -> Result<(), Refused<OwnedFd>>,
    mut replied: impl FnMut(&mut T, Message<'_>),
) {
    let sends = thread::spawn(move || {
        for id in 0..MESSAGES {
            if source.tx.has_room(LARGEST, false).is_err() {
                source.tx.flush().unwrap();
            }
            let header = Header { id, ..Header::new(1) };
            source.tx.compose(header, payload(id), None).unwrap();
        }
        source.tx.flush().unwrap();
    });
    let echoes = thread::spawn(move || {
        let (mut count, mut bytes) = (0, 0);
        while let Some(message) = sink.rx.recv().unwrap() {
            assert!(message.payload.iter().all(|byte| *byte == 1));
            bytes += message.payload.len();
            sink.tx.compose(message.header, b"", None).unwrap();
            sink.tx.flush().unwrap();
            count += 1;
        }
        (count, bytes)
    });
    let mut poll = Poll::new();
    let mut replies = 0;
    while replies < MESSAGES {
        let turn = Turn::silent().at_most(room(state, &to.tx));
        let pass = |message: Message<'_>, _: &mut Sender| forward(state, message, &mut to.tx);
        let _ = from.turn(&turn, poll.is_readable(&from), pass).expect("there is room");
        let reply = |message: Message<'_>, _: &mut Sender| {
            replies += 1;
            replied(state, message);
            Ok::<_, Infallible>(())
        };
        let _ = to.turn(&Turn::silent(), poll.is_readable(&to), reply).unwrap();
        if replies < MESSAGES {
            let limit = Instant::now() + PATIENCE;
            let mut waits = poll.begin();
            waits.channel(&from, &Turn::silent().at_most(room(state, &to.tx)));
            waits.channel(&to, &Turn::silent());
            waits.until(limit);
            waits.wait().unwrap();
            assert!(Instant::now() < limit, "a stall, after {replies} replies");
        }
    }
    drop(to);
    sends.join().unwrap();
    let bytes = (0..MESSAGES).map(|id| payload(id).len()).sum();
    assert_eq!(echoes.join().unwrap(), (MESSAGES, bytes));
}

#[test]
fn messages_are_passed_on_to_a_channel_that_is_often_full_and_none_is_lost_or_stalls() {
    pass_on(
        narrow(),
        &mut (),
        |(), tx| tx.room_for(LARGEST, false),
        |(), message, tx| tx.forward(&message, None),
        |(), _| {},
    );
}

#[test]
fn messages_are_passed_on_as_far_as_a_table_of_requests_has_places() {
    pass_on(
        narrow(),
        &mut Requests::<u32, 3>::new(),
        |asked, tx| tx.room_for(LARGEST, false).min(3 - asked.len()),
        |asked, message, tx| {
            let id = asked.insert(message.header.id).expect("a place");
            tx.compose(Header { id, ..message.header }, message.payload, None)
        },
        |asked, message| _ = asked.take(message.header.id).expect("it was asked"),
    );
}

#[test]
fn a_list_that_is_longer_than_the_queue_is_said_whole_without_a_stall() {
    let (mut channel, mut peer) = pair();
    let reads = thread::spawn(move || {
        for number in 0..200_000_u32 {
            let message = peer.rx.recv().unwrap().expect("a number");
            assert_eq!(message.payload, number.to_ne_bytes());
        }
    });
    let mut list = (0..200_000_u32).peekable();
    let mut poll = Poll::new();
    loop {
        while channel.tx.room_for(4, false) > 0
            && let Some(number) = list.next()
        {
            channel.tx.compose(Header::new(1), &number, None).unwrap();
        }
        let turn = Turn::silent().saying(list.peek().is_some());
        let next = channel.turn(&turn, poll.is_readable(&channel), nothing).unwrap();
        if next == (Next::Poll { readable: true, writable: false }) {
            break;
        }
        let limit = Instant::now() + PATIENCE;
        let mut waits = poll.begin();
        waits.channel(&channel, &turn);
        waits.until(limit);
        waits.wait().unwrap();
        assert!(Instant::now() < limit, "a stall");
    }
    assert_eq!(list.next(), None);
    reads.join().unwrap();
}
