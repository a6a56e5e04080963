//! A number of a descriptor that is taken while a program is started.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::check;

/// How often a start is tried while other threads close the descriptor of that number.
const ATTEMPTS: usize = 100;

/// What the child says when there is another file of that number than there was.
const CHANGED: i32 = libc::ESTALE;

/// Has descriptor `number` of a child be replaced by later hooks of a command, and nothing lost by
/// that.
///
/// The standard library makes a pipe by which the child says that it could not start the program. It
/// would have that number if it was free at that moment, and a hook would put something else in its
/// place. So the number is taken before, and the child looks whether it is still the same file.
pub(crate) struct Taken {
    number: RawFd,
    /// The device and the number of the file, or the lower part of them.
    file: Arc<[AtomicUsize; 2]>,
}

impl Taken {
    /// Adds the hook, which has to come before that which replaces the descriptor.
    pub(crate) fn new(number: RawFd, command: &mut Command) -> Self {
        let file = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let seen = Arc::clone(&file);
        let hook = move || {
            let seen = [&seen[0], &seen[1]].map(|part| part.load(Ordering::Relaxed));
            match file_of(number) {
                Ok(file) if file != seen => Err(io::Error::from_raw_os_error(CHANGED)),
                // Where there is none, there is no pipe.
                _ => Ok(()),
            }
        };
        // SAFETY: the hook makes a system call, and reads memory that nothing writes after the
        // fork. It neither allocates nor takes a lock.
        unsafe { command.pre_exec(hook) };
        Self { number, file }
    }

    /// Calls `start` while the number is taken, by a duplicate of `filler` if nothing else has it;
    /// again if that was closed meanwhile.
    pub(crate) fn while_taken<T>(
        &self,
        filler: BorrowedFd<'_>,
        mut start: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut attempts = 0;
        loop {
            let started = self.take(filler).and_then(|_filler| start());
            attempts += 1;
            match started {
                Err(error) if error.raw_os_error() == Some(CHANGED) && attempts < ATTEMPTS => {}
                started => return started,
            }
        }
    }

    fn take(&self, filler: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        // SAFETY: the call takes integers.
        let filler = unsafe { libc::fcntl(filler.as_raw_fd(), libc::F_DUPFD_CLOEXEC, self.number) };
        check(filler as isize)?;
        // SAFETY: it is new.
        let filler = unsafe { OwnedFd::from_raw_fd(filler) };
        // While another thread opens a file, the number is neither free nor that of a file.
        let file = file_of(self.number).unwrap_or_default();
        for (part, value) in self.file.iter().zip(file) {
            part.store(value, Ordering::Relaxed);
        }
        Ok(filler)
    }
}

/// What tells the file of this descriptor from others.
fn file_of(number: RawFd) -> io::Result<[usize; 2]> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: there is room for a `stat`, borrowed for writing; a number that is not open is an
    // error.
    let result = unsafe { libc::fstat(number, stat.as_mut_ptr()) };
    check(result as isize)?;
    // SAFETY: it consists of integers, for which zero is a valid value where nothing was written.
    let stat = unsafe { stat.assume_init() };
    Ok([stat.st_dev as usize, stat.st_ino as usize])
}
