//! A small client of tmux: runs one command on a server and prints what that answers.
//!
//! - `protocol` is what client and server say to each other,
//! - `greeting` is what a client says first,
//! - `client` carries out what the server asks for, until the command has ended,
//! - `patience` is how long it waits for what.

mod client;
mod error;
mod greeting;
mod patience;
mod protocol;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use imsg_os::{Any, Channel, Endian};
use nix::unistd;

use self::client::Client;
use self::error::Error;
use self::patience::Patience;
use crate::complain::complain;
use crate::dialect;
use crate::probe::{connect, probe};
use crate::seconds::seconds;

/// Runs one command on a tmux server that is there, and prints what it answers.
///
/// The command may read standard input and write to standard output, as "load-buffer -" and
/// "save-buffer -" do. It may not attach to a session, nor read or write files by name through this
/// client. Text is UTF-8, whatever the locale.
///
/// The dialect of the server is found out by a probe, on a connection of its own: tmux up to 3.5a
/// is classic, 3.6 and later modern.
///
/// Exit status: that of the command as the server says, 1 if there is no server or it fails.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Say which dialect the server speaks, and what is waited for when that takes a while
    #[arg(short)]
    verbose: bool,

    /// The socket of the server; by default that of the session around this, as $TMUX says, or
    /// ${TMUX_TMPDIR:-/tmp}/tmux-UID/default
    #[arg(short = 'S', value_name = "SOCKET")]
    socket: Option<PathBuf>,

    /// The dialect of the server, which is not probed then
    #[arg(long, value_enum)]
    dialect: Option<Dialect>,

    /// How long the server may take to accept a connection, to answer the probe, to read something
    /// of what is sent to it, and for a message from its first byte to its last
    #[arg(long, value_parser = seconds, value_name = "SECONDS", default_value = "30")]
    patience: Duration,

    /// How long the server may say nothing while the command runs, unless it waits for standard
    /// input or output. Without this, it is waited for, as some commands take as long as they like
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    silence: Option<Duration>,

    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dialect {
    Classic,
    Modern,
}

impl From<Dialect> for Any {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Classic => Self::Classic(Endian::NATIVE),
            Dialect::Modern => Self::Modern(Endian::NATIVE),
        }
    }
}

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    match run(arguments) {
        // The system keeps 8 bits of it, too.
        Ok(status) => ExitCode::from((status & 0xff) as u8),
        Err(error) => {
            complain("tmux", error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<i32, Error> {
    let Arguments { verbose, patience, silence, .. } = *arguments;
    let path = arguments.socket.clone().unwrap_or_else(default_socket);
    let (dialect, how) = match arguments.dialect {
        Some(dialect) => (dialect.into(), "as told"),
        None => {
            let socket = connect_to(&path, patience)?;
            if verbose {
                complain("tmux", "waiting for the server to answer the probe for its dialect");
            }
            (probe(socket, patience).map_err(Error::Probe)?, "as a probe found")
        }
    };
    if verbose {
        let name = dialect::name(Some(dialect));
        complain("tmux", format_args!("{}: {name} dialect, {how}", path.display()));
    }

    let socket = connect_to(&path, patience)?;
    // The client waits for whichever of its descriptors is ready first.
    socket.set_nonblocking(true)?;
    let channel = Channel::new(socket, dialect).map_err(io::Error::from)?;
    Client::new(channel, Patience::new(patience, silence, verbose))?.run(&arguments.command)
}

fn connect_to(path: &Path, patience: Duration) -> Result<UnixStream, Error> {
    connect(path, patience).map_err(|error| Error::NoServer { path: path.to_owned(), error })
}

/// Where tmux looks for its server when it is not told.
fn default_socket() -> PathBuf {
    if let Some(around) = env::var_os("TMUX") {
        let path = around.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
        if !path.is_empty() {
            return PathBuf::from(OsString::from_vec(path.to_vec()));
        }
    }
    let directory = env::var_os("TMUX_TMPDIR").filter(|path| !path.is_empty());
    let directory = directory.as_deref().unwrap_or(OsStr::new("/tmp"));
    Path::new(directory).join(format!("tmux-{}", unistd::getuid())).join("default")
}
