//! `Wiping`: no byte of a secret stays in memory when its message is done with.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use imsg_tests::effort::cases;
use imsg_wire::{
    Ancillary, Header, Modern, NoRoom, OwnedMessage, RecvBuf, SendBuf, Storage, Wiping,
};
use proptest::collection::vec;
use proptest::prelude::*;

const SECRET: &[u8] = b"correct horse battery staple";

const HEADER: usize = 16;

// ---- The receive buffer

#[test]
fn a_received_secret_is_there_while_its_message_may_be_borrowed() {
    let (mut buf, memory) = receive_buffer(128);
    receive(&mut buf, &message(SECRET));
    buf.next_message().expect("a good message").expect("a whole message");
    buf.is_ready();
    assert!(memory.has(SECRET));
}

#[test]
fn a_received_secret_is_gone_before_the_next_read() {
    let (mut buf, memory) = receive_buffer(128);
    receive(&mut buf, &message(SECRET));
    buf.next_message().expect("a good message").expect("a whole message");
    buf.spare().expect("room");
    buf.is_ready();
    assert!(!memory.has_any_of(SECRET));
}

#[test]
fn the_header_of_a_received_secret_is_gone_before_the_next_read() {
    let (mut buf, memory) = receive_buffer(128);
    receive(&mut buf, &message(SECRET));
    buf.next_message().expect("a good message").expect("a whole message");
    buf.spare().expect("room");
    buf.is_ready();
    assert_eq!(memory.bytes(), [0; 128]);
}

#[test]
fn a_received_secret_is_gone_though_the_buffer_is_full() {
    let len = HEADER + SECRET.len();
    let (mut buf, memory) = receive_buffer(3 * len);
    let other = message(b"abcdefghijklmnopqrstuvwxyz..");
    receive(&mut buf, &[&message(SECRET)[..], &other, &other].concat());
    buf.next_message().expect("a good message").expect("a whole message");
    assert_eq!(buf.spare().map(|spare| spare.len()), Err(NoRoom::Full));
    buf.is_ready();
    assert_eq!(memory.bytes()[..len], [0; HEADER + SECRET.len()]);
}

#[test]
fn a_message_that_was_not_taken_is_not_wiped() {
    let (mut buf, _) = receive_buffer(128);
    receive(&mut buf, &[message(b"first"), message(SECRET)].concat());
    buf.next_message().expect("a good message").expect("a whole message");
    buf.spare().expect("room");
    let message = buf.next_message().expect("a good message").expect("a whole message");
    assert_eq!(message.payload, SECRET);
}

#[test]
fn a_part_of_a_secret_leaves_no_copy_where_it_was_moved_from() {
    let (mut buf, memory) = receive_buffer(256);
    let (part, _) = SECRET.split_at(20);
    receive(&mut buf, &[message(&[b'.'; 100]), message(SECRET)[..HEADER + 20].to_vec()].concat());
    buf.next_message().expect("a good message").expect("a whole message");
    buf.spare().expect("room");
    buf.is_ready();
    assert_eq!(memory.count(part), 1);
    assert_eq!(memory.bytes()[HEADER + 20..], [0; 256 - HEADER - 20]);
}

#[test]
fn a_part_of_a_secret_that_was_moved_by_less_than_its_length_leaves_no_copy() {
    let (mut buf, memory) = receive_buffer(128);
    receive(&mut buf, &[message(b""), message(SECRET)[..HEADER + 20].to_vec()].concat());
    buf.next_message().expect("a good message").expect("a whole message");
    buf.spare().expect("room");
    buf.is_ready();
    assert_eq!(memory.bytes()[HEADER + 20..], [0; 128 - HEADER - 20]);
}

#[test]
fn a_secret_whose_part_was_moved_is_received_whole() {
    let (mut buf, _) = receive_buffer(128);
    let (part, rest) = SECRET.split_at(20);
    receive(&mut buf, &[message(b""), message(SECRET)[..HEADER + part.len()].to_vec()].concat());
    buf.next_message().expect("a good message").expect("a whole message");
    receive(&mut buf, rest);
    let message = buf.next_message().expect("a good message").expect("a whole message");
    assert_eq!(message.payload, SECRET);
}

#[test]
fn the_storage_of_a_receive_buffer_is_given_back_without_its_secrets() {
    let (mut buf, _) = receive_buffer(128);
    receive(&mut buf, &message(SECRET));
    assert_eq!(buf.into_storage().bytes(), [0; 128]);
}

