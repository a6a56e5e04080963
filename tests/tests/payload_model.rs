//! `Reader` and `Writer` against models over a `Vec<u8>`, in random sequences of operations.

use imsg_wire::{Header, Modern, ReadError, Reader, SendBuf, WriteError, Writer};
use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::byteorder::big_endian::U32;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_writer_over_a_slice_does_what_the_model_does(
        len in 0..40_usize,
        writes in vec(write(), 0..30),
    ) {
        let mut buf = vec![0xff; len];
        let mut writer = Writer::new(&mut buf);
        let model = WriterModel { bytes: Vec::new(), max_len: len, room: len };
        let written = compare_writes(&mut writer, model, &writes)?;
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
        let mut queue = SendBuf::<_, _>::new(Modern::new(), [0xff; STORAGE]);
        queue.compose(Header::new(1), &vec![0xff_u8; queued][..], None).expect("an empty queue");
        let before = queue.queue_bytes();
        queue.set_max_len(HEADER + max_len).unwrap();
        let model = WriterModel { bytes: Vec::new(), max_len, room: STORAGE - before - HEADER };
        let mut writer = queue.create(Header::new(2), None).expect("room for a header");
        let written = compare_writes(&mut writer, model, &writes)?;
        writer.close();
        let chunk = queue.chunk().expect("two messages");
        prop_assert_eq!(&chunk.bytes[before + HEADER..], &written[..]);
    }

    #[test]
    fn a_reader_does_what_the_model_does(payload in payload(), reads in vec(read(), 0..30)) {
        let mut reader = Reader::new(&payload);
        let mut model = ReaderModel { bytes: payload.clone(), position: 0 };
        for read in &reads {
            prop_assert_eq!(read.with_reader(&mut reader), read.with_model(&mut model), "{:?}", read);
            prop_assert_eq!(reader.rest(), model.rest(), "after {:?}", read);
            prop_assert_eq!(reader.remaining(), model.rest().len(), "after {:?}", read);
        }
    }
}

const HEADER: usize = 16;

const STORAGE: usize = 100;

/// Does the same with both, and returns the bytes written in the end.
fn compare_writes<P>(
    writer: &mut Writer<'_, P>,
    mut model: WriterModel,
    writes: &[Write],
) -> Result<Vec<u8>, TestCaseError> {
    for write in writes {
        prop_assert_eq!(write.with_writer(writer), write.with_model(&mut model), "{:?}", write);
        prop_assert_eq!(writer.written(), &model.bytes[..], "after {:?}", write);
        prop_assert_eq!(writer.len(), model.bytes.len(), "after {:?}", write);
        prop_assert_eq!(writer.is_empty(), model.bytes.is_empty(), "after {:?}", write);
        prop_assert_eq!(writer.remaining(), model.remaining(), "after {:?}", write);
    }
    Ok(model.bytes)
}

// ---- Numbers

/// A family of numbers.
#[derive(Clone, Copy, Debug)]
enum Family {
    N8,
    N16,
    N32,
    N64,
    H16,
    H32,
    H64,
}

impl Family {
    fn width(self) -> usize {
        match self {
            Self::N8 => 1,
            Self::N16 | Self::H16 => 2,
            Self::N32 | Self::H32 => 4,
            Self::N64 | Self::H64 => 8,
        }
    }

    /// Whether the most significant byte comes first.
    fn is_big_endian(self) -> bool {
        match self {
            Self::N8 | Self::N16 | Self::N32 | Self::N64 => true,
            Self::H16 | Self::H32 | Self::H64 => cfg!(target_endian = "big"),
        }
    }

    /// The number that the bytes are.
    fn decode(self, bytes: &[u8]) -> u64 {
        let digit = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        match self.is_big_endian() {
            true => bytes.iter().fold(0, digit),
            false => bytes.iter().rev().fold(0, digit),
        }
    }

    /// The bytes that the number is, as far as they fit.
    fn encode(self, number: u64) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..self.width()).map(|at| (number >> (8 * at)) as u8).collect();
        if self.is_big_endian() {
            bytes.reverse();
        }
        bytes
    }
}

