//! `RecvBuf` against the reference model, for all rules, whenever the program takes its messages.

use std::collections::BTreeSet;
use std::ops::Range;

use imsg_tests::effort::{self, Sample};
use imsg_tests::program::{Consumer, run};
use imsg_tests::reference::{End, Id, Outcome, Read, Script};
use imsg_wire::{
    Ancillary, Any, Descriptor, Endian, Error, Fault, Header, Missing, Modern, Pairing, RecvBuf,
    SendBuf, Violation,
};
use proptest::prelude::*;
use proptest::sample::Index;

const RULES: [Pairing; 3] = [Pairing::Exact, Pairing::Ordered, Pairing::Unmarked];

const DIALECTS: [Any; 4] = [
    Any::Classic(Endian::Little),
    Any::Classic(Endian::Big),
    Any::Modern(Endian::Little),
    Any::Modern(Endian::Big),
];

/// Room for all descriptors of any script below.
const MANY: usize = 16;

const HEADER: usize = 16;

const MAX_LEN: usize = 48;

// ---- What the model says of the faults whose outcome the documentation spells out

#[test]
fn a_marked_header_that_straddles_two_reads_gets_its_descriptor() {
    let outcome = script(Pairing::Exact, &[true], &[(9, ONE), (8, NOTHING)]).outcome();
    assert_eq!(descriptors(&outcome), [Descriptor::Here(0)]);
}

#[test]
fn exact_reports_a_descriptor_that_was_sent_without_a_mark() {
    let outcome = script(Pairing::Exact, &[false, true], &[(17, ONE), (17, ONE)]).outcome();
    assert_eq!(outcome.end, violated(Fault::Unclaimed, 17));
}

#[test]
fn ordered_reports_the_surplus_of_a_descriptor_that_was_sent_without_a_mark() {
    let outcome = script(Pairing::Ordered, &[false, true], &[(17, ONE), (17, ONE)]).outcome();
    assert_eq!(descriptors(&outcome), [Descriptor::None, Descriptor::Here(0)]);
    assert_eq!(outcome.end, violated(Fault::Unclaimed, 34));
}

#[test]
fn a_mark_without_a_descriptor_is_missing_when_the_next_one_is_read_apart() {
    for rule in [Pairing::Exact, Pairing::Ordered] {
        let outcome = script(rule, &[true, true], &[(17, NOTHING), (17, ONE)]).outcome();
        let expected = [Descriptor::Missing(Missing::NotSent), Descriptor::Here(1)];
        assert_eq!(descriptors(&outcome), expected, "{rule:?}");
    }
}

#[test]
fn exact_finds_two_marked_headers_in_one_range_ambiguous() {
    let outcome = script(Pairing::Exact, &[false, true, true], &[(51, ONE)]).outcome();
    assert_eq!(descriptors(&outcome), [Descriptor::None]);
    assert_eq!(outcome.end, violated(Fault::Ambiguous, 17));
}

#[test]
fn a_descriptor_that_the_kernel_dropped_is_reported_as_that() {
    for rule in [Pairing::Exact, Pairing::Ordered] {
        let outcome = script(rule, &[true, false], &[(17, DROPPED), (17, NOTHING)]).outcome();
        let expected = [Descriptor::Missing(Missing::Dropped), Descriptor::None];
        assert_eq!(descriptors(&outcome), expected, "{rule:?}");
        assert_eq!(outcome.end, End::Clean, "{rule:?}");
    }
}

