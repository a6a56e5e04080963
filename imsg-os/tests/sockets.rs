//! Sockets as they come: not connected, shared with others that change them, with peers that refuse
//! or never end; and processes that may have no descriptors.

#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Write as _};
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use common::{
    ByHand, Companion, Got, LEN, alone, in_both_dialects, leaving_no_descriptor, marked, next,
    number_of, numbered, peer_and_channel, receive_to_the_end, send, try_send, unmarked, watched,
};
use imsg_os::{
    Channel, Deadline, Descriptor, Header, Modern, NotAStream, Pages, Pairing, ReadOutcome,
    RecvError, SendError, WriteOutcome, inherited,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, sendmsg, setsockopt,
    shutdown, socket, sockopt,
};

const MESSAGE_1: Got = Got::Message(1, Descriptor::None);

in_both_dialects! {
    a_reserve_that_is_used_up_reads_all_that_comes_before_a_descriptor
    a_reserve_that_is_used_up_reads_what_fills_the_buffer_before_a_descriptor
    a_reserve_that_is_used_up_reads_the_last_bytes_of_a_message_before_a_descriptor
    a_reserve_that_is_used_up_refuses_the_buffer_of_the_kernel_that_brings_a_descriptor
    a_message_that_can_never_be_sent_is_taken_back_with_its_descriptor
}

// ---- Not connected