fn family() -> impl Strategy<Value = Family> {
    use Family::*;
    prop::sample::select(vec![N8, N16, N32, N64, H16, H32, H64])
}

/// Mostly lengths around those of the buffers, and some that nothing can have.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..12_usize,
        2 => 0..50_usize,
        1 => prop::sample::select(vec![usize::MAX, usize::MAX - 1, usize::MAX / 2 + 1]),
    ]
}

// ---- Writing

#[derive(Clone, Debug)]
enum Write {
    Add(Vec<u8>),
    AddNumber(Family, u64),
    AddReader { payload: Vec<u8>, read: usize },
    AddZero(usize),
    AddStrbuf(Vec<u8>, usize),
    Reserve { len: usize, fill: u8 },
    Set(usize, Vec<u8>),
    SetNumber(Family, usize, u64),
    Truncate(usize),
    SetMaxLen(usize),
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

impl Write {
    fn with_writer<P>(&self, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        match *self {
            Self::Add(ref bytes) => writer.add(&bytes[..]),
            Self::AddNumber(Family::N8, number) => writer.add_n8(number as u8),
            Self::AddNumber(Family::N16, number) => writer.add_n16(number as u16),
            Self::AddNumber(Family::N32, number) => writer.add_n32(number as u32),
            Self::AddNumber(Family::N64, number) => writer.add_n64(number),
            Self::AddNumber(Family::H16, number) => writer.add_h16(number as u16),
            Self::AddNumber(Family::H32, number) => writer.add_h32(number as u32),
            Self::AddNumber(Family::H64, number) => writer.add_h64(number),
            Self::AddReader { ref payload, read } => {
                let mut reader = Reader::new(payload);
                reader.skip(read).expect("not more than there is");
                writer.add_reader(&reader)
            }
            Self::AddZero(len) => writer.add_zero(len),
            Self::AddStrbuf(ref string, len) => writer.add_strbuf(string, len),
            Self::Reserve { len, fill } => {
                let place = writer.reserve(len)?;
                assert!(place.iter().all(|byte| *byte == 0), "what is reserved is cleared");
                place.fill(fill);
                Ok(())
            }
            Self::Set(offset, ref bytes) => writer.set(offset, &bytes[..]),
            Self::SetNumber(Family::N8, offset, number) => writer.set_n8(offset, number as u8),
            Self::SetNumber(Family::N16, offset, number) => writer.set_n16(offset, number as u16),
            Self::SetNumber(Family::N32, offset, number) => writer.set_n32(offset, number as u32),
            Self::SetNumber(Family::N64, offset, number) => writer.set_n64(offset, number),
            Self::SetNumber(Family::H16, offset, number) => writer.set_h16(offset, number as u16),
            Self::SetNumber(Family::H32, offset, number) => writer.set_h32(offset, number as u32),
            Self::SetNumber(Family::H64, offset, number) => writer.set_h64(offset, number),
            Self::Truncate(len) => writer.truncate(len),
            Self::SetMaxLen(len) => writer.set_max_len(len),
        }
    }

    fn with_model(&self, model: &mut WriterModel) -> Result<(), WriteError> {
        match *self {
            Self::Add(ref bytes) => model.add(bytes),
            Self::AddNumber(family, number) => model.add(&family.encode(number)),
            Self::AddReader { ref payload, read } => model.add(&payload[read..]),
            Self::AddZero(len) => model.extend(len, 0),
            Self::AddStrbuf(ref string, len) => model.add_strbuf(string, len),
            Self::Reserve { len, fill } => model.extend(len, fill),
            Self::Set(offset, ref bytes) => model.set(offset, bytes),
            Self::SetNumber(family, offset, number) => model.set(offset, &family.encode(number)),
            Self::Truncate(len) => model.truncate(len),
            Self::SetMaxLen(len) => model.set_max_len(len),
        }
    }
}

/// What was written, and what may still be.
struct WriterModel {
    bytes: Vec<u8>,
    max_len: usize,
    /// How many bytes the memory has.
    room: usize,
}

impl WriterModel {
    fn remaining(&self) -> usize {
        self.max_len.min(self.room) - self.bytes.len()
    }

