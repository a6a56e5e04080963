//! What the library says of headers and streams, where all of them can be tried, against the rule
//! that is stated in [`front`] and [`dialects`], from the bytes alone.

use std::convert::Infallible;
use std::ops::Range;
use std::ptr;

use imsg_tests::effort::{Sample, in_all, one_in};
use imsg_tests::vectors::{Vector, all};
use imsg_wire::{
    Ancillary, Any, BadLength, DEFAULT_MAX_LEN, Descriptor, Detected, Endian, Error, Frame, Header,
    Messages, Missing, RecvBuf, Split, split,
};

const DIALECTS: [Any; 4] = [
    Any::Classic(Endian::Little),
    Any::Classic(Endian::Big),
    Any::Modern(Endian::Little),
    Any::Modern(Endian::Big),
];

// ---- The rule

/// What is at the front of `bytes`: a message, nothing whole yet, or a header to be refused.
fn front(dialect: Any, bytes: &[u8], max_len: usize) -> Result<Option<Split<'_>>, BadLength> {
    if bytes.len() < 16 {
        return Ok(None);
    }
    let frame = says(dialect, bytes);
    if frame.len < 16 || frame.len > max_len {
        return Err(BadLength { len: frame.len, min: 16, max: max_len });
    }
    if bytes.len() < frame.len {
        return Ok(None);
    }
    Ok(Some((frame, &bytes[16..frame.len], &bytes[frame.len..])))
}

/// What a header says.
fn says(dialect: Any, raw: &[u8]) -> Frame {
    let byte = |at: usize| u32::from(raw[at]);
    let little = |at: usize| {
        byte(at) + 0x100 * byte(at + 1) + 0x1_0000 * byte(at + 2) + 0x100_0000 * byte(at + 3)
    };
    let big = |at: usize| {
        0x100_0000 * byte(at) + 0x1_0000 * byte(at + 1) + 0x100 * byte(at + 2) + byte(at + 3)
    };
    let (len, marked) = match dialect {
        Any::Classic(Endian::Little) => (byte(4) + 0x100 * byte(5), byte(6) % 2 == 1),
        Any::Classic(Endian::Big) => (0x100 * byte(4) + byte(5), byte(7) % 2 == 1),
        Any::Modern(Endian::Little) => (little(4) % 0x8000_0000, byte(7) >= 0x80),
        Any::Modern(Endian::Big) => (big(4) % 0x8000_0000, byte(4) >= 0x80),
    };
    let (msg_type, id, pid) = match dialect {
        Any::Classic(Endian::Little) | Any::Modern(Endian::Little) => {
            (little(0), little(8), little(12))
        }
        Any::Classic(Endian::Big) | Any::Modern(Endian::Big) => (big(0), big(8), big(12)),
    };
    Frame { header: Header { msg_type, id, pid }, len: len as usize, marked }
}

/// Which dialects may have written a header.
fn dialects(raw: &[u8; 16], order: Endian, max_len: u16) -> Detected {
    let fits = |len: u16| len >= 16 && len <= max_len;
    match order {
        Endian::Little => {
            let (low, high) = (u16::from_le_bytes([raw[4], raw[5]]), [raw[6], raw[7]]);
            match high {
                [0, 0] if fits(low) => Detected::Either,
                [1, 0] if fits(low) => Detected::Classic,
                [0, 0x80] if fits(low) => Detected::Modern,
                _ => Detected::Contradicts,
            }
        }
        Endian::Big => {
            let first = u16::from_be_bytes([raw[4], raw[5]]);
            let second = u16::from_be_bytes([raw[6], raw[7]]);
            match (first, second) {
                (0 | 0x8000, len) if fits(len) => Detected::Modern,
                (len, 0 | 1) if fits(len) => Detected::Classic,
                _ => Detected::Contradicts,
            }
        }
    }
}

// ---- All headers

#[test]
fn split_follows_the_rule_for_all_values_of_either_half_of_the_length_word() {
    let count = for_all_headers(&[16, DEFAULT_MAX_LEN, 0xffff, 0x7fff_ffff], compare_split);
    assert_eq!(count, 4 * in_all(WORDS) * 4 * 4);
}

#[test]
fn the_iterator_follows_the_rule_for_all_values_of_either_half_of_the_length_word() {
    let count = for_all_headers(&[16, DEFAULT_MAX_LEN, 0xffff, 0x7fff_ffff], compare_iterator);
    assert_eq!(count, 4 * in_all(WORDS) * 4 * 4);
}

