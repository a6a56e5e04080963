//! The classic interface: imsg_init(3) and what of ibuf_add(3) goes with it, as in imsg-compat 8.0.0.
//!
//! The program has a `struct imsgbuf` of 64 KiB, and what is received lives in there: nothing is
//! allocated before a message is taken. As in C, it must not move while it is used.

use std::mem::MaybeUninit;
use std::os::fd::IntoRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicI32;

use imsg_wire::{DEFAULT_MAX_LEN, Descriptor, HEADER_LEN, Header};
use libc::{c_char, c_int, c_void, iovec, pid_t, ssize_t};

use crate::compose::{Piece, Terms, pieces};
use crate::dialect::Native;
use crate::errno::{Answer, Errno, status};
use crate::ibuf::{Ibuf, NO_FD, ON_STACK_CLASSIC, OwnedIbuf, close, give, ibuf_free, reason};
use crate::memory::Memory;
use crate::queue::Queue;
use crate::receive::{Incoming, Part, READ_SIZE, Read, Source, Taken};
use crate::send;

const INVALID: Errno = Errno(libc::EINVAL);
const BAD_MESSAGE: Errno = Errno(libc::EBADMSG);

/// Programs may declare it, to be told that many descriptors less are free. A read takes no
/// descriptors ahead of their messages here, so nothing looks at it.
#[unsafe(no_mangle)]
pub static imsg_fd_overhead: AtomicI32 = AtomicI32::new(0);

/// `struct imsgbuf`.
#[allow(missing_debug_implementations, reason = "programs in C do not print it so")]
#[repr(C)]
pub struct Imsgbuf {
    receiver: Receiver,
    pub(crate) w: Queue,
    pub(crate) fd: c_int,
    pub(crate) pid: pid_t,
}

/// What takes the place of `fds` and `r`.
#[repr(C)]
struct Receiver {
    /// Where it is, once it is initialized; one of zeros is not.
    place: *const Self,
    /// What was in `wpos` when it was set last.
    left: usize,
    /// An [`Incoming`], aligned, and its memory behind it.
    area: [MaybeUninit<u8>; AREA],
    /// Behind how many bytes of `r.buf` more can be read to. OpenBGPD and OpenSMTPD do so, with a
    /// read of their own, and add to this what they read.
    wpos: usize,
}

/// `fds` and `r`, as C has them.
#[allow(dead_code, reason = "it is only measured")]
#[repr(C)]
struct Fields {
    fds: [*const c_void; 2],
    buf: [u8; READ_SIZE],
    rptr: *const u8,
    wpos: usize,
}

const AREA: usize = size_of::<Fields>() - 3 * size_of::<usize>();

/// `struct imsg_hdr`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ImsgHdr {
    msg_type: u32,
    len: u16,
    /// The mark, and why the descriptor is missing: C knows no other flag than the mark.
    flags: u16,
    peerid: u32,
    pid: u32,
}

/// `IMSGF_HASFD`.
const MARK: u16 = 1;
/// By how many bits the reason is shifted in the flags.
const REASON: u32 = 8;

/// `struct imsg`.
#[derive(Debug)]
#[repr(C)]
pub struct Imsg {
    hdr: ImsgHdr,
    fd: c_int,
    data: *mut c_void,
    buf: *mut Ibuf,
}

/// What programs see lies where it lies in C.
const _: () = {
    assert!(size_of::<Receiver>() == size_of::<Fields>());
    assert!(std::mem::offset_of!(Receiver, wpos) == std::mem::offset_of!(Fields, wpos));
    assert!(size_of::<ImsgHdr>() == HEADER_LEN);
    assert!(size_of::<Queue>() == 2 * size_of::<usize>() + 8);
    if size_of::<usize>() == 8 {
        assert!(std::mem::offset_of!(Imsgbuf, w) == 65568);
        assert!(std::mem::offset_of!(Imsgbuf, fd) == 65592);
        assert!(std::mem::offset_of!(Imsgbuf, pid) == 65596);
        assert!(size_of::<Imsgbuf>() == 65600);
        assert!(std::mem::offset_of!(Imsg, fd) == 16);
        assert!(std::mem::offset_of!(Imsg, data) == 24);
        assert!(std::mem::offset_of!(Imsg, buf) == 32);
        assert!(size_of::<Imsg>() == 40);
        assert!(size_of::<Ibuf>() == 64);
    }
};

