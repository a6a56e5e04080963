//! A framing of a program's own, as rpki-client has for its internal messages, in the same buffers
//! and on the same channel.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::net::UnixStream;

use imsg_os::{Channel, RecvError};
use imsg_tests::effort::cases;
use imsg_wire::testing::kernel::{Kernel, Socket};
use imsg_wire::testing::shim::Shim;
use imsg_wire::{
    Ancillary, BadLength, Descriptor, Dialect, Error, Fault, Frame, Header, Messages, Missing,
    Pairing, Reason, RecvBuf, SendBuf, Violation, split,
};
use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::byteorder::native_endian::U64;

/// A header of eight bytes: the length, whose top bit is the descriptor mark.
#[derive(Clone, Copy, Debug)]
struct LengthOnly;

const MARK: u64 = 1 << 63;

impl Dialect for LengthOnly {
    type Raw = U64;

    fn decode(&self, raw: &U64) -> Frame {
        let len = usize::try_from(raw.get() & !MARK).unwrap_or(usize::MAX);
        Frame { header: Header::default(), len, marked: raw.get() & MARK != 0 }
    }

    fn encode(&self, frame: &Frame) -> U64 {
        U64::new(frame.len as u64 | if frame.marked { MARK } else { 0 })
    }

    fn max_len(&self) -> usize {
        usize::try_from(!MARK).unwrap_or(usize::MAX)
    }

    fn pairing(&self) -> Pairing {
        Pairing::Exact
    }
}

/// The bytes of a header.
const HEADER: usize = 8;

/// The messages have neither type nor id nor pid.
const NONE: Header = Header { msg_type: 0, id: 0, pid: 0 };

// ---- Bytes

#[test]
fn a_message_is_its_length_and_its_payload() {
    let mut queue = SendBuf::new(LengthOnly, [0; 64]);
    queue.compose(NONE, b"payload", None).expect("an empty queue");
    let expected = [&15_u64.to_ne_bytes()[..], b"payload"].concat();
    assert_eq!(queue.chunk().expect("a message").bytes, expected);
}

#[test]
fn a_message_with_a_descriptor_is_marked_in_the_top_bit() {
    let mut queue: SendBuf<_, _, ()> = SendBuf::with_descriptors(LengthOnly, [0; 64]);
    queue.compose(NONE, b"", Some(())).expect("an empty queue");
    assert_eq!(queue.chunk().expect("a message").bytes, (MARK | 8).to_ne_bytes());
}

#[test]
fn the_fields_that_the_header_does_not_have_are_not_sent() {
    let mut queue = SendBuf::new(LengthOnly, [0; 64]);
    queue.set_pid(3);
    queue.compose(Header { msg_type: 1, id: 2, pid: 0 }, b"", None).expect("an empty queue");
    assert_eq!(queue.chunk().expect("a message").bytes, 8_u64.to_ne_bytes());
}

#[test]
fn a_message_in_place_has_all_but_the_short_header() {
    let mut queue = SendBuf::new(LengthOnly, [0; 64]);
    let writer = queue.create(NONE, None).expect("an empty queue");
    assert_eq!(writer.remaining(), 64 - HEADER);
}

#[test]
fn a_message_in_place_states_its_length() {
    let mut queue: SendBuf<_, _, ()> = SendBuf::with_descriptors(LengthOnly, [0; 64]);
    let mut writer = queue.create(NONE, Some(())).expect("an empty queue");
    writer.add(b"payload").expect("room for seven");
    writer.close();
    let expected = [&(MARK | 15).to_ne_bytes()[..], b"payload"].concat();
    assert_eq!(queue.chunk().expect("a message").bytes, expected);
}

#[test]
fn a_message_with_a_lent_descriptor_states_its_length() {
    let mut queue = SendBuf::new(LengthOnly, [0; 64]);
    let lent = queue.lend(NONE, b"payload").expect("an empty queue");
    let expected = [&(MARK | 15).to_ne_bytes()[..], b"payload"].concat();
    assert_eq!(lent.parts().concat(), expected);
}

#[test]
fn a_message_fills_a_storage_but_for_the_short_header() {
    let mut queue = SendBuf::new(LengthOnly, [0; 64]);
    assert_eq!(queue.compose(NONE, &[0_u8; 56], None), Ok(()));
}

