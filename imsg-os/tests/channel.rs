//! Channels over real sockets: whole messages, partial input and output, blocking and not, and
//! the ends that a stream can come to.

#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{
    ByHand, Companion, Got, LEN, POLL, alone, flush_error, in_both_dialects, next, numbered,
    receive_to_the_end, send, try_send, unmarked, watched,
};
use imsg_os::{
    Channel, Descriptor, Header, Missing, Modern, NotAStream, ReadOutcome, Reason, Receiver,
    RecvError, Refused, SendError, WriteOutcome, inherited,
};
use imsg_wire::Error;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::stat::fstat;
use nix::unistd::{getgid, getuid};

const MESSAGE_1: Got = Got::Message(1, Descriptor::None);

in_both_dialects! {
    messages_of_all_sizes_pass_both_ways
    a_full_socket_takes_messages_in_part_and_loses_none
    a_full_buffer_is_an_error_that_loses_no_message
    a_stream_that_ends_between_messages_is_clean
    a_stream_that_ends_within_a_header_is_truncated_behind_what_came_before
    a_stream_that_ends_within_a_payload_is_truncated_behind_what_came_before
}

fn messages_of_all_sizes_pass_both_ways<D: ByHand>(d: D) {
    let (mut client, mut server) = Channel::pair(d).unwrap();
    let largest = client.tx.max_len() - 16;
    for (n, len) in
        [0, 1, 2, 15, 16, 17, 255, 256, 4096, largest - 1, largest, 0].iter().enumerate()
    {
        let header = Header { msg_type: n as u32, id: !0, pid: n as u32 + 1 };
        let payload: Vec<u8> = (0..*len).map(|i| (i + n) as u8).collect();
        client.tx.compose(header, &payload[..], None).unwrap();
        client.tx.flush().unwrap();
        let request = server.rx.recv().unwrap().expect("a request");
        assert_eq!((request.header, request.payload), (header, &payload[..]));

        server.tx.forward(&request, None).unwrap();
        server.tx.flush().unwrap();
        let reply = client.rx.recv().unwrap().expect("a reply");
        assert_eq!((reply.header, reply.payload), (header, &payload[..]));
    }
}

#[test]
fn a_message_without_a_pid_gets_that_of_this_process() {
    let (mut client, mut server) = Channel::pair(Modern::new()).unwrap();
    client.tx.compose(Header::new(1), b"", None).unwrap();
    client.tx.flush().unwrap();

    let message = server.rx.recv().unwrap().unwrap();

    assert_eq!(message.header.pid, std::process::id());
}

fn a_full_socket_takes_messages_in_part_and_loses_none<D: ByHand>(d: D) {
    const COUNT: usize = 40;
    let payload = |n: usize| vec![n as u8; 1000 + n];
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    setsockopt(&ours, sockopt::SndBuf, &0).unwrap();
    let mut sender = Channel::new(ours, d).unwrap();
    let mut receiver = Channel::new(theirs, d).unwrap();
    for n in 0..COUNT {
        sender.tx.compose(Header::new(n as u32), &payload(n)[..], None).unwrap();
    }

    let mut received = Vec::new();
    let mut queue = Vec::new();
    while sender.tx.write().unwrap() == WriteOutcome::WouldBlock {
        queue.push(sender.tx.queue_len());
        assert_eq!(receiver.rx.read().unwrap(), ReadOutcome::Data);
        take_all(&mut receiver.rx, &mut received);
    }
    drop(sender);
    while receiver.rx.read().unwrap() == ReadOutcome::Data {
        take_all(&mut receiver.rx, &mut received);
    }

    assert!(queue.len() > 5 && queue.is_sorted_by(|a, b| a >= b), "queue lengths {queue:?}");
    assert!(queue[0] < COUNT && queue[queue.len() - 1] > 0, "queue lengths {queue:?}");
    assert!(received.into_iter().eq((0..COUNT).map(|n| (n as u32, payload(n)))));
}

fn take_all<D: ByHand>(rx: &mut Receiver<D>, received: &mut Vec<(u32, Vec<u8>)>) {
    for message in rx.messages() {
        let message = message.unwrap();
        received.push((message.header.msg_type, message.payload.to_vec()));
    }
}

#[test]
fn a_read_of_nothing_from_a_non_blocking_socket_would_block() {
    let (_peer, mut channel) = non_blocking();

    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::WouldBlock);
}

