//! All ways of parsing agree.

use std::convert::Infallible;

use imsg_wire::{
    Ancillary, Any, Classic, Descriptor, Detected, Dialect, Endian, Error, Frame, HEADER_LEN,
    Message, Messages, Missing, Modern, NoRoom, RecvBuf, SendBuf, split,
};
use zerocopy::{BigEndian, IntoBytes, LittleEndian};

/// Parses any bytes in every dialect and by every parser, and checks that they agree.
///
/// The first bytes choose the largest message and how the rest, which is the stream, is cut into
/// reads.
///
/// # Panics
///
/// When two parsers disagree, or when what was parsed does not encode to the bytes parsed.
pub fn parse(data: &[u8]) {
    let Some((&[max_low, max_high, extra, seed], stream)) = data.split_first_chunk() else {
        return;
    };
    let max_len = u16::from_le_bytes([max_low, max_high]).max(HEADER_LEN as u16);
    let case = Case { stream, max_len, extra: usize::from(extra), seed };
    case.check(Classic::<LittleEndian>::default(), Any::Classic(Endian::Little));
    case.check(Classic::<BigEndian>::default(), Any::Classic(Endian::Big));
    case.check(Modern::<LittleEndian>::default(), Any::Modern(Endian::Little));
    case.check(Modern::<BigEndian>::default(), Any::Modern(Endian::Big));
    case.check_detection(Endian::Little);
    case.check_detection(Endian::Big);
}

struct Case<'a> {
    stream: &'a [u8],
    /// The largest message accepted, header included.
    max_len: u16,
    /// The bytes that a receive buffer has beside those of the largest message.
    extra: usize,
    /// Decides how the stream is cut into reads.
    seed: u8,
}

/// What a parser made of a stream.
#[derive(Debug, PartialEq)]
struct Parsed {
    messages: Vec<(Frame, Vec<u8>)>,
    /// The bytes that the messages have.
    consumed: usize,
    error: Option<Error>,
}