fn unconnected() -> OwnedFd {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

fn listening() -> UnixListener {
    let name = format!("imsg-test-{}-{:?}", std::process::id(), std::thread::current().id());
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
}

#[test]
fn a_socket_that_listens_is_refused() {
    let NotAStream { socket, error } = Channel::new(listening(), Modern::new()).unwrap_err();

    assert_eq!(error.to_string(), "it listens for connections, and is none");
    // It still listens.
    UnixStream::connect_addr(&UnixListener::from(socket).local_addr().unwrap()).unwrap();
}

#[test]
fn a_socket_that_is_not_connected_is_refused() {
    let refused = Channel::new(unconnected(), Modern::new()).unwrap_err();

    assert_eq!(refused.error.to_string(), "it is not connected");
}

#[test]
fn a_socket_that_listens_was_not_inherited_as_a_channel() {
    let socket = OwnedFd::from(listening());
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();

    // SAFETY: it is refused, so that nothing else owns it.
    let error = unsafe { inherited(socket.as_raw_fd()) }.unwrap_err();

    assert!(error.to_string().contains("it listens"), "{error}");
}

#[cfg(feature = "tokio")]
#[test]
fn tokio_refuses_sockets_that_are_not_connected() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        for socket in [unconnected(), listening().into()] {
            let refused = imsg_os::tokio::Channel::from_std(socket, Modern::new());
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn a_socket_whose_peer_is_gone_is_a_channel_with_what_was_sent() {
    let (peer, socket) = UnixStream::pair().unwrap();
    send(&peer, &unmarked(Modern::new(), 1), []);
    drop(peer);

    let mut channel = Channel::new(socket, Modern::new()).unwrap();

    assert_eq!(receive_to_the_end(&mut channel.rx), [MESSAGE_1, Got::End]);
}

#[test]
fn a_socket_that_is_shut_down_both_ways_is_a_channel_at_its_end() {
    let (_peer, socket) = UnixStream::pair().unwrap();
    shutdown(socket.as_raw_fd(), Shutdown::Both).unwrap();

    let mut channel = Channel::new(socket, Modern::new()).unwrap();

    assert_eq!(next(&mut channel.rx), Got::End);
}

// ---- `O_NONBLOCK` is changed by somebody else

/// A channel that does not wait, over a file that somebody made blocking since; and its peer, and
/// that somebody.
fn made_blocking() -> (Channel<Modern>, UnixStream, UnixStream) {
    let (peer, socket) = UnixStream::pair().unwrap();
    let other = socket.try_clone().unwrap();
    socket.set_nonblocking(true).unwrap();
    let channel = Channel::new(socket, Modern::new()).unwrap();
    other.set_nonblocking(false).unwrap();
    (channel, peer, other)
}

#[test]
fn a_read_that_does_not_wait_does_not_when_somebody_makes_the_file_blocking() {
    alone(|| {
        let (mut channel, _peer, _other) = made_blocking();

        assert_eq!(channel.rx.read().unwrap(), ReadOutcome::WouldBlock);
        channel.rx.allow_descriptors();
        assert_eq!(channel.rx.read().unwrap(), ReadOutcome::WouldBlock);
        channel.rx.keep_reserve().unwrap();
        assert_eq!(channel.rx.read().unwrap(), ReadOutcome::WouldBlock);
    });
}

#[test]
fn a_write_that_does_not_wait_does_not_when_somebody_makes_the_file_blocking() {
    alone(|| {
        let (mut channel, _peer, _other) = made_blocking();
        while channel.tx.write().unwrap() == WriteOutcome::All {
            channel.tx.compose(Header::new(0), &[0_u8; 16_000], None).unwrap();
        }

        assert_eq!(channel.tx.write().unwrap(), WriteOutcome::WouldBlock);
    });
}

#[test]
fn a_descriptor_that_does_not_wait_does_not_when_somebody_makes_the_file_blocking() {
    alone(|| {
        let (mut channel, _peer, other) = made_blocking();
        fill(&other);

        channel.tx.compose(Header::new(1), b"", Some(numbered(1))).unwrap();
        assert_eq!(channel.tx.write().unwrap(), WriteOutcome::WouldBlock);
        drop(channel);

        let (mut channel, _peer, other) = made_blocking();
        fill(&other);
        let error = channel.tx.send_borrowed(Header::new(1), b"", other.as_fd()).unwrap_err();
        assert!(matches!(error, SendError::Io(error) if error.kind() == ErrorKind::WouldBlock));
    });
}

#[test]
fn a_channel_that_waits_does_so_when_somebody_makes_the_file_non_blocking() {
    alone(|| {
        let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
        let receiver = Companion::start(move || next(&mut channel.rx));
        receiver.until_asleep(libc::SYS_recvfrom);
        peer.tx.compose(Header::new(1), b"", None).unwrap();
        peer.tx.flush().unwrap();
        assert_eq!(receiver.thread.join().unwrap(), MESSAGE_1);

        let (socket, mut peer) = UnixStream::pair().unwrap();
        let other = socket.try_clone().unwrap();
        let mut channel = Channel::new(socket, Modern::new()).unwrap();
        other.set_nonblocking(true).unwrap();
        let receiver = Companion::start(move || next(&mut channel.rx));
        receiver.until_asleep(common::POLL);
        peer.write_all(&unmarked(Modern::new(), 1)).unwrap();
        assert_eq!(receiver.thread.join().unwrap(), MESSAGE_1);
    });
}

#[test]
fn a_channel_is_told_whether_it_waits_and_leaves_the_file_as_it_is() {
    let (_peer, socket) = UnixStream::pair().unwrap();
    let other = socket.try_clone().unwrap();
    let mut channel = Channel::new(socket, Modern::new()).unwrap();

    channel.set_nonblocking(true);

    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::WouldBlock);
    let flags = fcntl(&other, FcntlArg::F_GETFL).unwrap();
    assert_eq!(flags & libc::O_NONBLOCK, 0);
}

#[cfg(feature = "tokio")]
#[test]
fn somebody_who_makes_the_file_blocking_does_not_stop_a_runtime() {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::Poll;

    alone(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (peer, socket) = UnixStream::pair().unwrap();
            let other = socket.try_clone().unwrap();
            let mut channel = imsg_os::tokio::Channel::from_std(socket, Modern::new()).unwrap();
            // So that the runtime believes the socket to be readable.
            send(&peer, &unmarked(Modern::new(), 1), []);
            assert!(channel.rx.recv().await.unwrap().is_some());
            other.set_nonblocking(false).unwrap();

            let mut receive = pin!(channel.rx.recv());
            let polled = std::future::poll_fn(|cx| Poll::Ready(receive.as_mut().poll(cx))).await;
            assert!(polled.is_pending());

            // Large enough to fill the socket.
            for _ in 0..64 {
                while channel.tx.compose(Header::new(0), &[0_u8; 16_000], None).is_ok() {}
                let mut flush = pin!(channel.tx.flush());
                let polled = std::future::poll_fn(|cx| Poll::Ready(flush.as_mut().poll(cx))).await;
                if polled.is_pending() {
                    return;
                }
            }
            panic!("the socket is never full");
        });
    });
}

