//! The modern interface: imsgbuf_init(3) and what of ibuf_add(3) goes with it, as in libutil today.
//!
//! All of these have a symbol that ends in `_modern`; the header knows. Classic programs have functions
//! of some of the plain names, and look for others to find out which interface there is.

use std::ffi::CStr;
use std::ptr::{self, NonNull};

use imsg_wire::{DEFAULT_MAX_LEN, Dialect, HEADER_LEN, Modern};
use libc::{c_char, c_int, c_void, iovec, pid_t, ssize_t};

use crate::compose::{Piece, Terms, pieces};
use crate::dialect::Native;
use crate::errno::{Answer, Errno, status};
use crate::framing::{Framing, ReadHeader};
use crate::ibuf::{Ibuf, NO_FD, ON_STACK, OwnedIbuf, give, ibuf_free};
use crate::memory::{self, Memory};
use crate::queue::Queue;
use crate::receive::{Incoming, Part, Read, Source};
use crate::send;

const INVALID: Errno = Errno(libc::EINVAL);
const BAD_MESSAGE: Errno = Errno(libc::EBADMSG);

/// `struct imsgbuf`.
#[derive(Debug)]
#[repr(C)]
pub struct Imsgbuf {
    w: *mut Msgbuf,
    cb: Option<Callback>,
    userdata: *mut c_void,
    pid: pid_t,
    maxsize: u32,
    fd: c_int,
    flags: c_int,
}

/// What a program gives, to be told of each message that is queued.
pub type Callback = unsafe extern "C" fn(imsgbuf: *mut Imsgbuf, userdata: *mut c_void);

/// Descriptors may be passed.
const ALLOW_FDPASS: c_int = 1;

/// `struct msgbuf`, which programs do not see into.
#[allow(missing_debug_implementations, reason = "programs in C do not print it so")]
pub struct Msgbuf {
    /// To be written.
    queue: Queue,
    /// What was received, and taken out of the reader, as that was full.
    received: Queue,
    reader: Reader,
}

/// What reads.
#[allow(clippy::large_enum_variant, reason = "it is in memory of its own")]
enum Reader {
    /// Nothing: it only writes.
    None,
    /// The rules of imsg.
    Imsg(Incoming, Native),
    /// Those of the program, whose function may use the queue that this reads for.
    Own(NonNull<Framing>),
}

/// `struct imsg_hdr`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ImsgHdr {
    msg_type: u32,
    len: u32,
    peerid: u32,
    pid: u32,
}

/// `struct imsg`.
#[derive(Debug)]
#[repr(C)]
pub struct Imsg {
    hdr: ImsgHdr,
    data: *mut c_void,
    buf: *mut Ibuf,
}

/// What programs see lies where it lies in C.
const _: () = {
    assert!(size_of::<ImsgHdr>() == HEADER_LEN);
    if size_of::<usize>() == 8 {
        assert!(size_of::<Imsgbuf>() == 40);
        assert!(std::mem::offset_of!(Imsgbuf, cb) == 8);
        assert!(std::mem::offset_of!(Imsgbuf, userdata) == 16);
        assert!(std::mem::offset_of!(Imsgbuf, pid) == 24);
        assert!(std::mem::offset_of!(Imsgbuf, maxsize) == 28);
        assert!(std::mem::offset_of!(Imsgbuf, fd) == 32);
        assert!(std::mem::offset_of!(Imsgbuf, flags) == 36);
        assert!(size_of::<Imsg>() == 32);
        assert!(std::mem::offset_of!(Imsg, data) == 16);
        assert!(std::mem::offset_of!(Imsg, buf) == 24);
    }
};

impl Msgbuf {
    fn give(reader: Result<Reader, Errno>) -> *mut Self {
        let place = reader.and_then(|reader| {
            memory::put(Self { queue: Queue::new(), received: Queue::new(), reader })
        });
        place.map(NonNull::as_ptr).answer(ptr::null_mut())
    }

    /// # Safety
    ///
    /// It is there. A function of the program may use it too: nothing refers to it while that is
    /// called.
    unsafe fn read(this: *mut Self, fd: c_int, source: Source) -> Result<Read, Errno> {
        // SAFETY: so the caller promises.
        let Self { received, reader, .. } = unsafe { &mut *this };
        match reader {
            Reader::None => Err(INVALID),
            Reader::Imsg(incoming, _) => {
                let read = read_messages(incoming, received, fd, source);
                // What broke the stream comes when no message before it is left.
                if read.is_err() && incoming.is_broken() && received.len() > 0 {
                    return Ok(Read::WouldBlock);
                }
                read
            }
            Reader::Own(framing) => {
                let framing = framing.as_ptr();
                // SAFETY: the reader has it; and as above.
                unsafe { Framing::read(framing, fd, source, &raw mut (*this).received) }
            }
        }
    }

