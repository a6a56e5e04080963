//! A turn of an event loop: nothing stalls, nothing spins, and nobody is kept waiting.
//!
//! The server here is woken only by what it asked for, and a client does one thing at a time. Local
//! sockets are ready at once or not at all, so when neither side can go on, that is a stall.

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use imsg_os::{
    Channel, Counts, HEADER_LEN, Header, Message, Modern, Next, Pages, Reason, RecvError, Refused,
    SendError, Sender, Turn, TurnError,
};
use imsg_tests::effort::cases;
use imsg_wire::{Messages, SendBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use proptest::prelude::*;

/// The largest payload.
const LARGEST: usize = 1000;

/// What the client may do.
#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize),
    Read(usize),
    /// Has the server wait until it is woken.
    Nothing,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..6000_usize).prop_map(Step::Send),
        2 => (1..6000_usize).prop_map(Step::Read),
        1 => Just(Step::Nothing),
    ]
}

/// What wakes the server.
enum Wakes {
    /// What it asked for last.
    Level,
    /// A change, once.
    Edge(Epoll),
}

struct Server {
    channel: Channel<Modern>,
    turn: Turn,
    wakes: Wakes,
    next: Next,
    /// Whether an answer is two messages, the first of which is the shorter.
    in_two: bool,
    bound: usize,
    handled: usize,
    in_vain: usize,
}

impl Server {
    /// Takes a turn if it was woken. Whether it was.
    fn go_on(&mut self) -> bool {
        let events = match (self.next, &self.wakes) {
            (Next::Done, _) => return false,
            (Next::Again, _) => PollFlags::empty(),
            (Next::Poll { readable, writable }, wakes) => {
                assert!(readable || writable, "it is to wait for nothing");
                match ready(&self.channel, wakes, readable, writable) {
                    Some(events) => events,
                    None => return false,
                }
            }
        };
        let before = self.state();
        let readable = events.intersects(!PollFlags::POLLOUT);
        let (handled, in_two) = (&mut self.handled, self.in_two);
        let handle = |request: Message<'_>, tx: &mut Sender| {
            *handled += 1;
            if in_two {
                tx.compose(request.header, &request.payload[..request.payload.len() / 3], None)?;
            }
            tx.compose(request.header, request.payload, None)
        };
        self.next = self.channel.turn(&self.turn, readable, handle).expect("a turn");
        assert!(self.handled - before.0 <= self.bound, "too many messages in one turn");
        if let (Wakes::Level, Next::Poll { .. }) = (&self.wakes, self.next) {
            assert_eq!(self.channel.next(&self.turn), self.next);
        }
        if let (Wakes::Level, false) = (&self.wakes, events.is_empty()) {
            self.in_vain += usize::from(before == self.state());
            assert!(self.in_vain <= 1, "it did nothing: it spins");
        }
        true
    }

    /// Changes with all that a turn can do, but when the stream ends, which it does once.
    fn state(&self) -> (usize, Counts, usize) {
        let Channel { rx, tx } = &self.channel;
        (self.handled, tx.sent(), rx.unread_bytes())
    }
}

fn ready(
    channel: &Channel<Modern>,
    wakes: &Wakes,
    readable: bool,
    writable: bool,
) -> Option<PollFlags> {
    match wakes {
        Wakes::Level => {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLIN, readable);
            wanted.set(PollFlags::POLLOUT, writable);
            let mut fds = [PollFd::new(channel.as_fd(), wanted)];
            poll(&mut fds, PollTimeout::ZERO).expect("poll");
            fds[0].revents().filter(|events| !events.is_empty())
        }
        Wakes::Edge(epoll) => {
            let mut events = [EpollEvent::empty()];
            let n = epoll.wait(&mut events, EpollTimeout::ZERO).expect("epoll");
            // What happened is not told to the turn, which is to find out.
            (n > 0).then_some(PollFlags::POLLOUT)
        }
    }
}

