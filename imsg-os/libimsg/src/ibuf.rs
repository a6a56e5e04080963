//! `struct ibuf`, and the functions of ibuf_add(3) that both interfaces share.
//!
//! A message and its bytes are one allocation, until it grows: the bytes lie behind the structure.
//! (A long one that was received may be two, as it is not copied then.)
//! Other buffers are two, as in C, as programs move the bytes from one structure to another.
//!
//! Programs see the fields, so these are as in C, and nothing else says what a buffer is: whether
//! its bytes are behind it is told by their address, and what is special about it by a negative
//! descriptor.

use std::ffi::c_char;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;

use imsg_wire::{Descriptor, Missing};
use libc::{c_int, c_void};

use crate::errno::{Answer, Errno, status};
use crate::memory;
use crate::queue::Entry;

const RANGE: Errno = Errno(libc::ERANGE);
const INVALID: Errno = Errno(libc::EINVAL);
const BAD_MESSAGE: Errno = Errno(libc::EBADMSG);
const OVERFLOW: Errno = Errno(libc::EOVERFLOW);

/// No descriptor; nor is any of the negative ones below.
pub(crate) const NO_FD: c_int = -1;
/// The modern interface made it over memory of the program's.
pub(crate) const ON_STACK: c_int = -2;
/// The classic interface did.
pub(crate) const ON_STACK_CLASSIC: c_int = -3;
/// A message was sent with a descriptor that is [missing](Missing), for the reason whose number is
/// taken off this.
const MISSING: c_int = -4;

/// A buffer. The bytes up to `wpos` were written, and of these, those up to `rpos` read.
#[derive(Debug)]
#[repr(C)]
pub struct Ibuf {
    pub(crate) entry: Entry,
    buf: *mut u8,
    size: usize,
    max: usize,
    wpos: usize,
    rpos: usize,
    fd: c_int,
}

impl Ibuf {
    /// One of memory of the program's.
    pub(crate) const fn on_stack(bytes: *mut u8, len: usize, fd: c_int) -> Self {
        Self { entry: Entry::NONE, buf: bytes, size: len, max: 0, wpos: len, rpos: 0, fd }
    }

    fn is_on_stack(&self) -> bool {
        matches!(self.fd, ON_STACK | ON_STACK_CLASSIC)
    }

    /// How many bytes are to be read.
    pub(crate) fn size(&self) -> usize {
        self.wpos.wrapping_sub(self.rpos)
    }

    pub(crate) fn left(&self) -> usize {
        if self.is_on_stack() { 0 } else { self.max.saturating_sub(self.wpos) }
    }

    pub(crate) fn data(&self) -> *mut u8 {
        self.buf.wrapping_add(self.rpos)
    }

    /// What is to be read.
    pub(crate) fn unread(&self) -> &[u8] {
        if self.size() == 0 {
            return &[];
        }
        // SAFETY: the bytes of a buffer are initialized, those from `rpos` to `wpos` lie within it,
        // and it is borrowed.
        unsafe { slice::from_raw_parts(self.data(), self.size()) }
    }

    pub(crate) fn rewind(&mut self) {
        self.rpos = 0;
    }

    pub(crate) fn set_max(&mut self, max: usize) -> Result<(), Errno> {
        if self.is_on_stack() {
            return Err(INVALID);
        }
        if max > self.max || max < self.wpos {
            return Err(RANGE);
        }
        if let Some(excess) = self.size.checked_sub(max) {
            // SAFETY: these are the last bytes of the buffer.
            unsafe { memory::wipe(self.buf.wrapping_add(max), excess) };
            self.size = max;
        }
        self.max = max;
        Ok(())
    }

