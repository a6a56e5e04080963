//! The examples that a newcomer reads first, run as programs: `pass_descriptor`, `imsg_init`,
//! `tasks_tokio` and `parse_capture`.

#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use imsg_os::{Channel, Descriptor, Header, Message, Modern, ReadOutcome, WriteOutcome};
use imsg_tests::process::{self, PATIENCE, Running, until, until_some};
use imsg_tests::{examples, vectors};
use imsg_wire::{Any, Endian};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;
use zerocopy::IntoBytes as _;

// ---- pass_descriptor

#[test]
fn pass_descriptor_counts_the_lines_of_a_file() {
    let (_directory, file) = file(b"one\ntwo\nthree");
    let output = run(&PASS_DESCRIPTOR, &[&file]);
    assert_eq!(output, (Some(0), format!("{file:?}: 13 bytes, 2 lines\n"), String::new()));
}

#[test]
fn pass_descriptor_says_which_file_it_cannot_open() {
    let (status, _, errors) = run(&PASS_DESCRIPTOR, &["/nonexistent"]);
    assert_eq!(status, Some(1));
    assert!(errors.starts_with("pass_descriptor: \"/nonexistent\": No such file"), "{errors}");
}

#[test]
fn pass_descriptor_says_what_the_worker_could_not_read() {
    let (status, _, errors) = run(&PASS_DESCRIPTOR, &["/"]);
    assert_eq!(status, Some(1));
    assert!(errors.contains("Is a directory"), "{errors}");
}

#[test]
fn pass_descriptor_notices_that_its_worker_was_killed() {
    let (_directory, pipe, _writer) = pipe_that_nothing_is_written_to();
    let parent = start(&PASS_DESCRIPTOR, &[&pipe]);
    kill_the_child_of(&parent);
    let (status, _, errors) = finish(parent);
    assert_eq!(status, Some(1));
    let expected = "pass_descriptor: the worker died: signal: 9 (SIGKILL)";
    assert!(errors.starts_with(expected), "{errors}");
}

#[test]
fn pass_descriptor_does_not_wait_for_a_worker_that_hung_up_and_goes_on() {
    let (_directory, pipe, _writer) = pipe_that_nothing_is_written_to();
    let parent = start(&PASS_DESCRIPTOR, &[&pipe]);
    let worker = until_some("it has a child", || parent.process().first_child());
    until("the worker reads from the pipe", || {
        let open = fs::read_dir(worker.file("fd")).into_iter().flatten().flatten();
        worker.file("exe").read_link().is_ok_and(|it| it == *PASS_DESCRIPTOR)
            && open.filter(|it| it.path().read_link().is_ok_and(|it| it == *pipe)).count() == 1
            && worker.state() == "S"
    });
    let Some(channel) = worker.descriptor(3).map(UnixStream::from) else {
        eprintln!("NOT RUN: this process may not take a socket of another one");
        return;
    };
    channel.shutdown(Shutdown::Both).unwrap();

    let (status, _, errors) = finish(parent);

    assert_eq!(status, Some(1));
    let expected = "pass_descriptor: the worker died: signal: 9 (SIGKILL)";
    assert!(errors.starts_with(expected), "{errors}");
}

#[test]
fn a_worker_that_was_started_by_hand_says_what_is_missing() {
    let (status, _, errors) = run(&PASS_DESCRIPTOR, &["--worker"]);
    assert_eq!(status, Some(1));
    let expected = "pass_descriptor: descriptor 3 is no inherited channel: Bad file descriptor";
    assert!(errors.starts_with(expected), "{errors}");
}

// ---- imsg_init

#[test]
fn imsg_init_has_its_child_read_a_file() {
    let (_directory, file) = file(b"hello");
    let output = run(&IMSG_INIT, &[&file]);
    let expected = format!("{file:?}: the child read 5 bytes\n");
    assert_eq!(output, (Some(0), expected, String::new()));
}

#[test]
fn imsg_init_notices_that_its_child_gave_up() {
    let (status, _, errors) = run(&IMSG_INIT, &["/"]);
    assert_eq!(status, Some(1));
    assert!(errors.contains("the child closed the connection: exit status: 1"), "{errors}");
}

#[test]
fn imsg_init_notices_that_its_child_was_killed() {
    let (_directory, pipe, _writer) = pipe_that_nothing_is_written_to();
    let parent = start(&IMSG_INIT, &[&pipe]);
    kill_the_child_of(&parent);
    let (status, _, errors) = finish(parent);
    assert_eq!(status, Some(1));
    assert!(errors.contains("signal: 9 (SIGKILL)"), "{errors}");
}