struct Client {
    socket: UnixStream,
    /// What is not sent yet.
    unsent: Vec<u8>,
    received: Vec<u8>,
    hangs_up: bool,
    /// Whether it does so before it has all answers, which wakes the server.
    hangs_up_early: bool,
    /// The bytes of all answers.
    due: usize,
}

impl Client {
    /// Whether something of it was done.
    fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Send(most) => {
                if self.unsent.is_empty() && !self.hangs_up {
                    return false;
                }
                let most = most.min(self.unsent.len());
                let sent = match self.socket.write(&self.unsent[..most]) {
                    Ok(n) => n,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                    Err(error) => panic!("send: {error}"),
                };
                self.unsent.drain(..sent);
                let early = self.hangs_up_early || self.received.len() == self.due;
                if self.unsent.is_empty() && self.hangs_up && early {
                    self.hangs_up = false;
                    self.socket.shutdown(std::net::Shutdown::Write).expect("shut down");
                    return true;
                }
                sent > 0
            }
            Step::Read(most) => {
                let mut bytes = vec![0; most];
                match self.socket.read(&mut bytes) {
                    Ok(n) => {
                        self.received.extend_from_slice(&bytes[..n]);
                        n > 0
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                    Err(error) => panic!("receive: {error}"),
                }
            }
            Step::Nothing => true,
        }
    }
}

/// A stream of messages with payloads of these lengths.
fn stream(lengths: &[usize]) -> Vec<u8> {
    lengths.iter().enumerate().flat_map(|(n, len)| message(n, *len)).collect()
}

fn message(n: usize, len: usize) -> Vec<u8> {
    let mut queue = SendBuf::new(Modern::new(), [0; LARGEST + HEADER_LEN]);
    let header = Header { id: n as u32, pid: 1, ..Header::new(1) };
    queue.compose(header, &vec![n as u8; len][..], None).unwrap();
    queue.chunk().unwrap().bytes.to_vec()
}

fn sockets() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    for socket in [&ours, &theirs] {
        // The least that the kernel allows.
        setsockopt(socket, sockopt::SndBuf, &0).unwrap();
    }
    (ours, theirs)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(400)))]

    #[test]
    fn every_message_is_answered_without_a_wakeup_that_was_not_asked_for(
        lengths in prop::collection::vec(0..=LARGEST, 0..150),
        steps in prop::collection::vec(step(), 1..40),
        (received, queued) in (LARGEST + HEADER_LEN..9000, 4 * LARGEST / 3 + 2 * HEADER_LEN..9000),
        room in 0..=LARGEST,
        bound in 1..40_usize,
        in_two: bool,
        edge_triggered: bool,
        blocking: bool,
        hangs_up_early: bool,
    ) {
        let room = room.max(lengths.iter().copied().max().unwrap_or(0));
        let room = if in_two { room + HEADER_LEN + room / 3 } else { room };
        let (ours, theirs) = sockets();
        ours.set_nonblocking(!blocking).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let storage = |len| Pages::new(len).expect("memory");
        let channel =
            Channel::with_storage(ours, Modern::new(), storage(received), storage(queued)).unwrap();
        let mut turn = Turn::new(room).messages(bound);
        let mut wakes = Wakes::Level;
        if edge_triggered {
            turn = turn.edge_triggered();
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
            let all = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            epoll.add(&channel, EpollEvent::new(all, 0)).unwrap();
            wakes = Wakes::Edge(epoll);
        }
        let next = Next::Again;
        let mut server = Server { channel, turn, wakes, next, in_two, bound, handled: 0, in_vain: 0 };
        let unsent = stream(&lengths);
        let first = |n| if in_two { message(n, lengths[n] / 3) } else { Vec::new() };
        let answers = lengths.iter().enumerate().map(|(n, len)| [first(n), message(n, *len)].concat());
        let expected: Vec<u8> = answers.flatten().collect();
        let due = expected.len();
        let received = Vec::new();
        let socket = theirs;
        let mut client = Client { socket, unsent, received, hangs_up: true, hangs_up_early, due };

        let mut steps = steps.iter().cycle();
        while server.next != Next::Done {
            let step = *steps.next().unwrap();
            let woken = match step {
                Step::Nothing => server.go_on(),
                _ => client.take(step),
            };
            // With neither of the two random ones, all that there are decide.
            let goes_on = woken
                || server.go_on()
                || client.take(Step::Send(usize::MAX))
                || client.take(Step::Read(4096));
            prop_assert!(goes_on, "a stall: {:?}", server.next);
        }
        drop(server);
        while client.take(Step::Read(1 << 16)) {}

        prop_assert!(client.received == expected, "{} bytes", client.received.len());
        let answers = Messages::new(Modern::new(), &client.received, 1 << 14);
        prop_assert_eq!(answers.count(), lengths.len() * if in_two { 2 } else { 1 });
    }
}

