//! What C libraries as they are known to fail: seen with programs that use them.

use clap::ValueEnum;

use super::cases::Case;
use super::verdict::Verdict;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Stock {
    /// imsg-compat 8.0.0, and libutil up to OpenBSD 7.6
    ImsgCompat,
    /// OpenBSD's libutil since 7.7
    Libutil,
}

impl Stock {
    /// Whether it is known to fail a case in this way.
    pub(crate) fn fails(self, case: &Case, verdict: Verdict) -> bool {
        let known = match self {
            Self::ImsgCompat => IMSG_COMPAT,
            Self::Libutil => LIBUTIL,
        };
        known.iter().any(|(name, how)| *name == case.name && *how == verdict)
    }
}

const IMSG_COMPAT: &[(&str, Verdict)] = &[];

const LIBUTIL: &[(&str, Verdict)] = &[];
