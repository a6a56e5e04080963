//! The sending direction of a channel.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use imsg_os::{Descriptor, Dialect, Reason, Refused, SendError, Sender, WriteError, WriteOutcome};
use imsg_wire::{HEADER_LEN, Message};
use nix::libc;

use super::plan::{Lane, Planned, Way};
use super::side::is_gone;
use super::token::{self, Testimony, Witness};
use super::{Outcome, ensure};
use imsg_tests::rng::Rng;

/// How many descriptors are sent before the first of them must be closed: few enough for the
/// usual limit on open ones, in both processes.
const MOST_WITNESSES: usize = 128;

/// What is sent.
pub(crate) struct Outgoing {
    pub(crate) lane: Lane,
    pub(crate) begun: u64,
    pub(crate) queued: u64,
    pub(crate) descriptors: u64,
    pub(crate) pending: Option<(Planned, Option<OwnedFd>)>,
    payload: Vec<u8>,
    /// The lengths of the messages that were not sent completely.
    pub(crate) unsent: VecDeque<usize>,
    /// Of the messages of these numbers.
    pub(crate) witnesses: Vec<(u64, Witness)>,
    pub(crate) first_unanswered: u64,
    pub(crate) paused_until: Instant,
    /// The other end is gone.
    pub(crate) broken: bool,
}

impl Outgoing {
    pub(crate) fn new(lane: Lane) -> Self {
        Self {
            lane,
            begun: 0,
            queued: 0,
            descriptors: 0,
            pending: None,
            payload: Vec::new(),
            unsent: VecDeque::new(),
            witnesses: Vec::new(),
            first_unanswered: u64::MAX,
            paused_until: Instant::now(),
            broken: false,
        }
    }

    /// Whether there is another message to send, and may be now.
    pub(crate) fn may_begin(&mut self) -> Outcome<bool> {
        if self.queued >= self.lane.messages {
            return Ok(false);
        }
        if self.witnesses.len() >= MOST_WITNESSES {
            self.hear_witnesses()?;
        }
        Ok(self.pending.is_some() || self.witnesses.len() < MOST_WITNESSES)
    }

    pub(crate) fn begin(&mut self) -> Outcome {
        let number = self.begun;
        let planned = self.lane.message(number);
        planned.write_payload(&mut self.payload);
        let mut descriptor = None;
        if let Some(kind) = planned.token {
            let (sent, witness) = token::make(kind, planned.key)?;
            descriptor = Some(sent);
            self.witnesses.push((number, witness));
            self.descriptors += 1;
        }
        self.pending = Some((planned, descriptor));
        self.begun += 1;
        Ok(())
    }

    /// Queues or sends the pending message; `false` when there is no room for it.
    pub(crate) fn queue<D: Dialect>(&mut self, tx: &mut Sender<D>, rng: &mut Rng) -> Outcome<bool> {
        let Some((planned, descriptor)) = self.pending.take() else {
            return Ok(false);
        };
        let has_descriptor = descriptor.is_some();
        match submit(tx, &planned, &self.payload, descriptor, rng)? {
            Submitted::Queued => {
                self.queued += 1;
                self.unsent.push_back(HEADER_LEN + planned.payload_len);
                return Ok(true);
            }
            Submitted::NoRoom(descriptor) => {
                ensure!(
                    descriptor.is_some() == has_descriptor,
                    "a refused message did not give its descriptor back"
                );
                self.pending = Some((planned, descriptor));
            }
            Submitted::Failed(error, descriptor) => {
                self.pending = Some((planned, descriptor));
                self.note_failure(&error)?;
            }
        }
        Ok(false)
    }

    /// Takes note that a write failed.
    pub(crate) fn note_failure(&mut self, error: &io::Error) -> Outcome {
        if is_gone(error) {
            self.broken = true;
        } else if error.raw_os_error() == Some(libc::ETOOMANYREFS) {
            self.paused_until = Instant::now() + Duration::from_millis(1);
        } else {
            return Err(format!("write: {error}").into());
        }
        Ok(())
    }

