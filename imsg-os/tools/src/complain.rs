//! Complaints to whoever may listen.

use std::fmt::Display;
use std::io::{self, Write};

/// Says something on standard error, in the name of a subcommand. Unlike `eprintln`, it does not
/// panic when nobody listens.
pub(crate) fn complain(subcommand: &str, what: impl Display) {
    // At once, so that no other program's words come in between.
    let line = format!("imsg {subcommand}: {what}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}
