//! The crate `ipc-channel`, by its channels for bytes, which do not serialize anything.

use std::hint::black_box;

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcSender};

use crate::Sampler;
use crate::pair::two_processes;
use crate::work::{Kind, Work};

/// `None` for work that it has nothing for.
pub(crate) fn sampler(work: Work) -> Option<Sampler> {
    match work.kind {
        Kind::Parse | Kind::Take | Kind::Compose | Kind::Lend | Kind::Open => None,
        Kind::Stream => Some(stream(work)),
        Kind::RoundTrip | Kind::RoundTripOneCore => Some(round_trip(work)),
        Kind::Give => Some(give(work)),
    }
}

fn stream(work: Work) -> Sampler {
    let (tx, rx) = ipc::bytes_channel().expect("a channel");
    let payload = vec![4_u8; work.payload];
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns * work.batch {
                tx.send(&payload).expect("send");
            }
        },
        move |turns| {
            for _ in 0..turns * work.batch {
                receive(&rx);
            }
        },
    )
}

fn receive(rx: &IpcBytesReceiver) -> Vec<u8> {
    let payload = rx.recv().expect("receive");
    black_box(payload.first());
    payload
}

fn round_trip(work: Work) -> Sampler {
    let (tx, rx) = ipc::bytes_channel().expect("a channel");
    let (reply_tx, reply_rx) = ipc::bytes_channel().expect("a channel");
    let payload = vec![4_u8; work.payload];
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                tx.send(&payload).expect("send");
                receive(&reply_rx);
            }
        },
        move |turns| {
            for _ in 0..turns {
                reply_tx.send(&receive(&rx)).expect("send");
            }
        },
    )
}

/// It passes no descriptors but those of its own channels, and those only with what it serializes.
fn give(work: Work) -> Sampler {
    let (tx, rx) = ipc::channel::<(Vec<u8>, IpcSender<u8>)>().expect("a channel");
    let (passed, _) = ipc::channel().expect("a channel");
    let payload = vec![4_u8; work.payload];
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                tx.send((payload.clone(), passed.clone())).expect("send");
            }
        },
        move |turns| {
            for _ in 0..turns {
                let (payload, passed) = rx.recv().expect("receive");
                black_box(payload.first());
                drop(passed);
            }
        },
    )
}