#[test]
fn the_receive_buffer_follows_the_rule_for_all_values_of_either_half_of_the_length_word() {
    let mut storage = vec![0; STORAGE];
    let count = for_all_headers(&[16, DEFAULT_MAX_LEN, 0xffff], |dialect, bytes, max_len| {
        let header = bytes.len().min(16);
        storage[..header].copy_from_slice(&bytes[..header]);
        compare_buffer(dialect, bytes, max_len, &mut storage);
    });
    assert_eq!(count, 4 * in_all(WORDS) * 3 * 4);
}

#[test]
fn detection_follows_the_rule_for_all_values_of_either_half_of_the_length_word() {
    let mut count = 0;
    for order in [Endian::Little, Endian::Big] {
        for word in words() {
            let header = header(order, word);
            for max_len in [0, 15, 16, 17, 0x4000, 0xfffe, 0xffff] {
                compare_detection(&header, order, max_len);
                count += 1;
            }
        }
    }
    println!("{count} headers with a maximum");
    assert_eq!(count, 2 * in_all(WORDS) * 7);
}

/// Enough for any message with a length of 16 bits, and more.
const STORAGE: usize = 0x1_0000 + 16;

/// How many [`words`] are, where all are tried.
const WORDS: u64 = 0x1_0000 * 9 * 2;

/// The four bytes of length and mark in two halves: all values of one, each with each of these as
/// the other.
///
/// The rules compare a half with 0, 1, 16, the maximum and 0x8000, and look at its lowest or its
/// highest bit. What they say changes nowhere else, so the other half needs but one value from each
/// interval between those: 0, 1, 2, 16, 0x100 (which is the classic mark in the other byte order),
/// 0x4000 (which is the default maximum, and the bit below the modern mark), 0x8000, 0x8001 (both
/// marks) and 0xffff.
fn words() -> impl Iterator<Item = [u16; 2]> {
    let other = [0, 1, 2, 16, 0x100, 0x4000, 0x8000, 0x8001, 0xffff];
    let pairs = move |half| other.into_iter().flat_map(move |it| [[half, it], [it, half]]);
    (0..=u16::MAX).flat_map(pairs).step_by(one_in())
}

/// No byte is like another in the rest of the header.
fn header(order: Endian, word: [u16; 2]) -> [u8; 16] {
    let [[a, b], [c, d]] = word.map(|half| match order {
        Endian::Little => half.to_le_bytes(),
        Endian::Big => half.to_be_bytes(),
    });
    [0xe0, 0xe1, 0xe2, 0xe3, a, b, c, d, 0xe8, 0xe9, 0xea, 0xeb, 0xec, 0xed, 0xee, 0xef]
}

/// Checks all headers in all dialects: alone, with one byte less than the message has or
/// [`STORAGE`] holds, with all, and with one more.
fn for_all_headers(max_lens: &[usize], mut check: impl FnMut(Any, &[u8], usize)) -> u64 {
    let mut bytes = vec![0; STORAGE];
    let mut count = 0;
    for dialect in DIALECTS {
        for word in words() {
            bytes[..16].copy_from_slice(&header(order(dialect), word));
            let len = says(dialect, &bytes).len.clamp(1, STORAGE - 1);
            for available in [16, len - 1, len, len + 1] {
                for max_len in max_lens {
                    check(dialect, &bytes[..available], *max_len);
                    count += 1;
                }
            }
        }
    }
    println!("{count} headers with a maximum and so many bytes");
    count
}

// ---- All vectors, with all that can happen to them

#[test]
fn split_follows_the_rule_however_a_vector_is_truncated() {
    for_all_truncated_vectors(compare_split);
}

#[test]
fn the_iterator_follows_the_rule_however_a_vector_is_truncated() {
    for_all_truncated_vectors(compare_iterator);
}

#[test]
fn the_receive_buffer_follows_the_rule_however_a_vector_is_truncated() {
    let mut storage = vec![0; STORAGE];
    for_all_truncated_vectors(|dialect, bytes, max_len| {
        storage[..bytes.len()].copy_from_slice(bytes);
        compare_buffer(dialect, bytes, max_len, &mut storage);
    });
}

#[test]
fn split_follows_the_rule_whichever_bit_of_a_header_of_a_vector_flips() {
    for_all_flipped_vectors(compare_split);
}

#[test]
fn the_iterator_follows_the_rule_whichever_bit_of_a_header_of_a_vector_flips() {
    for_all_flipped_vectors(compare_iterator);
}

#[test]
fn the_receive_buffer_follows_the_rule_whichever_bit_of_a_header_of_a_vector_flips() {
    let mut storage = vec![0; STORAGE];
    for_all_flipped_vectors(|dialect, bytes, max_len| {
        storage[..bytes.len()].copy_from_slice(bytes);
        compare_buffer(dialect, bytes, max_len, &mut storage);
    });
}

