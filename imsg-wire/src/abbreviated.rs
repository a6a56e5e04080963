//! How bytes are shown.

use core::fmt;

/// Bytes as they are shown in `Debug` output: how many there are. What they are may be a secret,
/// and `Debug` output ends up in logs.
pub(crate) struct Abbreviated<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Abbreviated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
