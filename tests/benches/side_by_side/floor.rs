//! The least that the same work can cost: plain system calls for the same bytes in the same
//! batches, and for the work in memory loops written by hand. Those leave out nothing that is needed
//! for messages to be right: lengths are checked, headers are written, and a buffer keeps its place.

use std::fs::File;
use std::hint::black_box;
use std::io::Error;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use imsg_os::{DEFAULT_MAX_LEN, HEADER_LEN, Modern};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::Sampler;
use crate::ours::stream_of;
use crate::pair::{in_memory, prepared, two_processes};
use crate::work::{BUFFER, Kind, Work};

pub(crate) fn sampler(work: Work) -> Sampler {
    match work.kind {
        Kind::Parse => {
            let bytes = stream_of(Modern::new(), work);
            in_memory(move || {
                black_box(parse(black_box(&mut &bytes[..])));
            })
        }
        Kind::Take => take(work),
        Kind::Compose => compose(work),
        Kind::Stream => stream(work, BUFFER),
        Kind::RoundTrip | Kind::RoundTripOneCore => round_trip(work),
        Kind::Open => open(work),
        Kind::Lend => descriptors(work, false),
        Kind::Give => descriptors(work, true),
    }
}

/// Goes through the messages of a stream, and reads their headers and first bytes. What is left is
/// what is no whole message.
fn parse(bytes: &mut &[u8]) -> u32 {
    let mut sum = 0_u32;
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let len = word(4) as usize;
        if !(HEADER_LEN..=DEFAULT_MAX_LEN).contains(&len) || len > bytes.len() {
            break;
        }
        let (message, rest) = bytes.split_at(len);
        let first = message.get(HEADER_LEN).copied().unwrap_or(0);
        sum = sum.wrapping_add(word(0) ^ word(8) ^ word(12) ^ u32::from(first));
        *bytes = rest;
    }
    sum
}

/// As [`parse`], of what is new in each of several buffers, which keep their place.
fn take(work: Work) -> Sampler {
    let bytes = stream_of(Modern::new(), work);
    let refill = |buffers: &mut Vec<(Vec<u8>, usize)>| {
        for (_, taken) in buffers {
            *taken = 0;
        }
    };
    let take_all = |buffers: &mut Vec<(Vec<u8>, usize)>| {
        let mut sum = 0_u32;
        for (bytes, taken) in buffers {
            let mut rest = &bytes[*taken..];
            sum = sum.wrapping_add(parse(&mut rest));
            *taken = bytes.len() - rest.len();
        }
        black_box(sum);
    };
    prepared(vec![(bytes, 0); work.buffers()], refill, take_all)
}

fn compose(work: Work) -> Sampler {
    let payload = vec![1_u8; work.payload];
    let mut queue = vec![0_u8; BUFFER];
    in_memory(move || {
        let mut end = 0;
        for _ in 0..work.batch {
            end += write_message(&mut queue[end..], black_box(&payload[..])).expect("room");
        }
        black_box(&mut queue);
    })
}

/// Writes a message to the front of `space`, and says how long it is; `None` when that is too much.
fn write_message(space: &mut [u8], payload: &[u8]) -> Option<usize> {
    let len = HEADER_LEN + payload.len();
    if len > DEFAULT_MAX_LEN {
        return None;
    }
    let (header, rest) = space.get_mut(..len)?.split_at_mut(HEADER_LEN);
    for (place, word) in header.chunks_exact_mut(4).zip([1, len as u32, 2, 3]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    rest.copy_from_slice(payload);
    Some(len)
}

/// From and to memory of the length of a message, if that is more than a buffer: such a message is
/// in no cache of a processor, which takes time also where nothing is copied.
pub(crate) fn whole(work: Work) -> Option<Sampler> {
    let large = work.kind == Kind::Stream && work.message_len() > BUFFER;
    large.then(|| stream(work, work.message_len()))
}

fn stream(work: Work, len: usize) -> Sampler {
    let (ours, theirs) = UnixStream::pair().expect("socket pair");
    let batch = work.batch * work.message_len();
    let queue = vec![1_u8; batch.min(len)];
    let mut buffer = vec![0_u8; len];
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                let mut left = batch;
                while left > 0 {
                    left -= send_some(&ours, &queue[..left.min(queue.len())]);
                }
            }
        },
        move |turns| receive(&theirs, &mut buffer, turns * batch),
    )
}

