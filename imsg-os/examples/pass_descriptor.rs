//! Counts the lines of a file in a process that never opened it: the least that a program of two
//! processes has to do.
//!
//! The parent opens the file and passes the descriptor to a worker, which is this program again;
//! that reads the file and sends back what it counted.
//!
//! ```sh
//! cargo run -p imsg-os --features process --example pass_descriptor -- /etc/passwd
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use imsg_os::process::{CHANNEL, Worker};
use imsg_os::typed::Protocol;
use imsg_os::{Channel, Modern, inherited, protocol};
use signal_hook::consts::SIGCHLD;
use zerocopy::{FromBytes, Immutable, IntoBytes};

protocol! {
    enum ToWorker {
        /// Count the lines of the file that comes with this.
        1 => Count + OwnedFd,
    }
}

protocol! {
    enum FromWorker<'a> {
        2 => Counted(Counted),
        /// A sentence that says why it could not.
        3 => Failed(&'a str),
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Counted {
    bytes: u64,
    lines: u64,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let result = match (arguments.next(), arguments.next()) {
        (Some(flag), None) if flag == "--worker" => worker(),
        (Some(file), None) => parent(Path::new(&file)),
        _ => Err("usage: pass_descriptor FILE".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Unlike `eprintln`, this does not panic when nobody listens.
            let _ = writeln!(io::stderr(), "pass_descriptor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The time that a worker may take to end.
const GRACE: Duration = Duration::from_secs(5);

fn parent(path: &Path) -> Result<()> {
    // Names, and what a worker says, are shown as `Debug` does: no terminal obeys what is in them.
    let file = File::open(path).map_err(|error| format!("{path:?}: {error}"))?;
    // Whoever started this may ignore SIGCHLD, and then nobody is told how a child ended.
    signal_hook::flag::register(SIGCHLD, Arc::default())?;
    // This program again.
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--worker");
    let (mut worker, socket) = Worker::start(command)?;
    let mut channel = Channel::new(socket, Modern::new())?;
    let answer = ask(&mut channel, file.into());
    drop(channel); // the worker sees the end of the stream, and ends
    let status = worker.end(GRACE)?;

    // What became of the worker explains a broken channel better than the channel does.
    if !status.success() {
        let cause = answer.err().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(format!("the worker died: {status}{cause}").into());
    }
    let Counted { bytes, lines } = answer?;
    writeln!(io::stdout(), "{path:?}: {bytes} bytes, {lines} lines")?;
    Ok(())
}

fn ask(channel: &mut Channel, descriptor: OwnedFd) -> Result<Counted> {
    ToWorker::Count { descriptor }.compose(&mut channel.tx, 0)?;
    channel.tx.flush()?;
    let answer = channel.rx.recv()?.ok_or("the worker hung up without an answer")?;
    match FromWorker::try_from(answer)? {
        FromWorker::Counted(counted) => Ok(counted),
        FromWorker::Failed(why) => Err(format!("{why:?}").into()),
    }
}

/// Answers requests until the parent hangs up.
fn worker() -> Result<()> {
    // SAFETY: nothing else in this program takes up descriptor 3.
    let socket = unsafe { inherited(CHANNEL) }?;
    let mut channel = Channel::new(socket, Modern::new())?;
    channel.rx.allow_descriptors();
    while let Some(request) = channel.rx.recv()? {
        let outcome = match ToWorker::try_from(request) {
            Ok(ToWorker::Count { descriptor }) => {
                count(descriptor.into()).map_err(|error| error.to_string())
            }
            Err(bad) => Err(bad.to_string()),
        };
        let answer = match &outcome {
            Ok(counted) => FromWorker::Counted(*counted),
            Err(why) => FromWorker::Failed(why),
        };
        answer.compose(&mut channel.tx, 0)?;
        channel.tx.flush()?;
    }
    Ok(())
}

fn count(file: File) -> io::Result<Counted> {
    let mut file = BufReader::new(file);
    let mut counted = Counted { bytes: 0, lines: 0 };
    loop {
        let chunk = file.fill_buf()?;
        if chunk.is_empty() {
            return Ok(counted);
        }
        let len = chunk.len();
        counted.bytes += len as u64;
        counted.lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        file.consume(len);
    }
}
