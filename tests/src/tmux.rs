//! The tmux that is installed.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use tempfile::TempDir;

use crate::process::{Report, Running, run, say, until};

/// A server with one session, named `first`. It is killed when it is dropped.
#[derive(Debug)]
pub struct Tmux {
    /// Its process.
    pub running: Running,
    /// Where it listens.
    pub socket: PathBuf,
    /// The directory of its socket, or one above that.
    pub place: TempDir,
}

impl Tmux {
    /// Starts a server with this command in its session. `None`, and a loud word about it, when
    /// there is no tmux.
    ///
    /// # Panics
    ///
    /// When the server does not start; and when there is no tmux where tests are not to be left
    /// out, as the variable `CI` says.
    pub fn start(command: &str) -> Option<Self> {
        let place = tempfile::tempdir().expect("make a directory");
        let socket = place.path().join("socket");
        Self::start_at(place, socket, command)
    }

    /// The same, where the socket is to be somewhere else in its directory.
    pub fn start_at(place: TempDir, socket: PathBuf, command: &str) -> Option<Self> {
        let running = match spawn(&socket) {
            Ok(running) => running,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                assert!(env::var_os("CI").is_none(), "tmux is not installed, and has to be");
                static ONCE: Once = Once::new();
                ONCE.call_once(|| say("NOT TESTED: what needs tmux, which is not installed"));
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let server = Self { running, socket, place };
        server.start_session(command);
        Some(server)
    }

    /// Starts another server in the place of one that has ended.
    pub fn start_again(&mut self, command: &str) {
        self.running = spawn(&self.socket).expect("start tmux");
        self.start_session(command);
    }

    fn start_session(&self, command: &str) {
        until("the server listens", || UnixStream::connect(&self.socket).is_ok());
        self.output_of(["new-session", "-d", "-s", "first", command]);
    }

    /// What tmux itself makes of a command for this server.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Report {
        let mut command = client(&self.socket);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        run(command.args(arguments), b"")
    }

    /// What a command prints that does not fail.
    pub fn output_of<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let report = self.run(arguments);
        assert!(report.status.success(), "{report:?}");
        report.text().to_owned()
    }
}

/// In the foreground, as our child.
fn spawn(socket: &Path) -> io::Result<Running> {
    let mut command = client(socket);
    command.arg("-D").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Running { child: command.spawn()? })
}

/// A client of the server at `socket`, without its command.
pub fn client(socket: &Path) -> Command {
    let mut command = Command::new("tmux");
    command.args(["-u", "-f", "/dev/null", "-S"]).arg(socket);
    command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").env("TERM", "vt100");
    command
}
