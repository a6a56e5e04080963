//! What is measured.

use std::fmt;

use imsg_os::{DEFAULT_MAX_LEN, HEADER_LEN};

use crate::machine::Core;

/// The size of the buffers of a [`Channel::new`](imsg_os::Channel::new), and of the floor.
pub(crate) const BUFFER: usize = 64 << 10;

/// What is done with each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Found in a slice of memory.
    Parse,
    /// Taken from a receive buffer that holds a batch of them.
    Take,
    /// Written to a send buffer.
    Compose,
    /// Sent to another process; a batch is flushed at once.
    Stream,
    /// Sent to another process and back. On two cores, most of this is the time that a sleeping core
    /// takes to wake up, which says nothing of the program.
    RoundTrip,
    /// The same on one core, so that nothing has to wake up.
    RoundTripOneCore,
    /// Sent once each way over a channel that is made for it and closed, within a process.
    Open,
    /// Sent with a descriptor that stays the sender's.
    Lend,
    /// Sent with a descriptor that was duplicated for it.
    Give,
}

/// A row of each implementation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    /// Bytes of payload in each message.
    pub(crate) payload: usize,
    /// How many messages are in a buffer, or are flushed, at once.
    pub(crate) batch: usize,
}

impl Work {
    pub(crate) fn all() -> Vec<Self> {
        let work = |kind, payload, batch| Self { kind, payload, batch };
        let mut all = vec![
            work(Kind::Parse, 64, 256),
            work(Kind::Parse, 1 << 10, 64),
            work(Kind::Compose, 64, 64),
        ];
        all.extend((0..=6).map(|power| work(Kind::Take, 64, 1 << (2 * power))));
        let payloads = [0, 64, 1 << 10, 8 << 10, DEFAULT_MAX_LEN - HEADER_LEN];
        all.extend(payloads.map(|payload| work(Kind::Stream, payload, 64)));
        all.extend([
            work(Kind::Stream, 64, 1),
            work(Kind::RoundTrip, 64, 1),
            work(Kind::RoundTripOneCore, 64, 1),
            work(Kind::Open, 64, 1),
            work(Kind::Lend, 64, 1),
            work(Kind::Give, 64, 1),
            work(Kind::Stream, (1 << 20) - HEADER_LEN, 1),
            work(Kind::Stream, (64 << 20) - HEADER_LEN, 1),
        ]);
        all
    }

    /// Where the process runs that receives.
    pub(crate) fn core_of_receiver(&self) -> Core {
        match self.kind {
            Kind::RoundTripOneCore => Core::Sender,
            _ => Core::Receiver,
        }
    }

    /// The length of each message, header included.
    pub(crate) fn message_len(&self) -> usize {
        HEADER_LEN + self.payload
    }

    /// How many buffers are filled with a batch before it is measured how they are emptied: enough
    /// that reading the clock counts for little, and few enough to stay in the cache.
    pub(crate) fn buffers(&self) -> usize {
        match self.kind {
            Kind::Take => (256 / self.batch).max(1),
            _ => 1,
        }
    }

    /// How many messages there are in one turn of a [`Sampler`](crate::Sampler).
    pub(crate) fn messages(&self) -> usize {
        self.batch * self.buffers()
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Parse => "parse",
            Kind::Take => "take",
            Kind::Compose => "compose",
            Kind::Stream => "stream",
            Kind::RoundTrip => "round trip",
            Kind::RoundTripOneCore => "round trip on one core",
            Kind::Open => "new channel, once each way",
            Kind::Lend => "descriptor lent",
            Kind::Give => "descriptor given",
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        title(f, self.name(), self.payload, self.batch)
    }
}

/// A work in words.
pub(crate) fn title(
    out: &mut impl fmt::Write,
    name: &str,
    payload: usize,
    batch: usize,
) -> fmt::Result {
    match payload {
        // The largest of a maximum, which includes the header.
        _ if payload >= DEFAULT_MAX_LEN - HEADER_LEN => {
            write!(out, "{name}, {} − {HEADER_LEN}", size(payload + HEADER_LEN))?;
        }
        _ => write!(out, "{name}, {}", size(payload))?,
    }
    match name {
        "stream" => write!(out, ", {batch} a flush"),
        "take" | "parse" | "compose" => write!(out, ", {batch} in the buffer"),
        _ => Ok(()),
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