    /// Where `len` more bytes are to be written.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, len: usize) -> Result<*mut u8, Errno> {
        let end = self.wpos.checked_add(len).ok_or(RANGE)?;
        match self.fd {
            ON_STACK => return Err(INVALID),
            ON_STACK_CLASSIC => return Err(RANGE),
            _ => {}
        }
        if end > self.size {
            self.grow(end)?;
        }
        let place = self.buf.wrapping_add(self.wpos);
        self.wpos = end;
        Ok(place)
    }

    /// Moves the bytes to memory of their own, of `need` bytes at least.
    #[cold]
    fn grow(&mut self, need: usize) -> Result<(), Errno> {
        if need > self.max {
            return Err(RANGE);
        }
        let size = self.size.saturating_mul(2).max(64).min(self.max).max(need);
        let bytes = memory::allocate(size)?.as_ptr();
        let behind = !self.is_behind();
        // SAFETY: both are memory of the lengths stated. What is new is overwritten whole. The old
        // bytes are this buffer's, and not used any more; when they are not behind it, they are an
        // allocation of their own.
        unsafe {
            if self.size > 0 {
                bytes.copy_from_nonoverlapping(self.buf, self.size);
                memory::wipe(self.buf, self.size);
            }
            bytes.add(self.size).write_bytes(0, size - self.size);
            if behind && let Some(old) = NonNull::new(self.buf) {
                memory::free(old);
            }
        }
        self.buf = bytes;
        self.size = size;
        Ok(())
    }

    /// Whether the bytes lie behind the structure. (Nothing else can, as there is always a byte.)
    fn is_behind(&self) -> bool {
        self.buf.addr() == ptr::from_ref(self).addr().wrapping_add(size_of::<Self>())
    }

    /// # Safety
    ///
    /// `data` are `len` bytes, not of this buffer.
    #[inline(always)]
    pub(crate) unsafe fn add(&mut self, data: *const u8, len: usize) -> Result<(), Errno> {
        if len == 0 {
            return Ok(());
        }
        let place = self.reserve(len)?;
        // SAFETY: so the caller promises; `reserve` gave as many bytes.
        unsafe { ptr::copy(data, place, len) };
        Ok(())
    }

    /// Adds what is to be read of this buffer.
    fn add_itself(&mut self) -> Result<(), Errno> {
        let len = self.size();
        let place = self.reserve(len)?;
        // SAFETY: `reserve` gave as many bytes, behind those that are to be read.
        unsafe { ptr::copy(self.data(), place, len) };
        Ok(())
    }

    #[inline]
    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        // SAFETY: this buffer cannot change while its bytes are borrowed.
        unsafe { self.add(bytes.as_ptr(), bytes.len()) }
    }

    fn add_zero(&mut self, len: usize) -> Result<(), Errno> {
        if len == 0 {
            return Ok(());
        }
        let place = self.reserve(len)?;
        // SAFETY: `reserve` gave as many bytes.
        unsafe { place.write_bytes(0, len) };
        Ok(())
    }

    /// # Safety
    ///
    /// `string` ends with a NUL, unless it has `len` bytes.
    unsafe fn add_strbuf(&mut self, string: *const c_char, len: usize) -> Result<(), Errno> {
        let kept = self.wpos;
        let place = self.reserve(len)?;
        // SAFETY: so the caller promises.
        let n = unsafe { libc::strnlen(string, len) };
        if n >= len {
            self.wpos = kept;
            return Err(OVERFLOW);
        }
        // SAFETY: the string has `n` bytes, and `reserve` gave more.
        unsafe {
            ptr::copy(string.cast(), place, n);
            place.add(n).write_bytes(0, len - n);
        }
        Ok(())
    }

    /// Where `len` bytes lie, `at` bytes behind those that were read.
    fn seek(&self, at: usize, len: usize) -> Result<*mut u8, Errno> {
        match at.checked_add(len) {
            Some(end) if end <= self.size() => Ok(self.data().wrapping_add(at)),
            _ => Err(RANGE),
        }
    }

    /// # Safety
    ///
    /// `data` are `len` bytes.
    unsafe fn set(&mut self, at: usize, data: *const u8, len: usize) -> Result<(), Errno> {
        let place = self.seek(at, len)?;
        if len > 0 {
            // SAFETY: so the caller promises; as many bytes lie at `place`.
            unsafe { ptr::copy(data, place, len) };
        }
        Ok(())
    }

    pub(crate) fn set_bytes(&mut self, at: usize, bytes: &[u8]) -> Result<(), Errno> {
        // SAFETY: these are bytes.
        unsafe { self.set(at, bytes.as_ptr(), bytes.len()) }
    }

    fn truncate(&mut self, len: usize) -> Result<(), Errno> {
        let size = self.size();
        if len <= size {
            self.wpos = self.rpos.wrapping_add(len);
            Ok(())
        } else if self.is_on_stack() {
            Err(RANGE)
        } else {
            self.add_zero(len - size)
        }
    }

    /// Goes on behind `len` bytes, and says where they lie.
    pub(crate) fn take(&mut self, len: usize) -> Result<*mut u8, Errno> {
        if self.size() < len {
            return Err(BAD_MESSAGE);
        }
        let data = self.data();
        self.rpos = self.rpos.wrapping_add(len);
        Ok(data)
    }

    /// # Safety
    ///
    /// `place` has room for `len` bytes.
    pub(crate) unsafe fn get(&mut self, place: *mut u8, len: usize) -> Result<(), Errno> {
        let data = self.take(len)?;
        if len > 0 {
            // SAFETY: so the caller promises; `take` gave as many bytes.
            unsafe { ptr::copy(data, place, len) };
        }
        Ok(())
    }

    pub(crate) fn get_bytes<const LEN: usize>(&mut self) -> Result<[u8; LEN], Errno> {
        let mut bytes = [0; LEN];
        // SAFETY: there is room for them.
        unsafe { self.get(bytes.as_mut_ptr(), LEN) }?;
        Ok(bytes)
    }

    /// # Safety
    ///
    /// `place` has room for `len` bytes.
    pub(crate) unsafe fn get_strbuf(
        &mut self,
        place: *mut c_char,
        len: usize,
    ) -> Result<(), Errno> {
        let last = len.checked_sub(1).ok_or(INVALID)?;
        // SAFETY: so the caller promises.
        unsafe { self.get(place.cast(), len) }?;
        // SAFETY: it looks at no more than those bytes.
        let end = unsafe { libc::strnlen(place, len) };
        // SAFETY: they lie within those bytes.
        unsafe { place.add(end.min(last)).write_bytes(0, len - end.min(last)) };
        if end < len { Ok(()) } else { Err(OVERFLOW) }
    }

    pub(crate) fn has_fd(&self) -> bool {
        self.fd >= 0
    }

    pub(crate) fn fd(&self) -> Option<c_int> {
        self.has_fd().then_some(self.fd)
    }

    /// The descriptor, which is the caller's then, or [`NO_FD`].
    pub(crate) fn take_fd(&mut self) -> c_int {
        if self.has_fd() { std::mem::replace(&mut self.fd, NO_FD) } else { NO_FD }
    }

    pub(crate) fn close_fd(&mut self) {
        close(self.take_fd());
    }

    /// Gives it a descriptor, which it owns then.
    pub(crate) fn set_fd(&mut self, fd: c_int) {
        abort_if(self.is_on_stack());
        self.close_fd();
        self.fd = fd.max(NO_FD);
    }

    /// Gives it what a message has.
    pub(crate) fn set_descriptor(&mut self, descriptor: Descriptor<OwnedFd>) {
        self.fd = match descriptor {
            Descriptor::None => NO_FD,
            Descriptor::Here(descriptor) => descriptor.into_raw_fd(),
            Descriptor::Missing(missing) => MISSING - reason(missing),
        };
    }

    /// Why there is no descriptor: 0, or the number of the reason.
    pub(crate) fn fd_reason(&self) -> c_int {
        MISSING.saturating_sub(self.fd).max(0)
    }
}