#[test]
fn a_dropped_receive_buffer_leaves_no_secrets() {
    let (mut buf, memory) = receive_buffer(128);
    receive(&mut buf, &message(SECRET));
    drop(buf);
    assert_eq!(memory.bytes(), [0; 128]);
}

#[test]
fn a_receive_buffer_dropped_in_a_message_leaves_no_secrets() {
    let mut memory = [0; 128];
    let mut buf = RecvBuf::new(Modern::new(), Wiping::new(&mut memory[..]));
    receive(&mut buf, &message(SECRET)[..HEADER + 5]);
    drop(buf);
    assert_eq!(memory, [0; 128]);
}

// ---- The send buffer

#[test]
fn a_queued_secret_is_there_until_it_was_sent() {
    let (mut queue, memory) = send_buffer(128);
    queue.compose(Header::new(1), SECRET, None).expect("an empty queue");
    queue.chunk();
    assert!(memory.has(SECRET));
}

#[test]
fn a_sent_secret_is_gone() {
    let (mut queue, memory) = send_buffer(128);
    queue.compose(Header::new(1), SECRET, None).expect("an empty queue");
    queue.consume(HEADER + SECRET.len()).expect("what is queued");
    queue.chunk();
    assert_eq!(memory.bytes(), [0; 128]);
}

#[test]
fn the_part_of_a_secret_that_was_sent_is_gone() {
    let (mut queue, memory) = send_buffer(128);
    queue.compose(Header::new(1), SECRET, None).expect("an empty queue");
    queue.consume(HEADER + 10).expect("a part of what is queued");
    queue.chunk();
    assert_eq!(memory.bytes()[..HEADER + 10], [0; HEADER + 10]);
}

#[test]
fn the_part_of_a_secret_that_was_not_sent_is_not_wiped() {
    let (mut queue, _) = send_buffer(128);
    queue.compose(Header::new(1), SECRET, None).expect("an empty queue");
    queue.consume(HEADER + 10).expect("a part of what is queued");
    assert_eq!(queue.chunk().expect("the rest").bytes, &SECRET[10..]);
}

#[test]
fn a_queued_secret_leaves_no_copy_where_it_was_moved_from() {
    let (mut queue, memory) = send_buffer(128);
    queue.compose(Header::new(1), &[b'.'; 48][..], None).expect("an empty queue");
    queue.compose(Header::new(2), SECRET, None).expect("64 bytes are free");
    queue.consume(64).expect("the first message");
    queue.compose(Header::new(3), &[b'.'; 40][..], None).expect("64 bytes were sent");
    let end = queue.chunk().expect("two messages").bytes.len();
    assert_eq!(memory.count(SECRET), 1);
    assert_eq!(memory.bytes()[end..], vec![0; 128 - end]);
}

#[test]
fn a_secret_in_place_that_was_sent_is_gone() {
    let (mut queue, memory) = send_buffer(128);
    let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
    writer.add(SECRET).expect("room");
    writer.close();
    queue.consume(HEADER + SECRET.len()).expect("what is queued");
    queue.chunk();
    assert_eq!(memory.bytes(), [0; 128]);
}

#[test]
fn a_secret_in_place_that_was_given_up_is_gone_with_the_next_message() {
    let (mut queue, memory) = send_buffer(128);
    let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
    writer.add(SECRET).expect("room");
    writer.abandon();
    queue.compose(Header::new(2), b"", None).expect("an empty queue");
    queue.chunk();
    assert_eq!(memory.bytes()[HEADER..], [0; 128 - HEADER]);
}

#[test]
fn a_secret_in_place_that_was_dropped_is_gone_with_the_next_message() {
    let (mut queue, memory) = send_buffer(128);
    queue.compose(Header::new(1), b"queued", None).expect("an empty queue");
    {
        let mut writer = queue.create(Header::new(1), None).expect("room for a header");
        writer.add(SECRET).expect("room");
    }
    queue.compose(Header::new(2), b"", None).expect("room for a header");
    queue.chunk();
    assert!(!memory.has_any_of(SECRET));
}

