//! Protocols that are declared with `protocol!`.

use std::ffi::CStr;

use imsg_wire::typed::{
    BadMessage, Carries, Counted, Encoding, Mistake, Network, Network16, Network32, Padded,
    Protocol, Terminated,
};
use imsg_wire::{
    Compose, Descriptor, DescriptorError, Header, Message, Missing, Modern, ReadError, Reader,
    Reason, Refused, SendBuf, WriteError, Writer, protocol,
};
use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::byteorder::{big_endian, little_endian, native_endian};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes, Unaligned};

/// A struct of C, with its padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Aligned {
    kind: u8,
    padding: [u8; 3],
    count: u32,
    cookie: u64,
}

/// One that can be borrowed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct Packed {
    kind: u8,
    count: native_endian::U32,
}

/// An enum of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(u32)]
enum Color {
    Red = 1,
    Green = 5,
}

/// A list of names, each with its length in front: an encoding of the program's own.
enum Names {}

impl<'a> Encoding<'a, Vec<&'a str>> for Names {
    const TAKES_REST: bool = true;

    fn len(value: &Vec<&'a str>) -> usize {
        value.iter().map(Counted::<u8>::len).sum()
    }

    fn write<P>(value: &Vec<&'a str>, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        value.iter().try_for_each(|name| Counted::<u8>::write(name, writer))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Vec<&'a str>, ReadError> {
        let mut names = Vec::new();
        while reader.remaining() > 0 {
            names.push(Counted::<u8>::read(reader)?);
        }
        Ok(names)
    }
}

const BY_PATH: u32 = 40;

