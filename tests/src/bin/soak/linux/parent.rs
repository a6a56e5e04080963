//! The process that starts peers, ends them, and keeps the books.

use std::env;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use command_fds::{CommandFdExt, FdMapping};
use imsg_os::{Any, Endian};
use nix::libc;

use super::account::{Account, Ledger};
use super::plan::{Cycle, DialectName, Ending};
use super::side::{Partner, Side};
use super::token::open_descriptors;
use super::{Outcome, TOO_LONG, ensure};

const PROGRESS: Duration = Duration::from_secs(5);

/// Runs cycle after cycle.
pub(crate) struct Parent {
    program: PathBuf,
    seed: u64,
    dialect: Option<DialectName>,
    open_at_start: u64,
    begun: Instant,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    messages: u64,
    bytes: u64,
    descriptors: u64,
    kills: u64,
    farewells: u64,
    peer_hang_ups: u64,
    parent_hang_ups: u64,
}

impl Parent {
    pub(crate) fn new(seed: u64, dialect: Option<DialectName>) -> Outcome<Self> {
        Ok(Self {
            program: env::current_exe()?,
            seed,
            dialect,
            open_at_start: open_descriptors()?,
            begun: Instant::now(),
            totals: Totals::default(),
        })
    }

    pub(crate) fn run(mut self, time: Duration) -> Outcome {
        let mut shown = self.begun;
        for number in 0.. {
            if self.begun.elapsed() >= time {
                break;
            }
            self.cycle(number).map_err(|error| format!("cycle {number}: {error}"))?;
            if shown.elapsed() >= PROGRESS {
                shown = Instant::now();
                println!("{}", self.summary());
            }
        }
        println!("ok: {}; leaks: 0", self.summary());
        Ok(())
    }

    fn summary(&self) -> String {
        let Totals {
            messages,
            bytes,
            descriptors,
            kills,
            farewells,
            peer_hang_ups,
            parent_hang_ups,
        } = self.totals;
        let seconds = self.begun.elapsed().as_secs();
        let clean = farewells + peer_hang_ups + parent_hang_ups;
        format!(
            "{seconds} s: {messages} messages, {bytes} bytes, {descriptors} descriptors, {kills} \
             kills, {clean} clean restarts ({farewells} farewells, {peer_hang_ups} hang-ups by the \
             peer, {parent_hang_ups} by the parent)"
        )
    }

    fn cycle(&mut self, number: u64) -> Outcome {
        let cycle = Cycle::new(self.seed, self.dialect, number);
        let (ending, dialect) = (cycle.ending, cycle.dialect);
        self.live(number, cycle).map_err(|error| format!("{dialect:?}, {ending:?}: {error}"))?;
        let open = open_descriptors()?;
        ensure!(
            open == self.open_at_start,
            "the parent has {open} descriptors open, and had {} at the start",
            self.open_at_start
        );
        Ok(())
    }

    /// A peer from start to end.
    fn live(&mut self, number: u64, cycle: Cycle) -> Outcome {
        let (socket, theirs) = UnixStream::pair()?;
        let ledger = Ledger::create()?;
        let mut peer = Peer::start(&mut self.command(number), theirs.into(), &ledger)?;
        let dialect = match cycle.dialect {
            DialectName::Classic => Any::Classic(Endian::NATIVE),
            DialectName::Modern => Any::Modern(Endian::NATIVE),
        };
        let ending = cycle.ending;
        let partner = Partner {
            pid: peer.0.id(),
            may_be_killed: ending == Ending::Killed,
            may_hang_up: ending == Ending::PeerHangsUp,
        };
        let mut side =
            Side::new(socket, dialect, cycle.parent, cycle.to_peer, cycle.to_parent, partner)?;
        converse(&mut side, &mut peer, ending, cycle.after)?;
        let last = side.last_message();
        let mut aftermath = side.hang_up()?;
        let status = peer.wait()?;
        let expected = match ending {
            Ending::Killed => ExitStatus::from_raw(libc::SIGKILL),
            _ => ExitStatus::default(),
        };
        ensure!(status == expected, "the peer ended with {status}");
        aftermath.wait_for_witnesses()?;
        let books = Books {
            ending,
            mine: aftermath.account,
            theirs: ledger.read()?,
            last,
            open_at_start: self.open_at_start,
        };
        books.check().map_err(|error| format!("{error}: {books:?}"))?;
        self.totals.add(&books);
        Ok(())
    }

    fn command(&self, number: u64) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--seed", &self.seed.to_string(), "--peer", &number.to_string()]);
        if let Some(dialect) = self.dialect.as_ref().and_then(ValueEnum::to_possible_value) {
            command.args(["--dialect", dialect.get_name()]);
        }
        command
    }
}