#[test]
fn a_read_from_a_non_blocking_socket_brings_what_is_there() {
    let (mut peer, mut channel) = non_blocking();
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();

    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::Data);
    assert_eq!(channel.rx.next_message().unwrap().unwrap().header.msg_type, 1);
    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::WouldBlock);
}

#[test]
fn a_read_from_a_non_blocking_socket_sees_the_end() {
    let (peer, mut channel) = non_blocking();
    drop(peer);

    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::Closed);
    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::Closed);
}

#[test]
fn a_receive_from_a_non_blocking_socket_waits() {
    let (mut peer, mut channel) = non_blocking();
    let receiver = Companion::start(move || next(&mut channel.rx));
    receiver.until_asleep(POLL);
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();

    assert_eq!(receiver.thread.join().unwrap(), MESSAGE_1);
}

/// Where poll(2) is a system call of its own, with a limit in milliseconds as its third argument.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_receive_waits_without_a_limit_of_time() {
    let (mut peer, mut channel) = non_blocking();
    let receiver = Companion::start(move || next(&mut channel.rx));
    let arguments = receiver.until_asleep(POLL);
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();

    assert_eq!(arguments[2] as i32, -1);
    assert_eq!(receiver.thread.join().unwrap(), MESSAGE_1);
}

#[test]
fn a_flush_to_a_full_non_blocking_socket_waits() {
    let (mut peer, mut channel) = full(false);
    channel.tx.compose(Header::new(1), b"", None).unwrap();
    let sender = flushing(channel);
    sender.until_asleep(POLL);

    assert_eq!(receive_to_the_end(&mut peer.rx), [MESSAGE_1, Got::End]);
    sender.thread.join().unwrap().unwrap();
}

fn a_full_buffer_is_an_error_that_loses_no_message<D: ByHand>(d: D) {
    let (peer, socket) = UnixStream::pair().unwrap();
    let mut channel = Channel::with_storage(socket, d, [0; 50], [0; 50]).unwrap();
    for n in 1..=6 {
        send(&peer, &unmarked(d, n), []);
    }
    drop(peer);
    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::Data);
    assert!(matches!(channel.rx.read(), Err(RecvError::Full)));
    assert!(matches!(channel.rx.read(), Err(RecvError::Full)));

    let mut expected: Vec<_> = (1..=6).map(|n| Got::Message(n, Descriptor::None)).collect();
    expected.push(Got::End);
    assert_eq!(receive_to_the_end(&mut channel.rx), expected);
}

fn a_stream_that_ends_between_messages_is_clean<D: ByHand>(d: D) {
    assert_eq!(received(d, &unmarked(d, 1)), [MESSAGE_1, Got::End]);
}

fn a_stream_that_ends_within_a_header_is_truncated_behind_what_came_before<D: ByHand>(d: D) {
    for have in 1..16 {
        let truncated = Got::Error(Error::Truncated { offset: LEN, have, need: 16 });
        let sent = [&unmarked(d, 1)[..], &unmarked(d, 2)[..have]].concat();
        assert_eq!(received(d, &sent), [MESSAGE_1, truncated]);
    }
}

fn a_stream_that_ends_within_a_payload_is_truncated_behind_what_came_before<D: ByHand>(d: D) {
    let need = LEN as usize;
    for have in 16..need {
        let truncated = Got::Error(Error::Truncated { offset: LEN, have, need });
        let sent = [&unmarked(d, 1)[..], &unmarked(d, 2)[..have]].concat();
        assert_eq!(received(d, &sent), [MESSAGE_1, truncated]);
    }
}

#[test]
fn a_peer_that_closed_is_an_error_and_no_signal() {
    alone(|| {
        default_sigpipe();
        let (mut channel, peer) = Channel::pair(Modern::new()).unwrap();
        drop(peer);
        channel.tx.compose(Header::new(1), b"", None).unwrap();

        assert_eq!(flush_error(&mut channel), Some(libc::EPIPE));
    });
}

#[test]
fn a_peer_that_closed_before_a_descriptor_was_sent_is_an_error_and_no_signal() {
    alone(|| {
        default_sigpipe();
        let (mut channel, peer) = Channel::pair(Modern::new()).unwrap();
        drop(peer);
        channel.tx.compose(Header::new(1), b"", Some(numbered(1))).unwrap();

        assert_eq!(flush_error(&mut channel), Some(libc::EPIPE));
    });
}

