//! The payload codec: each family of fields at its limits, and against what C wrote.

use std::array;
use std::fmt::Debug;
use std::rc::Rc;

use imsg_tests::vectors::{Recorded, Vector, all};
use imsg_wire::{
    Any, Endian, HEADER_LEN, Header, Modern, ReadError, Reader, Reason, SendBuf, WriteError, Writer,
};
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

// ---- What C built field by field

#[test]
fn a_writer_over_a_slice_builds_the_payload_that_c_built() {
    for vector in native_vectors() {
        let mut buf = [0xff; 64];
        let mut writer = Writer::new(&mut buf);
        build_all_fields(&mut writer).expect("room for all fields");
        assert_eq!(writer.written(), built_by_c(&vector).payload, "{}", vector.name);
    }
}

#[test]
fn a_message_written_in_place_is_the_message_that_c_built() {
    for vector in native_vectors() {
        let message = built_by_c(&vector);
        let mut queue = SendBuf::new(vector.dialect, [0xff; 128]);
        let mut writer = queue.create(message.header, None).expect("an empty queue");
        build_all_fields(&mut writer).expect("room for all fields");
        writer.close();
        let last = vector.bytes.len() - HEADER_LEN - message.payload.len();
        let chunk = queue.chunk().expect("a message is queued");
        assert_eq!(chunk.bytes, &vector.bytes[last..], "{}", vector.name);
    }
}

#[test]
fn a_reader_reads_the_fields_that_c_built() {
    for vector in native_vectors() {
        let payload = built_by_c(&vector).payload;
        let mut reader = Reader::new(&payload);
        assert_eq!(reader.get_n8(), Ok(0x12));
        assert_eq!(reader.get_n16(), Ok(0xbeef));
        assert_eq!(reader.get_n32(), Ok(0x1234_5678));
        assert_eq!(reader.get_n64(), Ok(0x1234_5678_9abc_def0));
        assert_eq!(reader.get_h16(), Ok(0x1234));
        assert_eq!(reader.get_h32(), Ok(0xcafe_f00d));
        assert_eq!(reader.get_h64(), Ok(0x1234_5678_9abc_def0));
        assert_eq!(reader.get(3), Ok(&[0; 3][..]));
        assert_eq!(reader.get_str(4), Ok("imsg"));
        assert_eq!(reader.get_strbuf(8), Ok(c"hello"));
        assert_eq!(reader.expect_end(), Ok(()));
    }
}

#[test]
fn fields_in_network_order_are_built_as_c_of_either_order_builds_them() {
    for vector in all() {
        let mut buf = [0xff; NETWORK_FIELDS];
        let mut writer = Writer::new(&mut buf);
        build_network_fields(&mut writer).expect("room for the fields");
        let payload = built_by_c(&vector).payload;
        assert_eq!(writer.written(), &payload[..NETWORK_FIELDS], "{}", vector.name);
    }
}

#[test]
fn fields_in_network_order_are_read_from_c_of_either_order() {
    for vector in all() {
        let payload = built_by_c(&vector).payload;
        let mut reader = Reader::new(&payload);
        let fields =
            (reader.get_n8(), reader.get_n16(), reader.get_n32(), reader.get_n64(), reader.rest());
        let expected = (
            Ok(0x12),
            Ok(0xbeef),
            Ok(0x1234_5678),
            Ok(0x1234_5678_9abc_def0),
            &payload[NETWORK_FIELDS..],
        );
        assert_eq!(fields, expected, "{}", vector.name);
    }
}

#[test]
fn bytes_and_strings_are_built_as_c_of_either_order_builds_them() {
    for vector in all() {
        let mut buf = [0xff; 3 + 4 + 8];
        let mut writer = Writer::new(&mut buf);
        build_bytes(&mut writer).expect("room for the fields");
        assert!(built_by_c(&vector).payload.ends_with(writer.written()), "{}", vector.name);
    }
}

// ---- Numbers of each width and order

macro_rules! families {
    ($($family:ident $int:ident $bytes:ident $get:ident $add:ident $set:ident;)*) => {$(
        mod $family {
            use super::*;

            const WIDTH: usize = size_of::<$int>();

            const VALUES: [$int; 7] = [
                $int::MIN,
                1,
                $int::MAX / 2,
                $int::MAX / 2 + 1,
                $int::MAX - 1,
                $int::MAX,
                0x0123_4567_89ab_cdef_u64 as $int,
            ];

            #[test]
            fn each_limit_is_added_as_its_bytes() {
                for value in VALUES {
                    let mut buf = [0x5a; WIDTH];
                    let mut writer = Writer::new(&mut buf);
                    assert_eq!(writer.$add(value), Ok(()));
                    assert_eq!(writer.written(), $bytes::<WIDTH>(value.into()), "{value:#x}");
                }
            }

            #[test]
            fn each_limit_is_got_from_its_bytes() {
                for value in VALUES {
                    let bytes = $bytes::<WIDTH>(value.into());
                    assert_eq!(Reader::new(&bytes).$get(), Ok(value));
                }
            }

            #[test]
            fn each_limit_is_set_as_its_bytes() {
                for value in VALUES {
                    let mut buf = [0x5a; WIDTH];
                    let mut writer = zeros(&mut buf);
                    assert_eq!(writer.$set(0, value), Ok(()));
                    assert_eq!(writer.written(), $bytes::<WIDTH>(value.into()), "{value:#x}");
                }
            }

            #[test]
            fn a_get_leaves_what_is_behind_the_number() {
                let bytes = [0x5a; WIDTH + 1];
                let mut reader = Reader::new(&bytes);
                reader.$get().expect("enough bytes");
                assert_eq!(reader.rest(), [0x5a]);
            }

            #[test]
            fn a_get_needs_all_of_its_bytes() {
                let bytes = [0; WIDTH - 1];
                let error = not_read(&mut Reader::new(&bytes), |it| it.$get());
                assert_eq!(error, ReadError::Short { need: WIDTH, have: WIDTH - 1 });
            }

            #[test]
            fn an_add_needs_all_of_its_bytes() {
                let mut buf = [0; WIDTH + 2];
                let mut writer = Writer::new(&mut buf);
                writer.add_zero(3).expect("room for three");
                let error = not_written(&mut writer, |it| it.$add(1));
                assert_eq!(error, WriteError::TooLong { len: WIDTH + 3, max: WIDTH + 2 });
            }

            #[test]
            fn a_set_reaches_the_last_byte_written() {
                let mut buf = [0; WIDTH + 5];
                let mut writer = zeros(&mut buf);
                assert_eq!(writer.$set(5, $int::MAX), Ok(()));
                assert_eq!(writer.written(), [[0; 5].as_slice(), &[0xff; WIDTH]].concat());
            }

            #[test]
            fn a_set_one_byte_further_is_outside() {
                let mut buf = [0; WIDTH + 5];
                let error = not_written(&mut zeros(&mut buf), |it| it.$set(6, $int::MAX));
                let outside = WriteError::Outside { offset: 6, len: WIDTH, written: WIDTH + 5 };
                assert_eq!(error, outside);
            }

            #[test]
            fn a_set_does_not_reach_what_was_not_written() {
                let mut buf = [0; WIDTH + 5];
                let mut writer = Writer::new(&mut buf);
                writer.add_zero(WIDTH - 1).expect("room");
                let error = not_written(&mut writer, |it| it.$set(0, $int::MAX));
                let outside = WriteError::Outside { offset: 0, len: WIDTH, written: WIDTH - 1 };
                assert_eq!(error, outside);
            }
        }
    )*};
}

