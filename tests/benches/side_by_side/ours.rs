//! The crates of this repository, used as a program would.

use std::fs::File;
use std::hint::black_box;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use imsg_os::{Channel, Dialect, Header, Pages, Receiver, Sender, WriteOutcome};
use imsg_wire::{Ancillary, Messages, RecvBuf, SendBuf};

use crate::Sampler;
use crate::pair::{in_memory, prepared, two_processes};
use crate::work::{BUFFER, Kind, Work};

const HEADER: Header = Header { msg_type: 1, id: 2, pid: 3 };

/// `None` when the messages are too long for the dialect.
pub(crate) fn sampler<D: Dialect + Copy + 'static>(dialect: D, work: Work) -> Option<Sampler> {
    if work.message_len() > dialect.max_len() {
        return None;
    }
    Some(match work.kind {
        Kind::Parse => parse(dialect, work),
        Kind::Take => take(dialect, work),
        Kind::Compose => compose(dialect, work),
        Kind::Stream => stream(dialect, work),
        Kind::RoundTrip | Kind::RoundTripOneCore => round_trip(dialect, work),
        Kind::Open => open(dialect, work),
        Kind::Lend => lend(dialect, work),
        Kind::Give => give(dialect, work),
    })
}

/// The bytes of a batch of messages.
pub(crate) fn stream_of<D: Dialect>(dialect: D, work: Work) -> Vec<u8> {
    let storage = vec![0; work.batch * work.message_len()];
    let mut queue = SendBuf::new(dialect, storage);
    for _ in 0..work.batch {
        queue.compose(HEADER, &vec![4_u8; work.payload][..], None).expect("room for a batch");
    }
    queue.into_storage()
}

/// What a program looks at: the header and the first byte.
pub(crate) fn touch(header: Header, payload: &[u8]) -> u32 {
    let first = payload.first().copied().unwrap_or(0);
    header.msg_type ^ header.id ^ header.pid ^ u32::from(first)
}

fn parse<D: Dialect + Copy + 'static>(dialect: D, work: Work) -> Sampler {
    let bytes = stream_of(dialect, work);
    in_memory(move || {
        let mut sum = 0_u32;
        for message in Messages::new(dialect, black_box(&bytes), work.message_len()) {
            let (frame, payload) = message.expect("a message");
            sum = sum.wrapping_add(touch(frame.header, payload));
        }
        black_box(sum);
    })
}

fn take<D: Dialect + Copy + 'static>(dialect: D, work: Work) -> Sampler {
    type Buffer<D> = RecvBuf<D, Box<[u8]>, OwnedFd>;

    let bytes = stream_of(dialect, work).into_boxed_slice();
    let buffers = (0..work.buffers()).map(|_| RecvBuf::with_descriptors(dialect, bytes.clone()));
    let refill = |buffers: &mut Vec<Buffer<D>>| {
        for buffer in buffers {
            // The bytes are still there.
            let len = buffer.spare().expect("an empty buffer").len();
            buffer.commit(len, Ancillary::Nothing).expect("as long as was lent");
        }
    };
    let take_all = |buffers: &mut Vec<Buffer<D>>| {
        let mut sum = 0_u32;
        for buffer in buffers {
            for message in buffer.messages() {
                let message = message.expect("a message");
                sum = sum.wrapping_add(touch(message.header, message.payload));
            }
        }
        black_box(sum);
    };
    prepared(buffers.collect(), refill, take_all)
}

fn compose<D: Dialect + Copy + 'static>(dialect: D, work: Work) -> Sampler {
    let payload = vec![4_u8; work.payload];
    let mut queue: SendBuf<_, _, OwnedFd> = SendBuf::with_descriptors(dialect, vec![0; BUFFER]);
    in_memory(move || {
        for _ in 0..work.batch {
            queue.compose(HEADER, black_box(&payload[..]), None).expect("room for a batch");
        }
        let sent = black_box(queue.chunk()).map_or(0, |chunk| chunk.bytes.len());
        drop(queue.consume(sent).expect("as long as was offered"));
    })
}