#[test]
fn what_the_kernel_dropped_takes_no_room_once_its_messages_are_taken() {
    let mut queue: SendBuf<_, _, &str> = SendBuf::with_descriptors(Modern::new(), [0; 64]);
    queue.compose(Header::new(1), b"1", Some("1")).unwrap();
    queue.compose(Header::new(2), b"2", Some("2")).unwrap();
    let mut buffer: RecvBuf<_, _, &str, 2> = RecvBuf::with_descriptors(Modern::new(), [0; 64]);
    buffer.allow_descriptors();
    let mut read =
        |buffer: &mut RecvBuf<_, _, _, 2>, what, between: fn(&mut RecvBuf<_, _, _, 2>)| {
            let bytes = queue.chunk().unwrap().bytes;
            let n = bytes.len();
            buffer.spare().unwrap()[..n].copy_from_slice(bytes);
            between(buffer);
            buffer.commit(n, what).unwrap();
            queue.consume(n).unwrap();
        };
    read(&mut buffer, Ancillary::Dropped, |_| {});
    read(&mut buffer, Ancillary::One("2"), |buffer| {
        let first = buffer.next_message().unwrap().expect("the first message");
        assert_eq!(first.descriptor, Descriptor::Missing(Missing::Dropped));
        assert!(buffer.next_message().unwrap().is_none());
    });
    assert!(buffer.spare().is_ok(), "one of two places is free");
}

#[test]
fn exact_reports_a_descriptor_that_came_in_the_middle_of_a_message() {
    let reads = [(16, NOTHING), (1, ONE), (17, ONE)];
    let outcome = script(Pairing::Exact, &[true, true], &reads).outcome();
    assert_eq!(descriptors(&outcome), [Descriptor::Missing(Missing::NotSent)]);
    assert_eq!(outcome.end, violated(Fault::Unclaimed, 17));
}

#[test]
fn several_descriptors_at_once_are_reported_instead_of_the_first_marked_message() {
    for rule in RULES {
        let outcome = script(rule, &[false, true], &[(34, SEVERAL)]).outcome();
        assert_eq!(outcome.end, violated(Fault::Several, 17), "{rule:?}");
    }
}

#[test]
fn a_mark_before_passing_is_allowed_is_reported_as_that() {
    for allowed_after in [None, Some(1)] {
        let script = Script {
            allowed_after,
            ..script(Pairing::Exact, &[true, true], &[(17, NOTHING), (17, NOTHING)])
        };
        let second = if allowed_after.is_some() { Missing::NotSent } else { Missing::NotAllowed };
        let expected = [Missing::NotAllowed, second].map(Descriptor::Missing);
        assert_eq!(descriptors(&script.outcome()), expected);
    }
}

#[test]
fn a_batch_that_ends_with_its_mark_is_paired_by_order() {
    let reads = [(17, ONE), (34, NOTHING)];
    let outcome = script(Pairing::Ordered, &[false, false, true], &reads).outcome();
    let expected = [Descriptor::None, Descriptor::None, Descriptor::Here(0)];
    assert_eq!(descriptors(&outcome), expected);
}

#[test]
fn without_marks_the_last_message_that_starts_in_the_range_owns_the_descriptor() {
    let reads = [(18, ONE), (16, NOTHING)];
    let outcome = script(Pairing::Unmarked, &[false, false], &reads).outcome();
    assert_eq!(descriptors(&outcome), [Descriptor::None, Descriptor::Here(0)]);
}

#[test]
fn a_descriptor_that_came_without_a_byte_belongs_to_the_next_ones() {
    for rule in RULES {
        let outcome = script(rule, &[true], &[(0, ONE), (0, NOTHING), (17, NOTHING)]).outcome();
        assert_eq!(descriptors(&outcome), [Descriptor::Here(0)], "{rule:?}");
    }
}

#[test]
fn a_descriptor_that_comes_once_more_takes_the_place_of_one_that_came_without_a_byte() {
    for rule in RULES {
        let reads = [(0, ONE), (0, ONE), (9, ONE), (8, NOTHING)];
        let outcome = script(rule, &[true], &reads).outcome();
        assert_eq!(descriptors(&outcome), [Descriptor::Here(2)], "{rule:?}");
        assert_eq!(outcome.end, End::Clean, "{rule:?}");
    }
}

#[test]
fn what_was_lost_before_a_batch_is_missed_by_the_mark_at_its_end() {
    let reads = [(0, DROPPED), (9, NOTHING), (42, ONE)];
    let outcome = script(Pairing::Ordered, &[false, true, true], &reads).outcome();
    let dropped = Descriptor::Missing(Missing::Dropped);
    assert_eq!(descriptors(&outcome), [Descriptor::None, dropped, Descriptor::Here(2)]);
}

