//! Two processes: one that sends, and its child, which receives.
//!
//! The child is a fork and not a program of its own, so that both ends of any kind of channel can
//! be made before it, without a way to hand them over. This process has no threads.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use crate::Sampler;
use crate::machine;
use crate::work::Work;

/// Runs `receiver` in another process. Both are told how many turns to take.
///
/// The time is that from the moment when the receiver is there to the one when it has all.
pub(crate) fn two_processes(
    work: Work,
    mut sender: impl FnMut(usize) + 'static,
    mut receiver: impl FnMut(usize),
) -> Sampler {
    let (control, mut orders) = UnixStream::pair().expect("socket pair");
    let child = match run_in_child() {
        None => {
            // The receiver is to see the end if the sender is gone.
            drop((control, sender));
            serve(move || {
                machine::pin(work.core_of_receiver());
                while let Some(turns) = next_order(&mut orders) {
                    orders.write_all(b"ready")?;
                    receiver(turns);
                    orders.write_all(b"done!")?;
                }
                Ok(())
            })
        }
        Some(child) => child,
    };
    drop((orders, receiver));
    let mut peer = Peer { child, control };
    Box::new(move |turns| {
        peer.order(turns);
        peer.wait();
        let start = Instant::now();
        sender(turns);
        peer.wait();
        start.elapsed()
    })
}

/// Runs `measure` in a process of its own, whose memory is not that of the others.
pub(crate) fn in_child(measure: impl FnOnce() -> u64) -> u64 {
    let (mut result, mut report) = UnixStream::pair().expect("socket pair");
    let Some(child) = run_in_child() else {
        serve(move || report.write_all(&measure().to_ne_bytes()))
    };
    drop(report);
    let mut bytes = [0; 8];
    result.read_exact(&mut bytes).expect("the child measures");
    waitpid(child, None).expect("a child");
    u64::from_ne_bytes(bytes)
}

/// The child; `None` in the child itself.
fn run_in_child() -> Option<Pid> {
    // SAFETY: this process has one thread, so nothing is locked or half done in the child.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    }
}

/// What a child does. It must not return or unwind into what the parent does.
fn serve(work: impl FnOnce() -> std::io::Result<()>) -> ! {
    machine::die_with_parent();
    let outcome = catch_unwind(AssertUnwindSafe(work));
    let failed = !matches!(outcome, Ok(Ok(())));
    // SAFETY: it only ends the process.
    unsafe { libc::_exit(i32::from(failed)) }
}

fn next_order(orders: &mut UnixStream) -> Option<usize> {
    let mut turns = [0; 8];
    orders.read_exact(&mut turns).ok()?;
    Some(usize::from_ne_bytes(turns)).filter(|turns| *turns > 0)
}

struct Peer {
    child: Pid,
    control: UnixStream,
}

impl Peer {
    fn order(&mut self, turns: usize) {
        self.control.write_all(&turns.to_ne_bytes()).expect("the receiver is there");
    }

    fn wait(&mut self) {
        self.control.read_exact(&mut [0; 5]).expect("the receiver is there");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It does not see the end of the stream: children that were made later have this end too.
        let _ = self.control.write_all(&0_usize.to_ne_bytes());
        let _ = waitpid(self.child, None);
    }
}

/// The time that `turns` turns take in this process.
pub(crate) fn in_memory(mut turn: impl FnMut() + 'static) -> Sampler {
    Box::new(move |turns| {
        let start = Instant::now();
        for _ in 0..turns {
            turn();
        }
        start.elapsed()
    })
}

/// As [`in_memory`], with something before each turn that is not measured.
pub(crate) fn prepared<T>(
    mut state: T,
    prepare: impl Fn(&mut T) + 'static,
    turn: impl Fn(&mut T) + 'static,
) -> Sampler
where
    T: 'static,
{
    Box::new(move |turns| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..turns {
            prepare(&mut state);
            let start = Instant::now();
            turn(&mut state);
            elapsed += start.elapsed();
        }
        elapsed
    })
}
