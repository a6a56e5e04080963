//! A reference model of receiving: what must come out of a stream, straight from the text of the
//! pairing rules.
//!
//! [`RecvBuf`](imsg_wire::RecvBuf) sees one read after the other and keeps a queue. The model
//! looks at the whole stream at once: it finds all headers first, then decides for each read by
//! asking which of all headers could own what came with it. It is slow, and shares no code with
//! `imsg-wire`, only the types of the results.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use imsg_wire::{
    Ancillary, Any, BadLength, Descriptor, Endian, Error, Fault, Header, Missing, Pairing,
    Violation,
};

/// The name of a descriptor. Each descriptor of a script has its own.
pub type Id = u32;

/// Everything that decides what a receiver gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The dialect that the bytes are read in.
    pub dialect: Any,
    /// The largest message accepted, in bytes, header included.
    pub max_len: usize,
    /// The rule that pairs descriptors with messages.
    pub rule: Pairing,
    /// All bytes of the stream.
    pub bytes: Vec<u8>,
    /// The reads that bring all of the bytes.
    pub reads: Vec<Read>,
    /// After how many reads passing is allowed; `None` for never.
    pub allowed_after: Option<usize>,
    /// Whether the stream ends after the last read.
    pub ended: bool,
    /// How many descriptors can be held.
    pub capacity: usize,
}

/// One read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// How many bytes it brings. What comes with none belongs to the next ones.
    pub len: usize,
    /// What it brings beside them.
    pub brought: Ancillary<Id>,
}

/// What a receiver gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The messages, in order.
    pub messages: Vec<Delivered>,
    /// What comes after the last of them.
    pub end: End,
    /// Where the next message starts.
    pub offset: u64,
}

/// A message as it is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// What the program sees of the header.
    pub header: Header,
    /// The payload.
    pub payload: Vec<u8>,
    /// The descriptor, or why there is none.
    pub descriptor: Descriptor<Id>,
}

/// What comes after the last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing yet: the stream goes on.
    Waiting,
    /// The stream ended where a message ended, and everything is accounted for.
    Clean,
    /// This error, and the same again whenever the receiver is asked.
    Failed(Error),
}

