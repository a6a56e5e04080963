//! Prints the messages of a captured stream, one a line.
//!
//! ```sh
//! cargo run -p imsg-wire --example parse_capture -- classic little tests/vectors/classic-le.bin
//! ```
//!
//! What parses, in `list.rs`, needs neither an allocator nor a system, and could be part of any
//! program; what reads the file and prints, here, is for a computer that has both.

#![no_std]

extern crate std;

mod list;

use std::boxed::Box;
use std::io::Write;
use std::process::ExitCode;
use std::string::String;
use std::vec::Vec;
use std::{eprintln, format};

use imsg_wire::{Any, Endian, Error};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parse_capture: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dialect, order, path] = &arguments[..] else {
        return Err("usage: parse_capture classic|modern little|big FILE".into());
    };
    let order = match order.as_str() {
        "little" => Endian::Little,
        "big" => Endian::Big,
        other => return Err(format!("{other} is not a byte order").into()),
    };
    let dialect = match dialect.as_str() {
        "classic" => Any::Classic(order),
        "modern" => Any::Modern(order),
        other => return Err(format!("{other} is not a dialect").into()),
    };

    let capture = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let mut out = std::io::stdout().lock();
    for line in list::list(&capture, dialect) {
        match line {
            Ok(line) => writeln!(out, "{line}")?,
            Err(Error::Length { offset, error }) => {
                return Err(format!(
                    "{path}: the message at byte {offset} says it has {} bytes, which is not \
                     between {} and {}: corrupted, or another dialect or byte order?",
                    error.len, error.min, error.max,
                )
                .into());
            }
            Err(Error::Truncated { offset, have, .. }) => {
                return Err(format!(
                    "{path}: the capture ends {have} bytes into the message at byte {offset}"
                )
                .into());
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(())
}