// ---- No descriptors at all

/// In a process that may not open anything any more.
fn in_a_sandbox(body: impl FnOnce()) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    body();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

#[test]
fn a_receive_waits_in_a_process_that_may_have_no_descriptors() {
    alone(|| {
        let (mut peer, mut channel) = Channel::pair(Modern::new()).unwrap();
        channel.set_nonblocking(true);
        let receiver = Companion::start(move || next(&mut channel.rx));
        receiver.until_asleep(common::POLL);
        peer.tx.compose(Header::new(1), b"", None).unwrap();
        peer.tx.flush().unwrap();
        assert_eq!(receiver.thread.join().unwrap(), MESSAGE_1);

        let (peer, socket) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(socket, Modern::new()).unwrap();
        channel.set_nonblocking(true);
        let sender = std::thread::spawn(move || {
            send(&peer, &unmarked(Modern::new(), 1), []);
            peer
        });
        in_a_sandbox(|| assert_eq!(next(&mut channel.rx), MESSAGE_1));
        sender.join().unwrap();
    });
}

#[test]
fn a_flush_waits_in_a_process_that_may_have_no_descriptors() {
    alone(|| {
        let (peer, socket) = UnixStream::pair().unwrap();
        fill(&socket);
        let mut channel = Channel::new(socket, Modern::new()).unwrap();
        channel.set_nonblocking(true);
        channel.tx.compose(Header::new(1), b"", None).unwrap();
        let mut peer = Channel::new(peer, Modern::new()).unwrap();
        let receiver = std::thread::spawn(move || receive_to_the_end(&mut peer.rx));

        in_a_sandbox(|| channel.tx.flush().unwrap());
        drop(channel);

        assert_eq!(receiver.join().unwrap(), [MESSAGE_1, Got::End]);
    });
}

// ---- What cannot be sent

fn a_message_that_can_never_be_sent_is_taken_back_with_its_descriptor<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let Some(ring) = io_uring() else {
            eprintln!("NOT RUN: this system has no io_uring, which cannot be sent");
            return;
        };
        let inode = nix::sys::stat::fstat(&ring).unwrap().st_ino;
        let (mut channel, mut peer) = Channel::pair(d).unwrap();
        channel.tx.compose(Header::new(1), b"", None).unwrap();
        channel.tx.compose(Header { id: 7, ..Header::new(2) }, b"ring", Some(ring)).unwrap();
        channel.tx.compose(Header::new(3), b"", None).unwrap();

        assert_eq!(channel.tx.flush().unwrap_err().raw_os_error(), Some(libc::EINVAL));
        let mut message = channel.tx.take_back().expect("nothing of it was sent");
        assert_eq!(
            (message.header.msg_type, message.header.id, message.payload),
            (2, 7, &b"ring"[..])
        );
        let ring = message.descriptor.take().expect("its descriptor");
        assert_eq!(nix::sys::stat::fstat(&ring).unwrap().st_ino, inode);
        drop(ring);
        channel.tx.flush().unwrap();
        drop(channel);

        let received = [MESSAGE_1, Got::Message(3, Descriptor::None), Got::End];
        assert_eq!(receive_to_the_end(&mut peer.rx), received);
    });
}

/// A descriptor that the kernel does not pass on.
fn io_uring() -> Option<OwnedFd> {
    let mut parameters = [0_u32; 30];
    // SAFETY: the structure has 120 bytes, and is all zeros.
    let number = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    let number = i32::try_from(number).ok().filter(|number| *number >= 0)?;
    // SAFETY: it is new.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

#[test]
fn a_channel_that_refuses_descriptors_has_the_peer_fail_and_nothing_is_sent() {
    let (mut peer, mut channel) = Channel::pair(Modern::new()).unwrap();
    match channel.rx.refuse_descriptors() {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            eprintln!("NOT RUN: this system cannot refuse descriptors");
            return;
        }
        result => result.unwrap(),
    }
    peer.tx.compose(Header::new(1), b"", Some(numbered(1))).unwrap();
    peer.tx.compose(Header::new(2), b"", None).unwrap();

    assert_eq!(peer.tx.flush().unwrap_err().raw_os_error(), Some(libc::EPERM));
    let descriptor = peer.tx.take_back().expect("nothing of it was sent").descriptor.take();
    assert_eq!(number_of(descriptor.unwrap()), 1);
    peer.tx.flush().unwrap();
    drop(peer);

    assert_eq!(receive_to_the_end(&mut channel.rx), [Got::Message(2, Descriptor::None), Got::End]);
}

