//! What C libraries, as they are, fail: seen with a program for each that does what is asked for with
//! it, and ignores `SIGPIPE`.

use clap::ValueEnum;

use super::cases::Case;
use super::verdict::Verdict;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Stock {
    /// What OpenBGPD 7.7 bundles, which is classic: imsg.c 1.17 of 2022
    #[value(name = "openbgpd-7.7")]
    Classic,
    /// What OpenBGPD 8.8 bundles, which is modern: imsg.c 1.38 of 2024
    #[value(name = "openbgpd-8.8")]
    Modern,
}

impl Stock {
    /// Whether it is known to fail a case in this way.
    pub(crate) fn fails(self, case: &Case, verdict: Verdict) -> bool {
        let known = match self {
            Self::Classic => CLASSIC,
            Self::Modern => MODERN,
        };
        let is_it = |known: &&(&str, Verdict)| case.name.starts_with(known.0) && known.1 == verdict;
        EITHER.iter().chain(known).any(|known| is_it(&known))
    }
}

/// How the names of cases begin, and how they end.
type Known = [(&'static str, Verdict)];

const EITHER: &Known = &[
    ("an end inside a ", Verdict::Accepted),
    ("two descriptors with one message", Verdict::Accepted),
    ("253 descriptors with one message", Verdict::Accepted),
    ("a descriptor that is left at the end", Verdict::Accepted),
];

const CLASSIC: &Known = &[("five hundred descriptors without a mark", Verdict::Leaked)];

const MODERN: &Known = &[
    // What came before in the same read is not delivered.
    ("a length of ", Verdict::Refused),
    ("every short send of a marked header", Verdict::Lost),
    ("marked headers that straddle a read of 6553", Verdict::WrongFile),
    ("the two of them in one read", Verdict::Accepted),
    ("a descriptor without a mark", Verdict::Accepted),
    ("a descriptor in the middle", Verdict::Accepted),
    ("five hundred descriptors without a mark", Verdict::Accepted),
];