/// Handles messages that are not expected.
fn nothing(message: Message<'_>, _: &mut Sender) -> Result<(), Infallible> {
    panic!("{message:?}");
}

#[test]
fn a_turn_on_an_idle_blocking_socket_does_not_block_and_waits_for_input() {
    let (mut channel, _peer) = Channel::pair(Modern::new()).unwrap();

    let next = channel.turn(&Turn::new(0), true, nothing).unwrap();

    assert_eq!(next, Next::Poll { readable: true, writable: false });
}

#[test]
fn what_is_composed_outside_of_a_turn_is_waited_for() {
    let (mut channel, _peer) = Channel::pair(Modern::new()).unwrap();
    let turn = Turn::new(0);
    let _ = channel.turn(&turn, false, nothing).unwrap();

    channel.tx.compose(Header::new(1), b"", None).unwrap();

    assert_eq!(channel.next(&turn), Next::Poll { readable: true, writable: true });
}

#[test]
fn after_a_turn_the_channel_waits_again_if_it_did_before() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    let _ = channel.turn(&Turn::new(0), true, nothing).unwrap();

    let reader = std::thread::spawn(move || while peer.rx.recv().unwrap().is_some() {});
    for n in 0..2000 {
        while channel.tx.has_room(1000, false).is_err() {
            assert_eq!(channel.tx.write().unwrap(), imsg_os::WriteOutcome::All);
        }
        channel.tx.compose(Header::new(n), &[0_u8; 1000], None).unwrap();
    }
    channel.tx.flush().unwrap();
    drop(channel);
    reader.join().unwrap();
}

#[test]
fn a_room_that_no_queue_has_is_an_error_and_not_a_stall() {
    let (mut channel, _peer) = Channel::pair(Modern::new()).unwrap();
    let len = channel.tx.max_len();
    let waits = Next::Poll { readable: false, writable: true }; // so it has a turn
    assert_eq!(channel.next(&Turn::new(len)), waits);

    let error = channel.turn(&Turn::new(len), false, nothing).unwrap_err();

    let TurnError::Send(SendError::Refused(Reason::TooLong { len: stated, max })) = error else {
        panic!("{error:?}")
    };
    assert_eq!((stated, max), (len + HEADER_LEN, len));
}

#[test]
fn an_error_of_the_handler_loses_no_later_message() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    for n in 1..=2 {
        peer.tx.compose(Header::new(n), b"", None).unwrap();
    }
    peer.tx.flush().unwrap();
    let fails = |message: Message<'_>, _: &mut Sender| -> Result<(), Box<dyn Error>> {
        Err(format!("message {}", message.header.msg_type).into())
    };
    let turn = Turn::new(0);

    let errors = [true, false].map(|readable| channel.turn(&turn, readable, fails).unwrap_err());

    assert_eq!(errors.map(|error| error.to_string()), ["message 1", "message 2"]);
}

