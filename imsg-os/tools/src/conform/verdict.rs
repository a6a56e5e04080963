//! How a case ended.

/// One word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ok,
    WrongFile,
    Lost,
    Leaked,
    Refused,
    Accepted,
    Hung,
    Crashed,
    Untold,
    Known,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::WrongFile => "wrong file",
            Self::Lost => "lost",
            Self::Leaked => "leaked",
            Self::Refused => "refused",
            Self::Accepted => "accepted",
            Self::Hung => "hung",
            Self::Crashed => "crashed",
            Self::Untold => "untold",
            Self::Known => "known",
        }
    }

    pub(crate) fn passes(self) -> bool {
        matches!(self, Self::Ok | Self::Untold | Self::Known)
    }

    /// Whether a receiver that cannot tell what its peer does wrong may end so.
    pub(crate) fn may_be_untold(self) -> bool {
        matches!(self, Self::WrongFile | Self::Accepted | Self::Lost)
    }
}

/// Why a case is not as it has to be.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) verdict: Verdict,
    pub(crate) expected: String,
    /// What was seen instead, as a sentence without its end.
    pub(crate) got: String,
}

impl Failure {
    pub(crate) fn new(
        verdict: Verdict,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self { verdict, expected: expected.into(), got: got.into() }
    }
}
