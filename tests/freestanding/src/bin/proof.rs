//! Uses all of imsg-wire on bytes that the compiler cannot know. That this links proves that no
//! panic can be reached from any of it, as the panic handler calls a function that exists nowhere.

#![no_std]
#![no_main]

use core::ffi::CStr;
use core::fmt::{self, Write};
use core::hint::black_box;

use imsg_freestanding::{entry, system};
use imsg_wire::typed::{
    Carries, Counted, Encoding, Network, Network16, Network32, Network64, Padded, Protocol,
    Terminated,
};
use imsg_wire::{
    Ancillary, Any, Classic, Descriptor, Detected, Dialect, Endian, Frame, Gathered, Header,
    Message, Messages, Modern, NoRoom, OwnedMessage, Pairing, ReadError, Reader, Reason, RecvBuf,
    Refused, Requests, SendBuf, WriteError, Writer, split,
};
use zerocopy::byteorder::big_endian::U32;
use zerocopy::{
    BigEndian, FromBytes, Immutable, IntoBytes, KnownLayout, LittleEndian, TryFromBytes, Unaligned,
};

entry!(main);

fn main() -> u8 {
    let mut input = [0; 512];
    let mut log = Log;
    while let Ok(n) = system::input(&mut input) {
        let Some(bytes) = input.get(..n) else { break };
        if bytes.is_empty() {
            return 0;
        }
        parsing(bytes, &mut log);
        let _ = payload(bytes, &mut log);
        typed(bytes, &mut log);
        requests(bytes, &mut log);
        for rule in [Pairing::Exact, Pairing::Ordered, Pairing::Unmarked] {
            buffers(Classic::<LittleEndian>::default(), rule, bytes, &mut log);
            buffers(Classic::<BigEndian>::default(), rule, bytes, &mut log);
            buffers(Modern::<LittleEndian>::default(), rule, bytes, &mut log);
            buffers(Modern::<BigEndian>::default(), rule, bytes, &mut log);
            buffers(any(bytes), rule, bytes, &mut log);
            buffers(LengthOnly, rule, bytes, &mut log);
        }
        #[cfg(feature = "reachable-panic")]
        let _ = write!(log, "{}", bytes[usize::from(bytes.len() > 7) * 8]);
    }
    1
}

/// Text goes to standard output.
struct Log;

impl Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        system::output(text.as_bytes()).map(drop).map_err(|_| fmt::Error)
    }
}

impl Log {
    fn shown(&mut self, value: impl fmt::Display) {
        let _ = writeln!(self, "{value}");
    }

    fn error<E: fmt::Display + fmt::Debug>(&mut self, error: E) {
        let _ = writeln!(self, "{error}: {error:?}");
    }
}

fn any(bytes: &[u8]) -> Any {
    match bytes.first() {
        Some(0) => Any::Classic(Endian::Little),
        Some(1) => Any::Classic(Endian::Big),
        Some(2) => Any::Modern(Endian::Little),
        Some(3) => Any::Modern(Endian::Big),
        _ => Any::Modern(Endian::NATIVE),
    }
}

/// A framing of the program's own.
#[derive(Clone, Copy)]
struct LengthOnly;

impl Dialect for LengthOnly {
    type Raw = [u8; 2];

    fn decode(&self, raw: &Self::Raw) -> Frame {
        let word = u16::from_be_bytes(*raw);
        let len = usize::from(word & 0x7fff);
        Frame { header: Header::default(), len, marked: word & 0x8000 != 0 }
    }

    fn encode(&self, frame: &Frame) -> Self::Raw {
        let mark = if frame.marked { 0x8000 } else { 0 };
        (frame.len as u16 | mark).to_be_bytes()
    }

    fn max_len(&self) -> usize {
        0x7fff
    }

    fn pairing(&self) -> Pairing {
        Pairing::Exact
    }
}

fn parsing(bytes: &[u8], log: &mut Log) {
    let max_len = usize::from(bytes.first().copied().unwrap_or(0)) << 8;
    if let Some(header) = bytes.first_chunk() {
        for order in [Endian::Little, Endian::Big] {
            black_box(Detected::of(header, order, bytes.len() as u16));
        }
    }
    stateless(Classic::<LittleEndian>::default(), bytes, max_len, log);
    stateless(Classic::<BigEndian>::default(), bytes, max_len, log);
    stateless(Modern::<LittleEndian>::default(), bytes, max_len, log);
    stateless(Modern::<BigEndian>::default(), bytes, max_len, log);
    stateless(any(bytes), bytes, max_len, log);
}