// ---- tasks_tokio

#[test]
fn tasks_tokio_answers_all_clients_and_ends_when_they_have_ended() {
    let directory = tempfile::tempdir().unwrap();
    let socket = path(&directory, "socket");
    let server = start(&TASKS_TOKIO, &["serve", &socket]);
    drop(connect(&socket));

    let output = run(&TASKS_TOKIO, &["load", &socket, "20", "500"]);
    let expected = "20 clients got 500 answers each\n".to_owned();
    assert_eq!(output, (Some(0), expected, String::new()));

    let (status, _, errors) = finish(server);
    assert_eq!(status, Some(0), "{errors}");
    let ended = |line: &&str| line.ends_with(": end of the stream, 500 messages");
    assert_eq!(errors.lines().filter(ended).count(), 20, "{errors}");
    assert!(!Path::new(&socket).exists());
}

#[test]
fn tasks_tokio_ends_a_client_that_breaks_the_protocol_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let socket = path(&directory, "socket");
    let server = start(&TASKS_TOKIO, &["serve", &socket]);
    let mut good = Channel::new(connect(&socket), Modern::new()).unwrap();
    let mut bad = connect(&socket);
    bad.write_all(&[0; 16]).unwrap();
    assert!(receive(&mut Channel::new(bad, Modern::new()).unwrap()).is_none());

    good.tx.compose(Header::new(1), b"still there", None).unwrap();
    good.tx.flush().unwrap();
    assert_eq!(receive(&mut good).expect("an answer").payload, b"still there");
    drop(good);

    let (status, _, errors) = finish(server);
    assert_eq!(status, Some(0));
    assert!(errors.contains("at offset 0, a length of 0 bytes is out of range"), "{errors}");
}

#[test]
fn tasks_tokio_sends_descriptors_back() {
    let directory = tempfile::tempdir().unwrap();
    let socket = path(&directory, "socket");
    let _server = start(&TASKS_TOKIO, &["serve", &socket]);
    let mut client = Channel::new(connect(&socket), Modern::new()).unwrap();
    client.rx.allow_descriptors();
    let (reader, mut writer) = std::io::pipe().unwrap();
    client.tx.compose(Header::new(1), b"", Some(reader.into())).unwrap();
    client.tx.flush().unwrap();

    let answer = receive(&mut client).expect("an answer");
    let Descriptor::Here(reader) = answer.descriptor else { panic!("no descriptor") };
    writer.write_all(b"the same pipe").unwrap();
    drop(writer);
    assert_eq!(std::io::read_to_string(File::from(reader)).unwrap(), "the same pipe");
}

#[test]
fn tasks_tokio_refuses_a_request_whose_descriptor_is_missing_and_serves_on() {
    let directory = tempfile::tempdir().unwrap();
    let socket = path(&directory, "socket");
    let _server = start(&TASKS_TOKIO, &["serve", &socket]);
    let stream = connect(&socket);
    let mark = 1_u32 << 31;
    for header in [[1, 16 | mark, 7, 0], [1, 16, 8, 0]] {
        (&stream).write_all(header.as_bytes()).unwrap();
    }
    let mut client = Channel::new(stream, Modern::new()).unwrap();

    let refusal = receive(&mut client).expect("a refusal");
    assert_eq!((refusal.header.msg_type, refusal.header.id), (u32::MAX, 7));
    assert_eq!(refusal.payload, b"the sender attached no descriptor");
    let answer = receive(&mut client).expect("an answer");
    assert_eq!((answer.header.msg_type, answer.header.id), (1, 8));
}

#[test]
fn tasks_tokio_keeps_no_more_than_its_buffers_of_a_client_that_does_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let socket = path(&directory, "socket");
    let server = start(&TASKS_TOKIO, &["serve", &socket]);
    let stream = connect(&socket);
    stream.set_nonblocking(true).unwrap();
    let mut client = Channel::new(stream, Modern::new()).unwrap();
    let mut sent = 0_u32;
    // The server has stopped to read when its socket takes nothing for long.
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        if client.tx.write().unwrap() == WriteOutcome::All {
            client.tx.compose(Header::new(sent), &[0_u8; 1000], None).unwrap();
            sent += 1;
            since = Instant::now();
        }
    }
    assert!(sent < 10_000, "10 MB were taken and not answered");

    let mut answers = 0;
    until("all is answered", || {
        let _ = client.tx.write().unwrap();
        let _ = client.rx.read().unwrap();
        for answer in client.rx.messages() {
            assert_eq!(answer.unwrap().header.msg_type, answers);
            answers += 1;
        }
        answers == sent
    });
    drop(client);
    assert_eq!(finish(server).0, Some(0));
}

