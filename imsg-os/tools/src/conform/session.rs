//! One case: a process under test, what it is sent, and what it answers.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use imsg_os::{Any, Channel, Header, ReadOutcome};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, sendmsg, shutdown};
use rustix::io::ioctl_fionread;

use super::cases::Case;
use super::message::{Answer, Message};
use super::process::{Plan, Process};
use super::verdict::{Failure, Verdict};

/// How much more memory than after its first message the process may have in the end, and while its
/// peer does not read, in KiB.
const MEMORY: u64 = 8 * 1024;

/// Why a case goes no further.
pub(crate) enum Stop {
    Failed(Failure),
    /// Not the process under test, but the system, or this program.
    Here(io::Error),
}

pub(crate) type Result<T = ()> = std::result::Result<T, Stop>;

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Here(error)
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Here(errno.into())
    }
}

pub(crate) struct Session {
    pub(crate) process: Process,
    pub(crate) dialect: Any,
    patience: Duration,
    /// Only to receive; what is sent is put together by hand.
    channel: Channel<Any>,
    /// The other end, too, which tells what is not read yet. So the end of a stream that comes is the
    /// end of the process.
    other_end: OwnedFd,
    answers: VecDeque<Answer>,
    /// Why no more answers are understood.
    broken: Option<String>,
    /// The descriptors and the memory after the first message.
    baseline: (usize, u64),
    last_type: u32,
}

impl Session {
    pub(crate) fn start(plan: &Plan<'_>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let other_end = theirs.try_clone()?.into();
        let process = Process::start(plan, theirs.into())?;
        let mut channel = Channel::new(ours, plan.dialect)?;
        channel.rx.allow_descriptors();
        Ok(Self {
            process,
            dialect: plan.dialect,
            patience: plan.patience,
            channel,
            other_end,
            answers: VecDeque::new(),
            broken: None,
            baseline: (0, 0),
            last_type: 100,
        })
    }

    /// Plays a case; the inner error is how it failed.
    pub(crate) fn run(mut self, case: &Case) -> io::Result<std::result::Result<(), Failure>> {
        match self.warm_up().and_then(|()| (case.run)(&mut self)) {
            Ok(()) => Ok(Ok(())),
            Err(Stop::Failed(failure)) => Ok(Err(failure)),
            Err(Stop::Here(error)) => Err(error),
        }
    }

    /// Sees what it holds after its first messages.
    fn warm_up(&mut self) -> Result {
        let first = vec![self.plain(4), self.with_file(4)?];
        self.exchange(&first)?;
        self.process.until(Process::sleeps)?;
        self.baseline = (self.process.descriptors().len(), self.process.memory());
        Ok(())
    }

    // Messages.

    pub(crate) fn header(&mut self) -> Header {
        self.last_type += 1;
        Header { msg_type: self.last_type, id: self.last_type.wrapping_mul(0x0101_0101), pid: 7 }
    }

    pub(crate) fn plain(&mut self, len: usize) -> Message {
        Message::plain(self.header(), len)
    }

    pub(crate) fn with_file(&mut self, len: usize) -> io::Result<Message> {
        Message::with_file(self.header(), len)
    }

    // Sending.

    /// Sends bytes, and descriptors with the first of them. Answers are taken meanwhile.
    pub(crate) fn send_bytes(&mut self, mut bytes: &[u8], files: &[RawFd]) -> Result {
        let mut files = files;
        let mut end = Instant::now() + self.patience;
        while !bytes.is_empty() {
            match self.try_send(bytes, files)? {
                Some(sent) => {
                    bytes = &bytes[sent..];
                    files = &[];
                    end = Instant::now() + self.patience;
                }
                None => {
                    self.drain()?;
                    self.check_living("that it reads on")?;
                    if Instant::now() >= end {
                        return Err(hung("that it reads on", "it took no more").into());
                    }
                    self.wait(PollFlags::POLLIN | PollFlags::POLLOUT)?;
                }
            }
        }
        Ok(())
    }

