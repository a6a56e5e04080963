//! Programs that a test runs: what they say, what the system says of them, and waiting that ends.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::ptr;
use std::sync::Once;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

/// How long anything may take until it is said to hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A program while it runs. It is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    /// Its process, whose pipes may be taken.
    pub child: Child,
}

impl Running {
    /// Starts what `command` says.
    pub fn start(command: &mut Command) -> Self {
        Self { child: command.spawn().expect("start the program") }
    }

    /// What the system says of it.
    pub fn process(&self) -> Process {
        Process::of(self.child.id())
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it hangs.
    pub fn until_it_ends(&mut self) -> ExitStatus {
        until_some("the program ends", || self.child.try_wait().expect("wait for it"))
    }

    /// Waits for its end, and returns what it said to pipes. Its standard input stays open for as
    /// long, unless that was taken.
    ///
    /// # Panics
    ///
    /// When it hangs.
    pub fn finish(mut self) -> Report {
        let _stdin = self.child.stdin.take();
        let stdout = read_all(self.child.stdout.take());
        let stderr = read_all(self.child.stderr.take());
        let status = answer_in_time(|| self.child.try_wait().expect("wait for it"));
        self.kill();
        let end = |pipe: Receiver<_>| pipe.recv_timeout(PATIENCE).expect("the end of what it says");
        let stderr = String::from_utf8(end(stderr)).expect("what it complains of is UTF-8");
        let status = status.unwrap_or_else(|| panic!("the program hangs; it said: {stderr}"));
        Report { status, stdout: end(stdout), stderr }
    }

    /// Ends it, if it has not ended.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs what `command` says, with this to read, until it ends. It need not read all of it.
///
/// # Panics
///
/// When it hangs.
pub fn run(command: &mut Command, input: &[u8]) -> Report {
    let mut program = Running::start(command);
    let stdin = program.child.stdin.take();
    thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        program.finish()
    })
}

fn read_all(from: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            from.read_to_end(&mut bytes).expect("read what it says");
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// What a program said until it ended.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said on standard output, if that was a pipe.
    pub stdout: Vec<u8>,
    /// What it said on standard error, if that was a pipe.
    pub stderr: String,
}

impl Report {
    /// Its exit status, unless a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it said on standard output, as text.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.stdout).expect("what it says is UTF-8")
    }
}

/// Limits a resource of what `command` starts, and of the processes that this starts.
pub fn limit(command: &mut Command, resource: Resource, most: rlim_t) {
    let set = move || Ok(setrlimit(resource, most, most)?);
    // SAFETY: the closure makes a system call and nothing else.
    unsafe { command.pre_exec(set) };
}

/// Limits a resource of a process that runs.
///
/// # Panics
///
/// When the system does not.
pub fn limit_now(process: Process, resource: Resource, most: rlim_t) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the limit is read, and nothing is written.
    let set = unsafe { libc::prlimit(process.0.as_raw(), resource as _, &limit, ptr::null_mut()) };
    assert_eq!(set, 0, "limit a resource of {process:?}");
}

/// Has what `command` starts ignore a signal, as it is inherited.
pub fn ignore(command: &mut Command, signal_of_it: Signal) {
    let set = move || {
        // SAFETY: to ignore a signal calls no handler.
        unsafe { signal(signal_of_it, SigHandler::SigIgn) }?;
        Ok(())
    };
    // SAFETY: the closure makes a system call and nothing else.
    unsafe { command.pre_exec(set) };
}

/// Makes what a descriptor stands for non-blocking, for all who have it.
pub fn make_nonblocking(what: &impl AsFd) {
    let flags = OFlag::from_bits_retain(fcntl(what, FcntlArg::F_GETFL).expect("its flags"));
    fcntl(what, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).expect("set its flags");
}

/// The program `strace`. `None`, and a loud word about it, when it is not there.
///
/// # Panics
///
/// When it is not there where tests are not to be left out, as the variable `CI` says.
pub fn strace() -> Option<Command> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok() {
        return Some(Command::new("strace"));
    }
    assert!(env::var_os("CI").is_none(), "strace is not installed, and has to be");
    static ONCE: Once = Once::new();
    ONCE.call_once(|| say("NOT TESTED: what needs strace, which is not installed"));
    None
}