fn stateless<D: Dialect + Copy>(dialect: D, bytes: &[u8], max_len: usize, log: &mut Log) {
    if let Err(error) = split(&dialect, bytes, max_len) {
        log.error(error);
    }
    let mut messages = Messages::new(dialect, bytes, max_len);
    for message in messages.by_ref() {
        match message {
            Ok((frame, payload)) => {
                black_box((frame, payload));
                #[cfg(feature = "all")]
                features::headers(frame, log);
            }
            Err(error) => log.error(error),
        }
    }
    log.shown(messages.offset());
    black_box(messages.rest());
    let _ = write!(log, "{messages:?}");
    if let Err(error) = messages.finish() {
        log.error(error);
    }
}

/// Stands for a descriptor, and is not `Copy`.
#[derive(Debug)]
struct Token(u8);

impl Drop for Token {
    fn drop(&mut self) {
        black_box(self.0);
    }
}

/// Memory whose length the compiler does not know.
#[cfg(feature = "all")]
type Memory<'a> = imsg_wire::Wiping<&'a mut [u8]>;
#[cfg(not(feature = "all"))]
type Memory<'a> = &'a mut [u8];

#[cfg(feature = "all")]
fn memory(bytes: &mut [u8]) -> Memory<'_> {
    imsg_wire::Wiping::new(bytes)
}

#[cfg(not(feature = "all"))]
fn memory(bytes: &mut [u8]) -> Memory<'_> {
    bytes
}

/// Echoes what it receives, with buffers so small that all of their limits are met.
fn buffers<D: Dialect + Copy>(dialect: D, rule: Pairing, bytes: &[u8], log: &mut Log) {
    let (mut a, mut b) = ([0; 128], [0; 160]);
    let a = a.get_mut(..black_box(bytes.len())).unwrap_or_default();
    let b = b.get_mut(..black_box(bytes.len())).unwrap_or_default();
    let mut rx: RecvBuf<D, Memory<'_>, Token, 2> = RecvBuf::with_descriptors(dialect, memory(a));
    let mut tx: SendBuf<D, Memory<'_>, Token, 2> = SendBuf::with_descriptors(dialect, memory(b));
    rx.set_pairing(rule);
    if let Err(error) = rx.set_max_len(bytes.len()) {
        log.error(error);
    }
    black_box(rx.max_len());
    if let Err(error) = tx.set_max_len(bytes.len()) {
        log.error(error);
    }
    black_box(tx.max_len());
    tx.set_pid(7);
    for chunk in bytes.chunks(9) {
        if chunk.last() < Some(&200) {
            rx.allow_descriptors();
        }
        receive(&mut rx, chunk, log);
        while let Ok(Some(message)) = rx.next_message() {
            reply(&mut tx, message, log);
        }
        for message in rx.messages() {
            match message {
                Ok(message) => reply(&mut tx, message, log),
                Err(error) => log.error(error),
            }
        }
        send(&mut tx, chunk.len(), log);
        black_box((rx.is_ready(), rx.is_finished(), rx.offset(), rx.descriptors_allowed()));
        black_box((tx.is_empty(), tx.queue_len(), tx.queue_bytes(), tx.sent()));
        black_box((rx.received(), rx.unread_bytes(), rx.next_len()));
        black_box(tx.room_for(chunk.len(), chunk.len() > 2));
        if let Err(error) = tx.has_room(chunk.len(), chunk.len() > 1) {
            log.error(error);
        }
        if let Err(error) = tx.make_room(chunk.len(), chunk.len() > 3) {
            log.error(error);
        }
    }
    rx.finish();
    let _ = write!(log, "{rx:?} {tx:?}");
    let _ = write!(log, "{:?}", rx.messages());
    if let Err(error) = rx.next_message() {
        log.error(error);
    }
    rx.reset();
    tx.reset();
    receive(&mut rx, bytes, log);
    if let Ok(Some(message)) = rx.next_message() {
        reply(&mut tx, message, log);
    }
    let _ = write!(log, "{:?}", rx.storage());
    let _ = write!(log, "{:?}", rx.replace_storage(memory(&mut [])));
    let _ = write!(log, "{:?} {:?}", rx.into_storage(), tx.into_storage());
}