/// Sends and receives until the peer is gone, or until it is time to hang up.
fn converse(side: &mut Side<Any>, peer: &mut Peer, ending: Ending, after: Duration) -> Outcome {
    let mut due = match ending {
        Ending::Killed | Ending::ParentHangsUp => Some(Instant::now() + after),
        Ending::Farewell | Ending::PeerHangsUp => None,
    };
    let mut said_last = false;
    while !side.is_ended() {
        let until_due =
            due.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
        if until_due.is_zero() {
            if ending == Ending::ParentHangsUp {
                break;
            }
            peer.kill()?;
            due = None;
        }
        if ending == Ending::Farewell && !said_last && side.has_sent_all() {
            side.say_last(&side.account())?;
            said_last = true;
        }
        side.turn(Duration::from_millis(20).min(until_due))?;
    }
    Ok(())
}

/// A peer, which is killed if it is forgotten.
struct Peer(Child);

impl Peer {
    fn start(command: &mut Command, socket: OwnedFd, ledger: &Ledger) -> Outcome<Self> {
        command.stdin(Stdio::from(ledger.share()?));
        command.fd_mappings(vec![FdMapping { parent_fd: socket, child_fd: 3 }])?;
        Ok(Self(command.spawn()?))
    }

    fn kill(&mut self) -> Outcome {
        Ok(self.0.kill()?)
    }

    fn wait(&mut self) -> Outcome<ExitStatus> {
        let begun = Instant::now();
        // By itself, the peer waits as long.
        while begun.elapsed() < TOO_LONG * 2 {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_micros(200));
        }
        Err("the peer does not end".into())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be gone by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What both processes say of a cycle.
#[derive(Debug)]
struct Books {
    ending: Ending,
    mine: Account,
    theirs: Account,
    /// The last message of the peer.
    last: Option<Account>,
    open_at_start: u64,
}

impl Books {
    fn check(&self) -> Outcome {
        let Self { ending, mine, theirs, .. } = self;
        // Who hangs up leaves unread what is there, and so does who is killed.
        let parent_reads_all = *ending != Ending::ParentHangsUp;
        let peer_reads_all = matches!(ending, Ending::Farewell | Ending::ParentHangsUp);
        check_direction(theirs, mine, parent_reads_all)
            .map_err(|error| format!("from the peer: {error}"))?;
        check_direction(mine, theirs, peer_reads_all)
            .map_err(|error| format!("to the peer: {error}"))?;
        ensure!(mine.still_open == 0, "descriptors sent are open, though the peer is gone");
        // The socket is the only descriptor that the peer has more than this process had.
        ensure!(
            (self.open_at_start..=self.open_at_start + 1).contains(&theirs.open_at_start)
                || *ending == Ending::Killed && theirs.open_at_start == 0,
            "the peer inherited descriptors that were received or sent"
        );
        if *ending != Ending::Killed {
            ensure!((theirs.open_amiss, theirs.still_open) == (0, 0), "the peer leaks descriptors");
        }
        if *ending == Ending::Farewell {
            self.check_farewell()?;
        }
        Ok(())
    }

    fn check_farewell(&self) -> Outcome {
        let Self { mine, theirs, last, .. } = self;
        let Some(last) = last else {
            return Err("the peer hung up without a last message".into());
        };
        let said = [last.begun, last.descriptors_begun, last.received, last.descriptors_received];
        let known = [mine.received, mine.descriptors_received, mine.begun, mine.descriptors_begun];
        ensure!(said == known, "the peer does not agree on what was sent and received");
        ensure!(
            (last.open_amiss, last.still_open) == (0, 0),
            "the peer had descriptors open that it should not have"
        );
        ensure!(
            theirs.settled == mine.begun && mine.settled == last.begun,
            "not all descriptors were looked at"
        );
        Ok(())
    }
}

fn check_direction(sender: &Account, receiver: &Account, reads_all: bool) -> Outcome {
    ensure!(receiver.received <= sender.begun, "messages came that were not sent");
    ensure!(!reads_all || receiver.received >= sender.handed, "messages were lost");
    ensure!(
        sender.first_unanswered >= receiver.settled,
        "the descriptor of a message that was received was closed without being looked at"
    );
    Ok(())
}

impl Totals {
    fn add(&mut self, books: &Books) {
        let Books { ending, mine, theirs, .. } = books;
        self.messages += mine.received + theirs.received;
        self.bytes += mine.bytes_received + theirs.bytes_received;
        self.descriptors += mine.descriptors_received + theirs.descriptors_received;
        *match ending {
            Ending::Killed => &mut self.kills,
            Ending::Farewell => &mut self.farewells,
            Ending::PeerHangsUp => &mut self.peer_hang_ups,
            Ending::ParentHangsUp => &mut self.parent_hang_ups,
        } += 1;
    }
}
