//! C libraries, through their C interface and as a C program uses them: the one of this project, with
//! both of its interfaces, and imsg-compat, of version 8.0.0, when it is installed.

mod library;

use std::fs::File;
use std::hint::black_box;
use std::path::Path;

use imsg_os::{Classic, DEFAULT_MAX_LEN, Modern};
use imsg_tests::c_library::{Installed, Interface};

use self::library::{Buf, Library};
use crate::pair::{in_memory, prepared, two_processes};
use crate::work::{BUFFER, Kind, Work};
use crate::{Sampler, ours};

const COMPAT: &str = "imsg-compat";

/// The C libraries by their names; none where one is not installed.
pub(crate) struct Libraries([(&'static str, Option<Library>); 3]);

impl Libraries {
    /// Builds that of this project, and looks for the other one.
    pub(crate) fn load() -> Self {
        let built = Installed::new(env!("CARGO_TARGET_TMPDIR"));
        let open = |interface| {
            let built = built.as_ref()?;
            Some(Library::open(&built.file(Installed::LIBDIR).join("libimsg.so"), interface))
        };
        let compat = option_env!("IMSG_COMPAT").map(Path::new);
        Self([
            ("C classic", open(Interface::Classic)),
            ("C modern", open(Interface::Modern)),
            (COMPAT, compat.map(|path| Library::open(path, Interface::Classic))),
        ])
    }

    /// Those that can do this work; no sampler for what is not installed.
    pub(crate) fn contenders(&self, work: Work) -> Vec<(&'static str, Option<Sampler>)> {
        let sampler = |library| sampler(library, work);
        // imsg-compat lists the descriptors of its process at each read, and to take needs hundreds
        // of them: so to fill the buffers would take minutes.
        let takes_minutes = |name| name == COMPAT && work.kind == Kind::Take;
        let libraries = self.0.iter().filter(|(name, _)| can_do(work) && !takes_minutes(*name));
        libraries.map(|(name, library)| (*name, library.and_then(sampler))).collect()
    }
}

/// Whether they can do this work: they have no way to parse but from a socket, their maximum is fixed
/// in the classic interface, they close every descriptor that they send, and they do not close their
/// socket.
fn can_do(work: Work) -> bool {
    match work.kind {
        Kind::Parse | Kind::Lend | Kind::Open => false,
        Kind::Take => work.batch * work.message_len() < BUFFER,
        _ => work.message_len() <= DEFAULT_MAX_LEN,
    }
}

fn sampler(library: Library, work: Work) -> Option<Sampler> {
    match work.kind {
        Kind::Parse | Kind::Lend | Kind::Open => None,
        Kind::Take => Some(take(library, work)),
        Kind::Compose => Some(compose(library, work)),
        Kind::Stream => Some(stream(library, work)),
        Kind::RoundTrip | Kind::RoundTripOneCore => Some(round_trip(library, work)),
        Kind::Give => Some(give(library, work)),
    }
}

fn touch(payload: &[u8]) {
    black_box(payload.first());
}

fn take(library: Library, work: Work) -> Sampler {
    let bytes = match library.interface {
        Interface::Classic => ours::stream_of(Classic::new(), work),
        Interface::Modern => ours::stream_of(Modern::new(), work),
    };
    let buffers = (0..work.buffers()).map(|_| Buf::pair(library)).collect();
    let refill = move |buffers: &mut Vec<(Buf, Buf)>| {
        for (from, to) in buffers {
            from.send_raw(&bytes);
            to.read();
        }
    };
    let take_all = |buffers: &mut Vec<(Buf, Buf)>| {
        for (_, buffer) in buffers {
            while buffer.take(touch).is_some() {}
        }
    };
    prepared(buffers, refill, take_all)
}

fn compose(library: Library, work: Work) -> Sampler {
    let (mut queue, _peer) = Buf::pair(library);
    let payload = vec![4_u8; work.payload];
    in_memory(move || {
        for _ in 0..work.batch {
            queue.compose(black_box(&payload), None);
        }
        queue.forget();
    })
}

fn stream(library: Library, work: Work) -> Sampler {
    let (mut ours, mut theirs) = Buf::pair(library);
    let payload = vec![4_u8; work.payload];
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                for _ in 0..work.batch {
                    ours.compose(&payload, None);
                }
                ours.flush();
            }
        },
        move |turns| {
            for _ in 0..turns * work.batch {
                theirs.receive(touch);
            }
        },
    )
}

fn round_trip(library: Library, work: Work) -> Sampler {
    let (mut ours, mut theirs) = Buf::pair(library);
    let payload = vec![4_u8; work.payload];
    let reply = payload.clone();
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                ours.compose(&payload, None);
                ours.flush();
                ours.receive(touch);
            }
        },
        move |turns| {
            for _ in 0..turns {
                theirs.receive(touch);
                theirs.compose(&reply, None);
                theirs.flush();
            }
        },
    )
}

fn give(library: Library, work: Work) -> Sampler {
    let (mut ours, mut theirs) = Buf::pair(library);
    let file = File::open("/dev/null").expect("/dev/null");
    let payload = vec![4_u8; work.payload];
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                let copy = file.try_clone().expect("dup");
                ours.compose(&payload, Some(copy.into()));
                ours.flush();
            }
        },
        move |turns| {
            for _ in 0..turns {
                drop(theirs.receive(touch).expect("a descriptor"));
            }
        },
    )
}