// ---- parse_capture

#[test]
fn parse_capture_lists_all_that_c_wrote() {
    for vector in vectors::all() {
        let file = format!("{}/vectors/{}.bin", env!("CARGO_MANIFEST_DIR"), vector.name);
        let (status, lines, errors) = parse(vector.dialect, &file);
        assert_eq!((status, errors.as_str()), (Some(0), ""), "{}", vector.name);
        assert_eq!(lines.lines().count(), vector.messages.len(), "{}", vector.name);
        for (line, message) in lines.lines().zip(&vector.messages) {
            let Header { msg_type, id, pid } = message.header;
            let header = format!("  type {msg_type} id {id} pid {pid}");
            assert!(line.contains(&header), "{line}");
            assert!(line.contains(&format!("  {} bytes", message.payload.len())), "{line}");
            assert_eq!(line.contains("+fd"), message.carries_descriptor, "{line}");
        }
    }
}

#[test]
fn parse_capture_says_where_a_capture_is_cut_off() {
    let vector = &vectors::all()[0];
    let (_directory, file) = file(&vector.bytes[..vector.bytes.len() - 1]);
    let (status, lines, errors) = parse(vector.dialect, &file);
    assert_eq!(status, Some(1));
    assert_eq!(lines.lines().count(), vector.messages.len() - 1);
    assert!(errors.contains("bytes are there"), "{errors}");
}

#[test]
fn parse_capture_says_which_message_has_a_wrong_length() {
    let (_directory, file) = file(&[0; 16]);
    let (status, _, errors) = parse(Any::Modern(Endian::Little), &file);
    assert_eq!(status, Some(1));
    assert!(errors.contains("the message at byte 0 says that it has 0 bytes"), "{errors}");
}

// ---- All of them, on a bad day

#[test]
fn nobody_who_listens_is_an_error_and_no_panic() {
    let (_directory, file) = file(b"hello");
    let socket = "/nonexistent/socket";
    for (program, arguments) in [
        (&PASS_DESCRIPTOR, &[file.as_str()][..]),
        (&IMSG_INIT, &[&file]),
        (&TASKS_TOKIO, &["load", socket, "0", "1"]),
        (&PASS_DESCRIPTOR, &["/nonexistent"]),
        (&IMSG_INIT, &["/nonexistent"]),
        (&TASKS_TOKIO, &["serve", socket]),
        (&PARSE_CAPTURE, &["classic", "little", "/nonexistent"]),
    ] {
        let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
        let closed = || Stdio::from(std::io::pipe().unwrap().1);
        for (output, errors) in [(full(), full()), (closed(), closed())] {
            let mut command = Command::new(&**program);
            command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors);
            let status = Running::start(&mut command).until_it_ends();
            assert_eq!(status.code(), Some(1), "{program:?} {arguments:?}");
        }
    }
}

#[test]
fn parse_capture_ends_with_who_reads_it_and_says_what_it_cannot_print() {
    let classic = format!("{}/vectors/classic-le.bin", env!("CARGO_MANIFEST_DIR"));
    for (output, code) in [
        (Stdio::from(std::io::pipe().unwrap().1), 0),
        (Stdio::from(File::options().write(true).open("/dev/full").unwrap()), 1),
    ] {
        let mut command = Command::new(&*PARSE_CAPTURE);
        command.args(["classic", "little", &classic]).stdin(Stdio::null()).stdout(output);
        let report = process::run(command.stderr(Stdio::piped()), b"");
        assert_eq!((report.code(), report.stderr.is_empty()), (Some(code), code == 0));
    }
}

#[test]
fn a_parent_that_ignores_the_ends_of_children_costs_no_answer() {
    let (_directory, file) = file(b"hello\n");
    for (program, due) in [
        (&PASS_DESCRIPTOR, format!("{file:?}: 6 bytes, 1 lines\n")),
        (&IMSG_INIT, format!("{file:?}: the child read 6 bytes\n")),
    ] {
        let mut command = command(program, &[&file]);
        process::ignore(&mut command, Signal::SIGCHLD);
        assert_eq!(finish(Running::start(&mut command)), (Some(0), due, String::new()));
    }
}