#[test]
fn something_lost_and_something_more_before_the_same_byte_are_several() {
    for what in [ONE, DROPPED, SEVERAL] {
        for rule in RULES {
            let outcome = script(rule, &[true], &[(0, DROPPED), (17, what)]).outcome();
            assert_eq!(outcome.end, violated(Fault::Several, 0), "{rule:?}, {what:?}");
        }
    }
}

#[test]
fn what_came_without_a_byte_at_the_end_has_no_message() {
    for (what, end) in [
        (ONE, violated(Fault::Unclaimed, 17)),
        (SEVERAL, violated(Fault::Several, 17)),
        (DROPPED, End::Clean),
    ] {
        for rule in RULES {
            let outcome = script(rule, &[false], &[(17, NOTHING), (0, what)]).outcome();
            assert_eq!(outcome.end, end, "{rule:?}");
        }
    }
}

#[test]
fn a_descriptor_that_came_ahead_of_its_bytes_waits_for_its_message() {
    let mut buffer: RecvBuf<_, _, &str> = RecvBuf::with_descriptors(Modern::new(), [0; 64]);
    buffer.allow_descriptors();
    for (what, unfinished) in [(Ancillary::Nothing, None), (Ancillary::One("1"), Some(0))] {
        buffer.spare().unwrap();
        buffer.commit(0, what).unwrap();
        assert_eq!(buffer.unfinished(), unfinished);
        assert!(!buffer.is_ready());
    }
}

// ---- Random streams

proptest! {
    #![proptest_config(ProptestConfig { cases: effort::cases(1000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_and_errors_are_those_of_the_model(
        plan in plans(),
        rule in rules(),
        steps in steps(),
    ) {
        let script = plan.script(rule, MANY);
        let expected = script.outcome();
        for consumer in Consumer::all(&steps) {
            let run = run::<MANY>(&script, consumer);
            prop_assert_eq!(&run.outcome, &expected, "{:?} of {:?}", consumer, script);
        }
    }

    #[test]
    fn a_full_queue_of_descriptors_fails_at_the_same_offset_whenever_messages_are_taken(
        plan in plans(),
        rule in rules(),
        steps in steps(),
    ) {
        let (two, three) = (plan.script(rule, 2), plan.script(rule, 3));
        for consumer in Consumer::all(&steps) {
            let run = run::<2>(&two, consumer);
            prop_assert_eq!(&run.outcome, &two.outcome(), "{:?} of {:?}", consumer, two);
        }
        for consumer in Consumer::all(&steps) {
            let run = run::<3>(&three, consumer);
            prop_assert_eq!(&run.outcome, &three.outcome(), "{:?} of {:?}", consumer, three);
        }
    }

    #[test]
    fn a_failed_buffer_has_closed_all_that_it_did_not_deliver(
        plan in plans(),
        rule in rules(),
        steps in steps(),
    ) {
        let script = plan.script(rule, 3);
        let must_be_closed = script.closed(&script.outcome());
        for consumer in Consumer::all(&steps) {
            let run = run::<3>(&script, consumer);
            let expected: BTreeSet<Id> = must_be_closed.intersection(&run.received).copied().collect();
            prop_assert_eq!(&run.closed_early, &expected, "{:?} of {:?}", consumer, script);
        }
    }

    #[test]
    fn each_descriptor_is_delivered_or_closed_once(
        plan in plans(),
        rule in rules(),
        steps in steps(),
    ) {
        let script = plan.script(rule, 3);
        for consumer in Consumer::all(&steps) {
            let run = run::<3>(&script, consumer);
            let mut accounted = [run.delivered, run.closed].concat();
            accounted.sort_unstable();
            let received: Vec<Id> = run.received.into_iter().collect();
            prop_assert_eq!(accounted, received, "{:?} of {:?}", consumer, script);
        }
    }

    #[test]
    fn a_buffer_is_ready_exactly_when_there_is_a_message_or_an_error(
        plan in plans(),
        rule in rules(),
        steps in steps(),
    ) {
        let script = plan.script(rule, 3);
        for consumer in Consumer::all(&steps) {
            let run = run::<3>(&script, consumer);
            prop_assert_eq!(run.ready_wrongly, None, "{:?} of {:?}", consumer, script);
        }
    }

    #[test]
    fn after_its_last_message_a_buffer_always_says_the_same(
        plan in plans(),
        rule in rules(),
        steps in steps(),
    ) {
        let script = plan.script(rule, 3);
        for consumer in Consumer::all(&steps) {
            let run = run::<3>(&script, consumer);
            prop_assert!(run.end_stays, "{:?} of {:?}", consumer, script);
        }
    }
}

