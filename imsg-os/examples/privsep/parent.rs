//! The privileged side. It opens files, and trusts nothing that the worker says.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use imsg_os::process::{CHANNEL, Worker};
use imsg_os::typed::Protocol;
use imsg_os::{Any, Channel, RecvError};
use nix::errno::Errno;
use signal_hook::consts::SIGCHLD;

use crate::layers::Layers;
use crate::patient::Patient;
use crate::protocol::{Answer, Failure, Request, Summary};
use crate::{Dialect, complain, open};

/// The time that a worker may take to end.
const GRACE: Duration = Duration::from_secs(5);

pub(crate) fn run(dialect: Dialect, files: &[PathBuf]) -> Result<ExitCode, Box<dyn Error>> {
    // Whoever started this may ignore SIGCHLD, and then nobody is told how a worker ended.
    signal_hook::flag::register(SIGCHLD, Arc::default())?;
    let (mut worker, channel) = start_worker(dialect)?;
    match converse(channel, worker.child.id(), files) {
        Ok(code) => {
            // The channel is closed now, so the worker knows that there is no more to do.
            let status = worker.end(GRACE)?;
            if !status.success() {
                return Err(format!("the worker failed: {status}").into());
            }
            Ok(code)
        }
        Err(Stop::HungUp) => Err(format!("the worker ended early: {}", worker.end(GRACE)?).into()),
        // The worker is killed, as it is dropped.
        Err(Stop::Fault(error)) => Err(error),
    }
}

fn start_worker(dialect: Dialect) -> Result<(Worker, Channel<Any>), Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--worker", "--dialect", dialect.name()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let (worker, socket) = Worker::start(command)?;
    // Descriptors are not allowed here: the kernel closes what a worker run wild may send.
    Ok((worker, Channel::new(socket, dialect.into())?))
}

/// Why a conversation ended before its time.
enum Stop {
    /// The worker closed its end, as it does by ending.
    HungUp,
    /// Anything else; the worker may well be alive.
    Fault(Box<dyn Error>),
}

/// Has the worker read all files, and prints what it says of them.
fn converse(mut channel: Channel<Any>, worker: u32, files: &[PathBuf]) -> Result<ExitCode, Stop> {
    let mut out = Patient(io::stdout().lock());

    let layers = match receive(&mut channel, 0)? {
        Answer::Ready(layers) => layers,
        answer => return Err(untimely(&answer)),
    };
    writeln!(out, "worker {worker}: {}", describe(&layers)).map_err(cannot_print)?;
    let (size, lines, sha256, own_open) = ("size", "lines", "sha256", "own open");
    writeln!(out, "{size:>14} {lines:>12}  {sha256:<64}  {own_open:<8}  name")
        .map_err(cannot_print)?;

    let mut code = ExitCode::SUCCESS;
    for (id, path) in (1..).zip(files) {
        let summary = match open_regular(path) {
            Ok(file) => summarize(&mut channel, id, path, file)?,
            Err(error) => Err(error.into()),
        };
        // Names are printed as `Debug` does, since a name can have line breaks and worse in it.
        match summary {
            Ok(Summary { size, lines, sha256, own_open }) => {
                let (sha256, own_open) = (hex(&sha256), outcome(own_open.get()));
                writeln!(out, "{size:>14} {lines:>12}  {sha256}  {own_open:<8}  {path:?}")
                    .map_err(cannot_print)?;
            }
            Err(reason) => {
                complain(format_args!("privsep: {path:?}: {reason}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// Opens what can be read to its end; a directory too, for the worker to fail with.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_dir() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Passes a file to the worker and waits for the answer. That there is none for this file does not
/// affect the others.
fn summarize(
    channel: &mut Channel<Any>,
    id: u32,
    path: &Path,
    file: File,
) -> Result<Result<Summary, Box<dyn Error>>, Stop> {
    let request = Request::Read(path.as_os_str().as_bytes(), file.into());
    if let Err(refused) = request.compose(&mut channel.tx, id) {
        // Nothing else is queued, so it is not for want of room, but because of the path's length.
        return Ok(Err(refused.into()));
    }
    channel.tx.flush()?;

    match receive(channel, id)? {
        Answer::Summary(summary) => Ok(Ok(summary)),
        Answer::Failure(Failure { errno }) => {
            Ok(Err(io::Error::from_raw_os_error(errno.get()).into()))
        }
        answer @ Answer::Ready(_) => Err(untimely(&answer)),
    }
}

/// Waits for the answer of the worker to the request `id`.
fn receive(channel: &mut Channel<Any>, id: u32) -> Result<Answer, Stop> {
    let message = channel.rx.recv()?.ok_or(Stop::HungUp)?;
    let of = message.header.id;
    let answer = message.try_into().map_err(|bad| fault(format_args!("a {bad}")))?;
    if of == id { Ok(answer) } else { Err(untimely(&answer)) }
}

/// The worker sent an answer that is not due.
fn untimely(answer: &Answer) -> Stop {
    fault(format_args!("an unexpected message: {}", answer.name()))
}

fn fault(what: fmt::Arguments<'_>) -> Stop {
    Stop::Fault(format!("the worker sent {what}").into())
}

fn cannot_print(error: io::Error) -> Stop {
    Stop::Fault(format!("cannot print: {error}").into())
}

impl From<RecvError> for Stop {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Io(error) => error.into(),
            // It ended in the middle of a message.
            RecvError::Protocol(imsg_os::Error::Truncated { .. }) => Self::HungUp,
            error => Self::Fault(error.into()),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::HungUp,
            _ => Self::Fault(error.into()),
        }
    }
}

fn describe(layers: &Layers) -> String {
    let Layers { user, group, was_root, no_new_privileges, landlock } = layers;
    let mut text = format!("descriptors 0 to {CHANNEL}, user {user}, group {group}");
    if *was_root != 0 {
        text += ", no other groups";
    }
    if *no_new_privileges != 0 {
        text += ", no new privileges";
    }
    let landlock = landlock.get();
    if landlock == 0 {
        return text + ", no Landlock: it can open what its user may read";
    }
    text += &format!(", no files (Landlock {landlock})");
    for (since, what) in [(4, "TCP"), (6, "signals or abstract sockets"), (10, "UDP")] {
        if landlock >= since {
            text += &format!(", no {what}");
        }
    }
    text
}

/// What came of the worker's own attempt to open a file.
fn outcome(errno: i32) -> String {
    match errno {
        0 => "opened".into(),
        libc::EACCES | libc::EPERM => "refused".into(),
        other => format!("{:?}", Errno::from_raw(other)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
