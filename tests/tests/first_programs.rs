//! The examples that a newcomer reads first, run as programs: `pass_descriptor`, `imsg_init`,
//! `tasks_tokio` and `parse_capture`.

#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::thread;

use imsg_os::{Channel, Header, Modern};
use imsg_tests::{examples, vectors};
use imsg_wire::{Any, Endian};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

// ---- pass_descriptor

#[test]
fn pass_descriptor_counts_the_lines_of_a_file() {
    let (directory, file) = file(b"one\ntwo\nthree");
    let output = run(&PASS_DESCRIPTOR, &[&file]);
    assert_eq!(said(&output), (Some(0), format!("{file}: 13 bytes, 2 lines\n"), String::new()));
    drop(directory);
}

#[test]
fn pass_descriptor_says_which_file_it_cannot_open() {
    let output = run(&PASS_DESCRIPTOR, &["/nonexistent"]);
    let (status, _, errors) = said(&output);
    assert_eq!(status, Some(1));
    assert!(errors.starts_with("pass_descriptor: /nonexistent: No such file"), "{errors}");
}

#[test]
fn pass_descriptor_says_what_the_worker_could_not_read() {
    let output = run(&PASS_DESCRIPTOR, &["/"]);
    let (status, _, errors) = said(&output);
    assert_eq!(status, Some(1));
    assert!(errors.contains("Is a directory"), "{errors}");
}

#[test]
fn pass_descriptor_notices_that_its_worker_was_killed() {
    let (_directory, pipe, _writer) = pipe_that_nothing_is_written_to();
    let parent = Running::start(&PASS_DESCRIPTOR, &[&pipe]);
    kill(parent.only_child(), Signal::SIGKILL).unwrap();
    let (status, _, errors) = said(&parent.output());
    assert_eq!(status, Some(1));
    assert_eq!(errors, "pass_descriptor: the worker died: signal: 9 (SIGKILL)\n");
}

#[test]
fn a_worker_that_was_started_by_hand_says_what_is_missing() {
    let output = run(&PASS_DESCRIPTOR, &["--worker"]);
    let (status, _, errors) = said(&output);
    assert_eq!(status, Some(1));
    let expected = "pass_descriptor: descriptor 3 is no inherited channel: Bad file descriptor";
    assert!(errors.starts_with(expected), "{errors}");
}

// ---- imsg_init

#[test]
fn imsg_init_has_its_child_read_a_file() {
    let (directory, file) = file(b"hello");
    let output = run(&IMSG_INIT, &[&file]);
    let expected = format!("{file}: the child read 5 bytes\n");
    assert_eq!(said(&output), (Some(0), expected, String::new()));
    drop(directory);
}

#[test]
fn imsg_init_notices_that_its_child_gave_up() {
    let output = run(&IMSG_INIT, &["/"]);
    let (status, _, errors) = said(&output);
    assert_eq!(status, Some(1));
    assert!(errors.contains("the child closed the connection: exit status: 1"), "{errors}");
}

#[test]
fn imsg_init_notices_that_its_child_was_killed() {
    let (_directory, pipe, _writer) = pipe_that_nothing_is_written_to();
    let parent = Running::start(&IMSG_INIT, &[&pipe]);
    kill(parent.only_child(), Signal::SIGKILL).unwrap();
    let (status, _, errors) = said(&parent.output());
    assert_eq!(status, Some(1));
    assert!(errors.contains("signal: 9 (SIGKILL)"), "{errors}");
}

// ---- tasks_tokio

#[test]
fn tasks_tokio_answers_all_clients_and_ends_when_they_have_ended() {
    let directory = tempfile::tempdir().unwrap();
    let socket = path(&directory, "socket");
    let server = Running::start(&TASKS_TOKIO, &["serve", &socket]);
    drop(connect(&socket));

    let output = run(&TASKS_TOKIO, &["load", &socket, "20", "500"]);
    let expected = "20 clients got 500 answers each\n".to_owned();
    assert_eq!(said(&output), (Some(0), expected, String::new()));

    let (status, _, errors) = said(&server.output());
    assert_eq!(status, Some(0), "{errors}");
    let ended = |line: &&str| line.ends_with(": end of the stream, 500 messages");
    assert_eq!(errors.lines().filter(ended).count(), 20, "{errors}");
    assert!(!Path::new(&socket).exists());
}

