//! What is to happen: it follows from the seed, and both processes know it.

use std::time::Duration;

use clap::ValueEnum;
use imsg_os::{DEFAULT_MAX_LEN, Header, Pairing};

use imsg_tests::rng::Rng;

const HEADER_LEN: usize = imsg_wire::HEADER_LEN;

/// Room for an [`Account`](super::account::Account), which is the last message.
const SMALLEST_MAX_LEN: usize = 128;

/// The most bytes that one direction of a cycle that ends by itself is to have, about.
const MOST_BYTES: usize = 16 << 20;

/// The type of the last message; no other has it.
pub(crate) const LAST: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DialectName {
    Classic,
    Modern,
}

/// How the life of a peer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is killed at some time.
    Killed,
    /// Both send all that they have, the peer says what it got, and hangs up.
    Farewell,
    /// It hangs up in the middle of everything.
    PeerHangsUp,
    /// The parent hangs up in the middle of everything.
    ParentHangsUp,
}

/// One peer from start to end.
pub(crate) struct Cycle {
    pub(crate) dialect: DialectName,
    pub(crate) ending: Ending,
    /// When the parent ends it, if it is the parent who does.
    pub(crate) after: Duration,
    pub(crate) parent: Manner,
    pub(crate) peer: Manner,
    pub(crate) to_peer: Lane,
    pub(crate) to_parent: Lane,
}

/// How a process treats its end of a channel.
pub(crate) struct Manner {
    /// `None` is the default of the dialect.
    pub(crate) pairing: Option<Pairing>,
    pub(crate) socket_send_buffer: usize,
    pub(crate) socket_receive_buffer: usize,
    /// How much more the storage holds than one message.
    pub(crate) storage_beyond_received: usize,
    pub(crate) storage_beyond_queued: usize,
    pub(crate) keeps_reserve: bool,
    /// It stops for a while one time in so many.
    pub(crate) pauses_one_in: u64,
    /// How many received descriptors it keeps open.
    pub(crate) holds: usize,
    /// What else it does at random.
    pub(crate) rng: Rng,
}

/// One direction of a channel.
pub(crate) struct Lane {
    key: u64,
    pub(crate) max_len: usize,
    /// How many messages are sent, but for the last one.
    pub(crate) messages: u64,
    /// Most payloads are smaller than the largest by so many bits.
    smaller_by: u32,
    descriptors_one_in: u64,
}

/// One message.
pub(crate) struct Planned {
    /// Tells the message from all others. The payload begins with it, as far as it is long enough,
    /// and the descriptor holds it.
    pub(crate) key: u64,
    pub(crate) header: Header,
    pub(crate) payload_len: usize,
    pub(crate) token: Option<Kind>,
    pub(crate) way: Way,
}

/// What is sent as a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The end of a pipe from which the key can be read.
    PipeReader,
    /// The end of a pipe to which the receiver writes the key that it expects.
    PipeWriter,
    Memory,
    /// A socket from which the key can be read.
    Socket,
}

/// How a message is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Whole,
    Parts,
    InPlace,
    Forwarded,
    /// Sent at once with a borrowed descriptor, if there is one.
    Borrowed,
}

impl Cycle {
    pub(crate) fn new(seed: u64, dialect: Option<DialectName>, number: u64) -> Self {
        let dialect = dialect.unwrap_or(match number % 2 {
            0 => DialectName::Classic,
            _ => DialectName::Modern,
        });
        let mut rng = Rng::of(&[seed, number, dialect as u64]);
        let ending = rng.pick(&[
            Ending::Killed,
            Ending::Killed,
            Ending::Killed,
            Ending::Farewell,
            Ending::Farewell,
            Ending::PeerHangsUp,
            Ending::ParentHangsUp,
        ]);
        let after = Duration::from_micros(rng.magnitude(400_000));
        let mut lane = || Lane::new(&mut rng, dialect);
        let (mut to_peer, mut to_parent) = (lane(), lane());
        match ending {
            Ending::Farewell => {}
            Ending::Killed | Ending::ParentHangsUp => {
                to_peer.messages = u64::MAX;
                to_parent.messages = u64::MAX;
            }
            Ending::PeerHangsUp => to_peer.messages = u64::MAX,
        }
        let (parent, peer) = (Manner::new(&mut rng), Manner::new(&mut rng));
        Self { dialect, ending, after, parent, peer, to_peer, to_parent }
    }
}