#[test]
fn a_message_that_is_too_long_is_refused() {
    let mut queue = SendBuf::new(LengthOnly, [0; 64]);
    let refused = queue.compose(NONE, &[0_u8; 57], None).expect_err("one byte too many");
    assert_eq!(refused.reason, Reason::TooLong { len: 65, max: 64 });
}

#[test]
fn the_maximum_is_a_short_header_at_least() {
    let mut queue = SendBuf::new(LengthOnly, [0; 64]);
    let mut received = RecvBuf::new(LengthOnly, [0; 64]);
    let refused = BadLength { len: HEADER - 1, min: HEADER, max: 64 };
    assert_eq!(queue.set_max_len(HEADER - 1), Err(refused));
    assert_eq!(received.set_max_len(HEADER - 1), Err(refused));
    assert_eq!((queue.set_max_len(HEADER), received.set_max_len(HEADER)), (Ok(()), Ok(())));
}

#[test]
fn a_partly_sent_message_is_counted_until_its_last_byte() {
    let mut queue = SendBuf::new(LengthOnly, [0; 64]);
    queue.compose(NONE, b"abc", None).expect("an empty queue");
    queue.compose(NONE, b"", None).expect("room");
    let lens = [10, 1, 7, 1].map(|n| {
        queue.consume(n).expect("what is queued");
        queue.queue_len()
    });
    assert_eq!(lens, [2, 1, 1, 0]);
}

#[test]
fn a_slice_of_messages_is_split() {
    let bytes = [&9_u64.to_ne_bytes()[..], b"a", &10_u64.to_ne_bytes(), b"bc"].concat();
    let messages = Messages::new(LengthOnly, &bytes, 64);
    let payloads: Vec<_> = messages.map(|item| item.expect("good lengths").1).collect();
    assert_eq!(payloads, [&b"a"[..], b"bc"]);
}

// ---- Bad lengths

#[test]
fn a_length_of_a_header_and_one_of_the_maximum_are_good() {
    for len in [8, 64] {
        assert_eq!(received(len), Ok(()), "{len}");
        assert_eq!(received(len | MARK), Ok(()), "{len} with a descriptor");
    }
}

#[test]
fn a_length_below_that_of_a_header_is_bad() {
    for len in [0, 7] {
        assert_eq!(received(len), bad_length(len), "{len}");
        assert_eq!(received(len | MARK), bad_length(len), "{len} with a descriptor");
    }
}

#[test]
fn a_length_above_the_maximum_is_bad() {
    for len in [65, u64::from(u32::MAX), !MARK] {
        assert_eq!(received(len), bad_length(len), "{len}");
        assert_eq!(received(len | MARK), bad_length(len), "{len} with a descriptor");
    }
}

#[test]
fn a_bad_length_is_known_without_a_buffer() {
    for len in [0, 7, 65, !MARK] {
        let error = split(&LengthOnly, &len.to_ne_bytes(), 64).map(drop).expect_err("a bad length");
        assert_eq!(error, BadLength { len: len as usize, min: 8, max: 64 });
    }
}

#[test]
fn the_largest_length_is_incomplete_where_every_length_is_allowed() {
    let bytes = u64::MAX.to_ne_bytes();
    assert_eq!(split(&LengthOnly, &bytes, usize::MAX), Ok(None));
}

#[test]
fn a_stream_may_not_end_inside_of_a_short_header() {
    let mut buf = RecvBuf::new(LengthOnly, [0; 64]);
    buf.spare().expect("room");
    buf.commit(7, Ancillary::Nothing).expect("what was lent");
    buf.finish();
    let error = buf.next_message().expect_err("seven bytes of eight");
    assert_eq!(error, Error::Truncated { offset: 0, have: 7, need: 8 });
}

// ---- Pairing

#[test]
fn a_descriptor_without_a_mark_is_unclaimed() {
    let mut buf = receiver();
    receive(&mut buf, &8_u64.to_ne_bytes(), Ancillary::One(1));
    buf.next_message().expect("a good message").expect("a whole message");
    let violation = Violation { fault: Fault::Unclaimed, offset: 8 };
    assert_eq!(buf.next_message().expect_err("no mark"), Error::Descriptor(violation));
}

#[test]
fn a_descriptor_with_two_marks_is_ambiguous() {
    let mut buf = receiver();
    receive(&mut buf, &[(MARK | 8).to_ne_bytes(); 2].concat(), Ancillary::One(1));
    let violation = Violation { fault: Fault::Ambiguous, offset: 0 };
    assert_eq!(buf.next_message().expect_err("two marks"), Error::Descriptor(violation));
}