families! {
    n8 u8 network get_n8 add_n8 set_n8;
    n16 u16 network get_n16 add_n16 set_n16;
    n32 u32 network get_n32 add_n32 set_n32;
    n64 u64 network get_n64 add_n64 set_n64;
    h16 u16 host get_h16 add_h16 set_h16;
    h32 u32 host get_h32 add_h32 set_h32;
    h64 u64 host get_h64 add_h64 set_h64;
}

// ---- Reading at, before and behind the end

/// Everything that reads a number of bytes, and how many it returned.
type Read = fn(&mut Reader<'_>, usize) -> Result<usize, ReadError>;

const READS: &[(&str, Read)] = &[
    ("get", |reader, len| reader.get(len).map(<[u8]>::len)),
    ("get_reader", |reader, len| reader.get_reader(len).map(|it| it.remaining())),
    ("get_slice", |reader, len| reader.get_slice::<u8>(len).map(<[u8]>::len)),
    ("get_str", |reader, len| reader.get_str(len).map(str::len)),
    ("get_strbuf", |reader, len| reader.get_strbuf(len).map(|_| len)),
    ("skip", |reader, len| reader.skip(len).map(|()| len)),
];

/// Everything that looks at a number of bytes and stays where it is.
const LOOKS: &[(&str, Read)] = &[
    ("seek", |reader, len| reader.seek(0, len).map(<[u8]>::len)),
    ("seek ahead", |reader, len| reader.seek(2, len.saturating_sub(2)).map(|it| it.len() + 2)),
    ("truncate", |reader, len| reader.truncate(len).map(|()| reader.remaining())),
];

fn reads_and_looks() -> impl Iterator<Item = &'static (&'static str, Read)> {
    READS.iter().chain(LOOKS)
}

#[test]
fn all_bytes_that_are_left_can_be_read() {
    for (name, read) in reads_and_looks() {
        assert_eq!(read(&mut four_left(), 4), Ok(4), "{name}");
    }
}

#[test]
fn fewer_bytes_than_are_left_can_be_read() {
    for (name, read) in reads_and_looks() {
        assert_eq!(read(&mut four_left(), 3), Ok(3), "{name}");
    }
}

#[test]
fn more_bytes_than_are_left_are_short() {
    for (name, read) in reads_and_looks() {
        let error = not_read(&mut four_left(), |reader| read(reader, 5));
        assert_eq!(error, ReadError::Short { need: 5, have: 4 }, "{name}");
    }
}

#[test]
fn a_length_beyond_all_memory_is_short() {
    for (name, read) in reads_and_looks() {
        let error = not_read(&mut four_left(), |reader| read(reader, usize::MAX));
        assert_eq!(error, ReadError::Short { need: usize::MAX, have: 4 }, "{name}");
    }
}

#[test]
fn a_length_beyond_all_memory_is_short_when_all_was_read() {
    for (name, read) in reads_and_looks() {
        let mut reader = four_left();
        reader.skip(4).expect("four are left");
        let error = not_read(&mut reader, |reader| read(reader, usize::MAX));
        assert_eq!(error, ReadError::Short { need: usize::MAX, have: 0 }, "{name}");
    }
}

#[test]
fn a_read_goes_behind_its_bytes() {
    for (name, read) in READS {
        let mut reader = four_left();
        read(&mut reader, 3).expect("three of four");
        assert_eq!(reader.remaining(), 1, "{name}");
    }
}

#[test]
fn a_get_returns_the_bytes_that_come_next() {
    let mut reader = Reader::new(b"abcdef");
    reader.skip(2).expect("six are left");
    assert_eq!(reader.get(3), Ok(&b"cde"[..]));
}

#[test]
fn an_inner_reader_ends_where_its_bytes_end() {
    let mut inner = Reader::new(b"abcdef").get_reader(3).expect("six are left");
    assert_eq!(inner.get(4), Err(ReadError::Short { need: 4, have: 3 }));
}

#[test]
fn a_rewound_inner_reader_is_at_its_own_start() {
    let mut reader = Reader::new(b"abcdef");
    reader.skip(2).expect("six are left");
    let mut inner = reader.get_reader(3).expect("four are left");
    inner.skip(2).expect("three are left");
    inner.rewind();
    assert_eq!(inner.rest(), b"cde");
}

#[test]
fn a_rewound_reader_is_at_the_start() {
    let mut reader = Reader::new(b"abcdef");
    reader.skip(6).expect("six are left");
    reader.rewind();
    assert_eq!(reader.rest(), b"abcdef");
}

#[test]
fn a_seek_shows_the_last_byte() {
    assert_eq!(Reader::new(b"abcdef").seek(5, 1), Ok(&b"f"[..]));
}

#[test]
fn a_seek_counts_from_what_was_not_read() {
    let mut reader = Reader::new(b"abcdef");
    reader.skip(2).expect("six are left");
    assert_eq!(reader.seek(1, 2), Ok(&b"de"[..]));
}

#[test]
fn a_seek_shows_nothing_at_the_end() {
    assert_eq!(Reader::new(b"abcdef").seek(6, 0), Ok(&b""[..]));
}

#[test]
fn a_seek_behind_the_end_is_short_even_for_nothing() {
    let error = Reader::new(b"abcdef").seek(7, 0);
    assert_eq!(error, Err(ReadError::Short { need: 7, have: 6 }));
}

#[test]
fn a_seek_over_the_end_is_short() {
    let error = Reader::new(b"abcdef").seek(5, 2);
    assert_eq!(error, Err(ReadError::Short { need: 7, have: 6 }));
}

#[test]
fn a_seek_beyond_all_memory_is_short() {
    for (offset, len) in [(usize::MAX, 0), (usize::MAX, 1), (1, usize::MAX)] {
        let error = four_left().seek(offset, len);
        assert_eq!(error, Err(ReadError::Short { need: usize::MAX, have: 4 }));
    }
}

#[test]
fn a_truncated_reader_ends_where_it_was_cut() {
    let mut reader = Reader::new(b"abcdef");
    reader.skip(2).expect("six are left");
    reader.truncate(3).expect("four are left");
    assert_eq!(reader.rest(), b"cde");
}

