//! What `imsg-os` does with a socket, done with the [model](crate::testing::kernel) of one.
//!
//! The two say the same in the same order, so that what is found here can be looked up there: a
//! read is `read` of `channel/receiver.rs` over `sys/recv.rs`, a send is `sys/send.rs`. Left out is what
//! no honest peer needs: that more of the BSDs are read with a control buffer than leak without one,
//! as a descriptor without a byte looks like the end there; and that `poll` is asked before a send on
//! those that wait although they should not.

use alloc::vec;
use alloc::vec::Vec;
use core::error;
use core::fmt;
use core::mem;

use crate::descriptor::Ancillary;
use crate::dialect::Dialect;
use crate::error::{Error, NoRoom};
use crate::recv::RecvBuf;
use crate::storage::Storage;
use crate::testing::Duplicate;
use crate::testing::kernel::{Errno, Kernel, NoSlot, Received, Socket};

/// Something that is done for the sake of some kernels. The tests of this library leave it out, to
/// see that it is needed.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// `MSG_CTRUNC` is a dropped descriptor.
    Truncation,
    /// A control message that should hold descriptors and does not is a dropped one.
    EmptyRights,
    /// A read that fails for want of a slot has lost the descriptor of the bytes to come.
    FailedRead,
    /// If bytes may be lost as well, it is the end.
    BrokenRead,
    /// A read of no bytes that brings a descriptor is not the end.
    NoBytes,
    /// Of several control messages at once, the last one counts.
    RepeatedRights,
    /// What is not wanted is asked for as well, and closed.
    ControlBuffer,
    /// `EMSGSIZE` is a lack of room.
    Full,
    /// What waits to send a descriptor is `poll`.
    Waiting,
}

/// A program's end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Shim {
    careless: Option<Care>,
    /// Whether the last read failed, and lost a descriptor by that.
    failed: bool,
}

/// What a [read](Shim::read) brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes, or what belongs to the next ones.
    Data(usize),
    /// There was nothing.
    WouldBlock,
    /// Messages must be taken first.
    Full,
    /// The end.
    Closed,
}

/// Why nothing more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The call failed.
    Read(Errno),
    /// The buffer did.
    Stream(Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Stream(error) => error.fmt(f),
        }
    }
}

impl error::Error for Broken {}

/// With so many bytes, a descriptor finds room wherever there is some to speak of.
pub const FEW: usize = 512;

impl Shim {
    /// One that leaves out this one care.
    #[doc(hidden)]
    #[must_use]
    pub fn without(care: Care) -> Self {
        Self { careless: Some(care), failed: false }
    }

    fn heeds(&self, care: Care) -> bool {
        self.careless != Some(care)
    }

    /// Reads once, `most` bytes at most, in a process that can have so many descriptors more.
    ///
    /// # Errors
    ///
    /// When nothing more can be read.
    pub fn read<D: Dialect, S: Storage, F, const N: usize>(
        &mut self,
        socket: &mut Socket<F>,
        buf: &mut RecvBuf<D, S, F, N>,
        most: usize,
        slots: usize,
    ) -> Result<ReadOutcome, Broken> {
        let allowed = buf.descriptors_allowed();
        let spare = match buf.spare() {
            Ok(spare) => spare,
            Err(NoRoom::Finished) => return Ok(ReadOutcome::Closed),
            Err(NoRoom::Failed(error)) => return Err(Broken::Stream(error)),
            Err(NoRoom::Full) => return Ok(ReadOutcome::Full),
        };
        let most = most.min(spare.len());
        let received = self.recv(socket, &mut spare[..most], allowed, slots);
        let failed = mem::take(&mut self.failed);
        let (n, ancillary) = match received {
            Ok((0, Ancillary::Nothing)) => {
                buf.finish();
                return Ok(ReadOutcome::Closed);
            }
            Ok((0, _)) if !self.heeds(Care::NoBytes) => {
                buf.finish();
                return Ok(ReadOutcome::Closed);
            }
            Ok(received) => received,
            Err(Errno::WouldBlock) => {
                self.failed = failed;
                return Ok(ReadOutcome::WouldBlock);
            }
            Err(error) if !failed && self.has_lost_descriptor(socket.kernel(), error) => {
                self.failed = true;
                if !self.heeds(Care::FailedRead) {
                    return Ok(ReadOutcome::Data(0));
                }
                (0, Ancillary::Dropped)
            }
            Err(error) => return Err(Broken::Read(error)),
        };
        assert!(buf.commit(n, ancillary).is_ok(), "no more than was lent");
        Ok(ReadOutcome::Data(n))
    }

