//! Complaints to whoever may listen.

use std::fmt::Display;
use std::io::{self, Write};

use crate::stdio::Stdio;
use crate::text::Escaped;

/// Says something on standard error, in the name of a subcommand, on one line in which no terminal
/// finds anything to obey. Unlike `eprintln`, it does not panic when nobody listens.
pub(crate) fn complain(subcommand: &str, what: impl Display) {
    // At once, so that no other program's words come in between.
    let line = format!("imsg {subcommand}: {}\n", Escaped(what));
    let _ = Stdio(io::stderr()).write_all(line.as_bytes());
}
