//! Echo servers with many clients: the examples, beside the same loops in plain system calls.
//!
//! One of these is on `poll`, which the kernel does in the more time the more clients there are that
//! have nothing to say; the other one on `mio`, where each message takes one call more, to find that
//! nothing else is there. tokio waits by `mio`, so that its server is beside that one.
//!
//! Every client sends a message, every tenth of them with a descriptor, and then each waits for its
//! answer. The clients are plain sockets in this process, and the server has a core of its own.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use imsg_os::{HEADER_LEN, Header, Modern};
use imsg_tests::examples;
use imsg_tests::process::Running;
use imsg_wire::SendBuf;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tempfile::TempDir;

use crate::machine::{self, Core};
use crate::work::BUFFER;

const ROUNDS: usize = 15;

/// Every so many messages, one has a descriptor.
const EVERY: usize = 10;

/// Prints what a message costs each of the servers.
pub(crate) fn report(sample: Duration) {
    let example = |name| {
        let tmp = env!("CARGO_TARGET_TMPDIR");
        let mut command = Command::new(examples::build(tmp, "imsg-os", name, "tokio"));
        command.arg("--listen");
        command
    };
    let plain = |by| {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(["--serve-by", by, "--serve"]);
        command
    };
    // Each is beside the last one in plain calls before it.
    let mut servers = [
        ("plain, poll", plain("poll")),
        ("echo_poll", example("echo_poll")),
        ("plain, mio", plain("mio")),
        ("echo_mio", example("echo_mio")),
        ("echo_tokio", example("echo_tokio")),
    ];
    for clients in [1, 100, 1000] {
        for payload in [64, 1024] {
            println!("\nclients: {clients}, {payload} B, a descriptor in every tenth message");
            println!(
                "  {:<12} {:>9} {:>14} {:>12} {:>6} {:>18}",
                "", "ns", "ns of server", "messages/s", "ratio", "KiB for a client",
            );
            let mut loads: Vec<Load> = servers
                .iter_mut()
                .map(|(name, command)| Load::start(name, command, clients, payload))
                .collect();
            for round in 0..ROUNDS {
                let first = round % loads.len();
                let (end, start) = loads.split_at_mut(first);
                start.iter_mut().chain(end).for_each(|load| load.sample(sample));
            }
            let mut floor = 0.0;
            for load in &loads {
                if load.name.starts_with("plain") {
                    floor = load.busy_for_each();
                }
                load.print(floor);
            }
        }
    }
}

/// A server, and its clients.
struct Load {
    name: &'static str,
    server: Running,
    sockets: Vec<UnixStream>,
    /// A message without a descriptor and one with it.
    messages: [Vec<u8>; 2],
    descriptor: File,
    sent: usize,
    /// How many times all clients send in a sample.
    turns: usize,
    /// Nanoseconds a message, in each sample.
    samples: Vec<f64>,
    /// For how many nanoseconds the server had a core, and for how many messages.
    busy: (u64, usize),
    /// What the server had without clients, in KiB.
    idle: usize,
    _directory: TempDir,
}

impl Load {
    fn start(name: &'static str, command: &mut Command, clients: usize, payload: usize) -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("socket");
        let mut again = Command::new(command.get_program());
        again.args(command.get_args()).arg(&path);
        // The child has the core of its parent.
        machine::pin(Core::Receiver);
        let mut server = Running::start(again.stdin(Stdio::piped()).stdout(Stdio::piped()));
        machine::pin(Core::Sender);
        let mut said = BufReader::new(server.child.stdout.take().expect("a pipe"));
        said.read_line(&mut String::new()).expect("it listens");
        let idle = server.process().memory("VmRSS").unwrap_or(0);
        let connect = |_| UnixStream::connect(&path).expect("it listens");
        let message = |marked: bool| {
            let mut queue: SendBuf<_, _, ()> =
                SendBuf::with_descriptors(Modern::new(), vec![0; HEADER_LEN + payload]);
            let bytes = vec![4_u8; payload];
            queue.compose(Header::new(1), &bytes[..], marked.then_some(())).expect("room");
            queue.into_storage()
        };
        let mut load = Self {
            name,
            server,
            sockets: Vec::new(),
            messages: [message(false), message(true)],
            descriptor: File::open("/dev/null").expect("/dev/null"),
            sent: 0,
            turns: 1,
            samples: Vec::new(),
            busy: (0, 0),
            idle,
            _directory: directory,
        };
        for client in 0..clients {
            load.sockets.push(connect(client));
            // So that those that wait to be accepted are few.
            load.answer(client, false);
        }
        load
    }

    fn sample(&mut self, sample: Duration) {
        if self.samples.is_empty() {
            self.turns = self.turns_for(sample);
        }
        let messages = self.turns * self.sockets.len();
        let before = self.busy();
        let elapsed = self.run(self.turns).as_nanos() as f64;
        self.busy.0 += self.busy() - before;
        self.busy.1 += messages;
        self.samples.push(elapsed / messages as f64);
    }

    fn turns_for(&mut self, sample: Duration) -> usize {
        let mut turns = 1;
        while self.run(turns) < sample {
            turns *= 2;
        }
        turns
    }

    fn run(&mut self, turns: usize) -> Duration {
        let start = Instant::now();
        for _ in 0..turns {
            let first = self.sent;
            for client in 0..self.sockets.len() {
                self.send(client, self.sent.is_multiple_of(EVERY));
            }
            for client in 0..self.sockets.len() {
                self.answer_of(client, (first + client).is_multiple_of(EVERY));
            }
        }
        start.elapsed()
    }

