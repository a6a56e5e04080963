//! Writes what the C implementations sent as first inputs of the fuzz targets, to start a corpus
//! anew: `cargo run --manifest-path fuzz/Cargo.toml --example seeds -- DIRECTORY`.

use std::path::Path;
use std::{env, fs, io};

use imsg_tests::vectors::{self, Vector};
use imsg_wire::{Any, DEFAULT_MAX_LEN, Endian, HEADER_LEN, split};

fn main() -> io::Result<()> {
    let directory = env::args_os().nth(1).expect("the directory to write to");
    for vector in vectors::all() {
        for (target, inputs) in [
            ("parse", parse(&vector)),
            ("stream", vec![stream(&vector)]),
            ("roundtrip", vec![roundtrip(&vector)]),
            ("payload", vec![payload(&vector)]),
            ("descriptors", vec![descriptors(&vector)]),
        ] {
            let directory = Path::new(&directory).join(target);
            fs::create_dir_all(&directory)?;
            for (number, input) in inputs.iter().enumerate() {
                fs::write(directory.join(format!("{}-{number}", vector.name)), input)?;
            }
        }
    }
    Ok(())
}

/// The messages, but for the long ones, in pieces.
fn parse(vector: &Vector) -> Vec<Vec<u8>> {
    let new = || [&(DEFAULT_MAX_LEN as u16).to_le_bytes()[..], &[64, 1]].concat();
    let mut pieces = vec![new()];
    for message in messages(vector).filter(|message| message.len() <= 300) {
        if pieces.last().is_none_or(|piece| piece.len() + message.len() > 500) {
            pieces.push(new());
        }
        pieces.last_mut().expect("a piece").extend(message);
    }
    pieces
}

/// The headers of all messages. The script is empty.
fn stream(vector: &Vector) -> Vec<u8> {
    let headers: Vec<u8> =
        messages(vector).flat_map(|message| &message[..HEADER_LEN]).copied().collect();
    let storage = [&[3][..], &40_000_u16.to_le_bytes(), &[0]].concat();
    let len = (headers.len() as u16).to_be_bytes();
    [&dialect(vector)[..], &[0], &storage, &[0], &len, &headers].concat()
}

/// Queues each message, sends it, and takes it.
fn roundtrip(vector: &Vector) -> Vec<u8> {
    let max_len = [&[7][..], &(DEFAULT_MAX_LEN as u16).to_le_bytes()].concat();
    let mut input = [&max_len[..], &dialect(vector), &[0, 0, 0, 0], &[0; 4], &[77]].concat();
    for message in &vector.messages {
        let len = message.payload.len();
        let mut long = vec![0xf0];
        long.extend((len as u16).to_le_bytes());
        let len = if len < 120 { vec![len as u8] } else { long };
        let queue = [&[0, 0, 0, 5], &len[..], &[message.carries_descriptor.into()]].concat();
        let send = [&[8], &len[..], &[0], &[8, 100, 0]].concat();
        let receive = [&[13], &len[..], &[7], &[13, 100, 7]].concat();
        input.extend([&queue[..], &send, &receive, &[17, 0]].concat());
    }
    input
}

/// Reads the fields of the last message.
fn payload(vector: &Vector) -> Vec<u8> {
    let payload = &vector.messages.last().expect("a message").payload;
    let numbers = (0..7).flat_map(|family| [26, family]);
    let others = [22, 3, 12, 4, 13, 8, 25];
    let mut input = vec![0, 64, 64, 0, 1, payload.len() as u8];
    input.extend(payload);
    input.extend(numbers.chain(others));
    input
}

/// The marks and lengths of the last messages, which have descriptors.
fn descriptors(vector: &Vector) -> Vec<u8> {
    let (_, last) = vector.messages.split_at(vector.messages.len() - 8);
    let mut input = vec![8];
    input.extend(dialect(vector));
    input.extend([0, 1, 0, 1, 0, 1, 2, 3, 4]);
    for message in last {
        input.extend([15, message.carries_descriptor.into(), message.payload.len() as u8]);
    }
    for message in last {
        let brought = if message.carries_descriptor { 3 } else { 0 };
        input.extend([(HEADER_LEN + message.payload.len() % 49) as u8, brought]);
    }
    input
}

fn messages(vector: &Vector) -> impl Iterator<Item = &[u8]> {
    let mut rest = vector.bytes;
    std::iter::from_fn(move || {
        let (frame, _, behind) = split(&vector.dialect, rest, DEFAULT_MAX_LEN).ok()??;
        let message = &rest[..frame.len];
        rest = behind;
        Some(message)
    })
}

fn dialect(vector: &Vector) -> [u8; 2] {
    let (modern, endian) = match vector.dialect {
        Any::Modern(endian) => (true, endian),
        Any::Classic(endian) => (false, endian),
    };
    [(endian == Endian::Big).into(), modern.into()]
}
