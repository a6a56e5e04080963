//! What the tests over real sockets share.

// Each of the binaries uses a part of it.
#![allow(dead_code, unused_imports, unused_macros)]

use std::env;
use std::fs::{self, File};
use std::io::{self, IoSlice, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::thread::JoinHandleExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use imsg_os::{
    Channel, Classic, Descriptor, Dialect, Modern, Pairing, Receiver, RecvError, Storage,
};
use imsg_wire::{Error, Fault, Violation};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Pid, alarm, gettid};

/// After this long a test has failed; none waits for it to pass.
const TOO_LONG: Duration = Duration::from_secs(120);

/// What waits without a limit of time.
#[cfg(any(target_arch = "x86", target_arch = "x86_64", target_arch = "s390x"))]
pub(crate) const POLL: libc::c_long = libc::SYS_poll;
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "s390x")))]
pub(crate) const POLL: libc::c_long = libc::SYS_ppoll;

const ALONE: &str = "IMSG_TEST_ALONE";

/// What starts a program of another machine than this one: a command that takes it as an argument.
const RUNNER: &str = "IMSG_TEST_RUNNER";

/// Runs `body` in a process of its own: for tests that count or change what a process has only
/// once, such as descriptors, limits and signal handlers.
#[track_caller]
pub(crate) fn alone(body: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        // A test that hangs is to fail.
        alarm::set(u32::try_from(TOO_LONG.as_secs()).unwrap());
        return body();
    }
    let output = this_test().env(ALONE, "1").output().expect("start this test again");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "in a process of its own: {}\n{said}{complained}",
        output.status
    );
}

/// As [`alone`], and `body` has to leave no descriptor behind.
#[track_caller]
pub(crate) fn leaving_no_descriptor(body: impl FnOnce()) {
    alone(|| {
        let before = open_descriptors();
        body();
        assert_eq!(open_descriptors(), before, "descriptors were left behind");
    });
}

/// Whether this program runs in an emulator, where all takes longer.
pub(crate) fn is_emulated() -> bool {
    env::var_os(RUNNER).is_some()
}

/// The command that runs the test that this is called in, and nothing else.
pub(crate) fn this_test() -> Command {
    let thread = thread::current();
    let name = thread.name().expect("libtest names the thread after the test");
    let program = env::current_exe().expect("the path of this program");
    let mut command = match env::var(RUNNER) {
        Ok(runner) => {
            let mut words = runner.split_whitespace();
            let mut command = Command::new(words.next().expect("the name of a program"));
            command.args(words).arg(program);
            command
        }
        Err(_) => Command::new(program),
    };
    command.args(["--exact", name, "--nocapture"]);
    command
}

pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("list the open descriptors").count()
}

/// A descriptor that can be told from others: a pipe that `number` was written to.
pub(crate) fn numbered(number: u64) -> OwnedFd {
    let (reader, mut writer) = io::pipe().expect("make a pipe");
    writer.write_all(&number.to_ne_bytes()).expect("write to the pipe");
    reader.into()
}

/// The number of a [`numbered`] descriptor, which is closed.
#[track_caller]
pub(crate) fn number_of(descriptor: OwnedFd) -> u64 {
    let mut number = [0; 8];
    File::from(descriptor).read_exact(&mut number).expect("read the number of the descriptor");
    u64::from_ne_bytes(number)
}

/// A descriptor, and something that sees whether any copy of it is open.
pub(crate) fn watched() -> (OwnedFd, Watch) {
    let (reader, writer): (_, PipeWriter) = io::pipe().expect("make a pipe");
    (writer.into(), Watch(reader))
}

pub(crate) struct Watch(PipeReader);

impl Watch {
    pub(crate) fn sees_it_open(&self) -> bool {
        !self.hung_up(PollTimeout::ZERO)
    }

    pub(crate) fn sees_it_closed(&self) -> bool {
        self.hung_up(PollTimeout::try_from(TOO_LONG).unwrap())
    }

    fn hung_up(&self, timeout: PollTimeout) -> bool {
        let mut pipe = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut pipe, timeout).expect("poll the pipe") == 1
    }
}

/// Headers, made by hand as a C program would.
pub(crate) trait ByHand: Dialect + Copy + Send + 'static {
    fn header(msg_type: u32, len: usize, marked: bool) -> [u8; 16];
}

