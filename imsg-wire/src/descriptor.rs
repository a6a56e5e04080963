//! Which message does a descriptor belong to? The pairing rules.
//!
//! A message carries at most one descriptor. Its header is *marked*, and the descriptor itself
//! travels beside the bytes, as `SCM_RIGHTS` on the `sendmsg` that sends them. The receiver gets
//! the descriptor together with a *range* of stream offsets, those of the bytes that the same
//! `recvmsg` returned, and has to find the marked header that it belongs to.
//!
//! # What kernels do
//!
//! - Descriptors arrive with the first byte of their `sendmsg`, also when it was sent or is read
//!   only in part.
//! - Linux ends a `recvmsg` behind the first socket buffer that carried descriptors, and merges
//!   plain data before it into the read. A large `sendmsg` is cut into several socket buffers, and
//!   the descriptors ride on the first. The BSDs end the read before data that carries
//!   descriptors, and may merge plain data behind it.
//! - A process that can have no more descriptors loses what comes. Linux and gVisor say so beside
//!   the bytes. On a BSD the read fails, and the next one brings the bytes, with nothing beside
//!   them. (On FreeBSD from 15 on, bytes may be lost as well, so there the stream is broken.)
//! - FreeBSD from 15 on can queue a descriptor without a byte: where the room left is just that of
//!   the control message. A sender that does not wait is told that nothing was sent, and sends the
//!   same again. The receiver gets the descriptor with a read of no bytes, or twice, or both.
//! - So what comes without a byte, be it a descriptor or the news that one was lost, belongs to the
//!   bytes that come next: it was first in the queue, and its `sendmsg` goes on with those. If they
//!   bring a descriptor themselves, the `sendmsg` was tried again, and both are the same file; the
//!   one with the bytes stays, and the other is closed. As that came with no byte, no message is
//!   given a file that was sent with another one. Something lost before bytes that bring something
//!   themselves is what no kernel does. It counts as several, as nobody knows whose they are.
//! - So a range has the descriptors of at most one `sendmsg`, and contains the first byte of it.
//!
//! # What senders do
//!
//! - *Begins* (imsg-buffer.c 1.13 of 2021, and everything newer): a `sendmsg` with a descriptor
//!   begins with the marked message that owns it. Unmarked messages may follow in it; another
//!   marked one does not.
//! - *Ends* (before that): the marked message is the last of its `sendmsg`, so that the descriptor
//!   arrives with the first byte of whatever was queued before it. After a short send, which took
//!   the descriptor with its first bytes, the next `sendmsg` may bring the next descriptor while
//!   the first marked header is still to come.
//!
//! # The rules
//!
//! [`Pairing::Exact`] is right for *begins*, on each of these kernels. The descriptor's `sendmsg`
//! begins with the marked header, and the range contains its first byte: so that header starts in
//! the range, and lies wholly in it or straddles its end. No other marked header starts there. Each
//! begins a `sendmsg` of its own and brings a descriptor with its first byte, so a range that
//! contains two such bytes would have two; and no kernel returns the descriptors of two
//! `sendmsg` in one read: Linux ends the read behind the first, a BSD before the second. A BSD that
//! has lost the second one has failed the read that would begin with it, before which this one
//! ended; so what was lost leaves no marked header behind in the range of another. Two whole
//! marked headers are therefore ambiguous, and none at all leaves the descriptor unclaimed; both
//! show that the peer broke the rule. It cannot see that a descriptor was attached to an unmarked
//! message, or to the middle of one, when a marked message that has none lies in the same range.
//!
//! [`Pairing::Ordered`] is right for both, on every kernel that keeps the order of a stream and
//! counts what was lost. A
//! `sendmsg` carries at most one descriptor: that of the first marked message which has not sent
//! its own yet. Its first byte is at or before the first byte of that message: the same for
//! *begins*, an earlier one for *ends*, also after a short send. So descriptors arrive in the order
//! of their headers, the k-th no later than the first byte of the k-th header, however reads are
//! cut or merged; the next marked header owns the oldest descriptor that has come by its first
//! byte, and if there is none, the sender attached none. One that was lost has its place in that
//! order, and a marked header finds there that its own is gone; were it left out, all that follow
//! would be shifted. And a `sendmsg` that was tried again has one place, not two. An honest *ends* sender can still be
//! refused, with [`TooManyDescriptors`](crate::Error::TooManyDescriptors): after as many short
//! sends as the queue holds, all before one of their messages is complete. The rule cannot see that
//! a descriptor was sent without a mark: the next marked message gets it, and one is left over in
//! the end. As descriptors are counted from the first one, they must be allowed before anything is
//! read: one that the kernel closed before that, and whose header comes later, shifts all that
//! follow.
//!
//! [`Pairing::Unmarked`] is for peers that never mark, such as the crate `privsep`: their
//! `sendmsg` is one message, so on Linux and gVisor, where a read ends behind it, the descriptor
//! belongs to the last message that starts in its range. It is wrong on systems that merge later
//! data into the read. It cannot see anything wrong with the sender but a range in which no message starts.
//!
//! A mismatch within one range can be invisible to any receiver: one message is marked and has no
//! descriptor, another has one and is not marked, and both are read at once.
//!
//! A header whose length is out of range is none: nothing behind it is looked at, and it ends the
//! stream.
//!
//! The outcome of each rule depends on the bytes and the ranges alone, never on when the program
//! takes its messages.

