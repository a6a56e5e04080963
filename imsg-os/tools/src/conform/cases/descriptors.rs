//! Descriptors of honest senders, of both generations.

use std::io;
use std::slice::from_ref;

use super::{Case, MOST, PAIRING, READS, SECURITY, SENDING, filler};
use crate::conform::session::{Result, Session, descriptor};
use crate::conform::verdict::{Failure, Verdict};

pub(super) fn cases(is_classic: bool) -> Vec<Case> {
    let mut cases = vec![
        Case::new(SENDING, "messages of every length with a descriptor", edges),
        Case::new(SENDING, "a sendmsg that goes on with unmarked messages", begins),
        Case::new(SENDING, "every short send of a marked header", short_sends),
        Case::new(SENDING, "ten thousand descriptors", ten_thousand),
        Case::new(PAIRING, "marked messages that are read together", together),
        Case::new(PAIRING, "unmarked messages that are read in front of a marked one", merged),
        Case::new(PAIRING, "a descriptor that finds no free slot", full_table),
        Case::new(SECURITY, "a peer that does not read", does_not_read),
        Case::new(SECURITY, "a peer that hangs up with answers unread", hangs_up),
    ];
    for size in READS {
        let name = format!("marked headers that straddle a read of {size} bytes");
        cases.push(Case::new(PAIRING, name, move |session| straddled(session, size)));
    }
    if is_classic {
        cases.extend([
            Case::new(SENDING, "a sender that ends its sendmsg with the marked message", ends),
            Case::new(SENDING, "short sends of a sender that ends with it", ends_short),
        ]);
    }
    cases
}

fn edges(session: &mut Session) -> Result {
    for len in [0, 1, 15, 16, 17, 255, 256, 4079, 4080, 4081, MOST - 1, MOST] {
        let message = session.with_file(len)?;
        session.exchange(&[message])?;
    }
    session.finish()
}

fn begins(session: &mut Session) -> Result {
    for _ in 0..20 {
        let messages = [session.with_file(10)?, session.plain(20), session.plain(0)];
        session.exchange(&messages)?;
    }
    session.finish()
}

fn short_sends(session: &mut Session) -> Result {
    for cut in 1..20 {
        let messages = [session.with_file(8)?, session.plain(3)];
        let bytes: Vec<_> = messages.iter().flat_map(|it| it.bytes(session.dialect)).collect();
        let files: Vec<_> = descriptor(&messages[0]).into_iter().collect();
        session.send_bytes(&bytes[..cut], &files)?;
        session.until_read()?;
        session.send_bytes(&bytes[cut..], &[])?;
        messages.iter().try_for_each(|message| session.expect(message.due()))?;
    }
    session.finish()
}

fn ten_thousand(session: &mut Session) -> Result {
    for _ in 0..1250 {
        let messages: Vec<_> = (0..8).map(|n| session.with_file(n)).collect::<io::Result<_>>()?;
        session.exchange(&messages)?;
    }
    session.finish()
}

fn together(session: &mut Session) -> Result {
    for _ in 0..10 {
        let mut messages = Vec::new();
        for n in 0..6 {
            messages.extend([session.with_file(n)?, session.plain(n)]);
        }
        session.together(|session| session.send(&messages))?;
        messages.iter().try_for_each(|message| session.expect(message.due()))?;
    }
    session.finish()
}

fn merged(session: &mut Session) -> Result {
    for _ in 0..10 {
        let messages =
            [session.plain(100), session.plain(0), session.with_file(4)?, session.plain(1)];
        session.together(|session| session.send(&messages))?;
        messages.iter().try_for_each(|message| session.expect(message.due()))?;
    }
    session.finish()
}

fn straddled(session: &mut Session, size: usize) -> Result {
    for inside in 1..16 {
        let mut messages = filler(session, size - inside);
        messages.push(session.with_file(6)?);
        messages.push(session.with_file(7)?);
        session.together(|session| session.send(&messages))?;
        messages.iter().try_for_each(|message| session.expect(message.due()))?;
    }
    session.finish()
}

fn ends(session: &mut Session) -> Result {
    for n in 0..10 {
        let mut messages: Vec<_> = (0..n).map(|n| session.plain(n * 300)).collect();
        messages.extend([session.with_file(5)?, session.plain(2), session.with_file(6)?]);
        session.send_ending(&messages)?;
        messages.iter().try_for_each(|message| session.expect(message.due()))?;
        // The same in one read.
        let messages = [session.plain(70), session.with_file(5)?, session.with_file(6)?];
        session.together(|session| session.send_ending(&messages))?;
        messages.iter().try_for_each(|message| session.expect(message.due()))?;
    }
    session.finish()
}

/// After a short send, the descriptor of the next marked message can come while the first marked
/// header is still to come.
fn ends_short(session: &mut Session) -> Result {
    for cut in [1, 100, 3000, 5015, 5017, 5031] {
        let messages = [session.plain(5000), session.with_file(3)?, session.with_file(4)?];
        let bytes: Vec<_> = messages.iter().flat_map(|it| it.bytes(session.dialect)).collect();
        let files: Vec<_> = messages.iter().filter_map(descriptor).collect();
        session.send_bytes(&bytes[..cut], &files[..1])?;
        session.until_read()?;
        session.send_bytes(&bytes[cut..], &files[1..])?;
        messages.iter().try_for_each(|message| session.expect(message.due()))?;
    }
    session.finish()
}

/// The message comes back without the descriptor that the system could not give, and the next one
/// with its own.
fn full_table(session: &mut Session) -> Result {
    for _ in 0..3 {
        session.until_read()?;
        let before = session.process.fill_table()?;
        let lost = session.with_file(4)?;
        session.send(from_ref(&lost))?;
        let mut due = lost.due();
        due.file = None;
        session.expect(due)?;
        session.until_read()?;
        session.process.set_limit(before)?;
        let next = [session.with_file(5)?, session.plain(0)];
        session.exchange(&next)?;
    }
    session.finish()
}

/// Sends until nothing more is taken, and only then reads.
fn does_not_read(session: &mut Session) -> Result {
    const MOST_BYTES: usize = 32 << 20;
    let (mut sent, mut bytes) = (Vec::new(), 0);
    'sending: while bytes < MOST_BYTES {
        let message =
            if sent.len() % 64 == 63 { session.with_file(3)? } else { session.plain(2000) };
        let (mut rest, mut files) =
            (message.bytes(session.dialect), Vec::from_iter(descriptor(&message)));
        bytes += rest.len();
        let due = message.due();
        while !rest.is_empty() {
            match session.try_send(&rest, &files)? {
                Some(n) => {
                    rest.drain(..n);
                    files.clear();
                }
                // It takes no more when it sleeps all the same.
                None if session.is_stuck() => {
                    sent.push(due);
                    session.check_memory_only()?;
                    let later: Vec<_> = files.clone();
                    session.send_bytes(&rest, &later)?;
                    break 'sending;
                }
                None => session.check_living("that it waits for its peer to read")?,
            }
        }
        sent.push(due);
    }
    session.check_memory_only()?;
    if bytes >= MOST_BYTES {
        let expected = "that it takes no more of a peer that does not read";
        let got = format!("it took {bytes} bytes");
        return Err(Failure::new(Verdict::Leaked, expected, got).into());
    }
    sent.into_iter().try_for_each(|due| session.expect(due))?;
    session.finish()
}

fn hangs_up(session: &mut Session) -> Result {
    let messages: Vec<_> = (0..20).map(|_| session.plain(4000)).collect();
    session.together(|session| {
        session.send(&messages)?;
        session.hang_up()
    })?;
    session.expect_end()
}
