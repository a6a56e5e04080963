//! Payloads, field by field: what `ibuf` does, over borrowed bytes.
//!
//! The names are those of `ibuf_add(3)`: `n16` is a 16-bit number in network order (big-endian),
//! `h16` one in the host's order, a *strbuf* is a string in a field of fixed size, padded with
//! NUL. A call that fails changes nothing.
//!
//! # C structs
//!
//! Most programs send C structs as they lie in memory. [`Reader`] and [`Writer`] take any type
//! for which `zerocopy` can see that all bytes are accounted for. Padding is not: name it.
//!
//! ```c
//! struct request {        /* 16 bytes */
//!     uint8_t  kind;      /* then 3 bytes of padding */
//!     uint32_t count;
//!     uint64_t cookie;
//! };
//! ```
//!
//! ```
//! use imsg_wire::{Header, Modern, Reader, SendBuf};
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
//! #[repr(C)]
//! struct Request {
//!     kind: u8,
//!     _padding: [u8; 3],
//!     count: u32,
//!     cookie: u64,
//! }
//!
//! let request = Request { kind: 1, _padding: [0; 3], count: 2, cookie: 3 };
//! let mut queue = SendBuf::<_, _>::new(Modern::new(), [0; 64]);
//! queue.compose(Header::new(1), &request, None)?;
//!
//! let payload = &queue.chunk().unwrap().bytes[16..];
//! let received: Request = Reader::new(payload).data()?;
//! assert_eq!((received.kind, received.count, received.cookie), (1, 2, 3));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! Without the named padding, `derive(IntoBytes)` does not compile. In C it does, and the padding
//! carries whatever was in memory to the other process.
//!
//! A payload has no alignment, so a `Request` is copied out. A type that needs none, as its fields
//! are byte arrays or the integers of [`zerocopy::byteorder`], can be borrowed with
//! [`get_ref`](Reader::get_ref). A struct followed by packed strings, such as the commands that
//! tmux sends, is read in steps:
//!
//! ```
//! use imsg_wire::Reader;
//! use zerocopy::{FromBytes, IntoBytes};
//!
//! #[derive(FromBytes)]
//! #[repr(C)]
//! struct MsgCommand {
//!     argc: i32,
//! }
//!
//! let payload = [2_i32.to_ne_bytes().as_slice(), b"new-session\0", b"-d\0"].concat();
//! let mut reader = Reader::new(&payload);
//! let command: MsgCommand = reader.get_value()?;
//! let arguments: Result<Vec<_>, _> = (0..command.argc).map(|_| reader.get_cstr()).collect();
//! assert_eq!(arguments?, [c"new-session", c"-d"]);
//! reader.expect_end()?;
//! # Ok::<(), imsg_wire::ReadError>(())
//! ```

use core::ffi::CStr;
use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{ReadError, WriteError};
use crate::message::Abbreviated;