protocol! {
    /// Each kind of field.
    #[derive(Clone, Debug, PartialEq)]
    enum Kinds<'a> {
        1 => Nothing,
        2 => Braces {},
        3 => Numbers { a: u8, b: i16, c: u32, d: u64, e: usize, f: [u16; 3] },
        4 => InNetworkOrder { a: u16 as Network, b: u32 as Network, c: i64 as Network },
        5 => InOwnOrder { a: big_endian::U16, b: little_endian::U32 },
        6 => Owned(Aligned),
        7 => Borrowed { first: u8, second: &'a Packed },
        8 => Checked { flag: bool, color: Color, letter: char },
        9 => Plain { first: &'a CStr, second: &'a CStr },
        10 => Ended {
            a: &'a CStr as Terminated,
            b: &'a str as Terminated,
            c: &'a [u8] as Terminated,
        },
        11 => Fixed { a: &'a CStr as Padded<8>, b: &'a str as Padded<5>, c: &'a [u8] as Padded<1> },
        12 => InHostOrder {
            a: &'a str as Counted<u8>,
            b: &'a [u8] as Counted<u16>,
            c: &'a str as Counted<u32>,
            d: &'a [Packed] as Counted<u64>,
            e: &'a [u8] as Counted<usize>,
        },
        13 => CountedInNetworkOrder {
            a: &'a str as Counted<Network16>,
            b: &'a [native_endian::U16] as Counted<Network32>,
        },
        14 => Bytes { number: u16, rest: &'a [u8] },
        15 => Text(&'a str),
        16 => Elements(&'a [Packed]),
        17 => Own { number: u8, names: Vec<&'a str> as Names },
        BY_PATH => ByPath { after: u8 },
    }
}

/// Any message, and the payload that a program writes for it by hand.
#[derive(Clone, Debug)]
struct Example {
    msg_type: u32,
    payload: Vec<u8>,
    /// Whether some other payload of another length is a message of this type, too.
    open: bool,
}

fn ended(bytes: &[u8]) -> Vec<u8> {
    [bytes, b"\0"].concat()
}

fn padded(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut field = bytes.to_vec();
    field.resize(len, 0);
    field
}

fn counted<const N: usize>(count: [u8; N], bytes: &[u8]) -> Vec<u8> {
    [&count[..], bytes].concat()
}

/// Texts without NUL, some of them empty.
fn text(max: usize) -> impl Strategy<Value = String> {
    vec(prop_oneof![Just('a'), Just('ü'), Just('='), any::<char>()], 0..=max)
        .prop_map(|chars| chars.into_iter().filter(|char| *char != '\0').collect())
}

fn string(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(1_u8.., 0..=max)
}

fn example(msg_type: u32, payload: Vec<u8>) -> Example {
    Example { msg_type, payload, open: false }
}

fn open(msg_type: u32, payload: Vec<u8>) -> Example {
    Example { msg_type, payload, open: true }
}

fn examples() -> impl Strategy<Value = Example> {
    let bytes = || vec(any::<u8>(), 0..40);
    prop_oneof![
        Just(example(1, vec![])),
        Just(example(2, vec![])),
        any::<(u8, i16, u32, u64, usize, [u16; 3])>().prop_map(|(a, b, c, d, e, f)| {
            let mut payload = vec![a];
            payload.extend(b.to_ne_bytes());
            payload.extend(c.to_ne_bytes());
            payload.extend(d.to_ne_bytes());
            payload.extend(e.to_ne_bytes());
            payload.extend(f.iter().flat_map(|number| number.to_ne_bytes()));
            example(3, payload)
        }),
        any::<(u16, u32, i64)>().prop_map(|(a, b, c)| {
            let parts = [&a.to_be_bytes()[..], &b.to_be_bytes(), &c.to_be_bytes()];
            example(4, parts.concat())
        }),
        any::<(u16, u32)>()
            .prop_map(|(a, b)| { example(5, [&a.to_be_bytes()[..], &b.to_le_bytes()].concat()) }),
        any::<[u8; 16]>().prop_map(|bytes| example(6, bytes.to_vec())),
        any::<[u8; 6]>().prop_map(|bytes| example(7, bytes.to_vec())),
        (any::<bool>(), prop_oneof![Just(1_u32), Just(5)], any::<char>()).prop_map(
            |(flag, color, letter)| {
                let mut payload = vec![u8::from(flag)];
                payload.extend(color.to_ne_bytes());
                payload.extend(u32::from(letter).to_ne_bytes());
                example(8, payload)
            }
        ),
        (string(20), string(20)).prop_map(|(a, b)| example(9, [ended(&a), ended(&b)].concat())),
        (string(20), text(20), string(20)).prop_map(|(a, b, c)| {
            example(10, [ended(&a), ended(b.as_bytes()), ended(&c)].concat())
        }),
        (string(7), text(1)).prop_map(|(a, b)| {
            example(11, [padded(&a, 8), padded(b.as_bytes(), 5), padded(b"", 1)].concat())
        }),
        (text(20), bytes(), text(20), vec(any::<[u8; 5]>(), 0..4), bytes()).prop_map(
            |(a, b, c, d, e)| {
                let parts = [
                    counted([a.len() as u8], a.as_bytes()),
                    counted((b.len() as u16).to_ne_bytes(), &b),
                    counted((c.len() as u32).to_ne_bytes(), c.as_bytes()),
                    counted((d.len() as u64).to_ne_bytes(), &d.concat()),
                    counted(e.len().to_ne_bytes(), &e),
                ];
                example(12, parts.concat())
            }
        ),
        (text(20), vec(any::<[u8; 2]>(), 0..20)).prop_map(|(a, b)| {
            let parts = [
                counted((a.len() as u16).to_be_bytes(), a.as_bytes()),
                counted((b.len() as u32).to_be_bytes(), &b.concat()),
            ];
            example(13, parts.concat())
        }),
        (any::<[u8; 2]>(), bytes()).prop_map(|(a, rest)| open(14, counted(a, &rest))),
        text(20).prop_map(|text| open(15, text.into_bytes())),
        vec(any::<[u8; 5]>(), 0..5).prop_map(|elements| open(16, elements.concat())),
        (any::<u8>(), vec(text(5), 0..5)).prop_map(|(a, names)| {
            let mut payload = vec![a];
            for name in names {
                payload.extend(counted([name.len() as u8], name.as_bytes()));
            }
            open(17, payload)
        }),
        any::<u8>().prop_map(|byte| example(40, vec![byte])),
    ]
}

type Queue = SendBuf<Modern, Vec<u8>, u32, 2>;

fn queue(len: usize) -> Queue {
    let mut queue = Queue::with_descriptors(Modern::new(), vec![0xee; len]);
    queue.set_pid(99);
    queue
}

fn message<'a, F>(msg_type: u32, payload: &'a [u8], descriptor: Descriptor<F>) -> Message<'a, F> {
    Message { header: Header { id: 5, pid: 6, ..Header::new(msg_type) }, payload, descriptor }
}

fn parse(msg_type: u32, payload: &[u8]) -> Result<Kinds<'_>, BadMessage> {
    message(msg_type, payload, Descriptor::None).try_into()
}

/// The payload that is queued for a message.
fn composed(kind: Kinds<'_>) -> Vec<u8> {
    let mut queue = queue(1024);
    kind.compose(&mut queue, 0).unwrap();
    queue.chunk().unwrap().bytes[16..].to_vec()
}

proptest! {
    #[test]
    fn what_is_written_by_hand_is_read_and_written_again_byte_for_byte(example in examples()) {
        let kind = parse(example.msg_type, &example.payload).unwrap();
        prop_assert_eq!(kind.msg_type(), example.msg_type);
        prop_assert_eq!(kind.payload_len(), example.payload.len());

        let mut space = vec![0; example.payload.len()];
        let mut writer = Writer::new(&mut space);
        kind.write_payload(&mut writer).unwrap();
        prop_assert_eq!(writer.written(), &example.payload[..]);

        let (mut declared, mut by_hand) = (queue(1024), queue(1024));
        let header = Header { id: 7, ..Header::new(example.msg_type) };
        by_hand.compose(header, &example.payload[..], None).unwrap();
        kind.clone().compose(&mut declared, 7).unwrap();
        prop_assert_eq!(declared.chunk(), by_hand.chunk());
        prop_assert_eq!(parse(example.msg_type, &example.payload), Ok(kind));
    }

    #[test]
    fn every_other_length_is_refused_or_is_another_message(
        example in examples(),
        more in vec(any::<u8>(), 1..20),
    ) {
        let whole = example.payload.len();
        let longer = [&example.payload[..], &more].concat();
        for len in (0..=longer.len()).filter(|len| *len != whole) {
            match parse(example.msg_type, &longer[..len]) {
                Ok(kind) => {
                    prop_assert!(example.open, "{:?}", kind);
                    prop_assert_eq!(&composed(kind), &longer[..len]);
                }
                Err(bad) => {
                    let header = Header { id: 5, pid: 6, ..Header::new(example.msg_type) };
                    prop_assert_eq!(bad.header, header);
                    prop_assert_eq!(bad.name, Kinds::name_of(example.msg_type));
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_taken_for_a_message_are_those_that_it_is_written_as(
        msg_type in prop_oneof![0_u32..20, Just(40)],
        payload in vec(prop_oneof![Just(0), Just(1), Just(2), any::<u8>()], 0..60),
    ) {
        match parse(msg_type, &payload) {
            // What is behind the NUL of a padded string is not looked at.
            Ok(Kinds::Fixed { .. }) => {}
            Ok(kind) => prop_assert_eq!(composed(kind), payload),
            Err(bad) if bad.mistake == Mistake::Type => {
                prop_assert!(Kinds::TYPES.iter().all(|(number, _)| *number != msg_type));
            }
            Err(_) => {}
        }
    }
}

#[test]
fn mistakes_say_what_is_wrong_with_which_field() {
    let mistake = |msg_type, payload: &[u8]| parse(msg_type, payload).unwrap_err().mistake;
    let field = |field, error| Mistake::Field { field, error };
    assert_eq!(mistake(99, b""), Mistake::Type);
    assert_eq!(mistake(1, b"abc"), Mistake::TooLong { extra: 3 });
    assert_eq!(mistake(3, b"\x01\x02"), field("b", ReadError::Short { need: 2, have: 1 }));
    assert_eq!(mistake(6, &[0; 15]), field("0", ReadError::Short { need: 16, have: 15 }));
    assert_eq!(mistake(8, &[2]), field("flag", ReadError::Invalid));
    assert_eq!(mistake(8, &[1, 9, 9, 9, 9]), field("color", ReadError::Invalid));
    assert_eq!(mistake(9, b"one\0two"), field("second", ReadError::Unterminated { len: 3 }));
    assert_eq!(mistake(10, b"\0\xff\0\0"), field("b", ReadError::NotUtf8));
    assert_eq!(mistake(11, b"12345678"), field("a", ReadError::Unterminated { len: 8 }));
    assert_eq!(mistake(13, b"\0\x05four"), field("a", ReadError::Short { need: 5, have: 4 }));
    assert_eq!(mistake(15, b"\xff"), field("0", ReadError::NotUtf8));
    assert_eq!(mistake(16, b"123456"), field("0", ReadError::Shape { have: 6 }));
    assert_eq!(mistake(12, &[[0; 7].as_slice(), &[0xff; 8]].concat()), {
        field("d", ReadError::Short { need: usize::MAX, have: 0 })
    });
}

#[test]
fn an_enum_of_c_is_read_by_its_value() {
    let letter = u32::from('x').to_ne_bytes();
    let payload = |color: u32| [&[1][..], &color.to_ne_bytes(), &letter].concat();
    for (number, color) in [(1, Color::Red), (5, Color::Green)] {
        let kind = Kinds::Checked { flag: true, color, letter: 'x' };
        assert_eq!(parse(8, &payload(number)), Ok(kind));
    }
}

#[test]
fn a_bad_message_reads_as_a_sentence() {
    let text = |msg_type, payload: &[u8]| parse(msg_type, payload).unwrap_err().to_string();
    assert_eq!(text(99, b""), "bad message of type 99: the type is unknown");
    assert_eq!(text(1, b"abc"), "bad message of type 1 (Nothing): the payload is 3 bytes too long");
    assert_eq!(
        text(3, b"\x01\x02"),
        "bad message of type 3 (Numbers): field b: the payload has 1 bytes left where 2 are needed"
    );
    assert_eq!(
        text(8, &[2]),
        "bad message of type 8 (Checked): field flag: the value is not one of its type"
    );
}

#[test]
fn what_is_behind_the_nul_of_a_padded_string_is_not_looked_at() {
    let kind = parse(11, b"ab\0defgh\xc3\xbc\0\xff\xff\0").unwrap();
    assert_eq!(kind, Kinds::Fixed { a: c"ab", b: "ü", c: b"" });
}

#[test]
fn a_field_that_cannot_be_written_so_is_refused_and_nothing_is_queued() {
    let long = vec![0; 256];
    let long = std::str::from_utf8(&long).unwrap();
    let text = |a, b, c| Kinds::Fixed { a, b, c };
    let nul = Kinds::Ended { a: c"", b: "a\0b", c: b"" };
    let counts = |a, b| Kinds::InHostOrder { a, b, c: "", d: &[], e: b"" };
    for (kind, error) in [
        (nul, WriteError::String { len: 3, field: 4 }),
        (text(c"12345678", "", b""), WriteError::String { len: 8, field: 8 }),
        (text(c"", "12345", b""), WriteError::String { len: 5, field: 5 }),
        (text(c"", "", b"1"), WriteError::String { len: 1, field: 1 }),
        (counts(long, b""), WriteError::Count { count: 256 }),
    ] {
        let mut queue = queue(1024);
        let refused = kind.clone().compose(&mut queue, 0).unwrap_err();
        assert_eq!(refused, Refused { reason: Reason::Payload(error), descriptor: None });
        assert!(queue.is_empty(), "{kind:?}");
    }
    let error = WriteError::Count { count: 65536 };
    let refused = counts("", &[0; 65536]).compose(&mut large(), 0).unwrap_err();
    assert_eq!(refused.reason, Reason::Payload(error));
}

fn large() -> Queue {
    let mut queue = queue(1 << 20);
    queue.set_max_len(1 << 20).unwrap();
    queue
}

// ---- Descriptors

protocol! {
    /// Messages with a descriptor, without, or either.
    #[derive(Debug, PartialEq)]
    enum Files<'a, F = u32> {
        1 => Alone + F,
        2 => With { name: &'a str } + F,
        3 => Unnamed(&'a str) + F,
        4 => Maybe { name: &'a str } + Option<F>,
        5 => Without { name: &'a str },
        7 => Ended { name: &'a str as Terminated } + F,
    }
}

protocol! {
    /// The same, of one type of descriptor only.
    #[derive(Debug, PartialEq)]
    enum Fixed {
        1 => Required + u32,
        4 => Optional + Option<u32>,
        5 => Without,
    }
}

const NOT_SENT: Mistake = Mistake::Descriptor(DescriptorError::NotSent);
const NOT_EXPECTED: Mistake = Mistake::Descriptor(DescriptorError::NotExpected);

#[test]
fn a_descriptor_comes_exactly_with_the_messages_that_have_one() {
    let files = |msg_type, descriptor| {
        Files::try_from(message::<u32>(msg_type, b"a", descriptor)).map_err(|bad| bad.mistake)
    };
    assert_eq!(files(2, Descriptor::Here(9)), Ok(Files::With { name: "a", descriptor: 9 }));
    assert_eq!(files(3, Descriptor::Here(9)), Ok(Files::Unnamed("a", 9)));
    assert_eq!(files(4, Descriptor::Here(9)), Ok(Files::Maybe { name: "a", descriptor: Some(9) }));
    assert_eq!(files(4, Descriptor::None), Ok(Files::Maybe { name: "a", descriptor: None }));
    assert_eq!(files(5, Descriptor::None), Ok(Files::Without { name: "a" }));
    assert_eq!(files(2, Descriptor::None), Err(NOT_SENT));
    assert_eq!(files(3, Descriptor::None), Err(NOT_SENT));
    assert_eq!(files(5, Descriptor::Here(9)), Err(NOT_EXPECTED));
    for missing in [Missing::NotAllowed, Missing::Dropped, Missing::NotSent] {
        let error = Mistake::Descriptor(DescriptorError::Missing(missing));
        for msg_type in 2..=4 {
            assert_eq!(files(msg_type, Descriptor::Missing(missing)), Err(error));
        }
        assert_eq!(files(5, Descriptor::Missing(missing)), Err(NOT_EXPECTED));
    }

    let fixed = |msg_type, descriptor| Fixed::try_from(message::<u32>(msg_type, b"", descriptor));
    assert_eq!(fixed(1, Descriptor::Here(9)), Ok(Fixed::Required { descriptor: 9 }));
    assert_eq!(fixed(4, Descriptor::None), Ok(Fixed::Optional { descriptor: None }));
    assert_eq!(fixed(5, Descriptor::Here(9)).unwrap_err().mistake, NOT_EXPECTED);
}

#[test]
fn a_message_that_is_refused_gives_its_descriptor_back() {
    for (msg_type, payload, mistake) in [
        (1, &b"extra"[..], Mistake::TooLong { extra: 5 }),
        (2, b"\xff", Mistake::Field { field: "name", error: ReadError::NotUtf8 }),
        (5, b"a", NOT_EXPECTED),
        (6, b"", Mistake::Type),
    ] {
        let message = message(msg_type, payload, Descriptor::Here(Box::new(7)));
        let bad = Files::try_from(message).unwrap_err();
        assert_eq!((bad.mistake, bad.descriptor), (mistake, Descriptor::Here(Box::new(7))));
    }
    let bad = Kinds::try_from(message(1, b"", Descriptor::Here(7))).unwrap_err();
    assert_eq!((bad.mistake, bad.descriptor), (NOT_EXPECTED, Descriptor::Here(7)));
}

#[test]
fn a_descriptor_is_queued_with_its_message() {
    for (file, descriptor) in [
        (Files::Alone { descriptor: 7 }, Some(&7)),
        (Files::With { name: "a", descriptor: 7 }, Some(&7)),
        (Files::Unnamed("a", 7), Some(&7)),
        (Files::Maybe { name: "a", descriptor: Some(7) }, Some(&7)),
        (Files::Maybe { name: "a", descriptor: None }, None),
        (Files::Without { name: "a" }, None),
    ] {
        let mut declared = queue(64);
        let mut by_hand = queue(64);
        let payload = if file.msg_type() == 1 { "" } else { "a" };
        let header = Header { id: 3, pid: 4, ..Header::new(file.msg_type()) };
        by_hand.compose(header, payload, descriptor.copied()).unwrap();
        assert_eq!(file.has_descriptor(), descriptor.is_some());
        file.compose_as(&mut declared, 3, 4).unwrap();
        assert_eq!(declared.chunk(), by_hand.chunk());
        assert_eq!(declared.chunk().unwrap().descriptor, descriptor);
    }
}

#[test]
fn a_message_that_is_not_queued_gives_its_descriptor_back_and_says_why_not() {
    fn check(queue: &mut Queue, message: Files<'_>, reason: Reason) {
        let before = queue.queue_bytes();
        assert_eq!(message.has_room(queue), Err(reason));
        let refused = message.compose(queue, 0).unwrap_err();
        assert_eq!(refused, Refused { reason, descriptor: Some(7) });
        assert_eq!(queue.queue_bytes(), before);
    }
    let long = "x".repeat(49);
    let with = |len| Files::With { name: &long[..len], descriptor: 7 };
    let mut queue = queue(64);
    with(1).compose(&mut queue, 0).unwrap();
    check(&mut queue, with(32), Reason::Full { len: 48, free: 47 });
    check(&mut queue, with(49), Reason::TooLong { len: 65, max: 64 });
    with(1).compose(&mut queue, 0).unwrap();
    check(&mut queue, with(1), Reason::DescriptorsFull);
    let without: Files<'_> = Files::Without { name: "a" };
    assert_eq!(without.has_room(&queue), Ok(()));
}

#[test]
fn a_field_that_cannot_be_written_so_gives_the_descriptor_back() {
    let mut queue = queue(64);
    let message = Files::Ended { name: "a\0b", descriptor: 7 };
    assert_eq!(message.has_room(&queue), Ok(()));
    let reason = Reason::Payload(WriteError::String { len: 3, field: 4 });
    let refused = message.compose(&mut queue, 0).unwrap_err();
    assert_eq!(refused, Refused { reason, descriptor: Some(7) });
    assert!(queue.is_empty());
}

#[test]
fn a_message_is_taken_apart_without_being_queued() {
    assert_eq!(Files::With { name: "a", descriptor: 7 }.into_descriptor(), Some(7));
    assert_eq!(Carries::<u8>::into_descriptor(Kinds::Nothing), None);
}

// ---- Type numbers and names

#[test]
fn type_numbers_are_constants_and_have_names() {
    const AFTER_STOP: u32 = Numbered::STOP + 1;
    let what = |msg_type| match msg_type {
        Numbered::START => "start",
        Numbered::STOP => "stop",
        AFTER_STOP => "after",
        _ => "unknown",
    };
    assert_eq!([1, 8, 9, 4].map(what), ["start", "stop", "after", "unknown"]);
    assert_eq!(Numbered::TYPES, [(1, "Start"), (4, "Unnamed"), (8, "Stop")]);
    assert_eq!([1, 8, 9].map(Numbered::name_of), [Some("Start"), Some("Stop"), None]);
    assert_eq!((Numbered::Stop.name(), Numbered::Stop.msg_type()), ("Stop", 8));
    assert_eq!(OfAnyDescriptor::GO, u32::MAX);
}

protocol! {
    enum Numbered {
        START = 1 => Start,
        4 => Unnamed,
        STOP = 0x8 => Stop,
    }
}

protocol! {
    enum OfAnyDescriptor<F> { GO = 0xffff_ffff => Go + F }
}

#[test]
fn a_declaration_may_be_generic_over_the_descriptor_alone() {
    let message = OfAnyDescriptor::try_from(message(u32::MAX, b"", Descriptor::Here("it")));
    assert!(matches!(message, Ok(OfAnyDescriptor::Go { descriptor: "it" })));
}

// ---- What is around a declaration

/// Says what a worker is told, to any queue.
fn tell<Q: Compose<Descriptor = u32>>(queue: &mut Q) -> Result<(), Refused<u32>> {
    queue.compose(Header::new(1), b"compose", None)?;
    queue.compose_parts(Header::new(2), &[b"compose", b"parts"], Some(1))?;
    let mut writer = queue.create(Header::new(3), Some(2))?;
    writer.add(b"create").map_err(|error| Refused { reason: error.into(), descriptor: None })?;
    writer.close();
    assert_eq!(queue.create(Header::new(4), None)?.abandon(), None);
    queue.forward(&message::<u8>(5, b"forward", Descriptor::None), None)?;
    queue.has_room(0, false).map_err(|reason| Refused { reason, descriptor: None })
}

#[test]
fn a_queue_does_by_the_trait_what_it_does_itself() {
    let mut by_trait = queue(256);
    tell(&mut by_trait).unwrap();
    let mut itself = queue(256);
    itself.compose(Header::new(1), b"compose", None).unwrap();
    itself.compose(Header::new(2), b"composeparts", Some(1)).unwrap();
    itself.compose(Header::new(3), b"create", Some(2)).unwrap();
    itself.forward(&message::<u8>(5, b"forward", Descriptor::None), None).unwrap();
    while let Some(chunk) = by_trait.chunk() {
        assert_eq!(Some(chunk), itself.chunk());
        let n = chunk.bytes.len();
        by_trait.consume(n).unwrap();
        itself.consume(n).unwrap();
    }
    assert!(itself.is_empty());
}

/// Names that the macro must not take for those of the standard library or its own.
#[deny(warnings, missing_docs, unreachable_pub, clippy::all)]
mod names {
    #![allow(dead_code)]

    type Result = ();
    type Option = u8;
    type Message = u16;
    type Order = u32;
    type Types = u64;
    type Self_ = i8;
    struct Ok;
    struct Some;
    struct None;
    struct Err;
    mod core {}
    mod imsg_wire {}

    ::imsg_wire::protocol! {
        /// Fields whose names and types are those of the code around them.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Reader<'m> {
            /// Documented.
            MESSAGE = 1 => Message {
                /// Documented.
                message: Message,
                parts: Option,
                writer: Order,
                value: Types,
                msg_type: Self_,
                read: F,
                rest: &'m [u8],
            },
            /// Documented.
            #[doc(alias = "same")]
            2 => Option(#[doc = "Documented."] Result) + u8,
            3 => Ok {},
        }
    }

    type F = u8;

    ::imsg_wire::protocol! { enum Private { 1 => One } }
}

#[test]
fn names_around_a_declaration_do_not_get_in_its_way() {
    let payload = [&[0; 2 + 1 + 4 + 8 + 1 + 1][..], b"rest"].concat();
    let message = message::<u8>(1, &payload, Descriptor::None);
    let names::Reader::Message { rest, .. } = message.try_into().unwrap() else { panic!() };
    assert_eq!((rest, names::Reader::MESSAGE), (&b"rest"[..], 1));
}