/// As in a C program; Rust ignores the signal from the start.
fn default_sigpipe() {
    // SAFETY: the default action calls nothing in this process.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
}

#[test]
fn what_was_not_sent_stays_queued() {
    let (mut channel, peer) = Channel::pair(Modern::new()).unwrap();
    drop(peer);
    channel.tx.compose(Header::new(1), b"", None).unwrap();
    channel.tx.compose(Header::new(2), b"", None).unwrap();

    channel.tx.write().unwrap_err();

    assert_eq!(channel.tx.queue_len(), 2);
}

#[test]
fn a_peer_that_closed_with_data_unread_is_a_reset_behind_what_it_sent() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    channel.tx.compose(Header::new(9), b"never read", None).unwrap();
    channel.tx.flush().unwrap();
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();
    drop(peer);

    assert_eq!(next(&mut channel.rx), MESSAGE_1);
    let number = |error: RecvError| io::Error::from(error).raw_os_error();
    assert_eq!(number(channel.rx.recv().unwrap_err()), Some(libc::ECONNRESET));
    // Linux says so once, and gVisor again and again.
    match channel.rx.recv() {
        Ok(end) => assert!(end.is_none()),
        Err(error) => assert_eq!(number(error), Some(libc::ECONNRESET)),
    }
}

#[test]
fn a_stream_that_is_known_to_be_broken_is_not_read_on() {
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(socket, Modern::new()).unwrap();
    peer.write_all(&[0; 16]).unwrap();

    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::Data);

    // The socket blocks, and nothing more comes.
    assert!(matches!(channel.rx.read(), Err(RecvError::Protocol(Error::Length { .. }))));
}

#[test]
fn a_sequenced_packet_socket_is_refused_and_given_back() {
    let (socket, _peer) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).unwrap();
    is_refused_and_given_back(socket);
}

#[test]
fn a_datagram_socket_is_refused_and_given_back() {
    let (socket, _peer) = UnixDatagram::pair().unwrap();
    is_refused_and_given_back(socket);
}

#[test]
fn a_regular_file_is_refused_and_given_back() {
    is_refused_and_given_back(File::open(std::env::current_exe().unwrap()).unwrap());
}

#[test]
fn a_pipe_is_refused_and_given_back() {
    let (reader, _writer) = io::pipe().unwrap();
    is_refused_and_given_back(reader);
}

#[test]
fn a_tcp_socket_is_refused_and_given_back() {
    // It would lose descriptors without a word.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    is_refused_and_given_back(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
}

#[track_caller]
fn is_refused_and_given_back(other: impl Into<OwnedFd>) {
    let other = other.into();
    let number = other.as_raw_fd();
    let inode = fstat(&other).unwrap().st_ino;

    let NotAStream { socket, .. } = Channel::new(other, Modern::new()).unwrap_err();

    assert_eq!((socket.as_raw_fd(), fstat(&socket).unwrap().st_ino), (number, inode));
}

#[test]
fn the_credentials_of_a_peer_in_this_process_are_ours() {
    let (channel, _peer) = Channel::pair(Modern::new()).unwrap();

    let credentials = channel.peer_credentials().unwrap();

    assert_eq!(credentials.pid, Some(std::process::id()));
    assert_eq!(credentials.uid, getuid().as_raw());
    assert_eq!(credentials.gid, getgid().as_raw());
}

#[test]
fn a_channel_gives_its_socket_up() {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    let number = socket.as_raw_fd();
    let channel = Channel::new(socket, Modern::new()).unwrap();

    let socket = OwnedFd::try_from(channel).expect("the socket");

    assert_eq!(socket.as_raw_fd(), number);
    peer.write_all(b"!").unwrap();
    assert_eq!(nix::unistd::read(&socket, &mut [0; 2]), Ok(1));
}

#[test]
fn halves_of_two_channels_give_no_socket_up() {
    let (one, other) = Channel::pair(Modern::new()).unwrap();
    let crossed = Channel { rx: one.rx, tx: other.tx };
    drop((one.tx, other.rx));

    let mut crossed = OwnedFd::try_from(crossed).unwrap_err();

    crossed.tx.compose(Header::new(1), b"", None).unwrap();
    crossed.tx.flush().unwrap();
    assert_eq!(next(&mut crossed.rx), MESSAGE_1);
}

