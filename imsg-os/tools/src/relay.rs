//! Stands between programs that already run, shows what they say, and translates.
//!
//! - `event_loop` serves the clients,
//! - `listener` makes the socket for them, and takes them,
//! - `connection` passes messages on, from a client to the server and back,
//! - `side` is what one of them speaks, given or found out,
//! - `tap` prints the messages, as `dump` does, and `raw` keeps them in a file that it reads.

mod connection;
mod event_loop;
mod listener;
mod raw;
mod side;
mod tap;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use imsg_os::{Any, Pairing};
use mio::Waker;
use nix::sys::signal::{SigSet, Signal};

use self::connection::Plan;
use self::event_loop::{Relay, Server};
use self::listener::{Listener, SocketFile};
use self::raw::Raw;
pub(crate) use self::side::Side;
use self::side::{CLASSIC, MODERN};
use self::tap::Tap;
pub(crate) use self::tap::frame;
use crate::dialect;
use crate::print::Printing;
use crate::probe::{connect, probe};
use crate::seconds::seconds;

/// Stands between clients and a server that already run, shows what they say, and translates.
///
/// For each client that connects, a connection to the server is made, and messages, with the
/// descriptors that come with them, are carried from one to the other, and from the dialect of one
/// to that of the other. Each message is printed when
/// it is passed on: the time (in seconds since 1970), the number of the connection, the direction,
/// the dialect of the sender, type, id and pid, the bytes of the payload, and "fd" and what the
/// descriptor is. What is printed is what was received.
///
/// A side may be silent as long as it likes, but not in the middle of a message (--patience): one
/// that passed its own end of the connection over the connection and died does not hang up.
///
/// Who reads slowly is waited for (but see --reader-patience): a side of a connection slows the
/// other one, and who reads the output slowly slows all. When nobody reads it any more, the
/// connections go on without.
///
/// A connection ends, with a line on standard error, when a side breaks the protocol, when a marked
/// message comes without its descriptor, and when a message cannot be passed on: a classic program
/// takes 16384 bytes at most, a modern one here 131088, or 65535 if its dialect was found out.
///
/// SIGINT and SIGTERM end the program: what was received is passed on, for 5 seconds at most. A
/// second signal ends it at once.
///
/// With --json, an object has time, connection, direction, dialect, type, id, pid, len (header
/// included), fd, target (what the descriptor is) and payload (in hexadecimal).
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Where to make the socket for clients, which only its owner may use. One that nobody listens
    /// on any more is replaced; anything else that is there is refused
    #[arg(long, value_name = "PATH")]
    listen: PathBuf,

    /// The socket of the server. It need not be there before the first client, except with "tmux"
    #[arg(long, value_name = "PATH")]
    connect: PathBuf,

    /// The dialect of the clients. "auto" finds out that of each client by the first message that
    /// only one dialect has: one with a descriptor. Until then, the server can send it neither a
    /// descriptor nor more than 16384 bytes
    #[arg(long, value_name = "DIALECT", value_enum, default_value_t = Clients::Auto)]
    listen_dialect: Clients,

    /// The dialect of the server. It is not checked: with the wrong one, descriptors do not reach
    /// the server. "tmux" says that it is one of tmux, and finds out its dialect by
    /// a probe, once; and the terminal features that a client asks for, which mean other things in
    /// other versions, are cleared unless it is known to speak the same dialect. With "auto" they
    /// are always cleared, as a client asks before its dialect shows
    #[arg(long, value_name = "DIALECT", value_enum)]
    connect_dialect: Servers,

    /// How descriptors find their messages: "default" is what is right for every honest program of
    /// the dialect
    #[arg(long, value_name = "RULE", value_enum, default_value_t = Rule::Default)]
    pairing: Rule,

    #[command(flatten)]
    printing: Printing,

    /// Say what is waited for before clients are taken
    #[arg(short)]
    verbose: bool,

    /// Print no messages
    #[arg(long, conflicts_with_all = ["json", "hex"])]
    quiet: bool,

    /// Keep what is received in a file, for its owner only, that "imsg dump --strace" reads: the
    /// number of the connection stands for the process, descriptor 3 is the client, and 4 the server
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,

    /// How many clients there may be at a time; others are hung up on
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_clients: usize,

    /// How long a message may take to arrive, from its first byte to its last, and how long a
    /// descriptor may wait here for its message or for the other side to read. The connection ends
    /// then. A tmux server has that long to answer the probe
    #[arg(long, value_parser = seconds, value_name = "SECONDS", default_value = "30")]
    patience: Duration,

    /// How long a side may read nothing of what is there for it. The connection ends then. Without
    /// this, it is waited for, unless a descriptor is there for it
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    reader_patience: Option<Duration>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Clients {
    Auto,
    Classic,
    Modern,
}

