//! A receive buffer against a decoder that keeps the whole stream in a `Vec`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use arbitrary::{Arbitrary, Unstructured};
use imsg_tests::reference::decode;
use imsg_wire::testing::{Token, Tokens};
use imsg_wire::{
    Ancillary, Any, BadLength, DEFAULT_MAX_LEN, Descriptor, Dialect, Error, Fault, HEADER_LEN,
    Header, Message, Missing, NoRoom, NotOffered, Pairing, RecvBuf, Storage, Violation, Wiping,
};

use crate::meters::{LOOKS, Memory, Metered, Watched};
use crate::script;

/// How many descriptors the buffer can hold.
const CAPACITY: usize = 3;

/// Reads a stream of any headers, in any pieces and with anything beside them, into a buffer of
/// any size, and takes messages at any times. After each step the buffer has to be where the
/// decoder is, in what it gives and in how many descriptors it keeps open; it has to lend all the
/// place that it promises, to have wiped what it does not need, and not to work more than it
/// may.
///
/// Descriptors are paired by their order here. `descriptors` has all rules.
///
/// # Panics
///
/// When it is somewhere else.
pub fn stream(data: &[u8]) {
    if let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(data)) {
        let (storage, memory) = Watched::new(plan.storage);
        if plan.wiping {
            Program::new(&plan, Wiping::new(storage), memory).run(&plan);
        } else {
            Program::new(&plan, storage, memory).run(&plan);
        }
    }
}

struct Plan {
    dialect: Any,
    /// The bytes of the storage.
    storage: usize,
    wiping: bool,
    bytes: Vec<u8>,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    /// Reads so many bytes at most. Messages may be taken while the place is lent.
    Read {
        most: usize,
        brought: Brought,
        takes: u8,
    },
    /// Claims to have read more than the place that is lent.
    Overclaim {
        more: usize,
        brought: Brought,
    },
    Take(u8),
    /// Takes all messages, and looks at them only then.
    TakeAll,
    SetMaxLen(usize),
    Allow,
    Finish,
}

#[derive(Clone, Copy, Debug)]
enum Brought {
    Nothing,
    One,
    Dropped,
}

impl Arbitrary<'_> for Plan {
    fn arbitrary(u: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        let dialect = script::dialect(u)?;
        let wiping = u.arbitrary()?;
        let storage = length(u)?;
        let missing = usize::from(u.arbitrary::<u8>()?);
        let mut bytes = spread_out(dialect, script::bytes(u, 32 * HEADER_LEN)?);
        bytes.truncate(bytes.len().saturating_sub(missing));
        Ok(Self { dialect, storage, wiping, bytes, steps: script::rest(u, 200)? })
    }
}

impl Arbitrary<'_> for Step {
    fn arbitrary(u: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        Ok(match u.int_in_range(0..=31)? {
            0..=14 => {
                Self::Read { most: length(u)?, brought: brought(u)?, takes: u.int_in_range(0..=2)? }
            }
            15 | 16 => Self::Overclaim { more: 1 + length(u)?, brought: brought(u)? },
            17..=24 => Self::Take(u.int_in_range(1..=4)?),
            25 | 26 => Self::TakeAll,
            27 | 28 => Self::SetMaxLen(length(u)?),
            29 | 30 => Self::Allow,
            _ => Self::Finish,
        })
    }
}

fn brought(u: &mut Unstructured<'_>) -> arbitrary::Result<Brought> {
    u.choose(&[Brought::Nothing, Brought::Nothing, Brought::One, Brought::Dropped]).copied()
}

/// Often a small length, and never more than a classic message can have and then some.
fn length(u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
    Ok(if u.ratio(3, 4)? {
        usize::from(u.arbitrary::<u8>()?)
    } else {
        usize::from(u.arbitrary::<u16>()?) + usize::from(u.arbitrary::<u8>()?)
    })
}

/// The stream whose headers stand one behind the other in `headers`: behind each comes as much as
/// it says, or what is left of the headers if no message can be that long.
fn spread_out(dialect: Any, headers: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let (headers, rest) = headers.as_chunks::<HEADER_LEN>();
    for header in headers {
        stream.extend(header);
        let (_, len, _) = decode(dialect, header);
        let payload = len.saturating_sub(HEADER_LEN);
        if stream.len() + payload <= script::MOST {
            stream.extend(script::content(stream.len(), payload));
        }
    }
    stream.extend(rest);
    stream
}

