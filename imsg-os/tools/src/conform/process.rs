//! The process under test, from outside.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use imsg_os::Any;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, prlimit};

/// What is tested, and how.
pub(crate) struct Plan<'a> {
    pub(crate) program: &'a [OsString],
    pub(crate) dialect: Any,
    pub(crate) name: &'static str,
    pub(crate) patience: Duration,
    /// Whether to show what the program says on standard error.
    pub(crate) verbose: bool,
}

/// It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    patience: Duration,
}

impl Process {
    /// Starts the program under test, with this socket as its descriptor 3.
    pub(crate) fn start(plan: &Plan<'_>, socket: OwnedFd) -> io::Result<Self> {
        let (program, arguments) = plan.program.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).env("IMSG_DIALECT", plan.name);
        let errors = if plan.verbose { Stdio::inherit() } else { Stdio::null() };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let mapping = FdMapping { parent_fd: socket, child_fd: 3 };
        command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", program.display()))
        })?;
        let pid = Pid::from_raw(child.id().cast_signed());
        Ok(Self { child, pid, patience: plan.patience })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Keeps it from running on. It does nothing from here on.
    pub(crate) fn pause(&self) -> io::Result<()> {
        kill(self.pid, Signal::SIGSTOP)?;
        self.until(|process| process.state().is_none_or(|state| state == 'T')).map(drop)
    }

    pub(crate) fn resume(&self) -> io::Result<()> {
        Ok(kill(self.pid, Signal::SIGCONT)?)
    }

    /// Asks again and again until it is so, or it takes too long.
    pub(crate) fn until(&self, mut is_so: impl FnMut(&Self) -> bool) -> io::Result<bool> {
        let end = Instant::now() + self.patience;
        while !is_so(self) {
            if Instant::now() >= end {
                return Ok(false);
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(true)
    }

    /// Whether it waits for something. One that has ended does so, too.
    pub(crate) fn sleeps(&self) -> bool {
        self.state().is_none_or(|state| matches!(state, 'S' | 'Z' | 'X'))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state().is_none_or(|state| matches!(state, 'Z' | 'X'))
    }

    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// The numbers of its descriptors.
    pub(crate) fn descriptors(&self) -> BTreeSet<u64> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    /// The memory that it has, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_default()
    }

    /// Leaves it no room for another descriptor. Returns the limit that it had.
    pub(crate) fn fill_table(&self) -> io::Result<Rlimit> {
        let used = self.descriptors();
        let free = (0..).find(|number| !used.contains(number));
        let before = self.limit()?;
        // Only the soft one, as not everybody may raise the other one again.
        self.set_limit(Rlimit { current: free, ..before })?;
        Ok(before)
    }

    pub(crate) fn set_limit(&self, limit: Rlimit) -> io::Result<()> {
        prlimit(self.rustix_pid(), Resource::Nofile, limit)?;
        Ok(())
    }

    fn limit(&self) -> io::Result<Rlimit> {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid))?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let mut numbers =
            line.into_iter().flat_map(str::split_whitespace).map(|it| it.parse().ok());
        let mut next = || numbers.next().flatten();
        Ok(Rlimit { current: next(), maximum: next() })
    }

    fn rustix_pid(&self) -> Option<rustix::process::Pid> {
        rustix::process::Pid::from_raw(self.pid.as_raw())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
