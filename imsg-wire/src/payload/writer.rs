//! Writing a payload.

use core::fmt;

use zerocopy::{Immutable, IntoBytes};

use super::count::Count;
use super::reader::Reader;
use crate::abbreviated::Abbreviated;
use crate::error::WriteError;

/// Writes a payload, field by field (`struct ibuf`, and the `ibuf_add` functions).
///
/// The bytes go into a slice, or straight into the queue of a [`SendBuf`](crate::SendBuf), whose
/// [`create`](crate::SendBuf::create) makes such a writer; only that one can be closed, and has to
/// be for its message to be sent.
///
/// ```
/// use imsg_wire::Writer;
///
/// let mut buf = [0xff; 16];
/// let mut writer = Writer::new(&mut buf);
/// writer.add_n16(0)?;
/// writer.add_strbuf("name", 8)?;
/// assert!(writer.add_zero(7).is_err());
/// writer.set_n16(0, writer.len() as u16)?;
/// assert_eq!(writer.written(), b"\0\x0aname\0\0\0\0");
/// # Ok::<(), imsg_wire::WriteError>(())
/// ```
///
/// Two writers of different kinds cannot be exchanged, and in an exchange of two messages in place
/// all of them moves, so a message that is queued always has the bytes that were written for it:
///
/// ```compile_fail,E0308
/// use imsg_wire::{Header, Modern, SendBuf, Writer};
///
/// let mut queue = SendBuf::new(Modern::new(), [0; 64]);
/// let mut message = queue.create(Header::new(1), None).unwrap();
/// let mut buf = *b"stale bytes";
/// let mut plain = Writer::new(&mut buf);
/// core::mem::swap(&mut message, &mut plain);
/// message.close();
/// ```
pub struct Writer<'a, P = ()> {
    buf: &'a mut [u8],
    len: usize,
    max_len: usize,
    pending: P,
}

impl<'a> Writer<'a> {
    /// A writer that fills `buf` from its start (`ibuf_open`).
    pub fn new(buf: &'a mut [u8]) -> Self {
        let max_len = buf.len();
        Self::over(buf, max_len, ())
    }
}

impl<'a, P> Writer<'a, P> {
    pub(crate) fn over(buf: &'a mut [u8], max_len: usize, pending: P) -> Self {
        Self { buf, len: 0, max_len, pending }
    }

    /// How many bytes were written, and what was held until then.
    pub(crate) fn finish(self) -> (usize, P) {
        (self.len, self.pending)
    }