#[test]
fn the_halves_of_a_channel_work_in_two_threads() {
    let (mut peer, channel) = Channel::pair(Modern::new()).unwrap();
    let (mut rx, mut tx) = (channel.rx, channel.tx);
    let receiver = thread::spawn(move || next(&mut rx));
    let sender = thread::spawn(move || {
        tx.compose(Header::new(2), b"", None).unwrap();
        tx.flush().unwrap();
    });
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();

    assert_eq!(receiver.join().unwrap(), MESSAGE_1);
    assert_eq!(peer.rx.recv().unwrap().unwrap().header.msg_type, 2);
    sender.join().unwrap();
}

#[test]
fn a_receive_goes_on_after_signals() {
    alone(|| {
        let (mut peer, mut channel) = Channel::pair(Modern::new()).unwrap();
        let receiver = Companion::start(move || next(&mut channel.rx));
        interrupt(&receiver, libc::SYS_recvfrom);
        peer.tx.compose(Header::new(1), b"", None).unwrap();
        peer.tx.flush().unwrap();

        assert_eq!(receiver.thread.join().unwrap(), MESSAGE_1);
    });
}

#[test]
fn a_receive_of_descriptors_goes_on_after_signals() {
    alone(|| {
        let (mut peer, mut channel) = Channel::pair(Modern::new()).unwrap();
        channel.rx.allow_descriptors();
        let receiver = Companion::start(move || next(&mut channel.rx));
        interrupt(&receiver, libc::SYS_recvmsg);
        peer.tx.compose(Header::new(1), b"", Some(numbered(1))).unwrap();
        peer.tx.flush().unwrap();

        let delivered = Got::Message(1, Descriptor::Here(1));
        assert_eq!(receiver.thread.join().unwrap(), delivered);
    });
}

#[test]
fn a_wait_for_a_non_blocking_socket_goes_on_after_signals() {
    alone(|| {
        let (mut peer, mut channel) = non_blocking();
        let receiver = Companion::start(move || next(&mut channel.rx));
        interrupt(&receiver, POLL);
        peer.tx.compose(Header::new(1), b"", None).unwrap();
        peer.tx.flush().unwrap();

        assert_eq!(receiver.thread.join().unwrap(), MESSAGE_1);
    });
}

#[test]
fn a_send_goes_on_after_signals() {
    alone(|| {
        let (mut peer, mut channel) = full(true);
        channel.tx.compose(Header::new(1), b"", None).unwrap();
        let sender = flushing(channel);
        interrupt(&sender, libc::SYS_sendto);

        assert_eq!(receive_to_the_end(&mut peer.rx), [MESSAGE_1, Got::End]);
        sender.thread.join().unwrap().unwrap();
    });
}

#[test]
fn a_send_of_a_descriptor_goes_on_after_signals() {
    alone(|| {
        let (mut peer, mut channel) = full(true);
        peer.rx.allow_descriptors();
        channel.tx.compose(Header::new(1), b"", Some(numbered(1))).unwrap();
        let sender = flushing(channel);
        interrupt(&sender, POLL);

        let delivered = Got::Message(1, Descriptor::Here(1));
        assert_eq!(receive_to_the_end(&mut peer.rx), [delivered, Got::End]);
        sender.thread.join().unwrap().unwrap();
    });
}

/// Interrupts the thread many times where it waits in the system call of this number.
#[track_caller]
fn interrupt<T: Send + 'static>(companion: &Companion<T>, call: libc::c_long) {
    static COUNTED: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count(_: libc::c_int) {
        COUNTED.fetch_add(1, Ordering::Relaxed);
    }

    let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing but to add to an atomic integer.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    for n in 0..100 {
        companion.until_asleep(call);
        companion.signal(Signal::SIGUSR1);
        while COUNTED.load(Ordering::Relaxed) == n {
            thread::yield_now();
        }
    }
    companion.until_asleep(call);
}

/// What a channel receives when its peer sends these bytes and closes.
fn received<D: ByHand>(d: D, sent: &[u8]) -> Vec<Got> {
    let (peer, socket) = UnixStream::pair().unwrap();
    send(&peer, sent, []);
    drop(peer);
    receive_to_the_end(&mut Channel::new(socket, d).unwrap().rx)
}