/// `IMSG_FD_NOT_ALLOWED` and so on.
pub(crate) fn reason(missing: Missing) -> c_int {
    match missing {
        Missing::NotAllowed => 1,
        Missing::Dropped => 2,
        Missing::NotSent => 3,
    }
}

/// Closes a descriptor, if it is one, and keeps `errno`.
pub(crate) fn close(fd: c_int) {
    if fd >= 0 {
        let kept = Errno::last();
        // SAFETY: this takes an integer; the descriptor belonged to the library.
        unsafe { libc::close(fd) };
        kept.set();
    }
}

/// What lives on the stack cannot be freed or queued. C stops there too, before it does more harm.
fn abort_if(wrong: bool) {
    if wrong {
        // SAFETY: it does not return.
        unsafe { libc::abort() };
    }
}

/// A buffer that is freed with this: its bytes are wiped, and its descriptor closed.
#[derive(Debug)]
pub(crate) struct OwnedIbuf(NonNull<Ibuf>);

impl OwnedIbuf {
    /// A buffer of `size` zeros that nothing was written to.
    pub(crate) fn zeroed(size: usize, max: usize) -> Result<Self, Errno> {
        let memory = memory::allocate_zeroed(Self::with(size)?)?;
        Ok(Self::in_memory(memory, size, max))
    }