fn receive<D: Dialect>(rx: &mut RecvBuf<D, Memory<'_>, Token, 2>, chunk: &[u8], log: &mut Log) {
    let spare = match rx.spare() {
        Ok(spare) => spare,
        Err(error @ NoRoom::Failed(_)) => return log.error(error),
        Err(error) => return log.shown(error),
    };
    let n = chunk.len().min(spare.len());
    for (to, from) in spare.iter_mut().zip(chunk) {
        *to = *from;
    }
    let ancillary = match chunk.first() {
        Some(byte @ 0..64) => Ancillary::One(Token(*byte)),
        Some(64..66) => Ancillary::Several,
        Some(66..80) => Ancillary::Dropped,
        _ => Ancillary::Nothing,
    };
    let claimed = n.wrapping_add(usize::from(chunk.last() == Some(&0xff)));
    if let Err(error) = rx.commit(claimed, ancillary) {
        log.error(&error);
        let _ = rx.commit(n, error.returned);
    }
}

fn reply<D: Dialect>(
    tx: &mut SendBuf<D, Memory<'_>, Token, 2>,
    mut message: Message<'_, Token>,
    log: &mut Log,
) {
    let _ = write!(log, "{message:?}");
    if let Descriptor::Missing(why) = message.descriptor {
        black_box(why);
    }
    let token = message.descriptor.take();
    let refused = |log: &mut Log, Refused { reason, descriptor }: Refused<Token>| {
        log.error(Refused { reason, descriptor: descriptor.as_ref() });
        descriptor
    };
    let token = match tx.forward(&message, token) {
        Ok(()) => None,
        Err(error) => refused(log, error),
    };
    let token = match tx.compose(Header::new(1), message.payload, token) {
        Ok(()) => None,
        Err(error) => refused(log, error),
    };
    let parts = [message.payload, message.payload, b"end"];
    let token = match tx.compose_parts(message.header, &parts, token) {
        Ok(()) => None,
        Err(error) => refused(log, error),
    };
    match tx.create(message.header, token) {
        Ok(mut writer) => {
            let written = fields(&mut writer, message.reader());
            let _ = write!(log, "{writer:?}");
            match written {
                Ok(()) => writer.close(),
                Err(error) => {
                    log.error(error);
                    drop(writer.abandon());
                }
            }
        }
        Err(error) => drop(refused(log, error)),
    }
    match tx.lend(message.header, message.payload) {
        Ok(lent) => {
            let _ = write!(log, "{lent:?}");
            let n = lent.parts().into_iter().fold(0, |n, part| part.len().wrapping_add(n)) / 2;
            match lent.sent(n) {
                Ok(Some(rest)) => gathered(rest, log),
                Ok(None) => {}
                Err(error) => log.error(error),
            }
        }
        Err(error @ (Reason::TooLong { .. } | Reason::Full { .. })) => log.error(error),
        Err(error) => log.shown(error),
    }
    match tx.gather(message.header, message.payload, None) {
        Ok(message) => gathered(message, log),
        Err(error) => drop(refused(log, error)),
    }
    match tx.gather_forward(&message, None) {
        Ok(message) => gathered(message, log),
        Err(error) => drop(refused(log, error)),
    }
    match OwnedMessage::<64, Token>::try_from(message) {
        Ok(mut owned) => {
            black_box((owned.view().header, owned.payload()));
            let _ = write!(log, "{owned:?}");
            let _ = write!(log, "{:?}", owned.take());
        }
        Err(error) => log.error(error),
    }
}

fn gathered<D: Dialect>(mut message: Gathered<'_, D, Memory<'_>, Token, 2>, log: &mut Log) {
    let _ = write!(log, "{message:?} {:?}", message.descriptor());
    let sent = message.parts().into_iter().flat_map(system::output).fold(0, usize::wrapping_add);
    match message.consume(sent) {
        Ok(token) => drop(token),
        Err(error) => log.error(error),
    }
}

fn send<D: Dialect>(tx: &mut SendBuf<D, Memory<'_>, Token, 2>, n: usize, log: &mut Log) {
    let n = n.wrapping_mul(5);
    if let Some(chunk) = tx.chunk() {
        let _ = system::output(chunk.bytes);
        let _ = write!(log, "{chunk:?}");
    }
    match tx.consume(n) {
        Ok(token) => drop(token),
        Err(error) => log.error(error),
    }
}