/// A program that receives, and does the same with the decoder.
struct Program<'a, S> {
    buffer: RecvBuf<Metered, S, Token, CAPACITY>,
    decoder: Decoder,
    memory: Rc<Memory>,
    storage: usize,
    wiping: bool,
    /// What was not read yet.
    unread: &'a [u8],
    tokens: Tokens,
    next_token: u32,
    /// How many bytes are lent to be read into.
    lent: usize,
    /// Where the next byte is read to unless bytes move.
    end: usize,
    /// How many bytes moved.
    moved: usize,
    /// How many headers were decoded in the last call.
    decoded: Rc<Cell<usize>>,
}

impl<'a, S: Storage> Program<'a, S> {
    fn new(plan: &'a Plan, storage: S, memory: Rc<Memory>) -> Self {
        let (dialect, decoded) = Metered::new(plan.dialect);
        let mut buffer = RecvBuf::with_descriptors(dialect, storage);
        buffer.set_pairing(Pairing::Ordered);
        Self {
            buffer,
            decoder: Decoder::new(plan.dialect, plan.storage),
            memory,
            storage: plan.storage,
            wiping: plan.wiping,
            unread: &plan.bytes,
            tokens: Tokens::default(),
            next_token: 0,
            lent: 0,
            end: 0,
            moved: 0,
            decoded,
        }
    }

    fn run(mut self, plan: &Plan) {
        self.check();
        for step in &plan.steps {
            match *step {
                Step::Read { most, brought, takes } => self.read(most, brought, takes),
                Step::Overclaim { more, brought } => self.commit(self.lent + more, brought),
                Step::Take(takes) => (0..takes).for_each(|_| self.take()),
                Step::TakeAll => self.take_all(),
                Step::SetMaxLen(len) => self.set_max_len(len),
                Step::Allow => self.allow(),
                Step::Finish => self.finish(),
            }
            self.check();
        }
        self.read_to_the_end();
        let Self { buffer, tokens, .. } = self;
        drop(buffer);
        assert_eq!(tokens.count(), 0, "descriptors that are left open");
    }

    fn read_to_the_end(&mut self) {
        while !self.unread.is_empty() && !self.decoder.is_over() {
            self.read(usize::MAX, Brought::Nothing, 0);
            self.take_all();
            self.check();
        }
        self.finish();
        self.take_all();
        // It goes on to say what it said in the end.
        for _ in 0..2 {
            self.check();
            self.take();
            self.lend(0);
        }
    }

    /// The buffer is where the decoder is, and did no more than it may.
    fn check(&mut self) {
        assert_eq!(self.buffer.offset(), self.decoder.taken as u64);
        assert_eq!(self.buffer.max_len(), self.decoder.max_len);
        assert_eq!(self.buffer.descriptors_allowed(), self.decoder.allowed_from.is_some());
        assert_eq!(self.tokens.count(), self.decoder.open(), "the descriptors that are open");
        let ready = !matches!(self.decoder.next(), Ok(None));
        assert_eq!(self.buffer.is_ready(), ready, "whether there is something to take");
        self.check_work(1);

        let received = self.decoder.bytes.len();
        assert!(self.moved <= received, "{} bytes moved, of {received}", self.moved);
        let released = self.memory.released();
        assert!(released <= received + self.moved, "{released} bytes released, of {received}");
    }

    /// The last calls each looked at one header, whatever is behind it.
    fn check_work(&self, calls: usize) {
        let decoded = self.decoded.take();
        assert!(decoded <= LOOKS * calls, "{decoded} headers decoded in {calls} calls");
    }

    fn read(&mut self, most: usize, brought: Brought, takes: u8) {
        let n = self.lend(most);
        for _ in 0..takes {
            self.take();
        }
        self.commit(n, brought);
    }

    /// Has the place to read into lent, and puts there what comes next: how many bytes.
    fn lend(&mut self, most: usize) -> usize {
        let kept = self.decoder.bytes.len() - self.decoder.taken;
        // The beginning of a message goes to the front, so that all else is free. Whole messages
        // stay where they are.
        let ready = matches!(self.decoder.next(), Ok(Some(_)));
        let place = if ready { self.end } else { kept };
        let expected = self.decoder.room(place == self.storage);
        let found = self.buffer.spare().map(|spare| {
            assert_eq!(self.memory.position(spare), place, "where it reads to");
            self.lent = spare.len();
            let n = self.lent.min(most).min(self.unread.len());
            spare[..n].copy_from_slice(&self.unread[..n]);
            n
        });
        self.check_work(1);
        assert_eq!(found.map(|_| ()), expected, "room for a read");
        let Ok(n) = found else {
            self.lent = 0;
            return 0;
        };
        assert_eq!(self.lent, self.storage - place, "all the room that there is");
        if self.end != place {
            self.moved += kept;
            self.end = place;
        }
        if self.wiping && self.storage <= 1024 {
            self.check_wiped(place - kept..place + n);
        }
        n
    }