#[test]
fn a_broken_stream_is_an_error_after_the_messages_before_it() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(ours, Modern::new()).unwrap();
    peer.write_all(&stream(&[3])).unwrap();
    peer.write_all(&[0; 16]).unwrap();
    let mut seen = 0;

    let error = channel
        .turn(&Turn::new(0), true, |_, _| {
            seen += 1;
            Ok::<_, Infallible>(())
        })
        .unwrap_err();

    assert_eq!(seen, 1);
    assert!(matches!(error, TurnError::Receive(RecvError::Protocol(_))), "{error:?}");
}

#[test]
fn a_peer_that_is_gone_is_an_error_of_sending_behind_the_messages_that_it_sent() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();
    drop(peer);
    let mut seen = 0;
    let answer = |request: Message<'_>, tx: &mut Sender| -> Result<(), Refused<OwnedFd>> {
        seen += 1;
        tx.compose(request.header, request.payload, None)
    };

    let error = channel.turn(&Turn::new(0), true, answer).unwrap_err();

    assert_eq!(seen, 1);
    let TurnError::Send(SendError::Io(error)) = error else { panic!("{error:?}") };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn the_last_words_of_a_peer_are_handled_over_all_turns_whatever_is_queued() {
    for (many, len) in [(1, 0), (64, 0), (65, 0), (300, 0), (5, 16_000)] {
        let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
        while channel.tx.compose(Header::new(9), &[0_u8; 16_000], None).is_ok() {}
        for n in 0..many {
            if peer.tx.has_room(len, false).is_err() {
                peer.tx.flush().unwrap();
            }
            peer.tx.compose(Header::new(n), &vec![0_u8; len][..], None).unwrap();
        }
        peer.tx.flush().unwrap();
        drop(peer);
        let mut seen = Vec::new();
        let mut answer = |request: Message<'_>, tx: &mut Sender| {
            seen.push(request.header.msg_type);
            tx.compose(request.header, b"", None)
        };

        let mut readable = false;
        let end = loop {
            match channel.turn(&Turn::new(0), readable, &mut answer) {
                Ok(Next::Done) => break None,
                Ok(Next::Again) => readable = false,
                Ok(Next::Poll { .. }) => readable = true,
                Err(error) => break Some(error),
            }
        };

        assert!(seen.into_iter().eq(0..many), "of {many}");
        assert!(end.is_some_and(|error| error.is_peer_gone()), "of {many}");
    }
}

#[test]
fn a_silent_turn_handles_messages_when_nothing_more_can_be_queued() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    loop {
        while channel.tx.compose(Header::new(9), &[0_u8; 1000], None).is_ok() {}
        let before = channel.tx.sent();
        let turned = channel.turn(&Turn::silent(), false, nothing).unwrap();
        if channel.tx.sent() == before {
            assert_eq!(turned, Next::Poll { readable: true, writable: true });
            break;
        }
    }
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();
    let mut seen = 0;

    let next = channel.turn(&Turn::silent(), true, |_, _| {
        seen += 1;
        Ok::<_, Infallible>(())
    });

    assert_eq!(seen, 1);
    assert_eq!(next.unwrap(), Next::Poll { readable: true, writable: true });
}

#[test]
fn what_goes_by_is_told_from_what_stays() {
    let of = |number| TurnError::<Infallible>::from(io::Error::from_raw_os_error(number));
    assert!(of(libc::ETOOMANYREFS).is_temporary() && of(libc::ENOBUFS).is_temporary());
    assert!(TurnError::<Infallible>::from(RecvError::DescriptorLimit).is_temporary());
    assert!(!of(libc::EPIPE).is_temporary() && !TurnError::Handler(()).is_temporary());
    assert!(of(libc::EPIPE).is_peer_gone() && !of(libc::ENOBUFS).is_peer_gone());
}

#[test]
fn what_is_received_and_what_is_queued_may_lie_in_memory_of_two_types() {
    let (ours, theirs) = sockets();
    let mut client = Channel::new(theirs, Modern::new()).unwrap();
    client.tx.compose(Header::new(1), b"hello", None).unwrap();
    client.tx.flush().unwrap();
    let mut received = [0; 100];
    let mut channel =
        Channel::with_storage(ours, Modern::new(), &mut received[..], [0; 50]).unwrap();
    let next = channel.turn(&Turn::new(5), true, |message, tx| tx.forward(&message, None)).unwrap();
    assert_eq!(next, Next::Poll { readable: true, writable: false });
    assert_eq!(client.rx.recv().unwrap().unwrap().payload, b"hello");
    assert!(OwnedFd::try_from(channel).is_ok());
}