fn round_trip(work: Work) -> Sampler {
    let (ours, theirs) = UnixStream::pair().expect("socket pair");
    let message = vec![1_u8; work.message_len()];
    let len = message.len();
    let mut buffer = vec![0_u8; BUFFER];
    let mut reply_buffer = buffer.clone();
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                assert_eq!(send_some(&ours, &message), len);
                receive(&ours, &mut reply_buffer, len);
            }
        },
        move |turns| {
            for _ in 0..turns {
                receive(&theirs, &mut buffer, len);
                assert_eq!(send_some(&theirs, &buffer[..len]), len);
            }
        },
    )
}

fn send_some(socket: &UnixStream, bytes: &[u8]) -> usize {
    send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).expect("send")
}

/// Receives `len` bytes, each time to the front of a small buffer, and over all of a large one.
fn receive(socket: &UnixStream, buffer: &mut [u8], len: usize) {
    let mut left = len;
    let mut at = 0;
    while left > 0 {
        let n = recv(socket.as_raw_fd(), &mut buffer[at..], MsgFlags::empty()).expect("recv");
        assert_ne!(n, 0, "the peer is gone");
        left -= n;
        at = if at + n == buffer.len() || buffer.len() <= BUFFER { 0 } else { at + n };
    }
}

fn open(work: Work) -> Sampler {
    let message = vec![1_u8; work.message_len()];
    let mut buffer = [0_u8; 1024];
    in_memory(move || {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            assert_eq!(send_some(from, &message), message.len());
            receive(to, &mut buffer, message.len());
        }
    })
}

fn descriptors(work: Work, given: bool) -> Sampler {
    let (ours, theirs) = UnixStream::pair().expect("socket pair");
    let file = File::open("/dev/null").expect("/dev/null");
    let message = vec![1_u8; work.message_len()];
    let mut buffer = vec![0_u8; BUFFER];
    let len = message.len();
    two_processes(
        work,
        move |turns| {
            for _ in 0..turns {
                let copy = given.then(|| file.try_clone().expect("dup"));
                let fd = copy.as_ref().unwrap_or(&file).as_raw_fd();
                assert_eq!(send_with(&ours, &message, fd), len);
            }
        },
        move |turns| {
            for _ in 0..turns {
                let (n, descriptor) = receive_with(&theirs, &mut buffer);
                assert_eq!(n, len);
                drop(descriptor);
            }
        },
    )
}

/// Room for a descriptor; the integers align it.
type Control = [usize; 4];
// SAFETY: `CMSG_SPACE` only computes.
const CONTROL_LEN: usize = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;
const _: () = assert!(CONTROL_LEN <= size_of::<Control>());

fn send_with(socket: &UnixStream, bytes: &[u8], descriptor: RawFd) -> usize {
    let mut control: Control = [0; 4];
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let header = message_header(&mut iov, &mut control);
    // SAFETY: the control buffer is alive, aligned, zeroed and large enough for one descriptor;
    // `sendmsg` reads the bytes and that buffer only.
    let sent = unsafe {
        let message = libc::CMSG_FIRSTHDR(&header);
        (*message).cmsg_level = libc::SOL_SOCKET;
        (*message).cmsg_type = libc::SCM_RIGHTS;
        (*message).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(message).cast::<RawFd>().write_unaligned(descriptor);
        libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).unwrap_or_else(|_| panic!("sendmsg: {}", Error::last_os_error()))
}

fn receive_with(socket: &UnixStream, buffer: &mut [u8]) -> (usize, OwnedFd) {
    let mut control: Control = [0; 4];
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = message_header(&mut iov, &mut control);
    // SAFETY: the bytes and the control buffer are alive and as long as stated.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, 0) };
    let n = usize::try_from(n).unwrap_or_else(|_| panic!("recvmsg: {}", Error::last_os_error()));
    // SAFETY: the header is as `recvmsg` left it.
    let message = unsafe { libc::CMSG_FIRSTHDR(&header) };
    assert!(!message.is_null(), "a descriptor");
    // SAFETY: the only control message that can come is that of a descriptor, which the kernel
    // installed for us.
    let descriptor =
        unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(message).cast::<RawFd>().read_unaligned()) };
    (n, descriptor)
}

fn message_header(iov: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all fields are integers and pointers, for which zero is a valid value.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header.msg_control = ptr::from_mut(control).cast();
    header.msg_controllen = CONTROL_LEN as _;
    header
}