#[test]
fn a_truncated_reader_can_still_be_rewound() {
    let mut reader = Reader::new(b"abcdef");
    reader.skip(2).expect("six are left");
    reader.truncate(3).expect("four are left");
    reader.rewind();
    assert_eq!(reader.rest(), b"abcde");
}

#[test]
fn the_end_is_reached_when_all_was_read() {
    let mut reader = four_left();
    reader.skip(4).expect("four are left");
    assert_eq!(reader.expect_end(), Ok(()));
}

#[test]
fn the_end_is_not_reached_while_a_byte_is_left() {
    let mut reader = four_left();
    reader.skip(3).expect("four are left");
    assert_eq!(reader.expect_end(), Err(ReadError::Size { expected: 0, have: 1 }));
}

#[test]
fn what_was_read_outlives_the_reader() {
    let payload = *b"abcdef";
    let text = {
        let mut reader = Reader::new(&payload);
        reader.get_str(6).expect("six are left")
    };
    assert_eq!(text, "abcdef");
}

// ---- Reading strings

#[test]
fn a_strbuf_ends_at_its_first_nul() {
    assert_eq!(Reader::new(b"ab\0cd\0").get_strbuf(6), Ok(c"ab"));
}

#[test]
fn a_strbuf_may_be_terminated_by_its_last_byte() {
    assert_eq!(Reader::new(b"abc\0").get_strbuf(4), Ok(c"abc"));
}

#[test]
fn a_strbuf_may_be_empty() {
    assert_eq!(Reader::new(b"\0").get_strbuf(1), Ok(c""));
}

#[test]
fn a_strbuf_is_not_terminated_by_what_is_behind_it() {
    let error = not_read(&mut Reader::new(b"abc\0"), |reader| reader.get_strbuf(3));
    assert_eq!(error, ReadError::Unterminated { len: 3 });
}

#[test]
fn a_strbuf_of_no_bytes_is_not_terminated() {
    let error = not_read(&mut Reader::new(b"abc\0"), |reader| reader.get_strbuf(0));
    assert_eq!(error, ReadError::Unterminated { len: 0 });
}

#[test]
fn a_strbuf_that_is_not_all_there_is_short_though_it_has_a_nul() {
    let error = not_read(&mut Reader::new(b"a\0"), |reader| reader.get_strbuf(3));
    assert_eq!(error, ReadError::Short { need: 3, have: 2 });
}

#[test]
fn a_text_may_have_a_nul_in_it() {
    assert_eq!(Reader::new(b"a\0b").get_str(3), Ok("a\0b"));
}

#[test]
fn a_text_must_not_end_inside_a_character() {
    let error = not_read(&mut Reader::new("aä".as_bytes()), |reader| reader.get_str(2));
    assert_eq!(error, ReadError::NotUtf8);
}

#[test]
fn packed_strings_are_read_one_by_one() {
    let mut reader = Reader::new(b"one\0\0three\0");
    let strings = [reader.get_cstr(), reader.get_cstr(), reader.get_cstr()];
    assert_eq!(strings, [Ok(c"one"), Ok(c""), Ok(c"three")]);
    assert_eq!(reader.expect_end(), Ok(()));
}

#[test]
fn a_packed_string_without_a_nul_is_not_read() {
    let error = not_read(&mut Reader::new(b"three"), |reader| reader.get_cstr());
    assert_eq!(error, ReadError::Unterminated { len: 5 });
}

#[test]
fn there_is_no_packed_string_at_the_end() {
    let error = not_read(&mut Reader::new(b""), |reader| reader.get_cstr());
    assert_eq!(error, ReadError::Unterminated { len: 0 });
}

// ---- Reading values at any alignment

/// As it lies in a C program: needs an alignment of eight.
#[derive(Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Aligned {
    small: u32,
    _padding: u32,
    large: u64,
}

/// The same bytes without an alignment.
#[derive(Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Packed {
    small: U32,
    large: U64,
}

/// A header with bytes behind it.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WithBytes {
    number: U16,
    bytes: [u8],
}

/// A header with numbers behind it.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WithNumbers {
    number: U16,
    numbers: [U32],
}

#[test]
fn an_aligned_value_is_got_from_any_address() {
    let value = Aligned { small: 7, _padding: 0, large: u64::MAX - 1 };
    at_each_alignment(value.as_bytes(), |bytes| {
        assert_eq!(Reader::new(bytes).get_value(), Ok(Aligned { small: 7, _padding: 0, ..value }));
    });
}

#[test]
fn an_aligned_value_is_all_of_the_data_at_any_address() {
    let value = Aligned { small: 7, _padding: 0, large: u64::MAX - 1 };
    at_each_alignment(value.as_bytes(), |bytes| {
        assert_eq!(Reader::new(bytes).data(), Ok(Aligned { small: 7, _padding: 0, ..value }));
    });
}

#[test]
fn an_unaligned_value_is_borrowed_at_any_address() {
    let value = Packed { small: U32::new(7), large: U64::new(u64::MAX - 1) };
    at_each_alignment(value.as_bytes(), |bytes| {
        assert_eq!(Reader::new(bytes).get_ref(), Ok(&value));
    });
}

#[test]
fn a_borrowed_value_lies_in_the_payload() {
    let payload = [0; 12];
    let value: &Packed = Reader::new(&payload).get_ref().expect("enough bytes");
    assert_eq!(value.as_bytes().as_ptr(), payload.as_ptr());
}

#[test]
fn a_slice_of_values_is_borrowed_at_any_address() {
    let values = [U32::new(1), U32::new(u32::MAX), U32::new(3)];
    at_each_alignment(values.as_bytes(), |bytes| {
        assert_eq!(Reader::new(bytes).get_slice(3), Ok(&values[..]));
    });
}

#[test]
fn a_value_with_bytes_behind_it_is_borrowed_at_any_address() {
    at_each_alignment(b"\x12\x34tail", |bytes| {
        let value: &WithBytes = Reader::new(bytes).data_ref().expect("a header and four bytes");
        assert_eq!((value.number.get(), &value.bytes), (0x1234, &b"tail"[..]));
    });
}

#[test]
fn a_value_with_numbers_behind_it_is_borrowed_at_any_address() {
    at_each_alignment(b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x02", |bytes| {
        let value: &WithNumbers = Reader::new(bytes).data_ref().expect("a header and two numbers");
        assert_eq!(value.number.get(), 0x1234);
        assert_eq!(value.numbers, [U32::new(1), U32::new(2)]);
    });
}

#[test]
fn a_value_may_have_nothing_behind_it() {
    let value: &WithBytes = Reader::new(b"\x12\x34").data_ref().expect("a header");
    assert!(value.bytes.is_empty());
}

#[test]
fn a_value_is_no_data_without_its_whole_header() {
    let error = Reader::new(b"\x12").data_ref::<WithBytes>().unwrap_err();
    assert_eq!(error, ReadError::Shape { have: 1 });
}

