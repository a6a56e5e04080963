//! Nothing on a channel allocates once it is made.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use imsg_os::{
    Channel, Classic, Descriptor, Dialect, Header, Missing, Modern, ReadOutcome, Reason, RecvError,
    SendError, WriteOutcome,
};

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
