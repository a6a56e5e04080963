//! What a client says first.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process;

use imsg_os::typed::Protocol;
use imsg_os::{Any, Reason, Sender, WriteOutcome};

use super::error::Error;
use super::patience::Patience;
use super::protocol::FromClient;

/// Introduces this process to the server, and asks it to run a command.
///
/// The order is that of tmux's own client, and nothing may be left out: a server ends, with all its
/// sessions, when the introduction is over and there was no terminal name, or when a string has no
/// end.
pub(crate) fn greet(
    tx: &mut Sender<Any>,
    command: &[OsString],
    patience: &mut Patience,
) -> Result<(), Error> {
    let mut send = |message: FromClient<'_>| send(tx, message, patience);
    let term = env::var_os("TERM").unwrap_or_default();
    let terminal = terminal().unwrap_or_default();
    let directory = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    let pid = i32::try_from(process::id()).unwrap_or_default();

    send(FromClient::LongFlags(FromClient::UTF8))?;
    send(FromClient::Term(term.as_bytes()))?;
    // Its bits mean other things in other versions; 0 lets the server find out.
    send(FromClient::Features(0))?;
    send(FromClient::TtyName(terminal.as_os_str().as_bytes()))?;
    send(FromClient::Cwd(directory.as_os_str().as_bytes()))?;
    send(FromClient::Stdin { descriptor: input })?;
    send(FromClient::Stdout { descriptor: output })?;
    send(FromClient::ClientPid(pid))?;
    for (mut variable, value) in env::vars_os() {
        variable.push("=");
        variable.push(value);
        match send(FromClient::Environ(variable.as_bytes())) {
            // One that no message can carry; tmux leaves it out, too.
            Err(Error::Refused(Reason::TooLong { .. })) => {}
            sent => sent?,
        }
    }
    send(FromClient::Done)?;

    let argc = i32::try_from(command.len()).unwrap_or(i32::MAX);
    let mut argv = command.join(OsStr::new("\0"));
    argv.push("\0");
    send(FromClient::Command { argc, argv: argv.as_bytes() })
}

/// The path of the terminal that is standard input, where the system says.
fn terminal() -> Option<PathBuf> {
    if io::stdin().is_terminal() { fs::read_link("/dev/fd/0").ok() } else { None }
}

/// Queues a message, once there is room for it.
fn send(
    tx: &mut Sender<Any>,
    message: FromClient<'_>,
    patience: &mut Patience,
) -> Result<(), Error> {
    while let Err(Reason::Full { .. }) = message.has_room(tx) {
        if tx.write()? == WriteOutcome::WouldBlock {
            patience.until_writable(tx)?;
        }
    }
    Ok(message.say(tx)?)
}