    /// How many bytes were taken, descriptors with the first of them; none when it would block.
    pub(crate) fn try_send(&self, bytes: &[u8], files: &[RawFd]) -> io::Result<Option<usize>> {
        let rights = [ControlMessage::ScmRights(files)];
        let control = if files.is_empty() { &[][..] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        match sendmsg::<()>(self.channel.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)
        {
            Ok(sent) => Ok(Some(sent)),
            // Too many are on their way: it says nothing when there are less.
            Err(Errno::ETOOMANYREFS) => {
                thread::sleep(Duration::from_millis(1));
                Ok(None)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends messages as a sender does that begins a `sendmsg` with the message that has a descriptor.
    pub(crate) fn send(&mut self, messages: &[Message]) -> Result {
        messages.chunk_by(|_, next| !next.marked).try_for_each(|part| self.send_together(part))
    }

    /// Sends them as a sender of the older generation does, which ends with that message.
    pub(crate) fn send_ending(&mut self, messages: &[Message]) -> Result {
        messages.chunk_by(|before, _| !before.marked).try_for_each(|part| self.send_together(part))
    }

    /// Sends them in one `sendmsg`, as far as it takes them.
    fn send_together(&mut self, messages: &[Message]) -> Result {
        let bytes: Vec<_> = messages.iter().flat_map(|it| it.bytes(self.dialect)).collect();
        let files: Vec<_> = messages.iter().filter_map(descriptor).collect();
        self.send_bytes(&bytes, &files)
    }

    /// Sends messages, and expects them back.
    pub(crate) fn exchange(&mut self, messages: &[Message]) -> Result {
        self.send(messages)?;
        messages.iter().try_for_each(|message| self.expect(message.due()))
    }

    /// Waits until all that was sent is read, so that it is a read of its own. Answers are taken
    /// meanwhile.
    pub(crate) fn until_read(&mut self) -> Result {
        let end = Instant::now() + self.patience;
        loop {
            self.drain()?;
            let is_read = ioctl_fionread(&self.other_end).unwrap_or(0) == 0;
            if self.process.has_ended() || (is_read && self.process.sleeps()) {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(hung("that it reads what it was sent", "it does not read").into());
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Has what is sent in `sending` read together, as far as it fits into a read.
    pub(crate) fn together(&mut self, sending: impl FnOnce(&mut Self) -> Result) -> Result {
        self.process.pause()?;
        let sent = sending(self);
        self.process.resume()?;
        sent
    }

    // Receiving.

    /// Expects this answer, and no other.
    pub(crate) fn expect(&mut self, due: Answer) -> Result {
        match self.next_answer(&due.to_string())? {
            Some(got) if got == due => Ok(()),
            Some(got) => {
                let is_same = (got.header, &got.payload) == (due.header, &due.payload);
                let verdict =
                    if is_same && got.file.is_some() { Verdict::WrongFile } else { Verdict::Lost };
                let changed =
                    if is_same || got.header != due.header { "" } else { " with other bytes" };
                let got = format!("{got}{changed} came back");
                Err(Failure::new(verdict, due.to_string(), got).into())
            }
            None => Err(self.end_before(&due.to_string())?.into()),
        }
    }

    /// The next answer; none when there will be no more, as the process has ended.
    pub(crate) fn next_answer(&mut self, expected: &str) -> Result<Option<Answer>> {
        let mut end = Instant::now() + self.patience;
        loop {
            let has_ended = self.process.end()?.is_some();
            let before = self.channel.rx.received().bytes;
            self.drain()?;
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(answer));
            }
            if let Some(broken) = &self.broken {
                let got = format!("what it sent breaks the protocol: {broken}");
                return Err(Failure::new(Verdict::Lost, expected, got).into());
            }
            if has_ended {
                return Ok(None);
            }
            if self.channel.rx.received().bytes > before {
                end = Instant::now() + self.patience;
            }
            if Instant::now() >= end {
                return Err(hung(expected, "nothing came").into());
            }
            self.wait(PollFlags::POLLIN)?;
        }
    }

    /// Takes what has come.
    fn drain(&mut self) -> io::Result<()> {
        while self.broken.is_none() {
            let pid = self.process.id();
            for message in self.channel.rx.messages() {
                match message {
                    Ok(message) => {
                        let mut answer = Answer::of(message)?;
                        // Libraries have it stand for the own one.
                        if answer.header.pid == pid {
                            answer.header.pid = 0;
                        }
                        self.answers.push_back(answer);
                    }
                    Err(error) => self.broken = Some(error.to_string()),
                }
            }
            match self.channel.rx.read() {
                Ok(ReadOutcome::Data) => {}
                Ok(ReadOutcome::WouldBlock | ReadOutcome::Closed) => break,
                Err(error) => self.broken = Some(error.to_string()),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        // Also whether the process has ended, of which no event tells.
        const PAUSE: u8 = 2;
        match poll(&mut [PollFd::new(self.channel.as_fd(), flags)], PollTimeout::from(PAUSE)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    // The end.

    /// Ends the stream, and expects that all is well then: the process has kept nothing, and exits
    /// with status 0.
    pub(crate) fn finish(&mut self) -> Result {
        self.check_leaks()?;
        self.end_stream()?;
        self.expect_clean_end()
    }

    /// Expects the same, once the stream has ended.
    pub(crate) fn expect_clean_end(&mut self) -> Result {
        let expected = "that it exits with status 0 at the end of the stream";
        self.expect_no_more(expected)?;
        match self.process.end()? {
            Some(status) if status.success() => Ok(()),
            _ => Err(self.end_before(expected)?.into()),
        }
    }

    pub(crate) fn end_stream(&self) -> Result {
        Ok(shutdown(self.channel.as_raw_fd(), Shutdown::Write)?)
    }

    /// Expects that the process gives the stream up as broken. Unless it has ended, it is sent one
    /// more message, which must not come back.
    pub(crate) fn expect_refusal(&mut self, of: &str) -> Result {
        let more = self.plain(3);
        let bytes = more.bytes(self.dialect);
        // It may have ended, and then nobody reads it.
        self.try_send(&bytes, &[])?;
        self.expect_broken(of)
    }

    /// The same after the end of the stream.
    pub(crate) fn expect_broken(&mut self, of: &str) -> Result {
        let expected = format!("that it exits, but not with status 0, for {of}");
        self.expect_no_more(&expected)?;
        match self.process.end()? {
            Some(status) if status.success() => {
                let got = "it exited with status 0";
                Err(Failure::new(Verdict::Accepted, expected, got).into())
            }
            Some(status) if status.signal().is_some() => Err(self.end_before(&expected)?.into()),
            _ => Ok(()),
        }
    }

    fn expect_no_more(&mut self, expected: &str) -> Result {
        match self.next_answer(expected)? {
            Some(answer) => {
                let got = format!("{answer} came back");
                Err(Failure::new(Verdict::Accepted, expected, got).into())
            }
            None => Ok(()),
        }
    }

    /// Expects this answer, or that the process gives the stream up before.
    pub(crate) fn expect_or_end(&mut self, due: Answer) -> Result {
        match self.next_answer(&due.to_string())? {
            Some(got) => {
                self.answers.push_front(got);
                self.expect(due)
            }
            None => Ok(()),
        }
    }

    /// Expects a refusal, whatever came back of what was sent before.
    pub(crate) fn expect_refusal_of_rest(&mut self, of: &str) -> Result {
        let last = self.plain(3);
        self.try_send(&last.bytes(self.dialect), &[])?;
        while let Some(answer) = self.next_answer("that it exits")? {
            if answer == last.due() {
                self.answers.push_front(answer);
                break;
            }
        }
        self.expect_broken(of)
    }

    /// Hangs up, so that no answer can be sent any more.
    pub(crate) fn hang_up(&self) -> Result {
        Ok(shutdown(self.channel.as_raw_fd(), Shutdown::Both)?)
    }

    /// Expects that the process ends by itself, in whatever way.
    pub(crate) fn expect_end(&mut self) -> Result {
        let expected = "that it exits when its peer has hung up";
        if !self.process.until(Process::has_ended)? {
            return Err(hung(expected, "it does not").into());
        }
        match self.process.end()? {
            Some(status) if status.signal().is_some() => Err(self.end_before(expected)?.into()),
            _ => Ok(()),
        }
    }

    /// Whether it does nothing more although there is something to read.
    pub(crate) fn is_stuck(&self) -> bool {
        const CHECKS: u32 = 30;
        let unread = || ioctl_fionread(&self.other_end).unwrap_or(0);
        let before = unread();
        before > 0
            && (0..CHECKS).all(|_| {
                thread::sleep(Duration::from_millis(1));
                self.process.sleeps() && unread() == before
            })
    }

    /// Checks that the process has no more descriptors and memory than after its first message.
    pub(crate) fn check_leaks(&mut self) -> Result {
        let (descriptors, memory) = self.baseline;
        let mut now = 0;
        let are_closed = self.process.until(|process| {
            now = process.descriptors().len();
            now <= descriptors
        })?;
        if !are_closed {
            let expected = format!("{descriptors} descriptors, as after its first message");
            return Err(Failure::new(Verdict::Leaked, expected, format!("it has {now}")).into());
        }
        self.check_memory(memory)
    }

    pub(crate) fn check_memory_only(&self) -> Result {
        self.check_memory(self.baseline.1)
    }

    fn check_memory(&self, before: u64) -> Result {
        let now = self.process.memory();
        if now > before + MEMORY {
            let expected = format!("at most {MEMORY} KiB more memory than after its first message");
            let got = format!("it has {} KiB more", now - before);
            return Err(Failure::new(Verdict::Leaked, expected, got).into());
        }
        Ok(())
    }

    /// How many descriptors it has more than after its first message.
    pub(crate) fn more_descriptors(&self) -> usize {
        self.process.descriptors().len().saturating_sub(self.baseline.0)
    }

    pub(crate) fn check_living(&mut self, expected: &str) -> Result {
        match self.process.end()? {
            Some(_) => Err(self.end_before(expected)?.into()),
            None => Ok(()),
        }
    }

    /// What to say of a process that has ended before its time.
    fn end_before(&mut self, expected: &str) -> io::Result<Failure> {
        let status = self.process.end()?;
        let is_signal = status.is_some_and(|status| ExitStatus::signal(&status).is_some());
        let verdict = if is_signal { Verdict::Crashed } else { Verdict::Refused };
        let how = status.map_or_else(|| "without a status".into(), |status| status.to_string());
        Ok(Failure::new(verdict, expected, format!("it ended: {how}")))
    }
}

fn hung(expected: &str, got: &str) -> Failure {
    Failure::new(Verdict::Hung, expected, got)
}

/// The descriptor that goes with a message.
pub(crate) fn descriptor(message: &Message) -> Option<RawFd> {
    message.file.as_ref().map(|file| file.pipe.as_raw_fd())
}