impl Script {
    /// What a receiver gets, however it mixes reading and taking messages.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        // A queue overflows at the first read before which it is full, when all is taken that came
        // with the reads before.
        for reads in self.capacity..self.reads.len() {
            let so_far = self.prefix(reads);
            let mut outcome = so_far.unlimited();
            if matches!(outcome.end, End::Failed(_)) {
                return outcome;
            }
            if so_far.held(&outcome) >= self.capacity {
                outcome.end = End::Failed(Error::TooManyDescriptors {
                    offset: outcome.offset,
                    capacity: self.capacity,
                });
                return outcome;
            }
        }
        self.unlimited()
    }

    /// The descriptors that the receiver must have closed itself by the time it has returned all
    /// of `outcome`; of those that are only read later it knows nothing.
    #[must_use]
    pub fn closed(&self, outcome: &Outcome) -> BTreeSet<Id> {
        let delivered = outcome.delivered();
        let (arrivals, kept) = self.arrivals();
        let mut heard: BTreeSet<Id> = arrivals.iter().filter_map(Arrival::descriptor).collect();
        heard.extend(one(kept));
        self.descriptors()
            .into_iter()
            .filter(|id| !delivered.contains(id))
            .filter(|id| matches!(outcome.end, End::Failed(_)) || !heard.contains(id))
            .collect()
    }

    /// All descriptors that come with the reads.
    #[must_use]
    pub fn descriptors(&self) -> BTreeSet<Id> {
        self.reads.iter().filter_map(|read| one(read.brought)).collect()
    }

    /// The script up to the first `reads` reads, with the stream going on.
    fn prefix(&self, reads: usize) -> Self {
        let reads = self.reads[..reads].to_vec();
        let len = reads.iter().map(|read| read.len).sum();
        Self { bytes: self.bytes[..len].to_vec(), reads, ended: false, ..self.clone() }
    }

    /// The outcome for a receiver that can hold any number of descriptors.
    fn unlimited(&self) -> Outcome {
        let stream = self.parse();
        let (arrivals, kept) = self.arrivals();
        let verdict = match self.rule {
            Pairing::Exact => exact(&stream, &arrivals),
            Pairing::Ordered => ordered(&stream, &arrivals),
            Pairing::Unmarked => unmarked(&stream, &arrivals),
        };
        let mut messages = Vec::new();
        for message in &stream.messages {
            let stop = verdict
                .before(message.start)
                .or_else(|| self.unfinished(message.start, message.len()))
                .or_else(|| verdict.instead_of(message.start));
            if let Some(end) = stop {
                return Outcome { messages, end, offset: message.start };
            }
            messages.push(Delivered {
                header: message.header,
                payload: self.bytes[message.header_end() as usize..message.end as usize].to_vec(),
                descriptor: verdict
                    .descriptors
                    .get(&message.start)
                    .copied()
                    .unwrap_or_else(|| self.without(message)),
            });
        }
        let offset = stream.rest;
        let end = verdict
            .before(offset)
            .or_else(|| stream.refused.map(|error| End::Failed(Error::Length { offset, error })))
            .or_else(|| self.unfinished(offset, HEADER))
            .or_else(|| self.left_over(&arrivals, kept, &verdict))
            .unwrap_or(if self.ended { End::Clean } else { End::Waiting });
        Outcome { messages, end, offset }
    }

    /// How the stream ends when there are some, but not all, of the `need` bytes at `offset`.
    fn unfinished(&self, offset: u64, need: usize) -> Option<End> {
        let have = self.bytes.len() - offset as usize;
        if have == 0 || have >= need {
            return None;
        }
        Some(match self.ended {
            true => End::Failed(Error::Truncated { offset, have, need }),
            false => End::Waiting,
        })
    }

    /// How the stream ends when a descriptor is still without an owner, or came without a byte.
    fn left_over(
        &self,
        arrivals: &[Arrival],
        kept: Ancillary<Id>,
        verdict: &Verdict,
    ) -> Option<End> {
        let owned = |id| verdict.descriptors.values().any(|it| *it == Descriptor::Here(id));
        let left = arrivals.iter().filter_map(Arrival::descriptor).any(|id| !owned(id));
        let offset = self.bytes.len() as u64;
        let fault = match kept {
            _ if !self.ended => return None,
            _ if left => Fault::Unclaimed,
            Ancillary::One(_) => Fault::Unclaimed,
            Ancillary::Several => Fault::Several,
            Ancillary::Nothing | Ancillary::Dropped => return None,
        };
        Some(violation(fault, offset))
    }

    /// What a message carries that owns nothing.
    fn without(&self, message: &Framed) -> Descriptor<Id> {
        let allowed_from = self
            .allowed_after
            .map(|reads| self.reads.iter().take(reads).map(|read| read.len as u64).sum::<u64>());
        match allowed_from {
            _ if !message.marked => Descriptor::None,
            Some(offset) if offset <= message.start => Descriptor::Missing(Missing::NotSent),
            _ => Descriptor::Missing(Missing::NotAllowed),
        }
    }

    /// How many descriptors, present or dropped by the kernel, still wait after `outcome`.
    fn held(&self, outcome: &Outcome) -> usize {
        let (arrivals, _) = self.arrivals();
        if arrivals.iter().any(|arrival| arrival.brought == Ancillary::Several) {
            // Such a stream is broken, whatever comes. Nothing more is kept of it.
            return 0;
        }
        if self.rule == Pairing::Ordered {
            let served = |message: &&Delivered| {
                matches!(
                    message.descriptor,
                    Descriptor::Here(_) | Descriptor::Missing(Missing::Dropped)
                )
            };
            return arrivals.len() - outcome.messages.iter().filter(served).count();
        }
        let delivered = outcome.delivered();
        let waits = |arrival: &&Arrival| match arrival.descriptor() {
            Some(id) => !delivered.contains(&id),
            None => outcome.offset < arrival.range.end,
        };
        arrivals.iter().filter(waits).count()
    }

    /// What comes beside the bytes, up to the first range with several descriptors: it breaks the
    /// stream, so that later ones do not matter. And what came since the last byte.
    fn arrivals(&self) -> (Vec<Arrival>, Ancillary<Id>) {
        let mut arrivals = Vec::new();
        let mut since = Vec::new();
        let mut start = 0;
        for read in &self.reads {
            since.push(read.brought);
            if read.len == 0 {
                continue;
            }
            let end = start + read.len as u64;
            let brought = together(&since);
            since.clear();
            if brought != Ancillary::Nothing {
                arrivals.push(Arrival { range: start..end, brought });
            }
            if brought == Ancillary::Several {
                break;
            }
            start = end;
        }
        (arrivals, together(&since))
    }

    /// Finds all headers.
    fn parse(&self) -> Stream {
        let mut stream = Stream { messages: Vec::new(), rest: 0, refused: None };
        while let Some(raw) = self.bytes.get(stream.rest as usize..)
            && let Some(raw) = raw.first_chunk()
        {
            let start = stream.rest;
            let (header, len, marked) = decode(self.dialect, raw);
            if len < HEADER || len > self.max_len {
                stream.refused = Some(BadLength { len, min: HEADER, max: self.max_len });
                break;
            }
            let end = start + len as u64;
            stream.messages.push(Framed { header, marked, start, end });
            stream.rest = end;
        }
        stream
    }
}