use core::error;
use core::fmt;
use core::mem;

use heapless::Deque;

/// By which rule received descriptors find their messages; see the
/// [module documentation](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// A descriptor belongs to the one marked message whose header starts in its range.
    Exact,
    /// A descriptor belongs to the next marked message that has not got one.
    Ordered,
    /// A descriptor belongs to the last message that starts in its range, marked or not. Only for
    /// Linux.
    Unmarked,
}

/// What came with the bytes of one read, beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ancillary<F> {
    /// Nothing.
    Nothing,
    /// One descriptor.
    One(F),
    /// More than one descriptor. imsg never passes several at once; close them.
    Several,
    /// The kernel had descriptors for this read and dropped them all. Linux says `MSG_CTRUNC` then,
    /// gVisor gives an `SCM_RIGHTS` message without any, and on a BSD the read before failed.
    Dropped,
}

impl<F> Ancillary<F> {
    /// What belongs to the bytes that `next` came with, when this came ahead of them.
    fn followed_by(self, next: Self) -> Self {
        match (self, next) {
            (ahead, Self::Nothing) => ahead,
            // The same file once more.
            (Self::Nothing | Self::One(_), next) => next,
            (Self::Dropped | Self::Several, _) => Self::Several,
        }
    }
}

/// What the sender attached to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Descriptor<F> {
    /// Nothing: the message is not marked.
    None,
    /// A descriptor.
    Here(F),
    /// The message is marked, but there is no descriptor.
    Missing(Missing),
}

impl<F> Descriptor<F> {
    /// Takes the descriptor out, if it is here, and leaves [`Descriptor::None`] in its place.
    ///
    /// What is [missing](Descriptor::Missing) stays so, and `None` is returned for it too. So look
    /// for that before the result goes into another message;
    /// [`SendBuf::forward`](crate::SendBuf::forward) does.
    pub fn take(&mut self) -> Option<F> {
        match mem::replace(self, Self::None) {
            Self::Here(descriptor) => Some(descriptor),
            missing => {
                *self = missing;
                None
            }
        }
    }

    /// Takes the descriptor out, of a message that has to have one.
    ///
    /// ```
    /// use imsg_wire::{Descriptor, DescriptorError, Missing};
    ///
    /// let mut descriptor = Descriptor::Here("file");
    /// assert_eq!(descriptor.take_required(), Ok("file"));
    /// assert_eq!(descriptor.take_required(), Err(DescriptorError::NotSent));
    ///
    /// let mut descriptor = Descriptor::<&str>::Missing(Missing::Dropped);
    /// let error = DescriptorError::Missing(Missing::Dropped);
    /// assert_eq!(descriptor.take_required(), Err(error));
    /// ```
    ///
    /// # Errors
    ///
    /// [`DescriptorError::Missing`] when it did not arrive, [`DescriptorError::NotSent`] when the
    /// message has none; it stays as it is then.
    pub fn take_required(&mut self) -> Result<F, DescriptorError> {
        self.take_optional()?.ok_or(DescriptorError::NotSent)
    }

    /// Takes the descriptor out, of a message that may have one.
    ///
    /// # Errors
    ///
    /// [`DescriptorError::Missing`] when it has one that did not arrive; it stays as it is then.
    pub fn take_optional(&mut self) -> Result<Option<F>, DescriptorError> {
        match self {
            Self::Missing(missing) => Err(DescriptorError::Missing(*missing)),
            _ => Ok(self.take()),
        }
    }

    /// Checks that the message has none.
    ///
    /// # Errors
    ///
    /// [`DescriptorError::NotExpected`] when the sender attached one, whether it arrived or not.
    pub fn expect_none(&self) -> Result<(), DescriptorError> {
        match self {
            Self::None => Ok(()),
            _ => Err(DescriptorError::NotExpected),
        }
    }
}

