//! Counts the lines of a file in a process that never opened it: the least that a program of two
//! processes has to do.
//!
//! The parent opens the file and passes the descriptor to a worker, which is this program again;
//! that reads the file and sends back what it counted.
//!
//! ```sh
//! cargo run -p imsg-os --example pass_descriptor -- /etc/passwd
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode};

use command_fds::{CommandFdExt, FdMapping};
use imsg_os::{Channel, Descriptor, Header, Modern, inherited};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// To the worker: count the lines of the file that comes with the message.
const COUNT: u32 = 1;
/// From the worker: a [`Counted`].
const COUNTED: u32 = 2;
/// From the worker: a sentence that says why it could not.
const FAILED: u32 = 3;

#[derive(FromBytes, IntoBytes, Immutable)]
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
            eprintln!("pass_descriptor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parent(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (mut worker, mut channel) = start_worker()?;
    let answer = ask(&mut channel, file.into());
    drop(channel); // the worker sees the end of the stream, and ends
    let status = worker.wait()?;

    // What became of the worker explains a broken channel better than the channel does.
    if !status.success() {
        let cause = answer.err().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(format!("the worker died: {status}{cause}").into());
    }
    let Counted { bytes, lines } = answer?;
    println!("{}: {bytes} bytes, {lines} lines", path.display());
    Ok(())
}

/// Starts this program again, with one end of a new channel as its descriptor 3.
fn start_worker() -> Result<(Child, Channel)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--worker");
    command.fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: 3 }])?;
    let worker = command.spawn()?;
    // `command`, and the worker's end in it, is dropped here: the parent would otherwise hold
    // both ends, and never see the end of the stream.
    Ok((worker, Channel::new(ours, Modern::new())?))
}

fn ask(channel: &mut Channel, file: OwnedFd) -> Result<Counted> {
    channel.tx.compose(Header::new(COUNT), b"", Some(file))?;
    channel.tx.flush()?;
    let answer = channel.rx.recv()?.ok_or("the worker hung up without an answer")?;
    match answer.header.msg_type {
        COUNTED => Ok(answer.reader().data()?),
        FAILED => Err(String::from_utf8_lossy(answer.payload).into()),
        other => Err(format!("the worker sent a message of unknown type {other}").into()),
    }
}

/// Answers requests until the parent hangs up.
fn worker() -> Result<()> {
    // SAFETY: nothing else in this program takes up descriptor 3.
    let socket = unsafe { inherited(3) }?;
    let mut channel = Channel::new(socket, Modern::new())?;
    channel.rx.allow_descriptors();
    while let Some(request) = channel.rx.recv()? {
        let outcome = match (request.header.msg_type, request.descriptor) {
            (COUNT, Descriptor::Here(file)) => {
                count(file.into()).map_err(|error| error.to_string())
            }
            (COUNT, Descriptor::Missing(why)) => Err(why.to_string()),
            (COUNT, Descriptor::None) => Err("there is no file to count".to_owned()),
            (other, _) => Err(format!("unknown request {other}")),
        };
        match outcome {
            Ok(counted) => channel.tx.compose(Header::new(COUNTED), &counted, None)?,
            Err(why) => channel.tx.compose(Header::new(FAILED), why.as_bytes(), None)?,
        }
        channel.tx.flush()?;
    }
    Ok(())
}

fn count(file: File) -> std::io::Result<Counted> {
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
