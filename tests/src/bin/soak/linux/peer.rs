//! The process that is started, and ends or is killed, again and again.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::parent_id;
use std::time::Duration;

use imsg_os::{Classic, Dialect, Modern, inherited};

use super::account::{Account, Ledger};
use super::plan::{Cycle, DialectName, Ending};
use super::side::{Partner, Side};
use super::token::open_descriptors;
use super::{Outcome, ensure};

/// Takes part in a cycle: the channel is descriptor 3, the ledger is standard input.
pub(crate) fn run(seed: u64, dialect: Option<DialectName>, number: u64) -> Outcome {
    let cycle = Cycle::new(seed, dialect, number);
    let outcome = match cycle.dialect {
        DialectName::Classic => take_part(cycle, Classic::new()),
        DialectName::Modern => take_part(cycle, Modern::new()),
    };
    outcome.map_err(|error| format!("cycle {number}: {error}").into())
}

fn take_part<D: Dialect + Copy>(cycle: Cycle, dialect: D) -> Outcome {
    let open_at_start = open_descriptors()?;
    // SAFETY: nothing else in this program takes up descriptor 3.
    let socket = unsafe { inherited(3) }?;
    let ledger = Ledger::from(io::stdin().as_fd().try_clone_to_owned()?);
    let ending = cycle.ending;
    let partner = Partner {
        pid: parent_id(),
        may_be_killed: false,
        may_hang_up: ending == Ending::ParentHangsUp,
    };
    let hang_up_after = cycle.to_parent.messages;
    let mut side = Side::new(socket, dialect, cycle.peer, cycle.to_parent, cycle.to_peer, partner)?;
    side.keep_ledger(ledger, open_at_start)?;
    let open = open_descriptors()?;
    let mut said_last = false;
    loop {
        side.turn(Duration::from_millis(20))?;
        match ending {
            Ending::PeerHangsUp if side.queued() >= hang_up_after => break,
            Ending::Farewell if said_last && side.has_sent_all() => break,
            Ending::Farewell
                if !said_last
                    && side.has_sent_all()
                    && side.last_message().is_some()
                    && side.is_settled()? =>
            {
                let open_amiss = open_descriptors()?.abs_diff(open);
                side.say_last(&Account { open_amiss, ..side.account() })?;
                said_last = true;
            }
            _ => {}
        }
        if side.is_ended() {
            ensure!(ending == Ending::ParentHangsUp, "the parent hung up");
            break;
        }
    }
    if let Some(parent) = side.last_message() {
        let mine = side.account();
        ensure!(
            (parent.begun, parent.descriptors_begun) == (mine.received, mine.descriptors_received),
            "what the parent says that it sent was not received: {parent:?} {mine:?}"
        );
    }
    let mut aftermath = side.hang_up()?;
    aftermath.wait_for_witnesses()?;
    // The ledger is open in place of the socket.
    aftermath.close_ledger(open_descriptors()?.abs_diff(open_at_start))
}