#[test]
fn a_secret_in_place_that_was_given_up_is_gone_with_the_next_in_place() {
    let (mut queue, memory) = send_buffer(128);
    let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
    writer.add(SECRET).expect("room");
    writer.abandon();
    queue.create(Header::new(2), None).expect("an empty queue").close();
    queue.chunk();
    assert_eq!(memory.bytes()[HEADER..], [0; 128 - HEADER]);
}

#[test]
fn a_secret_in_place_that_was_given_up_is_gone_though_the_next_message_is_refused() {
    let (mut queue, memory) = send_buffer(128);
    queue.compose(Header::new(1), &[b'.'; 48][..], None).expect("an empty queue");
    let mut writer = queue.create(Header::new(2), None).expect("64 bytes are free");
    writer.add(SECRET).expect("room");
    writer.abandon();
    queue.compose(Header::new(3), &[b'.'; 49][..], None).expect_err("48 bytes are free");
    queue.chunk();
    assert!(!memory.has_any_of(SECRET));
}

#[test]
fn a_secret_in_place_that_was_given_up_is_gone_though_the_queue_was_sent_before() {
    let (mut queue, memory) = send_buffer(128);
    queue.compose(Header::new(1), &[b'.'; 48][..], None).expect("an empty queue");
    let mut writer = queue.create(Header::new(2), None).expect("64 bytes are free");
    writer.add(SECRET).expect("room");
    writer.abandon();
    queue.consume(64).expect("what is queued");
    queue.compose(Header::new(3), b"", None).expect("an empty queue");
    queue.chunk();
    assert!(!memory.has_any_of(SECRET));
}

#[test]
fn a_secret_that_was_cut_off_is_gone_when_its_message_is_closed() {
    let (mut queue, memory) = send_buffer(128);
    let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
    writer.add(SECRET).expect("room");
    writer.truncate(0).expect("less than was written");
    writer.close();
    queue.chunk();
    assert_eq!(memory.bytes()[HEADER..], [0; 128 - HEADER]);
}

#[test]
fn a_secret_sent_with_a_lent_descriptor_is_gone() {
    let (mut queue, memory) = send_buffer(128);
    let lent = queue.lend(Header::new(1), SECRET).expect("an empty queue");
    lent.sent(HEADER + SECRET.len()).expect("all of it");
    queue.chunk();
    assert_eq!(memory.bytes(), [0; 128]);
}

#[test]
fn the_part_of_a_secret_that_was_sent_with_a_lent_descriptor_is_gone() {
    let (mut queue, memory) = send_buffer(128);
    let lent = queue.lend(Header::new(1), SECRET).expect("an empty queue");
    lent.sent(HEADER + 10).expect("a part of it");
    let left = SECRET.len() - 10;
    assert_eq!(queue.chunk().expect("the rest").bytes, &SECRET[10..]);
    assert_eq!(memory.bytes()[left..], vec![0; 128 - left]);
}

#[test]
fn a_secret_that_was_not_sent_with_a_lent_descriptor_is_gone_with_the_next_message() {
    for n in [0, HEADER + SECRET.len() + 1] {
        let (mut queue, memory) = send_buffer(128);
        let lent = queue.lend(Header::new(1), SECRET).expect("an empty queue");
        let _ = lent.sent(n);
        queue.compose(Header::new(2), b"", None).expect("an empty queue");
        queue.chunk();
        assert_eq!(memory.bytes()[HEADER..], [0; 128 - HEADER], "{n} bytes sent");
    }
}

#[test]
fn a_secret_that_is_sent_from_where_it_is_never_is_in_the_storage() {
    let (mut queue, memory) = send_buffer(128);
    let mut message = queue.gather(Header::new(1), SECRET, None).expect("an empty queue");
    message.consume(HEADER + SECRET.len()).expect("all of it");
    drop(message);
    assert_eq!(memory.bytes(), [0; 128]);
}

#[test]
fn a_secret_that_was_given_up_is_gone_when_another_message_is_sent_from_where_it_is() {
    let give_up = |queue: &mut SendBuf<_, _, _, 16>| {
        let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
        writer.add(SECRET).expect("room");
    };
    let (mut queue, memory) = send_buffer(128);
    give_up(&mut queue);
    let _ = queue.gather(Header::new(1), b"", None).expect("room").consume(HEADER);
    queue.chunk();
    assert_eq!(memory.bytes(), [0; 128], "gathered");
    give_up(&mut queue);
    let _ = queue.lend(Header::new(1), b"").expect("an empty queue").sent(HEADER);
    queue.chunk();
    assert_eq!(memory.bytes(), [0; 128], "lent");
}

