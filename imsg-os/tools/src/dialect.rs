//! The names of the dialects.

use imsg_os::Any;

/// The name of a dialect; without one, headers have not told it.
pub(crate) fn name(dialect: Option<Any>) -> &'static str {
    match dialect {
        Some(Any::Classic(_)) => "classic",
        Some(Any::Modern(_)) => "modern",
        None => "either",
    }
}
