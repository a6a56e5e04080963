//! Writes the manual pages and the completions of shells, from what the arguments say of themselves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::Program;
use crate::complain::complain;

/// Writes the manual pages and the completions of shells into a directory.
///
/// They are made from the same description as --help: imsg.1 and a page for each subcommand, and a
/// file for each shell.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Where to write them; it is made if it is not there
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    match write(&arguments.directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain("pages", format_args!("{}: {error}", arguments.directory.display()));
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Program::command(), directory)?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut Program::command(), "imsg", directory)?;
    }
    Ok(())
}
