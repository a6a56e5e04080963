//! The example `supervisor`, run as a program whose parts are killed.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use imsg_os::{Channel, Header, Modern};
use imsg_tests::examples;
use imsg_tests::process::{self, PATIENCE, Process, Running, until, until_some};
use nix::sys::signal::Signal;
use nix::sys::socket::Shutdown;
use tempfile::TempDir;

static SUPERVISOR: LazyLock<PathBuf> = LazyLock::new(|| {
    examples::build(env!("CARGO_TARGET_TMPDIR"), "imsg-os", "supervisor", "process")
});

const NOBODY: &str = "65534";

/// The program, all of whose processes are there.
struct Daemon {
    program: Running,
    lines: Receiver<String>,
    place: TempDir,
    engine: Process,
    frontend: Process,
}

impl Daemon {
    fn start(config: &str) -> Self {
        Self::start_as(config, |_| {})
    }

    fn start_as(config: &str, adapt: impl FnOnce(&mut Command)) -> Self {
        let place = TempDir::new().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(place.path().join("config"), config).unwrap();
        Self::start_in(place, adapt)
    }

    fn start_in(place: TempDir, adapt: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(&place);
        adapt(&mut command);
        let mut program = Running::start(command.stdin(Stdio::null()).stderr(Stdio::piped()));
        let stderr = BufReader::new(program.child.stderr.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines() {
                let _ = tell.send(line.unwrap());
            }
        });
        let nobody = Process::this();
        let mut daemon = Self { program, lines, place, engine: nobody, frontend: nobody };
        daemon.until("listening on");
        // Two are ready, and one is configured, in any order.
        for _ in 0..3 {
            daemon.until(" ");
        }
        daemon
    }

    /// Waits until it says a line with this in it.
    fn until(&mut self, what: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("in vain: {what}: {error}"));
            let process = || Process::of(line.split(' ').nth(2).unwrap().parse().unwrap());
            if line.contains("is ready") {
                match line.split(' ').nth(1) {
                    Some("engine") => self.engine = process(),
                    _ => self.frontend = process(),
                }
            }
            if line.contains(what) {
                return line;
            }
        }
    }

    fn until_configured(&mut self, generation: u32) {
        self.until(&format!("has configuration {generation}"));
    }

    fn process(&self) -> Process {
        self.program.process()
    }

    fn configure(&self, config: &str) {
        fs::write(self.place.path().join("config"), config).unwrap();
        self.process().signal(Signal::SIGHUP);
    }

    fn client(&self) -> Client {
        let socket = UnixStream::connect(self.place.path().join("socket")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(Channel::new(socket, Modern::new()).unwrap())
    }
}

fn command(place: &TempDir) -> Command {
    let mut command = Command::new(&*SUPERVISOR);
    command.arg(place.path().join("config")).arg(place.path().join("socket"));
    command
}

struct Client(Channel);

impl Client {
    /// The value of a name; `Err` when the answer is that there is none now.
    fn try_ask(&mut self, name: &str) -> Result<Option<String>, ()> {
        let header = Header { id: 77, ..Header::new(1) };
        self.0.tx.compose(header, name.as_bytes(), None).unwrap();
        self.0.tx.flush().unwrap();
        let answer = self.0.rx.recv().unwrap().expect("an answer");
        assert_eq!(answer.header.id, 77);
        match answer.header.msg_type {
            2 => Ok(Some(str::from_utf8(answer.payload).unwrap().to_owned())),
            3 => Ok(None),
            4 => Err(()),
            other => panic!("an answer of type {other}"),
        }
    }

    /// Asks until there is an answer.
    fn ask(&mut self, name: &str) -> Option<String> {
        until_some("an answer", || self.try_ask(name).ok())
    }

    fn until_it_hears(&mut self, name: &str, value: &str) {
        until(value, || self.try_ask(name).is_ok_and(|it| it.as_deref() == Some(value)));
    }
}

fn gone(process: Process) -> bool {
    process.status("State").is_none_or(|state| state.starts_with('Z'))
}

#[test]
fn a_parent_that_ignores_the_ends_of_children_changes_nothing() {
    let mut daemon = Daemon::start_as("a 1\n", |command| process::ignore(command, Signal::SIGCHLD));
    assert_eq!(daemon.client().ask("a").as_deref(), Some("1"));
    daemon.engine.signal(Signal::SIGKILL);
    daemon.until("has ended: signal: 9 (SIGKILL)");
    daemon.until_configured(1);
    assert_eq!(daemon.client().ask("a").as_deref(), Some("1"));
    daemon.process().signal(Signal::SIGTERM);
    assert!(daemon.program.until_it_ends().success());
}

