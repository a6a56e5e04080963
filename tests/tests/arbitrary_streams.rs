//! Streams that are made of arbitrary bytes: valid, or broken in one place.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::iter;

use arbitrary::Unstructured;
use imsg_tests::effort::cases;
use imsg_tests::rng::Rng;
use imsg_wire::testing::{Broken, Call, Damage, Kernel, Pair, Stopped, Stream, Token, Tokens};
use imsg_wire::typed::{BadMessage, Counted, Mistake, Network, Network16, Padded, Protocol};
use imsg_wire::{Error, Message, Modern};
use zerocopy::{Immutable, IntoBytes, TryFromBytes};

imsg_wire::protocol! {
    /// Each kind of field.
    enum Everything<'a> {
        1 => Nothing,
        2 => Number { number: u32, big: u64 as Network },
        3 => Text { text: &'a str as Counted<u16>, more: &'a str as Counted<Network16> },
        4 => Terminated { first: &'a CStr, second: &'a CStr },
        5 => Padded { name: &'a str as Padded<16>, behind: u8 },
        6 => Rest { flag: bool, rest: &'a str },
        7 => Elements { count: u8, elements: &'a [[u8; 6]] },
        8 => Named { color: Color, options: Options },
        9 => Long { long: [u8; 1000], color: Color },
        10 => Counts { many: &'a [u8] as Counted<usize>, rest: &'a [u8] },
        11 => With { number: u16 } + Token,
        12 => Perhaps { name: &'a CStr } + Option<Token>,
    }
}

#[derive(Clone, Copy, TryFromBytes, IntoBytes, Immutable)]
#[repr(u32)]
#[allow(dead_code)]
enum Color {
    Red = 3,
    Green = 4,
}

#[derive(Clone, Copy, TryFromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Options {
    number: u16,
    first: bool,
    second: bool,
}

/// Many streams, each with a source of further choices.
fn streams() -> impl Iterator<Item = (Stream, Rng)> {
    (0..cases(1000).into()).map(|seed| {
        let mut rng = Rng::of(&[seed]);
        let input: Vec<u8> = (0..rng.below(1500)).map(|_| rng.number() as u8).collect();
        let parse = |message: Message<'_, Token>| Everything::try_from(message).map(drop);
        let mut u = Unstructured::new(&input);
        let stream = Stream::arbitrary(&mut u, Modern::new(), Everything::TYPES, parse);
        (stream.expect("arbitrary bytes are enough"), rng)
    })
}

/// Has a server take all of it: the types that it took, and why it stopped.
fn serve(stream: &Stream, rng: &mut Rng) -> (Vec<u32>, Option<Stopped<BadMessage<Token>>>) {
    let kernel = Kernel::ALL[rng.size_below(Kernel::ALL.len())];
    let mut pair = Pair::new(Modern::new(), kernel);
    pair.server.rx.allow_descriptors();
    let tokens = Tokens::default();
    stream.send(&mut pair.to_server, |at| tokens.open(at as u32));
    let calls = iter::repeat_with(|| 1 + rng.size_below(200)).take(100);
    let mut taken = Vec::new();
    let outcome = pair.exchange(calls, |message, _| {
        let msg_type = message.header.msg_type;
        Everything::try_from(message).map(|_| taken.push(msg_type))
    });
    let stopped = outcome.err();
    drop(pair);
    let given_back = matches!(stopped, Some(Stopped::Handler(_)));
    assert!(tokens.count() <= usize::from(given_back), "descriptors that nobody has are closed");
    (taken, stopped)
}

#[test]
fn a_stream_without_damage_is_taken_wholly() {
    for (stream, mut rng) in streams().filter(|(stream, _)| stream.damage.is_none()) {
        let (taken, stopped) = serve(&stream, &mut rng);
        assert_eq!((taken.len(), stopped), (stream.intact, None), "{stream:?}");
    }
}

#[test]
fn a_valid_message_of_each_type_is_found() {
    let mut found = BTreeSet::new();
    for (stream, mut rng) in streams() {
        found.extend(serve(&stream, &mut rng).0);
    }
    let all: BTreeSet<u32> = Everything::TYPES.iter().map(|(number, _)| *number).collect();
    assert_eq!(found, all);
}

#[test]
fn damage_is_what_it_is_said_to_be() {
    let mut seen = Vec::new();
    for (stream, mut rng) in streams() {
        let Some(damage) = stream.damage else {
            continue;
        };
        let (taken, stopped) = serve(&stream, &mut rng);
        let why = stopped.unwrap_or_else(|| panic!("{damage:?} is not noticed: {stream:?}"));
        let expected = match (&why, damage) {
            (Stopped::Handler(bad), Damage::Type) => bad.mistake == Mistake::Type,
            (Stopped::Handler(bad), Damage::Payload) => {
                matches!(bad.mistake, Mistake::Field { .. } | Mistake::TooLong { .. })
            }
            (Stopped::Handler(bad), Damage::Descriptor) => {
                matches!(bad.mistake, Mistake::Descriptor(_))
            }
            (Stopped::Server(Broken::Stream(error)), _) => matches!(
                (error, damage),
                (Error::Descriptor(_), Damage::Descriptor)
                    | (Error::Length { .. }, Damage::Length)
                    | (Error::Truncated { .. }, Damage::End)
            ),
            _ => false,
        };
        assert!(expected, "{damage:?}: {why:?}");
        if damage != Damage::Descriptor {
            assert_eq!(taken.len(), stream.intact, "{damage:?}");
        }
        if !seen.contains(&damage) {
            seen.push(damage);
        }
    }
    assert_eq!(seen.len(), 5, "each kind of damage is done: {seen:?}");
}

#[test]
fn damage_is_noticed_by_a_process_that_can_have_no_descriptor() {
    for (stream, _) in streams().filter(|(stream, _)| stream.damage.is_some()) {
        for kernel in Kernel::ALL {
            let mut pair = Pair::new(Modern::new(), kernel);
            pair.server.rx.allow_descriptors();
            let tokens = Tokens::default();
            stream.send(&mut pair.to_server, |at| tokens.open(at as u32));
            let calls = iter::repeat(Call { slots: 0, ..Call::UNLIMITED });
            let outcome =
                pair.exchange(calls, |message, _| Everything::try_from(message).map(drop));
            assert!(outcome.is_err(), "{stream:?}");
        }
    }
}

#[test]
fn an_empty_input_makes_an_empty_stream() {
    let parse = |message: Message<'_, Token>| Everything::try_from(message).map(drop);
    let mut u = Unstructured::new(&[]);
    let stream = Stream::arbitrary(&mut u, Modern::new(), Everything::TYPES, parse).unwrap();
    assert_eq!((stream.bytes.len(), stream.damage), (0, None));
}

#[test]
fn calls_are_small_and_at_times_without_a_slot() {
    let mut rng = Rng::of(&[1]);
    let input: Vec<u8> = iter::repeat_with(|| rng.number() as u8).take(1000).collect();
    let mut u = Unstructured::new(&input);
    let calls: Vec<Call> = (0..100).map(|_| u.arbitrary().unwrap()).collect();
    assert!(calls.iter().all(|call| call.bytes <= 255));
    assert!(calls.iter().any(|call| call.slots == 0) && calls.iter().any(|call| call.slots > 0));
}
