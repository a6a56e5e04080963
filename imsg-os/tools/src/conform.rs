//! Puts an implementation of imsg to the test: plays its peer, honest ones and faulty ones, and looks at
//! the process from outside.
//!
//! - `cases` is what is tried, each named after the section of `PROTOCOL.md` that asks for it,
//! - `session` is one case: a process under test, what it is sent, and what it answers,
//! - `message` is what is sent and compared,
//! - `process` is what the system tells of the process under test,
//! - `verdict` is how a case ended,
//! - `stock` is what libraries as they are known to fail.

mod cases;
mod message;
mod process;
mod session;
mod stock;
mod verdict;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use imsg_os::{Any, Endian};

use self::cases::Case;
use self::process::Plan;
use self::session::Session;
use self::stock::Stock;
use self::verdict::{Failure, Verdict};
use crate::complain::complain;
use crate::seconds::seconds;
use crate::stdio;
use crate::text::Escaped;

/// Puts an implementation of imsg, in whatever language, to the test.
///
/// PROGRAM is started anew for each case, and has to do this:
///
///   1. It finds a connected stream socket on descriptor 3, and reads imsg messages from it: in this
///      machine's byte order, of the dialect in the variable IMSG_DIALECT, which is "classic" or
///      "modern", and of 16384 bytes at most, header included. It allows descriptors.
///   2. It sends each message back, in order: the same type, id, pid, payload and descriptor. A marked
///      message whose descriptor is missing goes back without a mark. (A pid of 0 may become its own.)
///   3. It closes each descriptor that it got, once that is sent.
///   4. At the end of the stream it sends what is left, and exits with status 0.
///   5. When the stream is broken it sends back what came before, and exits with another status.
///   6. It holds less than 4 MiB for a peer that does not read, and then waits for it.
///   7. It does not limit the time that the peer may take.
///
/// Each case is a line: how it ended, the section of PROTOCOL.md that asks for it, and, where it
/// failed, what was expected and what came. It ended
///
///   ok          as it has to
///   wrong file  a message came back with the descriptor of another one
///   lost        a message, or its descriptor, did not come back, or not as it was
///   leaked      the process kept descriptors or memory
///   refused     it exited before it had to
///   accepted    it went on although the stream was broken, or exited as if it were not
///   hung        nothing more came
///   crashed     a signal ended it
///   untold      not as it should, but no receiver for peers of both generations can tell
///   known       it failed as the library that --stock names is known to
///
/// Exit status: 0 if none failed, 1 if some did, 2 if the arguments make no sense.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// The dialect that PROGRAM is to speak
    #[arg(long, value_enum, default_value_t = Dialect::Modern)]
    dialect: Dialect,

    /// The C library that PROGRAM uses as it is: what this is known to fail is no failure
    #[arg(long, value_name = "NAME", value_enum)]
    stock: Option<Stock>,

    /// Print a JSON object for each case, in place of the line
    #[arg(long)]
    json: bool,

    /// Show what PROGRAM says on standard error
    #[arg(short)]
    verbose: bool,

    /// Only the cases with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// How long PROGRAM may do nothing of what it has to
    #[arg(long, value_parser = seconds, value_name = "SECONDS", default_value = "10")]
    patience: Duration,

    /// The program under test, and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true)]
    program: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dialect {
    Classic,
    Modern,
}

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain("conform", error);
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases, and says whether none failed.
fn run(arguments: &Arguments) -> io::Result<bool> {
    // Whoever started this may ignore it, and then nobody is told how a process ended.
    signal_hook::flag::register(libc::SIGCHLD, Arc::default())?;
    let (dialect, name) = match arguments.dialect {
        Dialect::Classic => (Any::Classic(Endian::NATIVE), "classic"),
        Dialect::Modern => (Any::Modern(Endian::NATIVE), "modern"),
    };
    let plan = Plan {
        program: &arguments.program,
        dialect,
        name,
        patience: arguments.patience,
        verbose: arguments.verbose,
    };
    let only = arguments.only.as_deref().unwrap_or_default();
    let mut out = stdio::output();
    let mut all_passed = true;
    for case in cases::all(dialect).into_iter().filter(|case| case.title().contains(only)) {
        let ended = Session::start(&plan)?.run(&case)?;
        let verdict = judge(&case, &ended, arguments.stock);
        all_passed &= verdict.passes();
        let line = if arguments.json {
            object(&case, name, verdict, ended.as_ref().err())
        } else {
            line(&case, verdict, ended.as_ref().err())
        };
        out.write_all(line.as_bytes())
            .map_err(|error| io::Error::new(error.kind(), format!("cannot print: {error}")))?;
    }
    Ok(all_passed)
}

/// What a case comes to.
fn judge(case: &Case, ended: &Result<(), Failure>, stock: Option<Stock>) -> Verdict {
    let Err(failure) = ended else { return Verdict::Ok };
    if case.cannot_be_told && failure.verdict.may_be_untold() {
        return Verdict::Untold;
    }
    match stock {
        Some(stock) if stock.fails(case, failure.verdict) => Verdict::Known,
        _ => failure.verdict,
    }
}

fn line(case: &Case, verdict: Verdict, failure: Option<&Failure>) -> String {
    let title = case.title();
    match failure {
        None => format!("{:<10}  {title}\n", verdict.name()),
        Some(Failure { expected, got, .. }) => {
            format!("{:<10}  {title}: expected {expected}; {}\n", verdict.name(), Escaped(got))
        }
    }
}

/// The order of the keys is part of the format.
fn object(case: &Case, dialect: &str, verdict: Verdict, failure: Option<&Failure>) -> String {
    let (section, name, verdict) = (case.section, &case.name, verdict.name());
    let mut object = format!(
        r#"{{"section":"{section}","case":"{name}","dialect":"{dialect}","verdict":"{verdict}""#
    );
    if let Some(Failure { expected, got, .. }) = failure {
        let (expected, got) = (crate::text::quoted(expected), crate::text::quoted(got));
        object += &format!(r#","expected":{expected},"got":{got}"#);
    }
    object + "}\n"
}