/// Two connected channels that take messages of this work.
fn pair<D: Dialect + Copy>(dialect: D, work: Work) -> (Channel<D>, Channel<D>) {
    if work.message_len() <= BUFFER {
        return Channel::pair(dialect).expect("socket pair");
    }
    let (ours, theirs) = UnixStream::pair().expect("socket pair");
    let len = work.message_len();
    [ours, theirs]
        .map(|socket| {
            let storage = || Pages::new(len).expect("memory");
            let mut channel =
                Channel::with_storage(socket, dialect, storage(), storage()).expect("a stream");
            channel.rx.set_max_len(len).expect("a length that fits");
            channel.tx.set_max_len(len).expect("a length that fits");
            channel
        })
        .into()
}

fn stream<D: Dialect + Copy + 'static>(dialect: D, work: Work) -> Sampler {
    let (mut ours, mut theirs) = pair(dialect, work);
    let payload = vec![4_u8; work.payload];
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                for _ in 0..work.batch {
                    queue(&mut ours.tx, &payload);
                }
                ours.tx.flush().expect("send");
            }
        },
        move |turns| {
            for _ in 0..turns * work.batch {
                receive(&mut theirs.rx);
            }
        },
    )
}

fn queue<D: Dialect>(tx: &mut Sender<D>, payload: &[u8]) {
    if payload.len() > BUFFER {
        return tx.gather(HEADER, payload, None).expect("room").flush().expect("send");
    }
    if tx.compose(HEADER, payload, None).is_err() {
        tx.flush().expect("send");
        tx.compose(HEADER, payload, None).expect("room in an empty queue");
    }
}

fn receive<D: Dialect>(rx: &mut Receiver<D>) {
    let message = rx.recv().expect("receive").expect("a message");
    black_box(touch(message.header, message.payload));
}

fn round_trip<D: Dialect + Copy + 'static>(dialect: D, work: Work) -> Sampler {
    let (mut ours, mut theirs) = pair(dialect, work);
    let payload = vec![4_u8; work.payload];
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                ours.tx.compose(HEADER, &payload[..], None).expect("room in an empty queue");
                ours.tx.flush().expect("send");
                receive(&mut ours.rx);
            }
        },
        move |turns| {
            for _ in 0..turns {
                let message = theirs.rx.recv().expect("receive").expect("a message");
                theirs.tx.forward(&message, None).expect("room in an empty queue");
                theirs.tx.flush().expect("send");
            }
        },
    )
}

fn open<D: Dialect + Copy + 'static>(dialect: D, work: Work) -> Sampler {
    let payload = vec![4_u8; work.payload];
    in_memory(move || {
        let (mut ours, mut theirs) = Channel::pair(dialect).expect("socket pair");
        ours.tx.compose(HEADER, &payload[..], None).expect("room in an empty queue");
        ours.tx.flush().expect("send");
        receive(&mut theirs.rx);
        theirs.tx.compose(HEADER, &payload[..], None).expect("room in an empty queue");
        theirs.tx.flush().expect("send");
        receive(&mut ours.rx);
    })
}

fn lend<D: Dialect + Copy + 'static>(dialect: D, work: Work) -> Sampler {
    let file = File::open("/dev/null").expect("/dev/null");
    let payload = vec![4_u8; work.payload];
    with_descriptors(dialect, work, move |tx| {
        let sent = tx.send_borrowed(HEADER, &payload[..], file.as_fd()).expect("send");
        if sent == WriteOutcome::WouldBlock {
            tx.flush().expect("send");
        }
    })
}

fn give<D: Dialect + Copy + 'static>(dialect: D, work: Work) -> Sampler {
    let file = File::open("/dev/null").expect("/dev/null");
    let payload = vec![4_u8; work.payload];
    with_descriptors(dialect, work, move |tx| {
        let copy = file.try_clone().expect("dup");
        tx.compose(HEADER, &payload[..], Some(copy.into())).expect("room in an empty queue");
        tx.flush().expect("send");
    })
}

fn with_descriptors<D: Dialect + Copy + 'static>(
    dialect: D,
    work: Work,
    send: impl Fn(&mut Sender<D>) + 'static,
) -> Sampler {
    let (mut ours, mut theirs) = pair(dialect, work);
    theirs.rx.allow_descriptors();
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                send(&mut ours.tx);
            }
        },
        move |turns| {
            for _ in 0..turns {
                let mut message = theirs.rx.recv().expect("receive").expect("a message");
                black_box(touch(message.header, message.payload));
                drop(message.descriptor.take().expect("a descriptor"));
            }
        },
    )
}
