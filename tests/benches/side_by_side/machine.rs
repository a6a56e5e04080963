//! The machine that the figures are of.

use std::fs;
use std::thread::available_parallelism;

use nix::sys::utsname::uname;

/// Which core a process is to run on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Core {
    Sender,
    Receiver,
}

/// What is known of this machine, in a line.
pub(crate) fn describe() -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let system = uname().map_or_else(
        |_| "unknown system".to_owned(),
        |name| {
            let part = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
            let (system, release) = (part(name.sysname()), part(name.release()));
            format!("{system} {release} {}", part(name.machine()))
        },
    );
    let processor = processor().unwrap_or_else(|| "unknown processor".to_owned());
    let load = load().map_or_else(String::new, |load| format!(", load {load}"));
    let pinned = if cores > 1 && cfg!(target_os = "linux") { "pinned" } else { "not pinned" };
    format!("{processor}, {cores} cores, {system}, {pinned}{load}")
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// How many processes wanted to run in the last minute.
fn load() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

/// Keeps this process on a core of its own, where there are two.
#[cfg(target_os = "linux")]
pub(crate) fn pin(core: Core) {
    use std::sync::OnceLock;

    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    // A child has the cores of its parent, which was pinned to one by then.
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    let me = Pid::from_raw(0);
    let allowed = ALLOWED.get_or_init(|| {
        let set = sched_getaffinity(me).unwrap_or_default();
        (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect()
    });
    let &[first, .., last] = &allowed[..] else {
        return;
    };
    let core = match core {
        Core::Sender => first,
        Core::Receiver => last,
    };
    let mut set = CpuSet::new();
    set.set(core).and_then(|()| sched_setaffinity(me, &set)).expect("an allowed core");
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_: Core) {}

/// Lets this process end when its parent does.
#[cfg(target_os = "linux")]
pub(crate) fn die_with_parent() {
    use nix::sys::prctl::set_pdeathsig;
    use nix::sys::signal::Signal;

    set_pdeathsig(Signal::SIGKILL).expect("a signal");
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn die_with_parent() {}