#[test]
fn what_ended_a_turn_is_an_error_of_the_system_with_its_number() {
    let number = |error: TurnError<String>| io::Error::from(error).raw_os_error();
    assert_eq!(number(RecvError::DescriptorLimit.into()), Some(libc::EMFILE));
    let too_long = Reason::TooLong { len: 2, max: 1 };
    assert_eq!(number(TurnError::Send(SendError::Refused(too_long))), Some(libc::ERANGE));
    let handler = io::Error::from(TurnError::Handler("no such file".to_owned()));
    assert_eq!(
        (handler.kind(), handler.to_string()),
        (ErrorKind::Other, "no such file".to_owned())
    );
}

/// Counts the messages that are handled.
fn count(seen: &mut u32) -> impl FnMut(Message<'_>, &mut Sender) -> Result<(), Infallible> {
    |_, _| {
        *seen += 1;
        Ok(())
    }
}

fn send(peer: &mut Channel<Modern>, messages: u32) {
    for n in 0..messages {
        peer.tx.compose(Header::new(n), b"", None).unwrap();
    }
    peer.tx.flush().unwrap();
}

#[test]
fn a_turn_handles_no_more_messages_than_its_limit_and_a_limit_is_no_licence_for_more() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    send(&mut peer, 10);
    let turn = Turn::new(0).messages(4);
    for (limit, handled) in [(3, 3), (100, 4)] {
        let mut seen = 0;
        let next = channel.turn(&turn.at_most(limit), true, count(&mut seen)).unwrap();
        assert_eq!((seen, next), (handled, Next::Again));
    }
}

#[test]
fn a_limit_is_one_also_when_the_number_of_messages_is_set_later() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    send(&mut peer, 1);

    let held = channel.turn(&Turn::new(0).at_most(0).messages(4), true, nothing).unwrap();

    assert_eq!(held, Next::Poll { readable: false, writable: false });
}

#[test]
fn a_channel_with_more_to_say_to_a_peer_that_is_gone_waits_while_its_last_words_are_held_back() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    send(&mut peer, 1);
    drop(peer);
    let saying = Turn::silent().saying(true);
    channel.tx.compose(Header::new(9), b"", None).unwrap();

    let held = channel.turn(&saying.at_most(0), false, nothing).unwrap();
    assert_eq!(held, Next::Poll { readable: false, writable: false });

    let mut seen = 0;
    let error = channel.turn(&saying, false, count(&mut seen)).unwrap_err();
    assert_eq!((seen, error.is_peer_gone()), (1, true));
}

#[test]
fn a_turn_of_no_messages_sends_and_reads_nothing() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    send(&mut peer, 1);
    channel.tx.compose(Header::new(7), b"", None).unwrap();
    let held = Turn::new(0).at_most(0);
    assert_eq!(channel.next(&held), Next::Poll { readable: false, writable: true });

    let next = channel.turn(&held, true, nothing).unwrap();

    assert_eq!(next, Next::Poll { readable: false, writable: false });
    assert_eq!(channel.rx.unread_bytes(), 0);
    assert_eq!(peer.rx.recv().unwrap().unwrap().header.msg_type, 7);
}

#[test]
fn messages_that_were_held_back_come_at_once_when_the_limit_is_lifted() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    send(&mut peer, 2);
    let turn = Turn::new(0);
    let mut seen = 0;
    assert_eq!(channel.turn(&turn.at_most(1), true, count(&mut seen)).unwrap(), Next::Again);
    let held = channel.turn(&turn.at_most(0), true, nothing).unwrap();
    assert_eq!(held, Next::Poll { readable: false, writable: false });

    assert_eq!(channel.next(&turn.at_most(1)), Next::Again);
    let _ = channel.turn(&turn.at_most(1), false, count(&mut seen)).unwrap();
    assert_eq!(seen, 2);
}

