//! A shared object, its functions, and a `struct imsgbuf` that they work on.

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::io::{Error, Write as _};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::{ptr, slice};

use imsg_os::HEADER_LEN;
use imsg_tests::c_library::Interface;

/// The functions of a library, by one of its interfaces.
#[derive(Clone, Copy)]
pub(super) struct Library {
    pub(super) interface: Interface,
    /// In the modern interface it returns something, that memory is short.
    init: unsafe extern "C" fn(*mut RawBuf, c_int),
    /// Has nothing to do in the classic interface.
    allow_fdpass: Option<unsafe extern "C" fn(*mut RawBuf)>,
    read: Read,
    get: unsafe extern "C" fn(*mut RawBuf, *mut Message) -> isize,
    get_fd: unsafe extern "C" fn(*mut Message) -> c_int,
    free: unsafe extern "C" fn(*mut Message),
    compose: Compose,
    flush: unsafe extern "C" fn(*mut RawBuf) -> c_int,
    clear: unsafe extern "C" fn(*mut RawBuf),
    /// Empties the queue of a modern one; a classic one can be used after `clear`.
    clear_queue: Option<unsafe extern "C" fn(*mut c_void)>,
}

/// More than 0 when there was something.
#[derive(Clone, Copy)]
enum Read {
    Classic(unsafe extern "C" fn(*mut RawBuf) -> isize),
    Modern(unsafe extern "C" fn(*mut RawBuf) -> c_int),
}

type Compose =
    unsafe extern "C" fn(*mut RawBuf, u32, u32, libc::pid_t, c_int, *const c_void, usize) -> c_int;

impl Library {
    /// Loads a shared object, for as long as the process runs.
    pub(super) fn open(path: &Path, interface: Interface) -> Self {
        // SAFETY: what is loaded is one of the C libraries, which do nothing when they are.
        let library = unsafe { libloading::Library::new(path) }.expect("load the library");
        // SAFETY: the functions have these types in the header of the interface.
        let functions = unsafe { Self::find(&library, interface) }.expect("find its functions");
        mem::forget(library);
        functions
    }

    /// # Safety
    ///
    /// The library has this interface. It stays as long as the result is used.
    unsafe fn find(
        library: &libloading::Library,
        interface: Interface,
    ) -> Result<Self, libloading::Error> {
        macro_rules! find {
            ($name:literal) => {
                // SAFETY: so the caller promises.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }?
            };
        }
        Ok(match interface {
            Interface::Classic => Self {
                interface,
                init: find!("imsg_init"),
                allow_fdpass: None,
                read: Read::Classic(find!("imsg_read")),
                get: find!("imsg_get"),
                get_fd: find!("imsg_get_fd"),
                free: find!("imsg_free"),
                compose: find!("imsg_compose"),
                flush: find!("imsg_flush"),
                clear: find!("imsg_clear"),
                clear_queue: None,
            },
            Interface::Modern => Self {
                interface,
                init: find!("imsgbuf_init"),
                allow_fdpass: Some(find!("imsgbuf_allow_fdpass")),
                read: Read::Modern(find!("imsgbuf_read")),
                get: find!("imsg_get_modern"),
                get_fd: find!("imsg_get_fd_modern"),
                free: find!("imsg_free_modern"),
                compose: find!("imsg_compose_modern"),
                flush: find!("imsgbuf_flush"),
                clear: find!("imsgbuf_clear"),
                clear_queue: Some(find!("msgbuf_clear_modern")),
            },
        })
    }
}

/// `struct imsgbuf`, with room to spare: most of a classic one is a buffer of 65535 bytes. A modern
/// one begins with the address of its queue.
#[repr(C, align(16))]
struct RawBuf(MaybeUninit<[u8; 1 << 17]>);

/// `struct imsg`.
#[repr(C)]
struct Message {
    header: [u32; 4],
    /// In the classic interface, the descriptor, `data` and `buf`; in the modern one, `data` and
    /// `buf`.
    rest: [*const c_void; 3],
}

/// A channel of a library.
pub(super) struct Buf {
    library: Library,
    raw: Box<RawBuf>,
    socket: UnixStream,
}

