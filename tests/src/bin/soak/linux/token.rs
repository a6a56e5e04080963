//! Descriptors that hold a number, and what sees that the last copy of one is closed.

use std::fs::{self, File};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::plan::Kind;
use super::{Outcome, TOO_LONG, ensure};

/// How many descriptors this process has open.
pub(crate) fn open_descriptors() -> io::Result<u64> {
    Ok(fs::read_dir("/proc/self/fd")?.count() as u64)
}

/// A descriptor that holds `key`, and its witness.
pub(crate) fn make(kind: Kind, key: u64) -> io::Result<(OwnedFd, Witness)> {
    let content = key.to_ne_bytes();
    Ok(match kind {
        Kind::PipeReader => {
            let (reader, mut writer) = io::pipe()?;
            writer.write_all(&content)?;
            (reader.into(), Witness::PipeWriter(writer))
        }
        Kind::PipeWriter => {
            let (reader, writer) = io::pipe()?;
            (writer.into(), Witness::PipeReader { reader, key })
        }
        Kind::Memory => {
            let memory = File::from(memfd_create("soak", MFdFlags::MFD_CLOEXEC)?);
            memory.write_all_at(&content, 0)?;
            // The lock is that of the open file which is sent, and goes with its last descriptor.
            fcntl(&memory, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK)))?;
            let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
            let again = File::options().read(true).write(true).open(path)?;
            (memory.into(), Witness::Memory(again))
        }
        Kind::Socket => {
            let (sent, mut kept) = UnixStream::pair()?;
            kept.write_all(&content)?;
            (sent.into(), Witness::Socket(kept))
        }
    })
}

fn whole_file(lock: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: lock as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// What its sender keeps of a descriptor.
pub(crate) enum Witness {
    PipeWriter(PipeWriter),
    PipeReader { reader: PipeReader, key: u64 },
    Memory(File),
    Socket(UnixStream),
}

/// What a witness has to say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Testimony {
    Open,
    Closed,
    /// Closed, and the receiver did not write to it what it should have.
    ClosedUnanswered,
}

impl Witness {
    pub(crate) fn testify(&mut self) -> Outcome<Testimony> {
        let closed = match self {
            Self::PipeWriter(writer) => happened(&*writer, PollFlags::empty(), PollTimeout::ZERO)?
                .contains(PollFlags::POLLERR),
            Self::Memory(file) => {
                let mut lock = whole_file(libc::F_WRLCK);
                fcntl(&*file, FcntlArg::F_OFD_GETLK(&mut lock))?;
                libc::c_int::from(lock.l_type) == libc::F_UNLCK
            }
            Self::Socket(socket) => happened(&*socket, PollFlags::empty(), PollTimeout::ZERO)?
                .contains(PollFlags::POLLHUP),
            Self::PipeReader { reader, key } => {
                let closed = happened(&*reader, PollFlags::POLLIN, PollTimeout::ZERO)?
                    .contains(PollFlags::POLLHUP);
                if closed {
                    let mut answer = Vec::new();
                    reader.read_to_end(&mut answer)?;
                    if answer.is_empty() {
                        return Ok(Testimony::ClosedUnanswered);
                    }
                    ensure!(
                        answer == key.to_ne_bytes(),
                        "{answer:x?} was written to descriptor {key:x}: it went to another message"
                    );
                }
                closed
            }
        };
        Ok(if closed { Testimony::Closed } else { Testimony::Open })
    }
}

/// Checks that `descriptor` is the one that was made for `key`, and closes it.
///
/// The sender must have its witness still, unless it may have been killed.
pub(crate) fn check(
    descriptor: OwnedFd,
    kind: Kind,
    key: u64,
    sender_may_be_gone: bool,
) -> Outcome {
    let flags = FdFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFD)?);
    ensure!(flags.contains(FdFlag::FD_CLOEXEC), "a descriptor arrived without close-on-exec");
    let mut content = [0; 8];
    let mut file = File::from(descriptor);
    match kind {
        Kind::PipeWriter => {
            return match file.write_all(&key.to_ne_bytes()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe && sender_may_be_gone => Ok(()),
                written => Ok(written?),
            };
        }
        Kind::Memory => file.read_exact_at(&mut content, 0)?,
        Kind::PipeReader | Kind::Socket => {
            let timeout = PollTimeout::try_from(TOO_LONG)?;
            let ready = happened(&file, PollFlags::POLLIN, timeout)?;
            ensure!(ready.contains(PollFlags::POLLIN), "a descriptor of another kind arrived");
            file.read_exact(&mut content)?;
        }
    }
    let content = u64::from_ne_bytes(content);
    ensure!(content == key, "descriptor {content:x} arrived in place of {key:x}");
    Ok(())
}

fn happened(
    descriptor: impl AsFd,
    events: PollFlags,
    timeout: PollTimeout,
) -> nix::Result<PollFlags> {
    let mut poll_fd = [PollFd::new(descriptor.as_fd(), events)];
    poll(&mut poll_fd, timeout)?;
    Ok(poll_fd[0].revents().unwrap_or(PollFlags::empty()))
}
