//! One end of a channel: sends what is planned, and checks what it receives.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use imsg_os::{Channel, Dialect, Header, Pages, ReadOutcome, RecvError};
use imsg_wire::HEADER_LEN;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::account::{Account, Ledger};
use super::incoming::Incoming;
use super::outgoing::{Outgoing, check_outcome};
use super::plan::{LAST, Lane, Manner};
use super::{Outcome, TOO_LONG, ensure};
use imsg_tests::rng::Rng;

/// Who is at the other end, and how it may behave.
#[derive(Clone, Copy)]
pub(crate) struct Partner {
    pub(crate) pid: u32,
    /// It may vanish at any time, with all that it has.
    pub(crate) may_be_killed: bool,
    /// It may hang up inside a message.
    pub(crate) may_hang_up: bool,
}

/// A channel, with the state of both directions.
pub(crate) struct Side<D: Dialect> {
    channel: Channel<D>,
    outgoing: Outgoing,
    incoming: Incoming,
    pauses_one_in: u64,
    rng: Rng,
    ledger: Option<Ledger>,
    open_at_start: u64,
    moved: Moved,
}

/// When something happened last.
struct Moved {
    at: Instant,
    position: (u64, usize, u64, usize),
}

impl<D: Dialect + Copy> Side<D> {
    pub(crate) fn new(
        socket: impl Into<OwnedFd>,
        dialect: D,
        manner: Manner,
        outgoing: Lane,
        incoming: Lane,
        partner: Partner,
    ) -> Outcome<Self> {
        let socket = UnixStream::from(socket.into());
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::SndBuf, &manner.socket_send_buffer)?;
        setsockopt(&socket, sockopt::RcvBuf, &manner.socket_receive_buffer)?;
        let memory = |len| Pages::new(len).expect("memory");
        let mut channel = Channel::with_storage(
            socket,
            dialect,
            memory(incoming.max_len + manner.storage_beyond_received),
            memory(outgoing.max_len + manner.storage_beyond_queued),
        )?;
        channel.rx.allow_descriptors();
        if let Some(rule) = manner.pairing {
            channel.rx.set_pairing(rule);
        }
        if manner.keeps_reserve {
            channel.rx.keep_reserve()?;
        }
        channel.rx.set_max_len(incoming.max_len)?;
        channel.tx.set_max_len(outgoing.max_len)?;
        let set = (channel.rx.max_len(), channel.tx.max_len());
        ensure!(set == (incoming.max_len, outgoing.max_len), "the maxima were set to {set:?}");
        Ok(Self {
            channel,
            outgoing: Outgoing::new(outgoing),
            incoming: Incoming::new(incoming, partner, manner.holds),
            pauses_one_in: manner.pauses_one_in,
            rng: manner.rng,
            ledger: None,
            open_at_start: 0,
            moved: Moved { at: Instant::now(), position: (0, 0, 0, 0) },
        })
    }
}

impl<D: Dialect> Side<D> {
    /// Writes down from here on how far this side came.
    pub(crate) fn keep_ledger(&mut self, ledger: Ledger, open_at_start: u64) -> Outcome {
        self.ledger = Some(ledger);
        self.open_at_start = open_at_start;
        self.write_down()
    }

    pub(crate) fn account(&self) -> Account {
        let (outgoing, incoming) = (&self.outgoing, &self.incoming);
        Account {
            begun: outgoing.begun,
            handed: outgoing.queued - self.channel.tx.queue_len() as u64,
            descriptors_begun: outgoing.descriptors,
            received: incoming.next,
            bytes_received: incoming.bytes,
            descriptors_received: incoming.descriptors,
            settled: incoming.settled(),
            first_unanswered: outgoing.first_unanswered,
            open_at_start: self.open_at_start,
            open_amiss: 0,
            still_open: outgoing.witnesses.len() as u64,
        }
    }

    /// Whether nothing more comes from the other end.
    pub(crate) fn is_ended(&self) -> bool {
        self.incoming.ended
    }

    /// What the other end said in its last message.
    pub(crate) fn last_message(&self) -> Option<Account> {
        self.incoming.last
    }

    /// How many messages were sent or queued.
    pub(crate) fn queued(&self) -> u64 {
        self.outgoing.queued
    }

    /// Whether all messages but the last were sent.
    pub(crate) fn has_sent_all(&self) -> bool {
        let Outgoing { lane, queued, .. } = &self.outgoing;
        *queued >= lane.messages && self.channel.tx.queue_len() == 0
    }

    /// Whether no descriptor is here or at the other end that was received or sent.
    pub(crate) fn is_settled(&mut self) -> Outcome<bool> {
        self.outgoing.hear_witnesses()?;
        Ok(self.incoming.held.is_empty() && self.outgoing.witnesses.is_empty())
    }

    /// Queues the last message.
    pub(crate) fn say_last(&mut self, account: &Account) -> Outcome {
        let header = Header { id: self.outgoing.queued as u32, ..Header::new(LAST) };
        self.channel.tx.compose(header, &account.to_bytes(), None)?;
        self.outgoing.unsent.push_back(HEADER_LEN + Account::LEN);
        Ok(())
    }

    /// Waits until something can be done, but no longer than `patience`, and does some of it.
    pub(crate) fn turn(&mut self, patience: Duration) -> Outcome {
        self.pause_at_random();
        let ready = self.wait(patience)?;
        let now = Instant::now();
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let may_receive = now >= self.incoming.paused_until;
        if may_receive
            && (self.incoming.has_more || ready.intersects(PollFlags::POLLIN.union(gone)))
        {
            self.receive()?;
        } else if may_receive {
            // The other end may wait for it.
            self.incoming.settle_one(&mut self.rng)?;
        }
        if now >= self.outgoing.paused_until && ready.intersects(PollFlags::POLLOUT.union(gone)) {
            self.send()?;
        }
        self.write_down()?;
        self.check_that_it_moves()
    }