// ---- All small streams

#[test]
fn exact_is_its_text_on_all_small_schedules() {
    compare_all_small_schedules(Pairing::Exact);
}

#[test]
fn ordered_is_its_text_on_all_small_schedules() {
    compare_all_small_schedules(Pairing::Ordered);
}

#[test]
fn unmarked_is_its_text_on_all_small_schedules() {
    compare_all_small_schedules(Pairing::Unmarked);
}

/// The rules compare nothing but where reads begin and end with where headers and messages do, so
/// one cut in the middle of a header stands for all in there.
fn compare_all_small_schedules(rule: Pairing) {
    let (mut beside, mut dropped, mut several) = (0, 0, 0);
    for n in 1..=4 {
        let inside = (0..n).flat_map(|i| [17 * i, 17 * i + 8, 17 * i + 16]).skip(1).collect();
        beside += compare_all(rule, &[1; 4][..n], &subsets(inside), &[NOTHING, ONE]);

        let without_payload: Vec<usize> = (1..2 * n).map(|i| 8 * i).collect();
        let cuts = subsets(without_payload);
        dropped += compare_all(rule, &[0; 4][..n], &cuts, &[NOTHING, ONE, DROPPED]);
        if n <= 3 {
            several += compare_all(rule, &[0; 4][..n], &cuts, &[NOTHING, ONE, DROPPED, SEVERAL]);
        }
    }
    // Before each read, and behind the last one, one that brings no byte.
    let twice = |n: usize| {
        let around = |cuts: Vec<usize>| {
            let mut cuts = [&[0, 16 * n], &cuts[..], &cuts[..]].concat();
            cuts.sort_unstable();
            cuts
        };
        subsets((1..2 * n).map(|i| 8 * i).collect()).into_iter().map(around).collect::<Vec<_>>()
    };
    let without_bytes = compare_all(rule, &[0; 1], &twice(1), &[NOTHING, ONE, DROPPED, SEVERAL])
        + compare_all(rule, &[0; 2], &twice(2), &[NOTHING, ONE, DROPPED]);

    let anywhere = up_to_two_of(1..16 + 17 + 18 + 19);
    let anywhere = compare_all(rule, &[0, 1, 2, 3], &anywhere, &[NOTHING, ONE]);

    println!("{rule:?}: up to four messages, a descriptor or none with each read: {beside}");
    println!("{rule:?}: the same without payloads, and what the kernel dropped: {dropped}");
    println!("{rule:?}: up to three messages, and several descriptors at once: {several}");
    println!("{rule:?}: up to two messages, and reads without bytes: {without_bytes}");
    println!("{rule:?}: four messages in up to three reads that end anywhere: {anywhere}");
    // Each possible cut is not made, or made and followed by a read of one of k kinds; what comes
    // with the first read is free: k * (k + 1) ^ cuts, for all of the marks.
    let all = |n: u32, cuts: u32, kinds: u64| 2_u64.pow(n) * kinds * (kinds + 1).pow(cuts);
    assert_eq!(beside, (1..=4).map(|n| all(n, 3 * n - 1, 2)).sum::<u64>());
    assert_eq!(dropped, (1..=4).map(|n| all(n, 2 * n - 1, 3)).sum::<u64>());
    assert_eq!(several, (1..=3).map(|n| all(n, 2 * n - 1, 4)).sum::<u64>());
    // With those that bring no byte, each cut that is made is followed by two reads.
    let twice =
        |n: u32, cuts: u32, kinds: u64| 2_u64.pow(n) * kinds.pow(3) * (kinds.pow(2) + 1).pow(cuts);
    assert_eq!(without_bytes, twice(1, 1, 4) + twice(2, 3, 3));
    assert_eq!(anywhere, 16 * (2 + 69 * 2 * 2 + 69 * 68 / 2 * 2 * 2 * 2));
}

