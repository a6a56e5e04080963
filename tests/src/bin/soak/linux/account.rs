//! How far a process came, and the memory in which the peer writes that down for its parent.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Outcome;

const WORDS: usize = 11;

/// What a process sent and received over a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Messages that may have been sent.
    pub(crate) begun: u64,
    /// Messages that the kernel has taken completely.
    pub(crate) handed: u64,
    /// Descriptors that may have been sent.
    pub(crate) descriptors_begun: u64,
    /// Messages received, and found right.
    pub(crate) received: u64,
    /// The bytes of those, headers included.
    pub(crate) bytes_received: u64,
    /// Descriptors that came with them.
    pub(crate) descriptors_received: u64,
    /// All messages before this one have their descriptors checked and closed.
    pub(crate) settled: u64,
    /// The first message sent with a descriptor that was closed without being looked at.
    pub(crate) first_unanswered: u64,
    /// Descriptors open when the process started.
    pub(crate) open_at_start: u64,
    /// How many descriptors more or fewer are open than should be.
    pub(crate) open_amiss: u64,
    /// Descriptors sent and seen to be open somewhere when they should not be.
    pub(crate) still_open: u64,
}

impl Account {
    pub(crate) const LEN: usize = WORDS * size_of::<u64>();

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let words: [u64; WORDS] = [
            self.begun,
            self.handed,
            self.descriptors_begun,
            self.received,
            self.bytes_received,
            self.descriptors_received,
            self.settled,
            self.first_unanswered,
            self.open_at_start,
            self.open_amiss,
            self.still_open,
        ];
        let mut bytes = [0; Self::LEN];
        for (place, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Outcome<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into()?;
        let mut words = bytes.chunks_exact(size_of::<u64>()).map(|word| {
            u64::from_ne_bytes(word.try_into().expect("chunks have the size that was asked for"))
        });
        let mut next = || words.next().expect("there are as many words as fields");
        Ok(Self {
            begun: next(),
            handed: next(),
            descriptors_begun: next(),
            received: next(),
            bytes_received: next(),
            descriptors_received: next(),
            settled: next(),
            first_unanswered: next(),
            open_at_start: next(),
            open_amiss: next(),
            still_open: next(),
        })
    }
}

/// Memory that two processes share, and that outlives one that is killed.
pub(crate) struct Ledger(File);

impl Ledger {
    pub(crate) fn create() -> io::Result<Self> {
        let ledger = Self(memfd_create("ledger", MFdFlags::MFD_CLOEXEC)?.into());
        ledger.write(&Account::default())?;
        Ok(ledger)
    }

    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    pub(crate) fn write(&self, account: &Account) -> io::Result<()> {
        self.0.write_all_at(&account.to_bytes(), 0)
    }

    pub(crate) fn read(&self) -> Outcome<Account> {
        let mut bytes = [0; Account::LEN];
        self.0.read_exact_at(&mut bytes, 0)?;
        Account::from_bytes(&bytes)
    }
}

impl From<OwnedFd> for Ledger {
    fn from(shared: OwnedFd) -> Self {
        Self(shared.into())
    }
}
