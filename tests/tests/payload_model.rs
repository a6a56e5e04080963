//! `Reader` and `Writer` against models over a `Vec<u8>`, in random sequences of operations.

use imsg_tests::effort::cases;
use imsg_tests::payload_model::{Family, Read, Write, WriterModel, compare_reads, compare_writes};
use imsg_wire::{Header, Modern, SendBuf, Writer};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(400)))]

    #[test]
    fn a_writer_over_a_slice_does_what_the_model_does(
        len in 0..40_usize,
        writes in vec(write(), 0..30),
    ) {
        let mut buf = vec![0xff; len];
        let mut writer = Writer::new(&mut buf);
        let written = compare_writes(&mut writer, WriterModel::new(len, len), &writes);
        let (front, behind) = buf.split_at(written.len());
        prop_assert_eq!(front, &written[..]);
        prop_assert!(behind.iter().all(|byte| [0, 0xff].contains(byte)), "{behind:02x?}");
    }

    #[test]
    fn a_message_in_place_does_what_the_model_does(
        queued in 0..40_usize,
        max_len in 0..60_usize,
        writes in vec(write(), 0..30),
    ) {
        let mut queue = SendBuf::new(Modern::new(), [0xff; STORAGE]);
        queue.compose(Header::new(1), &vec![0xff_u8; queued][..], None).expect("an empty queue");
        let before = queue.queue_bytes();
        queue.set_max_len(HEADER + max_len).unwrap();
        let model = WriterModel::new(max_len, STORAGE - before - HEADER);
        let mut writer = queue.create(Header::new(2), None).expect("room for a header");
        let written = compare_writes(&mut writer, model, &writes);
        writer.close();
        let chunk = queue.chunk().expect("two messages");
        prop_assert_eq!(&chunk.bytes[before + HEADER..], &written[..]);
    }

    #[test]
    fn a_reader_does_what_the_model_does(payload in payload(), reads in vec(read(), 0..30)) {
        compare_reads(&payload, &reads);
    }
}

const HEADER: usize = 16;

const STORAGE: usize = 100;

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(&Family::ALL)
}

/// Mostly lengths around those of the buffers, and some that nothing can have.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..12_usize,
        2 => 0..50_usize,
        1 => prop::sample::select(vec![usize::MAX, usize::MAX - 1, usize::MAX / 2 + 1]),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let number = || prop_oneof![any::<u64>(), 0..300_u64, Just(u64::MAX)];
    // Without 0xff, which is what the memory was filled with before.
    let bytes = |len| vec(0..0xff_u8, 0..len);
    prop_oneof![
        3 => bytes(8).prop_map(Write::Add),
        4 => (family(), number()).prop_map(|(family, number)| Write::AddNumber(family, number)),
        1 => (bytes(12), 0..12_usize)
            .prop_map(|(payload, read)| Write::AddReader { read: read.min(payload.len()), payload }),
        2 => length().prop_map(Write::AddZero),
        3 => (vec(0..5_u8, 0..6), length()).prop_map(|(string, len)| Write::AddStrbuf(string, len)),
        2 => (length(), 0..0xff_u8).prop_map(|(len, fill)| Write::Reserve { len, fill }),
        2 => (length(), bytes(8)).prop_map(|(offset, value)| Write::Set(offset, value)),
        4 => (family(), length(), number())
            .prop_map(|(family, offset, number)| Write::SetNumber(family, offset, number)),
        2 => length().prop_map(Write::Truncate),
        1 => length().prop_map(Write::SetMaxLen),
    ]
}

fn read() -> impl Strategy<Value = Read> {
    prop_oneof![
        2 => length().prop_map(Read::Get),
        6 => family().prop_map(Read::GetNumber),
        2 => length().prop_map(Read::GetReader),
        2 => length().prop_map(Read::GetStr),
        3 => length().prop_map(Read::GetStrbuf),
        2 => Just(Read::GetCstr),
        1 => Just(Read::GetValue),
        1 => Just(Read::GetRef),
        2 => length().prop_map(Read::GetSlice),
        1 => Just(Read::Data),
        1 => Just(Read::DataRef),
        1 => Just(Read::DataRefOfAnySize),
        2 => (length(), length()).prop_map(|(offset, len)| Read::Seek(offset, len)),
        2 => length().prop_map(Read::Skip),
        1 => (30..60_usize).prop_map(Read::Truncate),
        1 => length().prop_map(Read::Truncate),
        3 => Just(Read::Rewind),
        1 => Just(Read::ExpectEnd),
    ]
}

/// Bytes with many NULs, and with some that are no UTF-8.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![3 => Just(0), 8 => 1..0x80_u8, 1 => 0x80..=0xff_u8], 0..60)
}