#[test]
fn imsg_init_gives_up_when_a_write_to_a_living_peer_fails() {
    let (_directory, file) = file(b"hello");
    let Some(mut strace) = process::strace() else { return };
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=sendmsg:error=EPERM:when=1"]);
    strace.arg(&*IMSG_INIT).arg(&file);
    let report = process::run(strace.stdout(Stdio::piped()).stderr(Stdio::piped()), b"");
    assert_eq!(report.code(), Some(1));
    assert_eq!(report.stderr, "imsg_init: Operation not permitted (os error 1)\n");
}

#[test]
fn names_of_files_are_shown_and_not_obeyed() {
    let directory = tempfile::tempdir().unwrap();
    let file = path(&directory, "\u{1b}[31m\u{202e}");
    for there in [false, true] {
        if there {
            fs::write(&file, b"hello\n").unwrap();
        }
        for program in [&PASS_DESCRIPTOR, &IMSG_INIT] {
            let (_, output, errors) = run(program, &[&file]);
            let said = if there { output } else { errors };
            assert!(said.contains("\\u{1b}[31m\\u{202e}"), "{said:?}");
            assert!(!said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
        }
    }
}

#[test]
fn an_empty_path_is_none_for_a_socket() {
    let (status, _, errors) = run(&TASKS_TOKIO, &["serve", ""]);
    assert_eq!(status, Some(1));
    assert!(errors.starts_with("tasks_tokio: usage: "), "{errors}");
}

// ---- Helpers

static PASS_DESCRIPTOR: LazyLock<PathBuf> =
    LazyLock::new(|| build("imsg-os", "pass_descriptor", "process"));
static IMSG_INIT: LazyLock<PathBuf> = LazyLock::new(|| build("imsg-os", "imsg_init", ""));
static TASKS_TOKIO: LazyLock<PathBuf> = LazyLock::new(|| build("imsg-os", "tasks_tokio", "tokio"));
static PARSE_CAPTURE: LazyLock<PathBuf> = LazyLock::new(|| build("imsg-wire", "parse_capture", ""));

fn build(of: &str, example: &str, features: &str) -> PathBuf {
    examples::build(env!("CARGO_TARGET_TMPDIR"), of, example, features)
}

/// The exit code, and both outputs.
type Said = (Option<i32>, String, String);

fn run(program: &Path, arguments: &[&str]) -> Said {
    finish(start(program, arguments))
}

fn parse(dialect: Any, file: &str) -> Said {
    let (dialect, order) = match dialect {
        Any::Classic(order) => ("classic", order),
        Any::Modern(order) => ("modern", order),
    };
    let order = if order == Endian::Little { "little" } else { "big" };
    run(&PARSE_CAPTURE, &[dialect, order, file])
}

fn file(contents: &[u8]) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = path(&directory, "file");
    fs::write(&file, contents).unwrap();
    (directory, file)
}

/// Whoever reads from it waits for as long as the writer is there.
fn pipe_that_nothing_is_written_to() -> (TempDir, String, File) {
    let directory = tempfile::tempdir().unwrap();
    let pipe = path(&directory, "pipe");
    mkfifo(&*pipe, Mode::S_IRWXU).unwrap();
    // Open for both, so that neither side waits for the other one to open it.
    let writer = File::options().read(true).write(true).open(&pipe).unwrap();
    (directory, pipe, writer)
}

fn path(directory: &TempDir, name: &str) -> String {
    directory.path().join(name).to_str().unwrap().to_owned()
}

/// Connects as soon as the server is there. What it sends is waited for not longer than `PATIENCE`.
fn connect(socket: &str) -> UnixStream {
    let stream = until_some("the server is there", || UnixStream::connect(socket).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Receives with a limit of time, unlike `recv`.
fn receive<'a>(channel: &'a mut Channel) -> Option<Message<'a>> {
    while !channel.rx.is_ready() {
        match channel.rx.read().unwrap() {
            ReadOutcome::Data => {}
            ReadOutcome::WouldBlock => panic!("nothing came"),
            ReadOutcome::Closed => break,
        }
    }
    channel.rx.next_message().unwrap()
}

fn start(program: &Path, arguments: &[&str]) -> Running {
    Running::start(&mut command(program, arguments))
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Kills the process that this one started, once it has.
fn kill_the_child_of(program: &Running) {
    let child = until_some("it has a child", || program.process().first_child());
    child.signal(Signal::SIGKILL);
}

/// Closes the standard input of a program, and waits for its end: the exit code, and both outputs.
fn finish(mut program: Running) -> Said {
    drop(program.child.stdin.take());
    let report = program.finish();
    (report.code(), report.text().to_owned(), report.stderr)
}
