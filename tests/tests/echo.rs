//! The examples `echo_poll`, `echo_mio` and `echo_tokio`, run as programs, in both dialects: what they
//! do is the same.

#![cfg(target_os = "linux")]

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, LazyLock};
use std::thread;

use imsg_os::imsg_wire::Frame;
use imsg_os::{
    Any, Channel, DEFAULT_MAX_LEN, Descriptor, Dialect, Endian, HEADER_LEN, Header, ReadOutcome,
    RecvError, Sender, WriteOutcome,
};
use imsg_tests::examples;
use imsg_tests::process::{self, Running, until, until_ready};
use imsg_tests::rng::Rng;
use nix::poll::PollFlags;
use nix::sys::resource::{Resource, rlim_t};
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, sendmsg, shutdown};
use tempfile::TempDir;

/// The longest payload.
const MOST: usize = DEFAULT_MAX_LEN - HEADER_LEN;

/// How much memory a server may come to need, in KiB, whatever its clients do: less than what they
/// would have it keep.
const MEMORY: usize = 8 * 1024;

#[test]
fn two_hundred_clients_at_once_get_back_all_that_they_send() {
    const THREADS: usize = 8;
    const EACH: usize = 25;
    const MESSAGES: usize = 240;
    for setting in Setting::all() {
        let server = setting.start();
        let baseline = server.descriptors();
        let connected = Barrier::new(THREADS);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (server, connected) = (&server, &connected);
                scope.spawn(move || {
                    let mut rng = Rng::of(&[thread as u64]);
                    let mut clients: Vec<_> = (0..EACH).map(|_| server.connect()).collect();
                    connected.wait();
                    while clients.iter().any(|client| client.sent < MESSAGES) {
                        for client in &mut clients {
                            for _ in 0..(1 + rng.size_below(6)).min(MESSAGES - client.sent) {
                                let len = any_len(&mut rng);
                                let descriptor = client.sent % 10 == 9;
                                client.send(payload(&mut rng, len), descriptor);
                            }
                            let _ = client.channel.tx.write().unwrap();
                        }
                        clients.iter_mut().for_each(Client::receive_all);
                    }
                    // A client that is answered is there; so all are.
                    if connected.wait().is_leader() {
                        assert!(server.descriptors() >= baseline + THREADS * EACH, "{setting:?}");
                    }
                    connected.wait();
                });
            }
        });
        server.until_descriptors(baseline);
        assert!(server.finish().is_empty(), "{setting:?}");
    }
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_and_gets_all_in_the_end() {
    for setting in Setting::all() {
        // What is too much for the buffers is in one case bytes, in the other descriptors.
        for (len, descriptors) in [(MOST, false), (0, true)] {
            let server = setting.start();
            let baseline = server.descriptors();
            let mut others: Vec<_> = (0..10).map(|_| server.connect()).collect();
            others.iter_mut().for_each(Client::exchange);
            let memory = server.memory();

            let mut lazy = server.connect();
            lazy.exchange(); // so it was accepted
            let mut rng = Rng::of(&[1]);
            let mut rounds_in_vain = 0;
            while rounds_in_vain < 3 {
                let before = lazy.sent;
                lazy.send_until_it_blocks(|| payload(&mut rng, len), descriptors);
                rounds_in_vain = if lazy.sent == before { rounds_in_vain + 1 } else { 0 };
                let bytes = lazy.sent * (HEADER_LEN + len);
                assert!(bytes < 2 << 20 && lazy.sent < 4000, "{setting:?}: the server reads on");
                others.iter_mut().for_each(Client::exchange);
            }
            let grown = server.memory().saturating_sub(memory);
            assert!(grown < MEMORY, "{setting:?}: {grown} KiB");
            // 8 were received and 16 are queued, at most.
            let held = server.descriptors() - baseline - others.len() - 1;
            assert!(held <= 24, "{setting:?}: {held}");

            lazy.receive_all();
            lazy.exchange();
            drop((lazy, others));
            server.until_descriptors(baseline);
            assert!(server.finish().is_empty(), "{setting:?}");
        }
    }
}