/// Reads a payload, field by field (`struct ibuf`, and the `ibuf_get` functions).
///
/// What is read is borrowed from the payload, for as long as that lives.
///
/// ```
/// use imsg_wire::Reader;
///
/// let mut reader = Reader::new(b"\x01\x00\x02name\0\0\0\0rest");
/// assert_eq!(reader.get_n8()?, 1);
/// assert_eq!(reader.get_n16()?, 2);
/// assert_eq!(reader.get_strbuf(8)?, c"name");
/// assert!(reader.get_n64().is_err());
/// assert_eq!(reader.rest(), b"rest");
/// # Ok::<(), imsg_wire::ReadError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes` (`ibuf_from_buffer`).
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The bytes that were not read yet (`ibuf_data`).
    #[inline]
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// How many bytes were not read yet (`ibuf_size`).
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest().len()
    }

    /// Reads `len` bytes (`ibuf_get`).
    ///
    /// # Errors
    ///
    /// [`ReadError::Short`] when there are fewer.
    #[inline]
    pub fn get(&mut self, len: usize) -> Result<&'a [u8], ReadError> {
        let bytes = self.seek(0, len)?;
        self.position = self.position.saturating_add(len);
        Ok(bytes)
    }

    /// Reads `len` bytes, as a reader of their own (`ibuf_get_ibuf`).
    ///
    /// # Errors
    ///
    /// [`ReadError::Short`] when there are fewer.
    pub fn get_reader(&mut self, len: usize) -> Result<Reader<'a>, ReadError> {
        self.get(len).map(Reader::new)
    }

    /// Reads a value, and copies it, as it may need an alignment (`ibuf_get`).
    ///
    /// # Errors
    ///
    /// [`ReadError::Short`] when there are not enough bytes.
    #[inline]
    pub fn get_value<T: FromBytes>(&mut self) -> Result<T, ReadError> {
        let (value, _) =
            T::read_from_prefix(self.rest()).map_err(|_| self.short(size_of::<T>()))?;
        self.position = self.position.saturating_add(size_of::<T>());
        Ok(value)
    }

    /// Reads a value without copying it.
    ///
    /// # Errors
    ///
    /// [`ReadError::Short`] when there are not enough bytes.
    #[inline]
    pub fn get_ref<T>(&mut self) -> Result<&'a T, ReadError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let (value, _) = T::ref_from_prefix(self.rest()).map_err(|_| self.short(size_of::<T>()))?;
        self.position = self.position.saturating_add(size_of::<T>());
        Ok(value)
    }

    /// Reads `count` values without copying them.
    ///
    /// ```
    /// use imsg_wire::Reader;
    /// use zerocopy::byteorder::big_endian::U16;
    ///
    /// let mut reader = Reader::new(&[0, 80, 1, 187, 9]);
    /// let ports: &[U16] = reader.get_slice(2)?;
    /// assert_eq!((ports[0].get(), ports[1].get()), (80, 443));
    /// assert_eq!(reader.rest(), [9]);
    /// # Ok::<(), imsg_wire::ReadError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError::Short`] when there are not enough bytes.
    pub fn get_slice<T>(&mut self, count: usize) -> Result<&'a [T], ReadError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let len = size_of::<T>().saturating_mul(count);
        let bytes = self.seek(0, len)?;
        let (values, _) =
            <[T]>::ref_from_prefix_with_elems(bytes, count).map_err(|_| self.short(len))?;
        self.position = self.position.saturating_add(len);
        Ok(values)
    }

    /// All that was not read yet, as one value of exactly that size (`imsg_get_data`).
    ///
    /// # Errors
    ///
    /// [`ReadError::Size`] when it has another size.
    #[inline]
    pub fn data<T: FromBytes>(&self) -> Result<T, ReadError> {
        let have = self.remaining();
        T::read_from_bytes(self.rest())
            .map_err(|_| ReadError::Size { expected: size_of::<T>(), have })
    }

    /// All that was not read yet, as one value, which is not copied. It may be a struct that ends
    /// in a slice, so that it takes any number of bytes.
    ///
    /// ```
    /// use imsg_wire::Reader;
    /// use zerocopy::byteorder::native_endian::I32;
    /// use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};
    ///
    /// #[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
    /// #[repr(C)]
    /// struct Write {
    ///     stream: I32,
    ///     data: [u8],
    /// }
    ///
    /// let payload = [&2_i32.to_ne_bytes()[..], b"output"].concat();
    /// let write: &Write = Reader::new(&payload).data_ref()?;
    /// assert_eq!((write.stream.get(), &write.data), (2, &b"output"[..]));
    /// # Ok::<(), imsg_wire::ReadError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError::Shape`] when the value cannot have this size.
    pub fn data_ref<T>(&self) -> Result<&'a T, ReadError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned + ?Sized,
    {
        let rest = self.rest();
        T::ref_from_bytes(rest).map_err(|_| ReadError::Shape { have: rest.len() })
    }

    /// Reads a string in a field of `len` bytes, padded with NUL (`ibuf_get_strbuf`). The string
    /// ends at the first NUL.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unterminated`] when the field has no NUL (C truncates the string, and fails
    /// with `EOVERFLOW`), [`ReadError::Short`] when it is not all there.
    pub fn get_strbuf(&mut self, len: usize) -> Result<&'a CStr, ReadError> {
        let field = self.seek(0, len)?;
        let string =
            CStr::from_bytes_until_nul(field).map_err(|_| ReadError::Unterminated { len })?;
        self.position = self.position.saturating_add(len);
        Ok(string)
    }

    /// Reads a string of `len` bytes, which is not terminated (`ibuf_get_string`).
    ///
    /// # Errors
    ///
    /// [`ReadError::NotUtf8`] when it is no text, [`ReadError::Short`] when it is not all there.
    pub fn get_str(&mut self, len: usize) -> Result<&'a str, ReadError> {
        let string = core::str::from_utf8(self.seek(0, len)?).map_err(|_| ReadError::NotUtf8)?;
        self.position = self.position.saturating_add(len);
        Ok(string)
    }

    /// Reads a string that ends with a NUL, which is read too: one of several strings that are
    /// packed behind each other, as tmux sends them.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unterminated`] when no NUL follows.
    pub fn get_cstr(&mut self) -> Result<&'a CStr, ReadError> {
        let rest = self.rest();
        let string = CStr::from_bytes_until_nul(rest)
            .map_err(|_| ReadError::Unterminated { len: rest.len() })?;
        self.position = self.position.saturating_add(string.to_bytes_with_nul().len());
        Ok(string)
    }

    /// Skips `len` bytes (`ibuf_skip`).
    ///
    /// # Errors
    ///
    /// [`ReadError::Short`] when there are fewer.
    pub fn skip(&mut self, len: usize) -> Result<(), ReadError> {
        self.get(len).map(drop)
    }

    /// Goes back to the start (`ibuf_rewind`).
    pub fn rewind(&mut self) {
        self.position = 0;
    }

    /// Keeps `len` of the bytes that were not read yet, and forgets those behind them
    /// (`ibuf_truncate`).
    ///
    /// # Errors
    ///
    /// [`ReadError::Short`] when there are fewer.
    pub fn truncate(&mut self, len: usize) -> Result<(), ReadError> {
        self.seek(0, len)?;
        let end = self.position.saturating_add(len);
        self.bytes = self.bytes.get(..end).unwrap_or(self.bytes);
        Ok(())
    }

    /// Shows `len` bytes that are `offset` bytes ahead, without reading them (`ibuf_seek`).
    ///
    /// # Errors
    ///
    /// [`ReadError::Short`] when they are not all there.
    #[inline]
    pub fn seek(&self, offset: usize, len: usize) -> Result<&'a [u8], ReadError> {
        self.rest()
            .get(offset..)
            .and_then(|bytes| bytes.get(..len))
            .ok_or_else(|| self.short(offset.saturating_add(len)))
    }

    /// Checks that all was read.
    ///
    /// # Errors
    ///
    /// [`ReadError::Size`] when bytes are left.
    pub fn expect_end(&self) -> Result<(), ReadError> {
        match self.remaining() {
            0 => Ok(()),
            have => Err(ReadError::Size { expected: 0, have }),
        }
    }

    fn short(&self, need: usize) -> ReadError {
        ReadError::Short { need, have: self.remaining() }
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&Abbreviated(self.rest())).finish()
    }
}

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
/// let mut queue = SendBuf::<_, _>::new(Modern::new(), [0; 64]);
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