impl Outcome {
    /// The descriptors that came with the messages.
    #[must_use]
    pub fn delivered(&self) -> BTreeSet<Id> {
        let id = |message: &Delivered| match message.descriptor {
            Descriptor::Here(id) => Some(id),
            _ => None,
        };
        self.messages.iter().filter_map(id).collect()
    }
}

/// What belongs to the bytes that came with the last of these, when the others came without a byte:
/// the last descriptor, as a send is tried again only with what it had before. Where one of them
/// says that something was lost, nobody knows what.
fn together(brought: &[Ancillary<Id>]) -> Ancillary<Id> {
    let mut some = brought.iter().filter(|it| **it != Ancillary::Nothing).rev();
    let Some(last) = some.next() else {
        return Ancillary::Nothing;
    };
    if some.all(|before| matches!(before, Ancillary::One(_))) { *last } else { Ancillary::Several }
}

fn one(brought: Ancillary<Id>) -> Option<Id> {
    match brought {
        Ancillary::One(id) => Some(id),
        _ => None,
    }
}

/// The bytes of a header.
const HEADER: usize = 16;

/// The bytes of a stream, as messages.
struct Stream {
    /// The messages whose headers are whole. The last one may be incomplete.
    messages: Vec<Framed>,
    /// Where the message starts whose header is not whole, or refused.
    rest: u64,
    refused: Option<BadLength>,
}

struct Framed {
    header: Header,
    marked: bool,
    start: u64,
    end: u64,
}

impl Framed {
    fn header_end(&self) -> u64 {
        self.start + HEADER as u64
    }

    fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

/// What came beside the bytes of a range.
struct Arrival {
    range: Range<u64>,
    brought: Ancillary<Id>,
}

impl Arrival {
    fn descriptor(&self) -> Option<Id> {
        one(self.brought)
    }
}

/// What a rule says about a stream.
#[derive(Default)]
struct Verdict {
    /// What the message that starts at an offset owns.
    descriptors: BTreeMap<u64, Descriptor<Id>>,
    /// Reported instead of the message at their offset.
    instead: Vec<Violation>,
    /// Reported before the first message that starts at their offset or later.
    before: Vec<Violation>,
}

impl Verdict {
    fn own(&mut self, message: u64, descriptor: Descriptor<Id>) {
        let before = self.descriptors.insert(message, descriptor);
        assert_eq!(before, None, "two descriptors for the message at {message}");
    }

    fn instead_of(&self, message: u64) -> Option<End> {
        let found = self.instead.iter().find(|violation| violation.offset == message)?;
        Some(End::Failed(Error::Descriptor(*found)))
    }

    fn before(&self, position: u64) -> Option<End> {
        let found = self.before.iter().find(|violation| violation.offset <= position)?;
        Some(End::Failed(Error::Descriptor(*found)))
    }

    /// The same for each rule: the first marked header that starts in the range shows it.
    fn several(&mut self, stream: &Stream, range: &Range<u64>) {
        let fault = Fault::Several;
        match stream.messages.iter().find(|it| it.marked && range.contains(&it.start)) {
            Some(first) => self.instead.push(Violation { fault, offset: first.start }),
            None => self.before.push(Violation { fault, offset: range.end }),
        }
    }

    fn ambiguous(&mut self, first: &Framed) {
        self.instead.push(Violation { fault: Fault::Ambiguous, offset: first.start });
    }

