//! Complaints to whoever may listen.

use std::fmt::Display;
use std::io::{self, Write};

/// Is `eprintln`, but does not panic when nobody listens.
pub(crate) fn complain(program: &str, what: impl Display) {
    let _ = writeln!(io::stderr(), "{program}: {what}");
}