#[test]
fn an_empty_path_is_none_for_a_socket() {
    let output = Command::new(&*SUPERVISOR).args(["/dev/null", ""]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"supervisor: usage: supervisor CONFIG SOCKET\n");
}

#[test]
fn clients_get_the_values_of_the_configuration() {
    let daemon = Daemon::start("one 1\ntwo two words\n");
    let (mut client, mut other) = (daemon.client(), daemon.client());

    assert_eq!(client.ask("one").as_deref(), Some("1"));
    assert_eq!(other.ask("two").as_deref(), Some("two words"));
    assert_eq!(client.ask("three"), None);
}

#[test]
fn a_client_that_sends_no_more_gets_the_answers_to_what_it_sent() {
    let daemon = Daemon::start("name value\n");
    let Client(mut channel) = daemon.client();
    for id in 0..3 {
        channel.tx.compose(Header { id, ..Header::new(1) }, b"name", None).unwrap();
    }
    channel.tx.flush().unwrap();
    nix::sys::socket::shutdown(channel.as_raw_fd(), Shutdown::Write).unwrap();
    for id in 0..3 {
        let answer = channel.rx.recv().unwrap().unwrap();
        assert_eq!((answer.header.id, answer.payload), (id, &b"value"[..]));
    }
    assert!(channel.rx.recv().unwrap().is_none());
}

#[test]
fn workers_have_no_privileges() {
    let daemon = Daemon::start("one 1\n");
    if !Process::this().status("Uid").unwrap().starts_with("0\t") {
        return;
    }
    daemon.client().ask("one");
    for worker in [daemon.engine, daemon.frontend] {
        let uid = worker.status("Uid").unwrap();
        assert!(uid.split_whitespace().all(|id| id == NOBODY), "{uid}");
        assert_eq!(worker.status("NoNewPrivs").as_deref(), Some("1"));
    }
}

#[test]
fn a_hangup_has_the_configuration_read_again() {
    let mut daemon = Daemon::start("one 1\n");
    let mut client = daemon.client();
    assert_eq!(client.ask("one").as_deref(), Some("1"));

    daemon.configure("two 2\n");
    daemon.until_configured(2);

    assert_eq!(client.ask("one"), None);
    assert_eq!(client.ask("two").as_deref(), Some("2"));
}

#[test]
fn a_configuration_of_many_times_what_a_socket_takes_arrives_whole() {
    let mut daemon = Daemon::start("one 1\n");
    let config: String = (0..20_000).map(|n| format!("{n} {n}{}\n", "x".repeat(100))).collect();

    daemon.configure(&config);
    daemon.until_configured(2);

    let mut client = daemon.client();
    for n in [0, 10_000, 19_999] {
        assert_eq!(client.ask(&n.to_string()), Some(format!("{n}{}", "x".repeat(100))));
    }
}

#[test]
fn more_questions_than_can_be_passed_on_at_a_time_wait_and_all_are_answered() {
    const QUESTIONS: u32 = 2000;
    let daemon = Daemon::start("one 1\n");
    assert_eq!(daemon.client().ask("one").as_deref(), Some("1"));
    let Channel { mut rx, mut tx } = daemon.client().0;

    let asks = thread::spawn(move || {
        for id in 0..QUESTIONS {
            if tx.has_room(3, false).is_err() {
                tx.flush().unwrap();
            }
            tx.compose(Header { id, ..Header::new(1) }, b"one", None).unwrap();
        }
        tx.flush().unwrap();
        tx
    });

    for id in 0..QUESTIONS {
        let answer = rx.recv().unwrap().expect("an answer");
        assert_eq!((answer.header.msg_type, answer.header.id), (2, id));
    }
    asks.join().unwrap();
}

#[test]
fn a_configuration_that_cannot_be_read_or_is_too_long_changes_nothing() {
    let mut daemon = Daemon::start("one 1\n");
    for bad in ["nonsense\n", &"one 2\n".repeat(2 << 20)] {
        daemon.configure(bad);
        daemon.until("nothing changed");
    }
    daemon.configure("two 2\n");
    daemon.until_configured(2);

    assert_eq!(daemon.client().ask("two").as_deref(), Some("2"));
}

#[test]
fn clients_beyond_the_limit_are_served_when_others_have_left() {
    let daemon = Daemon::start("name value\n");
    let mut clients: Vec<Client> = (0..60).map(|_| daemon.client()).collect();
    for client in &mut clients[..50] {
        assert_eq!(client.try_ask("name"), Ok(Some("value".to_owned())));
    }
    drop(clients.drain(..20));
    for client in &mut clients {
        assert_eq!(client.try_ask("name"), Ok(Some("value".to_owned())));
    }
}