    /// Takes a message that is complete, with its header.
    fn get(&mut self) -> Result<Option<OwnedIbuf>, Errno> {
        match &mut self.reader {
            Reader::Imsg(incoming, _) if self.received.len() == 0 => whole(incoming),
            _ => Ok(self.received.pop()),
        }
    }

    fn clear(&mut self) {
        self.queue.clear();
        self.received.clear();
        match &mut self.reader {
            Reader::None => {}
            Reader::Imsg(incoming, _) => incoming.reset(),
            // SAFETY: the reader has it.
            Reader::Own(framing) => unsafe { framing.as_mut() }.reset(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Self::Own(framing) = self {
            // SAFETY: this has it, and it is not used any more.
            unsafe {
                ptr::drop_in_place(framing.as_ptr());
                memory::free(framing.cast());
            }
        }
    }
}

/// Reads once, by the rules of imsg. What was received before and not taken goes to a queue when it
/// fills the buffer.
fn read_messages(
    incoming: &mut Incoming,
    received: &mut Queue,
    fd: c_int,
    source: Source,
) -> Result<Read, Errno> {
    if source == Source::Socket {
        incoming.allow_descriptors();
    }
    loop {
        match incoming.read(fd, source)? {
            // The program reads on without taking messages, as it may.
            Read::Full => {
                while let Some(buf) = whole(incoming)? {
                    received.push(buf);
                }
            }
            read @ Read::Bytes(_) => {
                if received.len() == 0 {
                    incoming.check()?;
                }
                return Ok(read);
            }
            read => return Ok(read),
        }
    }
}

/// Takes a message with its header.
#[inline(never)]
fn whole(incoming: &mut Incoming) -> Result<Option<OwnedIbuf>, Errno> {
    let Some(taken) = incoming.next(Part::Message)? else {
        return Ok(None);
    };
    Ok(taken.buf.map(|mut buf| {
        buf.set_descriptor(taken.descriptor);
        buf
    }))
}

impl Imsgbuf {
    fn msgbuf(&mut self) -> Result<&mut Msgbuf, Errno> {
        // SAFETY: it is null, or what `imsgbuf_init` or the program put there.
        unsafe { self.w.as_mut() }.ok_or(INVALID)
    }

    fn incoming(&mut self) -> Result<&mut Incoming, Errno> {
        match &mut self.msgbuf()?.reader {
            Reader::Imsg(incoming, _) => Ok(incoming),
            _ => Err(INVALID),
        }
    }

    fn dialect(&mut self) -> Native {
        match self.msgbuf().map(|msgbuf| &msgbuf.reader) {
            Ok(Reader::Imsg(_, dialect)) => *dialect,
            _ => Native::Modern,
        }
    }

    /// The largest message, header included.
    fn max_len(&self, dialect: Native) -> usize {
        (self.maxsize as usize).min(dialect.max_len())
    }

    fn terms(&mut self) -> Terms {
        let dialect = self.dialect();
        Terms { dialect, max_len: self.max_len(dialect), pid: self.pid as u32 }
    }

    /// # Safety
    ///
    /// As [`Msgbuf::read`].
    unsafe fn read(this: *mut Self) -> Result<Read, Errno> {
        // SAFETY: so the caller promises.
        let imsgbuf = unsafe { &mut *this };
        // The program can set it by itself.
        imsgbuf.limit();
        let allowed = imsgbuf.flags & ALLOW_FDPASS != 0;
        let source = if allowed { Source::Socket } else { Source::Any };
        let msgbuf: *mut Msgbuf = imsgbuf.msgbuf()?;
        // SAFETY: as above.
        unsafe { Msgbuf::read(msgbuf, imsgbuf.fd, source) }
    }

    /// Has the maximum be that of what is received too.
    fn limit(&mut self) {
        let dialect = self.dialect();
        let max_len = self.max_len(dialect);
        if let Ok(incoming) = self.incoming() {
            incoming.set_max_len(max_len);
        }
    }

    fn write(&mut self) -> Result<bool, Errno> {
        let (fd, allowed) = (self.fd, self.flags & ALLOW_FDPASS != 0);
        let queue = &mut self.msgbuf()?.queue;
        if allowed { send::send(queue, fd) } else { send::write(queue, fd) }
    }

    /// Queues a message.
    ///
    /// # Safety
    ///
    /// As [`Terms::compose`].
    unsafe fn compose(
        &mut self,
        msg_type: u32,
        id: u32,
        pid: pid_t,
        fd: c_int,
        payload: impl Iterator<Item = Piece> + Clone,
    ) -> Result<(), Errno> {
        let terms = self.terms();
        let header = terms.header(msg_type, id, pid);
        // SAFETY: so the caller promises.
        unsafe { terms.compose(&mut self.msgbuf()?.queue, header, fd, payload) }
    }

    /// Tells the program that a message was queued. It may do anything with this then, also free it.
    ///
    /// # Safety
    ///
    /// It points to one, to which nothing refers.
    unsafe fn queued(this: *mut Self) {
        // SAFETY: so the caller promises.
        let (callback, userdata) = unsafe { ((*this).cb, (*this).userdata) };
        if let Some(callback) = callback {
            // SAFETY: the program gave it, to be called so.
            unsafe { callback(this, userdata) };
        }
    }

    /// Sends until the queue is empty, and waits where the socket is full.
    fn flush(&mut self) -> Result<(), Errno> {
        while self.msgbuf()?.queue.len() > 0 {
            match self.write() {
                Err(error) if is_full(error) => send::wait(self.fd)?,
                result => {
                    result?;
                }
            }
        }
        Ok(())
    }
}

/// What a new buffer speaks: the modern dialect, unless the environment says otherwise, which it
/// cannot in a program that has more rights than who started it.
fn default_dialect() -> Native {
    let name = c"IMSG_DIALECT";
    // SAFETY: the name is a string. What is found stays until the program changes its environment,
    // and is not used any more then.
    let value = unsafe {
        let value = environment(name);
        if value.is_null() { None } else { Some(CStr::from_ptr(value)) }
    };
    if value == Some(c"classic") { Native::Classic } else { Native::Modern }
}

/// # Safety
///
/// No other thread changes the environment.
unsafe fn environment(name: &CStr) -> *const c_char {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        unsafe extern "C" {
            fn getauxval(kind: libc::c_ulong) -> libc::c_ulong;
        }
        // SAFETY: this takes an integer, and only tells.
        if unsafe { getauxval(libc::AT_SECURE) } != 0 {
            return ptr::null();
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        unsafe extern "C" {
            fn issetugid() -> c_int;
        }
        // SAFETY: this only tells.
        if unsafe { issetugid() } != 0 {
            return ptr::null();
        }
    }
    // SAFETY: the name ends with a NUL, and so the caller promises.
    unsafe { libc::getenv(name.as_ptr()) }
}

#[inline(never)]
fn new_incoming(dialect: Native) -> Result<Incoming, Errno> {
    // One byte more than C has, so that the kernel copies whole pages.
    Ok(Incoming::new(dialect, Memory::new(1 << 16)?))
}

/// Whether the socket takes no more now.
fn is_full(Errno(number): Errno) -> bool {
    number == libc::EAGAIN || number == libc::ENOBUFS
}

/// Makes a message of a buffer that has its header too.
fn message(mut buf: OwnedIbuf) -> Result<Imsg, Errno> {
    let frame = Modern::new().decode(&buf.get_bytes::<HEADER_LEN>()?);
    let hdr = ImsgHdr {
        msg_type: frame.header.msg_type,
        len: u32::try_from(frame.len).unwrap_or(u32::MAX),
        peerid: frame.header.id,
        pid: frame.header.pid,
    };
    let data = if buf.size() > 0 { buf.data().cast() } else { ptr::null_mut() };
    Ok(Imsg { hdr, data, buf: buf.into_raw() })
}

impl Imsg {
    fn buf(&mut self) -> Result<&mut Ibuf, Errno> {
        // SAFETY: it is null, or the buffer that the message was given.
        unsafe { self.buf.as_mut() }.ok_or(BAD_MESSAGE)
    }
}

/// Hands a message out: 1, 0 when there is none, or -1.
///
/// # Safety
///
/// There is room for a message, of any content.
unsafe fn hand_out(buf: Result<Option<OwnedIbuf>, Errno>, imsg: *mut Imsg) -> c_int {
    let taken = buf.and_then(|buf| buf.map(message).transpose());
    taken
        .map(|taken| match taken {
            Some(message) => {
                // SAFETY: so the caller promises.
                unsafe { imsg.write(message) };
                1
            }
            None => 0,
        })
        .answer(-1)
}

/// 1 when a read brought something or would have to wait, 0 at the end, or -1.
fn read_status(read: Result<Read, Errno>) -> c_int {
    read.map(|read| if read == Read::Closed { 0 } else { 1 }).answer(-1)
}

/// 0 when something was written or the socket is full, or -1.
fn write_status(written: Result<bool, Errno>) -> c_int {
    match written {
        Err(error) if !is_full(error) => Err(error).answer(-1),
        _ => 0,
    }
}

/// Declares functions that take a structure of the program's first, as a reference, and what their
/// symbols are.
macro_rules! functions {
    ($(
        $(#[$doc:meta])*
        fn $name:ident as $symbol:literal ($first:ident: $struct:ty $(, $arg:ident: $type:ty)* $(,)?)
            $(-> $result:ty)? $body:block
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As imsgbuf_init(3) and ibuf_add(3) have it.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $name(
            $first: *mut $struct $(, $arg: $type)*
        ) $(-> $result)? {
            // SAFETY: it points to one, which no other thread uses.
            let $first = unsafe { &mut *$first };
            $body
        }
    )*};
}

/// Initializes a buffer for the messages of a socket: 0, or -1.
///
/// # Safety
///
/// As imsgbuf_init(3) has it.
#[unsafe(export_name = "imsgbuf_init_modern")]
pub unsafe extern "C" fn imsgbuf_init(imsgbuf: *mut Imsgbuf, fd: c_int) -> c_int {
    let dialect = default_dialect();
    let w = Msgbuf::give(new_incoming(dialect).map(|incoming| Reader::Imsg(incoming, dialect)));
    // SAFETY: this only tells.
    let pid = unsafe { libc::getpid() };
    let (cb, userdata, maxsize) = (None, ptr::null_mut(), DEFAULT_MAX_LEN as u32);
    let new = Imsgbuf { w, cb, userdata, pid, maxsize, fd, flags: 0 };
    // SAFETY: it may be written to, whatever is in it.
    unsafe { imsgbuf.write(new) };
    if w.is_null() { -1 } else { 0 }
}

/// Makes a queue to be written.
#[unsafe(export_name = "msgbuf_new_modern")]
pub extern "C" fn msgbuf_new() -> *mut Msgbuf {
    Msgbuf::give(Ok(Reader::None))
}

/// Makes a queue to be written, and a reader of messages that the program delimits.
///
/// # Safety
///
/// As ibuf_add(3) has it.
#[unsafe(export_name = "msgbuf_new_reader_modern")]
pub unsafe extern "C" fn msgbuf_new_reader(
    header_len: usize,
    read_header: ReadHeader,
    arg: *mut c_void,
) -> *mut Msgbuf {
    // SAFETY: so the program says.
    let framing = unsafe { Framing::new(header_len, read_header, arg) };
    Msgbuf::give(framing.and_then(memory::put).map(Reader::Own))
}

/// Frees a queue, and all that is in it.
///
/// # Safety
///
/// As ibuf_add(3) has it.
#[unsafe(export_name = "msgbuf_free_modern")]
pub unsafe extern "C" fn msgbuf_free(msgbuf: *mut Msgbuf) {
    let Some(place) = NonNull::new(msgbuf) else {
        return;
    };
    // SAFETY: it is of this library, and the program gives it up.
    unsafe {
        (*msgbuf).clear();
        ptr::drop_in_place(msgbuf);
        // It was made on the stack, and may have taken something of that with it.
        memory::wipe(msgbuf.cast(), size_of::<Msgbuf>());
        memory::free(place.cast());
    }
}

/// Makes an empty queue.
#[unsafe(export_name = "ibufq_new_modern")]
pub extern "C" fn ibufq_new() -> *mut Queue {
    memory::put(Queue::new()).map(NonNull::as_ptr).answer(ptr::null_mut())
}

/// Frees a queue, and all that is in it.
///
/// # Safety
///
/// As ibuf_add(3) has it.
#[unsafe(export_name = "ibufq_free_modern")]
pub unsafe extern "C" fn ibufq_free(queue: *mut Queue) {
    if let Some(mut place) = NonNull::new(queue) {
        // SAFETY: it is of this library, and the program gives it up.
        unsafe {
            place.as_mut().clear();
            memory::free(place.cast());
        }
    }
}

functions! {
    /// Allows descriptors to be passed.
    fn imsgbuf_allow_fdpass as "imsgbuf_allow_fdpass_modern"(imsgbuf: Imsgbuf) {
        imsgbuf.flags |= ALLOW_FDPASS;
        if let Ok(incoming) = imsgbuf.incoming() {
            incoming.allow_descriptors();
        }
    }

    /// Sets the largest payload: 0, or -1.
    fn imsgbuf_set_maxsize as "imsgbuf_set_maxsize_modern"(imsgbuf: Imsgbuf, max: u32) -> c_int {
        let len = max.checked_add(HEADER_LEN as u32).ok_or(Errno(libc::ERANGE));
        status(len.and_then(|len| {
            if len as usize > Modern::new().max_len() {
                return Err(INVALID);
            }
            imsgbuf.maxsize = len;
            imsgbuf.limit();
            Ok(())
        }))
    }

    /// Has the program told of each message that is queued.
    fn imsgbuf_set_close_callback as "imsgbuf_set_close_callback_modern"(
        imsgbuf: Imsgbuf, callback: Option<Callback>,
    ) {
        imsgbuf.cb = callback;
    }

    /// Keeps a pointer of the program's, and gives the one before.
    fn imsgbuf_set_userdata as "imsgbuf_set_userdata_modern"(
        imsgbuf: Imsgbuf, data: *mut c_void,
    ) -> *mut c_void {
        std::mem::replace(&mut imsgbuf.userdata, data)
    }

    /// Gives the pointer that is kept for the program.
    fn imsgbuf_get_userdata as "imsgbuf_get_userdata_modern"(imsgbuf: Imsgbuf) -> *mut c_void {
        imsgbuf.userdata
    }

    /// Sets the dialect: 0, or -1.
    fn imsgbuf_set_dialect as "imsgbuf_set_dialect_modern"(imsgbuf: Imsgbuf, dialect: c_int) -> c_int {
        let dialect = match dialect {
            0 => Native::Modern,
            1 => Native::Classic,
            _ => return status(Err(INVALID)),
        };
        status(imsgbuf.msgbuf().and_then(|msgbuf| {
            let is_new = msgbuf.queue.len() == 0 && msgbuf.received.len() == 0;
            match &mut msgbuf.reader {
                Reader::Imsg(incoming, old) if is_new && incoming.is_new() => {
                    let mut new = new_incoming(dialect)?;
                    new.set_as(incoming);
                    (*incoming, *old) = (new, dialect);
                    Ok(())
                }
                _ => Err(INVALID),
            }
        }))
    }

    /// Sets how descriptors find their messages: 0, or -1.
    fn imsgbuf_set_pairing as "imsgbuf_set_pairing_modern"(
        imsgbuf: Imsgbuf, pairing: c_int,
    ) -> c_int {
        status(imsgbuf.incoming().and_then(|incoming| incoming.set_pairing(pairing)))
    }

    /// Which fault ended the stream, as text; null when none did.
    fn imsgbuf_error as "imsgbuf_error_modern"(imsgbuf: Imsgbuf) -> *const c_char {
        imsgbuf.incoming().map_or(ptr::null(), Incoming::fault)
    }

    /// Writes once: 0, or -1.
    fn imsgbuf_write as "imsgbuf_write_modern"(imsgbuf: Imsgbuf) -> c_int {
        write_status(imsgbuf.write())
    }

    /// Writes until the queue is empty: 0, or -1.
    fn imsgbuf_flush as "imsgbuf_flush_modern"(imsgbuf: Imsgbuf) -> c_int {
        status(imsgbuf.flush())
    }

    /// Frees all that the buffer has.
    fn imsgbuf_clear as "imsgbuf_clear_modern"(imsgbuf: Imsgbuf) {
        // SAFETY: it is null, or what `imsgbuf_init` put there, and not used any more.
        unsafe { msgbuf_free(imsgbuf.w) };
        imsgbuf.w = ptr::null_mut();
    }

    /// How many buffers are queued.
    fn imsgbuf_queuelen as "imsgbuf_queuelen_modern"(imsgbuf: Imsgbuf) -> u32 {
        imsgbuf.msgbuf().map_or(0, |msgbuf| msgbuf.queue.len())
    }

    /// Takes a message: 1, 0 when there is none, or -1.
    fn imsgbuf_get as "imsgbuf_get_modern"(imsgbuf: Imsgbuf, imsg: *mut Imsg) -> c_int {
        // SAFETY: there is room for a message.
        unsafe { hand_out(imsgbuf.msgbuf().and_then(Msgbuf::get), imsg) }
    }

    /// Takes a message: its length, 0 when there is none, or -1.
    fn imsg_get as "imsg_get_modern"(imsgbuf: Imsgbuf, imsg: *mut Imsg) -> ssize_t {
        // SAFETY: there is room for a message.
        match unsafe { hand_out(imsgbuf.msgbuf().and_then(Msgbuf::get), imsg) } {
            // SAFETY: it was filled in.
            1 => unsafe { &*imsg }.hdr.len as ssize_t,
            none => none as ssize_t,
        }
    }

    /// Takes a message out of a queue: 1, 0 when it is empty, or -1.
    fn imsg_ibufq_pop as "imsg_ibufq_pop_modern"(queue: Queue, imsg: *mut Imsg) -> c_int {
        // SAFETY: there is room for a message.
        unsafe { hand_out(Ok(queue.pop()), imsg) }
    }

    /// Puts a message into a queue.
    fn imsg_ibufq_push as "imsg_ibufq_push_modern"(queue: Queue, imsg: *mut Imsg) {
        // SAFETY: it points to a message, which the program gives up.
        let mut buf = unsafe { OwnedIbuf::from_raw((*imsg).buf) };
        buf.rewind();
        queue.push(buf);
        // SAFETY: zeros are a message without a buffer.
        unsafe { imsg.write_bytes(0, 1) };
    }

    /// Makes a buffer of what is to be read of a message.
    fn imsg_get_ibuf as "imsg_get_ibuf_modern"(imsg: Imsg, ibuf: *mut Ibuf) -> c_int {
        status(imsg.buf().and_then(|buf| {
            let len = buf.size();
            if len == 0 {
                return Err(BAD_MESSAGE);
            }
            let data = buf.take(len)?;
            // SAFETY: there is room for a buffer, of any content.
            unsafe { ibuf.write(Ibuf::on_stack(data, len, ON_STACK)) };
            Ok(())
        }))
    }

    /// Copies what is to be read of a message, which has to have this length.
    fn imsg_get_data as "imsg_get_data_modern"(
        imsg: Imsg, data: *mut c_void, len: usize,
    ) -> c_int {
        if len == 0 {
            return status(Err(INVALID));
        }
        status(imsg.buf().and_then(|buf| {
            if buf.size() != len {
                return Err(BAD_MESSAGE);
            }
            // SAFETY: the program says that there is room.
            unsafe { buf.get(data.cast(), len) }
        }))
    }

    /// Reads bytes of a message.
    fn imsg_get_buf as "imsg_get_buf_modern"(imsg: Imsg, data: *mut c_void, len: usize) -> c_int {
        // SAFETY: the program says that there is room.
        status(imsg.buf().and_then(|buf| unsafe { buf.get(data.cast(), len) }))
    }

    /// Reads a string of a message, from a field of `len` bytes.
    fn imsg_get_strbuf as "imsg_get_strbuf_modern"(
        imsg: Imsg, string: *mut c_char, len: usize,
    ) -> c_int {
        // SAFETY: the program says that there is room.
        status(imsg.buf().and_then(|buf| unsafe { buf.get_strbuf(string, len) }))
    }

    /// Takes the descriptor of a message, or -1.
    fn imsg_get_fd as "imsg_get_fd_modern"(imsg: Imsg) -> c_int {
        imsg.buf().map_or(NO_FD, Ibuf::take_fd)
    }

    /// How many bytes of a message are to be read.
    fn imsg_get_len as "imsg_get_len_modern"(imsg: Imsg) -> usize {
        imsg.buf().map_or(0, |buf| buf.size())
    }

    /// Frees a message, and closes its descriptor.
    fn imsg_free as "imsg_free_modern"(imsg: Imsg) {
        // SAFETY: the program gives it up.
        unsafe { ibuf_free(imsg.buf) };
    }

    /// Begins a message.
    fn imsg_create as "imsg_create_modern"(
        imsgbuf: Imsgbuf, msg_type: u32, id: u32, pid: pid_t, len: usize,
    ) -> *mut Ibuf {
        let terms = imsgbuf.terms();
        give(terms.create(terms.header(msg_type, id, pid), len))
    }

    /// Queues a buffer.
    fn ibuf_close as "ibuf_close_modern"(msgbuf: Msgbuf, buf: *mut Ibuf) {
        // SAFETY: the program gives it up.
        msgbuf.queue.push(unsafe { OwnedIbuf::from_raw(buf) });
    }

    /// Frees all that is queued and was received.
    fn msgbuf_clear as "msgbuf_clear_modern"(msgbuf: Msgbuf) {
        msgbuf.clear();
    }

    /// Queues all of a queue.
    fn msgbuf_concat as "msgbuf_concat_modern"(msgbuf: Msgbuf, from: *mut Queue) {
        // SAFETY: it points to a queue.
        msgbuf.queue.concat(unsafe { &mut *from });
    }

    /// How many buffers are queued.
    fn msgbuf_queuelen as "msgbuf_queuelen_modern"(msgbuf: Msgbuf) -> u32 {
        msgbuf.queue.len()
    }

    /// How many messages were read, are complete, and were not taken.
    fn msgbuf_readlen as "msgbuf_readlen_modern"(msgbuf: Msgbuf) -> u32 {
        if let Reader::Imsg(incoming, _) = &mut msgbuf.reader {
            // What cannot be taken now is not counted.
            while let Ok(Some(buf)) = whole(incoming) {
                msgbuf.received.push(buf);
            }
        }
        msgbuf.received.len()
    }

    /// Takes what was read and is complete; null when nothing is.
    fn msgbuf_get as "msgbuf_get_modern"(msgbuf: Msgbuf) -> *mut Ibuf {
        msgbuf.get().map(|buf| buf.map_or(ptr::null_mut(), OwnedIbuf::into_raw)).answer(ptr::null_mut())
    }

    /// Takes a buffer out of a queue; null when it is empty.
    fn ibufq_pop as "ibufq_pop_modern"(queue: Queue) -> *mut Ibuf {
        queue.pop().map_or(ptr::null_mut(), OwnedIbuf::into_raw)
    }

    /// Puts a buffer into a queue.
    fn ibufq_push as "ibufq_push_modern"(queue: Queue, buf: *mut Ibuf) {
        // SAFETY: the program gives it up.
        queue.push(unsafe { OwnedIbuf::from_raw(buf) });
    }

    /// How many buffers are in a queue.
    fn ibufq_queuelen as "ibufq_queuelen_modern"(queue: Queue) -> u32 {
        queue.len()
    }

    /// Moves all of a queue behind what is in another.
    fn ibufq_concat as "ibufq_concat_modern"(to: Queue, from: *mut Queue) {
        // A queue is behind itself as it is.
        if !ptr::eq(to, from) {
            // SAFETY: it points to another queue.
            to.concat(unsafe { &mut *from });
        }
    }

    /// Frees all that is in a queue.
    fn ibufq_flush as "ibufq_flush_modern"(queue: Queue) {
        queue.clear();
    }
}

/// Declares functions that queue a message in an `imsgbuf`, of which the program is told then.
macro_rules! composing {
    ($(
        $(#[$doc:meta])*
        fn $name:ident as $symbol:literal ($imsgbuf:ident $(, $arg:ident: $type:ty)* $(,)?)
            $queue:block
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As imsgbuf_init(3) has it.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $name(place: *mut Imsgbuf $(, $arg: $type)*) -> c_int {
            let queued: Result<(), Errno> = {
                // SAFETY: it points to one, which no other thread uses.
                let $imsgbuf = unsafe { &mut *place };
                $queue
            };
            if queued.is_ok() {
                // SAFETY: as above.
                unsafe { Imsgbuf::queued(place) };
            }
            queued.map(|()| 1).answer(-1)
        }
    )*};
}

composing! {
    /// Queues a message: 1, or -1. The descriptor is the queue's then.
    fn imsg_compose as "imsg_compose_modern"(
        imsgbuf, msg_type: u32, id: u32, pid: pid_t, fd: c_int, data: *const c_void, len: usize,
    ) {
        let payload = std::iter::once(Piece { data: data.cast(), len });
        // SAFETY: the program says that they are as many.
        unsafe { imsgbuf.compose(msg_type, id, pid, fd, payload) }
    }

    /// As `imsg_compose`, with the payload in parts.
    fn imsg_composev as "imsg_composev_modern"(
        imsgbuf, msg_type: u32, id: u32, pid: pid_t, fd: c_int, iov: *const iovec, count: c_int,
    ) {
        // SAFETY: the program says that they are as many.
        unsafe { imsgbuf.compose(msg_type, id, pid, fd, pieces(iov, count)) }
    }

    /// Queues a message whose payload is a buffer, which is freed if that fails.
    fn imsg_compose_ibuf as "imsg_compose_ibuf_modern"(
        imsgbuf, msg_type: u32, id: u32, pid: pid_t, buf: *mut Ibuf,
    ) {
        let terms = imsgbuf.terms();
        let header = terms.header(msg_type, id, pid);
        // SAFETY: the program gives it up.
        let payload = unsafe { OwnedIbuf::from_raw(buf) };
        imsgbuf
            .msgbuf()
            .and_then(|msgbuf| terms.compose_ibuf(&mut msgbuf.queue, header, payload))
    }

    /// Queues a message that was received, without its descriptor.
    fn imsg_forward as "imsg_forward_modern"(imsgbuf, imsg: *mut Imsg) {
        // SAFETY: it points to a message.
        let imsg = unsafe { &mut *imsg };
        let ImsgHdr { msg_type, peerid, pid, .. } = imsg.hdr;
        imsg.buf().and_then(|buf| {
            buf.rewind();
            buf.take(HEADER_LEN)?;
            let payload = std::iter::once(Piece { data: buf.data(), len: buf.size() });
            // SAFETY: these are the bytes of its buffer.
            unsafe { imsgbuf.compose(msg_type, peerid, pid as pid_t, NO_FD, payload) }
        })
    }
}

/// Queues a message that was begun.
///
/// # Safety
///
/// As imsgbuf_init(3) has it.
#[unsafe(export_name = "imsg_close_modern")]
pub unsafe extern "C" fn imsg_close(imsgbuf: *mut Imsgbuf, buf: *mut Ibuf) {
    // SAFETY: the program gives it up.
    let buf = unsafe { OwnedIbuf::from_raw(buf) };
    // SAFETY: it points to one, which no other thread uses.
    let channel = unsafe { &mut *imsgbuf };
    let terms = channel.terms();
    if let Ok(msgbuf) = channel.msgbuf() {
        terms.close(&mut msgbuf.queue, buf);
        // SAFETY: as above.
        unsafe { Imsgbuf::queued(imsgbuf) };
    }
}

/// Reads once: 1, 0 at the end, or -1.
///
/// # Safety
///
/// As imsgbuf_init(3) has it.
#[unsafe(export_name = "imsgbuf_read_modern")]
pub unsafe extern "C" fn imsgbuf_read(imsgbuf: *mut Imsgbuf) -> c_int {
    // SAFETY: it points to one, which no other thread uses.
    read_status(unsafe { Imsgbuf::read(imsgbuf) })
}

/// Declares functions that take a file, and then a queue.
macro_rules! transfers {
    ($(
        $(#[$doc:meta])*
        fn $name:ident as $symbol:literal($fd:ident, $msgbuf:ident) $body:block
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As ibuf_add(3) has it.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $name($fd: c_int, $msgbuf: *mut Msgbuf) -> c_int {
            // SAFETY: it points to one, which no other thread uses.
            unsafe { $body }
        }
    )*};
}

transfers! {
    /// Writes once, without descriptors: 0, or -1.
    fn ibuf_write as "ibuf_write_modern"(fd, msgbuf) {
        write_status(send::write(&mut (*msgbuf).queue, fd))
    }

    /// Sends once: 0, or -1.
    fn msgbuf_write as "msgbuf_write_modern"(fd, msgbuf) {
        write_status(send::send(&mut (*msgbuf).queue, fd))
    }

    /// Reads once, without descriptors: 1, 0 at the end, or -1.
    fn ibuf_read as "ibuf_read_modern"(fd, msgbuf) {
        read_status(Msgbuf::read(msgbuf, fd, Source::Any))
    }

    /// Reads once: 1, 0 at the end, or -1.
    fn msgbuf_read as "msgbuf_read_modern"(fd, msgbuf) {
        read_status(Msgbuf::read(msgbuf, fd, Source::Socket))
    }
}

/// Why a message that was sent with a descriptor has none.
///
/// # Safety
///
/// As imsgbuf_init(3) has it.
#[unsafe(export_name = "imsg_fd_reason_modern")]
pub unsafe extern "C" fn imsg_fd_reason(imsg: *const Imsg) -> c_int {
    // SAFETY: it points to a message, whose buffer is null or the one that it was given.
    unsafe { (*imsg).buf.as_ref() }.map_or(0, Ibuf::fd_reason)
}