/// A message has not the descriptor that it should have, or has one that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DescriptorError {
    /// The message is marked, and its descriptor is missing.
    Missing(Missing),
    /// The message is not marked, and needs a descriptor.
    NotSent,
    /// The message is marked, and may not have a descriptor.
    NotExpected,
}

impl error::Error for DescriptorError {}

impl fmt::Display for DescriptorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(missing) => missing.fmt(f),
            Self::NotSent => f.write_str("the message needs a descriptor and has none"),
            Self::NotExpected => f.write_str("the message has a descriptor that is not expected"),
        }
    }
}

/// Why a marked message has no descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// Passing was not allowed yet when the message arrived, so the descriptor was not asked for;
    /// see [`RecvBuf::allow_descriptors`](crate::RecvBuf::allow_descriptors).
    NotAllowed,
    /// The kernel dropped it: this process has no free descriptor (`RLIMIT_NOFILE`), or a security
    /// check forbids passing this one.
    Dropped,
    /// The sender attached none.
    NotSent,
}

impl error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => "descriptors were not allowed yet",
            Self::Dropped => "the kernel dropped the descriptor",
            Self::NotSent => "the sender attached no descriptor",
        })
    }
}

/// A peer broke the pairing rule that it is held to; see the [module
/// documentation](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Violation {
    /// What was broken.
    pub fault: Fault,
    /// The stream offset before which the violation is reported: that of the first marked message
    /// it affects or, when there is none, the end of the read that brought the descriptor.
    pub offset: u64,
}

/// What a peer did wrong with descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// One descriptor came with several marked headers.
    Ambiguous,
    /// A descriptor came that no message claims.
    Unclaimed,
    /// Several descriptors came at once.
    Several,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset;
        match self.fault {
            Fault::Ambiguous => write!(
                f,
                "one descriptor came with more than one marked message, the first at offset {offset}"
            ),
            Fault::Unclaimed => {
                write!(f, "a descriptor came before offset {offset} that no message claims")
            }
            Fault::Several => write!(
                f,
                "several descriptors came at once, for or before the message at offset {offset}"
            ),
        }
    }
}

impl error::Error for Violation {}

/// A range of stream offsets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// A descriptor that arrived with `range`, and is still to find its message; `None` for one that
/// the kernel dropped.
struct Unpaired<F> {
    range: StreamRange,
    descriptor: Option<F>,
}

/// The pairing machine: takes descriptors with their ranges, and messages in stream order.
pub(crate) struct Descriptors<F, const N: usize> {
    rule: Pairing,
    /// The stream offset from which on passing is allowed.
    allowed_from: Option<u64>,
    /// In the order of their ranges, which do not overlap and are not empty.
    unpaired: Deque<Unpaired<F>, N>,
    /// What came without a byte, and belongs to the next ones.
    ahead: Ancillary<F>,
    /// The first range that came with several descriptors. What arrives behind it is dropped: no
    /// message that could own it will be delivered.
    several_at: Option<StreamRange>,
}

impl<F, const N: usize> Descriptors<F, N> {
    pub(crate) fn new(rule: Pairing) -> Self {
        const {
            // While one descriptor waits for the rest of its header, the next one may arrive.
            assert!(N >= 2, "a receive buffer needs room for two descriptors at least");
        }
        Self {
            rule,
            allowed_from: None,
            unpaired: Deque::new(),
            ahead: Ancillary::Nothing,
            several_at: None,
        }
    }

    pub(crate) fn set_rule(&mut self, rule: Pairing) {
        self.rule = rule;
    }

    pub(crate) fn allow_from(&mut self, offset: u64) {
        self.allowed_from.get_or_insert(offset);
    }

    pub(crate) fn is_allowed(&self) -> bool {
        self.allowed_from.is_some()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unpaired.is_full()
    }

    /// Whether a descriptor is here.
    pub(crate) fn holds_any(&self) -> bool {
        matches!(self.ahead, Ancillary::One(_))
            || self.unpaired.iter().any(|unpaired| unpaired.descriptor.is_some())
    }

    /// Forgets the stream, but not what was set for it.
    pub(crate) fn reset(&mut self) {
        self.clear();
        self.several_at = None;
        self.allowed_from = self.allowed_from.map(|_| 0);
    }

    pub(crate) fn clear(&mut self) {
        self.unpaired.clear();
        self.ahead = Ancillary::Nothing;
    }

