//! Nothing on a channel allocates once it is made.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use imsg_os::{
    Channel, Classic, Descriptor, Dialect, Header, Missing, Modern, Poll, ReadOutcome, Reason,
    RecvError, SendError, Turn, WriteOutcome,
};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Counts what the current thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has nothing to count any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: all is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `operations`, and fails if they allocate.
fn without_allocation<T>(operations: impl FnOnce() -> T) -> T {
    let before = ALLOCATIONS.get();
    let result = operations();
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations");
    result
}

fn descriptor() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// Two connected channels that do not block.
fn pair<D: Dialect + Copy>(dialect: D) -> (Channel<D>, Channel<D>) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    (Channel::new(one, dialect).unwrap(), Channel::new(other, dialect).unwrap())
}

#[test]
fn the_counter_sees_an_allocation() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert!(ALLOCATIONS.get() > before);
}

fn messages_of_all_kinds<D: Dialect + Copy>(dialect: D) {
    let (mut one, mut other) = pair(dialect);
    let descriptors = [descriptor(), descriptor(), descriptor(), descriptor()];
    let borrowed = descriptor();
    without_allocation(|| {
        other.rx.allow_descriptors();
        let [a, b, c, d] = descriptors;
        one.tx.compose(Header::new(1), b"bytes", Some(a)).unwrap();
        one.tx.compose(Header::new(2), &[1_u32, 2], None).unwrap();
        one.tx.compose_parts(Header::new(3), &[b"in ", b"parts"], Some(b)).unwrap();
        let mut writer = one.tx.create(Header::new(4), Some(c)).unwrap();
        writer.add_n32(4).unwrap();
        writer.add_strbuf("in place", 16).unwrap();
        writer.close();
        drop(one.tx.create(Header::new(5), Some(d)).unwrap().abandon());
        assert_eq!(one.tx.queue_len(), 4);
        assert_eq!(one.tx.write().unwrap(), WriteOutcome::All);
        let sent = one.tx.send_borrowed(Header::new(6), b"lent", borrowed.as_fd());
        assert_eq!(sent.unwrap(), WriteOutcome::All);

        let mut received = 0;
        while let Ok(ReadOutcome::Data) = other.rx.read() {
            for message in other.rx.messages() {
                let mut message = message.unwrap();
                let descriptor = message.descriptor.take();
                other.tx.forward(&message, descriptor).unwrap();
                received += 1;
            }
        }
        assert_eq!(received, 5);
        other.tx.flush().unwrap();
        for msg_type in [1, 2, 3, 4, 6] {
            let message = one.rx.recv().unwrap().expect("a message");
            assert_eq!(message.header.msg_type, msg_type);
            if msg_type != 2 {
                let why = match message.descriptor {
                    Descriptor::Missing(why) => Some(why),
                    _ => None,
                };
                assert_eq!(why, Some(Missing::NotAllowed));
            }
        }
        assert_eq!(one.rx.read().unwrap(), ReadOutcome::WouldBlock);
    });
}

#[test]
fn sending_and_receiving_classic_messages_does_not_allocate() {
    messages_of_all_kinds(Classic::new());
}

#[test]
fn sending_and_receiving_modern_messages_does_not_allocate() {
    messages_of_all_kinds(Modern::new());
}

#[test]
fn settings_do_not_allocate() {
    let (mut one, _other) = pair(Modern::new());
    without_allocation(|| {
        one.rx.set_max_len(1 << 15).unwrap();
        one.tx.set_max_len(1 << 15).unwrap();
        one.rx.set_pairing(imsg_os::Pairing::Ordered);
        one.rx.allow_descriptors();
        one.rx.keep_reserve().unwrap();
        assert!(!one.rx.is_at_limit());
        one.peer_credentials().unwrap();
    });
}