    /// Whether `len` bytes more may be written.
    fn admit(&self, len: usize) -> Result<(), WriteError> {
        let total = self.bytes.len().saturating_add(len);
        if total > self.max_len {
            Err(WriteError::TooLong { len: total, max: self.max_len })
        } else if total > self.room {
            Err(WriteError::Full { len, free: self.room - self.bytes.len() })
        } else {
            Ok(())
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.admit(bytes.len())?;
        self.bytes.extend(bytes);
        Ok(())
    }

    fn extend(&mut self, len: usize, byte: u8) -> Result<(), WriteError> {
        self.admit(len)?;
        self.bytes.resize(self.bytes.len() + len, byte);
        Ok(())
    }

    fn add_strbuf(&mut self, string: &[u8], len: usize) -> Result<(), WriteError> {
        if string.len() >= len || string.contains(&0) {
            return Err(WriteError::String { len: string.len(), field: len });
        }
        self.admit(len)?;
        self.bytes.extend(string);
        self.extend(len - string.len(), 0)
    }

    fn set(&mut self, offset: usize, bytes: &[u8]) -> Result<(), WriteError> {
        let written = self.bytes.len();
        if offset.saturating_add(bytes.len()) > written {
            return Err(WriteError::Outside { offset, len: bytes.len(), written });
        }
        self.bytes.splice(offset..offset + bytes.len(), bytes.iter().copied());
        Ok(())
    }

    fn truncate(&mut self, len: usize) -> Result<(), WriteError> {
        self.admit(len.saturating_sub(self.bytes.len()))?;
        self.bytes.resize(len, 0);
        Ok(())
    }

    fn set_max_len(&mut self, len: usize) -> Result<(), WriteError> {
        let written = self.bytes.len();
        if len < written {
            return Err(WriteError::TooLong { len: written, max: len });
        }
        if len > self.max_len {
            return Err(WriteError::TooLong { len, max: self.max_len });
        }
        self.max_len = len;
        Ok(())
    }
}

// ---- Reading

#[derive(Clone, Debug)]
enum Read {
    Get(usize),
    GetNumber(Family),
    GetReader(usize),
    GetStr(usize),
    GetStrbuf(usize),
    GetCstr,
    GetValue,
    GetRef,
    GetSlice(usize),
    Data,
    DataRef,
    DataRefOfAnySize,
    Seek(usize, usize),
    Skip(usize),
    Truncate(usize),
    Rewind,
    ExpectEnd,
}

/// What was read.
#[derive(Debug, PartialEq)]
enum Field {
    Nothing,
    Bytes(Vec<u8>),
    Number(u64),
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

impl Read {
    fn with_reader(&self, reader: &mut Reader<'_>) -> Result<Field, ReadError> {
        let bytes = |bytes: &[u8]| Field::Bytes(bytes.to_vec());
        let nothing = |()| Field::Nothing;
        match *self {
            Self::Get(len) => reader.get(len).map(bytes),
            Self::GetNumber(Family::N8) => reader.get_n8().map(|it| Field::Number(it.into())),
            Self::GetNumber(Family::N16) => reader.get_n16().map(|it| Field::Number(it.into())),
            Self::GetNumber(Family::N32) => reader.get_n32().map(|it| Field::Number(it.into())),
            Self::GetNumber(Family::N64) => reader.get_n64().map(Field::Number),
            Self::GetNumber(Family::H16) => reader.get_h16().map(|it| Field::Number(it.into())),
            Self::GetNumber(Family::H32) => reader.get_h32().map(|it| Field::Number(it.into())),
            Self::GetNumber(Family::H64) => reader.get_h64().map(Field::Number),
            Self::GetReader(len) => reader.get_reader(len).map(|it| bytes(it.rest())),
            Self::GetStr(len) => reader.get_str(len).map(|it| bytes(it.as_bytes())),
            Self::GetStrbuf(len) => reader.get_strbuf(len).map(|it| bytes(it.to_bytes())),
            Self::GetCstr => reader.get_cstr().map(|it| bytes(it.to_bytes())),
            Self::GetValue => reader.get_value::<[u8; 5]>().map(|it| bytes(&it)),
            Self::GetRef => reader.get_ref::<[u8; 5]>().map(|it| bytes(it)),
            Self::GetSlice(count) => reader
                .get_slice::<U32>(count)
                .map(|it| Field::Bytes(it.iter().flat_map(|number| number.to_bytes()).collect())),
            Self::Data => reader.data::<[u8; 5]>().map(|it| bytes(&it)),
            Self::DataRef => reader.data_ref::<[u8; 5]>().map(|it| bytes(it)),
            Self::DataRefOfAnySize => {
                reader.data_ref::<[[u8; 2]]>().map(|it| bytes(it.as_flattened()))
            }
            Self::Seek(offset, len) => reader.seek(offset, len).map(bytes),
            Self::Skip(len) => reader.skip(len).map(nothing),
            Self::Truncate(len) => reader.truncate(len).map(nothing),
            Self::Rewind => {
                reader.rewind();
                Ok(Field::Nothing)
            }
            Self::ExpectEnd => reader.expect_end().map(nothing),
        }
    }