impl Receiver {
    /// # Safety
    ///
    /// It may be written to, and stays where it is.
    unsafe fn init(receiver: *mut Self) {
        // SAFETY: so the caller promises.
        let area = unsafe { &raw mut (*receiver).area }.cast::<u8>();
        let (incoming, at) = Self::parts(area);
        // SAFETY: `parts` keeps within the area, of which the place for `incoming` is aligned for
        // it, and the rest is behind that. All is initialized before it is used.
        unsafe {
            let memory = NonNull::new_unchecked(area.add(at));
            memory.write_bytes(0, AREA - at);
            let memory = Memory::over(memory, AREA - at);
            let mut new = Incoming::new(DIALECT, memory);
            new.allow_descriptors();
            incoming.write(new);
            (*receiver).place = receiver;
            Self::show(receiver);
        }
    }

    /// Shows the program where to read to, if it does that itself.
    ///
    /// # Safety
    ///
    /// It is initialized, and nothing else uses the buffer.
    unsafe fn show(receiver: *mut Self) {
        // SAFETY: so the caller promises.
        unsafe {
            let area = (&raw mut (*receiver).area).cast::<u8>();
            let (incoming, at) = Self::parts(area);
            let start = Self::buf(receiver).addr();
            let spare = if (*incoming).is_empty() && !(*incoming).is_over() {
                area.addr() + at
            } else {
                (*incoming).spare().map_or(0, |spare| spare.as_ptr().addr())
            };
            // With none, there is no room for the program either.
            let shown = spare.checked_sub(start).unwrap_or(READ_SIZE).min(READ_SIZE);
            ((*receiver).left, (*receiver).wpos) = (shown, shown);
        }
    }

    /// Takes over what the program read there.
    ///
    /// # Safety
    ///
    /// As for `show`, and the program did not write behind `r.buf`.
    #[cold]
    unsafe fn take_over(receiver: *mut Self) {
        // SAFETY: so the caller promises: what is between the two was written, in `r.buf`.
        unsafe {
            let (incoming, _) = Self::parts((&raw mut (*receiver).area).cast());
            let (left, end) = ((*receiver).left, (*receiver).wpos.min(READ_SIZE));
            if let Some(n) = end.checked_sub(left) {
                (*incoming).take_over(Self::buf(receiver).add(left), n);
            }
            Self::show(receiver);
        }
    }

    /// `r.buf`.
    fn buf(receiver: *mut Self) -> *mut u8 {
        receiver.cast::<u8>().wrapping_add(std::mem::offset_of!(Fields, buf))
    }

    /// Where the buffer lies in an area, and behind how many bytes its memory.
    fn parts(area: *mut u8) -> (*mut Incoming, usize) {
        let at = area.addr().wrapping_neg() % align_of::<Incoming>();
        (area.wrapping_add(at).cast(), at + size_of::<Incoming>())
    }

    /// The buffer; none in one that is not initialized, or was moved.
    ///
    /// # Safety
    ///
    /// It is initialized or of zeros, and nothing else uses the buffer while this is borrowed. (So
    /// it takes no reference to itself, which would cover the memory of the buffer too.)
    unsafe fn get<'a>(receiver: *mut Self) -> Result<&'a mut Incoming, Errno> {
        // SAFETY: so the caller promises.
        let (place, area) = unsafe { ((*receiver).place, &raw mut (*receiver).area) };
        if !ptr::eq(place, receiver) {
            return Err(INVALID);
        }
        // SAFETY: it was initialized, and so the caller promises.
        unsafe {
            if (*receiver).wpos != (*receiver).left {
                Self::take_over(receiver);
            }
        }
        let (incoming, _) = Self::parts(area.cast());
        // SAFETY: it was initialized where it is, and so the caller promises.
        Ok(unsafe { &mut *incoming })
    }
}