#[test]
fn a_read_with_a_reserve_does_not_allocate() {
    let (mut one, mut other) = pair(Modern::new());
    let descriptor = descriptor();
    without_allocation(|| {
        other.rx.allow_descriptors();
        other.rx.keep_reserve().unwrap();
        one.tx.compose(Header::new(1), b"", Some(descriptor)).unwrap();
        one.tx.flush().unwrap();
        let message = other.rx.recv().unwrap().expect("a message");
        assert!(matches!(message.descriptor, Descriptor::Here(_)));
    });
}

#[test]
fn refusals_do_not_allocate() {
    let (mut one, mut other) = pair(Modern::new());
    let large = vec![0_u8; 16384 - 16];
    let too_large = vec![0_u8; 16384];
    without_allocation(|| {
        let refused = one.tx.compose(Header::new(1), &too_large[..], None).unwrap_err();
        assert!(matches!(refused.reason, Reason::TooLong { .. }));
        let refused = loop {
            if let Err(refused) = one.tx.compose(Header::new(1), &large[..], None) {
                break refused;
            }
            let _ = one.tx.write().unwrap();
        };
        assert!(matches!(refused.reason, Reason::Full { .. }));
        assert_eq!(one.tx.write().unwrap(), WriteOutcome::WouldBlock);
        let error = one.tx.send_borrowed(Header::new(1), b"", other.as_fd()).unwrap_err();
        assert!(matches!(error, SendError::Io(error) if error.kind() == ErrorKind::WouldBlock));
        let error = loop {
            if let Err(error) = other.rx.read() {
                break error;
            }
        };
        assert!(matches!(error, RecvError::Full));
    });
}

#[test]
fn the_end_of_a_stream_does_not_allocate() {
    let (mut one, other) = pair(Modern::new());
    without_allocation(|| {
        drop(other);
        assert_eq!(one.rx.read().unwrap(), ReadOutcome::Closed);
        assert!(one.rx.recv().unwrap().is_none());
        one.tx.compose(Header::new(1), b"", None).unwrap();
        let error: io::Error = one.tx.flush().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_broken_stream_does_not_allocate() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(ours, Modern::new()).unwrap();
    theirs.write_all(&[0xff; 16]).unwrap();
    without_allocation(|| {
        assert!(matches!(channel.rx.recv(), Err(RecvError::Protocol(_))));
        assert!(matches!(channel.rx.recv(), Err(RecvError::Protocol(_))));
    });
}

#[test]
fn what_is_left_does_not_allocate() {
    let (mut one, mut other) = pair(Modern::new());
    let descriptors: [OwnedFd; 17] = std::array::from_fn(|_| descriptor());
    without_allocation(|| {
        other.rx.allow_descriptors();
        one.tx.set_pid(7);
        for (n, descriptor) in descriptors.into_iter().enumerate() {
            let composed = one.tx.compose(Header::new(1), b"", Some(descriptor));
            match composed {
                Ok(()) => assert!(n < 16),
                Err(refused) => {
                    assert_eq!((n, refused.reason), (16, Reason::DescriptorsFull));
                    assert!(refused.descriptor.is_some());
                }
            }
        }
        assert_eq!((one.tx.queue_len(), one.tx.queue_bytes()), (16, 256));
        one.tx.flush().unwrap();
        let full = loop {
            if let Err(error) = other.rx.read() {
                break error;
            }
        };
        assert!(matches!(full, RecvError::Full));
        assert!(other.rx.is_ready());
        while let Some(message) = other.rx.next_message().unwrap() {
            assert_eq!(message.header.pid, 7);
        }
        assert!(other.rx.set_max_len(15).is_err());
        assert!(other.tx.set_max_len(1 << 30).is_err());
        assert_eq!((other.rx.max_len(), other.tx.max_len()), (16384, 16384));
        let Channel { tx, rx } = one;
        tx.shutdown().unwrap();
        drop(rx);
        while other.rx.recv().unwrap().is_some() {}
        drop(OwnedFd::try_from(other).unwrap());
    });
}

#[test]
fn waiting_does_not_allocate() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut channel = Channel::new(ours, Modern::new()).unwrap();
    let peer = std::thread::spawn(move || {
        let mut peer = Channel::new(theirs, Modern::new()).unwrap();
        for _ in 0..200 {
            peer.rx.recv().unwrap().expect("a message");
        }
        peer.tx.compose(Header::new(2), b"", None).unwrap();
        peer.tx.flush().unwrap();
    });
    let payload = vec![0_u8; 16384 - 16];
    without_allocation(|| {
        // More than the socket takes, so that this has to wait for the peer.
        for _ in 0..200 {
            channel.tx.compose(Header::new(1), &payload[..], None).unwrap();
            channel.tx.flush().unwrap();
        }
        assert_eq!(channel.rx.recv().unwrap().expect("an answer").header.msg_type, 2);
    });
    peer.join().unwrap();
}

#[test]
fn a_stream_that_ends_inside_a_message_does_not_allocate() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(theirs, Modern::new()).unwrap();
    ours.write_all(&[0; 5]).unwrap();
    drop(ours);
    without_allocation(|| {
        let truncated = imsg_os::Error::Truncated { offset: 0, have: 5, need: 16 };
        for _ in 0..2 {
            let error = channel.rx.recv().unwrap_err();
            assert!(matches!(error, RecvError::Protocol(error) if error == truncated));
        }
    });
}

