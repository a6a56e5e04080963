//! Faults of the peer: those of the table in `SECURITY.md`, and what else `PROTOCOL.md` calls fatal.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::slice::from_ref;

use super::{Case, PAIRING};
use crate::conform::message::{File, Message};
use crate::conform::session::{Result, Session, descriptor};
use crate::conform::verdict::{Failure, Verdict};

/// How many descriptors a process may keep of a peer that sends more than it may.
const KEPT: usize = 64;

pub(super) fn cases(is_classic: bool) -> Vec<Case> {
    let is_modern = !is_classic;
    vec![
        Case::new(PAIRING, "a marked message that was sent without a descriptor", missing),
        Case::new(
            PAIRING,
            "a marked message without one, and then one with its own",
            missing_apart,
        ),
        Case::new(PAIRING, "the two of them in one read", missing_together).told_if(is_modern),
        Case::new(PAIRING, "a descriptor without a mark, and then a marked message", unmarked)
            .told_if(is_modern),
        Case::new(PAIRING, "a descriptor in the middle of a message", in_the_middle)
            .told_if(is_modern),
        Case::new(PAIRING, "five hundred descriptors without a mark", flood),
        Case::new(PAIRING, "two descriptors with one message", |session| several(session, 2)),
        Case::new(PAIRING, "253 descriptors with one message", |session| several(session, 253)),
        Case::new(PAIRING, "a descriptor that is left at the end", left_at_the_end),
    ]
}

fn without_descriptor(session: &mut Session) -> Message {
    Message { marked: true, ..session.plain(4) }
}

/// It is delivered, and the program decides: this one sends it back without a mark.
fn missing(session: &mut Session) -> Result {
    let messages = [without_descriptor(session), session.plain(3)];
    session.exchange(&messages)?;
    session.finish()
}

fn missing_apart(session: &mut Session) -> Result {
    let (without, with) = (without_descriptor(session), session.with_file(5)?);
    session.send(from_ref(&without))?;
    session.until_read()?;
    session.send(from_ref(&with))?;
    session.expect(without.due())?;
    session.expect(with.due())?;
    session.finish()
}

fn missing_together(session: &mut Session) -> Result {
    let messages = [without_descriptor(session), session.with_file(5)?];
    session.together(|session| session.send(&messages))?;
    session.expect_refusal("one descriptor with two marked messages in one read")
}

fn unmarked(session: &mut Session) -> Result {
    let (unmarked, next) =
        (Message { marked: false, ..session.with_file(4)? }, session.with_file(5)?);
    session.send(from_ref(&unmarked))?;
    session.until_read()?;
    session.expect_or_end(unmarked.due())?;
    refuses(session, &next)
}

fn in_the_middle(session: &mut Session) -> Result {
    let (message, next) = (session.plain(20), session.with_file(5)?);
    let file = File::new()?;
    let bytes = message.bytes(session.dialect);
    session.send_bytes(&bytes[..25], &[])?;
    session.until_read()?;
    session.send_bytes(&bytes[25..], &[file.pipe.as_raw_fd()])?;
    session.until_read()?;
    session.expect_or_end(message.due())?;
    refuses(session, &next)
}

/// Sends a marked message after a descriptor that no message claims. It must not come back with that
/// descriptor, nor at all.
fn refuses(session: &mut Session, next: &Message) -> Result {
    let expected = "that it exits, but not with status 0, for a descriptor that no message claims";
    session.try_send(&next.bytes(session.dialect), &Vec::from_iter(descriptor(next)))?;
    match session.next_answer(expected)? {
        Some(got) => {
            let is_own = got == next.due() || got.file.is_none();
            let verdict = if is_own { Verdict::Accepted } else { Verdict::WrongFile };
            Err(Failure::new(verdict, expected, format!("{got} came back")).into())
        }
        None => session.expect_broken("a descriptor that no message claims"),
    }
}

fn flood(session: &mut Session) -> Result {
    let mut most = 0;
    for _ in 0..500 {
        let message = Message { marked: false, ..session.with_file(0)? };
        let files: Vec<RawFd> = descriptor(&message).into_iter().collect();
        if session.process.has_ended() {
            break;
        }
        session.try_send(&message.bytes(session.dialect), &files)?;
        session.until_read()?;
        most = most.max(session.more_descriptors());
    }
    if most > KEPT {
        let expected = format!("that it keeps {KEPT} descriptors at most that no message claims");
        return Err(Failure::new(Verdict::Leaked, expected, format!("it kept {most}")).into());
    }
    session.expect_refusal_of_rest("descriptors that no message claims")
}

fn several(session: &mut Session, number: usize) -> Result {
    let before = session.plain(6);
    let message = session.with_file(5)?;
    let files: Vec<_> = (0..number).map(|_| File::new()).collect::<io::Result<_>>()?;
    let raw: Vec<_> = files.iter().map(|file| file.pipe.as_raw_fd()).collect();
    session.send(from_ref(&before))?;
    session.expect(before.due())?;
    session.send_bytes(&message.bytes(session.dialect), &raw)?;
    session.expect_refusal("several descriptors at once")
}

fn left_at_the_end(session: &mut Session) -> Result {
    let message = Message { marked: false, ..session.with_file(4)? };
    session.send_bytes(&message.bytes(session.dialect), &Vec::from_iter(descriptor(&message)))?;
    session.end_stream()?;
    session.expect_or_end(message.due())?;
    session.expect_broken("a descriptor that no message claims")
}
