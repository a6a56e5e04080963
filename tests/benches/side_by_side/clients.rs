//! Echo servers with many clients: the examples, beside the same loop in plain system calls.
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

use imsg_os::{HEADER_LEN, Header, Modern};
use imsg_tests::examples;
use imsg_tests::process::Running;
use imsg_wire::SendBuf;
use nix::cmsg_space;
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
    let servers = ["plain calls", "echo_poll", "echo_mio", "echo_tokio"].map(|name| {
        let command = match name {
            "plain calls" => {
                let mut command = Command::new(env::current_exe().expect("this program"));
                command.arg("--serve");
                command
            }
            _ => {
                let tmp = env!("CARGO_TARGET_TMPDIR");
                let mut command = Command::new(examples::build(tmp, "imsg-os", name, "tokio"));
                command.arg("--listen");
                command
            }
        };
        (name, command)
    });
    let mut servers = servers;
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
            let floor = loads[0].busy_for_each();
            loads.iter().for_each(|load| load.print(floor));
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

/// The same server, in plain system calls, without an end.
pub(crate) fn serve(path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    writeln!(io::stdout(), "listening on {}", path.display())?;
    let mut clients = Vec::<UnixStream>::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut fds = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        fds.extend(clients.iter().map(|client| PollFd::new(client.as_fd(), PollFlags::POLLIN)));
        poll(&mut fds, PollTimeout::NONE)?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let mut of_clients = ready[1..].iter();
        clients.retain(|client| {
            !of_clients.next().is_some_and(|ready| *ready) || echo(client, &mut buffer)
        });
        while ready[0]
            && let Ok((client, _)) = listener.accept()
        {
            clients.push(client);
        }
    }
}

/// Sends what was received back. `false` at the end.
fn echo(client: &UnixStream, buffer: &mut [u8]) -> bool {
    let Ok((n @ 1.., descriptor)) = receive(client, buffer) else {
        return false;
    };
    let descriptor = descriptor.as_ref().map(AsRawFd::as_raw_fd);
    send(client, &buffer[..n], descriptor).is_ok()
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
