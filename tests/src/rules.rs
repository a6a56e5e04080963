//! Which rule is right for which sender, on which kernel.

use imsg_wire::Pairing;
use imsg_wire::testing::Kernel;

/// How a sender attaches descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// A `sendmsg` begins with the marked message (imsg-buffer.c from 2021 on, and ours).
    Begins,
    /// A `sendmsg` ends with it (before that).
    Ends,
    /// A `sendmsg` is one message, and nothing is marked (the crate `privsep`).
    Unmarked,
}

/// Whether a rule gives each descriptor of an honest sender to its own message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It does.
    Right,
    /// It does not, as this schedule shows.
    Wrong(Counterexample),
}

/// An honest schedule that a rule gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counterexample {
    /// A message without a descriptor, and the marked one behind it, are sent together, and read
    /// one by one.
    ReadApart,
    /// A message with a descriptor, and one without behind it, are sent together and read together.
    SentTogether,
    /// The same two are sent one by one and read together.
    ReadTogether,
    /// A message with a descriptor is sent and read alone.
    Alone,
}

/// What is claimed of a rule for a generation of senders on a kernel.
#[must_use]
pub fn claim(sender: Generation, rule: Pairing, kernel: Kernel) -> Claim {
    use Claim::{Right, Wrong};
    use Counterexample::{Alone, ReadApart, ReadTogether, SentTogether};

    match (sender, rule, kernel) {
        (Generation::Begins, Pairing::Exact | Pairing::Ordered, _) => Right,
        (Generation::Begins, Pairing::Unmarked, _) => Wrong(SentTogether),

        (Generation::Ends, Pairing::Ordered, _) => Right,
        (Generation::Ends, Pairing::Exact | Pairing::Unmarked, _) => Wrong(ReadApart),

        (Generation::Unmarked, Pairing::Exact | Pairing::Ordered, _) => Wrong(Alone),
        // Where a read ends behind the message.
        (Generation::Unmarked, Pairing::Unmarked, Kernel::Linux | Kernel::Gvisor) => Right,
        (Generation::Unmarked, Pairing::Unmarked, _) => Wrong(ReadTogether),
    }
}

/// The kernels on which a rule is right for a generation of senders.
#[must_use]
pub fn right_on(sender: Generation, rule: Pairing) -> Vec<Kernel> {
    let right = |kernel: &Kernel| claim(sender, rule, *kernel) == Claim::Right;
    Kernel::ALL.into_iter().filter(right).collect()
}