    /// Checks what the channel says is queued.
    pub(crate) fn check_queue(&mut self, messages: usize, bytes: usize) -> Outcome {
        let mut left = self.unsent.iter().sum::<usize>();
        while let Some(first) = self.unsent.front()
            && left - first >= bytes
        {
            left -= first;
            self.unsent.pop_front();
        }
        ensure!(
            messages == self.unsent.len() && bytes <= left,
            "{messages} messages and {bytes} bytes are queued, and the queued messages have these \
             lengths: {:?}",
            self.unsent
        );
        Ok(())
    }

    /// Forgets the witnesses of descriptors that are closed everywhere.
    pub(crate) fn hear_witnesses(&mut self) -> Outcome {
        let mut open = Vec::with_capacity(self.witnesses.len());
        for (number, mut witness) in mem::take(&mut self.witnesses) {
            match witness.testify()? {
                Testimony::Open => open.push((number, witness)),
                Testimony::Closed => {}
                Testimony::ClosedUnanswered => {
                    self.first_unanswered = self.first_unanswered.min(number);
                }
            }
        }
        self.witnesses = open;
        Ok(())
    }
}

enum Submitted {
    Queued,
    NoRoom(Option<OwnedFd>),
    Failed(io::Error, Option<OwnedFd>),
}

fn submit<D: Dialect>(
    tx: &mut Sender<D>,
    planned: &Planned,
    payload: &[u8],
    descriptor: Option<OwnedFd>,
    rng: &mut Rng,
) -> Outcome<Submitted> {
    let header = planned.header;
    let cut = rng.size_below(payload.len() + 1);
    let (front, back) = payload.split_at(cut);
    let was_empty = tx.queue_len() == 0;
    let no_room = |descriptor| {
        ensure!(
            !was_empty,
            "a message of {} bytes has no room in an empty queue",
            payload.len() + HEADER_LEN
        );
        Ok(Submitted::NoRoom(descriptor))
    };
    let queued = match (planned.way, descriptor) {
        (Way::Borrowed, Some(descriptor)) => {
            return match tx.send_borrowed(header, payload, descriptor.as_fd()) {
                Ok(outcome) => {
                    check_outcome(outcome, tx)?;
                    Ok(Submitted::Queued)
                }
                Err(SendError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    Ok(Submitted::NoRoom(Some(descriptor)))
                }
                Err(SendError::Io(error)) => Ok(Submitted::Failed(error, Some(descriptor))),
                Err(error) => Err(error.into()),
            };
        }
        (Way::Whole | Way::Borrowed, descriptor) => tx.compose(header, payload, descriptor),
        (Way::Parts, descriptor) => tx.compose_parts(header, &[front, back], descriptor),
        (Way::Forwarded, descriptor) => {
            let message: Message<'_> = Message { header, payload, descriptor: Descriptor::None };
            tx.forward(&message, descriptor)
        }
        (Way::InPlace, descriptor) => match tx.create(header, descriptor) {
            Ok(mut writer) => match writer.add(front).and_then(|()| writer.add(back)) {
                Ok(()) => {
                    writer.close();
                    Ok(())
                }
                Err(WriteError::Full { .. }) => return no_room(writer.abandon()),
                Err(error) => return Err(error.into()),
            },
            Err(refused) => Err(refused),
        },
    };
    match queued {
        Ok(()) => Ok(Submitted::Queued),
        Err(Refused { reason: Reason::Full { .. } | Reason::DescriptorsFull, descriptor }) => {
            no_room(descriptor)
        }
        Err(refused) => Err(refused.into()),
    }
}

/// Checks that a write says whether something is left.
pub(crate) fn check_outcome<D: Dialect>(outcome: WriteOutcome, tx: &Sender<D>) -> Outcome {
    let (messages, bytes) = (tx.queue_len(), tx.queue_bytes());
    ensure!(
        (outcome == WriteOutcome::All) == (bytes == 0),
        "a write says {outcome:?}, and {messages} messages of {bytes} bytes are queued"
    );
    Ok(())
}