#[test]
fn detection_follows_the_rule_whichever_bit_of_a_header_of_a_vector_flips() {
    let mut count = 0_u64;
    for vector in all() {
        for start in starts(&vector) {
            for bit in 0..128 {
                let mut header = *vector.bytes[start..].first_chunk().unwrap();
                flip(&mut header, bit);
                for order in [Endian::Little, Endian::Big] {
                    for max_len in [0x4000, 0xffff] {
                        compare_detection(&header, order, max_len);
                        count += 1;
                    }
                }
            }
        }
    }
    println!("{count} flipped headers with a maximum");
    assert_eq!(count, VECTORS * MESSAGES * 128 * 2 * 2);
}

#[test]
fn the_receive_buffer_follows_the_rule_wherever_a_vector_is_split_in_two_reads() {
    let mut storage = vec![0; 2 * STORAGE];
    let mut count = 0_u64;
    for Vector { bytes, dialect, .. } in all() {
        let is_payload = |payload: &[u8], message| payload == &bytes[message];
        for split in (0..=bytes.len()).step_by(one_in()) {
            let mut buffer = RecvBuf::new(dialect, &mut storage[..]);
            let mut at = 0;
            for (start, end) in [(0, split), (split, bytes.len())] {
                let read = &bytes[start..end];
                buffer.spare().expect("room for all")[..read.len()].copy_from_slice(read);
                buffer.commit(read.len(), Ancillary::Nothing).expect("a part of the room");
                at = compare_messages(&mut buffer, dialect, &bytes[..end], at, is_payload);
            }
            compare_end(&mut buffer, dialect, bytes, at);
            count += 1;
        }
    }
    println!("{count} vectors in two reads");
    assert_eq!(count, VECTORS * in_all(LEN + 1));
}

const VECTORS: u64 = 4;

/// The messages of each vector.
const MESSAGES: u64 = 31;

/// The bytes of each vector.
const LEN: u64 = 55546;

/// Checks all beginnings of all vectors, as if they were written in each of the dialects.
fn for_all_truncated_vectors(mut check: impl FnMut(Any, &[u8], usize)) {
    let mut count = 0;
    for vector in all() {
        for dialect in DIALECTS {
            for len in (0..=vector.bytes.len()).step_by(one_in()) {
                check(dialect, &vector.bytes[..len], DEFAULT_MAX_LEN);
                count += 1;
            }
        }
    }
    println!("{count} truncated vectors, each in a dialect");
    assert_eq!(count, VECTORS * 4 * in_all(LEN + 1));
}

/// Checks all vectors with a bit of a header flipped, as if they were written in each of the
/// dialects. The larger maximum lets all messages pass that can be whole.
fn for_all_flipped_vectors(mut check: impl FnMut(Any, &[u8], usize)) {
    let mut count = 0;
    let mut sample = Sample::default();
    for vector in all() {
        let mut bytes = vector.bytes.to_vec();
        let starts = starts(&vector);
        for case in sample.of(starts.len() * 128) {
            let (start, bit) = (starts[case / 128], case % 128);
            flip(&mut bytes[start..], bit);
            for dialect in DIALECTS {
                for max_len in [DEFAULT_MAX_LEN, bytes.len()] {
                    check(dialect, &bytes, max_len);
                    count += 1;
                }
            }
            flip(&mut bytes[start..], bit);
        }
    }
    println!("{count} flipped vectors, each in a dialect, with a maximum");
    assert_eq!(count, in_all(VECTORS * MESSAGES * 128) * 4 * 2);
}

/// Where the messages start.
fn starts(vector: &Vector) -> Vec<usize> {
    let lens = vector.messages.iter().map(|message| 16 + message.payload.len());
    lens.scan(0, |end, len| Some(std::mem::replace(end, *end + len))).collect()
}

fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

// ---- The library, against the rule

fn compare_split(dialect: Any, bytes: &[u8], max_len: usize) {
    let mut unread = bytes;
    loop {
        let expected = front(dialect, unread, max_len);
        let actual = split(&dialect, unread, max_len);
        assert_eq!(places(actual), places(expected), "{dialect:?} {:02x?}", unread.get(..16));
        match expected {
            Ok(Some((_, _, rest))) => unread = rest,
            Ok(None) | Err(_) => return,
        }
    }
}

fn compare_iterator(dialect: Any, bytes: &[u8], max_len: usize) {
    let mut messages = Messages::new(dialect, bytes, max_len);
    let mut unread = bytes;
    loop {
        let offset = (bytes.len() - unread.len()) as u64;
        assert_eq!((messages.offset(), messages.rest().len()), (offset, unread.len()));
        let expected = front(dialect, unread, max_len);
        let wanted = expected.map_err(|error| Error::Length { offset, error });
        let item = messages.next().transpose();
        let actual = item.map(|it| it.map(|(frame, payload)| (frame, payload, messages.rest())));
        assert_eq!(places(actual), places(wanted), "{dialect:?} {:02x?}", unread.get(..16));
        match expected {
            Ok(Some((_, _, rest))) => unread = rest,
            Ok(None) | Err(_) => break,
        }
    }
    assert!(messages.next().is_none());
    let expected = end(dialect, bytes, bytes.len() - unread.len(), max_len);
    assert_eq!(messages.finish(), expected);
    assert_eq!(Messages::new(dialect, bytes, max_len).finish(), expected);
}

