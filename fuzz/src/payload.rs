//! Readers and writers, against models over a `Vec`.

use arbitrary::{Arbitrary, Result, Unstructured};
use imsg_tests::payload_model::{Family, Read, Write, WriterModel, compare_reads, compare_writes};
use imsg_wire::{HEADER_LEN, Header, Modern, SendBuf, Writer};

use crate::script;

/// Writes a payload, in a slice or in the queue of a `SendBuf`, and reads payloads, by any calls
/// with any arguments. Each call has to do what the model does.
///
/// # Panics
///
/// When it does something else.
pub fn payload(data: &[u8]) {
    if let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(data)) {
        let written = if plan.in_place { plan.write_in_place() } else { plan.write_to_slice() };
        compare_reads(plan.received, &plan.reads);
        compare_reads(&written, &plan.reads);
    }
}

struct Plan<'a> {
    in_place: bool,
    /// How many bytes of memory there are for the payload.
    room: usize,
    /// The largest payload, when it is written in place.
    max_len: usize,
    /// The payload of the message before, when it is written in place.
    queued: usize,
    /// Whether the message in place is queued in the end.
    closed: bool,
    writes: Vec<Write>,
    received: &'a [u8],
    reads: Vec<Read>,
}

/// What memory has before anything is written to it. No script writes it.
const UNTOUCHED: u8 = 0xff;

impl Plan<'_> {
    fn write_to_slice(&self) -> Vec<u8> {
        let mut memory = vec![UNTOUCHED; self.room];
        let mut writer = Writer::new(&mut memory);
        let model = WriterModel::new(self.room, self.room);
        let written = compare_writes(&mut writer, model, &self.writes);
        let (front, behind) = memory.split_at(written.len());
        assert_eq!(front, written, "what was written");
        assert!(behind.iter().all(|byte| [0, UNTOUCHED].contains(byte)), "what was cut off");
        written
    }

    fn write_in_place(&self) -> Vec<u8> {
        let before = HEADER_LEN + self.queued;
        let max_len = HEADER_LEN + self.max_len;
        let storage = (before + HEADER_LEN + self.room).max(max_len);
        let room = storage - before - HEADER_LEN;
        let mut queue = SendBuf::new(Modern::new(), vec![UNTOUCHED; storage]);
        queue.compose(Header::new(1), &vec![1_u8; self.queued][..], None).expect("an empty queue");
        queue.set_max_len(max_len).expect("no more than the storage has");

        let mut writer = queue.create(Header::new(2), None).expect("room for a header");
        let model = WriterModel::new(self.max_len, room);
        let written = compare_writes(&mut writer, model, &self.writes);
        if self.closed {
            writer.close();
        }

        let queued = queue.chunk().expect("the first message").bytes;
        match queued[before..].split_at_checked(HEADER_LEN) {
            Some((_, payload)) => assert_eq!((self.closed, payload), (true, &written[..])),
            None => assert!(!self.closed && queued.len() == before, "what was given up is queued"),
        }
        written
    }
}

impl<'a> Arbitrary<'a> for Plan<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let in_place = u.arbitrary()?;
        let room = u.arbitrary::<u8>()?.into();
        let max_len = u.arbitrary::<u8>()?.into();
        let queued = u.int_in_range(0..=40)?;
        let closed = u.arbitrary()?;
        let received = script::bytes(u, 255)?;
        let mut plan = Self {
            in_place,
            room,
            max_len,
            queued,
            closed,
            writes: Vec::new(),
            received,
            reads: Vec::new(),
        };
        for call in script::rest(u, 100)? {
            match call {
                Call::Write(write) => plan.writes.push(write),
                Call::Read(read) => plan.reads.push(read),
            }
        }
        Ok(plan)
    }
}

enum Call {
    Write(Write),
    Read(Read),
}

impl Arbitrary<'_> for Call {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let call = u.int_in_range(0..=26)?;
        Ok(match call {
            0 => Self::Write(Write::Add(content(u, 9)?)),
            1 => Self::Write(Write::AddNumber(family(u)?, u.arbitrary()?)),
            2 => {
                let payload = content(u, 12)?;
                let read = u.int_in_range(0..=payload.len())?;
                Self::Write(Write::AddReader { payload, read })
            }
            3 => Self::Write(Write::AddZero(length(u)?)),
            4 => Self::Write(Write::AddStrbuf(content(u, 8)?, length(u)?)),
            5 => Self::Write(Write::Reserve { len: length(u)?, fill: byte(u.arbitrary()?) }),
            6 => Self::Write(Write::Set(length(u)?, content(u, 8)?)),
            7 => Self::Write(Write::SetNumber(family(u)?, length(u)?, u.arbitrary()?)),
            8 => Self::Write(Write::Truncate(length(u)?)),
            9 => Self::Write(Write::SetMaxLen(length(u)?)),
            10 => Self::Read(Read::Get(length(u)?)),
            11 => Self::Read(Read::GetReader(length(u)?)),
            12 => Self::Read(Read::GetStr(length(u)?)),
            13 => Self::Read(Read::GetStrbuf(length(u)?)),
            14 => Self::Read(Read::GetCstr),
            15 => Self::Read(Read::GetValue),
            16 => Self::Read(Read::GetRef),
            17 => Self::Read(Read::GetSlice(length(u)?)),
            18 => Self::Read(Read::Data),
            19 => Self::Read(Read::DataRef),
            20 => Self::Read(Read::DataRefOfAnySize),
            21 => Self::Read(Read::Seek(length(u)?, length(u)?)),
            22 => Self::Read(Read::Skip(length(u)?)),
            23 => Self::Read(Read::Truncate(length(u)?)),
            24 => Self::Read(Read::Rewind),
            25 => Self::Read(Read::ExpectEnd),
            _ => Self::Read(Read::GetNumber(family(u)?)),
        })
    }
}

fn family(u: &mut Unstructured<'_>) -> Result<Family> {
    u.choose(&Family::ALL).copied()
}

/// A length that a buffer may have, or one that nothing can have.
fn length(u: &mut Unstructured<'_>) -> Result<usize> {
    Ok(match u.arbitrary()? {
        u8::MAX => usize::MAX,
        0xfe => usize::MAX - 1,
        0xfd => usize::MAX / 2 + 1,
        len => usize::from(len),
    })
}

/// Bytes to be written.
fn content(u: &mut Unstructured<'_>, most: usize) -> Result<Vec<u8>> {
    Ok(script::bytes(u, most)?.iter().copied().map(byte).collect())
}

fn byte(byte: u8) -> u8 {
    if byte == UNTOUCHED { 0 } else { byte }
}