impl<P> fmt::Debug for Writer<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("written", &Abbreviated(self.written()))
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

macro_rules! numbers {
    ($($int:ident $get:ident $add:ident $set:ident $from:ident $to:ident $order:literal;)*) => {
        impl Reader<'_> {$(
            #[doc = concat!("Reads a number in ", $order, " (`ibuf_", stringify!($get), "`).")]
            ///
            /// # Errors
            ///
            /// [`ReadError::Short`] when there are not enough bytes.
            #[inline]
            pub fn $get(&mut self) -> Result<$int, ReadError> {
                self.get_value().map($int::$from)
            }
        )*}

        impl<P> Writer<'_, P> {$(
            #[doc = concat!("Appends a number in ", $order, " (`ibuf_", stringify!($add), "`).")]
            ///
            /// # Errors
            ///
            /// As [`add`](Writer::add).
            #[inline]
            pub fn $add(&mut self, value: $int) -> Result<(), WriteError> {
                self.add(&value.$to())
            }
        )*

        $(
            #[doc = concat!(
                "Overwrites a number in ", $order, ", `offset` bytes from the start (`ibuf_",
                stringify!($set), "`)."
            )]
            ///
            /// # Errors
            ///
            /// As [`set`](Writer::set).
            #[inline]
            pub fn $set(&mut self, offset: usize, value: $int) -> Result<(), WriteError> {
                self.set(offset, &value.$to())
            }
        )*}
    };
}

numbers! {
    u8 get_n8 add_n8 set_n8 from_be_bytes to_be_bytes "a byte";
    u16 get_n16 add_n16 set_n16 from_be_bytes to_be_bytes "network order";
    u32 get_n32 add_n32 set_n32 from_be_bytes to_be_bytes "network order";
    u64 get_n64 add_n64 set_n64 from_be_bytes to_be_bytes "network order";
    u16 get_h16 add_h16 set_h16 from_ne_bytes to_ne_bytes "host order";
    u32 get_h32 add_h32 set_h32 from_ne_bytes to_ne_bytes "host order";
    u64 get_h64 add_h64 set_h64 from_ne_bytes to_ne_bytes "host order";
}
