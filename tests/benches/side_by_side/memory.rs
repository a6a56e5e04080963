//! What channels cost in memory.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use imsg_os::{Channel, Modern};
use imsg_tests::process::Process;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::pair::in_child;
use crate::work::BUFFER;

const CHANNELS: usize = 10_000;

/// Of so many bytes at a time, the allocator of the C library asks the kernel.
const MAPPED: usize = 256 << 10;

/// What the halves of a channel share: the socket, and two counters.
const SHARED: usize = size_of::<(usize, usize, OwnedFd)>();

/// The two buffers of a `Channel::new`.
const BOXED: usize = 2 * BUFFER;

/// A channel whose buffers, of 512 bytes each, are in itself.
type Inline = Channel<Modern, [u8; 512]>;

/// Prints the size of a channel, and what many idle ones cost.
pub(crate) fn report() {
    println!("\nmemory");
    let print = |what: &str, bytes: usize| println!("  {what:<40} {bytes:>7} B");
    print("Channel::new, without its buffers", SHARED + size_of::<Channel<Modern>>());
    print("Channel::new, with its buffers", SHARED + size_of::<Channel<Modern>>() + BOXED);
    print("the smallest, without its buffers", SHARED + size_of::<Channel<Modern, [u8; 0]>>());
    print("the smallest, for empty messages", SHARED + size_of::<Channel<Modern, [u8; 16]>>());
    match idle() {
        Some(idle) => idle.print(),
        None => println!("  idle channels: not measured, as there is no /proc"),
    }
}

/// Resident memory of a process with many idle channels.
struct Idle {
    channels: usize,
    /// With a socket for each, and nothing else.
    sockets: u64,
    /// With a channel for each, as `Channel::new` makes it.
    boxed: u64,
    /// With buffers that the allocator maps, so that what was not written to is not resident.
    mapped: u64,
    inline: u64,
}

fn idle() -> Option<Idle> {
    resident()?;
    let channels = allowed_channels();
    Some(Idle {
        channels,
        sockets: in_child(|| with_each(channels, |socket| socket)),
        boxed: in_child(|| {
            with_each(channels, |socket| Channel::new(socket, Modern::new()).expect("a stream"))
        }),
        mapped: in_child(|| {
            with_each(channels, |socket| {
                let buffer = || vec![0; MAPPED].into_boxed_slice();
                Channel::with_storage(socket, Modern::new(), buffer(), buffer()).expect("a stream")
            })
        }),
        inline: in_child(|| {
            with_each(channels, |socket| -> Inline {
                let buffer = [0; 512];
                Channel::with_storage(socket, Modern::new(), buffer, buffer).expect("a stream")
            })
        }),
    })
}

/// How much resident memory it takes to have one of `make` for each of so many sockets.
fn with_each<T>(count: usize, make: fn(UnixStream) -> T) -> u64 {
    let before = resident().unwrap_or(0);
    let pairs = (0..count / 2).map(|_| UnixStream::pair().expect("socket pair"));
    let all: Vec<T> = pairs.flat_map(|(one, other)| [make(one), make(other)]).collect();
    let after = resident().unwrap_or(0);
    black_box(all);
    after.saturating_sub(before)
}

/// As many as are wanted, if the limit of descriptors can be lifted as far.
fn allowed_channels() -> usize {
    usize::try_from(allow_descriptors()).unwrap_or(CHANNELS)
}

/// Lifts the limit of descriptors to that of many channels, if it can be, and tells how many there
/// can be.
pub(crate) fn allow_descriptors() -> u64 {
    /// For all else that is open.
    const OTHERS: u64 = 50;

    let wanted = CHANNELS as u64 + OTHERS;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let soft = wanted.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("a limit that is allowed");
    soft.saturating_sub(OTHERS)
}

impl Idle {
    fn print(&self) {
        let each = |bytes: u64| bytes as f64 / self.channels as f64;
        println!("  {} idle channels, and how much of each is resident:", self.channels);
        let print = |what: &str, bytes: u64, own: usize| {
            println!("    {what:<38} {:>7.0} B of {own}", each(bytes));
        };
        print("a socket alone", self.sockets, size_of::<UnixStream>());
        print("Channel::new", self.boxed, SHARED + size_of::<Channel<Modern>>() + BOXED);
        let mapped = SHARED + size_of::<Channel<Modern>>() + 2 * MAPPED;
        print("two buffers of 256 KiB", self.mapped, mapped);
        print("two buffers of 512 B inline", self.inline, SHARED + size_of::<Inline>());
    }
}

/// The resident memory of this process, in bytes.
fn resident() -> Option<u64> {
    Some((Process::this().memory("VmRSS")? as u64) << 10)
}