#[test]
fn a_value_is_no_data_with_a_part_of_a_number_behind_it() {
    let error = Reader::new(&[0; 2 + 7]).data_ref::<WithNumbers>().unwrap_err();
    assert_eq!(error, ReadError::Shape { have: 9 });
}

#[test]
fn a_value_with_a_size_is_borrowed_only_when_it_is_all_of_the_data() {
    for have in [11, 13] {
        let payload = vec![0; have];
        let error = Reader::new(&payload).data_ref::<Packed>().unwrap_err();
        assert_eq!(error, ReadError::Shape { have });
    }
}

#[test]
fn a_value_is_copied_only_when_it_is_all_of_the_data() {
    for have in [11, 13] {
        let payload = vec![0; have];
        let error = Reader::new(&payload).data::<Packed>().unwrap_err();
        assert_eq!(error, ReadError::Size { expected: 12, have });
    }
}

#[test]
fn data_is_what_was_not_read_yet() {
    let mut reader = Reader::new(b"\x01\x02\x03");
    reader.skip(1).expect("three are left");
    assert_eq!(reader.data::<U16>(), Ok(U16::new(0x0203)));
}

#[test]
fn a_value_is_got_when_more_is_behind_it() {
    let mut reader = Reader::new(b"\x01\x02\x03");
    assert_eq!(reader.get_value::<U16>(), Ok(U16::new(0x0102)));
    assert_eq!(reader.rest(), [3]);
}

#[test]
fn a_value_is_borrowed_when_more_is_behind_it() {
    let mut reader = Reader::new(b"\x01\x02\x03");
    assert_eq!(reader.get_ref::<U16>(), Ok(&U16::new(0x0102)));
    assert_eq!(reader.rest(), [3]);
}

#[test]
fn a_slice_of_values_is_borrowed_when_more_is_behind_it() {
    let mut reader = Reader::new(b"\x01\x02\x03");
    assert_eq!(reader.get_slice::<U16>(1), Ok(&[U16::new(0x0102)][..]));
    assert_eq!(reader.rest(), [3]);
}

#[test]
fn a_value_that_is_one_byte_short_is_not_got() {
    let error = not_read(&mut Reader::new(&[0; 15]), |reader| reader.get_value::<Aligned>());
    assert_eq!(error, ReadError::Short { need: 16, have: 15 });
}

#[test]
fn a_value_that_is_one_byte_short_is_not_borrowed() {
    let error = not_read(&mut Reader::new(&[0; 11]), |reader| reader.get_ref::<Packed>());
    assert_eq!(error, ReadError::Short { need: 12, have: 11 });
}

#[test]
fn a_slice_of_values_that_is_one_byte_short_is_not_borrowed() {
    let error = not_read(&mut Reader::new(&[0; 11]), |reader| reader.get_slice::<U32>(3));
    assert_eq!(error, ReadError::Short { need: 12, have: 11 });
}

#[test]
fn a_slice_of_values_beyond_all_memory_is_short() {
    for count in [usize::MAX, usize::MAX / 4 + 1, usize::MAX / 2] {
        let error = not_read(&mut Reader::new(&[0; 8]), |reader| reader.get_slice::<U32>(count));
        assert_eq!(error, ReadError::Short { need: usize::MAX, have: 8 });
    }
}

// ---- Values and lengths of zero bytes

#[test]
fn an_empty_reader_has_any_number_of_empty_fields() {
    let mut reader = Reader::new(b"");
    assert_eq!(reader.get(0), Ok(&b""[..]));
    assert_eq!(reader.get_reader(0), Ok(Reader::new(b"")));
    assert_eq!(reader.get_str(0), Ok(""));
    assert_eq!(reader.seek(0, 0), Ok(&b""[..]));
    assert_eq!(reader.skip(0), Ok(()));
    assert_eq!(reader.truncate(0), Ok(()));
    assert_eq!(reader.expect_end(), Ok(()));
}

#[test]
fn a_value_without_bytes_is_got_anywhere() {
    for payload in [&b""[..], b"abc"] {
        let mut reader = Reader::new(payload);
        assert_eq!(reader.get_value::<()>(), Ok(()));
        assert_eq!(reader.get_value::<[u64; 0]>(), Ok([]));
        assert_eq!(reader.rest(), payload);
    }
}

#[test]
fn a_value_without_bytes_is_borrowed_anywhere() {
    for payload in [&b""[..], b"abc"] {
        let mut reader = Reader::new(payload);
        assert_eq!(reader.get_ref::<()>(), Ok(&()));
        assert_eq!(reader.get_ref::<[U64; 0]>(), Ok(&[]));
        assert_eq!(reader.rest(), payload);
    }
}

#[test]
fn any_number_of_values_without_bytes_is_borrowed_anywhere() {
    for payload in [&b""[..], b"abc"] {
        for count in [0, 1, usize::MAX] {
            let mut reader = Reader::new(payload);
            assert_eq!(reader.get_slice::<()>(count).map(<[()]>::len), Ok(count));
            assert_eq!(reader.rest(), payload);
        }
    }
}

#[test]
fn no_values_are_borrowed_anywhere() {
    assert_eq!(Reader::new(b"").get_slice::<U64>(0), Ok(&[][..]));
}

#[test]
fn a_value_without_bytes_is_all_of_no_data() {
    assert_eq!(Reader::new(b"").data::<()>(), Ok(()));
    assert_eq!(Reader::new(b"").data_ref::<()>(), Ok(&()));
    assert_eq!(Reader::new(b"").data_ref::<[u8]>(), Ok(&[][..]));
}

#[test]
fn a_value_without_bytes_is_not_a_byte_of_data() {
    let reader = Reader::new(b"a");
    assert_eq!(reader.data::<()>(), Err(ReadError::Size { expected: 0, have: 1 }));
    assert_eq!(reader.data_ref::<()>(), Err(ReadError::Shape { have: 1 }));
}

#[test]
fn a_full_writer_takes_any_number_of_empty_fields() {
    let mut buf = [0; 2];
    let mut writer = zeros(&mut buf);
    assert_eq!(writer.add(&()), Ok(()));
    assert_eq!(writer.add(&[0_u64; 0]), Ok(()));
    assert_eq!(writer.add(b""), Ok(()));
    assert_eq!(writer.add_reader(&Reader::new(b"")), Ok(()));
    assert_eq!(writer.add_zero(0), Ok(()));
    assert_eq!(writer.reserve(0).map(|place| place.len()), Ok(0));
    assert_eq!(writer.truncate(2), Ok(()));
    assert_eq!(writer.set_max_len(2), Ok(()));
    assert_eq!(writer.written(), [0, 0]);
}