    /// As [`zeroed`](Self::zeroed), but the bytes are an allocation of their own, or none.
    fn separate(size: usize, max: usize) -> Result<Self, Errno> {
        let mut buf = Self::zeroed(0, max)?;
        let bytes = match size {
            0 => ptr::null_mut(),
            _ => memory::allocate_zeroed(size)?.as_ptr(),
        };
        (buf.buf, buf.size) = (bytes, size);
        Ok(buf)
    }

    /// Gives a buffer that has no bytes such as were written elsewhere.
    ///
    /// # Safety
    ///
    /// They are initialized memory of `malloc`, which nothing else uses.
    pub(crate) unsafe fn set_memory(&mut self, bytes: NonNull<u8>, len: usize) {
        (self.buf, self.size, self.max, self.wpos) = (bytes.as_ptr(), len, len, len);
    }

    /// A buffer of bytes.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, Errno> {
        // SAFETY: they are written below, all of them.
        let mut buf = unsafe { Self::unwritten(bytes.len(), bytes.len()) }?;
        buf.add_bytes(bytes)?;
        Ok(buf)
    }

    /// A buffer of `size` bytes that nothing was written to.
    ///
    /// # Safety
    ///
    /// They are written before anything else can read them.
    pub(crate) unsafe fn unwritten(size: usize, max: usize) -> Result<Self, Errno> {
        Ok(Self::in_memory(memory::allocate(Self::with(size)?)?, size, max))
    }

    /// The length of a buffer and its bytes, and at least one.
    fn with(size: usize) -> Result<usize, Errno> {
        size.max(1).checked_add(size_of::<Ibuf>()).ok_or(Errno(libc::ENOMEM))
    }

    /// Takes memory that has room for the structure and `size` bytes, and is aligned for all types.
    fn in_memory(memory: NonNull<u8>, size: usize, max: usize) -> Self {
        let buf = memory.cast::<Ibuf>();
        let bytes = memory.as_ptr().wrapping_add(size_of::<Ibuf>());
        let empty = Ibuf { entry: Entry::NONE, buf: bytes, size, max, wpos: 0, rpos: 0, fd: NO_FD };
        // SAFETY: `malloc` gave room for it, aligned for all types.
        unsafe { buf.write(empty) };
        Self(buf)
    }

    /// A buffer that the program gives up; stops the program when it lives on the stack.
    ///
    /// # Safety
    ///
    /// It is a buffer of this library that nothing else owns.
    pub(crate) unsafe fn from_raw(buf: *mut Ibuf) -> Self {
        // SAFETY: so the caller promises.
        abort_if(unsafe { &*buf }.is_on_stack());
        // SAFETY: as above. The pointer itself is kept, and not one of a reference to the structure,
        // as that is not one to the bytes behind it.
        Self(unsafe { NonNull::new_unchecked(buf) })
    }

    pub(crate) fn into_raw(self) -> *mut Ibuf {
        let buf = self.0.as_ptr();
        std::mem::forget(self);
        buf
    }

    /// Drops the last buffer of a queue of which this many bytes were sent since one was empty. Its
    /// memory is [freed](memory::free_later) with the next such one, if that pays: some dozens like it
    /// are much. But a heap that has grown for a peer that did not read is given back.
    pub(crate) fn drop_last(self, sent: usize) {
        const MUCH: usize = 4 << 20;
        if sent > MUCH || !(2048..=65536).contains(&self.size) || !self.is_behind() {
            drop(self);
            memory::free_kept();
            return;
        }
        let mut buf = ManuallyDrop::new(self);
        buf.close_fd();
        // SAFETY: as in `drop`: the bytes lie behind the structure, and nothing uses either any more.
        unsafe {
            memory::wipe(buf.buf, buf.size);
            memory::free_later(buf.0.cast());
        }
    }
}

