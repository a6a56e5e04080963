//! The streams of the C implementations, decoded, and encoded again.

use imsg_tests::vectors::{Recorded, Vector, all};
use imsg_wire::{
    Ancillary, Any, Classic, Descriptor, Detected, Dialect, Endian, Error, HEADER_LEN, Message,
    Messages, Modern, RecvBuf, SendBuf, split,
};
use zerocopy::{BigEndian, LittleEndian};

/// Calls `$check` with the dialect of `$vector` as a type of its own.
macro_rules! typed {
    ($check:ident, $vector:expr) => {
        match $vector.dialect {
            Any::Classic(Endian::Little) => $check(Classic::<LittleEndian>::default(), $vector),
            Any::Classic(Endian::Big) => $check(Classic::<BigEndian>::default(), $vector),
            Any::Modern(Endian::Little) => $check(Modern::<LittleEndian>::default(), $vector),
            Any::Modern(Endian::Big) => $check(Modern::<BigEndian>::default(), $vector),
        }
    };
}

#[test]
fn split_reads_what_c_wrote_in_a_typed_dialect() {
    for vector in all() {
        assert_same(&vector, typed!(with_split, &vector));
    }
}

#[test]
fn split_reads_what_c_wrote_in_a_dialect_chosen_at_run_time() {
    for vector in all() {
        assert_same(&vector, with_split(vector.dialect, &vector));
    }
}

#[test]
fn the_iterator_reads_what_c_wrote_in_a_typed_dialect() {
    for vector in all() {
        assert_same(&vector, typed!(with_iterator, &vector));
    }
}

#[test]
fn the_iterator_reads_what_c_wrote_in_a_dialect_chosen_at_run_time() {
    for vector in all() {
        assert_same(&vector, with_iterator(vector.dialect, &vector));
    }
}

#[test]
fn the_iterator_tells_where_each_message_starts() {
    for vector in all() {
        let mut messages = Messages::new(vector.dialect, vector.bytes, vector.bytes.len());
        let mut start = 0;
        while let Some(message) = messages.next() {
            start += message.expect("a message").0.len;
            assert_eq!(messages.offset(), start as u64, "{}", vector.name);
        }
    }
}

#[test]
fn the_iterator_tells_a_whole_stream_from_one_that_was_cut_off() {
    for vector in all() {
        let len = vector.bytes.len();
        let end = |bytes| Messages::new(vector.dialect, bytes, len).finish();
        assert_eq!(end(vector.bytes), Ok(()), "{}", vector.name);
        assert_eq!(end(&[]), Ok(()), "{}", vector.name);

        let need = HEADER_LEN + vector.messages.last().expect("a message").payload.len();
        let (offset, have) = ((len - need) as u64, need - 1);
        let cut = Err(Error::Truncated { offset, have, need });
        assert_eq!(end(&vector.bytes[..len - 1]), cut, "{}", vector.name);
    }
}

#[test]
fn an_error_that_the_iterator_returned_is_there_when_it_is_finished() {
    let mut messages = Messages::new(Modern::new(), &[0; 16], 64);
    let error = messages.next().expect("an item").expect_err("a length of 0");
    assert_eq!(messages.finish(), Err(error));
}

#[test]
fn the_receive_buffer_reads_what_c_wrote_in_a_typed_dialect() {
    for vector in all() {
        assert_same(&vector, typed!(with_receive_buffer, &vector));
    }
}

#[test]
fn the_receive_buffer_reads_what_c_wrote_in_a_dialect_chosen_at_run_time() {
    for vector in all() {
        assert_same(&vector, with_receive_buffer(vector.dialect, &vector));
    }
}

#[test]
fn the_send_buffer_writes_what_c_wrote_in_a_typed_dialect() {
    for vector in all() {
        assert!(typed!(written, &vector) == vector.bytes, "{}", vector.name);
    }
}

#[test]
fn the_send_buffer_writes_what_c_wrote_in_a_dialect_chosen_at_run_time() {
    for vector in all() {
        assert!(written(vector.dialect, &vector) == vector.bytes, "{}", vector.name);
    }
}

#[test]
fn this_machine_reads_and_writes_what_c_wrote_on_one_of_its_byte_order() {
    let native: Vec<_> = all().into_iter().filter(|v| order(v) == Endian::NATIVE).collect();
    assert_eq!(native.len(), 2);
    for vector in &native {
        let (read, bytes) = match vector.dialect {
            Any::Classic(_) => {
                (with_receive_buffer(Classic::new(), vector), written(Classic::new(), vector))
            }
            Any::Modern(_) => {
                (with_receive_buffer(Modern::new(), vector), written(Modern::new(), vector))
            }
        };
        assert_same(vector, read);
        assert!(bytes == vector.bytes, "{}", vector.name);
    }
}

#[test]
fn each_header_tells_its_dialect_unless_both_write_the_same_bytes() {
    for vector in all() {
        let detected: Vec<_> = headers(&vector).map(|header| detect(&vector, &header)).collect();
        let expected: Vec<_> =
            vector.messages.iter().map(|message| expected_detection(&vector, message)).collect();
        assert_eq!(detected, expected, "{}", vector.name);
    }
}

#[test]
fn a_smaller_maximum_makes_the_longest_message_contradict() {
    for vector in all() {
        let longest = headers(&vector).nth(longest_message(&vector)).expect("there are messages");
        let max_len = longest_len(&vector) - 1;
        let detected = Detected::of(&longest, order(&vector), max_len);
        assert_eq!(detected, Detected::Contradicts, "{}", vector.name);
    }
}