impl Case<'_> {
    fn check<D: Dialect + Copy>(&self, dialect: D, any: Any) {
        let parsed = self.with_split(dialect);
        assert_eq!(self.with_split(any), parsed, "split in a dialect chosen at run time");
        assert_eq!(self.with_iterator(dialect), parsed, "the iterator");
        assert_eq!(self.with_iterator(any), parsed, "the iterator, chosen at run time");
        assert_eq!(self.with_receive_buffer(dialect, &parsed), parsed, "the buffer");
        assert_eq!(
            self.with_receive_buffer(any, &parsed),
            parsed,
            "the buffer, chosen at run time"
        );

        let consumed = without_ignored_flags(any, &self.stream[..parsed.consumed], &parsed);
        assert_eq!(encoded(dialect, &parsed), consumed, "what was parsed, encoded again");
        assert_eq!(encoded(any, &parsed), consumed, "the same, chosen at run time");
        assert_eq!(self.forwarded(dialect, &parsed), consumed, "what was parsed, sent on");
    }

    fn max_len(&self) -> usize {
        usize::from(self.max_len)
    }

    fn with_split<D: Dialect>(&self, dialect: D) -> Parsed {
        let mut messages = Vec::new();
        let mut unread = self.stream;
        let error = loop {
            match split(&dialect, unread, self.max_len()) {
                Ok(Some((frame, payload, rest))) => {
                    assert_eq!(frame.len, HEADER_LEN + payload.len(), "a length and its payload");
                    assert!(frame.len <= self.max_len(), "a longer message than allowed");
                    messages.push((frame, payload.to_vec()));
                    unread = rest;
                }
                Ok(None) => break None,
                Err(error) => {
                    let allowed = HEADER_LEN..=self.max_len();
                    assert_eq!((error.min, error.max), (HEADER_LEN, self.max_len()));
                    assert!(!allowed.contains(&error.len), "a good length is refused");
                    break Some(error);
                }
            }
        };
        let consumed = self.stream.len() - unread.len();
        let error = error.map(|error| Error::Length { offset: consumed as u64, error });
        Parsed { messages, consumed, error }
    }

    fn with_iterator<D: Dialect>(&self, dialect: D) -> Parsed {
        let mut iterator = Messages::new(dialect, self.stream, self.max_len());
        let mut messages = Vec::new();
        let mut error = None;
        for item in iterator.by_ref() {
            assert_eq!(error, None, "an error is the last item");
            match item {
                Ok((frame, payload)) => messages.push((frame, payload.to_vec())),
                Err(found) => error = Some(found),
            }
        }
        let consumed = self.stream.len() - iterator.rest().len();
        assert_eq!(iterator.offset(), consumed as u64, "the offset behind the last message");
        match (iterator.finish(), error) {
            (Err(Error::Truncated { offset, have, need }), None) => {
                assert_eq!((offset, have), (consumed as u64, self.stream.len() - consumed));
                assert!(have < need, "a message is not truncated when all of it is there");
            }
            (finished, error) => assert_eq!(finished.err(), error, "the end, once more"),
        }
        Parsed { messages, consumed, error }
    }

    /// `expected` tells only whether the stream ends inside a message.
    fn with_receive_buffer<D: Dialect>(&self, dialect: D, expected: &Parsed) -> Parsed {
        let storage = vec![0; self.max_len() + self.extra];
        let mut buffer = RecvBuf::new(dialect, storage);
        buffer.set_max_len(self.max_len()).unwrap();
        let mut program = Program { buffer, messages: Vec::new(), error: None };
        let mut numbers = Numbers::new(self.seed);
        let mut unread = self.stream;
        while !unread.is_empty()
            && let Some(spare) = program.spare()
        {
            let n = numbers.size(spare.len().min(unread.len()));
            let (read, rest) = unread.split_at(n);
            spare[..n].copy_from_slice(read);
            unread = rest;
            program.buffer.commit(n, Ancillary::Nothing).expect("a part of the room");
            for _ in 0..numbers.next() % 4 {
                program.take_one();
            }
        }
        program.buffer.finish();
        while program.error.is_none() && program.buffer.is_ready() {
            program.take_one();
        }

        let consumed = program.buffer.offset() as usize;
        let left = self.stream.len() - consumed;
        let error = match program.error {
            Some(Error::Truncated { offset, have, need }) if expected.error.is_none() => {
                assert_eq!((offset, have), (consumed as u64, left), "where the stream ended");
                assert!(have < need, "a message is not truncated when all of it is there");
                None
            }
            None => {
                assert_eq!(left, 0, "bytes are left over");
                None
            }
            error => error,
        };
        Parsed { messages: program.messages, consumed, error }
    }

    /// Sends each message on by itself.
    fn forwarded<D: Dialect>(&self, dialect: D, parsed: &Parsed) -> Vec<u8> {
        let storage = vec![0; self.max_len()];
        let mut queue = SendBuf::<D, Vec<u8>, ()>::with_descriptors(dialect, storage);
        queue.set_max_len(self.max_len()).unwrap();
        let mut stream = Vec::new();
        for (frame, payload) in &parsed.messages {
            let descriptor = Descriptor::<Infallible>::None;
            let message = Message { header: frame.header, payload, descriptor };
            queue.forward(&message, frame.marked.then_some(())).expect("room for a message");
            let chunk = queue.chunk().expect("something to send");
            assert_eq!(chunk.descriptor.is_some(), frame.marked, "a mark and its descriptor");
            stream.extend_from_slice(chunk.bytes);
            let n = chunk.bytes.len();
            queue.consume(n).expect("the chunk offered");
            assert!(queue.is_empty(), "one message makes one chunk");
        }
        stream
    }

    /// Detection says nothing else than what the first header decodes to.
    fn check_detection(&self, order: Endian) {
        let Some(header) = self.stream.first_chunk() else {
            return;
        };
        let frame = |dialect: Any| {
            let frame = dialect.decode(header);
            (HEADER_LEN..=self.max_len()).contains(&frame.len).then_some(frame)
        };
        let flags = &header[6..8];
        let known_flags = match order {
            Endian::Little => flags[0] & !1 == 0 && flags[1] == 0,
            Endian::Big => flags[0] == 0 && flags[1] & !1 == 0,
        };
        let classic = frame(Any::Classic(order)).filter(|_| known_flags);
        let modern = frame(Any::Modern(order));
        let expected = match (classic, modern) {
            (Some(classic), Some(modern)) => {
                assert_eq!(order, Endian::Little, "big-endian headers tell their dialect");
                assert_eq!(classic, modern, "the dialects differ on bytes that both write");
                assert!(!classic.marked, "the dialects mark in different bits");
                Detected::Either
            }
            (Some(_), None) => Detected::Classic,
            (None, Some(_)) => Detected::Modern,
            (None, None) => Detected::Contradicts,
        };
        assert_eq!(Detected::of(header, order, self.max_len), expected);
    }
}