#[test]
fn a_descriptor_that_is_not_allowed_yet_is_no_error_of_the_sender() {
    let (mut peer, _channel) = Channel::pair(Modern::new()).unwrap();
    peer.tx.compose(Header::new(1), b"", Some(numbered(1))).unwrap();

    peer.tx.flush().unwrap();
}

#[test]
fn a_time_limit_of_the_socket_ends_a_write_of_a_descriptor() {
    let (_peer, socket) = UnixStream::pair().unwrap();
    fill(&socket);
    socket.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut channel = Channel::new(socket, Modern::new()).unwrap();
    channel.tx.compose(Header::new(1), b"", Some(numbered(1))).unwrap();

    assert_eq!(channel.tx.write().unwrap(), WriteOutcome::WouldBlock);
    assert_eq!(channel.tx.queue_len(), 1);
}

#[test]
fn a_borrowed_descriptor_is_sent_with_all_of_its_message_where_the_socket_waits() {
    alone(|| {
        let (peer, socket) = UnixStream::pair().unwrap();
        setsockopt(&socket, sockopt::SndBuf, &0).unwrap();
        let mut channel = Channel::new(socket, Modern::new()).unwrap();
        let mut peer = Channel::new(peer, Modern::new()).unwrap();
        peer.rx.allow_descriptors();
        let receiver = std::thread::spawn(move || next(&mut peer.rx));

        let sent = channel.tx.send_borrowed(Header::new(1), &[0_u8; 16_000], numbered(1).as_fd());

        assert_eq!(sent.unwrap(), WriteOutcome::All);
        assert_eq!(receiver.join().unwrap(), Got::Message(1, Descriptor::Here(1)));
    });
}

#[test]
fn a_flush_ends_when_the_peer_stops_to_receive() {
    alone(|| {
        for nonblocking in [false, true] {
            let (peer, socket) = UnixStream::pair().unwrap();
            fill(&socket);
            let mut channel = Channel::new(socket, Modern::new()).unwrap();
            channel.set_nonblocking(nonblocking);
            channel.tx.compose(Header::new(1), b"", None).unwrap();
            let sender = Companion::start(move || channel.tx.flush());
            sender.until_asleep(if nonblocking { common::POLL } else { libc::SYS_sendto });

            shutdown(peer.as_raw_fd(), Shutdown::Read).unwrap();

            let error = sender.thread.join().unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        }
    });
}

// ---- What never ends

#[test]
fn a_peer_that_passed_its_own_end_and_is_gone_has_a_deadline() {
    leaving_no_descriptor(|| {
        let (peer, socket) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(socket, Modern::new()).unwrap();
        channel.rx.allow_descriptors();
        channel.set_nonblocking(true);
        let mut deadline = Deadline::new(Duration::from_secs(10));
        let own_end = peer.try_clone().unwrap();
        send(&peer, &marked(Modern::new(), 1)[..7], [own_end.into()]);
        drop(peer);

        assert_eq!(channel.rx.read().unwrap(), ReadOutcome::Data);
        assert_eq!(channel.rx.read().unwrap(), ReadOutcome::WouldBlock, "no end in sight");
        let now = Instant::now();
        let end = deadline.update(channel.rx.unfinished(), now);
        assert_eq!(end, Some(now + Duration::from_secs(10)));
        let later = now + Duration::from_secs(9);
        assert_eq!(deadline.update(channel.rx.unfinished(), later), end, "it does not start over");
    });
}