#[test]
fn a_client_that_sends_all_it_can_and_reads_little_by_little_gets_all() {
    const TOTAL: usize = 3 << 20;
    for setting in Setting::all() {
        for len in [MOST, 3000, 100] {
            let server = setting.start();
            let client = server.connect();
            let frame = Frame { header: Header::new(1), len: HEADER_LEN + len, marked: false };
            let mut message = setting.dialect().encode(&frame).to_vec();
            message.resize(frame.len, 7);
            let total = TOTAL - TOTAL % message.len();

            let mut socket = UnixStream::from(OwnedFd::try_from(client.channel).unwrap());
            let (mut sent, mut received) = (0, 0);
            while received < total {
                let rest = &message[sent % message.len()..];
                let would_block = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
                match socket.write(&rest[..rest.len().min(total - sent)]) {
                    Ok(n) if n > 0 => {
                        sent += n;
                        continue;
                    }
                    Err(error) if !would_block(&error) => panic!("{setting:?}, {len}: {error}"),
                    _ => {}
                }
                match socket.read(&mut [0; 5000]) {
                    Ok(0) => panic!("{setting:?}, {len}: {:?}", server.complaints()),
                    Ok(n) => received += n,
                    Err(error) if would_block(&error) => {
                        until_ready(&socket, PollFlags::POLLIN);
                    }
                    Err(error) => panic!("{setting:?}, {len}: {error}"),
                }
            }
            drop(socket);
            assert!(server.finish().is_empty(), "{setting:?}");
        }
    }
}

#[test]
fn a_client_that_breaks_the_protocol_or_hangs_up_ends_its_own_connection_only() {
    for setting in Setting::all() {
        let server = setting.start();
        let baseline = server.descriptors();
        let mut good = server.connect();
        let hundred = 100_u32.to_ne_bytes();
        let hundred = match setting.dialect {
            "classic" => [&[0; 4], &100_u16.to_ne_bytes()[..], &[0; 10]].concat(),
            _ => [&[0; 4], &hundred[..], &[0; 8]].concat(),
        };
        let cases = [
            ("a length of 0", vec![0; HEADER_LEN], false),
            ("too great a length", vec![0xff; HEADER_LEN], false),
            ("a part of a header", vec![0; HEADER_LEN - 1], true),
            ("a part of a message", hundred, true),
        ];
        for (number, (case, bytes, hang_up)) in cases.into_iter().enumerate() {
            let mut bad = server.connect();
            bad.exchange();
            let mut bad = UnixStream::from(OwnedFd::try_from(bad.channel).unwrap());
            bad.write_all(&bytes).unwrap();
            if hang_up {
                drop(bad);
            } else {
                let flags = until_ready(&bad, PollFlags::POLLIN);
                assert!(flags.contains(PollFlags::POLLHUP), "{setting:?}: {case}");
                assert_eq!(bad.read(&mut [0; 1]).unwrap_or(0), 0, "{setting:?}: {case}");
            }
            server.until_complaints(number + 1);
            good.exchange();
        }

        let mut lazy = server.connect();
        lazy.send_until_it_blocks(|| &POOL[..MOST], false);
        good.exchange();
        drop(lazy);
        server.until_complaints(5);
        good.exchange();
        drop(good);
        server.until_descriptors(baseline);
        let complaints = server.finish();
        assert_eq!(complaints.len(), 5, "{setting:?}: {complaints:?}");
    }
}

#[test]
fn two_hundred_clients_that_vanish_leave_nothing_behind() {
    for setting in Setting::all() {
        let server = setting.start();
        let baseline = server.descriptors();
        let mut rng = Rng::of(&[2]);
        let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
        for round in 0..3 {
            for client in &mut clients {
                let len = any_len(&mut rng);
                client.send(payload(&mut rng, len), round != 1);
                let _ = client.channel.tx.write().unwrap();
            }
        }
        for client in clients {
            if rng.one_in(2) {
                let mut socket = UnixStream::from(OwnedFd::try_from(client.channel).unwrap());
                socket.write_all(&[0; 5]).unwrap();
            }
        }
        server.until_descriptors(baseline);
        server.connect().exchange();
        let complaints = server.finish();
        let clients: BTreeSet<_> =
            complaints.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
        assert_eq!(clients.len(), complaints.len(), "{setting:?}: more than a line for one");
    }
}

