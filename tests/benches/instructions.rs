//! Counts the instructions of the hot paths, which do not depend on how busy the machine is.
//!
//! Each benchmark does its work a hundred times, so that the last two digits are those of the cost
//! of one. The counts are those of one compiler and one C library: compare before and after a
//! change, on one machine.

#![allow(missing_docs, unreachable_pub, reason = "the macros make public functions")]

use std::convert::Infallible;
use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use imsg_wire::{
    Ancillary, Classic, DEFAULT_MAX_LEN, Dialect, Header, Messages, Modern, ReadError, Reader,
    RecvBuf, SendBuf,
};

const TIMES: usize = 100;
const HEADER: Header = Header { msg_type: 1, id: 2, pid: 3 };

type Received<D> = RecvBuf<D, Vec<u8>, Infallible>;
type Queue<D> = SendBuf<D, Vec<u8>, Infallible>;

#[library_benchmark]
#[bench::classic(stream(Classic::new()), Classic::new())]
#[bench::modern(stream(Modern::new()), Modern::new())]
fn parse<D: Dialect>(stream: Vec<u8>, dialect: D) -> u32 {
    let messages = Messages::new(dialect, black_box(&stream), DEFAULT_MAX_LEN);
    messages.flatten().map(|(frame, payload)| touch(frame.header, payload)).sum()
}

#[library_benchmark]
#[bench::classic(received(Classic::new()))]
#[bench::modern(received(Modern::new()))]
fn iterate<D: Dialect>(mut received: Received<D>) -> (u32, Received<D>) {
    let messages = black_box(&mut received).messages();
    let sum = messages.flatten().map(|message| touch(message.header, message.payload)).sum();
    (sum, received)
}

#[library_benchmark]
#[bench::classic(received(Classic::new()))]
#[bench::modern(received(Modern::new()))]
fn next_message<D: Dialect>(mut received: Received<D>) -> (u32, Received<D>) {
    let mut sum = 0;
    while let Ok(Some(message)) = black_box(&mut received).next_message() {
        sum += touch(message.header, message.payload);
    }
    (sum, received)
}

#[library_benchmark]
#[bench::classic(received(Classic::new()))]
#[bench::modern(received(Modern::new()))]
fn is_ready<D: Dialect>(received: Received<D>) -> Received<D> {
    for _ in 0..TIMES {
        black_box(black_box(&received).is_ready());
    }
    received
}

#[library_benchmark]
#[bench::classic(queue(Classic::new()))]
#[bench::modern(queue(Modern::new()))]
fn compose<D: Dialect>(mut queue: Queue<D>) -> Queue<D> {
    let payload = black_box([4_u8; 64]);
    for _ in 0..TIMES {
        let _ = black_box(&mut queue).compose(HEADER, black_box(&payload[..]), None);
    }
    queue
}

#[library_benchmark]
#[bench::classic(queue(Classic::new()))]
#[bench::modern(queue(Modern::new()))]
fn compose_value<D: Dialect>(mut queue: Queue<D>) -> Queue<D> {
    for _ in 0..TIMES {
        let _ = black_box(&mut queue).compose(HEADER, black_box(&7_u64), None);
    }
    queue
}

#[library_benchmark]
#[bench::classic(queue(Classic::new()))]
#[bench::modern(queue(Modern::new()))]
fn compose_in_place<D: Dialect>(mut queue: Queue<D>) -> Queue<D> {
    for _ in 0..TIMES {
        if let Ok(mut writer) = black_box(&mut queue).create(HEADER, None) {
            let _ = writer.add_n64(black_box(7));
            writer.close();
        }
    }
    queue
}

#[library_benchmark]
#[bench::classic(queue(Classic::new()))]
#[bench::modern(queue(Modern::new()))]
fn compose_and_send<D: Dialect>(mut queue: Queue<D>) -> Queue<D> {
    for _ in 0..TIMES {
        let _ = queue.compose(HEADER, black_box(&7_u64), None);
        let sent = black_box(&queue).chunk().map_or(0, |chunk| chunk.bytes.len());
        let _ = queue.consume(sent);
    }
    queue
}

#[library_benchmark]
#[bench::record(record())]
fn read(payload: Vec<u8>) -> Result<u64, ReadError> {
    let mut sum = 0;
    for _ in 0..TIMES {
        let mut reader = Reader::new(black_box(&payload));
        sum += u64::from(reader.get_n8()?) + u64::from(reader.get_n16()?);
        sum += u64::from(reader.get_n32()?) + reader.get_h64()?;
        sum += reader.get_strbuf(8)?.count_bytes() as u64;
        reader.expect_end()?;
    }
    Ok(sum)
}

/// Fields of 1, 2, 4 and 8 bytes, and a string in 8 bytes.
fn record() -> Vec<u8> {
    [&[1; 15], &b"name\0\0\0\0"[..]].concat()
}

fn queue<D: Dialect>(dialect: D) -> Queue<D> {
    SendBuf::new(dialect, vec![0; 1 << 14])
}

fn stream<D: Dialect>(dialect: D) -> Vec<u8> {
    let mut queue = queue(dialect);
    for _ in 0..TIMES {
        queue.compose(HEADER, &[4_u8; 64], None).expect("room for all");
    }
    queue.chunk().expect("messages").bytes.to_vec()
}

fn received<D: Dialect + Copy>(dialect: D) -> Received<D> {
    let stream = stream(dialect);
    let len = stream.len();
    let mut received = RecvBuf::new(dialect, stream);
    received.spare().expect("an empty buffer");
    received.commit(len, Ancillary::Nothing).expect("what was lent");
    received
}

fn touch(header: Header, payload: &[u8]) -> u32 {
    header.msg_type ^ header.id ^ header.pid ^ u32::from(payload.first().copied().unwrap_or(0))
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [
        parse,
        iterate,
        next_message,
        is_ready,
        compose,
        compose_value,
        compose_in_place,
        compose_and_send,
        read
    ]
);
main!(library_benchmark_groups = hot_paths);