#[test]
fn a_deadline_is_for_one_message_and_starts_with_its_first_byte() {
    let (peer, socket) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(socket, Modern::new()).unwrap();
    let mut deadline = Deadline::new(Duration::from_secs(10));
    let begun = Instant::now();
    let at = |seconds| begun + Duration::from_secs(seconds);
    let message = unmarked(Modern::new(), 1);
    assert_eq!(deadline.update(channel.rx.unfinished(), at(0)), None);

    // The second byte of the first message, and the first one of the second.
    send(&peer, &message[..1], []);
    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::Data);
    assert_eq!(deadline.update(channel.rx.unfinished(), at(5)), Some(at(15)));
    send(&peer, &[&message[1..], &message[..1]].concat(), []);
    assert_eq!(channel.rx.read().unwrap(), ReadOutcome::Data);
    assert_eq!(next(&mut channel.rx), MESSAGE_1);
    assert_eq!(deadline.update(channel.rx.unfinished(), at(14)), Some(at(24)));

    send(&peer, &message[1..], []);
    assert_eq!(next(&mut channel.rx), MESSAGE_1);
    assert_eq!(deadline.update(channel.rx.unfinished(), at(30)), None);
}

#[test]
fn a_descriptor_that_waits_for_its_message_is_unfinished() {
    let (peer, mut channel) = peer_and_channel(Modern::new(), Pairing::Ordered);
    let (descriptor, watch) = watched();
    send(&peer, &unmarked(Modern::new(), 1), [descriptor]);

    assert_eq!(next(&mut channel.rx), MESSAGE_1);

    assert_eq!(channel.rx.unfinished(), Some(LEN));
    assert!(watch.sees_it_open());
}

// ---- The reserve

/// Runs `body` with a channel whose reserve is used up, as is every other place that the process
/// may have. Its storage has `storage` bytes.
fn at_the_limit<D: ByHand>(d: D, storage: usize, body: impl FnOnce(&UnixStream, &mut Channel<D>)) {
    leaving_no_descriptor(|| {
        let (peer, socket) = UnixStream::pair().unwrap();
        let storage = || Pages::new(storage).expect("memory");
        let mut channel = Channel::with_storage(socket, d, storage(), storage()).unwrap();
        channel.rx.allow_descriptors();
        channel.set_nonblocking(true);
        channel.rx.keep_reserve().unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
        let slots: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        send_own(&peer, &marked(d, 0));
        assert_eq!(channel.rx.read().unwrap(), ReadOutcome::Data);
        assert!(channel.rx.is_at_limit());
        let message = channel.rx.next_message().unwrap().unwrap();
        assert!(matches!(message.descriptor, Descriptor::Here(_)));
        // It keeps the place.
        let slots = (slots, message.descriptor);

        body(&peer, &mut channel);
        drop(slots);
    });
}

/// Sends with a descriptor, which stays open here.
fn send_own(peer: &UnixStream, bytes: &[u8]) {
    let own = [peer.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&own)];
    let iov = [IoSlice::new(bytes)];
    let sent = sendmsg::<()>(peer.as_raw_fd(), &iov, &rights, MsgFlags::empty(), None);
    assert_eq!(sent, Ok(bytes.len()));
}

/// All messages that can be read now, and what ends that.
fn read_all<D: ByHand>(channel: &mut Channel<D>) -> (Vec<u32>, Result<ReadOutcome, RecvError>) {
    let mut types = Vec::new();
    loop {
        let outcome = channel.rx.read();
        for message in channel.rx.messages() {
            types.push(message.unwrap().header.msg_type);
        }
        if !matches!(outcome, Ok(ReadOutcome::Data)) {
            return (types, outcome);
        }
    }
}

fn a_reserve_that_is_used_up_reads_all_that_comes_before_a_descriptor<D: ByHand>(d: D) {
    at_the_limit(d, 16 * 1024, |peer, channel| {
        for msg_type in 1..=3 {
            send(peer, &unmarked(d, msg_type), []);
        }
        send_own(peer, &[marked(d, 4), unmarked(d, 5)].concat());
        send(peer, &unmarked(d, 6), []);

        let (types, outcome) = read_all(channel);

        assert_eq!(types, [1, 2, 3]);
        assert!(matches!(outcome, Err(RecvError::DescriptorLimit)));
    });
}