    fn unclaimed(&mut self, range: &Range<u64>) {
        self.before.push(Violation { fault: Fault::Unclaimed, offset: range.end });
    }
}

fn violation(fault: Fault, offset: u64) -> End {
    End::Failed(Error::Descriptor(Violation { fault, offset }))
}

/// Of the marked headers that lie wholly in the range exactly one may exist, and it owns the
/// descriptor. When there is none, the header that straddles the end of the range owns it, if it
/// is marked.
fn exact(stream: &Stream, arrivals: &[Arrival]) -> Verdict {
    let mut verdict = Verdict::default();
    for Arrival { range, brought } in arrivals {
        let (whole, straddling): (Vec<&Framed>, Vec<&Framed>) = stream
            .messages
            .iter()
            .filter(|it| it.marked && range.contains(&it.start))
            .partition(|it| it.header_end() <= range.end);
        match *brought {
            Ancillary::One(id) => match (&whole[..], &straddling[..]) {
                ([owner], _) | ([], [owner]) => verdict.own(owner.start, Descriptor::Here(id)),
                ([], _) => verdict.unclaimed(range),
                ([first, ..], _) => verdict.ambiguous(first),
            },
            Ancillary::Dropped => {
                for it in whole.iter().chain(&straddling) {
                    verdict.own(it.start, Descriptor::Missing(Missing::Dropped));
                }
            }
            Ancillary::Several => verdict.several(stream, range),
            Ancillary::Nothing => {}
        }
    }
    verdict
}

/// Each marked header in turn takes the oldest descriptor left that had come by its first byte.
fn ordered(stream: &Stream, arrivals: &[Arrival]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut taken = BTreeSet::new();
    for message in stream.messages.iter().filter(|it| it.marked) {
        let had_come = |arrival: &Arrival| arrival.range.start <= message.start;
        let oldest = arrivals
            .iter()
            .enumerate()
            .filter(|(index, arrival)| had_come(arrival) && !taken.contains(index))
            .find(|(_, arrival)| arrival.brought != Ancillary::Several);
        let Some((index, arrival)) = oldest else {
            continue;
        };
        taken.insert(index);
        verdict.own(
            message.start,
            match arrival.descriptor() {
                Some(id) => Descriptor::Here(id),
                None => Descriptor::Missing(Missing::Dropped),
            },
        );
    }
    for arrival in arrivals.iter().filter(|it| it.brought == Ancillary::Several) {
        verdict.several(stream, &arrival.range);
    }
    verdict
}

/// The last message that starts in the range owns the descriptor, marked or not.
fn unmarked(stream: &Stream, arrivals: &[Arrival]) -> Verdict {
    let mut verdict = Verdict::default();
    for Arrival { range, brought } in arrivals {
        // Also the message counts of whose header there is not all.
        let mut starts: Vec<u64> = stream.messages.iter().map(|it| it.start).collect();
        starts.push(stream.rest);
        let last = starts.into_iter().rfind(|start| range.contains(start));
        match (*brought, last) {
            (Ancillary::One(id), Some(owner)) => verdict.own(owner, Descriptor::Here(id)),
            (Ancillary::One(_), None) => verdict.unclaimed(range),
            (Ancillary::Dropped, Some(owner)) => {
                verdict.own(owner, Descriptor::Missing(Missing::Dropped));
            }
            (Ancillary::Several, _) => verdict.several(stream, range),
            (Ancillary::Dropped, None) | (Ancillary::Nothing, _) => {}
        }
    }
    verdict
}

/// The header's fields, the length it states, and whether it is marked.
#[must_use]
pub fn decode(dialect: Any, raw: &[u8; HEADER]) -> (Header, usize, bool) {
    let word = |at: usize, order: Endian| {
        let bytes = [raw[at], raw[at + 1], raw[at + 2], raw[at + 3]];
        match order {
            Endian::Little => u32::from_le_bytes(bytes),
            Endian::Big => u32::from_be_bytes(bytes),
        }
    };
    let (order, len, marked) = match dialect {
        Any::Classic(Endian::Little) => {
            (Endian::Little, u32::from(raw[4]) + u32::from(raw[5]) * 256, raw[6] % 2 == 1)
        }
        Any::Classic(Endian::Big) => {
            (Endian::Big, u32::from(raw[4]) * 256 + u32::from(raw[5]), raw[7] % 2 == 1)
        }
        Any::Modern(order) => {
            let len = word(4, order);
            (order, len % 0x8000_0000, len >= 0x8000_0000)
        }
    };
    let header = Header { msg_type: word(0, order), id: word(8, order), pid: word(12, order) };
    (header, len as usize, marked)
}