#[test]
fn clients_that_pass_their_own_ends_and_die_in_a_message_are_hung_up_on_and_idle_ones_are_not() {
    for setting in Setting::all() {
        let server = setting.with_patience("0.2").start();
        let baseline = server.descriptors();
        let mut idle = server.connect();
        idle.exchange_a_little();
        let frame = Frame { header: Header::new(1), len: HEADER_LEN + 100, marked: true };
        let begun = [&setting.dialect().encode(&frame)[..], &[0; 50]].concat();
        for n in 0..64 {
            // Some have sent a part of the header, and some of the payload.
            server.connect().pass_own_end_and_die(&begun[..n + 1]);
        }
        server.until_complaints(64);
        server.until_descriptors(baseline + 1);
        // It has said nothing for longer than any of them.
        idle.exchange_a_little();
        server.connect().exchange_a_little();
        let complaints = server.finish();
        assert_eq!(complaints.len(), 64, "{setting:?}: {complaints:?}");
        let due = "it did not complete a message in time";
        assert!(complaints.iter().all(|line| line.ends_with(due)), "{setting:?}: {complaints:?}");
    }
}

#[test]
fn clients_that_do_not_read_their_answers_are_hung_up_on() {
    for setting in Setting::all() {
        let server = setting.with_patience("0.2").start();
        let baseline = server.descriptors();
        let mut other = server.connect();
        for _ in 0..3 {
            let mut lazy = server.connect();
            while lazy.channel.tx.write().is_ok() {
                until_ready(&lazy.channel, PollFlags::POLLOUT);
                while has_room(&lazy.channel.tx) {
                    lazy.compose(&POOL[..MOST], true, true);
                }
            }
        }
        server.until_complaints(3);
        server.until_descriptors(baseline + 1);
        other.exchange_a_little();
        let complaints = server.finish();
        assert_eq!(complaints.len(), 3, "{setting:?}: {complaints:?}");
        // Or that it did not complete a message, when this test itself was held up in one.
        assert!(complaints.iter().all(|line| line.ends_with(" in time")), "{complaints:?}");
    }
}

#[test]
fn a_client_that_ends_its_sending_half_gets_all_answers_before_the_end() {
    for setting in Setting::all() {
        let server = setting.start();
        let baseline = server.descriptors();
        let mut client = server.connect();
        for n in 0..20 {
            client.send(&POOL[n..n + MOST], n % 5 == 0);
            while client.channel.tx.write().unwrap() == WriteOutcome::WouldBlock {
                until_ready(&client.channel, PollFlags::POLLOUT);
            }
        }
        shutdown(client.channel.as_raw_fd(), Shutdown::Write).unwrap();
        client.receive_all();
        until_ready(&client.channel, PollFlags::POLLIN);
        assert_eq!(client.channel.rx.read().unwrap(), ReadOutcome::Closed, "{setting:?}");
        assert!(client.channel.rx.next_message().unwrap().is_none(), "{setting:?}");
        server.until_descriptors(baseline);
        assert!(server.finish().is_empty(), "{setting:?}");
    }
}

#[test]
fn a_client_that_never_pauses_leaves_the_others_their_turns() {
    for setting in Setting::all() {
        // As much as fits in a buffer, and as many.
        for len in [1000, 0] {
            let server = setting.start();
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut busy = server.connect();
                    while !stop.load(Ordering::Relaxed) {
                        while has_room(&busy.channel.tx) {
                            busy.send(&POOL[..len], false);
                        }
                        busy.transfer();
                    }
                    busy.receive_all();
                });
                let mut others: Vec<_> = (0..5).map(|_| server.connect()).collect();
                for _ in 0..40 {
                    others.iter_mut().for_each(Client::exchange);
                }
                stop.store(true, Ordering::Relaxed);
            });
            assert!(server.finish().is_empty(), "{setting:?}");
        }
    }
}