impl Deref for OwnedIbuf {
    type Target = Ibuf;

    fn deref(&self) -> &Ibuf {
        // SAFETY: it is there, and owned by this.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for OwnedIbuf {
    fn deref_mut(&mut self) -> &mut Ibuf {
        // SAFETY: as above.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for OwnedIbuf {
    #[inline(never)]
    fn drop(&mut self) {
        self.close_fd();
        let (bytes, size, behind) = (self.buf, self.size, self.is_behind());
        // SAFETY: the bytes are this buffer's; when they are not behind it, they are an allocation
        // of their own. Nothing uses either any more.
        unsafe {
            if !bytes.is_null() {
                memory::wipe(bytes, size);
            }
            if !behind && let Some(bytes) = NonNull::new(bytes) {
                memory::free(bytes);
            }
            memory::free(self.0.cast());
        }
    }
}

/// A buffer for the program, or null and `errno`.
pub(crate) fn give(buf: Result<OwnedIbuf, Errno>) -> *mut Ibuf {
    buf.map(OwnedIbuf::into_raw).answer(ptr::null_mut())
}

// What C programs call. All take what ibuf_add(3) says: pointers to a buffer of this library, or to
// one on the stack that it initialized, and to as much memory as the length beside it says. That is
// what their `SAFETY` comments rest on.

/// Makes a buffer of a size that does not change.
#[unsafe(no_mangle)]
pub extern "C" fn ibuf_open(len: usize) -> *mut Ibuf {
    if len == 0 {
        return give(Err(INVALID));
    }
    ibuf_open_modern(len)
}

/// Makes a buffer of a size that does not change, and may be none.
#[unsafe(no_mangle)]
pub extern "C" fn ibuf_open_modern(len: usize) -> *mut Ibuf {
    give(OwnedIbuf::separate(len, len))
}

/// Makes a buffer that grows up to `max` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn ibuf_dynamic(len: usize, max: usize) -> *mut Ibuf {
    if max == 0 || max < len {
        return give(Err(INVALID));
    }
    give(OwnedIbuf::separate(len, max))
}

/// Frees a buffer: wipes it, and closes its descriptor. Keeps `errno`.
///
/// # Safety
///
/// As ibuf_add(3) has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibuf_free(buf: *mut Ibuf) {
    if !buf.is_null() {
        let kept = Errno::last();
        // SAFETY: the program gives it up.
        drop(unsafe { OwnedIbuf::from_raw(buf) });
        kept.set();
    }
}

/// Declares functions that take a buffer first, as `&mut Ibuf`.
macro_rules! functions {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($buf:ident $(, $arg:ident: $type:ty)* $(,)?) $(-> $result:ty)? $body:block
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As ibuf_add(3) has it.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($buf: *mut Ibuf $(, $arg: $type)*) $(-> $result)? {
            // SAFETY: it points to a buffer, which no other thread uses.
            let $buf = unsafe { &mut *$buf };
            $body
        }
    )*};
}