#[test]
fn a_writer_over_no_bytes_takes_nothing() {
    let mut writer = Writer::new(&mut []);
    assert_eq!((writer.len(), writer.remaining(), writer.is_empty()), (0, 0, true));
    let error = not_written(&mut writer, |writer| writer.add_n8(1));
    assert_eq!(error, WriteError::TooLong { len: 1, max: 0 });
}

#[test]
fn a_value_without_bytes_is_set_up_to_the_end() {
    let mut buf = [0; 2];
    assert_eq!(zeros(&mut buf).set(2, &()), Ok(()));
}

#[test]
fn a_value_without_bytes_is_not_set_behind_the_end() {
    let mut buf = [0; 2];
    let error = not_written(&mut zeros(&mut buf), |writer| writer.set(3, &()));
    assert_eq!(error, WriteError::Outside { offset: 3, len: 0, written: 2 });
}

// ---- Writing at, before and behind the limits

/// Everything that appends any number of bytes.
#[derive(Clone, Copy, Debug)]
enum Add {
    Bytes,
    Reader,
    Zeros,
    Strbuf,
    Reserved,
    ByTruncation,
}

const ADDS: [Add; 6] =
    [Add::Bytes, Add::Reader, Add::Zeros, Add::Strbuf, Add::Reserved, Add::ByTruncation];

impl Add {
    fn to<P>(self, writer: &mut Writer<'_, P>, len: usize) -> Result<(), WriteError> {
        match self {
            Self::Bytes => writer.add(&vec![b'x'; len][..]),
            Self::Reader => writer.add_reader(&Reader::new(&vec![b'x'; len])),
            Self::Zeros => writer.add_zero(len),
            Self::Strbuf => writer.add_strbuf("", len),
            Self::Reserved => writer.reserve(len).map(drop),
            Self::ByTruncation => writer.truncate(writer.len() + len),
        }
    }
}

#[test]
fn a_writer_can_be_filled() {
    for add in ADDS {
        let mut buf = [0xff; 8];
        let mut writer = Writer::new(&mut buf);
        writer.add(b"abc").expect("room for eight");
        assert_eq!(add.to(&mut writer, 5), Ok(()), "{add:?}");
        assert_eq!((writer.len(), writer.remaining()), (8, 0), "{add:?}");
    }
}

#[test]
fn a_writer_can_be_filled_but_for_one_byte() {
    for add in ADDS {
        let mut buf = [0xff; 8];
        let mut writer = Writer::new(&mut buf);
        writer.add(b"abc").expect("room for eight");
        assert_eq!(add.to(&mut writer, 4), Ok(()), "{add:?}");
        assert_eq!((writer.len(), writer.remaining()), (7, 1), "{add:?}");
    }
}

#[test]
fn a_writer_takes_no_more_than_its_bytes() {
    for add in ADDS {
        let mut buf = [0xff; 8];
        let mut writer = Writer::new(&mut buf);
        writer.add(b"abc").expect("room for eight");
        let error = not_written(&mut writer, |writer| add.to(writer, 6));
        assert_eq!(error, WriteError::TooLong { len: 9, max: 8 }, "{add:?}");
    }
}

#[test]
fn a_field_that_is_refused_leaves_the_memory_as_it_was() {
    for add in ADDS {
        let mut buf = [0xff; 8];
        let mut writer = Writer::new(&mut buf);
        writer.add(b"abc").expect("room for eight");
        add.to(&mut writer, 6).unwrap_err();
        assert_eq!(buf, *b"abc\xff\xff\xff\xff\xff", "{add:?}");
    }
}

#[test]
fn a_writer_with_a_lower_maximum_can_be_filled_up_to_that() {
    for add in ADDS {
        let mut buf = [0xff; 8];
        let mut writer = Writer::new(&mut buf);
        writer.add(b"abc").expect("room for eight");
        writer.set_max_len(6).expect("a lower maximum");
        assert_eq!(add.to(&mut writer, 3), Ok(()), "{add:?}");
    }
}

#[test]
fn a_writer_takes_no_more_than_its_lower_maximum() {
    for add in ADDS {
        let mut buf = [0xff; 8];
        let mut writer = Writer::new(&mut buf);
        writer.add(b"abc").expect("room for eight");
        writer.set_max_len(6).expect("a lower maximum");
        let error = not_written(&mut writer, |writer| add.to(writer, 4));
        assert_eq!(error, WriteError::TooLong { len: 7, max: 6 }, "{add:?}");
    }
}

#[test]
fn more_than_all_memory_is_too_long() {
    let mut buf = [0xff; 8];
    let mut writer = Writer::new(&mut buf);
    writer.add(b"abc").expect("room for eight");
    let errors = [
        not_written(&mut writer, |writer| writer.add_zero(usize::MAX)),
        not_written(&mut writer, |writer| writer.reserve(usize::MAX).map(drop)),
        not_written(&mut writer, |writer| writer.add_strbuf("x", usize::MAX)),
        not_written(&mut writer, |writer| writer.truncate(usize::MAX)),
    ];
    assert_eq!(errors, [WriteError::TooLong { len: usize::MAX, max: 8 }; 4]);
}

#[test]
fn a_set_beyond_all_memory_is_outside() {
    let mut buf = [0; 8];
    let error = not_written(&mut zeros(&mut buf), |writer| writer.set(usize::MAX, b"ab"));
    assert_eq!(error, WriteError::Outside { offset: usize::MAX, len: 2, written: 8 });
}

#[test]
fn a_set_overwrites_its_bytes_only() {
    let mut buf = [0; 5];
    let mut writer = zeros(&mut buf);
    writer.set(1, b"abc").expect("bytes that were written");
    assert_eq!(writer.written(), b"\0abc\0");
}

#[test]
fn an_added_value_is_as_it_lies_in_memory() {
    let value = Aligned { small: 7, _padding: 0, large: 9 };
    let mut buf = [0xff; 16];
    let mut writer = Writer::new(&mut buf);
    writer.add(&value).expect("room for the value");
    assert_eq!(writer.written(), value.as_bytes());
}

#[test]
fn an_added_reader_gives_what_it_did_not_read_yet() {
    let mut reader = Reader::new(b"abcdef");
    reader.skip(2).expect("six are left");
    let mut buf = [0; 8];
    let mut writer = Writer::new(&mut buf);
    writer.add_reader(&reader).expect("room for four");
    assert_eq!(writer.written(), b"cdef");
}

#[test]
fn added_zeros_clear_what_was_in_the_memory() {
    let mut buf = [0xff; 4];
    let mut writer = Writer::new(&mut buf);
    writer.add_zero(3).expect("room for three");
    assert_eq!(buf, [0, 0, 0, 0xff]);
}

#[test]
fn reserved_bytes_are_lent_as_zeros() {
    let mut buf = [0xff; 4];
    let mut writer = Writer::new(&mut buf);
    assert_eq!(writer.reserve(3), Ok(&mut [0; 3][..]));
}