#[test]
fn a_server_that_has_nothing_to_do_sleeps() {
    for setting in Setting::all() {
        let idle = setting.start();
        let mut clients: Vec<_> = (0..20).map(|_| idle.connect()).collect();
        clients.iter_mut().for_each(Client::exchange);
        // What it could do with these, it cannot do for now.
        let mut lazy = idle.connect();
        lazy.send_until_it_blocks(|| &POOL[..MOST], false);
        let mut ended = idle.connect();
        ended.send_until_it_blocks(|| &POOL[..MOST], false);
        shutdown(ended.channel.as_raw_fd(), Shutdown::Write).unwrap();
        clients.iter_mut().for_each(Client::exchange);

        let busy = setting.start();
        let mut client = busy.connect();
        let before = (idle.ticks(), busy.ticks());
        // It has the processor as often as one that spins would have it.
        while busy.ticks() < before.1 + 20 {
            client.exchange();
        }
        let ticks = idle.ticks() - before.0;
        assert!(ticks <= 4, "{setting:?}: {ticks}");
        lazy.receive_all();
    }
}

#[test]
fn a_server_with_no_place_for_more_descriptors_serves_those_that_it_has() {
    for setting in Setting::all() {
        let server = setting.start_with_descriptors(40);
        let baseline = server.descriptors();
        let mut clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
        server.until_complaints(1);
        let complaint = &server.complaints()[0];
        assert!(complaint.contains("cannot take another client"), "{setting:?}: {complaint}");
        for client in &mut clients[..20] {
            client.send(b"with nothing", false);
            client.send_in_vain(b"the server cannot receive what comes with this");
            client.receive_all();
        }
        // Those that leave make room for those that wait.
        drop(clients.drain(..30));
        for client in &mut clients {
            client.send(b"with nothing", false);
            client.receive_all();
        }
        server.until_descriptors(baseline + clients.len());
        clients.iter_mut().for_each(Client::exchange);
        let complaints = server.finish();
        assert!(complaints.len() <= 3, "{setting:?}: {complaints:?}");
    }
}

#[test]
fn a_limit_for_files_takes_no_more_than_the_complaints() {
    for setting in Setting::all() {
        let limit = |command: &mut Command| process::limit(command, Resource::RLIMIT_FSIZE, 0);
        let server = Server::start(setting, limit);
        let mut client = server.connect();
        client.exchange();
        let mut bad = UnixStream::connect(&server.path).unwrap();
        bad.write_all(&[0; 16]).unwrap();
        assert_eq!(bad.read(&mut [0]).unwrap(), 0, "{setting:?}");
        client.exchange();
        drop(client);
        assert!(server.finish().is_empty(), "{setting:?}");
    }
}

#[test]
fn a_limit_below_the_descriptors_that_are_waited_for_is_said_and_leaves_no_socket() {
    for setting in Setting::all().filter(|setting| setting.program == "echo_poll") {
        let mut server = setting.start();
        let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(Client::exchange);
        process::limit_now(server.running.process(), Resource::RLIMIT_NOFILE, 4);
        // It waits by what was the limit when it began to.
        clients[0].send(&POOL[..1], false);
        let _ = clients[0].channel.tx.write();
        assert_eq!(server.running.until_it_ends().code(), Some(1));
        let due = "10 descriptors are more than RLIMIT_NOFILE";
        assert!(server.complaints()[0].ends_with(due), "{:?}", server.complaints());
        assert!(!server.path.exists());
    }
}

#[test]
fn the_program_ends_with_its_standard_input_and_takes_the_socket_away() {
    for setting in Setting::all() {
        let server = setting.start();
        let mut client = server.connect();
        client.exchange();
        let mut lazy = server.connect();
        lazy.send_until_it_blocks(|| &POOL[..MOST], true);

        let second = setting.command(&server.path).stderr(Stdio::piped()).output().unwrap();
        let complaint = String::from_utf8(second.stderr).unwrap();
        assert_eq!(second.status.code(), Some(1), "{setting:?}");
        let due = format!("{}: {:?}: Address already in use", setting.program, server.path);
        assert!(complaint.starts_with(&due), "{setting:?}: {complaint}");
        client.exchange();

        assert!(server.finish().is_empty(), "{setting:?}");
    }
}

/// Which of the programs, in which dialect, and how many seconds it waits for a client. Few are for
/// tests of that.
#[derive(Clone, Copy, Debug)]
struct Setting {
    program: &'static str,
    dialect: &'static str,
    patience: &'static str,
}

impl Setting {
    fn all() -> impl Iterator<Item = Self> {
        ["echo_poll", "echo_mio", "echo_tokio"].into_iter().flat_map(|program| {
            ["classic", "modern"].map(|dialect| Self { program, dialect, patience: "600" })
        })
    }