functions! {
    /// Writes bytes.
    fn ibuf_add(buf, data: *const c_void, len: usize) -> c_int {
        // SAFETY: the program says that they are as many.
        status(unsafe { buf.add(data.cast(), len) })
    }

    /// Writes zeros.
    fn ibuf_add_zero(buf, len: usize) -> c_int {
        status(buf.add_zero(len))
    }

    /// Writes a string to a field of `len` bytes, with zeros behind it.
    fn ibuf_add_strbuf_modern(buf, string: *const c_char, len: usize) -> c_int {
        // SAFETY: the program says that it is a string.
        status(unsafe { buf.add_strbuf(string, len) })
    }

    /// Says where `len` bytes can be written, which count as written.
    fn ibuf_reserve(buf, len: usize) -> *mut c_void {
        buf.reserve(len).map(<*mut u8>::cast).answer(ptr::null_mut())
    }

    /// Says where bytes lie that were written and not read.
    fn ibuf_seek(buf, pos: usize, len: usize) -> *mut c_void {
        buf.seek(pos, len).map(<*mut u8>::cast).answer(ptr::null_mut())
    }

    /// Overwrites bytes that were written and not read.
    fn ibuf_set(buf, pos: usize, data: *const c_void, len: usize) -> c_int {
        // SAFETY: the program says that they are as many.
        status(unsafe { buf.set(pos, data.cast(), len) })
    }

    /// Lowers the maximum.
    fn ibuf_set_maxsize_modern(buf, max: usize) -> c_int {
        status(buf.set_max(max))
    }

    /// Cuts off what is to be read, or adds zeros to it.
    fn ibuf_truncate(buf, len: usize) -> c_int {
        status(buf.truncate(len))
    }

    /// Starts reading over.
    fn ibuf_rewind(buf) {
        buf.rewind();
    }

    /// Reads bytes.
    fn ibuf_get(buf, data: *mut c_void, len: usize) -> c_int {
        // SAFETY: the program says that there is room.
        status(unsafe { buf.get(data.cast(), len) })
    }

    /// Reads bytes into a string of the program's, which frees it; null and `errno` if it cannot.
    fn ibuf_get_string_modern(buf, len: usize) -> *mut c_char {
        let unread = buf.unread();
        let Some(field) = unread.get(..len) else {
            return Err(BAD_MESSAGE).answer(ptr::null_mut());
        };
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(len);
        let string = memory::allocate(end.saturating_add(1)).map(|place| {
            // SAFETY: there is room for the string, which is not longer than the field, and a NUL.
            unsafe {
                place.copy_from_nonoverlapping(NonNull::from(field).cast(), end);
                place.add(end).write(0);
            }
            place.as_ptr().cast()
        });
        if string.is_ok() {
            buf.rpos = buf.rpos.wrapping_add(len);
        }
        string.answer(ptr::null_mut())
    }

    /// Reads a string from a field of `len` bytes, which a NUL has to end.
    fn ibuf_get_strbuf_modern(buf, string: *mut c_char, len: usize) -> c_int {
        // SAFETY: the program says that there is room.
        status(unsafe { buf.get_strbuf(string, len) })
    }

    /// Goes over bytes.
    fn ibuf_skip(buf, len: usize) -> c_int {
        status(buf.take(len).map(drop))
    }

    /// Whether there is a descriptor.
    fn ibuf_fd_avail(buf) -> c_int {
        buf.has_fd().into()
    }

    /// Takes the descriptor out, or -1.
    fn ibuf_fd_get(buf) -> c_int {
        buf.take_fd()
    }

    /// Gives it a descriptor, and closes the one that it had.
    fn ibuf_fd_set(buf, fd: c_int) {
        buf.set_fd(fd);
    }

    /// Lowers the maximum of a message, in bytes of payload.
    fn imsg_set_maxsize_modern(buf, max: usize) -> c_int {
        let len = u32::try_from(max).ok().and_then(|max| max.checked_add(HEADER));
        status(len.ok_or(RANGE).and_then(|len| buf.set_max(len as usize)))
    }
}

