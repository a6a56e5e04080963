//! Carries out what the server asks for, until the command has ended.
//!
//! Nothing here waits for one thing while another could be done: what the server writes and what it
//! reads flow at the same time. And nothing grows: what standard output does not take stays in the
//! channel, and then with the server; what the server does not take stays in standard input.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use imsg_os::{Any, Channel, Message, ReadOutcome, RecvError, Sender, is_peer_gone};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::error::Error;
use super::greeting::greet;
use super::patience::{Patience, Wait, timeout};
use super::protocol::{FromClient, FromServer, header};
use crate::text::Lines;

/// How many bytes may be queued when a message of the server is looked at, which may need an
/// answer. Less than half of the queue, so that it is never refused.
const QUEUED: usize = 24 * 1024;

/// How much is written to a descriptor that is ready: what a pipe is sure to take then without
/// making us wait (`PIPE_BUF` on Linux).
const PIECE: usize = 4096;

/// How many streams the server may open for writing at a time.
const STREAMS: usize = 64;

/// A client, and its connection to a server.
pub(crate) struct Client {
    channel: Channel<Any>,
    /// Whether the server will say no more.
    ended: bool,
    session: Session,
    patience: Patience,
}

/// All but the channel, so that this can change while a message is borrowed from that.
struct Session {
    input: File,
    output: File,
    errors: File,
    /// The stream for which standard input is read.
    reading: Option<i32>,
    /// Where the streams go that are written to.
    writing: BTreeMap<i32, Target>,
    /// What is to be written next.
    pending: Pending,
    /// How the command ended.
    status: Option<i32>,
    /// Whether the server takes no more.
    deaf: bool,
}

#[derive(Clone, Copy)]
enum Target {
    Output,
    Errors,
}

/// Data of the server's on its way to a descriptor.
struct Pending {
    target: Target,
    data: Vec<u8>,
    written: usize,
    /// Where standard output, or standard error, is a terminal: that is to show it, and to obey
    /// nothing.
    on_terminal: [Option<Lines>; 2],
}

impl Client {
    pub(crate) fn new(channel: Channel<Any>, patience: Patience) -> io::Result<Self> {
        // Not those of the standard library, which have buffers.
        let session = Session {
            input: File::from(io::stdin().as_fd().try_clone_to_owned()?),
            output: File::from(io::stdout().as_fd().try_clone_to_owned()?),
            errors: File::from(io::stderr().as_fd().try_clone_to_owned()?),
            reading: None,
            writing: BTreeMap::new(),
            pending: Pending {
                target: Target::Output,
                data: Vec::new(),
                written: 0,
                on_terminal: [io::stdout().is_terminal(), io::stderr().is_terminal()]
                    .map(|is_one| is_one.then(Lines::default)),
            },
            status: None,
            deaf: false,
        };
        Ok(Self { channel, ended: false, session, patience })
    }

    /// Has the server run a command, and returns its status.
    pub(crate) fn run(mut self, command: &[OsString]) -> Result<i32, Error> {
        match greet(&mut self.channel.tx, command, &mut self.patience) {
            // It may have said why before it hung up.
            Err(Error::Gone) => self.session.deaf = true,
            greeted => greeted?,
        }
        loop {
            if let Some(status) = self.take_messages()? {
                return Ok(status);
            }
            self.send()?;
            self.wait()?;
        }
    }

