//! A daemon of three processes: a parent that keeps its privileges and looks at nothing that comes
//! from clients, and two workers without privileges that talk to each other. Copy it to begin one.
//!
//! It tells clients the value of a name. `CONFIG` has a line `NAME VALUE` for each.
//!
//! ```text
//! cargo run --release -p imsg-os --features process --example supervisor -- CONFIG SOCKET
//! ```
//!
//! - `protocol` is what they say to each other,
//! - `parent` starts the workers, connects them, starts those again that end, and takes signals:
//!   `SIGHUP` has the configuration read again, `SIGTERM` and `SIGINT` end all,
//! - `engine` has the configuration, and `frontend` has the clients, and asks the engine.

#![deny(unsafe_code)]

#[path = "../shared/complain.rs"]
mod complain;
mod engine;
mod frontend;
#[path = "../shared/layers.rs"]
mod layers;
#[path = "../shared/listen.rs"]
mod listen;
mod parent;
mod protocol;
#[path = "../shared/sandbox.rs"]
mod sandbox;
#[path = "../shared/signals.rs"]
mod signals;

use std::error::Error;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use imsg_os::process::CHANNEL;
use imsg_os::typed::Protocol;
use imsg_os::{Channel, Modern, Next, TurnError, inherited};

use crate::complain::complain;
use crate::protocol::FromWorker;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    // Past a limit for the size of files, a complaint is to fail, and not to end this program.
    let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--worker", "engine"] => start_worker().and_then(engine::run),
        ["--worker", "frontend"] => start_worker().and_then(frontend::run),
        // With an empty path, the system makes up a name.
        [config, socket] if !socket.is_empty() => parent::run(Path::new(config), Path::new(socket)),
        _ => Err("usage: supervisor CONFIG SOCKET".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain("supervisor", error);
            ExitCode::FAILURE
        }
    }
}

/// Gives up the privileges of this process, which is a worker, and returns the channel to the parent.
fn start_worker() -> Result<Channel> {
    // SAFETY: nothing else in this program takes up descriptor 3.
    #[expect(unsafe_code, reason = "only the program can tell what its descriptors are")]
    let socket = unsafe { inherited(CHANNEL) }?;
    let layers = sandbox::enter()?;
    let mut parent = Channel::new(socket, Modern::new())?;
    parent.rx.allow_descriptors();
    FromWorker::Ready(layers).compose(&mut parent.tx, 0)?;
    Ok(parent)
}

/// Whether a peer that is trusted, and may die, is there after this turn. Any other end of the
/// channel is an error.
fn is_there(turn: Result<Next, TurnError<Box<dyn Error>>>) -> Result<bool> {
    match turn {
        Err(error) if error.is_peer_gone() => Ok(false),
        turn => Ok(turn? != Next::Done),
    }
}

/// Whether a channel goes on after this turn. Complains of an error.
fn goes_on(peer: impl Display, turn: Result<Next, impl Display>) -> bool {
    let turn = turn.inspect_err(|error| complain("supervisor", format!("{peer}: {error}")));
    turn.is_ok_and(|next| next != Next::Done)
}
