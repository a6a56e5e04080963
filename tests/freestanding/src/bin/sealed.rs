//! A service in a process that can read, write and exit, and nothing else.
//!
//! It has an imsg channel as descriptor 3, enters seccomp's strict mode, and answers requests until
//! the other side hangs up:
//!
//! | request | payload | reply | payload |
//! | --- | --- | --- | --- |
//! | 1, echo | any | 2 | the same |
//! | 3, summary | numbers of 32 bits | 4 | [`Summary`] |
//! | any other | | 0 | none |
//!
//! A reply has the id of its request. Exit codes: 0 when the other side hung up, 65 when it broke
//! the protocol, 71 when strict mode cannot be entered, 74 when it cannot be read or written.

#![no_std]
#![no_main]

use imsg_freestanding::{entry, kernel};
use imsg_wire::{
    Ancillary, Header, Message, Modern, NoRoom, ReadError, Reason, RecvBuf, Refused, SendBuf,
};
use zerocopy::byteorder::native_endian::U32;
use zerocopy::{Immutable, IntoBytes};

const CHANNEL: usize = 3;
const BUFFER: usize = 16384;

const ERROR: u32 = 0;
const ECHO: u32 = 1;
const ECHOED: u32 = 2;
const SUMMARY: u32 = 3;
const SUMMARISED: u32 = 4;

/// What there is to say about some numbers; all zero when there are none.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct Summary {
    count: u64,
    sum: u64,
    min: u32,
    max: u32,
}

enum Failure {
    Protocol,
    System,
    Io,
}

entry!(main);

fn main() -> u8 {
    match run() {
        Ok(()) => 0,
        Err(Failure::Protocol) => 65,
        Err(Failure::System) => 71,
        Err(Failure::Io) => 74,
    }
}

fn run() -> Result<(), Failure> {
    kernel::ignore_sigpipe().map_err(|_| Failure::System)?;
    kernel::enter_strict_mode().map_err(|_| Failure::System)?;
    let mut rx = RecvBuf::<_, _>::new(Modern::new(), [0; BUFFER]);
    let mut tx = SendBuf::<_, _>::new(Modern::new(), [0; BUFFER]);
    while receive(&mut rx)? {
        while let Some(message) = rx.next_message().map_err(|_| Failure::Protocol)? {
            answer(&mut tx, &message)?;
        }
        flush(&mut tx)?;
    }
    // The stream may have ended inside a message.
    rx.next_message().map(drop).map_err(|_| Failure::Protocol)
}

/// Reads once; false at the end of the stream.
fn receive(rx: &mut RecvBuf<Modern, [u8; BUFFER]>) -> Result<bool, Failure> {
    let spare = match rx.spare() {
        Ok(spare) => spare,
        Err(NoRoom::Full) => return Ok(true),
        Err(NoRoom::Finished) => return Ok(false),
        Err(NoRoom::Failed(_)) => return Err(Failure::Protocol),
    };
    let n = kernel::read(CHANNEL, spare).map_err(|_| Failure::Io)?;
    rx.commit(n, Ancillary::Nothing).map_err(|_| Failure::Io)?;
    if n == 0 {
        rx.finish();
    }
    Ok(n > 0)
}

fn answer(tx: &mut SendBuf<Modern, [u8; BUFFER]>, message: &Message<'_>) -> Result<(), Failure> {
    let reply = |msg_type| Header { id: message.header.id, ..Header::new(msg_type) };
    match message.header.msg_type {
        ECHO => queue(tx, reply(ECHOED), message.payload),
        SUMMARY => match summarise(message) {
            Ok(summary) => queue(tx, reply(SUMMARISED), &summary),
            Err(_) => queue(tx, reply(ERROR), b""),
        },
        _ => queue(tx, reply(ERROR), b""),
    }
}

fn summarise(message: &Message<'_>) -> Result<Summary, ReadError> {
    let numbers: &[U32] = message.reader().data_ref()?;
    let mut numbers = numbers.iter().map(|number| number.get());
    let Some(first) = numbers.next() else {
        return Ok(Summary::default());
    };
    let one = Summary { count: 1, sum: first.into(), min: first, max: first };
    Ok(numbers.fold(one, |so_far, number| Summary {
        count: so_far.count.wrapping_add(1),
        sum: so_far.sum.wrapping_add(number.into()),
        min: so_far.min.min(number),
        max: so_far.max.max(number),
    }))
}

/// Queues a reply, and sends what is queued when there is no room for it.
fn queue<T: IntoBytes + Immutable + ?Sized>(
    tx: &mut SendBuf<Modern, [u8; BUFFER]>,
    header: Header,
    payload: &T,
) -> Result<(), Failure> {
    match tx.compose(header, payload, None) {
        Err(Refused { reason: Reason::Full { .. }, .. }) => {
            flush(tx)?;
            tx.compose(header, payload, None).map_err(|_| Failure::Protocol)
        }
        result => result.map_err(|_| Failure::Protocol),
    }
}

fn flush(tx: &mut SendBuf<Modern, [u8; BUFFER]>) -> Result<(), Failure> {
    while let Some(chunk) = tx.chunk() {
        let n = kernel::write(CHANNEL, chunk.bytes).map_err(|_| Failure::Io)?;
        tx.consume(n).map_err(|_| Failure::Io)?;
    }
    Ok(())
}
