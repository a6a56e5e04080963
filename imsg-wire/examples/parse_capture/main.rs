//! Prints the messages of a captured stream, one a line.
//!
//! ```sh
//! cargo run -p imsg-wire --example parse_capture -- classic little tests/vectors/classic-le.bin
//! ```
//!
//! What parses, in `list.rs`, uses only `core`, and could be part of any program; what reads the
//! file and prints, here, is for a computer that has an allocator and an operating system.

#![no_std]

extern crate std;

mod list;

use std::boxed::Box;
use std::ffi::OsString;
use std::format;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::vec::Vec;

use imsg_wire::{Any, BadLength, Endian, Error};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Unlike `eprintln`, this does not panic when nobody listens.
            let _ = writeln!(std::io::stderr(), "parse_capture: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [dialect, order, path] = &arguments[..] else {
        return Err("usage: parse_capture classic|modern little|big FILE".into());
    };
    let order = match order.to_str() {
        Some("little") => Endian::Little,
        Some("big") => Endian::Big,
        _ => return Err(format!("{order:?} is not a byte order").into()),
    };
    let dialect = match dialect.to_str() {
        Some("classic") => Any::Classic(order),
        Some("modern") => Any::Modern(order),
        _ => return Err(format!("{dialect:?} is not a dialect").into()),
    };

    // As `Debug` does, so that no terminal obeys what is in it.
    let file = format!("{path:?}");
    let capture = std::fs::read(path).map_err(|error| format!("{file}: {error}"))?;
    let mut out = std::io::stdout().lock();
    let mut printed = Ok(());
    let listed = list::list(&capture, dialect, |line| {
        if printed.is_ok() {
            printed = print(&mut out, &format!("{line}\n"));
        }
    });
    match printed {
        // Nobody listens any more, as with `head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    match listed {
        Err(Error::Length { offset, error: BadLength { len, min, max } }) => Err(format!(
            "{file}: the message at byte {offset} says that it has {len} bytes, which is not \
             between {min} and {max}: is this the right dialect and byte order?"
        )
        .into()),
        Err(Error::Truncated { offset, have, need }) => Err(format!(
            "{file}: of the message at byte {offset}, {have} of {need} bytes are there"
        )
        .into()),
        listed => Ok(listed?),
    }
}

/// Prints a line, at once or, where somebody made the output non-blocking, bit by bit.
fn print(out: &mut impl Write, line: &str) -> std::io::Result<()> {
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(written) => rest = &rest[written..],
            // It takes nothing now.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