    fn answer(&mut self, client: usize, marked: bool) {
        self.send(client, marked);
        self.answer_of(client, marked);
    }

    fn send(&mut self, client: usize, marked: bool) {
        let bytes = &self.messages[usize::from(marked)];
        let descriptor = marked.then_some(self.descriptor.as_raw_fd());
        send(&self.sockets[client], bytes, descriptor).expect("send");
        self.sent += 1;
    }

    fn answer_of(&self, client: usize, marked: bool) {
        let mut buffer = [0; 2048];
        let (mut left, mut descriptors) = (self.messages[0].len(), 0);
        while left > 0 {
            let (n, descriptor) = receive(&self.sockets[client], &mut buffer).expect("an answer");
            assert_ne!(n, 0, "the server is gone");
            left -= n;
            descriptors += usize::from(descriptor.is_some());
        }
        assert_eq!(descriptors, usize::from(marked), "an answer has what its message had");
    }

    /// For how many nanoseconds the server had a core.
    fn busy(&self) -> u64 {
        let tasks = fs::read_dir(self.server.process().file("task")).expect("its threads");
        let of_thread = |task: io::Result<fs::DirEntry>| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        tasks.filter_map(of_thread).sum()
    }

    /// For how many nanoseconds the server had a core for each message of all samples. (In a short one
    /// the system may not have counted yet.)
    fn busy_for_each(&self) -> f64 {
        self.busy.0 as f64 / self.busy.1 as f64
    }

    fn print(&self, floor: f64) {
        let mut samples = self.samples.clone();
        samples.sort_by(f64::total_cmp);
        let elapsed = samples[samples.len() / 2];
        let busy = self.busy_for_each();
        let ratio = busy / floor;
        let memory = self.server.process().memory("VmRSS").unwrap_or(0).saturating_sub(self.idle);
        println!(
            "  {:<12} {elapsed:>9.0} {busy:>14.0} {:>12.0} {ratio:>6.2} {:>18.1}",
            self.name,
            1e9 / elapsed,
            memory as f64 / self.sockets.len() as f64,
        );
    }
}

/// What a server in plain calls waits by.
#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum By {
    #[default]
    Poll,
    Mio,
}

/// The same server, in plain system calls, without an end.
pub(crate) fn serve(path: &Path, by: By) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    writeln!(io::stdout(), "listening on {}", path.display())?;
    match by {
        By::Poll => serve_by_poll(&listener),
        By::Mio => serve_by_mio(&listener),
    }
}

fn serve_by_poll(listener: &UnixListener) -> io::Result<()> {
    let mut clients = Vec::<UnixStream>::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut fds = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        fds.extend(clients.iter().map(|client| PollFd::new(client.as_fd(), PollFlags::POLLIN)));
        poll(&mut fds, PollTimeout::NONE)?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let mut of_clients = ready[1..].iter();
        clients.retain(|client| {
            !of_clients.next().is_some_and(|ready| *ready) || echo(client, &mut buffer).is_ok()
        });
        while ready[0]
            && let Ok((client, _)) = listener.accept()
        {
            clients.push(client);
        }
    }
}

/// Reads until nothing is there: that a read brings less than it could does not tell, as it ends at
/// each descriptor.
fn serve_by_mio(listener: &UnixListener) -> io::Result<()> {
    const LISTENER: Token = Token(usize::MAX);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
    let register = |poll: &Poll, fd: RawFd, token| {
        poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)
    };
    register(&poll, listener.as_raw_fd(), LISTENER)?;
    let mut clients = Vec::<Option<UnixStream>>::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        poll.poll(&mut events, None)?;
        for Token(number) in events.iter().map(Event::token) {
            if Token(number) == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    client.set_nonblocking(true)?;
                    register(&poll, client.as_raw_fd(), Token(clients.len()))?;
                    clients.push(Some(client));
                }
            } else if let Some(client) = &clients[number] {
                let end = loop {
                    if let Err(error) = echo(client, &mut buffer) {
                        break error;
                    }
                };
                if end != Errno::EAGAIN {
                    clients[number] = None;
                }
            }
        }
    }
}

/// Sends what was received back. The end is an error.
fn echo(client: &UnixStream, buffer: &mut [u8]) -> nix::Result<()> {
    let (n, descriptor) = receive(client, buffer)?;
    if n == 0 {
        return Err(Errno::EPIPE);
    }
    let descriptor = descriptor.as_ref().map(AsRawFd::as_raw_fd);
    send(client, &buffer[..n], descriptor).map(drop)
}

fn send(socket: &UnixStream, bytes: &[u8], descriptor: Option<RawFd>) -> nix::Result<usize> {
    let bytes = [IoSlice::new(bytes)];
    let rights = descriptor.as_slice();
    let control = [ControlMessage::ScmRights(rights)];
    let control = if rights.is_empty() { &[][..] } else { &control[..] };
    sendmsg::<()>(socket.as_raw_fd(), &bytes, control, MsgFlags::MSG_NOSIGNAL, None)
}

fn receive(socket: &UnixStream, buffer: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut space = cmsg_space!(RawFd);
    let mut bytes = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut space), flags)?;
    let rights = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(rights) => rights.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made this descriptor for us.
    Ok((message.bytes, rights.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })))
}