/// Writes what is to be read of another buffer, or of the same.
///
/// # Safety
///
/// As ibuf_add(3) has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibuf_add_ibuf(buf: *mut Ibuf, from: *const Ibuf) -> c_int {
    let itself = ptr::eq(buf, from);
    // SAFETY: it points to a buffer.
    let (data, len) = unsafe { ((*from).data(), (*from).size()) };
    // SAFETY: it points to a buffer, which no other thread uses, and to which nothing refers here.
    let buf = unsafe { &mut *buf };
    if itself {
        return status(buf.add_itself());
    }
    // SAFETY: these are bytes of the other buffer.
    status(unsafe { buf.add(data, len) })
}

/// As `ibuf_add_ibuf`, whose name it was before.
///
/// # Safety
///
/// As ibuf_add(3) has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibuf_add_buf(buf: *mut Ibuf, from: *const Ibuf) -> c_int {
    // SAFETY: the program promises the same for both.
    unsafe { ibuf_add_ibuf(buf, from) }
}

/// Declares functions that write to a message, and free it when that fails.
macro_rules! freeing {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($buf:ident $(, $arg:ident: $type:ty)*) -> c_int $write:block => $answer:expr;
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As ibuf_add(3) has it.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(place: *mut Ibuf $(, $arg: $type)*) -> c_int {
            let written = {
                // SAFETY: it points to a buffer, which no other thread uses.
                let $buf = unsafe { &mut *place };
                $write
            };
            if written.is_err() {
                // SAFETY: the program gives it up then.
                unsafe { ibuf_free(place) };
            }
            written.map(|()| $answer).answer(-1)
        }
    )*};
}

freeing! {
    /// Writes to a message, and gives the bytes written; frees it when that fails.
    fn imsg_add(buf, data: *const c_void, len: usize) -> c_int {
        // SAFETY: the program says that they are as many.
        unsafe { buf.add(data.cast(), len) }
    } => len as c_int;

    /// Writes to a message; frees it when that fails.
    fn imsg_add_modern(buf, data: *const c_void, len: usize) -> c_int {
        // SAFETY: the program says that they are as many.
        unsafe { buf.add(data.cast(), len) }
    } => 0;

    /// Writes a string to a field of a message, with zeros behind it; frees that when it fails.
    fn imsg_add_strbuf_modern(buf, string: *const c_char, len: usize) -> c_int {
        // SAFETY: the program says that it is a string.
        unsafe { buf.add_strbuf(string, len) }
    } => 0;
}

/// The bytes of a header.
const HEADER: u32 = imsg_wire::HEADER_LEN as u32;

/// Where the bytes lie that are to be read.
///
/// # Safety
///
/// As ibuf_add(3) has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibuf_data(buf: *const Ibuf) -> *mut c_void {
    // SAFETY: it points to a buffer.
    unsafe { &*buf }.data().cast()
}

/// How many bytes are to be read.
///
/// # Safety
///
/// As ibuf_add(3) has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibuf_size(buf: *const Ibuf) -> usize {
    // SAFETY: it points to a buffer.
    unsafe { &*buf }.size()
}

/// How many bytes can be written.
///
/// # Safety
///
/// As ibuf_add(3) has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibuf_left(buf: *const Ibuf) -> usize {
    // SAFETY: it points to a buffer.
    unsafe { &*buf }.left()
}

/// Declares what reads, writes and overwrites a number.
macro_rules! numbers {
    ($($type:ty: $to:ident $from:ident $add:ident $set:ident $get:ident;)*) => {
        functions! {$(
            /// Writes a number, unless it is too large.
            fn $add(buf, value: u64) -> c_int {
                let value = <$type>::try_from(value).map_err(|_| INVALID);
                status(value.and_then(|value| buf.add_bytes(&value.$to())))
            }

            /// Overwrites a number, unless it is too large.
            fn $set(buf, pos: usize, value: u64) -> c_int {
                let value = <$type>::try_from(value).map_err(|_| INVALID);
                status(value.and_then(|value| buf.set_bytes(pos, &value.$to())))
            }

            /// Reads a number.
            fn $get(buf, value: *mut $type) -> c_int {
                status(buf.get_bytes().map(|bytes| {
                    // SAFETY: the program says that there is room for one.
                    unsafe { value.write_unaligned(<$type>::$from(bytes)) };
                }))
            }
        )*}
    };
}