#[test]
fn the_storage_of_a_send_buffer_is_given_back_without_its_secrets() {
    let (mut queue, _) = send_buffer(128);
    queue.compose(Header::new(1), SECRET, None).expect("an empty queue");
    assert_eq!(queue.into_storage().bytes(), [0; 128]);
}

#[test]
fn the_storage_of_a_send_buffer_is_given_back_without_what_was_given_up() {
    let (mut queue, _) = send_buffer(128);
    let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
    writer.add(SECRET).expect("room");
    writer.abandon();
    assert_eq!(queue.into_storage().bytes(), [0; 128]);
}

#[test]
fn a_dropped_send_buffer_leaves_no_secrets() {
    let (mut queue, memory) = send_buffer(128);
    queue.compose(Header::new(1), SECRET, None).expect("an empty queue");
    drop(queue);
    assert_eq!(memory.bytes(), [0; 128]);
}

#[test]
fn a_dropped_send_buffer_leaves_nothing_that_was_given_up() {
    let mut memory = [0; 128];
    let mut queue = SendBuf::new(Modern::new(), Wiping::new(&mut memory[..]));
    let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
    writer.add(SECRET).expect("room");
    writer.abandon();
    drop(queue);
    assert_eq!(memory, [0; 128]);
}

// ---- From one to the other

#[test]
fn a_forwarded_secret_is_gone_from_both_buffers() {
    let (mut buf, received) = receive_buffer(128);
    let (mut queue, queued) = send_buffer(128);
    receive(&mut buf, &message(SECRET));
    let message = buf.next_message().expect("a good message").expect("a whole message");
    queue.forward(&message, None).expect("an empty queue");
    buf.spare().expect("room");
    queue.consume(HEADER + SECRET.len()).expect("what is queued");
    buf.is_ready();
    queue.chunk();
    assert_eq!((received.bytes(), queued.bytes()), (vec![0; 128], vec![0; 128]));
}

#[test]
fn a_secret_that_was_kept_is_gone_from_the_receive_buffer() {
    let (mut buf, memory) = receive_buffer(128);
    receive(&mut buf, &message(SECRET));
    let message = buf.next_message().expect("a good message").expect("a whole message");
    let kept = OwnedMessage::<64>::try_from(message).expect("at most 64 bytes");
    buf.spare().expect("room");
    buf.is_ready();
    assert!(!memory.has_any_of(SECRET));
    assert_eq!(kept.payload(), SECRET);
}

#[test]
fn a_storage_inside_is_told_what_was_released() {
    let (mut queue, memory) = send_buffer(128);
    queue.compose(Header::new(1), SECRET, None).expect("an empty queue");
    queue.consume(HEADER).expect("a part of what is queued");
    assert!(memory.was_released(0..HEADER));
}

// ---- Random traffic
//
// All bytes of a message but its length are the message's own marker, so each byte of a storage
// tells whose it is. Lengths, and the mark, have no byte that is a marker.

const FIRST_MARKER: u8 = 0x81;