impl Manner {
    fn new(rng: &mut Rng) -> Self {
        Self {
            // All honest senders of today keep either rule.
            pairing: rng.pick(&[None, Some(Pairing::Exact), Some(Pairing::Ordered)]),
            socket_send_buffer: rng.size(256 << 10),
            socket_receive_buffer: rng.size(256 << 10),
            storage_beyond_received: rng.size(128 << 10),
            storage_beyond_queued: rng.size(128 << 10),
            keeps_reserve: rng.one_in(3),
            pauses_one_in: rng.pick(&[16, 128, 1024]),
            holds: rng.size_below(24),
            rng: Rng::of(&[rng.number()]),
        }
    }
}

impl Lane {
    fn new(rng: &mut Rng, dialect: DialectName) -> Self {
        let largest = match dialect {
            DialectName::Classic => usize::from(u16::MAX),
            DialectName::Modern => 256 << 10,
        };
        let max_len = if rng.one_in(3) {
            DEFAULT_MAX_LEN
        } else {
            SMALLEST_MAX_LEN + rng.size(largest - SMALLEST_MAX_LEN)
        };
        let smaller_by = rng.below(10) as u32;
        let messages = 1 + rng.magnitude(20_000);
        Self {
            key: rng.number(),
            max_len,
            messages: messages.min(MOST_BYTES as u64 / (max_len >> smaller_by).max(1) as u64),
            smaller_by,
            descriptors_one_in: rng.pick(&[1, 2, 5, 50]),
        }
    }

    pub(crate) fn message(&self, number: u64) -> Planned {
        let key = Rng::of(&[self.key, number]).number();
        let mut rng = Rng::of(&[key]);
        let most = self.max_len - HEADER_LEN;
        let payload_len = match rng.below(32) {
            0 => 0,
            1 => most,
            2 => rng.size(most),
            _ => rng.size_below((most >> self.smaller_by) + 1),
        };
        let token = rng
            .one_in(self.descriptors_one_in)
            .then(|| rng.pick(&[Kind::PipeReader, Kind::PipeWriter, Kind::Memory, Kind::Socket]));
        let header = Header {
            msg_type: (rng.number() as u32).max(LAST + 1),
            id: number as u32,
            pid: if rng.one_in(4) { rng.number() as u32 } else { 0 },
        };
        let way = match rng.pick(&[
            Way::Whole,
            Way::Whole,
            Way::Parts,
            Way::InPlace,
            Way::Forwarded,
            Way::Borrowed,
        ]) {
            Way::Borrowed if token.is_none() => Way::Whole,
            way => way,
        };
        Planned { key, header, payload_len, token, way }
    }
}

impl Planned {
    /// Makes `payload` that of this message.
    pub(crate) fn write_payload(&self, payload: &mut Vec<u8>) {
        payload.clear();
        payload.extend(self.key.to_ne_bytes());
        let mut rng = Rng::of(&[self.key, 1]);
        while payload.len() < self.payload_len {
            payload.extend(rng.number().to_ne_bytes());
        }
        payload.truncate(self.payload_len);
    }

    /// The header as it is to arrive from the process `sender`.
    pub(crate) fn header_from(&self, sender: u32) -> Header {
        match self.header.pid {
            // What is forwarded is not signed.
            0 if self.way != Way::Forwarded => Header { pid: sender, ..self.header },
            _ => self.header,
        }
    }
}
