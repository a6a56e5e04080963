//! The C library imsg-compat, of version 8.0.0, used as a C program would.

#[cfg(libimsg)]
pub(crate) use present::sampler;

use crate::work::{BUFFER, Kind, Work};

/// Whether it can do this work: it has no way to parse but from a socket, its maximum is fixed, and
/// it closes every descriptor that it sends.
pub(crate) fn can_do(work: Work) -> bool {
    match work.kind {
        Kind::Parse | Kind::Lend => false,
        Kind::Take => work.batch * work.message_len() < BUFFER,
        _ => work.message_len() <= imsg_os::DEFAULT_MAX_LEN,
    }
}

/// `None`, as it is not installed.
#[cfg(not(libimsg))]
pub(crate) fn sampler(_: Work) -> Option<crate::Sampler> {
    None
}

#[cfg(libimsg)]
mod present {
    use std::ffi::{c_int, c_void};
    use std::fs::File;
    use std::hint::black_box;
    use std::io::{Error, Write};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::ptr;

    use imsg_os::Classic;

    use super::{Kind, Work};
    use crate::pair::{in_memory, prepared, two_processes};
    use crate::{Sampler, ours};

    pub(crate) fn sampler(work: Work) -> Option<Sampler> {
        match work.kind {
            Kind::Parse | Kind::Lend => None,
            Kind::Take => Some(take(work)),
            Kind::Compose => Some(compose(work)),
            Kind::Stream => Some(stream(work)),
            Kind::RoundTrip => Some(round_trip(work)),
            Kind::Give => Some(give(work)),
        }
    }

    /// `struct imsgbuf`, of which nothing is used here, with room to spare: most of it is a buffer
    /// of 65535 bytes.
    #[repr(C, align(16))]
    struct RawBuf(MaybeUninit<[u8; 1 << 17]>);