    /// Carries out what has arrived, and returns the status when the command has ended.
    fn take_messages(&mut self) -> Result<Option<i32>, Error> {
        let Channel { rx, tx } = &mut self.channel;
        while self.session.takes_messages(tx) {
            let Some(message) = rx.next_message()? else {
                return match self.session.status {
                    // It need not say that it has heard of it.
                    Some(status) if self.ended => Ok(Some(status)),
                    None if self.ended => Err(Error::Gone),
                    _ => Ok(None),
                };
            };
            if let Some(status) = self.session.take(message, tx)? {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    fn send(&mut self) -> Result<(), Error> {
        if self.session.deaf {
            return Ok(());
        }
        match self.channel.tx.write() {
            Ok(_) => Ok(()),
            Err(error) if is_peer_gone(&error) => {
                self.session.deaf = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is waited for.
    fn awaited(&self) -> Wait {
        let Self { channel: Channel { rx, tx }, session, .. } = self;
        let heard = rx.received().bytes;
        match rx.unfinished() {
            _ if !session.pending.is_empty() => Wait::Output,
            _ if tx.queue_bytes() > 0 && !session.deaf => Wait::ToBeRead(tx.sent().bytes),
            Some(offset) if !self.ended => Wait::Message(offset),
            _ if session.status.is_some() => Wait::Farewell(heard),
            _ if session.reading.is_some() => Wait::Input,
            _ => Wait::Command(heard),
        }
    }

    /// Waits until something can be done, and does it.
    fn wait(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let limit = self.patience.limit(self.awaited(), now).map_err(Error::Silence)?;
        let timeout = timeout(limit, now);
        let Self { channel, session, .. } = self;
        let to_send = channel.tx.queue_bytes() > 0 && !session.deaf;
        let mut on_socket = PollFlags::empty();
        on_socket.set(PollFlags::POLLIN, session.takes_messages(&channel.tx) && !self.ended);
        on_socket.set(PollFlags::POLLOUT, to_send);
        let reads = session.reading.is_some() && !to_send && !session.deaf;
        let on_input = if reads { PollFlags::POLLIN } else { PollFlags::empty() };
        let writes = !session.pending.is_empty();
        let on_output = if writes { PollFlags::POLLOUT } else { PollFlags::empty() };

        let wanted = [
            (channel.as_fd(), on_socket),
            (session.input.as_fd(), on_input),
            (session.target(session.pending.target).as_fd(), on_output),
        ];
        // Of one that is not asked for anything, a hang-up would be reported again and again.
        let mut fds: Vec<_> = wanted
            .iter()
            .filter(|(_, flags)| !flags.is_empty())
            .map(|(fd, flags)| PollFd::new(*fd, *flags))
            .collect();
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(Errno::EINVAL) => return Err(Error::TooManyToWaitFor(fds.len())),
            Err(errno) => return Err(Error::Io(errno.into())),
        }
        let mut answers = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let [socket, input, output] =
            wanted.map(|(_, flags)| !flags.is_empty() && answers.next().unwrap_or(false));

        if socket && on_socket.contains(PollFlags::POLLIN) {
            self.receive()?;
        }
        if output {
            self.session.write()?;
        }
        if input {
            self.session.read(&mut self.channel.tx)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Error> {
        match self.channel.rx.read() {
            Ok(ReadOutcome::Data | ReadOutcome::WouldBlock) => Ok(()),
            Ok(ReadOutcome::Closed) => {
                self.ended = true;
                Ok(())
            }
            // With something of ours unread.
            Err(RecvError::Io(error)) if is_peer_gone(&error) => {
                self.ended = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Session {
    /// Whether there is room for what a message of the server may bring, and for an answer.
    fn takes_messages(&self, tx: &Sender<Any>) -> bool {
        self.pending.is_empty() && (self.deaf || tx.queue_bytes() <= QUEUED)
    }

    /// Carries out a message, and returns the status when it is the last one.
    fn take(&mut self, message: Message<'_>, tx: &mut Sender<Any>) -> Result<Option<i32>, Error> {
        match FromServer::parse(message)? {
            FromServer::ReadOpen { stream, fd, .. } => self.open_to_read(stream, fd, tx)?,
            FromServer::ReadCancel { stream } => {
                // One that has ended meanwhile is no mistake of the server's.
                if self.reading == Some(stream) {
                    self.end_reading(0, tx)?;
                }
            }
            FromServer::WriteOpen { stream, fd, .. } => self.open_to_write(stream, fd, tx)?,
            FromServer::Write { stream, data } => {
                let target = self.writing.get(&stream);
                let msg_type = FromServer::WRITE;
                self.pending.set(*target.ok_or(Error::Stream { msg_type, stream })?, data);
            }
            FromServer::WriteClose { stream } => {
                let msg_type = FromServer::WRITE_CLOSE;
                self.writing.remove(&stream).ok_or(Error::Stream { msg_type, stream })?;
            }
            FromServer::Exit((status, text)) => {
                self.status = Some(status);
                self.reading = None;
                if !text.is_empty() {
                    self.pending.set(Target::Errors, &[text, b"\n"].concat());
                }
                self.answer(FromClient::Exiting, tx)?;
            }
            FromServer::Detach(_) | FromServer::DetachKill(_) => {
                self.status.get_or_insert(0);
                self.answer(FromClient::Exiting, tx)?;
            }
            FromServer::Exited => return Ok(Some(self.status.unwrap_or(0))),
            FromServer::Shutdown => return Ok(Some(self.status.unwrap_or(1))),
            FromServer::Flags(_) => {}
            FromServer::Ready => return Err(Error::Attached),
        }
        Ok(None)
    }

    fn open_to_read(&mut self, stream: i32, fd: i32, tx: &mut Sender<Any>) -> Result<(), Error> {
        let error = match fd {
            libc::STDIN_FILENO if self.reading.is_none() => {
                self.reading = Some(stream);
                return Ok(());
            }
            // To open a path.
            -1 => libc::EPERM,
            _ => libc::EBADF,
        };
        self.answer(FromClient::ReadDone { stream, error }, tx)
    }

    fn open_to_write(&mut self, stream: i32, fd: i32, tx: &mut Sender<Any>) -> Result<(), Error> {
        let target = match fd {
            libc::STDOUT_FILENO => Ok(Target::Output),
            libc::STDERR_FILENO => Ok(Target::Errors),
            -1 => Err(libc::EPERM),
            _ => Err(libc::EBADF),
        };
        let error = match target {
            Ok(_) if self.writing.contains_key(&stream) => libc::EBADF,
            Ok(_) if self.writing.len() >= STREAMS => libc::EMFILE,
            Ok(target) => {
                self.writing.insert(stream, target);
                0
            }
            Err(error) => error,
        };
        self.answer(FromClient::WriteReady { stream, error }, tx)
    }

    /// Sends some of standard input to the server. Nothing else is queued.
    fn read(&mut self, tx: &mut Sender<Any>) -> Result<(), Error> {
        let Some(stream) = self.reading else {
            return Ok(());
        };
        let mut message = tx.create(header(FromClient::READ), None)?;
        message.add(&stream)?;
        let room = message.remaining();
        let error = match self.input.read(message.reserve(room)?) {
            Ok(0) => 0,
            Ok(n) => {
                message.truncate(size_of_val(&stream) + n)?;
                message.close();
                return Ok(());
            }
            Err(error) if is_passing(&error) => return Ok(()),
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        drop(message);
        self.end_reading(error, tx)
    }

    fn end_reading(&mut self, error: i32, tx: &mut Sender<Any>) -> Result<(), Error> {
        match self.reading.take() {
            Some(stream) => self.answer(FromClient::ReadDone { stream, error }, tx),
            None => Ok(()),
        }
    }

    /// Writes some of what is pending.
    fn write(&mut self) -> Result<(), Error> {
        let Pending { target, data, written, .. } = &self.pending;
        let rest = &data[*written..];
        let piece = &rest[..rest.len().min(PIECE)];
        match self.target(*target).write(piece) {
            Ok(0) => Err(Error::Output(ErrorKind::WriteZero.into())),
            Ok(n) => {
                self.pending.written += n;
                Ok(())
            }
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(Error::Output(error)),
        }
    }

    fn target(&self, target: Target) -> &File {
        match target {
            Target::Output => &self.output,
            Target::Errors => &self.errors,
        }
    }

    fn answer(&self, answer: FromClient<'_>, tx: &mut Sender<Any>) -> Result<(), Error> {
        if self.deaf { Ok(()) } else { Ok(answer.say(tx)?) }
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.written >= self.data.len()
    }

    fn set(&mut self, target: Target, data: &[u8]) {
        self.target = target;
        self.data.clear();
        match &mut self.on_terminal[target as usize] {
            Some(lines) => self.data = lines.show(data),
            None => self.data.extend_from_slice(data),
        }
        self.written = 0;
    }
}

/// Whether it will be otherwise later.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}
