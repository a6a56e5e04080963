//! What `sealed` and `node` do for whoever is at the other end:
//!
//! | request | payload | reply | payload |
//! | --- | --- | --- | --- |
//! | 1, echo | any | 2 | the same |
//! | 3, summary | numbers of 32 bits | 4 | [`Summary`] |
//! | any other | | 0 | none |
//!
//! A reply has the id of its request.

use core::convert::Infallible;

use imsg_wire::{
    Ancillary, Header, Message, Modern, NoRoom, ReadError, Reason, RecvBuf, Refused, SendBuf,
    Storage,
};
use zerocopy::byteorder::native_endian::U32;
use zerocopy::{Immutable, IntoBytes};

/// The type of what is said to a request that cannot be answered.
pub const ERROR: u32 = 0;
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

/// A way to the other end.
pub trait Link {
    /// Waits for bytes, and puts some of them into `buf`; 0 is the end of the stream.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Broken>;

    /// Sends some of `bytes`.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Broken>;
}

/// The link cannot be used any more.
#[derive(Clone, Copy, Debug)]
pub struct Broken;

/// Why nothing is answered any more, but that the other side hung up.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// The other side broke the protocol.
    Protocol,
    /// The link is broken.
    Link,
}

impl From<Broken> for Failure {
    fn from(Broken: Broken) -> Self {
        Self::Link
    }
}

/// What comes, and what goes, over memory that is not shared with anything.
pub type Received<S> = RecvBuf<Modern, S, Infallible, 2>;
/// See [`Received`].
pub type Queue<S> = SendBuf<Modern, S, Infallible, 2>;

/// Answers requests until the other side hangs up.
pub fn serve<S: Storage>(
    link: &mut impl Link,
    rx: &mut Received<S>,
    tx: &mut Queue<S>,
) -> Result<(), Failure> {
    while receive(link, rx)? {
        while let Some(message) = rx.next_message().map_err(|_| Failure::Protocol)? {
            match answer(tx, &message) {
                Err(Reason::Full { .. }) => {
                    flush(link, tx)?;
                    answer(tx, &message)
                }
                result => result,
            }
            .map_err(|_| Failure::Protocol)?;
        }
        flush(link, tx)?;
    }
    // The stream may have ended inside a message.
    rx.next_message().map(drop).map_err(|_| Failure::Protocol)
}

/// Reads once; false at the end of the stream.
fn receive<S: Storage>(link: &mut impl Link, rx: &mut Received<S>) -> Result<bool, Failure> {
    let spare = match rx.spare() {
        Ok(spare) => spare,
        Err(NoRoom::Full) => return Ok(true),
        Err(NoRoom::Finished) => return Ok(false),
        Err(NoRoom::Failed(_)) => return Err(Failure::Protocol),
    };
    let n = link.read(spare)?;
    rx.commit(n, Ancillary::Nothing).map_err(|_| Failure::Link)?;
    if n == 0 {
        rx.finish();
    }
    Ok(n > 0)
}

fn answer<S: Storage>(tx: &mut Queue<S>, message: &Message<'_>) -> Result<(), Reason> {
    let reply = |msg_type| Header { id: message.header.id, ..Header::new(msg_type) };
    let queued = match message.header.msg_type {
        ECHO => tx.compose(reply(ECHOED), message.payload, None),
        SUMMARY => match summarise(message) {
            Ok(summary) => tx.compose(reply(SUMMARISED), &summary, None),
            Err(_) => tx.compose(reply(ERROR), b"", None),
        },
        _ => tx.compose(reply(ERROR), b"", None),
    };
    queued.map_err(|Refused { reason, .. }| reason)
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

/// Sends what is queued.
pub fn flush<S: Storage>(link: &mut impl Link, tx: &mut Queue<S>) -> Result<(), Failure> {
    while let Some(chunk) = tx.chunk() {
        let n = link.write(chunk.bytes)?;
        tx.consume(n).map_err(|_| Failure::Link)?;
    }
    Ok(())
}