    /// `struct imsg_hdr`.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Header {
        msg_type: u32,
        len: u16,
        flags: u16,
        peerid: u32,
        pid: u32,
    }

    /// `struct imsg`.
    #[repr(C)]
    struct Message {
        header: Header,
        fd: c_int,
        data: *mut c_void,
        buf: *mut c_void,
    }

    #[link(name = "imsg")]
    unsafe extern "C" {
        fn imsg_init(buf: *mut RawBuf, fd: c_int);
        fn imsg_read(buf: *mut RawBuf) -> isize;
        fn imsg_get(buf: *mut RawBuf, message: *mut Message) -> isize;
        fn imsg_free(message: *mut Message);
        fn imsg_compose(
            buf: *mut RawBuf,
            msg_type: u32,
            id: u32,
            pid: libc::pid_t,
            fd: c_int,
            data: *const c_void,
            len: usize,
        ) -> c_int;
        fn imsg_flush(buf: *mut RawBuf) -> c_int;
        fn imsg_clear(buf: *mut RawBuf);
    }

    struct Buf {
        raw: Box<RawBuf>,
        socket: UnixStream,
    }

    impl Buf {
        fn new(socket: UnixStream) -> Self {
            let mut raw = Box::new(RawBuf(MaybeUninit::zeroed()));
            // SAFETY: it is large enough for a `struct imsgbuf`, and stays where it is.
            unsafe { imsg_init(&mut *raw, socket.as_raw_fd()) };
            Self { raw, socket }
        }

        fn pair() -> (Self, Self) {
            let (ours, theirs) = UnixStream::pair().expect("socket pair");
            (Self::new(ours), Self::new(theirs))
        }

        fn compose(&mut self, payload: &[u8], descriptor: Option<OwnedFd>) {
            let fd = descriptor.map_or(-1, IntoRawFd::into_raw_fd);
            // SAFETY: the buffer was initialized; the payload is copied, and the descriptor is
            // owned by the buffer from here on.
            let result = unsafe {
                imsg_compose(&mut *self.raw, 1, 2, 3, fd, payload.as_ptr().cast(), payload.len())
            };
            assert_eq!(result, 1, "imsg_compose: {}", Error::last_os_error());
        }

        fn flush(&mut self) {
            // SAFETY: the buffer was initialized.
            let result = unsafe { imsg_flush(&mut *self.raw) };
            assert_eq!(result, 0, "imsg_flush: {}", Error::last_os_error());
        }

        fn clear(&mut self) {
            // SAFETY: the buffer was initialized, and is as new afterwards.
            unsafe { imsg_clear(&mut *self.raw) };
        }

        fn read(&mut self) {
            // SAFETY: the buffer was initialized.
            let n = unsafe { imsg_read(&mut *self.raw) };
            assert!(n > 0, "imsg_read: {n}, {}", Error::last_os_error());
        }

        /// Takes a message, looks at it, and gives its descriptor; `None` when there is none.
        fn take(&mut self, look: impl FnOnce(&[u8])) -> Option<Option<OwnedFd>> {
            let mut message = MaybeUninit::<Message>::zeroed();
            // SAFETY: the buffer was initialized.
            let n = unsafe { imsg_get(&mut *self.raw, message.as_mut_ptr()) };
            assert!(n >= 0, "imsg_get: {}", Error::last_os_error());
            if n == 0 {
                return None;
            }
            // SAFETY: `imsg_get` filled it in.
            let message = unsafe { message.assume_init_mut() };
            let header = message.header;
            black_box(header.msg_type ^ header.peerid ^ header.pid ^ u32::from(header.flags));
            let len = usize::from(header.len) - size_of::<Header>();
            let data = if len == 0 { ptr::dangling() } else { message.data.cast::<u8>() };
            // SAFETY: the payload is as long as the header says, and lives until it is freed.
            look(unsafe { std::slice::from_raw_parts(data, len) });
            // SAFETY: `imsg_get` gave the descriptor to its caller.
            let descriptor = (message.fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(message.fd) });
            // SAFETY: it is freed once, and not used after that.
            unsafe { imsg_free(message) };
            Some(descriptor)
        }

        fn receive(&mut self, look: impl Fn(&[u8])) -> Option<OwnedFd> {
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
            self.clear();
        }
    }

    fn touch(payload: &[u8]) {
        black_box(payload.first());
    }

    fn take(work: Work) -> Sampler {
        let bytes = ours::stream_of(Classic::new(), work);
        let buffers = (0..work.buffers()).map(|_| Buf::pair()).collect();
        let refill = move |buffers: &mut Vec<(Buf, Buf)>| {
            for (from, to) in buffers {
                from.socket.write_all(&bytes).expect("send");
                to.read();
            }
        };
        let take_all = |buffers: &mut Vec<(Buf, Buf)>| {
            for (_, buffer) in buffers {
                while buffer.take(touch).is_some() {}
            }
        };
        prepared(buffers, refill, take_all)
    }

    fn compose(work: Work) -> Sampler {
        let (mut queue, _peer) = Buf::pair();
        let payload = vec![4_u8; work.payload];
        in_memory(move || {
            for _ in 0..work.batch {
                queue.compose(black_box(&payload), None);
            }
            queue.clear();
        })
    }

    fn stream(work: Work) -> Sampler {
        let (mut ours, mut theirs) = Buf::pair();
        let payload = vec![4_u8; work.payload];
        two_processes(
            move |turns| {
                for _ in 0..turns {
                    for _ in 0..work.batch {
                        ours.compose(&payload, None);
                    }
                    ours.flush();
                }
            },
            move |turns| {
                for _ in 0..turns * work.batch {
                    theirs.receive(touch);
                }
            },
        )
    }

    fn round_trip(work: Work) -> Sampler {
        let (mut ours, mut theirs) = Buf::pair();
        let payload = vec![4_u8; work.payload];
        let reply = payload.clone();
        two_processes(
            move |turns| {
                for _ in 0..turns {
                    ours.compose(&payload, None);
                    ours.flush();
                    ours.receive(touch);
                }
            },
            move |turns| {
                for _ in 0..turns {
                    theirs.receive(touch);
                    theirs.compose(&reply, None);
                    theirs.flush();
                }
            },
        )
    }

    fn give(work: Work) -> Sampler {
        let (mut ours, mut theirs) = Buf::pair();
        let file = File::open("/dev/null").expect("/dev/null");
        let payload = vec![4_u8; work.payload];
        two_processes(
            move |turns| {
                for _ in 0..turns {
                    let copy = file.try_clone().expect("dup");
                    ours.compose(&payload, Some(copy.into()));
                    ours.flush();
                }
            },
            move |turns| {
                for _ in 0..turns {
                    drop(theirs.receive(touch).expect("a descriptor"));
                }
            },
        )
    }
}