    /// Closes the channel with whatever is in it.
    pub(crate) fn hang_up(mut self) -> Outcome<Aftermath> {
        while !self.incoming.held.is_empty() {
            self.incoming.settle_one(&mut self.rng)?;
        }
        self.write_down()?;
        let account = self.account();
        Ok(Aftermath { account, outgoing: self.outgoing, ledger: self.ledger })
    }

    fn pause_at_random(&mut self) {
        for until in [&mut self.incoming.paused_until, &mut self.outgoing.paused_until] {
            if self.rng.one_in(self.pauses_one_in) {
                *until = Instant::now() + Duration::from_micros(self.rng.magnitude(5000));
            }
        }
    }

    fn wait(&mut self, mut patience: Duration) -> Outcome<PollFlags> {
        let now = Instant::now();
        let mut events = PollFlags::empty();
        if self.incoming.paused_until > now {
            patience = patience.min(self.incoming.paused_until - now);
        } else {
            events |= PollFlags::POLLIN;
            if self.incoming.has_more {
                patience = Duration::ZERO;
            }
        }
        if self.outgoing.paused_until > now {
            patience = patience.min(self.outgoing.paused_until - now);
        } else if !self.outgoing.broken
            && (self.channel.tx.queue_len() > 0 || self.outgoing.may_begin()?)
        {
            events |= PollFlags::POLLOUT;
        }
        if !self.outgoing.witnesses.is_empty() || !self.incoming.held.is_empty() {
            patience = patience.min(Duration::from_millis(1));
        }
        if events.is_empty() {
            // A hang-up would end a `poll` at once.
            thread::sleep(patience);
            return Ok(events);
        }
        let mut poll_fd = [PollFd::new(self.channel.as_fd(), events)];
        poll(&mut poll_fd, PollTimeout::try_from(patience)?)?;
        Ok(poll_fd[0].revents().unwrap_or(PollFlags::empty()))
    }

    fn receive(&mut self) -> Outcome {
        for _ in 0..=self.rng.below(4) {
            match self.channel.rx.read() {
                Ok(ReadOutcome::Data) => {}
                Ok(ReadOutcome::WouldBlock) | Err(RecvError::Full) => break,
                Ok(ReadOutcome::Closed) => {
                    self.incoming.closed = true;
                    break;
                }
                // The end comes behind it.
                Err(RecvError::Io(error)) if is_gone(&error) && !self.incoming.reset => {
                    self.incoming.reset = true;
                }
                Err(error) => return Err(format!("read: {error}").into()),
            }
        }
        let most = if self.incoming.closed { usize::MAX } else { 1 + self.rng.size_below(16) };
        self.incoming.take(&mut self.channel, most, &mut self.rng)
    }

    fn send(&mut self) -> Outcome {
        for _ in 0..=self.rng.below(16) {
            if self.outgoing.broken || !self.outgoing.may_begin()? {
                break;
            }
            if self.outgoing.pending.is_none() {
                self.outgoing.begin()?;
                self.write_down()?;
            }
            if !self.outgoing.queue(&mut self.channel.tx, &mut self.rng)? {
                break;
            }
        }
        let tx = &mut self.channel.tx;
        if !self.outgoing.broken {
            match tx.write() {
                Ok(outcome) => check_outcome(outcome, tx)?,
                Err(error) => self.outgoing.note_failure(&error)?,
            }
        }
        self.outgoing.check_queue(tx.queue_len(), tx.queue_bytes())
    }

    fn write_down(&self) -> Outcome {
        if let Some(ledger) = &self.ledger {
            ledger.write(&self.account())?;
        }
        Ok(())
    }

    fn check_that_it_moves(&mut self) -> Outcome {
        let (outgoing, incoming) = (&self.outgoing, &self.incoming);
        let queued = self.channel.tx.queue_bytes();
        let position = (
            outgoing.queued,
            queued,
            incoming.next,
            outgoing.witnesses.len() + incoming.held.len(),
        );
        if position != self.moved.position {
            self.moved = Moved { at: Instant::now(), position };
        }
        ensure!(
            self.moved.at.elapsed() < TOO_LONG,
            "nothing moves: {queued} bytes are queued, {} descriptors sent are open, and {} \
             received; {:?}; {:?}; {:?}",
            outgoing.witnesses.len(),
            incoming.held.len(),
            self.account(),
            self.channel.rx,
            self.channel.tx,
        );
        Ok(())
    }
}

/// What is left of a side that hung up.
pub(crate) struct Aftermath {
    pub(crate) account: Account,
    outgoing: Outgoing,
    ledger: Option<Ledger>,
}

impl Aftermath {
    /// Waits until all descriptors that were sent are closed everywhere, and says in the account
    /// how many are not.
    pub(crate) fn wait_for_witnesses(&mut self) -> Outcome {
        // Nothing waits in the channel any more.
        self.outgoing.pending = None;
        let begun = Instant::now();
        while {
            self.outgoing.hear_witnesses()?;
            !self.outgoing.witnesses.is_empty() && begun.elapsed() < TOO_LONG
        } {
            thread::sleep(Duration::from_micros(200));
        }
        self.account.still_open = self.outgoing.witnesses.len() as u64;
        self.account.first_unanswered = self.outgoing.first_unanswered;
        Ok(())
    }

    /// Writes down the account, after which there is nothing to be said.
    pub(crate) fn close_ledger(&self, open_amiss: u64) -> Outcome {
        let account = Account { open_amiss, ..self.account };
        if let Some(ledger) = &self.ledger {
            ledger.write(&account)?;
        }
        Ok(())
    }
}

/// Whether the other end has closed the channel.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