#[test]
fn an_engine_that_is_killed_is_started_again_and_clients_notice_no_more_than_a_pause() {
    let mut daemon = Daemon::start("one 1\n");
    let mut client = daemon.client();
    assert_eq!(client.ask("one").as_deref(), Some("1"));
    daemon.configure("one new\n");
    daemon.until_configured(2);

    daemon.engine.signal(Signal::SIGKILL);
    daemon.until("has ended: signal: 9");
    daemon.until_configured(2);

    client.until_it_hears("one", "new");
}

#[test]
fn a_frontend_that_is_killed_is_started_again_and_serves_those_who_come_back() {
    let mut daemon = Daemon::start("one 1\n");
    let mut client = daemon.client();
    assert_eq!(client.ask("one").as_deref(), Some("1"));

    daemon.frontend.signal(Signal::SIGKILL);
    daemon.until("has ended: signal: 9");

    assert!(client.0.rx.recv().unwrap().is_none());
    daemon.client().until_it_hears("one", "1");
}

#[test]
fn workers_end_when_the_parent_is_killed() {
    let mut daemon = Daemon::start("one 1\n");
    daemon.client().ask("one");

    daemon.program.kill();

    until("they have ended", || gone(daemon.engine) && gone(daemon.frontend));
}

#[test]
fn a_daemon_that_was_killed_can_be_started_again() {
    let mut daemon = Daemon::start("one 1\n");
    daemon.program.kill();
    until("they have ended", || gone(daemon.engine) && gone(daemon.frontend));

    let daemon = Daemon::start_in(daemon.place, |_| {});

    assert_eq!(daemon.client().ask("one").as_deref(), Some("1"));
}

#[test]
fn a_daemon_takes_no_path_that_another_one_has_or_that_is_no_socket() {
    let daemon = Daemon::start("one 1\n");
    let output = command(&daemon.place).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(daemon.client().ask("one").as_deref(), Some("1"));

    let place = TempDir::new().unwrap();
    for name in ["config", "socket"] {
        fs::write(place.path().join(name), "one 1\n").unwrap();
    }
    let output = command(&place).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(place.path().join("socket").is_file());
}

#[test]
fn a_worker_that_is_sent_something_wrong_by_the_other_one_is_started_again() {
    type Worker = fn(&Daemon) -> Process;
    let workers: [(&str, Worker, Worker); 2] = [
        ("engine", |daemon| daemon.engine, |daemon| daemon.frontend),
        ("frontend", |daemon| daemon.frontend, |daemon| daemon.engine),
    ];
    for (name, receiver, sender) in workers {
        let mut daemon = Daemon::start("one 1\n");
        assert_eq!(daemon.client().ask("one").as_deref(), Some("1"));
        let before = receiver(&daemon);
        // The first socket that it got, after that to its parent.
        let Some(mut socket) = sender(&daemon).descriptor(4).map(UnixStream::from) else {
            eprintln!("NOT RUN: this process may not take a socket of another one");
            return;
        };
        socket.write_all(&[0; 16]).unwrap();
        drop(socket);

        daemon.until(&format!("{name} {} has ended", before.0));

        daemon.client().until_it_hears("one", "1");
    }
}

#[test]
fn a_worker_that_does_not_read_what_it_is_sent_is_started_again() {
    let config = format!("one {}\n", "1".repeat(1000)).repeat(8000);
    let mut daemon = Daemon::start(&config);
    daemon.engine.signal(Signal::SIGSTOP);

    until("the queue is full", || {
        daemon.process().signal(Signal::SIGHUP);
        daemon.lines.try_recv().is_ok_and(|line| line.contains("SIGKILL"))
    });

    daemon.until("has configuration");
    assert_eq!(daemon.client().ask("one").map(|it| it.len()), Some(1000));
}

#[test]
fn a_request_to_end_ends_all_three() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start("one 1\n");
        daemon.client().ask("one");

        daemon.process().signal(signal);

        assert!(daemon.program.until_it_ends().success());
        assert!(gone(daemon.engine) && gone(daemon.frontend));
        assert!(!daemon.place.path().join("socket").exists());
    }
}

#[test]
fn a_worker_that_dies_too_often_ends_all() {
    let mut daemon = Daemon::start("one 1\n");
    for _ in 0..5 {
        daemon.engine.signal(Signal::SIGKILL);
        daemon.until("has ended");
        daemon.until("has configuration");
    }
    daemon.engine.signal(Signal::SIGKILL);

    assert_eq!(daemon.program.until_it_ends().code(), Some(1));
    assert!(gone(daemon.engine) && gone(daemon.frontend));
}