    /// How many bytes were written (`ibuf_size`).
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes can still be written (`ibuf_left`).
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.max_len.min(self.buf.len()).saturating_sub(self.len)
    }

    /// The bytes written so far (`ibuf_data`).
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }

    /// Lowers the maximum, in bytes of payload (`imsg_set_maxsize`).
    ///
    /// # Errors
    ///
    /// [`WriteError::TooLong`] when more bytes were written already, or when this would raise it.
    pub fn set_max_len(&mut self, max_len: usize) -> Result<(), WriteError> {
        if max_len < self.len {
            return Err(WriteError::TooLong { len: self.len, max: max_len });
        }
        if max_len > self.max_len {
            return Err(WriteError::TooLong { len: max_len, max: self.max_len });
        }
        self.max_len = max_len;
        Ok(())
    }

    /// Appends bytes, or a value that `zerocopy` can see as bytes (`ibuf_add`). (A literal such as
    /// `&[0; 4]` is four `i32`, so 16 bytes.)
    ///
    /// # Errors
    ///
    /// [`WriteError::TooLong`] beyond the maximum, [`WriteError::Full`] where there is no room
    /// now.
    #[inline]
    pub fn add<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
        let value = value.as_bytes();
        let place = self.extend(value.len())?;
        // The place has the length of the value.
        let _ = value.write_to(place);
        Ok(())
    }

    /// Appends what a reader did not read yet, which stays there (`ibuf_add_ibuf`).
    ///
    /// # Errors
    ///
    /// As [`add`](Writer::add).
    pub fn add_reader(&mut self, reader: &Reader<'_>) -> Result<(), WriteError> {
        self.add(reader.rest())
    }

    /// Appends `len` zero bytes (`ibuf_add_zero`).
    ///
    /// # Errors
    ///
    /// As [`add`](Writer::add).
    pub fn add_zero(&mut self, len: usize) -> Result<(), WriteError> {
        self.reserve(len).map(drop)
    }

    /// Appends `len` zero bytes, and lends them to be filled (`ibuf_reserve`, which does not
    /// clear them).
    ///
    /// # Errors
    ///
    /// As [`add`](Writer::add).
    pub fn reserve(&mut self, len: usize) -> Result<&mut [u8], WriteError> {
        let place = self.extend(len)?;
        place.fill(0);
        Ok(place)
    }

    /// Appends a string in a field of `len` bytes, padded with NUL (`ibuf_add_strbuf`).
    ///
    /// # Errors
    ///
    /// [`WriteError::String`] when it does not fit with a NUL behind it (`EOVERFLOW`), or has a
    /// NUL in it; as [`add`](Writer::add).
    pub fn add_strbuf(&mut self, string: impl AsRef<[u8]>, len: usize) -> Result<(), WriteError> {
        let string = string.as_ref();
        if string.len() >= len || string.contains(&0) {
            return Err(WriteError::String { len: string.len(), field: len });
        }
        let field = self.reserve(len)?;
        // The field is longer than the string.
        let _ = string.write_to_prefix(field);
        Ok(())
    }

    /// Appends a string, or other bytes, behind their length as a number of type `L`. Nothing
    /// terminates it.
    ///
    /// ```
    /// use imsg_wire::{Reader, Writer};
    /// use zerocopy::byteorder::big_endian;
    ///
    /// let mut buf = [0; 16];
    /// let mut writer = Writer::new(&mut buf);
    /// writer.add_counted::<u8>("name")?;
    /// writer.add_counted::<big_endian::U16>(b"value")?;
    /// assert_eq!(writer.written(), b"\x04name\0\x05value");
    ///
    /// let mut reader = Reader::new(writer.written());
    /// assert_eq!(reader.get_counted_str::<u8>()?, "name");
    /// assert_eq!(reader.get_counted::<big_endian::U16>()?, b"value");
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError::Count`] when the number cannot say that length; as [`add`](Writer::add).
    pub fn add_counted<L: Count>(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), WriteError> {
        let bytes = bytes.as_ref();
        let count = L::of(bytes.len()).ok_or(WriteError::Count { count: bytes.len() })?;
        let place = self.extend(size_of::<L>().saturating_add(bytes.len()))?;
        // The place has the length of both.
        let _ = count.write_to_prefix(place);
        let _ = bytes.write_to_suffix(place);
        Ok(())
    }

    /// Overwrites bytes that were written, `offset` bytes from the start (`ibuf_set`).
    ///
    /// # Errors
    ///
    /// [`WriteError::Outside`] when it would write behind the last byte written.
    #[inline]
    pub fn set<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        offset: usize,
        value: &T,
    ) -> Result<(), WriteError> {
        let value = value.as_bytes();
        let outside = WriteError::Outside { offset, len: value.len(), written: self.len };
        let place = self.buf.get_mut(..self.len).and_then(|written| written.get_mut(offset..));
        place.and_then(|place| value.write_to_prefix(place).ok()).ok_or(outside)
    }

    /// Cuts what was written to `len` bytes, or extends it to that with zeros (`ibuf_truncate`).
    /// What is cut off is overwritten with zeros.
    ///
    /// # Errors
    ///
    /// As [`add`](Writer::add).
    pub fn truncate(&mut self, len: usize) -> Result<(), WriteError> {
        if len >= self.len {
            return self.add_zero(len.saturating_sub(self.len));
        }
        if let Some(cut) = self.buf.get_mut(len..self.len) {
            cut.fill(0);
        }
        self.len = len;
        Ok(())
    }

    /// Makes the next `len` bytes part of what was written, with whatever is in them.
    #[inline]
    fn extend(&mut self, len: usize) -> Result<&mut [u8], WriteError> {
        let total = self.len.saturating_add(len);
        if total > self.max_len {
            return Err(WriteError::TooLong { len: total, max: self.max_len });
        }
        let free = self.buf.len().saturating_sub(self.len);
        let full = WriteError::Full { len, free };
        let place = self.buf.get_mut(self.len..total).ok_or(full)?;
        self.len = total;
        Ok(place)
    }
}

/// Appends text, as `write!` makes it; nothing terminates it. What is too long is an error, which does
/// not say by how much. What was written before that stays.
///
/// ```
/// use core::fmt::Write;
/// use imsg_wire::Writer;
///
/// let mut buf = [0; 16];
/// let mut writer = Writer::new(&mut buf);
/// write!(writer, "{} files", 3)?;
/// assert_eq!(writer.written(), b"3 files");
/// assert!(write!(writer, "{:>10}", 3).is_err());
/// # Ok::<(), core::fmt::Error>(())
/// ```
impl<P> fmt::Write for Writer<'_, P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text).map_err(|_| fmt::Error)
    }
}

impl<P> fmt::Debug for Writer<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("written", &Abbreviated(self.written()))
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}
