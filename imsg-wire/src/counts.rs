//! Numbers to watch.

/// What went through a buffer since it was made; each number starts over at 2⁶⁴.
///
/// Messages are not counted, as that would cost something for each one: the program that takes
/// them can.
///
/// ```
/// use imsg_wire::{Counts, Header, Modern, SendBuf};
///
/// let mut queue = SendBuf::new(Modern::new(), [0; 64]);
/// queue.compose(Header::new(1), b"first", None)?;
/// queue.compose(Header::new(2), b"second", None)?;
/// queue.consume(16 + 5 + 16)?;
///
/// assert_eq!(queue.sent(), Counts { bytes: 37, descriptors: 0 });
/// assert_eq!((queue.queue_len(), queue.queue_bytes()), (1, 6));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes, headers included. Of what is [received](crate::RecvBuf::received), this is also the
    /// offset of the next message in the stream.
    pub bytes: u64,
    /// Descriptors.
    pub descriptors: u64,
}