impl Buf {
    fn new(library: Library, socket: UnixStream) -> Self {
        let mut raw = Box::new(RawBuf(MaybeUninit::zeroed()));
        // SAFETY: it is large enough for a `struct imsgbuf`, and stays where it is.
        unsafe {
            (library.init)(&mut *raw, socket.as_raw_fd());
            if let Some(allow_fdpass) = library.allow_fdpass {
                allow_fdpass(&mut *raw);
            }
        }
        Self { library, raw, socket }
    }

    /// Two ends of a connection.
    pub(super) fn pair(library: Library) -> (Self, Self) {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        (Self::new(library, ours), Self::new(library, theirs))
    }

    /// Has the other end receive these bytes.
    pub(super) fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("send");
    }

    pub(super) fn compose(&mut self, payload: &[u8], descriptor: Option<OwnedFd>) {
        let fd = descriptor.map_or(-1, IntoRawFd::into_raw_fd);
        let compose = self.library.compose;
        // SAFETY: the buffer was initialized; the payload is copied, and the descriptor is
        // owned by the buffer from here on.
        let result =
            unsafe { compose(&mut *self.raw, 1, 2, 3, fd, payload.as_ptr().cast(), payload.len()) };
        assert_eq!(result, 1, "compose: {}", Error::last_os_error());
    }

    pub(super) fn flush(&mut self) {
        // SAFETY: the buffer was initialized.
        let result = unsafe { (self.library.flush)(&mut *self.raw) };
        assert_eq!(result, 0, "flush: {}", Error::last_os_error());
    }

    /// Drops what is queued.
    pub(super) fn forget(&mut self) {
        let raw = &mut *self.raw;
        // SAFETY: the buffer was initialized, and is as new afterwards; a modern one begins with the
        // address of its queue.
        unsafe {
            match self.library.clear_queue {
                None => (self.library.clear)(raw),
                Some(clear_queue) => clear_queue(ptr::from_mut(raw).cast::<*mut c_void>().read()),
            }
        }
    }

    pub(super) fn read(&mut self) {
        // SAFETY: the buffer was initialized.
        let n = unsafe {
            match self.library.read {
                Read::Classic(read) => read(&mut *self.raw),
                Read::Modern(read) => read(&mut *self.raw) as isize,
            }
        };
        assert!(n > 0, "read: {n}, {}", Error::last_os_error());
    }

    /// Takes a message, looks at it, and gives its descriptor; `None` when there is none.
    pub(super) fn take(&mut self, look: impl FnOnce(&[u8])) -> Option<Option<OwnedFd>> {
        let mut message = MaybeUninit::<Message>::zeroed();
        // SAFETY: the buffer was initialized, and there is room for a `struct imsg`.
        let n = unsafe { (self.library.get)(&mut *self.raw, message.as_mut_ptr()) };
        let len = usize::try_from(n)
            .unwrap_or_else(|_| panic!("get: {}", Error::last_os_error()))
            .checked_sub(HEADER_LEN)?;
        // SAFETY: it was filled in.
        let message = unsafe { message.assume_init_mut() };
        black_box(message.header);
        let data = message.rest[usize::from(self.library.interface == Interface::Classic)];
        let data = if len == 0 { ptr::dangling() } else { data.cast::<u8>() };
        // SAFETY: the payload is as long as the header says, and lives until it is freed.
        look(unsafe { slice::from_raw_parts(data, len) });
        // SAFETY: the message was filled in, and gives its descriptor to its caller.
        let fd = unsafe { (self.library.get_fd)(message) };
        // SAFETY: as above.
        let descriptor = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: it is freed once, and not used after that.
        unsafe { (self.library.free)(message) };
        Some(descriptor)
    }

    pub(super) fn receive(&mut self, look: impl Fn(&[u8])) -> Option<OwnedFd> {
        loop {
            match self.take(&look) {
                Some(descriptor) => return descriptor,
                None => self.read(),
            }
        }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        // SAFETY: the buffer was initialized, and is not used after that.
        unsafe { (self.library.clear)(&mut *self.raw) };
    }
}