    fn with_model(&self, model: &mut ReaderModel) -> Result<Field, ReadError> {
        let have = model.rest().len();
        match *self {
            Self::Get(len) | Self::GetReader(len) => model.take(len).map(Field::Bytes),
            Self::GetNumber(family) => {
                model.take(family.width()).map(|it| Field::Number(family.decode(&it)))
            }
            Self::GetStr(len) => {
                let text = model.peek(0, len)?;
                std::str::from_utf8(&text).map_err(|_| ReadError::NotUtf8)?;
                model.take(len).map(Field::Bytes)
            }
            Self::GetStrbuf(len) => {
                let string = before_nul(&model.peek(0, len)?)?;
                model.take(len)?;
                Ok(Field::Bytes(string))
            }
            Self::GetCstr => {
                let string = before_nul(model.rest())?;
                model.take(string.len() + 1)?;
                Ok(Field::Bytes(string))
            }
            Self::GetValue | Self::GetRef => model.take(5).map(Field::Bytes),
            Self::GetSlice(count) => model.take(count.saturating_mul(4)).map(Field::Bytes),
            Self::Data if have != 5 => Err(ReadError::Size { expected: 5, have }),
            Self::DataRef if have != 5 => Err(ReadError::Shape { have }),
            Self::DataRefOfAnySize if have % 2 == 1 => Err(ReadError::Shape { have }),
            Self::Data | Self::DataRef | Self::DataRefOfAnySize => {
                Ok(Field::Bytes(model.rest().to_vec()))
            }
            Self::Seek(offset, len) => model.peek(offset, len).map(Field::Bytes),
            Self::Skip(len) => model.take(len).map(|_| Field::Nothing),
            Self::Truncate(len) => {
                model.peek(0, len)?;
                model.bytes.truncate(model.position + len);
                Ok(Field::Nothing)
            }
            Self::Rewind => {
                model.position = 0;
                Ok(Field::Nothing)
            }
            Self::ExpectEnd if have > 0 => Err(ReadError::Size { expected: 0, have }),
            Self::ExpectEnd => Ok(Field::Nothing),
        }
    }
}

struct ReaderModel {
    bytes: Vec<u8>,
    position: usize,
}

impl ReaderModel {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.position..]
    }

    fn peek(&self, offset: usize, len: usize) -> Result<Vec<u8>, ReadError> {
        let need = offset.saturating_add(len);
        let have = self.rest().len();
        if need > have {
            return Err(ReadError::Short { need, have });
        }
        Ok(self.rest()[offset..need].to_vec())
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, ReadError> {
        let bytes = self.peek(0, len)?;
        self.position += len;
        Ok(bytes)
    }
}

fn before_nul(field: &[u8]) -> Result<Vec<u8>, ReadError> {
    match field.iter().position(|byte| *byte == 0) {
        Some(end) => Ok(field[..end].to_vec()),
        None => Err(ReadError::Unterminated { len: field.len() }),
    }
}