/// What the system says of a process, in `/proc`.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub Pid);

impl Process {
    /// The process of this id.
    pub fn of(id: u32) -> Self {
        Self(Pid::from_raw(id.cast_signed()))
    }

    /// The process that asks.
    pub fn this() -> Self {
        Self(Pid::this())
    }

    /// The path of a file about it.
    pub fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    /// How many descriptors it has open.
    pub fn descriptors(self) -> usize {
        fs::read_dir(self.file("fd")).expect("list its descriptors").count()
    }

    /// A duplicate of one that it has open, if this process may have it.
    pub fn descriptor(self, number: RawFd) -> Option<OwnedFd> {
        let new = |result: libc::c_long| {
            let number = RawFd::try_from(result).ok().filter(|number| *number >= 0)?;
            // SAFETY: it is new.
            Some(unsafe { OwnedFd::from_raw_fd(number) })
        };
        // SAFETY: the call takes integers.
        let process = new(unsafe { libc::syscall(libc::SYS_pidfd_open, self.0.as_raw(), 0) })?;
        // SAFETY: as above.
        new(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
    }

    /// A field of its status; `None` when it has none, or there is no such process.
    pub fn status(self, field: &str) -> Option<String> {
        let status = fs::read_to_string(self.file("status")).ok()?;
        let fields = &mut status.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = fields.find(|(name, _)| *name == field)?;
        Some(value.trim().to_owned())
    }

    /// A field of its status that is an amount of memory, in KiB.
    pub fn memory(self, field: &str) -> Option<usize> {
        self.status(field)?.strip_suffix(" kB")?.parse().ok()
    }

    /// How long it has used a processor, in ticks of the clock.
    pub fn ticks(self) -> u64 {
        let fields = self.stat();
        [11, 12].map(|at| fields[at].parse::<u64>().expect("a number of ticks")).iter().sum()
    }

    /// Whether it runs, sleeps, is stopped, and so on, by the letter that `ps` shows.
    pub fn state(self) -> String {
        self.stat().swap_remove(0)
    }

    /// The fields behind the name of the program, which is in brackets.
    fn stat(self) -> Vec<String> {
        let stat = fs::read_to_string(self.file("stat")).expect("the process is there");
        let (_, fields) = stat.rsplit_once(") ").expect("the name of the program");
        fields.split_whitespace().map(str::to_owned).collect()
    }

    /// The first process that it started, once it has.
    pub fn first_child(self) -> Option<Self> {
        let children = fs::read_to_string(self.file(&format!("task/{}/children", self.0)));
        let children = children.expect("the children of a process that runs");
        let child = children.split_whitespace().next()?;
        Some(Self::of(child.parse().expect("the id of a process")))
    }

    /// Sends it a signal.
    pub fn signal(self, signal: Signal) {
        kill(self.0, signal).expect("signal the process");
    }
}

/// Asks again and again until it is so.
///
/// # Panics
///
/// When that takes too long.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    until_some(what, || is_so().then_some(()));
}

/// Asks again and again until there is an answer.
///
/// # Panics
///
/// When that takes too long.
#[track_caller]
pub fn until_some<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    answer_in_time(ask).unwrap_or_else(|| panic!("in vain: until {what}"))
}

fn answer_in_time<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until something is ready, and says for what.
///
/// # Panics
///
/// When that takes too long.
#[track_caller]
pub fn until_ready(what: &impl AsFd, flags: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(what.as_fd(), flags)];
    let patience = PollTimeout::try_from(PATIENCE).expect("a limit of time");
    let ready = poll(&mut fds, patience).expect("poll");
    assert!(ready > 0, "in vain: until it is ready for {flags:?}");
    fds[0].revents().expect("flags that are known")
}

/// Says something that the test harness does not hold back.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "\n{text}\n");
}