    /// Records what a read brought beside the bytes of `range`, or ahead of the next ones. Gives a
    /// descriptor back when the queue is full.
    pub(crate) fn arrived(
        &mut self,
        range: StreamRange,
        what: Ancillary<F>,
    ) -> Result<(), Ancillary<F>> {
        if self.several_at.is_some() {
            return Ok(());
        }
        let what = mem::replace(&mut self.ahead, Ancillary::Nothing).followed_by(what);
        if range.start == range.end {
            self.ahead = what;
            return Ok(());
        }
        let descriptor = match what {
            Ancillary::Nothing => return Ok(()),
            Ancillary::Several => {
                self.several_at = Some(range);
                return Ok(());
            }
            Ancillary::One(descriptor) => Some(descriptor),
            Ancillary::Dropped => None,
        };
        let unpaired = Unpaired { range, descriptor };
        self.unpaired.push_back(unpaired).map_err(|unpaired| match unpaired.descriptor {
            Some(descriptor) => Ancillary::One(descriptor),
            None => Ancillary::Dropped,
        })
    }

    /// Whether nothing is there to be paired: then every message is
    /// [unclaimed](Self::unclaimed), and there is nothing to [advance](Self::advance) over.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.unpaired.is_empty() && self.several_at.is_none()
    }

    /// Goes on to the header at `position`, before which there is no
    /// [violation](Self::violation) and no message left to take: forgets what the kernel dropped
    /// before that.
    pub(crate) fn advance(&mut self, position: u64) {
        while let Some(unpaired) = self.unpaired.front()
            && self.is_passed(unpaired, position)
            && unpaired.descriptor.is_none()
        {
            self.unpaired.pop_front();
        }
    }

    /// What was wrong before the header at `position`, if no message that starts before it is left
    /// to take.
    pub(crate) fn violation(&self, position: u64) -> Option<Violation> {
        let mut passed =
            self.unpaired.iter().take_while(|unpaired| self.is_passed(unpaired, position));
        if let Some(unpaired) = passed.find(|unpaired| unpaired.descriptor.is_some()) {
            return Some(Violation { fault: Fault::Unclaimed, offset: unpaired.range.end });
        }
        let several = self.several_at.filter(|range| range.end <= position)?;
        Some(Violation { fault: Fault::Several, offset: several.end })
    }

    /// Whether no message at or behind `position` can own what arrived.
    fn is_passed(&self, unpaired: &Unpaired<F>, position: u64) -> bool {
        self.rule != Pairing::Ordered && unpaired.range.end <= position
    }

    /// Takes the descriptor of the message at `message`. This was [advanced](Self::advance) to it,
    /// so that a range which ended before it is gone, unless the rule is `Ordered`.
    ///
    /// `marks_follow(end)` says whether another marked header lies wholly between this message and
    /// stream offset `end`.
    pub(crate) fn claim(
        &mut self,
        message: StreamRange,
        marked: bool,
        marks_follow: impl FnOnce(u64) -> bool,
    ) -> Result<Descriptor<F>, Violation> {
        let start = message.start;
        let violation = |fault| Err(Violation { fault, offset: start });
        if marked && self.several_at.is_some_and(|range| range.start <= start) {
            return violation(Fault::Several);
        }
        let Some(unpaired) = self.unpaired.front() else {
            return Ok(self.unclaimed(start, marked));
        };
        let range = unpaired.range;
        let dropped = unpaired.descriptor.is_none();
        let owns = match self.rule {
            Pairing::Exact | Pairing::Ordered => marked,
            Pairing::Unmarked => range.end <= message.end,
        };
        if !owns || range.start > start {
            return Ok(self.unclaimed(start, marked));
        }
        if self.rule == Pairing::Exact {
            if dropped {
                // It may have been that of any marked header in the range: keep it for the others.
                return Ok(Descriptor::Missing(Missing::Dropped));
            }
            if marks_follow(range.end) {
                return violation(Fault::Ambiguous);
            }
        }
        match self.unpaired.pop_front().and_then(|unpaired| unpaired.descriptor) {
            Some(descriptor) => Ok(Descriptor::Here(descriptor)),
            None => Ok(Descriptor::Missing(Missing::Dropped)),
        }
    }

    /// What the message at `start` has if nothing that arrived is its own.
    #[inline]
    pub(crate) fn unclaimed(&self, start: u64, marked: bool) -> Descriptor<F> {
        match self.allowed_from {
            _ if !marked => Descriptor::None,
            Some(offset) if offset <= start => Descriptor::Missing(Missing::NotSent),
            _ => Descriptor::Missing(Missing::NotAllowed),
        }
    }

    /// What is reported when the stream ends at `position`, behind a whole message.
    pub(crate) fn violation_at_end(&self, position: u64) -> Option<Violation> {
        self.violation(position).or_else(|| {
            let fault = match self.ahead {
                _ if self.holds_any() => Fault::Unclaimed,
                Ancillary::Several => Fault::Several,
                _ => return None,
            };
            Some(Violation { fault, offset: position })
        })
    }
}
