//! A privilege-separated program: the parent opens files and looks at none of their bytes, the
//! worker looks at the bytes and can open no file.
//!
//! ```text
//! cargo run --release -p imsg-os --features process --example privsep -- README.md /etc/passwd
//! ```
//!
//! - `protocol` is what the two say to each other,
//! - `parent` starts the worker, passes it open files and prints what it answers,
//! - `worker` gives up its privileges, and then takes requests,
//! - `sandbox` is how it gives them up.

#![deny(unsafe_code)]

#[path = "../shared/layers.rs"]
mod layers;
mod parent;
#[path = "../shared/patient.rs"]
mod patient;
mod protocol;
#[path = "../shared/sandbox.rs"]
mod sandbox;
mod worker;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use imsg_os::{Any, Endian};
use nix::fcntl::OFlag;

/// Prints size, lines and SHA-256 of files, which a process without privileges reads.
///
/// The program starts itself a second time, as its worker. The worker closes all descriptors but
/// its standard ones and the channel to its parent, becomes the user nobody if it was root, and on
/// Linux forgoes new privileges and shuts itself off from the file system, and from the network as
/// far as this kernel can, with Landlock. Only then does it read its first message, and the program
/// says what is in force.
///
/// The parent opens each file and passes the descriptor on. The worker reads the file and answers.
/// It also tries to open the file itself: "refused" is how it should be. Without Landlock, it opens
/// what its user may read.
///
/// Exit status: 0 if all files were read, 1 if some could not be, 2 if the work could not be
/// finished, as when the worker dies.
#[derive(Parser)]
#[command(name = "privsep", verbatim_doc_comment)]
struct Arguments {
    /// The dialect of imsg that parent and worker speak
    #[arg(long, value_enum, default_value_t = Dialect::Modern)]
    dialect: Dialect,

    /// Be the worker; the program starts itself so, with the channel on descriptor 3
    #[arg(long, hide = true, conflicts_with = "files")]
    worker: bool,

    /// The files to read
    #[arg(value_name = "FILE", required_unless_present = "worker")]
    files: Vec<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dialect {
    Classic,
    Modern,
}

impl Dialect {
    fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Modern => "modern",
        }
    }
}

impl From<Dialect> for Any {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Classic => Self::Classic(Endian::NATIVE),
            Dialect::Modern => Self::Modern(Endian::NATIVE),
        }
    }
}

fn main() -> ExitCode {
    let Arguments { dialect, worker, files } = Arguments::parse();
    let (name, result) = if worker {
        ("privsep worker", worker::run(dialect))
    } else {
        ("privsep", parent::run(dialect, &files))
    };
    result.unwrap_or_else(|error| {
        complain(format_args!("{name}: {error}"));
        ExitCode::from(2)
    })
}

/// Opens a file for reading without waiting: to open a FIFO takes until somebody writes to it.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    File::options().read(true).custom_flags(flags.bits()).open(path)
}

/// Is `eprintln`, but does not panic when nobody listens.
fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}
