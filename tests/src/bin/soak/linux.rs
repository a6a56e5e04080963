//! The program, of which each of the two processes runs a half.

mod account;
mod incoming;
mod outgoing;
mod parent;
mod peer;
mod plan;
mod side;
mod token;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use parent::Parent;
use plan::DialectName;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Returns an error with the given text unless something is so.
macro_rules! ensure {
    ($so:expr, $($otherwise:tt)+) => {
        if !$so {
            return Err(format!($($otherwise)+).into());
        }
    };
}
pub(crate) use ensure;

/// After this long without anything happening, the soak has failed.
const TOO_LONG: Duration = Duration::from_secs(30);

/// Two processes exchange random messages and descriptors over an imsg channel, and lose none.
#[derive(Parser)]
#[command(name = "soak")]
struct Args {
    /// How long to run.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What all random choices follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The dialect to speak; both in turn unless given.
    #[arg(long)]
    dialect: Option<DialectName>,
    /// Be the peer of this cycle, with the channel on descriptor 3.
    #[arg(long, hide = true)]
    peer: Option<u64>,
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    let (who, outcome) = match args.peer {
        Some(number) => ("the peer", peer::run(args.seed, args.dialect, number)),
        None => {
            let parent = Parent::new(args.seed, args.dialect);
            ("the parent", parent.and_then(|parent| parent.run(Duration::from_secs(args.seconds))))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {who} (seed {}): {error}", args.seed);
            ExitCode::FAILURE
        }
    }
}
