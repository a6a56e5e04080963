//! The header: what a program sees of it, and its two layouts on the wire.
//!
//! A header is 16 bytes in the host's byte order; nothing is converted to network order. The
//! program chooses three of its fields ([`Header`]); the length and the descriptor mark belong to
//! the framing ([`Frame`]) and are never the program's to set.

use zerocopy::{ByteOrder, FromBytes, Immutable, IntoBytes, KnownLayout, U16, U32, Unaligned};

/// The bytes of a header, in both dialects of imsg (`IMSG_HEADER_SIZE`).
pub const HEADER_LEN: usize = 16;

/// The largest message unless a program says otherwise, in bytes, header included
/// (`MAX_IMSGSIZE`).
pub const DEFAULT_MAX_LEN: usize = 16384;

/// The fields of a header that a program chooses: the `type`, `id` and `pid` arguments of
/// `imsg_compose`.
///
/// ```
/// use imsg_wire::Header;
///
/// let request = Header::new(7).with_id(42);
/// assert_eq!((request.msg_type, request.id, request.pid), (7, 42, 0));
/// assert_eq!(request.reply(8), Header::new(8).with_id(42));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Header {
    /// What the message is; the program's own numbering (`imsg_get_type`).
    pub msg_type: u32,
    /// Which peer, request or object the message is about (`imsg_get_id`; `peerid` in the C
    /// struct). imsg itself gives it no meaning.
    pub id: u32,
    /// The process that composed the message (`imsg_get_pid`). In a message to compose, 0 stands
    /// for the pid that [`SendBuf::set_pid`](crate::SendBuf::set_pid) was told; any other value is
    /// sent as it is (tmux sends `u32::MAX`).
    pub pid: u32,
}

impl Header {
    /// A header of the given message type, with id 0 and pid 0.
    #[must_use]
    pub const fn new(msg_type: u32) -> Self {
        Self { msg_type, id: 0, pid: 0 }
    }

    /// This header with another id.
    #[must_use]
    pub const fn with_id(self, id: u32) -> Self {
        Self { id, ..self }
    }

    /// The header of a reply to this one: of the given message type, with the id that this has, and
    /// pid 0.
    #[must_use]
    pub const fn reply(&self, msg_type: u32) -> Self {
        Self::new(msg_type).with_id(self.id)
    }
}

/// All that a header says, in whichever dialect it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Frame {
    /// The program's fields.
    pub header: Header,
    /// The length of the message in bytes, header included, without the descriptor mark.
    pub len: usize,
    /// Whether the sender marked the message as carrying a descriptor.
    pub marked: bool,
}

/// The classic header: a 16-bit length, and a 16-bit word of flags.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ClassicHeader<O: ByteOrder> {
    msg_type: U32<O>,
    len: U16<O>,
    flags: U16<O>,
    id: U32<O>,
    pid: U32<O>,
}

impl<O: ByteOrder> ClassicHeader<O> {
    /// `IMSGF_HASFD`.
    const MARK: u16 = 1;

    /// Other flags than the mark are ignored, as the C library does.
    pub(crate) fn decode(&self) -> Frame {
        Frame {
            header: Header {
                msg_type: self.msg_type.get(),
                id: self.id.get(),
                pid: self.pid.get(),
            },
            len: usize::from(self.len.get()),
            marked: self.flags.get() & Self::MARK != 0,
        }
    }

    /// A length above 65535 does not fit and saturates; the buffers never ask for one.
    pub(crate) fn encode(frame: &Frame) -> Self {
        Self {
            msg_type: U32::new(frame.header.msg_type),
            len: U16::new(u16::try_from(frame.len).unwrap_or(u16::MAX)),
            flags: U16::new(if frame.marked { Self::MARK } else { 0 }),
            id: U32::new(frame.header.id),
            pid: U32::new(frame.header.pid),
        }
    }

    /// Whether no flag but the mark is set.
    pub(crate) fn has_only_known_flags(&self) -> bool {
        self.flags.get() & !Self::MARK == 0
    }
}

/// The modern header: a 32-bit length whose top bit is the descriptor mark.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ModernHeader<O: ByteOrder> {
    msg_type: U32<O>,
    len: U32<O>,
    id: U32<O>,
    pid: U32<O>,
}

impl<O: ByteOrder> ModernHeader<O> {
    /// `IMSG_FD_MARK`.
    const MARK: u32 = 1 << 31;

    pub(crate) fn decode(&self) -> Frame {
        let len = self.len.get();
        Frame {
            header: Header {
                msg_type: self.msg_type.get(),
                id: self.id.get(),
                pid: self.pid.get(),
            },
            len: usize::try_from(len & !Self::MARK).unwrap_or(usize::MAX),
            marked: len & Self::MARK != 0,
        }
    }

    /// A length above 2³¹ − 1 does not fit and saturates; the buffers never ask for one.
    pub(crate) fn encode(frame: &Frame) -> Self {
        let len = u32::try_from(frame.len).unwrap_or(u32::MAX) & !Self::MARK;
        Self {
            msg_type: U32::new(frame.header.msg_type),
            len: U32::new(if frame.marked { len | Self::MARK } else { len }),
            id: U32::new(frame.header.id),
            pid: U32::new(frame.header.pid),
        }
    }
}