    fn with_patience(self, patience: &'static str) -> Self {
        Self { patience, ..self }
    }

    fn command(&self, listen: &Path) -> Command {
        let mut command = Command::new(built(self.program));
        command.arg("--listen").arg(listen).args(["--dialect", self.dialect]);
        command.args(["--patience", self.patience]);
        command
    }

    fn dialect(&self) -> Any {
        match self.dialect {
            "classic" => Any::Classic(Endian::NATIVE),
            _ => Any::Modern(Endian::NATIVE),
        }
    }

    fn start(self) -> Server {
        Server::start(self, |_| {})
    }

    /// Starts it so that it can have no more than `most` descriptors.
    fn start_with_descriptors(self, most: rlim_t) -> Server {
        Server::start(self, |command| process::limit(command, Resource::RLIMIT_NOFILE, most))
    }
}

fn built(program: &str) -> &'static Path {
    static POLL: LazyLock<PathBuf> = LazyLock::new(|| build("echo_poll", ""));
    static MIO: LazyLock<PathBuf> = LazyLock::new(|| build("echo_mio", ""));
    static TOKIO: LazyLock<PathBuf> = LazyLock::new(|| build("echo_tokio", "tokio"));
    match program {
        "echo_poll" => &POLL,
        "echo_mio" => &MIO,
        _ => &TOKIO,
    }
}

fn build(program: &str, features: &str) -> PathBuf {
    examples::build(env!("CARGO_TARGET_TMPDIR"), "imsg-os", program, features)
}

/// A program while it runs. It is killed when it is dropped.
struct Server {
    setting: Setting,
    running: Running,
    path: PathBuf,
    directory: TempDir,
}

impl Server {
    fn start(setting: Setting, adapt: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut command = setting.command(&path);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.path().join("complaints")).unwrap());
        adapt(&mut command);
        let mut running = Running::start(&mut command);
        let output = running.child.stdout.take().unwrap();
        let server = Self { setting, running, path, directory };
        until_ready(&output, PollFlags::POLLIN);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, format!("listening on {:?}\n", server.path), "{setting:?}");
        server
    }

    fn connect(&self) -> Client {
        let socket = UnixStream::connect(&self.path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut channel = Channel::new(socket, self.setting.dialect()).unwrap();
        channel.rx.allow_descriptors();
        Client { channel, server: self.running.child.id(), sent: 0, expected: VecDeque::new() }
    }

    fn descriptors(&self) -> usize {
        self.running.process().descriptors()
    }

    fn until_descriptors(&self, number: usize) {
        let what = format!("{:?} has {number} descriptors", self.setting);
        until(&what, || self.descriptors() == number);
    }

    /// The memory that it has, in KiB.
    fn memory(&self) -> usize {
        self.running.process().memory("VmRSS").unwrap()
    }

    /// How long it has used a processor.
    fn ticks(&self) -> u64 {
        self.running.process().ticks()
    }

    /// The lines that are whole: a line is written in several pieces.
    fn complaints(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("complaints")).unwrap();
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect()
    }

    fn until_complaints(&self, number: usize) {
        let what = format!("{:?} complains", self.setting);
        until(&what, || self.complaints().len() >= number);
    }

    /// Ends the program as it is meant to be ended, and returns what it complained of.
    fn finish(mut self) -> Vec<String> {
        drop(self.running.child.stdin.take());
        let status = self.running.until_it_ends();
        let complaints = self.complaints();
        assert!(status.success(), "{complaints:?}");
        assert!(!self.path.exists(), "{:?} left its socket", self.setting);
        let name = format!("{}: c", self.setting.program);
        assert!(complaints.iter().all(|line| line.starts_with(&name)), "{complaints:?}");
        complaints
    }
}

/// A client, which checks what it gets.
struct Client {
    channel: Channel<Any>,
    server: u32,
    sent: usize,
    expected: VecDeque<Expected>,
}

struct Expected {
    header: Header,
    payload: &'static [u8],
    descriptor: bool,
}

impl Client {
    /// Queues a message, and receives meanwhile when there is no room.
    fn send(&mut self, payload: &'static [u8], descriptor: bool) {
        while !has_room(&self.channel.tx) {
            self.transfer();
        }
        self.compose(payload, descriptor, descriptor);
    }

