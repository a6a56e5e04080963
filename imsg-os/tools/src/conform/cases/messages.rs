//! Messages without descriptors.

use imsg_os::Header;

use super::{Case, LIMITS, MESSAGES, MOST, READING, READS, filler};
use crate::conform::message::Message;
use crate::conform::session::{Result, Session};

pub(super) fn cases(is_classic: bool) -> Vec<Case> {
    let mut cases = vec![
        Case::new(MESSAGES, "the extremes of type, id and pid", extremes),
        Case::new(MESSAGES, "payloads of every length at the edges", edges),
        Case::new(READING, "every cut of a header", every_cut),
        Case::new(READING, "a byte at a time", byte_at_a_time),
        Case::new(READING, "thousands of messages in a few reads", many_together),
        Case::new(READING, "an end without any message more", |session| session.finish()),
        Case::new(READING, "answers that are due when the stream ends", ends_with_answers_due),
        Case::new(READING, "an end inside a header", |session| ends_inside(session, 7)),
        Case::new(READING, "an end inside a payload", |session| ends_inside(session, 30)),
    ];
    for size in READS {
        let name = format!("headers that straddle a read of {size} bytes");
        cases.push(Case::new(READING, name, move |session| straddled(session, size)));
    }
    let mut lengths = vec![0, 1, 15, 16385, 65535];
    if is_classic {
        cases.push(Case::new(MESSAGES, "flags without a meaning are ignored", unknown_flags));
    } else {
        lengths.extend([65536, 0x7fff_ffff]);
    }
    for len in lengths {
        let name = format!("a length of {len} bytes");
        cases.push(Case::new(LIMITS, name, move |session| wrong_length(session, len)));
    }
    cases
}

fn extremes(session: &mut Session) -> Result {
    let numbers = [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    let mut messages = Vec::new();
    for number in numbers {
        for header in [
            Header { msg_type: number, id: 5, pid: 6 },
            Header { msg_type: 4, id: number, pid: 6 },
            Header { msg_type: 4, id: 5, pid: number },
        ] {
            messages.push(Message::plain(header, 3));
        }
    }
    session.exchange(&messages)?;
    session.finish()
}

fn edges(session: &mut Session) -> Result {
    let lengths = [
        0,
        1,
        2,
        3,
        4,
        7,
        8,
        15,
        16,
        17,
        31,
        32,
        33,
        255,
        256,
        257,
        4079,
        4080,
        4081,
        4096,
        8176,
        MOST - 1,
        MOST,
    ];
    let messages: Vec<_> = lengths.iter().map(|len| session.plain(*len)).collect();
    session.exchange(&messages)?;
    session.finish()
}

fn unknown_flags(session: &mut Session) -> Result {
    for flags in [0x8000_u16, 0xfffe, 2] {
        let message = session.plain(5);
        let mut bytes = message.bytes(session.dialect);
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        session.send_bytes(&bytes, &[])?;
        session.expect(message.due())?;
    }
    session.finish()
}

fn wrong_length(session: &mut Session, len: u32) -> Result {
    let before = session.plain(5);
    let mut bytes = session.plain(0).bytes(session.dialect);
    if matches!(session.dialect, imsg_os::Any::Classic(_)) {
        bytes[4..6].copy_from_slice(&(len as u16).to_ne_bytes());
    } else {
        bytes[4..8].copy_from_slice(&len.to_ne_bytes());
    }
    session.together(|session| {
        session.send(std::slice::from_ref(&before))?;
        session.send_bytes(&bytes, &[])
    })?;
    session.expect(before.due())?;
    session.expect_refusal("a length that is out of range")
}

fn every_cut(session: &mut Session) -> Result {
    for cut in 1..20 {
        let message = session.plain(8);
        let bytes = message.bytes(session.dialect);
        let (one, other) = bytes.split_at(cut);
        session.send_bytes(one, &[])?;
        session.until_read()?;
        session.send_bytes(other, &[])?;
        session.expect(message.due())?;
    }
    session.finish()
}

fn byte_at_a_time(session: &mut Session) -> Result {
    let messages = [session.plain(9), session.plain(0)];
    for message in &messages {
        for byte in message.bytes(session.dialect) {
            session.send_bytes(&[byte], &[])?;
            session.until_read()?;
        }
    }
    messages.iter().try_for_each(|message| session.expect(message.due()))?;
    session.finish()
}

fn many_together(session: &mut Session) -> Result {
    let messages: Vec<_> = (0..5000).map(|n| session.plain(n % 50)).collect();
    session.together(|session| session.send(&messages[..3000]))?;
    session.send(&messages[3000..])?;
    messages.iter().try_for_each(|message| session.expect(message.due()))?;
    session.finish()
}

fn straddled(session: &mut Session, size: usize) -> Result {
    for inside in 1..16 {
        let mut messages = filler(session, size - inside);
        messages.push(session.plain(6));
        session.together(|session| session.send(&messages))?;
        messages.iter().try_for_each(|message| session.expect(message.due()))?;
    }
    session.finish()
}

fn ends_with_answers_due(session: &mut Session) -> Result {
    let messages: Vec<_> = (0..100).map(|n| session.plain(n * 10)).collect();
    session.together(|session| {
        session.send(&messages)?;
        session.end_stream()
    })?;
    messages.iter().try_for_each(|message| session.expect(message.due()))?;
    session.expect_clean_end()
}

fn ends_inside(session: &mut Session, at: usize) -> Result {
    let (before, cut) = (session.plain(5), session.plain(20));
    session.send(std::slice::from_ref(&before))?;
    let bytes = cut.bytes(session.dialect);
    session.send_bytes(&bytes[..at], &[])?;
    session.end_stream()?;
    session.expect(before.due())?;
    session.expect_broken("an end inside a message")
}