#[test]
fn the_last_words_of_a_peer_are_held_back_like_others_and_come_before_the_error() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    send(&mut peer, 2);
    drop(peer);
    channel.tx.compose(Header::new(9), b"", None).unwrap();
    let turn = Turn::new(0);

    let held = channel.turn(&turn.at_most(0), true, nothing).unwrap();
    assert_eq!(held, Next::Poll { readable: false, writable: false });

    let mut seen = 0;
    assert_eq!(channel.next(&turn.at_most(1)), Next::Again);
    assert_eq!(channel.turn(&turn.at_most(1), false, count(&mut seen)).unwrap(), Next::Again);
    let held = channel.turn(&turn.at_most(0), false, nothing).unwrap();
    assert_eq!(held, Next::Poll { readable: false, writable: false });
    let error = channel.turn(&turn, false, count(&mut seen)).unwrap_err();
    assert_eq!((seen, error.is_peer_gone()), (2, true));
}

#[test]
fn a_channel_with_nothing_more_to_come_is_done_whatever_its_limit() {
    let (mut channel, peer) = Channel::pair(Modern::new()).unwrap();
    drop(peer);
    assert_eq!(channel.turn(&Turn::new(0), true, nothing).unwrap(), Next::Done);
    assert_eq!(channel.next(&Turn::new(0).at_most(0)), Next::Done);
}

#[test]
fn a_channel_with_more_to_say_comes_again_when_the_queue_is_empty_and_else_when_it_can_send() {
    for turn in [Turn::silent(), Turn::silent().edge_triggered()] {
        let (mut channel, _peer) = Channel::pair(Modern::new()).unwrap();
        let saying = turn.saying(true);
        assert_eq!(channel.turn(&saying, false, nothing).unwrap(), Next::Again);
        let next = loop {
            while channel.tx.compose(Header::new(1), &[0_u8; 1000], None).is_ok() {}
            match channel.turn(&saying, false, nothing).unwrap() {
                Next::Again => {}
                next => break next,
            }
        };
        assert_eq!(next, Next::Poll { readable: true, writable: true });
        assert!(channel.tx.queue_bytes() > 0);
    }
}

#[test]
fn a_peer_that_closed_its_end_is_told_the_rest() {
    let (mut channel, peer) = Channel::pair(Modern::new()).unwrap();
    let Channel { rx: _rx, tx } = peer;
    tx.shutdown().unwrap();
    let turn = Turn::silent();
    assert_eq!(channel.turn(&turn.saying(true), true, nothing).unwrap(), Next::Again);
    assert_eq!(channel.turn(&turn.saying(false), true, nothing).unwrap(), Next::Done);
}

/// On Linux a read stops behind what was sent with a descriptor, wanted or not.
#[test]
#[cfg(target_os = "linux")]
fn an_edge_triggered_turn_reads_no_more_often_than_it_may_handle_messages() {
    let (ours, peer) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(ours, Modern::new()).unwrap();
    let message = stream(&[84]);
    for byte in &message {
        let descriptors = [peer.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let bytes = [IoSlice::new(std::slice::from_ref(byte))];
        let flags = MsgFlags::empty();
        assert_eq!(sendmsg::<()>(peer.as_raw_fd(), &bytes, &control, flags, None), Ok(1));
    }
    let turn = Turn::new(0).messages(40).edge_triggered();
    let mut seen = 0;

    for unread in [40, 80] {
        assert_eq!(channel.turn(&turn, true, count(&mut seen)).unwrap(), Next::Again);
        assert_eq!((seen, channel.rx.unread_bytes()), (0, unread));
    }
    let next = channel.turn(&turn, false, count(&mut seen)).unwrap();

    assert_eq!((seen, next), (1, Next::Poll { readable: true, writable: false }));
}