/// Compares all streams of messages with such payloads, marked in all ways, cut in each of these
/// ways, with each of these kinds beside each read. Returns how many they are.
fn compare_all(
    rule: Pairing,
    payloads: &[usize],
    cuts: &[Vec<usize>],
    kinds: &[Ancillary<()>],
) -> u64 {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..1_usize << payloads.len())
            .map(|marks| scope.spawn(move || compare_marked(rule, payloads, marks, cuts, kinds)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Bit n of `marks` says whether message n is marked.
fn compare_marked(
    rule: Pairing,
    payloads: &[usize],
    marks: usize,
    cuts: &[Vec<usize>],
    kinds: &[Ancillary<()>],
) -> u64 {
    let messages = (0..payloads.len()).map(|i| (marks >> i & 1 == 1, payloads[i]));
    let mut script = stream(rule, messages);
    let (mut count, mut sample) = (0, Sample::default());
    for cuts in cuts {
        let lens = lens(script.bytes.len(), cuts);
        let choices = kinds.len().pow(lens.len() as u32);
        for choice in sample.of(choices) {
            let brought = (0..).map(|i| kinds[choice / kinds.len().pow(i) % kinds.len()]);
            let reads = (0..).zip(lens.iter().zip(brought));
            script.reads.clear();
            script.reads.extend(reads.map(|(id, (len, what))| read(*len, id, what)));
            compare(&script);
        }
        count += choices as u64;
    }
    count
}

/// Nobody takes messages earlier or later than these two.
fn compare(script: &Script) {
    let expected = script.outcome();
    for consumer in [Consumer::Eager, Consumer::Lazy] {
        let run = run::<MANY>(script, consumer);
        assert_eq!(run.outcome, expected, "{consumer:?} of {script:?}");
        assert_eq!(run.ready_wrongly, None, "{consumer:?} of {script:?}");
        assert!(run.end_stays, "{consumer:?} of {script:?}");
        let accounted = run.delivered.len() + run.closed.len();
        assert_eq!(accounted, run.received.len(), "{consumer:?} of {script:?}");
    }
}

fn subsets(of: Vec<usize>) -> Vec<Vec<usize>> {
    let chosen = |set: usize| (0..of.len()).filter(move |i| set >> i & 1 == 1);
    (0..1_usize << of.len()).map(|set| chosen(set).map(|i| of[i]).collect()).collect()
}

fn up_to_two_of(of: Range<usize>) -> Vec<Vec<usize>> {
    let end = of.end;
    let pairs =
        of.clone().flat_map(|first| (first + 1..end).map(move |second| vec![first, second]));
    std::iter::once(vec![]).chain(of.map(|only| vec![only])).chain(pairs).collect()
}

// ---- Scripts by hand

const NOTHING: Ancillary<()> = Ancillary::Nothing;
const ONE: Ancillary<()> = Ancillary::One(());
const SEVERAL: Ancillary<()> = Ancillary::Several;
const DROPPED: Ancillary<()> = Ancillary::Dropped;

/// A stream that ends after messages of 17 bytes, marked or not. The descriptor that comes with
/// the n-th read is named n.
fn script(rule: Pairing, marks: &[bool], reads: &[(usize, Ancillary<()>)]) -> Script {
    Script {
        reads: (0..).zip(reads).map(|(id, (len, what))| read(*len, id, *what)).collect(),
        ..stream(rule, marks.iter().map(|marked| (*marked, 1)))
    }
}

/// A stream of messages, marked or not, with payloads of so many bytes; not yet cut into reads.
fn stream(rule: Pairing, messages: impl Iterator<Item = (bool, usize)>) -> Script {
    let dialect = Any::Modern(Endian::NATIVE);
    let mut bytes = Vec::new();
    for (id, (marked, payload)) in (0..).zip(messages) {
        let len = (HEADER + payload) as u32;
        put(&mut bytes, dialect, Header { id, ..Header::new(1) }, len, marked, 0);
        bytes.extend(std::iter::repeat_n(b'!', payload));
    }
    Script {
        dialect,
        max_len: MAX_LEN,
        rule,
        bytes,
        reads: Vec::new(),
        allowed_after: Some(0),
        ended: true,
        capacity: MANY,
    }
}

fn read(len: usize, id: Id, what: Ancillary<()>) -> Read {
    let brought = match what {
        Ancillary::Nothing => Ancillary::Nothing,
        Ancillary::One(()) => Ancillary::One(id),
        Ancillary::Several => Ancillary::Several,
        Ancillary::Dropped => Ancillary::Dropped,
    };
    Read { len, brought }
}

/// The lengths of the pieces of `total` bytes that are cut at all of `cuts`, in order.
fn lens(total: usize, cuts: &[usize]) -> Vec<usize> {
    let starts = std::iter::once(&0).chain(cuts);
    let ends = cuts.iter().chain(std::iter::once(&total));
    starts.zip(ends).map(|(start, end)| end - start).collect()
}

fn put(
    bytes: &mut Vec<u8>,
    dialect: Any,
    header: Header,
    len: u32,
    marked: bool,
    other_flags: u16,
) {
    let (order, words) = match dialect {
        Any::Classic(order) => {
            let flags = u32::from(other_flags & !1 | u16::from(marked));
            (order, if order == Endian::Little { flags << 16 | len } else { len << 16 | flags })
        }
        Any::Modern(order) => (order, len | u32::from(marked) << 31),
    };
    for word in [header.msg_type, words, header.id, header.pid] {
        bytes.extend(match order {
            Endian::Little => word.to_le_bytes(),
            Endian::Big => word.to_be_bytes(),
        });
    }
}

fn violated(fault: Fault, offset: u64) -> End {
    End::Failed(Error::Descriptor(Violation { fault, offset }))
}

fn descriptors(outcome: &Outcome) -> Vec<Descriptor<Id>> {
    outcome.messages.iter().map(|message| message.descriptor).collect()
}

// ---- Scripts at random

/// A script as it is drawn: choices that are good for any stream, so that each can be shrunk
/// without regard to the others.
#[derive(Clone, Debug)]
struct Plan {
    dialect: Any,
    messages: Vec<Planned>,
    /// How many bytes are missing at the end.
    missing: usize,
    cuts: Vec<Cut>,
    sender: Sender,
    /// What comes with each read; one after the other, over and over.
    brought: Vec<Brought>,
    allowed_after: Option<Index>,
    ended: bool,
}

#[derive(Clone, Debug)]
struct Planned {
    header: Header,
    payload: Vec<u8>,
    marked: bool,
    other_flags: u16,
    /// A length that the header states in place of the right one.
    wrong_len: Option<u32>,
}

#[derive(Clone, Debug)]
enum Cut {
    /// Next to where a header or a message starts or ends.
    Near(Index, isize),
    Anywhere(Index),
}

/// The message with which the descriptor of a marked one comes, if all is in order.
#[derive(Clone, Copy, Debug)]
enum Sender {
    /// The marked one.
    Begins,
    /// The first one behind the marked one before.
    Ends,
}

#[derive(Clone, Copy, Debug)]
enum Brought {
    /// A descriptor if the sender attached one.
    InOrder,
    Whatever(Ancillary<()>),
}

impl Plan {
    fn script(&self, rule: Pairing, capacity: usize) -> Script {
        let mut bytes = Vec::new();
        let mut near = Vec::new();
        let mut attached = Vec::new();
        let mut batch = 0;
        for message in &self.messages {
            let start = bytes.len();
            let len = HEADER + message.payload.len();
            let stated = message.wrong_len.unwrap_or(len as u32);
            let Planned { header, marked, other_flags, .. } = *message;
            put(&mut bytes, self.dialect, header, stated, marked, other_flags);
            bytes.extend(&message.payload);
            near.extend([start, start + HEADER, start + len]);
            if marked {
                attached.push(match self.sender {
                    Sender::Begins => start,
                    Sender::Ends => batch,
                });
                batch = start + len;
            }
        }
        bytes.truncate(bytes.len() - self.missing.min(bytes.len()));
        let total = bytes.len();
        let mut cuts: Vec<usize> = self
            .cuts
            .iter()
            .map(|cut| match cut {
                Cut::Near(index, delta) => index.get(&near).saturating_add_signed(*delta),
                Cut::Anywhere(index) => index.index(total + 1),
            })
            .map(|at| at.min(total))
            .collect();
        cuts.sort_unstable();
        let mut start = 0;
        let mut reads = Vec::new();
        for (id, len) in (0..).zip(lens(total, &cuts)) {
            let in_order = attached.iter().any(|at| (start..start + len).contains(at));
            let what = match self.brought[id as usize % self.brought.len()] {
                Brought::InOrder => {
                    if in_order {
                        ONE
                    } else {
                        NOTHING
                    }
                }
                Brought::Whatever(what) => what,
            };
            reads.push(read(len, id, what));
            start += len;
        }
        let allowed_after = self.allowed_after.map(|index| index.index(reads.len()));
        Script {
            dialect: self.dialect,
            max_len: MAX_LEN,
            rule,
            bytes,
            reads,
            allowed_after,
            ended: self.ended,
            capacity,
        }
    }
}

prop_compose! {
    fn plans()(
        dialect in prop::sample::select(&DIALECTS[..]),
        messages in prop::collection::vec(planned(), 1..8),
        missing in prop_oneof![4 => Just(0_usize), 1 => 1..40_usize],
        cuts in prop::collection::vec(cuts(), 0..12),
        sender in prop_oneof![Just(Sender::Begins), Just(Sender::Ends)],
        brought in prop::collection::vec(brought(), 1..13),
        allowed_after in prop_oneof![
            3 => any::<Index>().prop_map(Some),
            1 => Just(None),
        ],
        ended in any::<bool>(),
    ) -> Plan {
        Plan { dialect, messages, missing, cuts, sender, brought, allowed_after, ended }
    }
}

prop_compose! {
    fn planned()(
        (msg_type, id, pid) in any::<(u32, u32, u32)>(),
        payload in prop_oneof![
            1 => Just(Vec::new()),
            3 => prop::collection::vec(any::<u8>(), 0..=MAX_LEN - HEADER),
        ],
        marked in any::<bool>(),
        other_flags in any::<u16>(),
        wrong_len in prop_oneof![
            30 => Just(None),
            1 => prop::sample::select(&[0, 15, MAX_LEN as u32 + 1, 0xffff][..]).prop_map(Some),
        ],
    ) -> Planned {
        Planned { header: Header { msg_type, id, pid }, payload, marked, other_flags, wrong_len }
    }
}

fn cuts() -> impl Strategy<Value = Cut> {
    prop_oneof![
        4 => (any::<Index>(), -1..=1_isize).prop_map(|(index, delta)| Cut::Near(index, delta)),
        1 => any::<Index>().prop_map(Cut::Anywhere),
    ]
}

fn brought() -> impl Strategy<Value = Brought> {
    prop_oneof![
        24 => Just(Brought::InOrder),
        4 => Just(Brought::Whatever(NOTHING)),
        4 => Just(Brought::Whatever(ONE)),
        4 => Just(Brought::Whatever(DROPPED)),
        1 => Just(Brought::Whatever(SEVERAL)),
    ]
}

fn rules() -> impl Strategy<Value = Pairing> {
    prop::sample::select(&RULES[..])
}

fn steps() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..4_u8, 1..6)
}