#[test]
fn reserved_bytes_can_be_filled() {
    let mut buf = [0xff; 8];
    let mut writer = Writer::new(&mut buf);
    writer.add(b"ab").expect("room for two");
    writer.reserve(3).expect("room for three").copy_from_slice(b"cde");
    assert_eq!(writer.written(), b"abcde");
}

#[test]
fn what_a_truncated_writer_cuts_off_is_cleared() {
    let mut buf = [0xff; 8];
    let mut writer = Writer::new(&mut buf);
    writer.add(b"abcdef").expect("room for six");
    writer.truncate(2).expect("six were written");
    assert_eq!(buf, *b"ab\0\0\0\0\xff\xff");
}

#[test]
fn a_truncated_writer_goes_on_where_it_was_cut() {
    let mut buf = [0xff; 8];
    let mut writer = Writer::new(&mut buf);
    writer.add(b"abcdef").expect("room for six");
    writer.truncate(2).expect("six were written");
    writer.add(b"x").expect("room for one");
    assert_eq!(writer.written(), b"abx");
}

#[test]
fn a_writer_truncated_beyond_its_end_is_extended_with_zeros() {
    for (len, expected) in [(2, &b"ab"[..]), (3, b"ab\0"), (4, b"ab\0\0")] {
        let mut buf = [0xff; 8];
        let mut writer = Writer::new(&mut buf);
        writer.add(b"ab").expect("room for two");
        writer.truncate(len).expect("room for eight");
        assert_eq!(writer.written(), expected);
    }
}

// ---- Writing strings

#[test]
fn a_strbuf_is_padded_with_nul() {
    let mut buf = [0xff; 8];
    let mut writer = Writer::new(&mut buf);
    writer.add_strbuf("abc", 6).expect("room for six");
    assert_eq!(writer.written(), b"abc\0\0\0");
}

#[test]
fn a_strbuf_takes_one_byte_less_than_its_field() {
    let mut buf = [0xff; 8];
    let mut writer = Writer::new(&mut buf);
    writer.add_strbuf("abc", 4).expect("room for four");
    assert_eq!(writer.written(), b"abc\0");
}

#[test]
fn a_strbuf_needs_a_byte_for_its_nul() {
    let mut buf = [0xff; 8];
    let error = not_written(&mut Writer::new(&mut buf), |writer| writer.add_strbuf("abc", 3));
    assert_eq!(error, WriteError::String { len: 3, field: 3 });
}

#[test]
fn a_strbuf_of_no_bytes_takes_no_string() {
    let mut buf = [0xff; 8];
    let error = not_written(&mut Writer::new(&mut buf), |writer| writer.add_strbuf("", 0));
    assert_eq!(error, WriteError::String { len: 0, field: 0 });
}

#[test]
fn a_strbuf_refuses_a_string_with_a_nul_in_it() {
    for string in [&b"\0ab"[..], b"a\0b", b"ab\0"] {
        let mut buf = [0xff; 8];
        let mut writer = Writer::new(&mut buf);
        let error = not_written(&mut writer, |writer| writer.add_strbuf(string, 8));
        assert_eq!(error, WriteError::String { len: 3, field: 8 });
    }
}

#[test]
fn a_strbuf_refuses_a_string_before_it_looks_for_room() {
    let mut buf = [0xff; 2];
    let error = not_written(&mut Writer::new(&mut buf), |writer| writer.add_strbuf("abc", 3));
    assert_eq!(error, WriteError::String { len: 3, field: 3 });
}

#[test]
fn a_refused_string_leaves_the_memory_as_it_was() {
    let mut buf = [0xff; 8];
    Writer::new(&mut buf).add_strbuf("abc", 3).unwrap_err();
    assert_eq!(buf, [0xff; 8]);
}

// ---- The maximum of a writer

#[test]
fn the_maximum_can_be_lowered_to_what_was_written() {
    let mut buf = [0; 8];
    let mut writer = Writer::new(&mut buf);
    writer.add(b"abc").expect("room for three");
    assert_eq!(writer.set_max_len(3), Ok(()));
    assert_eq!(writer.remaining(), 0);
}

#[test]
fn the_maximum_cannot_be_lowered_below_what_was_written() {
    let mut buf = [0; 8];
    let mut writer = Writer::new(&mut buf);
    writer.add(b"abc").expect("room for three");
    let error = not_written(&mut writer, |writer| writer.set_max_len(2));
    assert_eq!(error, WriteError::TooLong { len: 3, max: 2 });
}

#[test]
fn the_maximum_can_be_set_to_what_it_is() {
    let mut buf = [0; 8];
    assert_eq!(Writer::new(&mut buf).set_max_len(8), Ok(()));
}

#[test]
fn the_maximum_cannot_be_raised() {
    for raised in [9, usize::MAX] {
        let mut buf = [0; 8];
        let error = not_written(&mut Writer::new(&mut buf), |writer| writer.set_max_len(raised));
        assert_eq!(error, WriteError::TooLong { len: raised, max: 8 });
    }
}

#[test]
fn a_lowered_maximum_cannot_be_raised_again() {
    let mut buf = [0; 8];
    let mut writer = Writer::new(&mut buf);
    writer.set_max_len(5).expect("a lower maximum");
    let error = not_written(&mut writer, |writer| writer.set_max_len(6));
    assert_eq!(error, WriteError::TooLong { len: 6, max: 5 });
}

// ---- Messages written in place

type Queue = SendBuf<Modern, [u8; 64], Rc<()>, 2>;

#[test]
fn a_message_in_place_can_have_all_of_an_empty_queue() {
    for add in ADDS {
        let mut queue = queue();
        let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
        assert_eq!(add.to(&mut writer, 48), Ok(()), "{add:?}");
        writer.close();
        assert_eq!(queue.queue_bytes(), 64, "{add:?}");
    }
}

#[test]
fn a_message_in_place_beyond_the_maximum_is_too_long() {
    for add in ADDS {
        let mut queue = queue();
        let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
        let error = not_written(&mut writer, |writer| add.to(writer, 49));
        assert_eq!(error, WriteError::TooLong { len: 49, max: 48 }, "{add:?}");
    }
}

#[test]
fn the_maximum_of_the_queue_is_that_of_a_message_in_place() {
    for add in ADDS {
        let mut queue = queue();
        queue.set_max_len(30).unwrap();
        let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
        assert_eq!(writer.remaining(), 14, "{add:?}");
        let error = not_written(&mut writer, |writer| add.to(writer, 15));
        assert_eq!(error, WriteError::TooLong { len: 15, max: 14 }, "{add:?}");
    }
}

#[test]
fn a_message_in_place_can_fill_the_queue() {
    for add in ADDS {
        let mut queue = queue_with_32_bytes_free();
        let mut writer = queue.create(Header::new(1), None).expect("room for a header");
        assert_eq!(add.to(&mut writer, 16), Ok(()), "{add:?}");
        writer.close();
        assert_eq!(queue.queue_bytes(), 64, "{add:?}");
    }
}