#[test]
fn a_mark_without_a_descriptor_is_reported_with_the_message() {
    let mut buf = receiver();
    receive(&mut buf, &(MARK | 8).to_ne_bytes(), Ancillary::Nothing);
    let message = buf.next_message().expect("a good message").expect("a whole message");
    assert_eq!(message.descriptor, Descriptor::Missing(Missing::NotSent));
}

// ---- Random traffic

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    payload: Vec<u8>,
    descriptor: Option<usize>,
}

/// What happens next on a connection.
#[derive(Clone, Copy, Debug)]
enum Step {
    Compose,
    /// Of what is offered, the kernel takes this many bytes at most, in socket buffers of that
    /// size at most.
    Send(usize, usize),
    Receive(usize),
    Take,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(400)))]

    #[test]
    fn messages_and_descriptors_arrive_as_they_were_sent(
        kernel in prop::sample::select(&Kernel::ALL[..]),
        sent in vec(sent(), 1..30),
        steps in vec(step(), 0..150),
    ) {
        let sent: Vec<Sent> = sent
            .into_iter()
            .enumerate()
            .map(|(at, (payload, with))| Sent { payload, descriptor: with.then_some(at) })
            .collect();
        let mut connection = Connection::new(kernel, &sent);
        for step in steps {
            connection.take(step);
        }
        connection.finish();
        prop_assert_eq!(connection.received, sent);
    }
}

fn sent() -> impl Strategy<Value = (Vec<u8>, bool)> {
    (vec(any::<u8>(), 0..40), prop::bool::weighted(0.4))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Compose),
        3 => (1..100_usize, 1..60_usize).prop_map(|(most, size)| Step::Send(most, size)),
        3 => (1..100_usize).prop_map(Step::Receive),
        2 => Just(Step::Take),
    ]
}

struct Connection<'a> {
    unsent: &'a [Sent],
    queue: SendBuf<LengthOnly, [u8; 128], usize, 4>,
    socket: Socket<usize>,
    shim: Shim,
    buf: RecvBuf<LengthOnly, [u8; 96], usize, 2>,
    received: Vec<Sent>,
}

impl<'a> Connection<'a> {
    fn new(kernel: Kernel, unsent: &'a [Sent]) -> Self {
        let queue = SendBuf::with_descriptors(LengthOnly, [0; 128]);
        let mut buf = RecvBuf::with_descriptors(LengthOnly, [0; 96]);
        buf.allow_descriptors();
        let (socket, shim) = (Socket::new(kernel), Shim::default());
        Self { unsent, queue, socket, shim, buf, received: Vec::new() }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Compose => self.compose(),
            Step::Send(most, size) => self.send(most, size),
            Step::Receive(most) => self.receive(most),
            Step::Take => self.take_messages(),
        }
    }

    /// Goes on until all has arrived, for as many rounds as bytes and descriptors can need.
    fn finish(&mut self) {
        let rounds = 30 * (HEADER + 40);
        for _ in 0..rounds {
            if self.unsent.is_empty() && self.queue.is_empty() && self.socket.is_empty() {
                break;
            }
            for step in [Step::Compose, Step::Send(50, 30), Step::Receive(96), Step::Take] {
                self.take(step);
            }
        }
        self.take_messages();
        self.buf.finish();
        assert!(!self.buf.is_ready(), "nothing is left over");
    }

    fn compose(&mut self) {
        let Some((next, unsent)) = self.unsent.split_first() else {
            return;
        };
        if self.queue.compose(NONE, &next.payload[..], next.descriptor).is_ok() {
            self.unsent = unsent;
        }
    }

    fn send(&mut self, most: usize, size: usize) {
        let Some(chunk) = self.queue.chunk() else {
            return;
        };
        let n = most.min(chunk.bytes.len());
        let descriptors: Vec<usize> = chunk.descriptor.into_iter().copied().collect();
        let sent =
            self.socket.sendmsg(&chunk.bytes[..n], descriptors.clone(), |left| left.min(size));
        assert_eq!(sent, Ok(n));
        let given_back = self.queue.consume(n).expect("what was offered");
        assert_eq!(Vec::from_iter(given_back), descriptors);
    }

    fn receive(&mut self, most: usize) {
        if self.buf.spare().is_ok() {
            let read = self.shim.read(&mut self.socket, &mut self.buf, most, usize::MAX);
            read.expect("an honest peer");
        }
    }

    fn take_messages(&mut self) {
        for message in self.buf.messages() {
            let message = message.expect("an honest peer");
            let descriptor = match message.descriptor {
                Descriptor::None => None,
                Descriptor::Here(descriptor) => Some(descriptor),
                Descriptor::Missing(why) => panic!("a descriptor is missing: {why:?}"),
            };
            self.received.push(Sent { payload: message.payload.to_vec(), descriptor });
        }
    }
}

