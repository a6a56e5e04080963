//! Models of how kernels carry an `AF_UNIX` stream.
//!
//! A [`Socket`] keeps what matters to imsg: where a read ends, with which byte a descriptor
//! arrives, and what becomes of it when there is no room, neither on the way nor in the process
//! that reads. What a real system leaves to chance is the caller's to choose, so that each run can
//! be repeated.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::error;
use core::fmt;
use core::mem;

/// A kernel, by what it does with descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Linux.
    Linux,
    /// gVisor, which stands in for Linux.
    Gvisor,
    /// FreeBSD up to 14.
    FreeBsd14,
    /// FreeBSD from 15 on.
    FreeBsd15,
    /// NetBSD.
    NetBsd,
    /// OpenBSD.
    OpenBsd,
    /// DragonFly.
    DragonFly,
    /// That of macOS and iOS.
    Xnu,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Linux,
        Self::Gvisor,
        Self::FreeBsd14,
        Self::FreeBsd15,
        Self::NetBsd,
        Self::OpenBsd,
        Self::DragonFly,
        Self::Xnu,
    ];

    /// Where a read ends.
    fn read_ends(self) -> ReadEnds {
        match self {
            Self::Linux | Self::Gvisor => ReadEnds::Behind,
            _ => ReadEnds::Before,
        }
    }

    /// What a read does that brings more descriptors than the process can have.
    #[must_use]
    pub fn no_slot(self) -> NoSlot {
        match self {
            Self::Linux => NoSlot::Truncates,
            Self::Gvisor => NoSlot::Empties,
            Self::FreeBsd14 => NoSlot::Fails(Errno::TooManyFiles),
            Self::FreeBsd15 => NoSlot::Breaks(Errno::TooManyFiles),
            Self::NetBsd | Self::OpenBsd | Self::DragonFly | Self::Xnu => {
                NoSlot::Fails(Errno::MessageSize)
            }
        }
    }

    /// Whether a `sendmsg` without bytes still brings its descriptors to the other side.
    fn carries_no_bytes(self) -> bool {
        self.read_ends() == ReadEnds::Before
    }

    /// Whether a send with a descriptor fails for which there is not room at once.
    #[must_use]
    pub fn fails_when_full(self) -> bool {
        matches!(self, Self::NetBsd | Self::Xnu)
    }

    /// Whether a read without room for descriptors leaves them open, and tells nobody.
    #[must_use]
    pub fn leaks_without_control(self) -> bool {
        matches!(self, Self::DragonFly | Self::Xnu)
    }
}

/// Which of the buffers that bring descriptors ends a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadEnds {
    /// The first one, behind which the read ends.
    Behind,
    /// The second one, before which it ends; the first one begins the read.
    Before,
}

/// What a read does that brings more descriptors than the process can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// It brings those that fit, and says that there were more (`MSG_CTRUNC`).
    Truncates,
    /// It brings a control message with those that fit, or with none, and says nothing.
    Empties,
    /// It fails. The bytes come with the next one, and nothing beside them.
    Fails(Errno),
    /// It fails. Bytes may be lost.
    Breaks(Errno),
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// `EAGAIN`: there is nothing to read, or no room.
    WouldBlock,
    /// `EMSGSIZE`.
    MessageSize,
    /// `EMFILE`.
    TooManyFiles,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WouldBlock => "there is nothing to read, or no room",
            Self::MessageSize => "the message is too long",
            Self::TooManyFiles => "the process has too many descriptors",
        })
    }
}

impl error::Error for Errno {}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<F> {
    /// How many bytes. None of them, and nothing else, are the end.
    pub bytes: usize,
    /// The control messages (`SCM_RIGHTS`), with their descriptors.
    pub rights: Vec<Vec<F>>,
    /// Whether the kernel says that there was more (`MSG_CTRUNC`).
    pub truncated: bool,
}

/// The room that the control message of a descriptor takes beside the bytes, where it counts.
pub const CONTROL: usize = 24;

/// One direction of a connection: bytes and descriptors on their way.
#[derive(Debug)]
pub struct Socket<F> {
    kernel: Kernel,
    capacity: usize,
    queue: VecDeque<Buffer<F>>,
    lost: Vec<F>,
    leaked: Vec<F>,
    closed: bool,
}

