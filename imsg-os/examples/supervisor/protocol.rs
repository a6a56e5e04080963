//! The messages of all channels.

use std::os::fd::OwnedFd;

use imsg_os::protocol;
use imsg_os::typed::Counted;

use crate::layers::Layers;

protocol! {
    /// From the parent to a worker.
    pub(crate) enum ToWorker<'a> {
        /// The channel to the other worker, in place of the one that was.
        1 => Peer + OwnedFd,
        /// To the frontend: where clients come.
        2 => Listen + OwnedFd,
        /// To the engine: a configuration begins, in place of one that has not ended.
        3 => ConfigBegin,
        4 => ConfigEntry { name: &'a str as Counted<u8>, value: &'a str },
        5 => ConfigEnd { generation: u32 },
    }
}

protocol! {
    /// From a worker to the parent.
    pub(crate) enum FromWorker {
        /// The first: its privileges are given up.
        1 => Ready(Layers),
        /// From the engine: a configuration is in force.
        2 => Configured { generation: u32 },
    }
}

protocol! {
    /// From a client to the frontend, and from there to the engine. The answer has the same id.
    pub(crate) enum Question<'a> {
        1 => Get { name: &'a str },
    }
}

protocol! {
    /// The answer to a question.
    pub(crate) enum Answer<'a> {
        2 => Value { value: &'a str },
        3 => Unknown,
        /// There is no engine, or it died, or too much is asked.
        4 => Unavailable,
    }
}

/// The longest name and the longest value, in bytes.
pub(crate) const NAME: usize = 255;
pub(crate) const VALUE: usize = 1000;