impl ByHand for Classic {
    fn header(msg_type: u32, len: usize, marked: bool) -> [u8; 16] {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&msg_type.to_ne_bytes());
        header[4..6].copy_from_slice(&u16::try_from(len).unwrap().to_ne_bytes());
        header[6..8].copy_from_slice(&u16::from(marked).to_ne_bytes());
        header
    }
}

impl ByHand for Modern {
    fn header(msg_type: u32, len: usize, marked: bool) -> [u8; 16] {
        let mark = if marked { 1 << 31 } else { 0 };
        let len = u32::try_from(len).unwrap() | mark;
        let mut header = [0; 16];
        header[..4].copy_from_slice(&msg_type.to_ne_bytes());
        header[4..8].copy_from_slice(&len.to_ne_bytes());
        header
    }
}

/// The bytes of each [`unmarked`] and [`marked`] message.
pub(crate) const LEN: u64 = 20;

pub(crate) fn unmarked<D: ByHand>(_: D, msg_type: u32) -> Vec<u8> {
    padded(D::header(msg_type, LEN as usize, false), LEN as usize)
}

pub(crate) fn marked<D: ByHand>(_: D, msg_type: u32) -> Vec<u8> {
    padded(D::header(msg_type, LEN as usize, true), LEN as usize)
}

/// Unmarked messages of type 0 and of `len` bytes together.
pub(crate) fn filler<D: ByHand>(_: D, len: usize) -> Vec<u8> {
    let mut filler = Vec::new();
    while filler.len() < len {
        let len = match len - filler.len() {
            left @ ..=4000 => left,
            // A header has to fit behind it.
            left @ ..4016 => left - 16,
            _ => 4000,
        };
        filler.extend(padded(D::header(0, len, false), len));
    }
    filler
}

fn padded(header: [u8; 16], len: usize) -> Vec<u8> {
    let mut message = header.to_vec();
    message.resize(len, b'.');
    message
}

/// Sends all of `bytes` with the descriptors beside them by one `sendmsg`, in any way that the
/// kernel allows, and closes the descriptors.
#[track_caller]
pub(crate) fn send(socket: &UnixStream, bytes: &[u8], descriptors: impl AsRef<[OwnedFd]>) {
    let sent = try_send(socket, bytes, descriptors).expect("send by hand");
    assert_eq!(sent, bytes.len(), "the kernel took a part of it");
}

pub(crate) fn try_send(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: impl AsRef<[OwnedFd]>,
) -> nix::Result<usize> {
    let raw: Vec<RawFd> = descriptors.as_ref().iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights };
    let iov = [IoSlice::new(bytes)];
    sendmsg::<()>(socket.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None)
}

/// What a channel received, with the numbers of the descriptors.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Message(u32, Descriptor<u64>),
    Error(Error),
    End,
}

impl Got {
    pub(crate) fn violation(fault: Fault, offset: u64) -> Self {
        Self::Error(Error::Descriptor(Violation { fault, offset }))
    }
}

/// A peer to send by hand, and a channel that takes descriptors and pairs them by `rule`.
pub(crate) fn peer_and_channel<D: ByHand>(dialect: D, rule: Pairing) -> (UnixStream, Channel<D>) {
    let (peer, socket) = UnixStream::pair().expect("make a socket pair");
    let mut channel = Channel::new(socket, dialect).expect("it is a stream socket");
    channel.rx.allow_descriptors();
    channel.rx.set_pairing(rule);
    (peer, channel)
}

/// The number of the system for why a flush fails; `None` when it does not.
pub(crate) fn flush_error(channel: &mut Channel<Modern>) -> Option<i32> {
    channel.tx.flush().err().as_ref().and_then(io::Error::raw_os_error)
}

/// Receives until the stream ends or breaks, leaving out messages of type 0.
#[track_caller]
pub(crate) fn receive_to_the_end<D: Dialect, S: Storage>(rx: &mut Receiver<D, S>) -> Vec<Got> {
    let mut all = Vec::new();
    loop {
        let got = next(rx);
        if let Got::Message(0, Descriptor::None) = got {
            continue;
        }
        let last = !matches!(got, Got::Message(..));
        if last {
            assert_eq!(next(rx), got, "the end of a stream is the end");
        }
        all.push(got);
        if last {
            return all;
        }
    }
}

#[track_caller]
pub(crate) fn next<D: Dialect, S: Storage>(rx: &mut Receiver<D, S>) -> Got {
    match rx.recv() {
        Ok(Some(message)) => Got::Message(message.header.msg_type, numbers(message.descriptor)),
        Ok(None) => Got::End,
        Err(RecvError::Protocol(error)) => Got::Error(error),
        Err(error) => panic!("receive: {error}"),
    }
}