#[test]
fn tasks_tokio_ends_a_client_that_breaks_the_protocol_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let socket = path(&directory, "socket");
    let server = Running::start(&TASKS_TOKIO, &["serve", &socket]);
    let mut good = Channel::new(connect(&socket), Modern::new()).unwrap();
    let mut bad = connect(&socket);
    bad.write_all(&[0; 16]).unwrap();
    assert!(Channel::new(bad, Modern::new()).unwrap().rx.recv().unwrap().is_none());

    good.tx.compose(Header::new(1), b"still there", None).unwrap();
    good.tx.flush().unwrap();
    assert_eq!(good.rx.recv().unwrap().expect("an answer").payload, b"still there");
    drop(good);

    let (status, _, errors) = said(&server.output());
    assert_eq!(status, Some(0));
    assert!(errors.contains("at offset 0, a length of 0 bytes is out of range"), "{errors}");
}

// ---- parse_capture

#[test]
fn parse_capture_lists_all_that_c_wrote() {
    for vector in vectors::all() {
        let file = format!("{}/vectors/{}.bin", env!("CARGO_MANIFEST_DIR"), vector.name);
        let output = parse(vector.dialect, &file);
        let (status, lines, errors) = said(&output);
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
    let (status, lines, errors) = said(&parse(vector.dialect, &file));
    assert_eq!(status, Some(1));
    assert_eq!(lines.lines().count(), vector.messages.len() - 1);
    assert!(errors.contains("the capture ends"), "{errors}");
}

#[test]
fn parse_capture_says_which_message_has_a_wrong_length() {
    let (_directory, file) = file(&[0; 16]);
    let (status, _, errors) = said(&parse(Any::Modern(Endian::Little), &file));
    assert_eq!(status, Some(1));
    assert!(errors.contains("the message at byte 0 says it has 0 bytes"), "{errors}");
}

// ---- Helpers

static PASS_DESCRIPTOR: LazyLock<PathBuf> =
    LazyLock::new(|| build("imsg-os", "pass_descriptor", ""));
static IMSG_INIT: LazyLock<PathBuf> = LazyLock::new(|| build("imsg-os", "imsg_init", ""));
static TASKS_TOKIO: LazyLock<PathBuf> = LazyLock::new(|| build("imsg-os", "tasks_tokio", "tokio"));
static PARSE_CAPTURE: LazyLock<PathBuf> = LazyLock::new(|| build("imsg-wire", "parse_capture", ""));

fn build(of: &str, example: &str, features: &str) -> PathBuf {
    examples::build(env!("CARGO_TARGET_TMPDIR"), of, example, features)
}

fn run(program: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn parse(dialect: Any, file: &str) -> Output {
    let (dialect, order) = match dialect {
        Any::Classic(order) => ("classic", order),
        Any::Modern(order) => ("modern", order),
    };
    let order = if order == Endian::Little { "little" } else { "big" };
    run(&PARSE_CAPTURE, &[dialect, order, file])
}

/// The exit code, and both outputs.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
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

/// Connects as soon as the server is there.
fn connect(socket: &str) -> UnixStream {
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(_) => thread::yield_now(),
        }
    }
}

/// A program while it runs. It is killed when it is dropped.
struct Running(Option<Child>);

impl Running {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().unwrap()))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.as_ref().expect("it runs").id().cast_signed())
    }

    /// The process that this one started, once it has.
    fn only_child(&self) -> Pid {
        let file = format!("/proc/{0}/task/{0}/children", self.pid());
        loop {
            if let Some(child) = fs::read_to_string(&file).unwrap().split_whitespace().next() {
                return Pid::from_raw(child.parse().unwrap());
            }
            thread::yield_now();
        }
    }

    /// Closes its standard input, and waits for its end.
    fn output(mut self) -> Output {
        self.0.take().expect("it runs").wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