#[test]
fn a_message_in_place_that_fits_an_empty_queue_only_finds_it_full() {
    for add in ADDS {
        let mut queue = queue_with_32_bytes_free();
        let mut writer = queue.create(Header::new(1), None).expect("room for a header");
        writer.add(b"abc").expect("room for three");
        let error = not_written(&mut writer, |writer| add.to(writer, 14));
        assert_eq!(error, WriteError::Full { len: 14, free: 13 }, "{add:?}");
    }
}

#[test]
fn a_message_in_place_that_never_fits_is_too_long_in_a_full_queue_too() {
    for add in ADDS {
        let mut queue = queue_with_32_bytes_free();
        let mut writer = queue.create(Header::new(1), None).expect("room for a header");
        let error = not_written(&mut writer, |writer| add.to(writer, 49));
        assert_eq!(error, WriteError::TooLong { len: 49, max: 48 }, "{add:?}");
    }
}

#[test]
fn what_remains_in_place_is_what_the_queue_has_free() {
    let mut queue = queue_with_32_bytes_free();
    let writer = queue.create(Header::new(1), None).expect("room for a header");
    assert_eq!(writer.remaining(), 16);
}

#[test]
fn what_found_the_queue_full_fits_when_it_was_sent() {
    let mut queue = queue_with_32_bytes_free();
    queue.consume(32).expect("what is queued");
    let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
    assert_eq!(writer.add_zero(48), Ok(()));
}

#[test]
fn a_message_in_place_has_no_bytes_of_what_was_queued_before() {
    let mut queue = queue();
    queue.compose(Header::new(1), &[0xff_u8; 48], None).expect("an empty queue");
    queue.consume(64).expect("what is queued");
    let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
    writer.reserve(8).expect("room for eight");
    writer.close();
    assert_eq!(queue.chunk().expect("a message").bytes[HEADER_LEN..], [0; 8]);
}

#[test]
fn a_lower_maximum_ends_with_the_message() {
    let mut queue = queue();
    let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
    writer.set_max_len(4).expect("a lower maximum");
    writer.close();
    let writer = queue.create(Header::new(2), None).expect("room for a header");
    assert_eq!(writer.remaining(), 32);
}

#[test]
fn a_message_in_place_without_a_payload_can_be_closed() {
    let mut queue = queue();
    queue.create(Header::new(1), None).expect("an empty queue").close();
    assert_eq!((queue.queue_len(), queue.queue_bytes()), (1, 16));
}

#[test]
fn a_message_in_place_without_room_for_a_header_gives_its_descriptor_back() {
    let mut queue = queue();
    queue.compose(Header::new(1), &[0_u8; 33], None).expect("an empty queue");
    let refused = queue.create(Header::new(2), Some(Rc::new(()))).expect_err("15 bytes are free");
    assert_eq!(refused.reason, Reason::Full { len: 16, free: 15 });
    assert!(refused.descriptor.is_some());
}

#[test]
fn a_message_in_place_with_one_descriptor_too_many_gives_it_back() {
    let mut queue = queue();
    for _ in 0..2 {
        queue.create(Header::new(1), Some(Rc::new(()))).expect("room for two").close();
    }
    let refused = queue.create(Header::new(2), Some(Rc::new(()))).expect_err("two are queued");
    assert_eq!(refused.reason, Reason::DescriptorsFull);
    assert!(refused.descriptor.is_some());
}

#[test]
fn a_closed_message_keeps_its_descriptor() {
    let descriptor = Rc::new(());
    let mut queue = queue();
    let message = queue.create(Header::new(1), Some(Rc::clone(&descriptor)));
    message.expect("an empty queue").close();
    assert_eq!(Rc::strong_count(&descriptor), 2);
    assert_eq!(queue.chunk().and_then(|chunk| chunk.descriptor), Some(&descriptor));
}

#[test]
fn an_abandoned_message_gives_its_descriptor_back() {
    let descriptor = Rc::new(());
    let mut queue = queue();
    let message = queue.create(Header::new(1), Some(Rc::clone(&descriptor)));
    let given_back = message.expect("an empty queue").abandon().expect("the descriptor");
    assert!(Rc::ptr_eq(&given_back, &descriptor));
}

#[test]
fn an_abandoned_message_without_a_descriptor_gives_none_back() {
    let mut queue = queue();
    assert_eq!(queue.create(Header::new(1), None).expect("an empty queue").abandon(), None);
}

#[test]
fn a_dropped_message_drops_its_descriptor() {
    let descriptor = Rc::new(());
    let mut queue = queue();
    drop(queue.create(Header::new(1), Some(Rc::clone(&descriptor))).expect("an empty queue"));
    assert_eq!(Rc::strong_count(&descriptor), 1);
}

#[test]
fn a_message_that_is_given_up_leaves_the_queue_as_it_was() {
    let mut queue = queue();
    queue.compose(Header::new(1), b"queued", None).expect("an empty queue");
    let before = queue.chunk().expect("a message").bytes.to_vec();
    let mut dropped = queue.create(Header::new(2), Some(Rc::new(()))).expect("room for a header");
    dropped.add(b"given up").expect("room for eight");
    drop(dropped);
    let mut abandoned = queue.create(Header::new(3), None).expect("room for a header");
    abandoned.add(b"given up").expect("room for eight");
    abandoned.abandon();
    assert_eq!(queue.queue_len(), 1);
    assert_eq!(queue.chunk().expect("a message").bytes, before);
}

#[test]
fn a_message_that_is_given_up_makes_room_for_the_next() {
    let mut queue = queue();
    let mut writer = queue.create(Header::new(1), None).expect("an empty queue");
    writer.add_zero(48).expect("room for all");
    drop(writer);
    assert_eq!(queue.compose(Header::new(2), &[0_u8; 48], None), Ok(()));
}

// ---- Helpers

/// `n8`, `n16`, `n32` and `n64`.
const NETWORK_FIELDS: usize = 1 + 2 + 4 + 8;

/// The last message of each vector, which C built field by field.
fn built_by_c(vector: &Vector) -> Recorded {
    vector.messages.last().expect("a vector has messages").clone()
}

/// The vectors in this machine's order.
fn native_vectors() -> Vec<Vector> {
    let native = if cfg!(target_endian = "little") { Endian::Little } else { Endian::Big };
    let is_native = |vector: &Vector| matches!(vector.dialect, Any::Classic(it) | Any::Modern(it) if it == native);
    let vectors: Vec<_> = all().into_iter().filter(is_native).collect();
    assert_eq!(vectors.len(), 2, "one of each dialect");
    vectors
}

