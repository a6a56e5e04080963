//! Single reads and sends, without a channel.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{self, IoSlice, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use imsg_os::raw::{Reader, recv, send, wait_writable};
use imsg_os::{Descriptor, ReadOutcome, RecvError};
use imsg_wire::{Ancillary, Header, Modern, RecvBuf, SendBuf};

fn message(number: u32, payload: &[u8], marked: bool) -> Vec<u8> {
    let mut queue: SendBuf<_, _, ()> =
        SendBuf::with_descriptors(Modern::new(), vec![0; 16 + payload.len()]);
    queue.compose(Header::new(number), payload, marked.then_some(())).unwrap();
    queue.chunk().unwrap().bytes.to_vec()
}

fn buffer() -> RecvBuf<Modern, Vec<u8>, OwnedFd> {
    let mut buffer = RecvBuf::with_descriptors(Modern::new(), vec![0; 256]);
    buffer.allow_descriptors();
    buffer
}

#[test]
fn what_is_sent_in_parts_is_read_as_one_stream_with_its_descriptor() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (marked, unmarked) = (message(1, b"in two parts", true), message(2, b"", false));
    let parts = [&marked[..20], &marked[20..], &[], &unmarked].map(IoSlice::new);
    let file = File::open("/dev/null").unwrap();
    let sent = send(ours.as_fd(), &parts, Some(file.as_fd())).unwrap();
    assert_eq!(sent, marked.len() + unmarked.len());

    let mut buffer = buffer();
    let outcome = Reader::default().read(theirs.as_fd(), &mut buffer).unwrap();
    assert_eq!(outcome, ReadOutcome::Data);
    let first = buffer.next_message().unwrap().unwrap();
    assert_eq!((first.header.msg_type, first.payload), (1, &b"in two parts"[..]));
    assert!(matches!(first.descriptor, Descriptor::Here(_)));
    let second = buffer.next_message().unwrap().unwrap();
    assert!(matches!((second.header.msg_type, second.descriptor), (2, Descriptor::None)));
}

#[test]
fn parts_without_a_descriptor_are_one_stream_too() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let parts = [&b"one"[..], b"", b"two"].map(IoSlice::new);
    assert_eq!(send(ours.as_fd(), &parts, None).unwrap(), 6);
    assert_eq!(send(ours.as_fd(), &parts[..1], None).unwrap(), 3);
    drop(ours);
    let mut read = Vec::new();
    theirs.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"onetwoone");
}

/// Sends until there is no more room, and says how long the last call took.
fn fill(socket: &UnixStream, descriptor: &File) -> Duration {
    let bytes = [0; 4096];
    loop {
        let begin = Instant::now();
        let sent = send(socket.as_fd(), &[IoSlice::new(&bytes)], Some(descriptor.as_fd()));
        if let Err(error) = sent {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            return begin.elapsed();
        }
    }
}

#[test]
fn a_send_with_a_descriptor_waits_up_to_the_time_out_of_the_socket() {
    // More than a wait, which ends each second to look at the socket.
    let timeout = Duration::from_millis(1500);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    ours.set_write_timeout(Some(timeout)).unwrap();
    assert!(fill(&ours, &File::open("/dev/null").unwrap()) >= timeout);
}

#[test]
fn a_socket_that_does_not_wait_can_be_waited_for() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    fill(&ours, &File::open("/dev/null").unwrap());
    let reader = thread::spawn(move || theirs.read_to_end(&mut Vec::new()));
    wait_writable(ours.as_fd()).unwrap();
    send(ours.as_fd(), &[IoSlice::new(b"a")], None).unwrap();
    drop(ours);
    reader.join().unwrap().unwrap();
}

#[test]
fn a_send_to_a_peer_that_is_gone_is_an_error_and_no_signal() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    for parts in [&[IoSlice::new(b"one")][..], &[IoSlice::new(b"one"), IoSlice::new(b"two")]] {
        assert_eq!(send(ours.as_fd(), parts, None).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn a_descriptor_that_is_not_wanted_is_closed() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut reader, writer) = io::pipe().unwrap();
    send(ours.as_fd(), &[IoSlice::new(b"x")], Some(writer.as_fd())).unwrap();
    drop(writer);
    let (n, ancillary) = recv(theirs.as_fd(), &mut [0; 16], false).unwrap();
    assert!(matches!((n, ancillary), (1, Ancillary::Nothing)));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "no other writer is open");
}

#[test]
fn a_stream_is_read_by_any_call() {
    let bytes = message(3, b"from anywhere", false);
    let (mut buffer, mut reader) = (buffer(), Reader::default());
    let outcome = reader.read_by(&mut buffer, |spare, descriptors| {
        assert!(descriptors);
        spare[..bytes.len()].copy_from_slice(&bytes);
        Ok((bytes.len(), Ancillary::Nothing))
    });
    assert_eq!(outcome.unwrap(), ReadOutcome::Data);
    assert_eq!(buffer.next_message().unwrap().unwrap().payload, b"from anywhere");
    let failed = reader.read_by(&mut buffer, |_, _| Err(io::ErrorKind::PermissionDenied.into()));
    assert!(matches!(failed, Err(RecvError::Io(_))));
    let ended = reader.read_by(&mut buffer, |_, _| Ok((0, Ancillary::Nothing)));
    assert_eq!(ended.unwrap(), ReadOutcome::Closed);
    assert!(buffer.is_finished());
}
