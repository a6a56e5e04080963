//! The command `imsg`: looks at streams of messages, stands between programs that exchange them, and
//! talks to tmux.
//!
//! - `dump` decodes a captured stream,
//! - `relay` stands between clients and a server, shows what they say, and translates,
//! - `tmux` runs a command on a tmux server,
//! - `conform` puts an implementation to the test,
//! - `pages` writes the manual pages and the shell completions of all.
//!
//! They share `print`, which writes messages down as text or as JSON, `names` of message types,
//! `dialect`, the names of dialects, `probe`, which asks a tmux server for its dialect, `text` of
//! others, `stdio` and `complain`.

#![forbid(unsafe_code)]

mod complain;
#[cfg(target_os = "linux")]
mod conform;
mod dialect;
mod dump;
mod names;
mod pages;
mod print;
mod probe;
mod relay;
mod seconds;
mod stdio;
mod text;
mod tmux;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::complain::complain;
use crate::stdio::Stdio;
use crate::text::Escaped;

/// Looks at the messages that programs with separated privileges exchange.
///
/// imsg is how OpenBSD's daemons, tmux and others talk between their own processes: messages with a
/// header of 16 bytes, and perhaps a file descriptor, over a local stream socket.
#[derive(Parser)]
#[command(name = "imsg", version, verbatim_doc_comment)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Dump(dump::Arguments),
    Relay(relay::Arguments),
    Tmux(tmux::Arguments),
    #[cfg(target_os = "linux")]
    Conform(conform::Arguments),
    #[command(hide = true)]
    Pages(pages::Arguments),
}

fn main() -> ExitCode {
    // Past a limit for the size of files, a write is to fail, and not to end this program.
    let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
    match Program::try_parse().map(|program| program.command) {
        Ok(Command::Dump(arguments)) => dump::main(&arguments),
        Ok(Command::Relay(arguments)) => relay::main(arguments),
        Ok(Command::Tmux(arguments)) => tmux::main(&arguments),
        #[cfg(target_os = "linux")]
        Ok(Command::Conform(arguments)) => conform::main(&arguments),
        Ok(Command::Pages(arguments)) => pages::main(&arguments),
        Err(answer) => explain(&answer),
    }
}

/// Prints what was asked for in place of a subcommand, or what is wrong with the arguments.
fn explain(answer: &clap::Error) -> ExitCode {
    let text = answer.render().to_string();
    if answer.use_stderr() {
        // It repeats arguments, which can be names that others gave.
        let lines = text.lines().map(|line| format!("{}\n", Escaped(line)));
        let _ = Stdio(io::stderr()).write_all(lines.collect::<String>().as_bytes());
        return ExitCode::from(2);
    }
    match stdio::output().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain("help", format_args!("cannot print: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
