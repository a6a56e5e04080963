//! The receiving direction of a channel.

use std::os::fd::OwnedFd;
use std::time::Instant;

use imsg_os::{Channel, Descriptor, Dialect, Error, HEADER_LEN, Message};

use super::account::Account;
use super::plan::{Kind, LAST, Lane};
use super::side::Partner;
use super::{Outcome, ensure, token};
use imsg_tests::rng::Rng;

/// What is received.
pub(crate) struct Incoming {
    lane: Lane,
    partner: Partner,
    pub(crate) next: u64,
    pub(crate) bytes: u64,
    pub(crate) descriptors: u64,
    expected: Vec<u8>,
    holds: usize,
    pub(crate) held: Vec<Held>,
    pub(crate) last: Option<Account>,
    /// There may be messages that were read and not taken.
    pub(crate) has_more: bool,
    pub(crate) paused_until: Instant,
    /// The system has said that the other end vanished.
    pub(crate) reset: bool,
    /// All was read.
    pub(crate) closed: bool,
    /// All was taken.
    pub(crate) ended: bool,
}

/// A descriptor that was received and not checked yet.
pub(crate) struct Held {
    number: u64,
    kind: Kind,
    key: u64,
    descriptor: OwnedFd,
}

impl Incoming {
    pub(crate) fn new(lane: Lane, partner: Partner, holds: usize) -> Self {
        Self {
            lane,
            partner,
            next: 0,
            bytes: 0,
            descriptors: 0,
            expected: Vec::new(),
            holds,
            held: Vec::new(),
            last: None,
            has_more: false,
            paused_until: Instant::now(),
            reset: false,
            closed: false,
            ended: false,
        }
    }

    /// Takes up to `most` messages.
    pub(crate) fn take<D: Dialect>(
        &mut self,
        channel: &mut Channel<D>,
        most: usize,
        rng: &mut Rng,
    ) -> Outcome {
        let mut left = most;
        if rng.one_in(2) {
            for message in channel.rx.messages().take(most) {
                let Ok(message) = message else {
                    // It comes again below.
                    break;
                };
                self.accept(message)?;
                left -= 1;
            }
        }
        while left > 0 {
            match channel.rx.next_message() {
                Ok(Some(message)) => self.accept(message)?,
                Ok(None) => break,
                Err(Error::Truncated { .. })
                    if self.partner.may_hang_up || self.partner.may_be_killed =>
                {
                    break;
                }
                Err(error) => {
                    return Err(format!("before message {}: {error}", self.next).into());
                }
            }
            left -= 1;
        }
        while self.held.len() > self.holds {
            self.settle_one(rng)?;
        }
        self.has_more = left == 0;
        self.ended = self.closed && !self.has_more;
        Ok(())
    }

    fn accept(&mut self, message: Message<'_>) -> Outcome {
        let number = self.next;
        ensure!(self.last.is_none(), "a message came behind the last one: {message:?}");
        if message.header.msg_type == LAST {
            ensure!(
                u64::from(message.header.id) == number && message.header.pid == self.partner.pid,
                "the last message came in place of message {number}: {message:?}"
            );
            ensure!(
                matches!(message.descriptor, Descriptor::None),
                "a descriptor came with the last message"
            );
            self.last = Some(Account::from_bytes(message.payload)?);
            return Ok(());
        }
        let planned = self.lane.message(number);
        ensure!(
            message.header == planned.header_from(self.partner.pid),
            "in place of message {number} ({:?}) came {message:?}",
            planned.header
        );
        planned.write_payload(&mut self.expected);
        ensure!(message.payload == self.expected, "message {number} came with another payload");
        match (planned.token, message.descriptor) {
            (None, Descriptor::None) => {}
            (Some(kind), Descriptor::Here(descriptor)) => {
                self.held.push(Held { number, kind, key: planned.key, descriptor });
                self.descriptors += 1;
            }
            (expected, descriptor) => {
                return Err(format!(
                    "message {number} has {descriptor:?} where {expected:?} was sent"
                )
                .into());
            }
        }
        self.next += 1;
        self.bytes += (HEADER_LEN + message.payload.len()) as u64;
        Ok(())
    }

    /// Checks and closes one of the descriptors held, if there is any.
    pub(crate) fn settle_one(&mut self, rng: &mut Rng) -> Outcome {
        if self.held.is_empty() {
            return Ok(());
        }
        let Held { number, kind, key, descriptor } =
            self.held.swap_remove(rng.size_below(self.held.len()));
        token::check(descriptor, kind, key, self.partner.may_be_killed).map_err(|error| {
            format!("the descriptor of message {number}, {kind:?}: {error}").into()
        })
    }

    /// The first message whose descriptor may still be open.
    pub(crate) fn settled(&self) -> u64 {
        self.held.iter().map(|held| held.number).min().unwrap_or(self.next)
    }
}