/// A channel over a non-blocking socket, and its peer.
fn non_blocking() -> (Channel<Modern>, Channel<Modern>) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Channel::new(theirs, Modern::new()).unwrap(), Channel::new(ours, Modern::new()).unwrap())
}

/// A channel whose socket takes no more until its peer reads.
fn full(blocking: bool) -> (Channel<Modern>, Channel<Modern>) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    // Of so many bytes that gVisor takes no part of one.
    let filler = Modern::header(0, 16, false);
    let full = loop {
        match try_send(&ours, &filler, []) {
            Ok(sent) => assert_eq!(sent, filler.len()),
            Err(error) => break error,
        }
    };
    assert_eq!(full, Errno::EAGAIN);
    ours.set_nonblocking(!blocking).unwrap();
    (Channel::new(theirs, Modern::new()).unwrap(), Channel::new(ours, Modern::new()).unwrap())
}

/// A thread that flushes a channel and closes it.
fn flushing(mut channel: Channel<Modern>) -> Companion<io::Result<()>> {
    Companion::start(move || {
        let result = channel.tx.flush();
        drop(channel);
        result
    })
}

#[test]
fn a_half_that_is_shut_down_ends_the_stream_and_leaves_the_other_open() {
    let (channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    let Channel { mut rx, mut tx } = channel;
    tx.compose(Header::new(1), b"", None).unwrap();
    tx.flush().unwrap();
    tx.shutdown().unwrap();

    assert_eq!(next(&mut peer.rx), MESSAGE_1);
    assert!(peer.rx.recv().unwrap().is_none());
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();
    assert_eq!(next(&mut rx), MESSAGE_1);
}

#[test]
fn a_pid_that_is_set_stands_in_for_0() {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    channel.tx.compose(Header::new(1), b"", None).unwrap();
    channel.tx.set_pid(77);
    channel.tx.compose(Header::new(1), b"", None).unwrap();
    channel.tx.flush().unwrap();

    let pids = [0; 2].map(|_| peer.rx.recv().unwrap().expect("a message").header.pid);
    assert_eq!(pids, [std::process::id(), 77]);
}

/// What `inherited` says of a number, which it does not take up.
fn not_inherited(number: RawFd) -> String {
    // SAFETY: where this is called, the number is that of nothing, of the standard library, of
    // something with close-on-exec, or of something without an owner.
    let error = unsafe { inherited(number) }.unwrap_err().to_string();
    let says = format!("descriptor {number} is no inherited channel: ");
    error.strip_prefix(&says).expect("the number is named").to_owned()
}

#[test]
fn a_descriptor_that_this_process_opened_was_not_inherited() {
    let (socket, _peer) = UnixStream::pair().unwrap();

    let why = not_inherited(socket.as_raw_fd());

    assert_eq!(why, "this process opened it, or took it up before");
}

#[test]
fn the_descriptors_of_the_standard_library_are_not_taken() {
    for number in 0..=2 {
        assert_eq!(not_inherited(number), "it belongs to the standard library");
    }
}

#[test]
fn a_number_that_is_not_open_was_not_inherited() {
    let not_open = io::Error::from_raw_os_error(libc::EBADF).to_string();

    assert_eq!(not_inherited(-1), not_open);
    assert_eq!(not_inherited(RawFd::MAX), not_open);
}

#[test]
fn an_inherited_socket_is_taken_up_once_and_gets_close_on_exec() {
    let (socket, _peer) = UnixStream::pair().unwrap();
    // As a program finds it that was started with it.
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let number = socket.into_raw_fd();

    // SAFETY: nothing owns it any more.
    let taken = unsafe { inherited(number) }.unwrap();

    assert_eq!(taken.as_raw_fd(), number);
    let flags = fcntl(taken.as_fd(), FcntlArg::F_GETFD).unwrap();
    assert_eq!(FdFlag::from_bits_truncate(flags), FdFlag::FD_CLOEXEC);
    not_inherited(number);
}

#[test]
fn a_file_that_was_inherited_is_no_channel_and_stays_open() {
    let file = File::open("/dev/null").unwrap();
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let number = file.into_raw_fd();

    let why = not_inherited(number);

    assert_eq!(why, io::Error::from_raw_os_error(libc::ENOTSOCK).to_string());
    // SAFETY: nothing owns it.
    let file = unsafe { OwnedFd::from_raw_fd(number) };
    let flags = fcntl(&file, FcntlArg::F_GETFD).unwrap();
    assert_eq!(FdFlag::from_bits_truncate(flags), FdFlag::empty());
}

#[test]
fn errors_have_the_numbers_that_c_gives() {
    let number = |error: io::Error| error.raw_os_error();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(socket, Modern::new()).unwrap();

    let long = vec![0_u8; 16384];
    let refused = channel.tx.send_borrowed(Header::new(1), &long[..], peer.as_fd()).unwrap_err();
    assert_eq!(number(refused.into()), Some(libc::ERANGE));

    peer.write_all(&[0; 16]).unwrap();
    assert_eq!(number(channel.rx.recv().unwrap_err().into()), Some(libc::ERANGE));

    assert_eq!(number(RecvError::Full.into()), Some(libc::ENOBUFS));
    assert_eq!(number(RecvError::DescriptorLimit.into()), Some(libc::EMFILE));
    let unclaimed = imsg_wire::Violation { fault: imsg_wire::Fault::Unclaimed, offset: 0 };
    let violation = RecvError::Protocol(Error::Descriptor(unclaimed));
    assert_eq!(number(violation.into()), Some(libc::EBADMSG));
    let truncated = RecvError::Protocol(Error::Truncated { offset: 0, have: 1, need: 16 });
    assert_eq!(io::Error::from(truncated).kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn the_halves_work_in_two_threads() {
    const MESSAGES: u32 = 2000;
    let (channel, peer) = Channel::pair(Modern::new()).unwrap();
    let ends = [channel, peer].map(|Channel { mut rx, mut tx }| {
        let sending = thread::spawn(move || {
            for n in 0..MESSAGES {
                tx.compose(Header::new(n), &[0_u8; 300], None).unwrap();
                tx.flush().unwrap();
            }
            tx.shutdown().unwrap();
        });
        let receiving = thread::spawn(move || {
            let mut received = 0;
            while let Some(message) = rx.recv().unwrap() {
                assert_eq!(message.header.msg_type, received);
                received += 1;
            }
            received
        });
        (sending, receiving)
    });
    for (sending, receiving) in ends {
        sending.join().unwrap();
        assert_eq!(receiving.join().unwrap(), MESSAGES);
    }
}

// ---- Passed on

#[test]
fn a_message_whose_descriptor_is_missing_is_not_passed_on() {
    let (mut from, mut there) = Channel::pair(Modern::new()).unwrap();
    let (mut to, _peer) = Channel::pair(Modern::new()).unwrap();
    from.tx.compose(Header::new(1), b"", Some(File::open("/dev/null").unwrap().into())).unwrap();
    from.tx.flush().unwrap();

    let mut message = there.rx.recv().unwrap().expect("a message");
    let descriptor = message.descriptor.take();
    let refused = to.tx.forward(&message, descriptor).unwrap_err();

    assert_eq!(refused.reason, Reason::Missing(Missing::NotAllowed));
    assert_eq!(to.tx.queue_len(), 0);
}

#[test]
fn a_refusal_that_becomes_an_error_closes_its_descriptor() {
    let (descriptor, watch) = watched();
    let reason = Reason::DescriptorsFull;

    let error = SendError::from(Refused { reason, descriptor: Some(descriptor) });

    assert!(watch.sees_it_closed());
    assert!(matches!(error, SendError::Refused(Reason::DescriptorsFull)));
}

// ---- Time limits

#[test]
fn a_time_limit_of_the_socket_ends_a_read() {
    let (socket, _peer) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut channel = Channel::new(socket, Modern::new()).unwrap();

    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::WouldBlock);
}

#[test]
fn a_time_limit_of_the_socket_ends_a_write_to_a_peer_that_does_not_read() {
    let (socket, _peer) = UnixStream::pair().unwrap();
    socket.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut channel = Channel::new(socket, Modern::new()).unwrap();

    while channel.tx.write().unwrap() == WriteOutcome::All {
        channel.tx.compose(Header::new(1), &[0_u8; 16_000], None).unwrap();
    }

    assert_eq!(channel.tx.queue_len(), 1);
}