/// Bytes that were sent together (an skb on Linux), and the control message that they began with.
#[derive(Debug)]
struct Buffer<F> {
    rights: Option<Vec<F>>,
    bytes: Vec<u8>,
    read: usize,
}

impl<F> Socket<F> {
    /// A connection with nothing on its way, and room for any amount.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self::with_capacity(kernel, usize::MAX)
    }

    /// A connection with nothing on its way, and room for so many bytes.
    #[must_use]
    pub fn with_capacity(kernel: Kernel, capacity: usize) -> Self {
        Self {
            kernel,
            capacity,
            queue: VecDeque::new(),
            lost: Vec::new(),
            leaked: Vec::new(),
            closed: false,
        }
    }

    /// Whose rules it follows.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Whether all that was sent has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many bytes it still takes.
    #[must_use]
    pub fn room(&self) -> usize {
        let used = |buffer: &Buffer<F>| {
            let counts = self.kernel == Kernel::FreeBsd15 && buffer.rights.is_some();
            buffer.bytes.len() - buffer.read + if counts { CONTROL } else { 0 }
        };
        self.capacity.saturating_sub(self.queue.iter().map(used).sum())
    }

    /// Sends what there is room for, cut into buffers, and says how many bytes that was
    /// (`MSG_DONTWAIT`).
    ///
    /// `size` chooses how many of the bytes left, at least one, go into the next buffer. The
    /// descriptors ride on the first.
    ///
    /// # Errors
    ///
    /// When nothing was sent, but for a descriptor on [one](Kernel::FreeBsd15) of the kernels.
    pub fn sendmsg(
        &mut self,
        bytes: &[u8],
        mut descriptors: Vec<F>,
        size: impl FnMut(usize) -> usize,
    ) -> Result<usize, Errno> {
        self.send(bytes, &mut descriptors, size)
    }

    /// Sends all of `bytes`, and waits for room as often as there is none; `meanwhile` is what
    /// the other side does then.
    ///
    /// # Errors
    ///
    /// When nothing was sent.
    pub fn sendmsg_waiting(
        &mut self,
        bytes: &[u8],
        mut descriptors: Vec<F>,
        mut size: impl FnMut(usize) -> usize,
        mut meanwhile: impl FnMut(&mut Self),
    ) -> Result<usize, Errno> {
        let mut sent = 0;
        loop {
            match self.send(&bytes[sent..], &mut descriptors, &mut size) {
                Ok(n) => sent += n,
                Err(Errno::WouldBlock) => {
                    if self.kernel == Kernel::Gvisor {
                        self.lost.append(&mut descriptors);
                    }
                    meanwhile(self);
                }
                Err(error) => return Err(error),
            }
            if sent == bytes.len() {
                return Ok(sent);
            }
        }
    }

    /// Takes the descriptors with the first byte, or those that need none.
    fn send(
        &mut self,
        bytes: &[u8],
        descriptors: &mut Vec<F>,
        mut size: impl FnMut(usize) -> usize,
    ) -> Result<usize, Errno> {
        let rights = !descriptors.is_empty();
        if bytes.is_empty() {
            if rights && self.kernel.carries_no_bytes() {
                self.push(descriptors, &[]);
            }
            return Ok(0);
        }
        let mut room = self.room();
        if rights && self.kernel.fails_when_full() && room < bytes.len().saturating_add(CONTROL) {
            return Err(Errno::MessageSize);
        }
        if rights && self.kernel == Kernel::FreeBsd15 {
            if room == CONTROL {
                // The bytes have to wait, and this has happened already.
                self.push(descriptors, &[]);
            }
            room = room.saturating_sub(CONTROL);
        }
        if room == 0 {
            return Err(Errno::WouldBlock);
        }
        let sent = bytes.len().min(room);
        let mut rest = &bytes[..sent];
        while !rest.is_empty() {
            let (first, behind) = rest.split_at(size(rest.len()));
            assert!(!first.is_empty(), "a buffer holds at least one byte");
            self.push(descriptors, first);
            rest = behind;
        }
        Ok(sent)
    }

    fn push(&mut self, descriptors: &mut Vec<F>, bytes: &[u8]) {
        let rights = (!descriptors.is_empty()).then(|| mem::take(descriptors));
        self.queue.push_back(Buffer { rights, bytes: bytes.to_vec(), read: 0 });
    }

    /// Says that nothing more will be sent.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Reads into `space`, and what comes beside the bytes, in a process that can have so many
    /// descriptors more.
    ///
    /// # Errors
    ///
    /// When there is nothing to read, or when the kernel [fails](Kernel::no_slot) for want of a
    /// slot.
    pub fn recvmsg(&mut self, space: &mut [u8], slots: usize) -> Result<Received<F>, Errno> {
        if self.queue.is_empty() {
            return self.nothing();
        }
        let mut rights = self.take_leading();
        let too_many = rights.iter().map(Vec::len).sum::<usize>() > slots;
        if let NoSlot::Fails(error) | NoSlot::Breaks(error) = self.kernel.no_slot()
            && too_many
        {
            self.lost.extend(rights.drain(..).flatten());
            if self.kernel.no_slot() == NoSlot::Breaks(error) {
                self.read(space, &mut rights);
            }
            return Err(error);
        }
        let bytes = self.read(space, &mut rights);
        let mut truncated = false;
        for message in &mut rights {
            if message.len() > slots {
                self.lost.extend(message.drain(slots..));
                truncated = self.kernel.no_slot() == NoSlot::Truncates;
            }
        }
        if truncated {
            rights.retain(|message| !message.is_empty());
        }
        Ok(Received { bytes, rights, truncated })
    }

    /// Reads into `space` without room for anything beside the bytes (`recv`, `read`).
    ///
    /// # Errors
    ///
    /// When there is nothing to read.
    pub fn recv(&mut self, space: &mut [u8]) -> Result<usize, Errno> {
        // Descriptors alone are nothing that it could read.
        let unreadable =
            self.kernel == Kernel::FreeBsd15 && self.queue.iter().all(|it| it.bytes.is_empty());
        if self.queue.is_empty() || unreadable {
            return self.nothing().map(|received| received.bytes);
        }
        let mut rights = self.take_leading();
        let bytes = self.read(space, &mut rights);
        if self.kernel.leaks_without_control() {
            self.leaked.extend(rights.into_iter().flatten());
        }
        Ok(bytes)
    }

    /// Takes the descriptors that the kernel has closed, as nobody could have them.
    pub fn take_lost(&mut self) -> Vec<F> {
        mem::take(&mut self.lost)
    }

    /// The descriptors that are open in the process that reads, and that it does not know of.
    #[must_use]
    pub fn leaked(&self) -> &[F] {
        &self.leaked
    }

    fn nothing(&self) -> Result<Received<F>, Errno> {
        if self.closed {
            Ok(Received { bytes: 0, rights: Vec::new(), truncated: false })
        } else {
            Err(Errno::WouldBlock)
        }
    }

    /// Takes the control messages with which a read begins, where it ends before the next one.
    fn take_leading(&mut self) -> Vec<Vec<F>> {
        let mut leading = Vec::new();
        while self.kernel.read_ends() == ReadEnds::Before
            && let Some(first) = self.queue.front_mut()
            && let Some(rights) = first.rights.take()
        {
            leading.push(rights);
            if !first.bytes.is_empty() {
                break;
            }
            self.queue.pop_front();
            if self.kernel != Kernel::FreeBsd15 {
                break;
            }
        }
        leading
    }

    /// Reads on: how many bytes. What comes beside them is put behind `rights`.
    fn read(&mut self, space: &mut [u8], rights: &mut Vec<Vec<F>>) -> usize {
        let mut n = 0;
        while n < space.len()
            && let Some(buffer) = self.queue.front_mut()
        {
            if buffer.rights.is_some() && self.kernel.read_ends() == ReadEnds::Before {
                break;
            }
            let brought = buffer.rights.take();
            n += buffer.read_into(&mut space[n..]);
            if buffer.read == buffer.bytes.len() {
                self.queue.pop_front();
            }
            if let Some(brought) = brought {
                rights.push(brought);
                break;
            }
        }
        n
    }
}

impl<F> Buffer<F> {
    fn read_into(&mut self, space: &mut [u8]) -> usize {
        let unread = &self.bytes[self.read..];
        let n = unread.len().min(space.len());
        space[..n].copy_from_slice(&unread[..n]);
        self.read += n;
        n
    }
}
