//! Models of `Reader` and `Writer` over a `Vec<u8>`, and the calls to compare them by.

use imsg_wire::{ReadError, Reader, WriteError, Writer};

/// Does the same with a writer and its model, and returns the bytes written in the end.
///
/// # Panics
///
/// When they differ.
pub fn compare_writes<P>(
    writer: &mut Writer<'_, P>,
    mut model: WriterModel,
    writes: &[Write],
) -> Vec<u8> {
    for write in writes {
        assert_eq!(write.with_writer(writer), write.with_model(&mut model), "{write:?}");
        assert_eq!(writer.written(), &model.bytes[..], "after {write:?}");
        assert_eq!(writer.len(), model.bytes.len(), "after {write:?}");
        assert_eq!(writer.is_empty(), model.bytes.is_empty(), "after {write:?}");
        assert_eq!(writer.remaining(), model.remaining(), "after {write:?}");
    }
    model.bytes
}

/// Reads `payload` with a reader and with its model.
///
/// # Panics
///
/// When they differ.
pub fn compare_reads(payload: &[u8], reads: &[Read]) {
    let mut reader = Reader::new(payload);
    let mut model = ReaderModel { bytes: payload.to_vec(), position: 0 };
    for read in reads {
        assert_eq!(read.with_reader(&mut reader), read.with_model(&mut model), "{read:?}");
        assert_eq!(reader.rest(), model.rest(), "after {read:?}");
        assert_eq!(reader.remaining(), model.rest().len(), "after {read:?}");
    }
}

// ---- Numbers

/// A family of numbers.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    /// A byte.
    N8,
    /// 16 bits, most significant byte first.
    N16,
    /// 32 bits, most significant byte first.
    N32,
    /// 64 bits, most significant byte first.
    N64,
    /// 16 bits in the order of this machine.
    H16,
    /// 32 bits in the order of this machine.
    H32,
    /// 64 bits in the order of this machine.
    H64,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::N8, Self::N16, Self::N32, Self::N64, Self::H16, Self::H32, Self::H64];

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

// ---- Writing

/// A call of a writer.
#[derive(Clone, Debug)]
pub enum Write {
    /// `add`.
    Add(Vec<u8>),
    /// `add_n8` and so on, of what fits of the number.
    AddNumber(Family, u64),
    /// `add_reader`, of a reader that has read some of a payload.
    AddReader {
        /// All that the reader had.
        payload: Vec<u8>,
        /// How much of it was read.
        read: usize,
    },
    /// `add_zero`.
    AddZero(usize),
    /// `add_strbuf`, of a string in a field of a length.
    AddStrbuf(Vec<u8>, usize),
    /// `reserve`.
    Reserve {
        /// How much.
        len: usize,
        /// What to fill it with.
        fill: u8,
    },
    /// `set`, at an offset.
    Set(usize, Vec<u8>),
    /// `set_n8` and so on, at an offset.
    SetNumber(Family, usize, u64),
    /// `truncate`.
    Truncate(usize),
    /// `set_max_len`.
    SetMaxLen(usize),
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
#[derive(Clone, Debug)]
pub struct WriterModel {
    bytes: Vec<u8>,
    max_len: usize,
    room: usize,
}

impl WriterModel {
    /// Nothing is written; `max_len` bytes may be, and the memory has `room` bytes.
    #[must_use]
    pub fn new(max_len: usize, room: usize) -> Self {
        Self { bytes: Vec::new(), max_len, room }
    }

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

/// A call of a reader.
#[derive(Clone, Debug)]
pub enum Read {
    /// `get`.
    Get(usize),
    /// `get_n8` and so on.
    GetNumber(Family),
    /// `get_reader`.
    GetReader(usize),
    /// `get_str`.
    GetStr(usize),
    /// `get_strbuf`.
    GetStrbuf(usize),
    /// `get_cstr`.
    GetCstr,
    /// `get_value`, of 5 bytes.
    GetValue,
    /// `get_ref`, of 5 bytes.
    GetRef,
    /// `get_slice`, of so many times 4 bytes.
    GetSlice(usize),
    /// `data`, of 5 bytes.
    Data,
    /// `data_ref`, of 5 bytes.
    DataRef,
    /// `data_ref`, of any number of pairs.
    DataRefOfAnySize,
    /// `seek`, of a length at an offset.
    Seek(usize, usize),
    /// `skip`.
    Skip(usize),
    /// `truncate`.
    Truncate(usize),
    /// `rewind`.
    Rewind,
    /// `expect_end`.
    ExpectEnd,
}

/// What was read.
#[derive(Debug, PartialEq)]
enum Field {
    Nothing,
    Bytes(Vec<u8>),
    Number(u64),
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
            Self::GetSlice(count) => {
                reader.get_slice::<[u8; 4]>(count).map(|it| bytes(it.as_flattened()))
            }
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