const STORAGE: usize = 0x7f;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(600)))]

    #[test]
    fn a_receive_buffer_holds_the_bytes_that_were_not_taken_and_no_others(
        payloads in vec(0..48_usize, 1..40),
        steps in vec((1..STORAGE, 0..4_usize), 1..120),
    ) {
        let stream: Vec<u8> = (FIRST_MARKER..).zip(&payloads).flat_map(marked_message).collect();
        let (mut buf, memory) = receive_buffer(STORAGE);
        let (mut received, mut taken) = (0, 0);
        for (most, takes) in steps {
            match buf.spare() {
                Ok(spare) => {
                    let n = most.min(spare.len()).min(stream.len() - received);
                    spare[..n].copy_from_slice(&stream[received..][..n]);
                    buf.commit(n, Ancillary::Nothing).expect("what was lent");
                    received += n;
                }
                Err(error) => prop_assert_eq!(error, NoRoom::Full),
            }
            buf.is_ready();
            prop_assert_eq!(memory.markers(), markers(&stream[taken..received]));
            for message in buf.messages().take(takes) {
                taken += HEADER + message.expect("a good message").payload.len();
            }
        }
    }

    #[test]
    fn a_send_buffer_holds_the_bytes_that_were_not_sent_and_no_others(
        steps in vec(step(), 1..120),
    ) {
        let (mut queue, memory) = send_buffer(STORAGE);
        let mut queued = Vec::new();
        let mut given_up = false;
        for (step, marker) in steps.into_iter().zip(FIRST_MARKER..) {
            let header = marked_header(marker);
            match step {
                Step::Compose(len) => {
                    let composed = queue.compose(header, &vec![marker; len][..], None);
                    if composed.is_ok() {
                        queued.extend(marked_message((marker, &len)));
                    }
                    given_up &= composed.is_err();
                }
                Step::InPlace { len, cut, close } => {
                    let Ok(mut writer) = queue.create(header, None) else {
                        continue;
                    };
                    let len = len.min(writer.remaining());
                    let cut = cut.min(len);
                    writer.add(&vec![marker; len][..]).expect("what remains");
                    writer.truncate(len - cut).expect("less than was written");
                    given_up = !close;
                    if close {
                        writer.close();
                        queued.extend(marked_message((marker, &(len - cut))));
                    }
                }
                Step::Lend { len, sent } => {
                    let payload = vec![marker; len];
                    let Ok(lent) = queue.lend(header, &payload[..]) else {
                        continue;
                    };
                    let sent = sent.min(HEADER + len);
                    lent.sent(sent).expect("no more than there is");
                    if sent > 0 {
                        queued.extend(marked_message((marker, &len)).split_off(sent));
                    }
                }
                Step::Consume(most) => {
                    let n = most.min(queued.len());
                    queue.consume(n).expect("what is queued");
                    queued.drain(..n);
                }
            }
            let chunk = queue.chunk().map(|chunk| chunk.bytes).unwrap_or_default();
            prop_assert_eq!(markers(chunk), markers(&queued));
            if !given_up {
                prop_assert_eq!(memory.markers(), markers(&queued));
            }
        }
    }

    #[test]
    fn a_relay_holds_the_bytes_on_their_way_and_no_others(
        payloads in vec(0..16_usize, 1..80),
        steps in vec((1..STORAGE, 1..STORAGE), 1..120),
    ) {
        let stream: Vec<u8> = (FIRST_MARKER..).zip(&payloads).flat_map(marked_message).collect();
        let (mut buf, in_memory) = receive_buffer(STORAGE);
        let (mut queue, out_memory) = send_buffer(STORAGE);
        let (mut received, mut forwarded, mut sent) = (0, 0, 0);
        for (read, write) in steps {
            if let Ok(spare) = buf.spare() {
                let n = read.min(spare.len()).min(stream.len() - received);
                spare[..n].copy_from_slice(&stream[received..][..n]);
                buf.commit(n, Ancillary::Nothing).expect("what was lent");
                received += n;
            }
            buf.is_ready();
            prop_assert_eq!(in_memory.markers(), markers(&stream[forwarded..received]));
            // More than half of the storage is never queued, so nothing is refused.
            while queue.queue_bytes() + HEADER + 16 <= STORAGE / 2
                && let Some(message) = buf.next_message().expect("good messages")
            {
                queue.forward(&message, None).expect("room");
                forwarded += HEADER + message.payload.len();
            }
            let n = write.min(queue.queue_bytes());
            queue.consume(n).expect("what is queued");
            sent += n;
            queue.chunk();
            prop_assert_eq!(out_memory.markers(), markers(&stream[sent..forwarded]));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Compose(usize),
    InPlace { len: usize, cut: usize, close: bool },
    Lend { len: usize, sent: usize },
    Consume(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..64_usize).prop_map(Step::Compose),
        3 => (0..64_usize, 0..32_usize, any::<bool>())
            .prop_map(|(len, cut, close)| Step::InPlace { len, cut, close }),
        2 => (0..64_usize, 0..64_usize).prop_map(|(len, sent)| Step::Lend { len, sent }),
        4 => (0..STORAGE).prop_map(Step::Consume),
    ]
}

fn marked_header(marker: u8) -> Header {
    let field = u32::from_ne_bytes([marker; 4]);
    Header { msg_type: field, id: field, pid: field }
}