fn requests(bytes: &[u8], log: &mut Log) {
    let mut requests = Requests::<Token, 3>::new();
    for byte in bytes {
        let id = u32::from(*byte);
        match byte & 7 {
            0..3 => drop(requests.insert(Token(*byte)).map_err(|token| log.shown(token.0))),
            3..5 => drop(black_box(requests.take(id >> 3))),
            5 => drop(black_box(requests.expire(|_, token| token.0 > *byte).last())),
            6 => drop(black_box(requests.drain().next())),
            _ => {
                _ = black_box((
                    requests.get(id).map(|token| token.0),
                    requests.iter().last().is_some(),
                ))
            }
        }
    }
    let _ = write!(log, "{requests:?} {} {}", requests.len(), requests.is_empty());
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Aligned {
    number: u32,
    more: u32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WithRest {
    number: U32,
    rest: [u8],
}

fn payload(bytes: &[u8], log: &mut Log) -> fmt::Result {
    let n = usize::from(bytes.first().copied().unwrap_or(0));
    let mut reader = Reader::new(bytes);
    macro_rules! read {
        ($($what:expr),* $(,)?) => {$(
            match $what {
                Ok(value) => drop(black_box(value)),
                Err(error) => log.error(error),
            }
        )*};
    }
    read!(
        reader.get_n8(),
        reader.get_n16(),
        reader.get_n32(),
        reader.get_n64(),
        reader.get_h16(),
        reader.get_h32(),
        reader.get_h64(),
        reader.get(n),
        reader.get_reader(n),
        reader.get_value::<Aligned>(),
        reader.get_ref::<U32>(),
        reader.get_slice::<U32>(n),
        reader.data::<Aligned>(),
        reader.data_ref::<WithRest>().map(|value| (value.number, value.rest.len())),
        reader.get_strbuf(n),
        reader.get_str(n),
        reader.get_cstr(),
        reader.get_counted::<u8>(),
        reader.get_counted_str::<Network16>(),
        reader.skip(n),
        reader.seek(n, n),
        reader.truncate(n),
        reader.expect_end(),
    );
    write!(log, "{reader:?} {}", reader.remaining())?;
    reader.rewind();

    let mut space = [0; 64];
    let mut writer = Writer::new(&mut space);
    if let Err(error) = fields(&mut writer, reader) {
        log.error(error);
    }
    write!(log, "{writer:?} {} {}", writer.len(), writer.is_empty())
}

fn fields<P>(writer: &mut Writer<'_, P>, reader: Reader<'_>) -> Result<(), imsg_wire::WriteError> {
    let n = usize::from(reader.rest().first().copied().unwrap_or(0));
    let number = n as u64;
    if n == 3 {
        writer.set_max_len(n)?;
    }
    writer.add_n8(number as u8)?;
    writer.add_n16(number as u16)?;
    writer.add_n32(number as u32)?;
    writer.add_n64(number)?;
    writer.add_h16(number as u16)?;
    writer.add_h32(number as u32)?;
    writer.add_h64(number)?;
    writer.set(n, &Aligned { number: 1, more: 2 })?;
    writer.set_n8(n, 1)?;
    writer.set_n16(n, 1)?;
    writer.set_n32(n, 1)?;
    writer.set_n64(n, 1)?;
    writer.set_h16(n, 1)?;
    writer.set_h32(n, 1)?;
    writer.set_h64(n, 1)?;
    writer.truncate(n)?;
    writer.add_zero(n)?;
    writer.add_strbuf(reader.rest(), n)?;
    writer.add_reader(&reader)?;
    writer.add_counted::<u8>(reader.rest())?;
    let _ = write!(writer, "{n}");
    writer.add(reader.rest())?;
    if let Some(byte) = writer.reserve(n)?.first_mut() {
        *byte = 1;
    }
    black_box((writer.written(), writer.remaining()));
    Ok(())
}

#[derive(TryFromBytes, IntoBytes, Immutable)]
#[repr(u32)]
#[allow(dead_code, reason = "they come from outside")]
enum Color {
    Red = 1,
    Green = 5,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Packed {
    kind: u8,
    count: U32,
}

/// A number that may be left out: an encoding of the program's own.
enum Late {}

impl<'a> Encoding<'a, Option<u32>> for Late {
    const TAKES_REST: bool = true;

    fn len(value: &Option<u32>) -> usize {
        if value.is_some() { size_of::<u32>() } else { 0 }
    }

    fn write<P>(value: &Option<u32>, writer: &mut Writer<'_, P>) -> Result<(), WriteError> {
        value.map_or(Ok(()), |value| writer.add_h32(value))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Option<u32>, ReadError> {
        if reader.remaining() == 0 { Ok(None) } else { reader.get_h32().map(Some) }
    }
}

imsg_wire::protocol! {
    /// Each kind of field.
    enum Told<'a> {
        0 => Nothing,
        1 => Owned { a: u8, b: i64, c: [u16; 3], d: Aligned, e: bool, f: Color },
        2 => InNetworkOrder { a: u16 as Network, b: i32 as Network, c: u128 as Network },
        3 => Borrowed { a: &'a Packed },
        4 => Ended { a: &'a CStr, b: &'a str as Terminated, c: &'a [u8] as Terminated },
        5 => Fixed { a: &'a CStr as Padded<3>, b: &'a str as Padded<4>, c: &'a [u8] as Padded<0> },
        6 => Counts { a: &'a str as Counted<u8>, b: &'a [Packed] as Counted<u16> },
        7 => More { a: &'a [u8] as Counted<u32>, b: &'a str as Counted<u64>, c: &'a [u8] as Counted<usize> },
        8 => InNetworkOrderToo {
            a: &'a str as Counted<Network16>,
            b: &'a [U32] as Counted<Network32>,
            c: &'a [u8] as Counted<Network64>,
        },
        9 => Bytes { a: u8, rest: &'a [u8] },
        10 => Elements(&'a [Packed]) + Token,
        11 => Text(&'a str) + Option<Token>,
        12 => Own { late: Option<u32> as Late } + Token,
        FILE = 13 => File + Token,
    }
}

/// Takes messages of all types from `bytes`, and queues them again.
fn typed(bytes: &[u8], log: &mut Log) {
    let Some((&[msg_type, kind, len], payload)) = bytes.split_first_chunk() else { return };
    let mut space = [0; 256];
    let space = space.get_mut(..len.into()).unwrap_or_default();
    let received = RecvBuf::new(Modern::new(), [0; 32]);
    let queue = SendBuf::new(Modern::new(), [0; 32]);
    let _ = write!(log, "{} {}", received.max_len(), queue.max_len());
    let mut queue: SendBuf<Modern, &mut [u8], Token, 2> =
        SendBuf::with_descriptors(Modern::new(), space);
    for msg_type in [msg_type.into(), Told::FILE] {
        let descriptor = match kind {
            0 => Descriptor::None,
            1 => Descriptor::Missing(imsg_wire::Missing::Dropped),
            token => Descriptor::Here(Token(token)),
        };
        let message = Message { header: Header::new(msg_type), payload, descriptor };
        match Told::try_from(message) {
            Ok(told) => {
                let _ = write!(log, "{} {}", told.name(), told.has_descriptor());
                let mut space = [0; 64];
                let mut writer = Writer::new(&mut space);
                if let Err(error) = told.write_payload(&mut writer) {
                    log.error(error);
                }
                if let Err(error) = told.has_room(&queue) {
                    log.error(error);
                }
                if let Err(Refused { reason, descriptor }) = told.compose(&mut queue, 7) {
                    log.error(reason);
                    drop(descriptor);
                }
            }
            Err(error) => log.error(error),
        }
    }
    let _ = write!(log, "{queue:?}");
}

/// What `serde` and `defmt` do for headers.
#[cfg(feature = "all")]
mod features {
    use core::hint::black_box;

    use imsg_freestanding::fields::Fields;
    use imsg_freestanding::system;
    use imsg_wire::{Frame, Header};
    use serde::de::value::{Error, SeqDeserializer};
    use serde::{Deserialize, Serialize};

    use super::Log;

    pub fn headers(frame: Frame, log: &mut Log) {
        defmt::println!("{} {}", frame.header, frame);
        if let Err(error) = frame.serialize(Fields(log)) {
            log.error(error);
        }
        let Header { msg_type, id, pid } = frame.header;
        read(Header::deserialize(SeqDeserializer::new([msg_type, id, pid].into_iter())), log);
        read(Frame::deserialize(SeqDeserializer::new([id].into_iter())), log);
    }

    fn read<T>(value: Result<T, Error>, log: &mut Log) {
        match value {
            Ok(value) => drop(black_box(value)),
            Err(error) => log.error(error),
        }
    }

    #[defmt::global_logger]
    struct Logger;

    // SAFETY: there are no threads and no interrupts that could write in between.
    unsafe impl defmt::Logger for Logger {
        fn acquire() {}

        unsafe fn flush() {}

        unsafe fn release() {}

        unsafe fn write(bytes: &[u8]) {
            let _ = system::output(bytes);
        }
    }

    defmt::timestamp!("");
}