/// Writes what the README of the vectors says.
fn build_all_fields<P>(writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
    build_network_fields(writer)?;
    writer.add_h16(0x1234)?;
    writer.add_h32(0x1234_5678)?;
    writer.add_h64(0x1234_5678_9abc_def0)?;
    build_bytes(writer)?;
    writer.set_h32(17, 0xcafe_f00d)
}

fn build_network_fields<P>(writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
    writer.add_n8(0x12)?;
    writer.add_n16(0x1234)?;
    writer.add_n32(0x1234_5678)?;
    writer.add_n64(0x1234_5678_9abc_def0)?;
    writer.set_n16(1, 0xbeef)
}

fn build_bytes<P>(writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
    writer.add_zero(3)?;
    writer.add(b"imsg")?;
    writer.add_strbuf("hello", 8)
}

/// A number in network order, by its digits.
fn network<const WIDTH: usize>(value: u64) -> [u8; WIDTH] {
    array::from_fn(|at| (value >> (8 * (WIDTH - 1 - at))) as u8)
}

/// A number in this machine's order, by its digits.
fn host<const WIDTH: usize>(value: u64) -> [u8; WIDTH] {
    let mut bytes = network(value);
    if cfg!(target_endian = "little") {
        bytes.reverse();
    }
    bytes
}

/// A reader of six zero bytes that has read two.
fn four_left() -> Reader<'static> {
    let mut reader = Reader::new(&[0; 6]);
    reader.skip(2).expect("six are left");
    reader
}

/// A writer that has filled its memory with zeros.
fn zeros(buf: &mut [u8]) -> Writer<'_> {
    let len = buf.len();
    let mut writer = Writer::new(buf);
    writer.add_zero(len).expect("room for all");
    writer
}

fn queue() -> Queue {
    Queue::with_descriptors(Modern::new(), [0xff; 64])
}

fn queue_with_32_bytes_free() -> Queue {
    let mut queue = queue();
    queue.compose(Header::new(1), &[0_u8; 16], None).expect("an empty queue");
    queue
}

/// Calls `check` with the bytes at every address modulo eight.
fn at_each_alignment(bytes: &[u8], check: impl Fn(&[u8])) {
    let mut memory = vec![0; bytes.len() + 8];
    for shift in 0..8 {
        let place = &mut memory[shift..][..bytes.len()];
        place.copy_from_slice(bytes);
        check(place);
    }
}

/// The error of a read that must fail, and change nothing.
#[track_caller]
fn not_read<'a, T: Debug>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, ReadError>,
) -> ReadError {
    let before = *reader;
    let error = read(reader).expect_err("what cannot be read");
    assert_eq!(*reader, before, "a read that fails leaves the reader as it was");
    error
}

/// The error of a write that must fail, and change nothing.
#[track_caller]
fn not_written<'a, P>(
    writer: &mut Writer<'a, P>,
    write: impl FnOnce(&mut Writer<'a, P>) -> Result<(), WriteError>,
) -> WriteError {
    let before = (writer.written().to_vec(), writer.len(), writer.remaining());
    let error = write(writer).expect_err("what cannot be written");
    let after = (writer.written().to_vec(), writer.len(), writer.remaining());
    assert_eq!(after, before, "a write that fails leaves the writer as it was");
    error
}

#[test]
fn exchanged_messages_in_place_keep_what_was_written_for_them() {
    let mut one = SendBuf::new(Modern::new(), [0; 64]);
    let mut other = SendBuf::new(Modern::new(), [0; 64]);
    let mut first = one.create(Header::new(1), None).expect("room");
    first.add(b"first").expect("room");
    let mut second = other.create(Header::new(2), None).expect("room");
    second.add(b"the second").expect("room");
    std::mem::swap(&mut first, &mut second);
    first.close();
    second.close();
    assert_eq!(&one.chunk().expect("a message").bytes[16..], b"first");
    assert_eq!(&other.chunk().expect("a message").bytes[16..], b"the second");
}

#[test]
fn a_queue_moves_its_bytes_when_that_frees_as_many_as_it_moves() {
    let mut queue = SendBuf::new(Modern::new(), [0; 64]);
    queue.compose(Header::new(1), &[1_u8; 16], None).expect("room");
    queue.compose(Header::new(2), &[2_u8; 16], None).expect("room");
    queue.consume(31).expect("what is queued");
    let refused =
        queue.compose(Header::new(3), &[3_u8; 15], None).expect_err("33 bytes would move");
    assert_eq!(refused.reason, Reason::Full { len: 31, free: 0 });
    queue.consume(1).expect("what is queued");
    queue.compose(Header::new(3), &[3_u8; 16], None).expect("32 bytes move, and free 32");
    assert_eq!(queue.queue_len(), 2);
}

// ---- Behind their length, and formatted

#[test]
fn what_is_behind_its_length_is_read_or_nothing_is_consumed() {
    for (payload, result) in [
        (&b"\x03abcd"[..], Ok("abc")),
        (b"\x00", Ok("")),
        (b"\x04abc", Err(ReadError::Short { need: 4, have: 3 })),
        (b"", Err(ReadError::Short { need: 1, have: 0 })),
        (b"\x01\xff", Err(ReadError::NotUtf8)),
    ] {
        let mut reader = Reader::new(payload);
        assert_eq!(reader.get_counted_str::<u8>(), result);
        let consumed = result.map_or(0, |text| 1 + text.len());
        assert_eq!(reader.rest(), &payload[consumed..]);
    }
    let mut reader = Reader::new(b"\xff\xff\xff\xff\xff\xff\xff\xffabc");
    let need = usize::try_from(u64::MAX).unwrap_or(usize::MAX);
    assert_eq!(reader.get_counted::<u64>(), Err(ReadError::Short { need, have: 3 }));
    assert_eq!(reader.remaining(), 11);
}

#[test]
fn what_does_not_fit_with_its_length_is_not_written() {
    let mut buf = [0xee; 8];
    let mut writer = Writer::new(&mut buf);
    let error = WriteError::TooLong { len: 9, max: 8 };
    assert_eq!(writer.add_counted::<u16>("seven.."), Err(error));
    let error = WriteError::Count { count: 256 };
    assert_eq!(writer.add_counted::<u8>([0; 256]), Err(error));
    assert!(writer.is_empty());
    writer.add_counted::<u16>("six...").unwrap();
    assert_eq!(writer.written(), [&6_u16.to_ne_bytes()[..], b"six..."].concat());
}

#[test]
fn text_is_formatted_into_a_message_in_place() {
    use std::fmt::Write;
    let mut queue = SendBuf::new(Modern::new(), [0; 32]);
    let mut message = queue.create(Header::new(1), None).unwrap();
    write!(message, "a-{:02x}", 10).unwrap();
    assert!(write!(message, "{}", "x".repeat(20)).is_err());
    message.close();
    assert_eq!(queue.chunk().unwrap().bytes[16..], *b"a-0a");
}