    /// Nothing is left but the bytes `in_use`.
    fn check_wiped(&mut self, in_use: Range<usize>) {
        let bytes = self.memory.bytes(|| {
            self.buffer.is_ready();
        });
        self.check_work(1);
        let mut others = bytes[..in_use.start].iter().chain(&bytes[in_use.end..]);
        assert!(others.all(|byte| *byte == 0), "what was taken is not wiped");
    }

    fn commit(&mut self, n: usize, brought: Brought) {
        // What no kernel does is for `descriptors`.
        let brought = if self.decoder.kept == Some(None) { Brought::Nothing } else { brought };
        let id = self.next_token;
        self.next_token += 1;
        let ancillary = match brought {
            Brought::Nothing => Ancillary::Nothing,
            Brought::One => Ancillary::One(self.tokens.open(id)),
            Brought::Dropped => Ancillary::Dropped,
        };
        let nothing_lent = self.lent == 0 && !matches!(brought, Brought::Nothing);
        match self.buffer.commit(n, ancillary) {
            Ok(()) => {
                assert!(n <= self.lent && !nothing_lent, "more than was lent is received");
                let (read, unread) = self.unread.split_at(n);
                self.unread = unread;
                self.decoder.receive(read, brought, id);
                self.end += n;
                self.lent = 0;
            }
            Err(NotOffered { claimed, offered, returned }) => {
                assert!(n > self.lent || nothing_lent, "what was lent is not received");
                assert_eq!((claimed, offered), (n, self.lent));
                match (brought, returned) {
                    (Brought::One, Ancillary::One(token)) => assert_eq!(token.id(), id),
                    (Brought::Nothing, Ancillary::Nothing) => {}
                    (Brought::Dropped, Ancillary::Dropped) => {}
                    (_, returned) => panic!("{returned:?} instead of {brought:?}"),
                }
            }
        }
    }

    fn take(&mut self) {
        let expected = self.decoder.take();
        let found = self.buffer.next_message();
        if found.is_err() {
            self.lent = 0;
        }
        self.decoder.compare(found, expected);
        self.check_work(1);
    }

    fn take_all(&mut self) {
        let messages: Vec<_> = self.buffer.messages().collect();
        let calls = messages.len() + 1;
        for found in messages {
            if found.is_err() {
                self.lent = 0;
            }
            let expected = self.decoder.take();
            self.decoder.compare(found.map(Some), expected);
        }
        self.check_work(calls);
        let left = self.decoder.next();
        assert!(!matches!(left, Ok(Some(_))), "not all messages: {left:?}");
    }

    fn set_max_len(&mut self, len: usize) {
        let max = self.storage.min(self.decoder.dialect.max_len());
        let expected = if (HEADER_LEN..=max).contains(&len) {
            self.decoder.max_len = len;
            Ok(())
        } else {
            Err(BadLength { len, min: HEADER_LEN, max })
        };
        assert_eq!(self.buffer.set_max_len(len), expected);
    }

    fn allow(&mut self) {
        self.buffer.allow_descriptors();
        self.decoder.allowed_from.get_or_insert(self.decoder.bytes.len());
    }

    fn finish(&mut self) {
        self.buffer.finish();
        self.decoder.finished = true;
        self.lent = 0;
    }
}

/// The whole stream, and what is made of it.
struct Decoder {
    dialect: Any,
    storage: usize,
    max_len: usize,
    /// All that was received.
    bytes: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
    /// Where descriptors came that have no message yet; `None` for those the kernel dropped.
    arrivals: VecDeque<(usize, Option<u32>)>,
    /// The last one that came since the last byte.
    kept: Option<Option<u32>>,
    allowed_from: Option<usize>,
    finished: bool,
    failed: Option<Error>,
}

/// A message in the stream.
#[derive(Debug)]
struct Framed {
    header: Header,
    len: usize,
    marked: bool,
}

struct Taken {
    header: Header,
    payload: Range<usize>,
    descriptor: Descriptor<u32>,
}

impl Decoder {
    fn new(dialect: Any, storage: usize) -> Self {
        Self {
            dialect,
            storage,
            max_len: DEFAULT_MAX_LEN.min(storage),
            bytes: Vec::new(),
            taken: 0,
            arrivals: VecDeque::new(),
            kept: None,
            allowed_from: None,
            finished: false,
            failed: None,
        }
    }