fn marked_message((marker, payload): (u8, &usize)) -> Vec<u8> {
    let mut queue = SendBuf::new(Modern::new(), [0; STORAGE]);
    let payload = vec![marker; *payload];
    queue.compose(marked_header(marker), &payload[..], None).expect("an empty queue");
    queue.chunk().expect("a message").bytes.to_vec()
}

/// The bytes that are markers, in order.
fn markers(bytes: &[u8]) -> Vec<u8> {
    let mut markers: Vec<u8> = bytes.iter().copied().filter(|it| *it >= FIRST_MARKER).collect();
    markers.sort_unstable();
    markers
}

// ---- Looking into memory

/// A storage whose bytes are seen from outside: as they were when they were last lent to be read,
/// or when it was dropped.
///
/// `RecvBuf::is_ready` and `SendBuf::chunk` ask for the bytes without changing anything.
struct Watched {
    bytes: Vec<u8>,
    memory: Memory,
}

#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Seen>>);

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    released: Vec<Range<usize>>,
}

impl Storage for Watched {
    fn bytes(&self) -> &[u8] {
        self.memory.0.borrow_mut().bytes.clone_from(&self.bytes);
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn release(&mut self, range: Range<usize>) {
        self.memory.0.borrow_mut().released.push(range);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.bytes();
    }
}

impl Memory {
    fn bytes(&self) -> Vec<u8> {
        self.0.borrow().bytes.clone()
    }

    fn markers(&self) -> Vec<u8> {
        markers(&self.0.borrow().bytes)
    }

    fn was_released(&self, range: Range<usize>) -> bool {
        self.0.borrow().released.contains(&range)
    }

    fn count(&self, needle: &[u8]) -> usize {
        self.0.borrow().bytes.windows(needle.len()).filter(|window| *window == needle).count()
    }

    fn has(&self, needle: &[u8]) -> bool {
        self.count(needle) > 0
    }

    /// Whether three bytes in a row are left.
    fn has_any_of(&self, secret: &[u8]) -> bool {
        secret.windows(3).any(|part| self.has(part))
    }
}

fn watched(len: usize) -> (Wiping<Watched>, Memory) {
    let memory = Memory::default();
    (Wiping::new(Watched { bytes: vec![0; len], memory: memory.clone() }), memory)
}

fn receive_buffer(len: usize) -> (RecvBuf<Modern, Wiping<Watched>>, Memory) {
    let (storage, memory) = watched(len);
    (RecvBuf::with_descriptors(Modern::new(), storage), memory)
}

fn send_buffer(len: usize) -> (SendBuf<Modern, Wiping<Watched>>, Memory) {
    let (storage, memory) = watched(len);
    (SendBuf::with_descriptors(Modern::new(), storage), memory)
}

fn message(payload: &[u8]) -> Vec<u8> {
    let mut queue = SendBuf::new(Modern::new(), [0; 256]);
    queue.compose(Header::new(1), payload, None).expect("an empty queue");
    queue.chunk().expect("a message").bytes.to_vec()
}

fn receive<S: Storage>(buf: &mut RecvBuf<Modern, S>, bytes: &[u8]) {
    buf.spare().expect("room")[..bytes.len()].copy_from_slice(bytes);
    buf.commit(bytes.len(), Ancillary::Nothing).expect("what was lent");
}

/// Wipes what it is told to release, and does not forgive a range that is not its own.
struct Strict(Vec<u8>);

impl Storage for Strict {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn release(&mut self, range: std::ops::Range<usize>) {
        self.0[range].fill(0);
    }
}

#[test]
fn what_is_released_is_always_a_range_of_the_storage() {
    let mut queue = SendBuf::new(Modern::new(), Strict(vec![0; 100]));
    let mut received = RecvBuf::new(Modern::new(), Strict(vec![0; 100]));
    for round in 0..200 {
        while queue.compose(Header::new(1), &[7_u8; 9][..round % 10], None).is_ok() {}
        let _ = queue.create(Header::new(1), None).map(|mut message| message.add(b"given up"));
        if let (Some(chunk), Ok(spare)) = (queue.chunk(), received.spare()) {
            let n = chunk.bytes.len().min(spare.len()).min(1 + round % 37);
            spare[..n].copy_from_slice(&chunk.bytes[..n]);
            received.commit(n, Ancillary::Nothing).unwrap();
            queue.consume(n).unwrap();
        }
        while received.next_message().unwrap().is_some() {}
    }
    queue.into_storage();
    received.into_storage();
}