#[derive(Clone, Copy, ValueEnum)]
enum Servers {
    Classic,
    Modern,
    Tmux,
}

#[derive(Clone, Copy, ValueEnum)]
enum Rule {
    Default,
    Exact,
    Ordered,
}

pub(crate) fn main(arguments: Arguments) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let format = arguments.printing.format()?;
    let raw =
        arguments.raw.as_deref().map(|path| Raw::create(path).map_err(|error| named(path, error)));
    let tap = Tap::new((!arguments.quiet).then_some(format), raw.transpose()?);
    let Arguments { listen, connect, max_clients, .. } = arguments;
    if listen == connect {
        return Err(named(&listen, "it is the socket of the server").into());
    }
    let plan = Plan {
        clients: match arguments.listen_dialect {
            Clients::Auto => None,
            Clients::Classic => Some(CLASSIC),
            Clients::Modern => Some(MODERN),
        },
        server: match arguments.connect_dialect {
            Servers::Classic => CLASSIC,
            Servers::Modern => MODERN,
            Servers::Tmux => probed(&connect, arguments.patience, arguments.verbose)
                .map_err(|error| named(&connect, error))?,
        },
        pairing: match arguments.pairing {
            Rule::Default => None,
            Rule::Exact => Some(Pairing::Exact),
            Rule::Ordered => Some(Pairing::Ordered),
        },
        tmux: matches!(arguments.connect_dialect, Servers::Tmux),
        patience: arguments.patience,
        reader_patience: arguments.reader_patience,
    };

    // Before there is a socket that would be left behind.
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    let (listener, file) = Listener::bind(&listen).map_err(|error| named(&listen, error))?;
    if file.is_at(&connect) {
        return Err(named(&connect, "it is the socket of this relay").into());
    }
    let server = Server { path: connect, not: file.identity() };
    let relay = Relay::new(listener, server, plan, max_clients, tap)?;
    let waker = relay.waker()?;
    let ending = thread::Builder::new().spawn(move || end_by(signals, file, waker));
    ending.map_err(|error| format!("no thread can be started that waits for signals: {error}"))?;
    complain(format_args!("listening on {}", listen.display()));
    relay.run()?;
    Ok(())
}

/// The dialect of the tmux server at `path`.
fn probed(path: &Path, patience: Duration, verbose: bool) -> Result<Any, Box<dyn Error>> {
    if verbose {
        let what = "waiting for the server to answer the probe for its dialect";
        complain(format_args!("{}: {what}", path.display()));
    }
    let dialect = probe(connect(path, patience)?, patience)?;
    let name = dialect::name(Some(dialect));
    complain(format_args!("{}: {name} dialect, as a probe found", path.display()));
    Ok(dialect)
}

/// Ends the program by a signal. The event loop may be waiting for whoever reads the output, so
/// this does without it.
fn end_by(signals: SigSet, file: SocketFile, waker: Waker) {
    /// How long the end may take, when something is not read.
    const LAST: Duration = Duration::from_secs(5);
    if signals.wait().is_ok() {
        drop(file);
        let _ = waker.wake();
        // The next one does what it does by default.
        let _ = signals.thread_unblock();
        thread::sleep(LAST);
        complain(format_args!("it takes too long to pass on what was received: it is cut off"));
        process::exit(0);
    }
}

fn named(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

fn complain(text: std::fmt::Arguments<'_>) {
    crate::complain::complain("relay", text);
}