// ---- A real socket

#[test]
fn a_channel_carries_messages_of_any_dialect() {
    let (mut one, mut other) = Channel::pair(LengthOnly).expect("a socket pair");
    one.tx.compose(NONE, b"request", None).expect("an empty queue");
    one.tx.flush().expect("a connected socket");
    assert_eq!(other.rx.recv().expect("a message").expect("no end").payload, b"request");
}

#[test]
fn a_channel_carries_descriptors_in_any_dialect() {
    let (mut one, mut other) = Channel::pair(LengthOnly).expect("a socket pair");
    other.rx.allow_descriptors();
    one.tx.compose(NONE, b"before", None).expect("an empty queue");
    one.tx.compose(NONE, b"file", Some(file(b"content").into())).expect("room");
    one.tx.compose(NONE, b"behind", None).expect("room");
    one.tx.flush().expect("a connected socket");
    let received: Vec<_> = (0..3)
        .map(|_| {
            let message = other.rx.recv().expect("a message").expect("no end");
            (message.payload.to_vec(), content(message.descriptor))
        })
        .collect();
    let expected = [
        (b"before".to_vec(), None),
        (b"file".to_vec(), Some(b"content".to_vec())),
        (b"behind".to_vec(), None),
    ];
    assert_eq!(received, expected);
}

#[test]
fn a_channel_ends_when_the_peer_is_gone() {
    let (one, mut other) = Channel::pair(LengthOnly).expect("a socket pair");
    drop(one);
    assert!(other.rx.recv().expect("no error").is_none());
}

#[test]
fn a_channel_fails_at_a_bad_length_of_any_dialect() {
    let (mut peer, socket) = UnixStream::pair().expect("a socket pair");
    let mut channel = Channel::new(socket, LengthOnly).expect("a stream socket");
    peer.write_all(&u64::MAX.to_ne_bytes()).expect("a connected socket");
    let error = channel.rx.recv().expect_err("a bad length");
    let max = channel.rx.max_len();
    let bad = BadLength { len: i64::MAX as usize, min: 8, max };
    assert!(
        matches!(error, RecvError::Protocol(Error::Length { offset: 0, error }) if error == bad),
        "{error:?}"
    );
}

// ---- Helpers

/// Whether a receiver of at most 64 bytes takes a message whose length this is.
fn received(len: u64) -> Result<(), Error> {
    let mut buf = RecvBuf::new(LengthOnly, [0; 64]);
    buf.spare().expect("room")[..HEADER].copy_from_slice(&len.to_ne_bytes());
    buf.commit(64, Ancillary::Nothing).expect("what was lent");
    buf.next_message().map(|message| assert!(message.is_some(), "a whole message"))
}

fn bad_length(len: u64) -> Result<(), Error> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    Err(Error::Length { offset: 0, error: BadLength { len, min: HEADER, max: 64 } })
}

fn receiver() -> RecvBuf<LengthOnly, [u8; 64], usize> {
    let mut buf = RecvBuf::with_descriptors(LengthOnly, [0; 64]);
    buf.allow_descriptors();
    buf
}

fn receive(
    buf: &mut RecvBuf<LengthOnly, [u8; 64], usize>,
    bytes: &[u8],
    ancillary: Ancillary<usize>,
) {
    buf.spare().expect("room")[..bytes.len()].copy_from_slice(bytes);
    buf.commit(bytes.len(), ancillary).expect("what was lent");
}

/// An open file with this content, to be read from its start.
fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(content).expect("room for the content");
    file.rewind().expect("a file has a start");
    file
}

fn content(descriptor: Descriptor<std::os::fd::OwnedFd>) -> Option<Vec<u8>> {
    let Descriptor::Here(descriptor) = descriptor else {
        return None;
    };
    let mut content = Vec::new();
    File::from(descriptor).read_to_end(&mut content).expect("an open file");
    Some(content)
}