/// Reads `bytes` at once, which `storage` begins with: the read does not have to place them there.
fn compare_buffer(dialect: Any, bytes: &[u8], max_len: usize, storage: &mut [u8]) {
    let place = storage.as_ptr();
    let mut buffer = RecvBuf::new(dialect, storage);
    buffer.set_max_len(max_len).expect("a maximum below the storage");
    assert!(buffer.spare().expect("an empty buffer").len() >= bytes.len());
    buffer.commit(bytes.len(), Ancillary::Nothing).expect("a part of the room");
    let at = compare_messages(&mut buffer, dialect, bytes, 0, |payload, message| {
        let start = place.wrapping_add(message.start);
        ptr::eq(payload, ptr::slice_from_raw_parts(start, message.len()))
    });
    compare_end(&mut buffer, dialect, bytes, at);
}

/// Takes all messages that there are in `bytes`, all of which were read, from offset `at` on, and
/// returns where they end. `is_payload(payload, range)` says whether that is what `range` holds.
fn compare_messages(
    buffer: &mut RecvBuf<Any, &mut [u8]>,
    dialect: Any,
    bytes: &[u8],
    mut at: usize,
    is_payload: impl Fn(&[u8], Range<usize>) -> bool,
) -> usize {
    loop {
        let offset = at as u64;
        assert_eq!(buffer.offset(), offset);
        let expected = front(dialect, &bytes[at..], buffer.max_len());
        assert_eq!(buffer.is_ready(), !matches!(expected, Ok(None)));
        match (buffer.next_message(), expected) {
            (Ok(None), Ok(None)) => return at,
            (Err(actual), Err(error)) => {
                assert_eq!(actual, Error::Length { offset, error });
                return at;
            }
            (Ok(Some(message)), Ok(Some((frame, ..)))) => {
                assert_eq!(message.header, frame.header);
                assert_eq!(message.descriptor, not_allowed(frame.marked));
                let end = at + frame.len;
                assert!(is_payload(message.payload, at + 16..end), "{dialect:?} {frame:?}");
                at = end;
            }
            (actual, expected) => panic!("{actual:?} where {expected:?} should be"),
        }
    }
}

/// Ends the stream `bytes`, whose last message taken ends at offset `at`.
fn compare_end(buffer: &mut RecvBuf<Any, &mut [u8]>, dialect: Any, bytes: &[u8], at: usize) {
    let expected = end(dialect, bytes, at, buffer.max_len());
    buffer.finish();
    assert_eq!(buffer.is_ready(), expected.is_err());
    let actual = buffer.next_message().map(|message| assert!(message.is_none()));
    assert_eq!(actual, expected);
}

/// What is wrong with a stream that ends with `bytes`, where no whole message starts at `at`.
fn end(dialect: Any, bytes: &[u8], at: usize, max_len: usize) -> Result<(), Error> {
    let (offset, left) = (at as u64, &bytes[at..]);
    match front(dialect, left, max_len) {
        Err(error) => Err(Error::Length { offset, error }),
        Ok(_) if left.is_empty() => Ok(()),
        Ok(_) => {
            let need = if left.len() < 16 { 16 } else { says(dialect, left).len };
            Err(Error::Truncated { offset, have: left.len(), need })
        }
    }
}

/// No test here allows descriptors, so that a mark shows as this.
fn not_allowed(marked: bool) -> Descriptor<Infallible> {
    if marked { Descriptor::Missing(Missing::NotAllowed) } else { Descriptor::None }
}

/// A [`Split`] with the places of its slices, which compare faster than their contents, and leave
/// less to chance.
type Places = (Frame, *const [u8], *const [u8]);

fn places<E>(split: Result<Option<Split<'_>>, E>) -> Result<Option<Places>, E> {
    let places = |(frame, payload, rest)| (frame, ptr::from_ref(payload), ptr::from_ref(rest));
    split.map(|split| split.map(places))
}

fn compare_detection(header: &[u8; 16], order: Endian, max_len: u16) {
    let actual = Detected::of(header, order, max_len);
    assert_eq!(actual, dialects(header, order, max_len), "{order:?} {max_len} {header:02x?}");
}

fn order(dialect: Any) -> Endian {
    match dialect {
        Any::Classic(order) | Any::Modern(order) => order,
    }
}
