//! Reading a payload.

use core::ffi::CStr;
use core::fmt;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::count::Count;
use crate::abbreviated::Abbreviated;
use crate::error::ReadError;

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

    /// Reads bytes behind their length, which is a number of type `L`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Short`] when they are not all there.
    #[inline]
    pub fn get_counted<L: Count>(&mut self) -> Result<&'a [u8], ReadError> {
        self.counted::<L, _>(Ok)
    }

    /// Reads a string behind its length, which is a number of type `L`. It is not terminated.
    ///
    /// # Errors
    ///
    /// [`ReadError::NotUtf8`] when it is no text, [`ReadError::Short`] when it is not all there.
    #[inline]
    pub fn get_counted_str<L: Count>(&mut self) -> Result<&'a str, ReadError> {
        self.counted::<L, _>(|bytes| core::str::from_utf8(bytes).map_err(|_| ReadError::NotUtf8))
    }

    fn counted<L: Count, T>(
        &mut self,
        of: impl FnOnce(&'a [u8]) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let mut reader = *self;
        let count: L = reader.get_value()?;
        let value = of(reader.get(count.get())?)?;
        *self = reader;
        Ok(value)
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