/// A program that receives.
struct Program<D> {
    buffer: RecvBuf<D, Vec<u8>>,
    messages: Vec<(Frame, Vec<u8>)>,
    error: Option<Error>,
}

impl<D: Dialect> Program<D> {
    fn spare(&mut self) -> Option<&mut [u8]> {
        while self.buffer.spare() == Err(NoRoom::Full) {
            assert!(self.buffer.is_ready(), "a full buffer has something to take");
            self.take_one();
        }
        self.buffer.spare().ok()
    }

    /// Takes a message or an error, if there is one.
    fn take_one(&mut self) {
        let ready = self.buffer.is_ready();
        match self.buffer.next_message() {
            Ok(None) => assert!(!ready, "there is a message or an error when the buffer is ready"),
            Ok(Some(message)) => {
                assert!(ready, "a message came from a buffer that is not ready");
                self.messages.push(received(message));
            }
            Err(error) => {
                assert!(ready, "an error came from a buffer that is not ready");
                assert_eq!(self.error.unwrap_or(error), error, "an error stays the same");
                self.error = Some(error);
            }
        }
    }
}

fn received(message: Message<'_>) -> (Frame, Vec<u8>) {
    let marked = match message.descriptor {
        Descriptor::None => false,
        Descriptor::Missing(Missing::NotAllowed) => true,
        Descriptor::Missing(why) => panic!("descriptors were not allowed, yet this one is {why:?}"),
    };
    let len = HEADER_LEN + message.payload.len();
    (Frame { header: message.header, len, marked }, message.payload.to_vec())
}

fn encoded<D: Dialect>(dialect: D, parsed: &Parsed) -> Vec<u8> {
    let mut stream = Vec::new();
    for (frame, payload) in &parsed.messages {
        stream.extend_from_slice(dialect.encode(frame).as_bytes());
        stream.extend_from_slice(payload);
    }
    stream
}

/// The stream without the flags of classic headers that no reader looks at.
fn without_ignored_flags(dialect: Any, stream: &[u8], parsed: &Parsed) -> Vec<u8> {
    let mut stream = stream.to_vec();
    let mark: [u8; 2] = match dialect {
        Any::Classic(Endian::Little) => [1, 0],
        Any::Classic(Endian::Big) => [0, 1],
        Any::Modern(_) => return stream,
    };
    let mut start = 0;
    for (frame, _) in &parsed.messages {
        stream[start + 6] &= mark[0];
        stream[start + 7] &= mark[1];
        start += frame.len;
    }
    stream
}

/// Reproducible numbers (xorshift).
struct Numbers(u32);

impl Numbers {
    fn new(seed: u8) -> Self {
        Self(0x9e37_79b9 ^ u32::from(seed))
    }

    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize
    }

    /// A size from 1 to `most`: often a small one, often all.
    fn size(&mut self, most: usize) -> usize {
        let number = self.next();
        match number % 4 {
            0 => most,
            1 => 1 + number / 4 % most.min(40),
            _ => 1 + number / 4 % most,
        }
    }
}