/// A look that is filled sees the descriptor behind it.
fn a_reserve_that_is_used_up_reads_what_fills_the_buffer_before_a_descriptor<D: ByHand>(d: D) {
    at_the_limit(d, 16 * 1024, |peer, channel| {
        let largest = [&D::header(1, 16 * 1024, false)[..], &[0; 16 * 1024 - 16]].concat();
        send(peer, &largest, []);
        send_own(peer, &marked(d, 2));

        let (types, outcome) = read_all(channel);

        assert_eq!(types, [1]);
        assert!(matches!(outcome, Err(RecvError::DescriptorLimit)));
    });
}

/// There is room for no more than these bytes.
fn a_reserve_that_is_used_up_reads_the_last_bytes_of_a_message_before_a_descriptor<D: ByHand>(
    d: D,
) {
    at_the_limit(d, 16 * 1024, |peer, channel| {
        let largest = [&D::header(1, 16 * 1024, false)[..], &[0; 16 * 1024 - 16]].concat();
        let (first, last) = largest.split_at(16 * 1024 - 10);
        send(peer, first, []);
        assert_eq!(channel.rx.read().unwrap(), ReadOutcome::Data);
        send(peer, last, []);
        send_own(peer, &marked(d, 2));

        let (types, outcome) = read_all(channel);

        assert_eq!(types, [1]);
        assert!(matches!(outcome, Err(RecvError::DescriptorLimit)));
    });
}

/// As one `sendmsg` of more bytes than the buffer holds, and than one buffer of the kernel.
fn a_reserve_that_is_used_up_refuses_the_buffer_of_the_kernel_that_brings_a_descriptor<
    D: ByHand,
>(
    d: D,
) {
    at_the_limit(d, 4 * 1024, |peer, channel| {
        send(peer, &unmarked(d, 1).repeat(3000), []);
        send_own(peer, &[marked(d, 2), unmarked(d, 3).repeat(2000)].concat());

        let (types, outcome) = read_all(channel);

        assert_eq!(types, [1; 3000]);
        assert!(matches!(outcome, Err(RecvError::DescriptorLimit)));
    });
}

#[test]
fn an_urgent_byte_does_not_keep_a_socket_with_a_reserve_readable() {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(Modern::new(), Pairing::Exact);
        channel.rx.keep_reserve().unwrap();
        channel.set_nonblocking(true);
        let urgent = send_urgent(peer.as_raw_fd());
        assert_eq!(urgent, Ok(1), "send an urgent byte");

        assert_eq!(channel.rx.read().unwrap(), ReadOutcome::WouldBlock);

        let mut socket = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut socket, PollTimeout::ZERO), Ok(0), "it is still readable");
        send(&peer, &marked(Modern::new(), 1), [numbered(1)]);
        assert_eq!(next(&mut channel.rx), Got::Message(1, Descriptor::Here(1)));
    });
}

#[test]
fn a_message_behind_an_urgent_byte_is_read_with_a_reserve() {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(Modern::new(), Pairing::Exact);
        channel.rx.keep_reserve().unwrap();
        assert_eq!(send_urgent(peer.as_raw_fd()), Ok(1), "send an urgent byte");
        send(&peer, &marked(Modern::new(), 1), [numbered(1)]);
        drop(peer);

        assert_eq!(next(&mut channel.rx), Got::Message(1, Descriptor::Here(1)));
    });
}

fn send_urgent(socket: RawFd) -> nix::Result<usize> {
    nix::sys::socket::send(socket, b"!", MsgFlags::MSG_OOB)
}

#[test]
fn a_reserve_keeps_the_time_limit_of_the_socket() {
    alone(|| {
        let (_peer, socket) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let mut channel = Channel::new(socket, Modern::new()).unwrap();
        channel.rx.allow_descriptors();
        channel.rx.keep_reserve().unwrap();

        assert_eq!(channel.rx.read().unwrap(), ReadOutcome::WouldBlock);
    });
}

// ---- Help

/// Has a socket take no more until its peer reads; messages of type 0 are in it.
fn fill(socket: &UnixStream) {
    socket.set_nonblocking(true).unwrap();
    // Of so many bytes that gVisor takes no part of one.
    let message = Modern::header(0, 16, false);
    let full = loop {
        match try_send(socket, &message, []) {
            Ok(sent) => assert_eq!(sent, message.len()),
            Err(error) => break error,
        }
    };
    assert_eq!(full, Errno::EAGAIN);
    socket.set_nonblocking(false).unwrap();
}