const DIALECT: Native = Native::Classic;

/// An `imsgbuf` of the program's, in a call of its. One thread may receive with it while another one
/// sends: so each call refers to that half only which it uses.
struct Channel {
    place: *mut Imsgbuf,
}

impl Channel {
    /// # Safety
    ///
    /// It points to one that is initialized or of zeros, of which nothing else uses the same half
    /// meanwhile.
    unsafe fn of(place: *mut Imsgbuf) -> Self {
        Self { place }
    }

    fn incoming(&mut self) -> Result<&mut Incoming, Errno> {
        // SAFETY: so `of` was promised.
        unsafe { Receiver::get(&raw mut (*self.place).receiver) }
    }

    /// Shows a program that reads by itself where to, after a call that left it initialized.
    fn show(&mut self) {
        // SAFETY: as above, and as the callers say.
        unsafe { Receiver::show(&raw mut (*self.place).receiver) };
    }

    fn queue(&mut self) -> &mut Queue {
        // SAFETY: as above.
        unsafe { &mut (*self.place).w }
    }

    fn fd(&self) -> c_int {
        // SAFETY: as above.
        unsafe { (*self.place).fd }
    }

    fn terms(&self) -> Terms {
        // SAFETY: as above.
        let pid = unsafe { (*self.place).pid } as u32;
        Terms { dialect: DIALECT, max_len: DEFAULT_MAX_LEN, pid }
    }

    /// Queues a message: 1, or -1.
    ///
    /// # Safety
    ///
    /// As [`Terms::compose`].
    unsafe fn compose(
        &mut self,
        header: Header,
        fd: c_int,
        payload: impl Iterator<Item = Piece> + Clone,
    ) -> c_int {
        let terms = self.terms();
        // SAFETY: so the caller promises.
        let queued = unsafe { terms.compose(self.queue(), header, fd, payload) };
        queued.map(|()| 1).answer(-1)
    }
}

impl Imsg {
    fn of(taken: Taken) -> Self {
        let Taken { frame, buf, descriptor } = taken;
        let mut flags = if frame.marked { MARK } else { 0 };
        if let Descriptor::Missing(missing) = &descriptor {
            flags |= (reason(*missing) as u16) << REASON;
        }
        let hdr = ImsgHdr {
            msg_type: frame.header.msg_type,
            len: u16::try_from(frame.len).unwrap_or(u16::MAX),
            flags,
            peerid: frame.header.id,
            pid: frame.header.pid,
        };
        let fd = match descriptor {
            Descriptor::Here(descriptor) => descriptor.into_raw_fd(),
            _ => NO_FD,
        };
        let data = buf.as_ref().map_or(ptr::null_mut(), |buf| buf.data().cast());
        Self { hdr, fd, data, buf: buf.map_or(ptr::null_mut(), OwnedIbuf::into_raw) }
    }

    fn buf(&mut self) -> Option<&mut Ibuf> {
        // SAFETY: it is null, or the buffer that the message was given.
        unsafe { self.buf.as_mut() }
    }
}

/// Declares functions that take a structure of the program's first: an `imsgbuf` as a [`Channel`],
/// others as a reference.
macro_rules! functions {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($first:ident: $struct:ident $(, $arg:ident: $type:ty)* $(,)?)
            $(-> $result:ty)? $body:block
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As imsg_init(3) and ibuf_add(3) have it.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            $first: *mut $struct $(, $arg: $type)*
        ) $(-> $result)? {
            // SAFETY: it points to one, which no other thread uses.
            #[allow(unused_mut, reason = "not all change it")]
            let mut $first = unsafe { functions!(@of $struct $first) };
            $body
        }
    )*};
    (@of Imsgbuf $pointer:ident) => { Channel::of($pointer) };
    (@of $struct:ident $pointer:ident) => { &mut *$pointer };
}

