//! What a client says first.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process;

use imsg_os::{Any, Reason, Refused, Sender};
use zerocopy::IntoBytes;

use crate::error::Error;
use crate::protocol::{
    COMMAND, IDENTIFY_CLIENTPID, IDENTIFY_CWD, IDENTIFY_DONE, IDENTIFY_ENVIRON, IDENTIFY_FEATURES,
    IDENTIFY_LONGFLAGS, IDENTIFY_STDIN, IDENTIFY_STDOUT, IDENTIFY_TERM, IDENTIFY_TTYNAME,
    LongFlags, Number, header,
};

/// Introduces this process to the server, and asks it to run a command.
///
/// The order is that of tmux's own client, and nothing may be left out: a server ends, with all its
/// sessions, when the introduction is over and there was no terminal name, or when a string has no
/// end.
pub(crate) fn greet(tx: &mut Sender<Any>, command: &[OsString]) -> Result<(), Error> {
    let term = env::var_os("TERM").unwrap_or_default();
    let terminal = terminal().unwrap_or_default();
    let directory = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    let pid = Number(i32::try_from(process::id()).unwrap_or_default().into());

    send(tx, IDENTIFY_LONGFLAGS, &[LongFlags::UTF8.as_bytes()], None)?;
    send(tx, IDENTIFY_TERM, &[term.as_bytes(), NUL], None)?;
    // Its bits mean other things in other versions; 0 lets the server find out.
    send(tx, IDENTIFY_FEATURES, &[Number(0.into()).as_bytes()], None)?;
    send(tx, IDENTIFY_TTYNAME, &[terminal.as_os_str().as_bytes(), NUL], None)?;
    send(tx, IDENTIFY_CWD, &[directory.as_os_str().as_bytes(), NUL], None)?;
    send(tx, IDENTIFY_STDIN, &[], Some(input))?;
    send(tx, IDENTIFY_STDOUT, &[], Some(output))?;
    send(tx, IDENTIFY_CLIENTPID, &[pid.as_bytes()], None)?;
    for (name, value) in env::vars_os() {
        match send(tx, IDENTIFY_ENVIRON, &[name.as_bytes(), b"=", value.as_bytes(), NUL], None) {
            // One that no message can carry; tmux leaves it out, too.
            Err(Error::Refused(Reason::TooLong { .. })) => {}
            sent => sent?,
        }
    }
    send(tx, IDENTIFY_DONE, &[], None)?;

    let count = Number(i32::try_from(command.len()).unwrap_or(i32::MAX).into());
    let packed = command.join(OsStr::from_bytes(NUL));
    send(tx, COMMAND, &[count.as_bytes(), packed.as_bytes(), NUL], None)
}

/// The path of the terminal that is standard input, where the system says.
fn terminal() -> Option<PathBuf> {
    if io::stdin().is_terminal() { fs::read_link("/dev/fd/0").ok() } else { None }
}

const NUL: &[u8] = b"\0";

/// Queues a message, once there is room for it.
fn send(
    tx: &mut Sender<Any>,
    msg_type: u32,
    parts: &[&[u8]],
    descriptor: Option<OwnedFd>,
) -> Result<(), Error> {
    match tx.compose_parts(header(msg_type), parts, descriptor) {
        Err(Refused { reason: Reason::Full { .. }, descriptor }) => {
            tx.flush()?;
            Ok(tx.compose_parts(header(msg_type), parts, descriptor)?)
        }
        sent => Ok(sent?),
    }
}
