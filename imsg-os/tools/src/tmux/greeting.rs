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
use imsg_os::{Any, Reason, Sender};

use super::error::Error;
use super::protocol::FromClient;

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
    let pid = i32::try_from(process::id()).unwrap_or_default();

    send(tx, FromClient::LongFlags(FromClient::UTF8))?;
    send(tx, FromClient::Term(term.as_bytes()))?;
    // Its bits mean other things in other versions; 0 lets the server find out.
    send(tx, FromClient::Features(0))?;
    send(tx, FromClient::TtyName(terminal.as_os_str().as_bytes()))?;
    send(tx, FromClient::Cwd(directory.as_os_str().as_bytes()))?;
    send(tx, FromClient::Stdin { descriptor: input })?;
    send(tx, FromClient::Stdout { descriptor: output })?;
    send(tx, FromClient::ClientPid(pid))?;
    for (mut variable, value) in env::vars_os() {
        variable.push("=");
        variable.push(value);
        match send(tx, FromClient::Environ(variable.as_bytes())) {
            // One that no message can carry; tmux leaves it out, too.
            Err(Error::Refused(Reason::TooLong { .. })) => {}
            sent => sent?,
        }
    }
    send(tx, FromClient::Done)?;

    let argc = i32::try_from(command.len()).unwrap_or(i32::MAX);
    let mut argv = command.join(OsStr::new("\0"));
    argv.push("\0");
    send(tx, FromClient::Command { argc, argv: argv.as_bytes() })
}

/// The path of the terminal that is standard input, where the system says.
fn terminal() -> Option<PathBuf> {
    if io::stdin().is_terminal() { fs::read_link("/dev/fd/0").ok() } else { None }
}

/// Queues a message, once there is room for it.
fn send(tx: &mut Sender<Any>, message: FromClient<'_>) -> Result<(), Error> {
    if let Err(Reason::Full { .. }) = message.has_room(tx) {
        tx.flush()?;
    }
    Ok(message.say(tx)?)
}
