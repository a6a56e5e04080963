//! Messages, and stateless parsing: from bytes in memory to views of them.

use core::convert::Infallible;
use core::fmt;
use core::iter::FusedIterator;

use zerocopy::FromBytes;

use crate::abbreviated::Abbreviated;
use crate::descriptor::Descriptor;
use crate::dialect::{Dialect, header_len};
use crate::error::{BadLength, Error};
use crate::header::{Frame, Header};
use crate::payload::Reader;

/// A received message: its header, a view of its payload, and its descriptor (`struct imsg`).
///
/// The payload is borrowed from the buffer that received it, and has no alignment. The descriptor
/// is owned: dropping the message closes it, and any field may be moved out.
pub struct Message<'a, F = Infallible> {
    /// Type, id and pid, as the sender wrote them.
    pub header: Header,
    /// The bytes after the header (`imsg_get_data`).
    pub payload: &'a [u8],
    /// What the sender attached (`imsg_get_fd`).
    pub descriptor: Descriptor<F>,
}

impl<'a, F> Message<'a, F> {
    /// A reader at the start of the payload (`imsg_get_ibuf`).
    #[must_use]
    pub fn reader(&self) -> Reader<'a> {
        Reader::new(self.payload)
    }
}

impl<F: fmt::Debug> fmt::Debug for Message<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("header", &self.header)
            .field("payload", &Abbreviated(self.payload))
            .field("descriptor", &self.descriptor)
            .finish()
    }
}

/// What a header says, the payload behind it, and the bytes behind that.
pub type Split<'a> = (Frame, &'a [u8], &'a [u8]);

/// Splits one message off the front of `bytes`: what its header says, its payload, and the bytes
/// after it. `None` when more bytes are needed.
///
/// `max_len` is the largest acceptable message in bytes, header included.
///
/// ```
/// use imsg_wire::{DEFAULT_MAX_LEN, Modern, split};
/// use zerocopy::IntoBytes;
///
/// let header = [1_u32, 16 + 2, 0, 99];
/// let mut stream = header.as_bytes().to_vec();
/// stream.extend(b"hi");
///
/// assert_eq!(split(&Modern::new(), &stream[..17], DEFAULT_MAX_LEN), Ok(None));
/// let (frame, payload, rest) = split(&Modern::new(), &stream, DEFAULT_MAX_LEN)?.unwrap();
/// assert_eq!((frame.header.msg_type, frame.header.pid), (1, 99));
/// assert_eq!(payload, b"hi");
/// assert!(rest.is_empty());
/// # Ok::<(), imsg_wire::BadLength>(())
/// ```
///
/// # Errors
///
/// [`BadLength`] when the header states a length below that of a header or above `max_len`. It is
/// known as soon as the header is there.
#[inline]
pub fn split<'a, D: Dialect>(
    dialect: &D,
    bytes: &'a [u8],
    max_len: usize,
) -> Result<Option<Split<'a>>, BadLength> {
    let Some(frame) = peek(dialect, bytes, max_len)? else {
        return Ok(None);
    };
    let Some((message, rest)) = bytes.split_at_checked(frame.len) else {
        return Ok(None);
    };
    let Some(payload) = message.get(header_len::<D>()..) else {
        return Ok(None);
    };
    Ok(Some((frame, payload, rest)))
}

/// Reads the header at the front of `bytes`; `None` when it is not all there.
#[inline]
pub(crate) fn peek<D: Dialect>(
    dialect: &D,
    bytes: &[u8],
    max_len: usize,
) -> Result<Option<Frame>, BadLength> {
    let Ok((raw, _)) = D::Raw::ref_from_prefix(bytes) else {
        return Ok(None);
    };
    let frame = dialect.decode(raw);
    BadLength::check(frame.len, header_len::<D>(), max_len)?;
    Ok(Some(frame))
}

/// What is wrong with a stream that ends with `rest`, in which there is no whole message.
pub(crate) fn truncated<D: Dialect>(
    dialect: &D,
    rest: &[u8],
    max_len: usize,
    offset: u64,
) -> Option<Error> {
    let need = match peek(dialect, rest, max_len) {
        Ok(Some(frame)) => frame.len,
        _ => header_len::<D>(),
    };
    (!rest.is_empty()).then_some(Error::Truncated { offset, have: rest.len(), need })
}

/// Iterates over the messages of a byte slice that holds a whole stream, or the beginning of one.
///
/// Each item is what the header says, and the payload. The last one is an error, or the last
/// complete message. Of a whole stream, [`finish`](Messages::finish) says whether it was cut off;
/// of the beginning of one, [`rest`](Messages::rest) is what was left.
///
/// ```
/// use imsg_wire::{Classic, DEFAULT_MAX_LEN, Header, Messages, SendBuf};
///
/// let mut stream = SendBuf::new(Classic::new(), [0; 256]);
/// stream.compose(Header::new(1), b"one", None)?;
/// stream.compose(Header::new(2), b"three", None)?;
/// let bytes = stream.chunk().unwrap().bytes;
///
/// let mut messages = Messages::new(Classic::new(), bytes, DEFAULT_MAX_LEN);
/// let lengths = messages.by_ref().map(|item| item.unwrap().1.len());
/// assert!(lengths.eq([3, 5]));
/// messages.finish()?;
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Messages<'a, D> {
    dialect: D,
    rest: &'a [u8],
    max_len: usize,
    offset: u64,
    failed: bool,
}

impl<'a, D: Dialect> Messages<'a, D> {
    /// An iterator over the messages in `bytes`, none longer than `max_len` bytes, header
    /// included.
    pub fn new(dialect: D, bytes: &'a [u8], max_len: usize) -> Self {
        Self { dialect, rest: bytes, max_len, offset: 0, failed: false }
    }

    /// The bytes that no message was made of yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The offset of the next message from the start of the slice, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes over the messages that are left, and checks that the last one is whole.
    ///
    /// # Errors
    ///
    /// What is wrong with the stream: what the iterator returned or would return, or
    /// [`Error::Truncated`] when it ends inside a message.
    pub fn finish(mut self) -> Result<(), Error> {
        self.failed = false;
        self.try_for_each(|message| message.map(drop))?;
        truncated(&self.dialect, self.rest, self.max_len, self.offset).map_or(Ok(()), Err)
    }
}

impl<'a, D: Dialect> Iterator for Messages<'a, D> {
    type Item = Result<(Frame, &'a [u8]), Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match split(&self.dialect, self.rest, self.max_len) {
            Ok(None) => None,
            Ok(Some((frame, payload, rest))) => {
                self.rest = rest;
                self.offset = self.offset.wrapping_add(frame.len as u64);
                Some(Ok((frame, payload)))
            }
            Err(error) => {
                self.failed = true;
                Some(Err(Error::Length { offset: self.offset, error }))
            }
        }
    }
}

impl<D: Dialect> FusedIterator for Messages<'_, D> {}

impl<D> fmt::Debug for Messages<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("rest", &Abbreviated(self.rest))
            .field("max_len", &self.max_len)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