numbers! {
    u8: to_be_bytes from_be_bytes ibuf_add_n8 ibuf_set_n8 ibuf_get_n8;
    u16: to_be_bytes from_be_bytes ibuf_add_n16 ibuf_set_n16 ibuf_get_n16;
    u32: to_be_bytes from_be_bytes ibuf_add_n32 ibuf_set_n32 ibuf_get_n32;
    u64: to_be_bytes from_be_bytes ibuf_add_n64 ibuf_set_n64 ibuf_get_n64;
    u16: to_ne_bytes from_ne_bytes ibuf_add_h16 ibuf_set_h16 ibuf_get_h16;
    u32: to_ne_bytes from_ne_bytes ibuf_add_h32 ibuf_set_h32 ibuf_get_h32;
    u64: to_ne_bytes from_ne_bytes ibuf_add_h64 ibuf_set_h64 ibuf_get_h64;
}

/// Declares what makes a buffer on the stack: each interface marks it in its own way.
macro_rules! on_stack {
    ($($fd:expr, $from_buffer:ident, $from_ibuf:ident, $get_ibuf:ident;)*) => {$(
        /// Makes a buffer over memory of the program's, to be read.
        ///
        /// # Safety
        ///
        /// As ibuf_add(3) has it.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $from_buffer(buf: *mut Ibuf, data: *mut c_void, len: usize) {
            // SAFETY: there is room for a buffer, of any content.
            unsafe { buf.write(Ibuf::on_stack(data.cast(), len, $fd)) };
        }

        /// Makes a buffer of what is to be read of another one.
        ///
        /// # Safety
        ///
        /// As ibuf_add(3) has it.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $from_ibuf(buf: *mut Ibuf, from: *const Ibuf) {
            // SAFETY: it points to a buffer.
            let from = unsafe { &*from };
            // SAFETY: there is room for a buffer, of any content.
            unsafe { $from_buffer(buf, from.data().cast(), from.size()) };
        }

        functions! {
            /// Reads bytes into a buffer of their own, which lie where they lay.
            fn $get_ibuf(buf, len: usize, new: *mut Ibuf) -> c_int {
                status(buf.take(len).map(|data| {
                    // SAFETY: there is room for a buffer, of any content.
                    unsafe { $from_buffer(new, data.cast(), len) };
                }))
            }
        }
    )*};
}

on_stack! {
    ON_STACK_CLASSIC, ibuf_from_buffer, ibuf_from_ibuf, ibuf_get_ibuf;
    ON_STACK, ibuf_from_buffer_modern, ibuf_from_ibuf_modern, ibuf_get_ibuf_modern;
}

#[cfg(test)]
mod tests {
    use super::*;

    // What these show, Miri sees.

    #[test]
    fn a_message_that_cannot_be_written_to_is_freed() {
        let buf = ibuf_open(1);
        // SAFETY: it is a buffer, and there are as many bytes.
        assert_eq!(unsafe { imsg_add(buf, c"ab".as_ptr().cast(), 2) }, -1);
    }

    #[test]
    fn a_buffer_is_added_to_itself() {
        let buf = ibuf_dynamic(4, 16);
        // SAFETY: it is a buffer, there are as many bytes, and it is freed once.
        unsafe {
            assert_eq!(ibuf_add(buf, c"abcd".as_ptr().cast(), 4), 0);
            assert_eq!(ibuf_add_ibuf(buf, buf), 0);
            assert_eq!((*buf).unread(), b"abcdabcd");
            ibuf_free(buf);
        }
    }
}