#[test]
fn a_descriptor_that_no_message_claims_does_not_allocate() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(theirs, Modern::new()).unwrap();
    let unmarked = [1_u32, 16, 0, 0].map(u32::to_ne_bytes).concat();
    let rights = [descriptor()];
    let raw = rights.each_ref().map(AsRawFd::as_raw_fd);
    sendmsg::<()>(
        ours.as_raw_fd(),
        &[IoSlice::new(&unmarked)],
        &[ControlMessage::ScmRights(&raw)],
        MsgFlags::empty(),
        None,
    )
    .unwrap();
    without_allocation(|| {
        channel.rx.allow_descriptors();
        assert!(channel.rx.recv().unwrap().is_some());
        for _ in 0..2 {
            assert!(matches!(
                channel.rx.recv(),
                Err(RecvError::Protocol(imsg_os::Error::Descriptor(_)))
            ));
        }
        assert!(matches!(channel.rx.read(), Err(RecvError::Protocol(_))));
    });
}

#[cfg(feature = "tokio")]
#[test]
fn a_channel_that_is_awaited_does_not_allocate() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let (mut one, mut other) = imsg_os::tokio::Channel::pair(Modern::new()).unwrap();
        other.rx.allow_descriptors();
        let descriptors: [_; 100] = std::array::from_fn(|_| descriptor());
        let before = ALLOCATIONS.get();
        let sending = async {
            for descriptor in descriptors {
                one.tx.reserve(10_000).await.unwrap();
                one.tx.compose(Header::new(1), &[0_u8; 10_000], Some(descriptor)).unwrap();
            }
            one.tx.flush().await.unwrap();
            drop(one);
        };
        let receiving = async {
            let mut received = 0;
            while let Some(message) = other.rx.recv().await.unwrap() {
                assert!(matches!(message.descriptor, Descriptor::Here(_)));
                received += 1;
            }
            received
        };
        let ((), received) = tokio::join!(sending, receiving);
        assert_eq!(ALLOCATIONS.get() - before, 0, "allocations");
        assert_eq!(received, 100);
    });
}

#[test]
fn a_wait_for_no_more_than_before_does_not_allocate() {
    let (channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    peer.tx.compose(Header::new(1), b"", None).unwrap();
    peer.tx.flush().unwrap();
    let mut poll = Poll::new();
    let mut round = || {
        let mut waits = poll.begin();
        waits.channel(&channel, &Turn::new(0));
        waits.readable(&peer.rx);
        waits.wait().unwrap();
        assert!(poll.is_readable(&channel) && !poll.is_readable(&peer.rx));
    };
    round();
    without_allocation(round);
}