pub(crate) fn numbers(descriptor: Descriptor<OwnedFd>) -> Descriptor<u64> {
    match descriptor {
        Descriptor::Here(descriptor) => Descriptor::Here(number_of(descriptor)),
        Descriptor::None => Descriptor::None,
        Descriptor::Missing(missing) => Descriptor::Missing(missing),
    }
}

/// What the C library may call for every function of sockets.
#[cfg(any(target_arch = "x86", target_arch = "s390x"))]
const SOCKET_CALL: Option<libc::c_long> = Some(libc::SYS_socketcall);
#[cfg(not(any(target_arch = "x86", target_arch = "s390x")))]
const SOCKET_CALL: Option<libc::c_long> = None;

/// A thread that waits in a system call at some time.
pub(crate) struct Companion<T> {
    tid: Pid,
    pub(crate) thread: JoinHandle<T>,
}

impl<T: Send + 'static> Companion<T> {
    pub(crate) fn start(body: impl FnOnce() -> T + Send + 'static) -> Self {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            tell.send(gettid()).unwrap();
            body()
        });
        Self { tid: told.recv().unwrap(), thread }
    }

    /// Waits until the thread waits in the system call of this number, or fails. Gives the arguments
    /// of the call. (gVisor says only that it waits.)
    #[track_caller]
    pub(crate) fn until_asleep(&self, call: libc::c_long) -> Vec<u64> {
        let path = format!("/proc/self/task/{}/syscall", self.tid);
        if !fs::exists(&path).expect("look for the file") {
            self.until_idle();
            return Vec::new();
        }
        let calls = [call, SOCKET_CALL.unwrap_or(call)].map(|call| call.to_string());
        let begun = Instant::now();
        let mut state = String::new();
        while begun.elapsed() < TOO_LONG {
            state = fs::read_to_string(&path).expect("the thread is there");
            let mut words = state.split_whitespace();
            if words.next().is_some_and(|word| calls.iter().any(|call| call == word)) {
                let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
                return words.map(|word| number(word).expect("a number")).collect();
            }
            thread::yield_now();
        }
        panic!("the thread does not wait in system call {call}, but: {state}");
    }

    #[track_caller]
    fn until_idle(&self) {
        let path = format!("/proc/self/task/{}/status", self.tid);
        let begun = Instant::now();
        while begun.elapsed() < TOO_LONG {
            let status = fs::read_to_string(&path).expect("the thread is there");
            if status.contains("State:\tS") {
                return;
            }
            thread::yield_now();
        }
        panic!("the thread does not wait");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        pthread_kill(self.thread.as_pthread_t(), signal).expect("signal the thread");
    }
}

const PEER: &str = "IMSG_TEST_PEER";

/// Whether this process is what [`Peer::start`] started; its standard input is the socket then.
pub(crate) fn is_peer() -> bool {
    env::var_os(PEER).is_some()
}

/// Sends by hand to the process that started this one, tells it, and waits to be killed.
pub(crate) fn send_and_wait(bytes: &[u8], descriptors: impl AsRef<[OwnedFd]>) {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    send(&socket, bytes, descriptors);
    io::stderr().write_all(b"!").unwrap();
    // Or until the other process is gone.
    let _ = (&socket).read(&mut [0]);
}

/// A process that runs this same test, with one end of a socket.
pub(crate) struct Peer(std::process::Child);

impl Peer {
    pub(crate) fn start(socket: UnixStream) -> Self {
        let mut command = this_test();
        command.env(PEER, "1").stdin(OwnedFd::from(socket)).stdout(Stdio::null());
        Self(command.stderr(Stdio::piped()).spawn().expect("start the peer"))
    }

    /// Kills the peer once it has sent.
    #[track_caller]
    pub(crate) fn kill(mut self) {
        let mut said = [0];
        self.0.stderr.take().unwrap().read_exact(&mut said).expect("hear from the peer");
        assert_eq!(said, *b"!", "the peer complained");
        self.0.kill().expect("kill the peer");
        self.0.wait().expect("bury the peer");
    }
}

/// Makes of each function a test for each dialect.
macro_rules! in_both_dialects {
    ($($name:ident)*) => {
        mod classic {
            $(#[test] fn $name() { super::$name(imsg_os::Classic::new()); })*
        }
        mod modern {
            $(#[test] fn $name() { super::$name(imsg_os::Modern::new()); })*
        }
    };
}
pub(crate) use in_both_dialects;
