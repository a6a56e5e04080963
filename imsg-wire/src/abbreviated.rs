//! How bytes are shown.

use core::fmt;

/// Bytes as they are shown in `Debug` output: the first few, and how many there are.
pub(crate) struct Abbreviated<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Abbreviated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        write!(f, "{} bytes", self.0.len())?;
        if let Some(byte) = self.0.first() {
            write!(f, ": {byte:02x}")?;
        }
        for byte in self.0.iter().take(SHOWN).skip(1) {
            write!(f, " {byte:02x}")?;
        }
        if self.0.len() > SHOWN { f.write_str(" …") } else { Ok(()) }
    }
}