/// Initializes a buffer for the messages of a socket.
///
/// # Safety
///
/// As imsg_init(3) has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn imsg_init(imsgbuf: *mut Imsgbuf, fd: c_int) {
    // SAFETY: it may be written to, whatever is in it; `getpid` only tells.
    unsafe {
        Receiver::init(&raw mut (*imsgbuf).receiver);
        Queue::init(&raw mut (*imsgbuf).w);
        (*imsgbuf).w.fd = fd;
        (*imsgbuf).fd = fd;
        (*imsgbuf).pid = libc::getpid();
    }
}

/// Initializes a queue of buffers to be written.
///
/// # Safety
///
/// As ibuf_add(3) has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msgbuf_init(msgbuf: *mut Queue) {
    // SAFETY: it may be written to, whatever is in it.
    unsafe { Queue::init(msgbuf) };
}

functions! {
    /// Reads once from the socket: the bytes read, 0 at the end, or -1.
    fn imsg_read(imsgbuf: Imsgbuf) -> ssize_t {
        let fd = imsgbuf.fd();
        let read = imsgbuf.incoming().and_then(|incoming| incoming.read(fd, Source::Socket));
        if let Ok(Read::Bytes(_)) = read {
            imsgbuf.show();
        }
        read.and_then(|read| match read {
            Read::Bytes(n) => Ok(n as ssize_t),
            Read::Closed => Ok(0),
            // A program that gets this when messages fill the buffer goes on to take some.
            Read::WouldBlock | Read::Full => Err(Errno(libc::EAGAIN)),
        })
        .answer(-1)
    }

    /// Takes a message: its length, 0 when there is none, or -1.
    fn imsg_get(imsgbuf: Imsgbuf, imsg: *mut Imsg) -> ssize_t {
        let taken = imsgbuf.incoming().and_then(|incoming| incoming.next(Part::Payload));
        if let Ok(None) = taken {
            imsgbuf.show();
        }
        taken
            .map(|taken| match taken {
                Some(taken) => {
                    let len = taken.frame.len as ssize_t;
                    // SAFETY: there is room for a message, of any content.
                    unsafe { imsg.write(Imsg::of(taken)) };
                    len
                }
                None => 0,
            })
            .answer(-1)
    }

    /// Makes a buffer of what is to be read of a message.
    fn imsg_get_ibuf(imsg: Imsg, ibuf: *mut Ibuf) -> c_int {
        status(imsg.buf().ok_or(BAD_MESSAGE).and_then(|buf| {
            let len = buf.size();
            let data = buf.take(len)?;
            // SAFETY: there is room for a buffer, of any content.
            unsafe { ibuf.write(Ibuf::on_stack(data, len, ON_STACK_CLASSIC)) };
            Ok(())
        }))
    }

    /// Copies the payload of a message, which has to have this length.
    fn imsg_get_data(imsg: Imsg, data: *mut c_void, len: usize) -> c_int {
        if len == 0 {
            return status(Err(INVALID));
        }
        let buf = imsg.buf().filter(|buf| buf.size() == len);
        // SAFETY: the program says that there is room.
        status(buf.ok_or(BAD_MESSAGE).and_then(|buf| unsafe { buf.get(data.cast(), len) }))
    }

    /// Takes the descriptor of a message, or -1.
    fn imsg_get_fd(imsg: Imsg) -> c_int {
        std::mem::replace(&mut imsg.fd, NO_FD)
    }

    /// How many bytes of a message are to be read.
    fn imsg_get_len(imsg: Imsg) -> usize {
        imsg.buf().map_or(0, |buf| buf.size())
    }

    /// Frees a message, but not its descriptor.
    ///
    /// Programs of before 2023 move a message: they copy it, and set `data` of the first to null,
    /// as `data` was all that there was to free.
    fn imsg_free(imsg: Imsg) {
        if imsg.data.is_null() {
            return;
        }
        // SAFETY: the program gives it up.
        unsafe { ibuf_free(imsg.buf) };
    }

    /// Queues a message: 1, or -1. The descriptor is the queue's then.
    fn imsg_compose(
        imsgbuf: Imsgbuf, msg_type: u32, id: u32, pid: pid_t, fd: c_int, data: *const c_void,
        len: usize,
    ) -> c_int {
        let payload = std::iter::once(Piece { data: data.cast(), len });
        let header = imsgbuf.terms().header(msg_type, id, pid);
        // SAFETY: the program says that they are as many.
        unsafe { imsgbuf.compose(header, fd, payload) }
    }

    /// As `imsg_compose`, with the payload in parts.
    fn imsg_composev(
        imsgbuf: Imsgbuf, msg_type: u32, id: u32, pid: pid_t, fd: c_int, iov: *const iovec,
        count: c_int,
    ) -> c_int {
        let header = imsgbuf.terms().header(msg_type, id, pid);
        // SAFETY: the program says that they are as many.
        unsafe { imsgbuf.compose(header, fd, pieces(iov, count)) }
    }

    /// Queues a message whose payload is a buffer, which is freed if that fails.
    fn imsg_compose_ibuf(
        imsgbuf: Imsgbuf, msg_type: u32, id: u32, pid: pid_t, buf: *mut Ibuf,
    ) -> c_int {
        let terms = imsgbuf.terms();
        let header = terms.header(msg_type, id, pid);
        // SAFETY: the program gives it up.
        let payload = unsafe { OwnedIbuf::from_raw(buf) };
        terms.compose_ibuf(imsgbuf.queue(), header, payload).map(|()| 1).answer(-1)
    }

    /// Queues a message that was received, without its descriptor, which is closed.
    fn imsg_forward(imsgbuf: Imsgbuf, imsg: *mut Imsg) -> c_int {
        // SAFETY: it points to a message.
        let imsg = unsafe { &mut *imsg };
        close(std::mem::replace(&mut imsg.fd, NO_FD));
        let ImsgHdr { msg_type, peerid, pid, .. } = imsg.hdr;
        let header = imsgbuf.terms().header(msg_type, peerid, pid as pid_t);
        let payload = imsg.buf().map(|buf| {
            buf.rewind();
            Piece { data: buf.data(), len: buf.size() }
        });
        // SAFETY: these are the bytes of its buffer.
        unsafe { imsgbuf.compose(header, NO_FD, payload.into_iter()) }
    }

    /// Begins a message.
    fn imsg_create(
        imsgbuf: Imsgbuf, msg_type: u32, id: u32, pid: pid_t, len: usize,
    ) -> *mut Ibuf {
        let terms = imsgbuf.terms();
        give(terms.create(terms.header(msg_type, id, pid), len))
    }

    /// Queues a message that was begun.
    fn imsg_close(imsgbuf: Imsgbuf, buf: *mut Ibuf) {
        // SAFETY: the program gives it up.
        let buf = unsafe { OwnedIbuf::from_raw(buf) };
        imsgbuf.terms().close(imsgbuf.queue(), buf);
    }

    /// Sends until the queue is empty: 0, or -1.
    fn imsg_flush(imsgbuf: Imsgbuf) -> c_int {
        while imsgbuf.queue().len() > 0 {
            // SAFETY: it is a queue.
            if unsafe { msgbuf_write(imsgbuf.queue()) } <= 0 {
                return -1;
            }
        }
        0
    }

    /// Frees all that is queued and was received.
    fn imsg_clear(imsgbuf: Imsgbuf) {
        imsgbuf.queue().clear();
        if let Ok(incoming) = imsgbuf.incoming() {
            incoming.reset();
            imsgbuf.show();
        }
    }

    /// Queues a buffer.
    fn ibuf_close(msgbuf: Queue, buf: *mut Ibuf) {
        // SAFETY: the program gives it up.
        msgbuf.push(unsafe { OwnedIbuf::from_raw(buf) });
    }

    /// Writes once, without descriptors: 1, 0 when there was nothing to write, or -1.
    fn ibuf_write(msgbuf: Queue) -> c_int {
        let fd = msgbuf.fd;
        written(send::write(msgbuf, fd))
    }

    /// Sends once: 1, 0 when there was nothing to send, or -1.
    fn msgbuf_write(msgbuf: Queue) -> c_int {
        let fd = msgbuf.fd;
        written(send::send(msgbuf, fd))
    }

    /// Frees all that is queued.
    fn msgbuf_clear(msgbuf: Queue) {
        msgbuf.clear();
    }

    /// How many buffers are queued.
    fn msgbuf_queuelen(msgbuf: Queue) -> u32 {
        msgbuf.len()
    }

    /// Which fault ended the stream, as text; null when none did.
    fn imsgbuf_error(imsgbuf: Imsgbuf) -> *const c_char {
        imsgbuf.incoming().map_or(ptr::null(), Incoming::fault)
    }

    /// Sets how descriptors find their messages.
    fn imsgbuf_set_pairing(imsgbuf: Imsgbuf, pairing: c_int) -> c_int {
        status(imsgbuf.incoming().and_then(|incoming| incoming.set_pairing(pairing)))
    }
}

