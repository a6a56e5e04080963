//! A daemon of three processes: a parent that keeps its privileges and looks at nothing that comes
//! from outside, and two workers without privileges that talk to each other. Copy it to begin one.
//!
//! ```text
//! cargo run --release -p imsg-os --features process --example supervisor -- \
//!     --config FILE --listen /tmp/names
//! ```
//!
//! - `protocol` is what all of them say to each other,
//! - `parent` starts the workers, connects them, starts those again that die, and has the signals:
//!   `SIGHUP` reads the configuration again, `SIGTERM` and `SIGINT` end all,
//! - `engine` has the configuration and answers what is asked about it,
//! - `frontend` has the clients, and asks the engine.

#![deny(unsafe_code)]

#[path = "../shared/complain.rs"]
mod complain;
mod engine;
mod frontend;
mod parent;
mod protocol;
#[path = "../shared/sandbox.rs"]
mod sandbox;
#[path = "../shared/wait.rs"]
mod wait;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use imsg_os::imsg_wire::typed::Protocol;
use imsg_os::{Channel, Modern, inherited};

use crate::protocol::{CHANNEL, FromWorker};

/// Answers clients that ask for the value of a name.
///
/// The configuration has a line `NAME VALUE` for each name.
#[derive(Parser)]
#[command(name = "supervisor")]
struct Arguments {
    /// Where the values are; read again after SIGHUP
    #[arg(long, value_name = "FILE", required_unless_present = "worker")]
    config: Option<PathBuf>,

    /// Where to make the socket for clients
    #[arg(long, value_name = "PATH", required_unless_present = "worker")]
    listen: Option<PathBuf>,

    /// Be a worker; the program starts itself so, with the channel on descriptor 3
    #[arg(long, hide = true, value_enum, conflicts_with_all = ["config", "listen"])]
    worker: Option<Role>,
}

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Engine,
    Frontend,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Frontend => "frontend",
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let (name, result) = match Arguments::parse() {
        Arguments { worker: Some(role), .. } => (role.name(), worker(role)),
        Arguments { config, listen, .. } => {
            ("supervisor", parent::run(&config.unwrap_or_default(), &listen.unwrap_or_default()))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain::complain(name, error);
            ExitCode::FAILURE
        }
    }
}

/// Is a worker, until the parent is gone.
fn worker(role: Role) -> Result<()> {
    // SAFETY: nothing else in this program takes up descriptor 3.
    #[expect(unsafe_code, reason = "only the program can tell what its descriptors are")]
    let socket = unsafe { inherited(CHANNEL) }?;
    let layers = sandbox::enter()?;
    let mut parent = Channel::new(socket, Modern::new())?;
    parent.rx.allow_descriptors();
    FromWorker::Ready(layers).compose(&mut parent.tx, 0)?;
    match role {
        Role::Engine => engine::run(parent),
        Role::Frontend => frontend::run(parent),
    }
}