    fn recv<F>(
        &self,
        socket: &mut Socket<F>,
        space: &mut [u8],
        descriptors: bool,
        slots: usize,
    ) -> Result<(usize, Ancillary<F>), Errno> {
        let kernel = socket.kernel();
        let mut with_descriptors = |socket: &mut Socket<F>| {
            let received = socket.recvmsg(space, slots)?;
            Ok((received.bytes, self.ancillary(kernel, received)))
        };
        if descriptors {
            return with_descriptors(socket);
        }
        if kernel.leaks_without_control() && self.heeds(Care::ControlBuffer) {
            let n = loop {
                match with_descriptors(socket) {
                    Err(error) if self.has_lost_descriptor(kernel, error) => {}
                    Ok((0, ancillary)) if !matches!(ancillary, Ancillary::Nothing) => {}
                    received => break received?.0,
                }
            };
            return Ok((n, Ancillary::Nothing));
        }
        Ok((socket.recv(space)?, Ancillary::Nothing))
    }

    fn has_lost_descriptor(&self, kernel: Kernel, error: Errno) -> bool {
        match kernel.no_slot() {
            NoSlot::Fails(lost) => error == lost,
            NoSlot::Breaks(lost) => error == lost && !self.heeds(Care::BrokenRead),
            NoSlot::Truncates | NoSlot::Empties => false,
        }
    }

    fn ancillary<F>(&self, kernel: Kernel, received: Received<F>) -> Ancillary<F> {
        let repeats = matches!(kernel, Kernel::FreeBsd14 | Kernel::FreeBsd15);
        let mut taken = Ancillary::Nothing;
        for mut message in received.rights {
            let here = match message.pop() {
                None => Ancillary::Nothing,
                Some(descriptor) if message.is_empty() => Ancillary::One(descriptor),
                Some(_) => Ancillary::Several,
            };
            taken = match (taken, here) {
                (Ancillary::Nothing, Ancillary::Nothing) if self.heeds(Care::EmptyRights) => {
                    Ancillary::Dropped
                }
                (Ancillary::Nothing, here) => here,
                (_, here) if repeats && self.heeds(Care::RepeatedRights) => here,
                _ => Ancillary::Several,
            };
        }
        match taken {
            Ancillary::Nothing if received.truncated && self.heeds(Care::Truncation) => {
                Ancillary::Dropped
            }
            Ancillary::One(_) if received.truncated => Ancillary::Several,
            taken => taken,
        }
    }

    /// Sends bytes, and a descriptor with the first of them: how many. Where it `waits` for room,
    /// `meanwhile` is what the other side does then; `size` is for the [socket](Socket::sendmsg).
    ///
    /// # Errors
    ///
    /// When nothing was sent.
    pub fn send<F: Duplicate>(
        &self,
        socket: &mut Socket<F>,
        bytes: &[u8],
        descriptor: Option<&F>,
        waits: bool,
        size: &mut dyn FnMut(usize) -> usize,
        mut meanwhile: impl FnMut(&mut Socket<F>),
    ) -> Result<usize, Errno> {
        let Some(descriptor) = descriptor else {
            return match waits {
                true => socket.sendmsg_waiting(bytes, Vec::new(), size, meanwhile),
                false => socket.sendmsg(bytes, Vec::new(), size),
            };
        };
        loop {
            let in_the_call = waits && !self.heeds(Care::Waiting);
            let mut send = |bytes: &[u8]| match in_the_call {
                true => {
                    let descriptors = vec![descriptor.duplicate()];
                    socket.sendmsg_waiting(bytes, descriptors, &mut *size, &mut meanwhile)
                }
                false => socket.sendmsg(bytes, vec![descriptor.duplicate()], &mut *size),
            };
            let sent = match send(bytes) {
                Err(Errno::MessageSize) if self.heeds(Care::Full) => {
                    send(bytes.get(..FEW).unwrap_or(bytes)).map_err(|error| match error {
                        Errno::MessageSize => Errno::WouldBlock,
                        error => error,
                    })
                }
                sent => sent,
            };
            match sent {
                Err(Errno::WouldBlock) if waits => meanwhile(socket),
                sent => return sent,
            }
        }
    }
}