/// Declares functions that tell a field of a header, which both interfaces have at the same place.
macro_rules! fields {
    ($($(#[$doc:meta])* fn $name:ident() -> $type:ty { $field:ident })*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As imsg_init(3) has it.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(imsg: *const ImsgHdr) -> $type {
            // SAFETY: it points to a message, which begins with its header.
            unsafe { &*imsg }.$field as $type
        }
    )*};
}

fields! {
    /// The type of a message.
    fn imsg_get_type() -> u32 { msg_type }

    /// The id of a message.
    fn imsg_get_id() -> u32 { peerid }

    /// The pid of a message.
    fn imsg_get_pid() -> pid_t { pid }
}

/// Why a message that was sent with a descriptor has none.
///
/// # Safety
///
/// As imsg_init(3) has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn imsg_fd_reason(imsg: *const Imsg) -> c_int {
    // SAFETY: it points to a message.
    c_int::from(unsafe { &*imsg }.hdr.flags >> REASON)
}

fn written(result: Result<bool, Errno>) -> c_int {
    match result {
        Ok(true) => 1,
        Ok(false) => {
            // So C says that the connection is closed.
            Errno(0).set();
            0
        }
        Err(Errno(libc::ENOBUFS)) => Err(Errno(libc::EAGAIN)).answer(-1),
        Err(error) => Err(error).answer(-1),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn zeroed() -> Box<Imsgbuf> {
        // SAFETY: zeros are an `imsgbuf` that was not initialized.
        unsafe { Box::new(MaybeUninit::zeroed()).assume_init() }
    }

    fn error() -> Option<i32> {
        io::Error::last_os_error().raw_os_error()
    }

    #[test]
    fn a_buffer_that_was_not_initialized_or_was_moved_fails_and_can_be_cleared() {
        let (socket, _peer) = UnixStream::pair().expect("socket pair");
        let mut place = zeroed();
        // SAFETY: all pointers are to structures that are initialized, or as zeros may be.
        unsafe {
            assert_eq!((imsg_read(&mut *place), error()), (-1, Some(libc::EINVAL)));
            imsg_clear(&mut *place);
            imsg_init(&mut *place, socket.as_raw_fd());
            let mut moved = zeroed();
            ptr::copy_nonoverlapping(&raw const *place, &raw mut *moved, 1);
            assert_eq!((imsg_read(&mut *moved), error()), (-1, Some(libc::EINVAL)));
        }
    }
}
