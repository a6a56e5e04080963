//! The command `imsg`: looks at streams of messages, stands between programs that exchange them, and
//! talks to tmux.
//!
//! - `dump` decodes a captured stream,
//! - `relay` stands between clients and a server, shows what they say, and translates,
//! - `tmux` runs a command on a tmux server,
//! - `pages` writes the manual pages and the shell completions of all.
//!
//! They share `print`, which writes messages down as text or as JSON, `names` of message types,
//! `dialect`, the names of dialects, `probe`, which asks a tmux server for its dialect, and
//! `complain`.

#![forbid(unsafe_code)]

mod complain;
mod dialect;
mod dump;
mod names;
mod pages;
mod print;
mod probe;
mod relay;
mod tmux;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    #[command(hide = true)]
    Pages(pages::Arguments),
}

fn main() -> ExitCode {
    match Program::parse().command {
        Command::Dump(arguments) => dump::main(&arguments),
        Command::Relay(arguments) => relay::main(arguments),
        Command::Tmux(arguments) => tmux::main(&arguments),
        Command::Pages(arguments) => pages::main(&arguments),
    }
}