    /// What comes next.
    fn next(&self) -> Result<Option<Framed>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let offset = self.taken as u64;
        let rest = &self.bytes[self.taken..];
        let mut need = HEADER_LEN;
        if let Some(raw) = rest.first_chunk() {
            let (header, len, marked) = decode(self.dialect, raw);
            if len < HEADER_LEN || len > self.max_len {
                let error = BadLength { len, min: HEADER_LEN, max: self.max_len };
                return Err(Error::Length { offset, error });
            }
            if len <= rest.len() {
                return Ok(Some(Framed { header, len, marked }));
            }
            need = len;
        }
        if self.finished && !rest.is_empty() {
            return Err(Error::Truncated { offset, have: rest.len(), need });
        }
        if self.finished && self.open() > 0 {
            return Err(Error::Descriptor(Violation { fault: Fault::Unclaimed, offset }));
        }
        Ok(None)
    }

    fn take(&mut self) -> Result<Option<Taken>, Error> {
        let Some(Framed { header, len, marked }) = self.next().map_err(|error| self.fail(error))?
        else {
            return Ok(None);
        };
        let descriptor = if marked { self.claim() } else { Descriptor::None };
        let payload = self.taken + HEADER_LEN..self.taken + len;
        self.taken += len;
        Ok(Some(Taken { header, payload, descriptor }))
    }

    /// The oldest descriptor, if it had come when the message came.
    fn claim(&mut self) -> Descriptor<u32> {
        match self.arrivals.front() {
            Some((start, _)) if *start <= self.taken => match self.arrivals.pop_front() {
                Some((_, Some(id))) => Descriptor::Here(id),
                _ => Descriptor::Missing(Missing::Dropped),
            },
            _ if self.allowed_from.is_some_and(|offset| offset <= self.taken) => {
                Descriptor::Missing(Missing::NotSent)
            }
            _ => Descriptor::Missing(Missing::NotAllowed),
        }
    }

    fn compare(
        &self,
        found: Result<Option<Message<'_, Token>>, Error>,
        expected: Result<Option<Taken>, Error>,
    ) {
        match (found, expected) {
            (Ok(Some(found)), Ok(Some(expected))) => {
                assert_eq!(found.header, expected.header);
                assert_eq!(found.payload, &self.bytes[expected.payload], "the payload");
                let descriptor = match &found.descriptor {
                    Descriptor::None => Descriptor::None,
                    Descriptor::Here(token) => Descriptor::Here(token.id()),
                    Descriptor::Missing(why) => Descriptor::Missing(*why),
                };
                assert_eq!(descriptor, expected.descriptor);
            }
            (found, expected) => {
                assert_eq!(found.map(|it| it.is_some()), expected.map(|it| it.is_some()));
            }
        }
    }

    /// Whether there is room for a read, when all place in the storage is taken or not.
    fn room(&mut self, no_place: bool) -> Result<(), NoRoom> {
        if self.finished && self.failed.is_none() {
            return Err(NoRoom::Finished);
        }
        let ready = self.next().map_err(|error| NoRoom::Failed(self.fail(error)))?.is_some();
        let offset = self.taken as u64;
        let error = if self.arrivals.len() == CAPACITY {
            Error::TooManyDescriptors { offset, capacity: CAPACITY }
        } else if no_place {
            Error::StorageTooSmall { storage: self.storage, need: HEADER_LEN }
        } else {
            return Ok(());
        };
        Err(if ready { NoRoom::Full } else { NoRoom::Failed(self.fail(error)) })
    }

    fn receive(&mut self, read: &[u8], brought: Brought, id: u32) {
        let arrived = match brought {
            Brought::Nothing => self.kept.take(),
            Brought::One => Some(Some(id)),
            Brought::Dropped => Some(None),
        };
        self.kept = None;
        if read.is_empty() {
            self.kept = arrived;
        } else {
            self.arrivals.extend(arrived.map(|id| (self.bytes.len(), id)));
        }
        self.bytes.extend(read);
    }

    fn fail(&mut self, error: Error) -> Error {
        self.arrivals.clear();
        self.kept = None;
        self.failed = Some(error);
        error
    }

    /// How many descriptors are kept.
    fn open(&self) -> usize {
        let arrived = self.arrivals.iter().map(|(_, id)| id);
        arrived.chain(&self.kept).filter(|id| id.is_some()).count()
    }

    fn is_over(&self) -> bool {
        self.finished || self.failed.is_some()
    }
}