    /// Sends a descriptor that will not come back.
    fn send_in_vain(&mut self, payload: &'static [u8]) {
        self.compose(payload, true, false);
    }

    fn compose(&mut self, payload: &'static [u8], descriptor: bool, comes_back: bool) {
        let id = self.sent as u32;
        let header = Header { id, pid: 7, ..Header::new(id.wrapping_mul(31)) };
        let descriptor = descriptor.then(|| {
            let (read, mut write) = io::pipe().unwrap();
            write.write_all(&secret(self.server, id)).unwrap();
            OwnedFd::from(read)
        });
        self.channel.tx.compose(header, payload, descriptor).unwrap();
        let header = Header { pid: self.server, ..header };
        self.expected.push_back(Expected { header, payload, descriptor: comes_back });
        self.sent += 1;
    }

    /// Sends on and on and does not receive.
    fn send_until_it_blocks(
        &mut self,
        mut payload: impl FnMut() -> &'static [u8],
        descriptors: bool,
    ) {
        loop {
            while has_room(&self.channel.tx) {
                self.compose(payload(), descriptors, descriptors);
            }
            if self.channel.tx.write().unwrap() == WriteOutcome::WouldBlock {
                return;
            }
        }
    }

    /// Sends and gets back a few messages.
    fn exchange(&mut self) {
        for (len, descriptor) in [(0, false), (MOST, true), (100, false)] {
            self.send(&POOL[self.sent % 1000..][..len], descriptor);
        }
        self.receive_all();
    }

    /// The same with one message that the system takes and gives as a whole.
    fn exchange_a_little(&mut self) {
        self.send(b"with a pipe", true);
        self.receive_all();
    }

    /// Sends this, with its own end of the connection beside it.
    fn pass_own_end_and_die(self, bytes: &[u8]) {
        let own_end = [self.channel.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&own_end)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(own_end[0], &[IoSlice::new(bytes)], &rights, flags, None);
        assert_eq!(sent, Ok(bytes.len()));
    }

    fn receive_all(&mut self) {
        while !self.expected.is_empty() {
            self.transfer();
        }
    }

    /// Waits until something can be sent or received, and does it.
    fn transfer(&mut self) {
        let to_send = self.channel.tx.write().unwrap() == WriteOutcome::WouldBlock;
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, to_send);
        if until_ready(&self.channel, flags).contains(PollFlags::POLLIN) {
            match self.channel.rx.read() {
                Ok(ReadOutcome::Data | ReadOutcome::WouldBlock) | Err(RecvError::Full) => {}
                other => panic!("{} of {}: {other:?}", self.expected.len(), self.sent),
            }
        }
        while let Some(message) = self.channel.rx.next_message().unwrap() {
            let expected = self.expected.pop_front().expect("an answer to something");
            assert_eq!(message.header, expected.header);
            assert!(message.payload == expected.payload, "{:?}", expected.header);
            match message.descriptor {
                Descriptor::Here(pipe) if expected.descriptor => {
                    let mut content = Vec::new();
                    File::from(pipe).read_to_end(&mut content).unwrap();
                    assert_eq!(content, secret(self.server, expected.header.id));
                }
                Descriptor::None if !expected.descriptor => {}
                other => panic!("{:?}: {other:?}", expected.header),
            }
        }
    }
}

/// What is in the pipe that goes with a message.
fn secret(server: u32, id: u32) -> Vec<u8> {
    format!("{server} {id}").into_bytes()
}

/// Whether a message of any length, with a descriptor, would not be refused.
fn has_room(tx: &Sender<Any>) -> bool {
    tx.has_room(tx.max_len() - HEADER_LEN, true).is_ok()
}

/// All payloads are parts of this.
static POOL: LazyLock<Vec<u8>> = LazyLock::new(|| Rng::of(&[3]).bytes(4 * MOST));

/// The length of a payload: more short ones than long ones, and often the longest.
fn any_len(rng: &mut Rng) -> usize {
    match rng.below(8) {
        0 => 0,
        1 => MOST,
        2 => rng.size_below(MOST + 1),
        _ => rng.size_below(300),
    }
}

fn payload(rng: &mut Rng, len: usize) -> &'static [u8] {
    let start = rng.size_below(POOL.len() - len + 1);
    &POOL[start..start + len]
}
