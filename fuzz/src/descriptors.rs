//! Which message gets which descriptor, against a model that applies the rules literally.

use arbitrary::{Arbitrary, Result, Unstructured};
use imsg_tests::program::{Consumer, run};
use imsg_tests::reference::{Read, Script};
use imsg_wire::{Ancillary, Any, Dialect, Frame, Header, Pairing};

use crate::script;

const HEADER: usize = 16;
const MAX_LEN: usize = 64;

/// Sends messages of any marks and lengths, has them read in any pieces with anything beside them,
/// and takes them at any times. What comes out has to be what the model says.
pub fn descriptors(data: &[u8]) {
    if let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(data)) {
        plan.check::<2>();
        plan.check::<3>();
        plan.check::<16>();
    }
}

struct Plan {
    dialect: Any,
    rule: Pairing,
    allowed_after: Option<u8>,
    ended: bool,
    missing: u8,
    steps: [u8; 4],
    messages: Vec<Planned>,
    reads: Vec<(u8, Brought)>,
}

struct Planned {
    marked: bool,
    payload: u8,
    wrong_len: Option<u16>,
}

#[derive(Clone, Copy)]
enum Brought {
    Nothing,
    One,
    Several,
    Dropped,
}

impl Arbitrary<'_> for Plan {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let rules = [Pairing::Exact, Pairing::Ordered, Pairing::Unmarked];
        let messages = u.int_in_range(0..=12)?;
        Ok(Self {
            dialect: script::dialect(u)?,
            rule: *u.choose(&rules)?,
            allowed_after: u.arbitrary()?,
            ended: u.arbitrary()?,
            missing: u.arbitrary()?,
            steps: u.arbitrary()?,
            messages: (0..messages).map(|_| u.arbitrary()).collect::<Result<_>>()?,
            reads: script::rest(u, 24)?,
        })
    }
}

impl Arbitrary<'_> for Planned {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let wrong = u.ratio(1, 16)?;
        Ok(Self {
            marked: u.arbitrary()?,
            payload: u.arbitrary()?,
            wrong_len: if wrong { Some(u.arbitrary()?) } else { None },
        })
    }
}

impl Arbitrary<'_> for Brought {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match u.int_in_range(0..=7)? {
            0..=2 => Self::Nothing,
            3..=5 => Self::One,
            6 => Self::Several,
            _ => Self::Dropped,
        })
    }
}

impl Plan {
    fn check<const N: usize>(&self) {
        let script = self.script(N);
        let outcome = script.outcome();
        let closed = script.closed(&outcome);
        let steps = self.steps.map(|step| step % 4);
        for consumer in Consumer::all(&steps) {
            let run = run::<N>(&script, consumer);
            assert_eq!(run.outcome, outcome, "{consumer:?}");
            assert!(run.end_stays, "{consumer:?}");
            assert_eq!(run.ready_wrongly, None, "{consumer:?}");
            let mut accounted = [&run.closed[..], &run.delivered[..]].concat();
            accounted.sort_unstable();
            assert!(accounted.iter().eq(&run.received), "{consumer:?}");
            let closed = closed.intersection(&run.received).copied().collect();
            assert_eq!(run.closed_early, closed, "{consumer:?}");
        }
    }

    fn script(&self, capacity: usize) -> Script {
        let dialect = self.dialect;
        let mut bytes = Vec::new();
        for (msg_type, message) in (0..).zip(&self.messages) {
            let payload = usize::from(message.payload) % (MAX_LEN - HEADER + 1);
            let len = message.wrong_len.map_or(HEADER + payload, usize::from);
            let header = Header::new(msg_type);
            bytes.extend(dialect.encode(&Frame { header, len, marked: message.marked }));
            bytes.extend(std::iter::repeat_n(msg_type as u8, payload));
        }
        bytes.truncate(bytes.len() - usize::from(self.missing).min(bytes.len()));

        let mut reads = Vec::new();
        let mut left = bytes.len();
        let mut wanted = self.reads.iter();
        while left > 0 {
            let (len, brought) = wanted.next().copied().unwrap_or((u8::MAX, Brought::Nothing));
            // Some bring no byte.
            let len = usize::from(len).min(left);
            let brought = match brought {
                Brought::Nothing => Ancillary::Nothing,
                Brought::One => Ancillary::One(reads.len() as u32),
                Brought::Several => Ancillary::Several,
                Brought::Dropped => Ancillary::Dropped,
            };
            reads.push(Read { len, brought });
            left -= len;
        }
        Script {
            dialect,
            max_len: MAX_LEN,
            rule: self.rule,
            bytes,
            allowed_after: self.allowed_after.map(|n| usize::from(n) % (reads.len() + 1)),
            reads,
            ended: self.ended,
            capacity,
        }
    }
}