/// The largest message of the C library's default; the vectors were made with that.
const MAX_LEN: usize = 16384;

/// Compares field by field, without printing kilobytes of payload.
#[track_caller]
fn assert_same(vector: &Vector, messages: Vec<Recorded>) {
    let name = vector.name;
    assert_eq!(messages.len(), vector.messages.len(), "{name}: the number of messages");
    for (at, (actual, expected)) in messages.iter().zip(&vector.messages).enumerate() {
        assert_eq!(actual.header, expected.header, "{name}: the header of message {at}");
        assert!(actual.payload == expected.payload, "{name}: the payload of message {at}");
        assert_eq!(
            actual.carries_descriptor, expected.carries_descriptor,
            "{name}: the descriptor of message {at}"
        );
    }
}

fn with_split<D: Dialect>(dialect: D, vector: &Vector) -> Vec<Recorded> {
    let mut messages = Vec::new();
    let mut unread = vector.bytes;
    while let Some((frame, payload, rest)) = split(&dialect, unread, MAX_LEN).expect("a length") {
        messages.push(Recorded {
            header: frame.header,
            payload: payload.to_vec(),
            carries_descriptor: frame.marked,
        });
        unread = rest;
    }
    assert!(unread.is_empty(), "{}: bytes are left over", vector.name);
    messages
}

fn with_iterator<D: Dialect>(dialect: D, vector: &Vector) -> Vec<Recorded> {
    let mut messages = Messages::new(dialect, vector.bytes, MAX_LEN);
    let recorded = messages.by_ref().map(|item| {
        let (frame, payload) = item.expect("a message");
        let payload = payload.to_vec();
        Recorded { header: frame.header, payload, carries_descriptor: frame.marked }
    });
    let recorded = recorded.collect();
    assert!(messages.rest().is_empty(), "{}: bytes are left over", vector.name);
    recorded
}

/// Receives each message in two reads; a descriptor is the number of the message that it was sent
/// with, and comes with the first half.
fn with_receive_buffer<D: Dialect>(dialect: D, vector: &Vector) -> Vec<Recorded> {
    let mut received: RecvBuf<D, Vec<u8>, usize> =
        RecvBuf::with_descriptors(dialect, vec![0; 3 * MAX_LEN]);
    received.allow_descriptors();
    let mut messages = Vec::new();
    let mut stream = vector.bytes;
    for (at, message) in vector.messages.iter().enumerate() {
        let (bytes, rest) = stream.split_at(HEADER_LEN + message.payload.len());
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let descriptor =
            if message.carries_descriptor { Ancillary::One(at) } else { Ancillary::Nothing };
        for (bytes, ancillary) in [(first, descriptor), (second, Ancillary::Nothing)] {
            let spare = received.spare().expect("room for a message");
            spare[..bytes.len()].copy_from_slice(bytes);
            received.commit(bytes.len(), ancillary).expect("a part of the room");
        }
        messages.extend(received.messages().map(|item| recorded(at, item.expect("a message"))));
        stream = rest;
    }
    received.finish();
    assert!(!received.is_ready(), "{}: something is left over", vector.name);
    messages
}

fn recorded(at: usize, message: Message<'_, usize>) -> Recorded {
    let carries_descriptor = match message.descriptor {
        Descriptor::None => false,
        Descriptor::Here(descriptor) => descriptor == at,
        Descriptor::Missing(why) => panic!("message {at} lacks its descriptor: {why:?}"),
    };
    Recorded { header: message.header, payload: message.payload.to_vec(), carries_descriptor }
}

fn written<D: Dialect>(dialect: D, vector: &Vector) -> Vec<u8> {
    let mut queue: SendBuf<D, Vec<u8>, ()> =
        SendBuf::with_descriptors(dialect, vec![0; vector.bytes.len()]);
    for message in &vector.messages {
        let descriptor = message.carries_descriptor.then_some(());
        queue.compose(message.header, &message.payload[..], descriptor).expect("room for all");
    }
    let mut stream = Vec::new();
    while let Some(chunk) = queue.chunk() {
        let n = chunk.bytes.len();
        stream.extend_from_slice(chunk.bytes);
        queue.consume(n).expect("the chunk offered");
    }
    stream
}

fn headers(vector: &Vector) -> impl Iterator<Item = [u8; HEADER_LEN]> {
    vector.messages.iter().scan(vector.bytes, |stream, message| {
        let header = *stream.first_chunk().expect("a header");
        *stream = &stream[HEADER_LEN + message.payload.len()..];
        Some(header)
    })
}

fn detect(vector: &Vector, header: &[u8; HEADER_LEN]) -> Detected {
    Detected::of(header, order(vector), u16::MAX)
}

fn expected_detection(vector: &Vector, message: &Recorded) -> Detected {
    match vector.dialect {
        _ if order(vector) == Endian::Little && !message.carries_descriptor => Detected::Either,
        Any::Classic(_) => Detected::Classic,
        Any::Modern(_) => Detected::Modern,
    }
}

fn order(vector: &Vector) -> Endian {
    match vector.dialect {
        Any::Classic(order) | Any::Modern(order) => order,
    }
}

fn longest_message(vector: &Vector) -> usize {
    let lengths = vector.messages.iter().map(|message| message.payload.len());
    lengths.enumerate().max_by_key(|(_, len)| *len).expect("there are messages").0
}

fn longest_len(vector: &Vector) -> u16 {
    let len = HEADER_LEN + vector.messages[longest_message(vector)].payload.len();
    u16::try_from(len).expect("a length of 16 bits")
}
