//! Workers: started with a channel, ended and reaped, and nothing of them left behind.

#![cfg(all(target_os = "linux", feature = "process"))]

mod common;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use common::{alone, leaving_no_descriptor, this_test};
use imsg_os::process::Worker;
use imsg_os::{Channel, Modern};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, geteuid, setuid};

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(100);

/// A shell that runs this with the channel as its descriptor 3.
fn start(script: &str) -> (Worker, UnixStream) {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Worker::start(command).expect("start a shell")
}

fn signal(status: ExitStatus) -> Option<Signal> {
    status.signal().map(|number| Signal::try_from(number).unwrap())
}

/// Waits until the shell says that it is there.
fn until_there(mut socket: &UnixStream) {
    let mut line = [0; 6];
    socket.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"there\n");
}

#[test]
fn a_worker_sees_the_end_of_its_channel_and_how_it_ended_is_told() {
    let (mut worker, mut socket) = start("cat <&3 >&3; exit 7");
    socket.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    drop(socket);

    let status = worker.end(LONG).unwrap();

    assert_eq!(status.code(), Some(7));
}

#[test]
fn the_parent_sees_the_end_of_the_channel_when_the_worker_ends() {
    let (mut worker, socket) = start("kill -SEGV $$");
    let mut channel = Channel::new(socket, Modern::new()).unwrap();

    assert!(channel.rx.recv().unwrap().is_none());
    assert_eq!(signal(worker.end(LONG).unwrap()), Some(Signal::SIGSEGV));
}

#[test]
fn a_worker_that_does_not_end_is_killed_when_its_time_is_over() {
    let (mut worker, socket) = start("trap '' TERM; echo there >&3; while :; do sleep 1; done");
    until_there(&socket);
    worker.terminate().unwrap();

    let status = worker.end(Duration::from_millis(1)).unwrap();

    assert_eq!(signal(status), Some(Signal::SIGKILL));
}

#[test]
fn a_worker_that_may_not_be_killed_can_still_be_waited_for() {
    if !geteuid().is_root() {
        eprintln!("NOT RUN: only root can give up the right to kill a worker");
        return;
    }
    alone(|| {
        let (mut worker, socket) = start("echo there >&3; read x <&3; exit 5");
        until_there(&socket);
        setuid(Uid::from_raw(65534)).unwrap();

        let error = worker.end(Duration::ZERO).unwrap_err();
        drop(socket);

        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(worker.end(LONG).unwrap().code(), Some(5));
    });
}

#[test]
fn a_worker_that_is_asked_to_end_does() {
    let (mut worker, socket) = start("echo there >&3; read x <&3");
    until_there(&socket);

    worker.terminate().unwrap();

    assert_eq!(signal(worker.end(LONG).unwrap()), Some(Signal::SIGTERM));
}

#[test]
fn a_worker_that_was_reaped_can_be_asked_to_end_and_waited_for() {
    let (mut worker, socket) = start("exit 3");
    drop(socket);
    assert_eq!(worker.child.wait().unwrap().code(), Some(3));

    worker.terminate().unwrap();

    assert_eq!(worker.end(LONG).unwrap().code(), Some(3));
}

#[test]
fn a_worker_that_is_dropped_leaves_no_process() {
    let (worker, socket) = start("echo there >&3; read x <&3");
    until_there(&socket);
    let process = format!("/proc/{}", worker.child.id());
    assert!(Path::new(&process).exists());

    drop(worker);

    assert!(!Path::new(&process).exists(), "it is there, or a zombie");
}

#[test]
fn a_worker_has_its_end_of_its_own_channel_and_no_other_and_the_parent_has_none_of_them() {
    leaving_no_descriptor(|| {
        let count = |command: &mut Command| -> u32 {
            let sockets = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
            String::from_utf8(sockets.stdout).unwrap().trim().parse().unwrap()
        };
        const COUNT: &str = "ls -l /proc/$$/fd | grep -c socket:";
        // Whoever started this test may have left some open.
        let before = count(Command::new("sh").args(["-c", COUNT]));
        let others = [start("read x <&3"), start("read x <&3")];
        let after = count(Command::new("sh").args(["-c", COUNT]));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{COUNT} >&3")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (mut worker, mut socket) = Worker::start(command).unwrap();

        let mut of_worker = String::new();
        socket.read_to_string(&mut of_worker).unwrap();

        assert_eq!(after, before, "a program that is no worker has one");
        assert_eq!(of_worker.trim().parse(), Ok(before + 1));
        assert!(worker.end(LONG).unwrap().success());
        for (mut worker, socket) in others {
            drop(socket);
            assert_eq!(worker.end(LONG).unwrap().code(), Some(1), "it read the end");
        }
    });
}

#[test]
fn a_program_that_does_not_exist_is_an_error_that_leaves_nothing() {
    leaving_no_descriptor(|| {
        let error = Worker::start(Command::new("/nonexistent")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_program_that_does_not_exist_is_an_error_whatever_other_threads_open_and_close() {
    alone(|| {
        thread::spawn(|| {
            loop {
                // It has descriptor 3 now and then.
                drop(File::open("/dev/null"));
            }
        });
        for _ in 0..2_000 {
            let error = Worker::start(Command::new("/nonexistent")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    });
}

#[test]
fn a_worker_sees_the_end_when_its_parent_was_killed() {
    const PARENT: &str = "IMSG_TEST_WORKERS_PARENT";
    if std::env::var_os(PARENT).is_some() {
        let (worker, socket) = start("echo there >&3; cat <&3; echo it saw the end >&2");
        until_there(&socket);
        nix::sys::signal::raise(Signal::SIGKILL).unwrap();
        drop(worker);
    }
    let mut parent = this_test();
    let mut parent =
        parent.env(PARENT, "1").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();

    let mut said = String::new();
    parent.stderr.take().unwrap().read_to_string(&mut said).unwrap();

    assert_eq!(signal(parent.wait().unwrap()), Some(Signal::SIGKILL));
    assert_eq!(said, "it saw the end\n");
}
