//! `imsg tmux`, run as a program: against the tmux that is installed, and against servers
//! that do what none should.

#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread;

use imsg_os::{Any, Channel, Descriptor, Endian, Header};
use imsg_tests::examples;
use imsg_tests::process::{self, Report, Running, until};
use imsg_tests::rng::Rng;
use imsg_tests::tmux::Tmux;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

const CLASSIC: Any = Any::Classic(Endian::NATIVE);
const MODERN: Any = Any::Modern(Endian::NATIVE);

// Against the tmux that is installed.

#[test]
fn what_commands_print_is_what_tmux_itself_prints() {
    let Some(server) = Server::start() else { return };
    for command in [
        &["list-sessions"][..],
        &["display-message", "-p", "#{version} of #{session_name}"],
        &["list-keys"],
        &["show-options", "-g"],
        &["list-buffers"],
        &["has-session", "-t", "first"],
        &["has-session", "-t", "nowhere"],
        &["nonsense"],
        &["list-sessions", "-t"],
        &["attach-session"],
        &["display-message", "-p", "one", ";", "display-message", "-p", "two"],
    ] {
        let ours = server.run(command);
        let theirs = server.0.run(command);
        assert_eq!(ours.text(), theirs.text(), "{command:?}");
        assert_eq!(ours.stderr, theirs.stderr, "{command:?}");
        assert_eq!(ours.code(), theirs.code(), "{command:?}");
    }
}

#[test]
fn an_unknown_command_is_an_error_of_the_server_with_its_status() {
    let Some(server) = Server::start() else { return };
    let report = server.run(["nonsense"]);
    assert_eq!((report.text(), report.stderr.as_str()), ("", "unknown command: nonsense\n"));
    assert_eq!(report.code(), Some(1));
}

#[test]
fn the_version_of_the_server_is_that_of_the_program() {
    let Some(server) = Server::start() else { return };
    let report = server.run(["display-message", "-p", "#{version}"]);
    let version = server.version();
    assert_eq!((report.code(), report.text()), (Some(0), format!("{version}\n").as_str()));
}

#[test]
fn a_session_that_is_started_is_there() {
    let Some(server) = Server::start() else { return };
    let report = server.run(["new-session", "-d", "-s", "x", "cat"]);
    assert_eq!((report.code(), report.text(), report.stderr.as_str()), (Some(0), "", ""));
    let report = server.run(["list-sessions", "-F", "#{session_name}"]);
    assert_eq!((report.code(), report.text()), (Some(0), "first\nx\n"));
}

#[test]
fn a_session_gets_the_directory_and_the_environment_of_the_client() {
    let Some(server) = Server::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let mut command = server.command(["new-session", "-d", "-s", "x", "cat"]);
    command.current_dir(&place).env("DISPLAY", "host:7").env("LARGE", "x".repeat(20_000));
    assert_eq!(process::run(&mut command, b"").code(), Some(0));

    let report = server.run(["display-message", "-p", "-t", "x", "#{session_path}"]);
    assert_eq!(report.text().trim_end(), place.path().canonicalize().unwrap().to_str().unwrap());
    let report = server.run(["show-environment", "-t", "x", "DISPLAY"]);
    assert_eq!(report.text(), "DISPLAY=host:7\n");
}

#[test]
fn names_may_be_any_text() {
    let Some(server) = Server::start() else { return };
    let name = "süß 日本語 🦀";
    assert_eq!(server.run(["rename-session", name]).code(), Some(0));
    let report = server.run(["list-sessions", "-F", "#{session_name}"]);
    assert_eq!(report.text(), format!("{name}\n"));
    let report = server.run(["has-session", "-t", &format!("={name}")]);
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_buffer_of_any_size_is_loaded_and_saved_byte_for_byte() {
    let Some(server) = Server::start() else { return };
    // A READ holds 16364 bytes.
    for len in [1, 16363, 16364, 16365, 2 * 16364, 100_000, 20_000_000] {
        let data = noise(len);
        let report = process::run(&mut server.command(["load-buffer", "-"]), &data);
        assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{len}");
        let report = server.run(["save-buffer", "-"]);
        assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{len}");
        assert!(report.stdout == data, "{len}: {} bytes came back", report.stdout.len());
    }
}

#[test]
fn a_buffer_can_be_loaded_from_a_file_and_saved_to_one_as_standard_streams() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (server.0.place.path().join("from"), server.0.place.path().join("to"));
    let data = noise(1_000_000);
    fs::write(&from, &data).unwrap();

    let mut load = server.command(["load-buffer", "-"]);
    load.stdin(File::open(&from).unwrap());
    assert_eq!(process::run(&mut load, b"").code(), Some(0));
    let mut save = server.command(["save-buffer", "-"]);
    save.stdout(File::create(&to).unwrap());
    assert_eq!(process::run(&mut save, b"").code(), Some(0));
    assert!(fs::read(&to).unwrap() == data);
}

#[test]
fn files_are_neither_read_nor_written_by_name() {
    let Some(server) = Server::start() else { return };
    let (from, to) = (server.0.place.path().join("from"), server.0.place.path().join("to"));
    fs::write(&from, b"text").unwrap();
    assert_eq!(server.run(["set-buffer", "text"]).code(), Some(0));
    for arguments in
        [["load-buffer", from.to_str().unwrap()], ["save-buffer", to.to_str().unwrap()]]
    {
        let report = server.run(arguments);
        assert_eq!((report.code(), report.text()), (Some(1), ""), "{arguments:?}");
        assert!(report.stderr.contains("Operation not permitted"), "{}", report.stderr);
    }
    assert!(!to.exists());
    assert_eq!(server.run(["list-buffers"]).text().lines().count(), 1);
}

#[test]
fn the_dialect_that_is_found_is_that_of_the_version() {
    let Some(server) = Server::start() else { return };
    let (dialect, other) =
        if server.is_classic() { ("classic", "modern") } else { ("modern", "classic") };
    let found =
        format!("imsg tmux: {}: {dialect} dialect, as a probe found\n", server.0.socket.display());
    let waits = "imsg tmux: waiting for the server to answer the probe for its dialect\n";
    let report = server.run(["-v", "display-message", "-p", "hello"]);
    assert_eq!((report.code(), report.text()), (Some(0), "hello\n"));
    assert_eq!(report.stderr, [waits, &found].concat());

    let report = server.run(["--dialect", dialect, "-v", "display-message", "-p", "hello"]);
    assert_eq!((report.code(), report.text()), (Some(0), "hello\n"));
    assert_eq!(report.stderr, found.replace("as a probe found", "as told"));

    // The server does not understand the descriptors, and goes on.
    let report = server.run(["--dialect", other, "attach-session"]);
    assert_eq!(report.code(), Some(1));
    assert_eq!(server.run(["list-sessions"]).text().lines().count(), 1);
}

#[test]
fn no_command_harms_the_server() {
    let Some(server) = Server::start() else { return };
    let long = "x".repeat(17_000);
    let fits = "x".repeat(16_000);
    for command in [&["nonsense"][..], &[&long], &[&fits], &["", ""], &["attach-session"]] {
        assert_eq!(server.run(command).code(), Some(1));
    }
    let mut bare = server.command(["list-sessions"]);
    bare.env_clear();
    let report = process::run(&mut bare, b"");
    assert_eq!((report.code(), report.text().lines().count()), (Some(0), 1), "{}", report.stderr);
}

#[test]
fn a_server_that_is_shut_down_by_the_command_has_done_it() {
    let Some(mut server) = Server::start() else { return };
    let theirs = Server::start().unwrap().0.run(["kill-server"]);
    let report = server.run(["kill-server"]);
    assert_eq!((report.code(), report.stderr.as_str()), (theirs.code(), theirs.stderr.as_str()));
    assert!(server.0.running.until_it_ends().success());
    assert_eq!(server.run(["list-sessions"]).code(), Some(1));
}

#[test]
fn the_default_socket_is_that_of_tmux() {
    let user =
        fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me)).unwrap();
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join(format!("tmux-{user}"));
    fs::create_dir(&directory).unwrap();
    let default = Tmux::start_at(place, directory.join("default"), "cat").map(Server);
    let Some(default) = default else { return };
    let around = Server::start().unwrap();
    assert_eq!(default.run(["rename-session", "default"]).code(), Some(0));
    assert_eq!(around.run(["rename-session", "around"]).code(), Some(0));

    let around_path = around.0.socket.to_str().unwrap();
    for (tmux, due) in [
        (None, "default\n"),
        (Some(String::new()), "default\n"),
        (Some(",7,0".into()), "default\n"),
        (Some(format!("{around_path},7,0")), "around\n"),
        (Some(around_path.to_owned()), "around\n"),
    ] {
        let mut command = program(["list-sessions", "-F", "#{session_name}"]);
        command.env("TMUX_TMPDIR", default.0.place.path());
        if let Some(tmux) = &tmux {
            command.env("TMUX", tmux);
        }
        let report = process::run(&mut command, b"");
        assert_eq!((report.text(), report.stderr.as_str()), (due, ""), "{tmux:?}");
    }
}

#[test]
fn a_server_that_is_killed_before_it_answers_is_an_error_and_no_hang() {
    for dialect in [None, Some("classic"), Some("modern")] {
        let Some(mut server) = Server::start() else { return };
        server.0.running.process().signal(Signal::SIGSTOP);
        let options = dialect.map(|name| ["--dialect", name]);
        let arguments = options.iter().flatten().copied().chain(["list-sessions"]);
        let client = Running::start(&mut server.command(arguments));
        until_it_waits(&client);
        server.0.running.kill();
        let report = client.finish();
        assert_eq!((report.code(), report.text()), (Some(1), ""), "{dialect:?}");
        // A probe that is hung up on says modern, and then nobody is there.
        let due = if dialect.is_some() { "the server exited unexpectedly" } else { "no server" };
        assert!(report.stderr.contains(due), "{dialect:?}: {}", report.stderr);
    }
}

#[test]
fn a_server_that_is_killed_half_way_is_an_error_and_no_hang() {
    let Some(mut server) = Server::start() else { return };
    let mut client = Running::start(&mut server.command(["load-buffer", "-"]));
    let mut stdin = client.child.stdin.take().unwrap();
    // More than the pipe holds: so the client has passed some of it on.
    stdin.write_all(&noise(1_000_000)).unwrap();
    server.0.running.kill();
    // Standard input is still open.
    let report = client.finish();
    assert_eq!((report.code(), report.text()), (Some(1), ""));
    assert_eq!(report.stderr, "imsg tmux: the server exited unexpectedly\n");
}

#[test]
fn nobody_at_the_output_is_an_error_and_no_panic() {
    let Some(server) = Server::start() else { return };
    let (read, write) = io::pipe().unwrap();
    drop(read);
    let mut command = server.command(["list-keys"]);
    command.stdout(write);
    let report = process::run(&mut command, b"");
    assert_eq!(report.stderr, "imsg tmux: cannot print: Broken pipe (os error 32)\n");
    assert_eq!(report.code(), Some(1));
    assert_eq!(server.run(["list-sessions"]).code(), Some(0));
}

// Without a server.

#[test]
fn no_server_is_an_error_that_names_the_socket() {
    let place = tempfile::tempdir().unwrap();
    let missing = place.path().join("missing");
    let stale = place.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let long = place.path().join("x".repeat(200));
    let file = place.path().join("file");
    fs::write(&file, b"").unwrap();
    for (path, due) in [
        (&missing, "no server running on "),
        (&stale, "no server running on "),
        (&file, "no server running on "),
        (&long, "cannot connect to "),
    ] {
        let report =
            process::run(&mut program([OsStr::new("-S"), path.as_os_str(), "ls".as_ref()]), b"");
        assert_eq!((report.code(), report.text()), (Some(1), ""));
        let due = format!("imsg tmux: {due}{}: ", path.display());
        assert!(report.stderr.starts_with(&due), "{}", report.stderr);
    }
}

#[test]
fn help_explains_and_no_command_at_all_is_a_mistake() {
    let report = process::run(&mut program(["--help"]), b"");
    assert!(report.text().contains("TMUX_TMPDIR"), "{}", report.text());
    assert_eq!(process::run(&mut program([""; 0]), b"").code(), Some(2));
}

// Against servers that are made up.

#[test]
fn a_client_introduces_itself_as_tmux_does() {
    for dialect in [CLASSIC, MODERN] {
        let (client, mut server) = fake(dialect, |command| {
            command.args(["new-session", "-d", "süß"]);
            command.env_clear().env("TERM", "vt100").env("NAME", "value").current_dir("/");
        });
        let mut messages = Vec::new();
        let mut command = false;
        while !command {
            let message = server.rx.recv().unwrap().unwrap();
            let Header { msg_type, id, pid } = message.header;
            assert_eq!((id, pid), (8, u32::MAX), "{msg_type}");
            command = msg_type == COMMAND;
            let descriptor = matches!(message.descriptor, Descriptor::Here(_));
            messages.push((msg_type, message.payload.to_vec(), descriptor));
        }
        let pid = client.child.id().to_ne_bytes().to_vec();
        let command = [&3_i32.to_ne_bytes()[..], "new-session\0-d\0süß\0".as_bytes()].concat();
        let due = [
            (111, 0x10000_u64.to_ne_bytes().to_vec(), false),
            (101, b"vt100\0".to_vec(), false),
            (109, 0_i32.to_ne_bytes().to_vec(), false),
            (102, b"\0".to_vec(), false),
            (108, b"/\0".to_vec(), false),
            (104, vec![], true),
            (110, vec![], true),
            (107, pid, false),
            (105, b"TERM=vt100\0".to_vec(), false),
            (105, b"NAME=value\0".to_vec(), false),
            (106, vec![], false),
            (200, command, false),
        ];
        // The environment is in no order.
        let variables = messages.iter_mut().filter(|(msg_type, ..)| *msg_type == 105);
        let mut variables: Vec<_> = variables.collect();
        if variables[0].1.starts_with(b"NAME") {
            let (first, second) = variables.split_at_mut(1);
            std::mem::swap(first[0], second[0]);
        }
        assert_eq!(messages, due, "{dialect:?}");
    }
}

#[test]
fn an_environment_of_any_size_is_sent() {
    let (client, mut server) = fake(CLASSIC, |command| {
        command.arg("list-sessions").env_clear();
        command.envs((0..100).map(|n| (format!("N{n}"), "x".repeat(10_000))));
    });
    let mut variables = 0;
    loop {
        match server.rx.recv().unwrap().unwrap().header.msg_type {
            105 => variables += 1,
            COMMAND => break,
            _ => {}
        }
    }
    assert_eq!(variables, 100);
    say_exit(&mut server, 0, "");
    assert_eq!(client.finish().code(), Some(0));
}

#[test]
fn status_and_text_of_the_exit_are_those_of_the_program() {
    for (payload, code, errors) in [
        (vec![], 0, ""),
        (7_i32.to_ne_bytes().to_vec(), 7, ""),
        ([&3_i32.to_ne_bytes()[..], b"lost\0"].concat(), 3, "lost\n"),
        (0x101_i32.to_ne_bytes().to_vec(), 1, ""),
        ((-1_i32).to_ne_bytes().to_vec(), 255, ""),
    ] {
        for says_exited in [true, false] {
            let (client, mut server) = fake_at_command(CLASSIC, |_| {});
            say(&mut server, EXIT, &payload);
            assert_eq!(server.rx.recv().unwrap().unwrap().header.msg_type, EXITING);
            if says_exited {
                say(&mut server, EXITED, b"");
            } else {
                drop(server);
            }
            let report = client.finish();
            assert_eq!((report.code(), report.stderr.as_str()), (Some(code), errors));
        }
    }
}

#[test]
fn a_server_that_shuts_down_is_a_failure() {
    let (client, mut server) = fake_at_command(CLASSIC, |_| {});
    say(&mut server, SHUTDOWN, b"");
    assert_eq!(client.finish().code(), Some(1));
}

#[test]
fn another_version_of_the_protocol_is_an_error_that_names_both() {
    for dialect in [CLASSIC, MODERN] {
        for msg_type in [VERSION, WRITE_OPEN] {
            let (client, mut server) = fake(dialect, |command| {
                command.arg("list-sessions");
            });
            // It says so without reading what the client says, and hangs up.
            let header = Header { id: 9, ..Header::new(msg_type) };
            server.tx.compose(header, b"", None).unwrap();
            server.tx.flush().unwrap();
            drop(server);
            let report = client.finish();
            assert_eq!(report.code(), Some(1));
            assert_eq!(
                report.stderr,
                "imsg tmux: the server speaks version 9 of the protocol, and this client version 8\n"
            );
        }
    }
}

#[test]
fn the_answer_to_the_probe_tells_the_dialect() {
    for (answer, due) in [
        (Some(VERSION), "classic dialect, as a probe found"),
        (None, "modern dialect, as a probe found"),
        (Some(EXIT), "answered the probe for its dialect with a message of type 203"),
    ] {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = program(["-v", "-S"]);
        command.arg(&socket).arg("list-sessions");
        let client = Running::start(&mut command);

        let mut probed = channel(listener.accept().unwrap().0, CLASSIC);
        let message = probed.rx.recv().unwrap().unwrap();
        assert_eq!((message.header.msg_type, message.header.id), (104, 0));
        assert!(matches!(message.descriptor, Descriptor::Here(_)));
        if let Some(msg_type) = answer {
            say(&mut probed, msg_type, b"");
        }
        drop(probed);
        drop(listener);
        // Where it goes on, there is nobody.
        let report = client.finish();
        assert_eq!(report.code(), Some(1));
        assert!(report.stderr.contains(due), "{}", report.stderr);
    }
}

#[test]
fn only_the_standard_streams_are_opened_for_the_server() {
    let (client, mut server) = fake_at_command(CLASSIC, |_| {});
    let open = |stream, fd| numbers(&[stream, fd]);
    let to_write = |stream, fd| numbers(&[stream, fd, 0]);
    for (msg_type, payload, answer, errno) in [
        (WRITE_OPEN, to_write(1, 1), WRITE_READY, 0),
        (WRITE_OPEN, to_write(1, 1), WRITE_READY, libc::EBADF),
        (WRITE_OPEN, to_write(2, 2), WRITE_READY, 0),
        (WRITE_OPEN, to_write(3, 0), WRITE_READY, libc::EBADF),
        (WRITE_OPEN, to_write(3, 3), WRITE_READY, libc::EBADF),
        (WRITE_OPEN, [to_write(3, -1), b"/path\0".to_vec()].concat(), WRITE_READY, libc::EPERM),
        (READ_OPEN, open(4, 1), READ_DONE, libc::EBADF),
        (READ_OPEN, [open(4, -1), b"/path\0".to_vec()].concat(), READ_DONE, libc::EPERM),
    ] {
        say(&mut server, msg_type, &payload);
        let message = server.rx.recv().unwrap().unwrap();
        let due = [&payload[..4], &errno.to_ne_bytes()].concat();
        assert_eq!((message.header.msg_type, message.payload), (answer, due.as_slice()));
    }
    // As many as it likes are not opened either.
    let mut opened = 0;
    for stream in 10..200 {
        say(&mut server, WRITE_OPEN, &to_write(stream, 1));
        let message = server.rx.recv().unwrap().unwrap();
        opened += usize::from(message.payload[4..] == [0; 4]);
    }
    assert_eq!(opened, 62);
    say_exit(&mut server, 0, "");
    assert_eq!(client.finish().code(), Some(0));
}

#[test]
fn a_read_can_be_cancelled_while_the_input_has_no_end() {
    let (mut client, mut server) = fake_at_command(CLASSIC, |_| {});
    let mut stdin = client.child.stdin.take().unwrap();
    say(&mut server, READ_OPEN, &numbers(&[4, 0]));
    stdin.write_all(b"some").unwrap();
    let message = server.rx.recv().unwrap().unwrap();
    let due = [&numbers(&[4])[..], b"some"].concat();
    assert_eq!((message.header.msg_type, message.payload), (READ, due.as_slice()));

    say(&mut server, READ_CANCEL, &numbers(&[4]));
    let message = server.rx.recv().unwrap().unwrap();
    assert_eq!((message.header.msg_type, message.payload), (READ_DONE, &numbers(&[4, 0])[..]));
    // Once more is no mistake: the two may have crossed.
    say(&mut server, READ_CANCEL, &numbers(&[4]));
    say_exit(&mut server, 5, "");
    assert_eq!(client.finish().code(), Some(5));
}

#[test]
fn what_a_server_makes_up_is_an_error_and_no_panic() {
    let stream = |bytes: &[u8]| [&numbers(&[7])[..], bytes].concat();
    for (msg_type, payload, due) in [
        (WRITE_OPEN, vec![], "type 303 (WriteOpen): field stream: the payload has 0 bytes left"),
        (
            WRITE_OPEN,
            vec![0; 11],
            "type 303 (WriteOpen): field flags: the payload has 3 bytes left",
        ),
        (WRITE_OPEN, [vec![0; 12], b"path".to_vec()].concat(), "field path: a string has no end"),
        (
            WRITE_OPEN,
            [vec![0; 12], b"a\0b".to_vec()].concat(),
            "(WriteOpen): the payload is 1 bytes too long",
        ),
        (READ_OPEN, vec![0; 7], "type 300 (ReadOpen): field fd: the payload has 3 bytes left"),
        (READ_OPEN, vec![0xff; 100], "type 300 (ReadOpen): field path: a string has no end"),
        (WRITE, vec![0; 3], "type 304 (Write): field stream: the payload has 3 bytes left"),
        (WRITE, stream(b"text"), "type 304 for stream 7, which is not open"),
        (WRITE_CLOSE, stream(b""), "type 306 for stream 7, which is not open"),
        (
            WRITE_CLOSE,
            stream(b"x"),
            "bad message of type 306 (WriteClose): the payload is 1 bytes too long",
        ),
        (READ_CANCEL, vec![], "type 307 (ReadCancel): field stream: the payload has 0 bytes left"),
        (EXIT, vec![0; 3], "type 203 (Exit): field 0: the payload has 3 bytes left"),
        (EXIT, vec![1; 5], "type 203 (Exit): field 0: a string has no end"),
        (READY, vec![], "attaches to a session"),
        (READY, vec![0], "type 207 (Ready): the payload is 1 bytes too long"),
        (COMMAND, vec![], "bad message of type 200: the type is unknown"),
        (0, vec![], "bad message of type 0: the type is unknown"),
        (u32::MAX, vec![0; 16000], "bad message of type 4294967295: the type is unknown"),
    ] {
        for dialect in [CLASSIC, MODERN] {
            let (client, mut server) = fake_at_command(dialect, |_| {});
            say(&mut server, msg_type, &payload);
            let report = client.finish();
            assert_eq!((report.code(), report.text()), (Some(1), ""), "{msg_type}");
            assert_eq!(report.stderr.lines().count(), 1, "{}", report.stderr);
            assert!(report.stderr.contains(due), "{}", report.stderr);
        }
    }
}

#[test]
fn bytes_that_are_no_message_are_an_error_and_no_hang() {
    let header = |len: u32| [[EXITED, len], [8, 0]].concat();
    for (words, due) in [
        (header(15), "a length of 15 bytes is out of range"),
        (header(16385), "a length of 16385 bytes is out of range"),
        // It hangs up in the middle of a message.
        (header(100), "the server exited unexpectedly"),
        (vec![EXITED], "the server exited unexpectedly"),
        (vec![], "the server exited unexpectedly"),
    ] {
        let (client, server) = fake_at_command(MODERN, |_| {});
        let mut socket = UnixStream::from(std::os::fd::OwnedFd::try_from(server).unwrap());
        socket.write_all(zerocopy::IntoBytes::as_bytes(words.as_slice())).unwrap();
        drop(socket);
        let report = client.finish();
        assert_eq!(report.code(), Some(1));
        assert!(report.stderr.contains(due), "{}", report.stderr);
    }
}

#[test]
fn both_directions_flow_although_each_end_does_one_thing_at_a_time() {
    const LEN: usize = 50_000_000;
    let (mut client, mut server) = fake_at_command(CLASSIC, |command| {
        // What does not fit into the descriptors waits there, not here.
        limit_memory(command);
    });
    let mut stdin = client.child.stdin.take().unwrap();
    let mut stdout = client.child.stdout.take().unwrap();
    let data = noise(LEN);

    // The server reads nothing until it has written all; then it ends what it reads.
    let serve = || {
        say(&mut server, READ_OPEN, &numbers(&[4, 0]));
        say(&mut server, WRITE_OPEN, &numbers(&[5, 1, 0]));
        let (mut ready, mut received) = (false, Vec::new());
        while !ready {
            let message = server.rx.recv().unwrap().unwrap();
            match message.header.msg_type {
                WRITE_READY => ready = true,
                READ => received.extend_from_slice(&message.payload[4..]),
                other => panic!("{other}"),
            }
        }
        for part in data.chunks(16364) {
            say(&mut server, WRITE, &[&numbers(&[5]), part].concat());
        }
        loop {
            let message = server.rx.recv().unwrap().unwrap();
            match message.header.msg_type {
                READ => received.extend_from_slice(&message.payload[4..]),
                READ_DONE => break,
                other => panic!("{other}"),
            }
        }
        say_exit(&mut server, 0, "");
        received
    };
    thread::scope(|scope| {
        let server = scope.spawn(serve);
        // Nor does the other side write before it has read all.
        let mut output = vec![0; LEN];
        stdout.read_exact(&mut output).unwrap();
        assert!(output == data, "what the server wrote is what came out");
        stdin.write_all(&data).unwrap();
        drop(stdin);
        assert!(server.join().unwrap() == data, "what went in is what the server read");
    });
    assert_eq!(client.finish().code(), Some(0));
}

#[test]
fn input_flows_while_nobody_reads_the_output() {
    const LEN: usize = 10_000_000;
    let (mut client, mut server) = fake_at_command(MODERN, |command| {
        limit_memory(command);
    });
    let mut stdin = client.child.stdin.take().unwrap();
    let data = noise(LEN);

    say(&mut server, WRITE_OPEN, &numbers(&[5, 1, 0]));
    assert_eq!(server.rx.recv().unwrap().unwrap().header.msg_type, WRITE_READY);
    say(&mut server, READ_OPEN, &numbers(&[4, 0]));
    // More than the pipe takes, and less than it and the channel.
    for part in data[..150_000].chunks(10_000) {
        say(&mut server, WRITE, &[&numbers(&[5]), part].concat());
    }
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            stdin.write_all(&data).unwrap();
            drop(stdin);
        });
        let mut received = Vec::new();
        loop {
            let message = server.rx.recv().unwrap().unwrap();
            match message.header.msg_type {
                READ => received.extend_from_slice(&message.payload[4..]),
                READ_DONE => break received,
                other => panic!("{other}"),
            }
        }
    });
    assert!(received == data);
    // The client answers once its output flows.
    say(&mut server, EXIT, &0_i32.to_ne_bytes());
    say(&mut server, EXITED, b"");
    let report = client.finish();
    assert!(report.stdout == data[..150_000]);
    assert_eq!(report.code(), Some(0));
}

// Silence, and terminals.

/// Runs the program against a server that says only this, and nothing more.
fn run_against_silence(said: &[u8], arguments: &[&str]) -> Report {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut command = program(["-S"]);
    command.arg(&socket).args(arguments).arg("list-sessions").env("LARGE", "x".repeat(100_000));
    command.envs((0..40).map(|n| (format!("LARGE{n}"), "x".repeat(16_000))));
    let mut client = Running::start(&mut command);
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(said).unwrap();
    client.until_it_ends();
    // With the descriptors in it, which keep the output open.
    drop(server);
    let report = client.finish();
    assert_eq!(report.code(), Some(1), "{report:?}");
    report
}

#[test]
fn a_server_that_does_not_answer_the_probe_is_waited_for_a_while_only() {
    for said in [&b""[..], &[12, 0, 0, 0, 16]] {
        let report = run_against_silence(said, &["--patience", "0.2"]);
        let due = "imsg tmux: the server did not answer the probe for its dialect in time; \
                   use --dialect\n";
        assert_eq!(report.stderr, due);
    }
}

#[test]
fn a_server_that_does_not_read_is_waited_for_a_while_only() {
    let report = run_against_silence(b"", &["--dialect", "classic", "--patience", "0.2"]);
    let due = "imsg tmux: gave up waiting for the server to read what was sent to it\n";
    assert_eq!(report.stderr, due);
}

#[test]
fn half_a_message_is_waited_for_a_while_only() {
    let (client, server) = fake_with(&["--patience", "0.2"]);
    let mut socket = UnixStream::from(OwnedFd::try_from(server).unwrap());
    socket.write_all(&[203, 0, 0, 0, 20, 0]).unwrap();
    let report = client.finish();
    assert_eq!(report.code(), Some(1));
    let due = "imsg tmux: gave up waiting for the server to complete a message\n";
    assert_eq!(report.stderr, due);
}

#[test]
fn a_server_that_says_nothing_is_waited_for_a_while_only_when_that_is_limited() {
    let (client, _server) = fake_with(&["--silence", "0.2"]);
    let report = client.finish();
    assert_eq!(report.code(), Some(1));
    let due = "imsg tmux: gave up waiting for the server to end the command\n";
    assert_eq!(report.stderr, due);
}

#[test]
fn what_is_waited_for_is_said_when_that_takes_a_while() {
    let (mut client, mut server) = fake_with(&["-v", "--patience", "0.2"]);
    let errors = BufReader::new(client.child.stderr.take().unwrap());
    let mut lines = errors.lines().map(Result::unwrap);
    assert!(lines.next().unwrap().ends_with("classic dialect, as told"));
    assert_eq!(lines.next().unwrap(), "imsg tmux: waiting for the server to end the command");
    say(&mut server, READ_OPEN, &numbers(&[1, 0]));
    assert_eq!(lines.next().unwrap(), "imsg tmux: waiting for standard input");
    say_exit(&mut server, 0, "");
    assert_eq!(client.until_it_ends().code(), Some(0));
    assert_eq!(lines.next(), None);
}

#[test]
fn a_limit_below_the_descriptors_that_are_waited_for_is_an_error_that_names_it() {
    let (client, mut server) = fake_with(&[]);
    process::limit_now(client.process(), Resource::RLIMIT_NOFILE, 1);
    // From now on, it waits for standard input, too.
    say(&mut server, READ_OPEN, &numbers(&[1, 0]));
    let report = client.finish();
    assert_eq!(report.code(), Some(1));
    let due = "imsg tmux: the limit of open files (RLIMIT_NOFILE) is less than the 2 that are waited \
               for\n";
    assert_eq!(report.stderr, due);
}

#[test]
fn a_terminal_shows_what_the_server_sends_and_obeys_nothing_of_it() {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let (client, mut server) = fake_at_command(CLASSIC, |command| {
        command.stdout(slave.try_clone().unwrap()).stderr(slave);
    });
    say(&mut server, WRITE_OPEN, &numbers(&[1, 1, 0]));
    assert_eq!(server.rx.recv().unwrap().unwrap().header.msg_type, WRITE_READY);
    for part in ["caf\u{e9}\t\u{1b}[31mred\n".as_bytes(), b"\xe2\x80", b"\xae\xff\n"] {
        say(&mut server, WRITE, &[&numbers(&[1])[..], part].concat());
    }
    say(&mut server, WRITE_CLOSE, &numbers(&[1]));
    say_exit(&mut server, 0, "\u{7}bye\0");
    let mut shown = Vec::new();
    let mut terminal = File::from(master);
    assert_eq!(client.finish().code(), Some(0));
    // The end of a terminal that nobody has is an error.
    let _ = terminal.read_to_end(&mut shown);
    let due = "caf\u{e9}\t\\u{1b}[31mred\r\n\\u{202e}\\xff\r\n\\u{7}bye\r\n";
    assert_eq!(str::from_utf8(&shown), Ok(due));
}

#[test]
fn a_pipe_gets_what_the_server_sends_as_it_is() {
    let (client, mut server) = fake_at_command(CLASSIC, |_| {});
    say(&mut server, WRITE_OPEN, &numbers(&[1, 1, 0]));
    assert_eq!(server.rx.recv().unwrap().unwrap().header.msg_type, WRITE_READY);
    say(&mut server, WRITE, &[&numbers(&[1])[..], b"\x1b[31m\xff\r\n"].concat());
    say_exit(&mut server, 0, "");
    assert_eq!(client.finish().stdout, b"\x1b[31m\xff\r\n");
}

#[test]
fn output_that_somebody_made_non_blocking_gets_all() {
    const LEN: usize = 16_000;
    let (mut read, write) = io::pipe().unwrap();
    process::make_nonblocking(&write);
    let (client, mut server) = fake_at_command(CLASSIC, |command| {
        command.stdout(write);
    });
    say(&mut server, WRITE_OPEN, &numbers(&[1, 1, 0]));
    assert_eq!(server.rx.recv().unwrap().unwrap().header.msg_type, WRITE_READY);
    let sender = thread::spawn(move || {
        for _ in 0..20 {
            say(&mut server, WRITE, &[&numbers(&[1])[..], &[b'x'; LEN]].concat());
        }
        say_exit(&mut server, 0, "");
    });
    until_it_waits(&client);
    let mut output = Vec::new();
    read.read_to_end(&mut output).unwrap();
    sender.join().unwrap();
    assert_eq!((client.finish().code(), output.len()), (Some(0), 20 * LEN));
}

const VERSION: u32 = 12;
const COMMAND: u32 = 200;
const EXIT: u32 = 203;
const EXITED: u32 = 204;
const EXITING: u32 = 205;
const READY: u32 = 207;
const SHUTDOWN: u32 = 210;
const READ_OPEN: u32 = 300;
const READ: u32 = 301;
const READ_DONE: u32 = 302;
const WRITE_OPEN: u32 = 303;
const WRITE: u32 = 304;
const WRITE_READY: u32 = 305;
const WRITE_CLOSE: u32 = 306;
const READ_CANCEL: u32 = 307;

/// A client with these options, which has said all that it has to say, and a classic server.
fn fake_with(options: &[&str]) -> (Running, Channel<Any>) {
    let (client, mut server) = fake(CLASSIC, |command| {
        command.args(options).arg("command");
    });
    until_command(&mut server);
    (client, server)
}

fn until_command(server: &mut Channel<Any>) {
    while server.rx.recv().unwrap().unwrap().header.msg_type != COMMAND {}
}

/// A client, and the connection to it of a server that the test plays.
fn fake(dialect: Any, set: impl FnOnce(&mut Command)) -> (Running, Channel<Any>) {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let name = if dialect == CLASSIC { "classic" } else { "modern" };
    let mut command = program(["--dialect", name, "-S"]);
    command.arg(&socket);
    set(&mut command);
    let client = Running::start(&mut command);
    (client, channel(listener.accept().unwrap().0, dialect))
}

/// The same, when the client has said all that it has to say.
fn fake_at_command(dialect: Any, set: impl FnOnce(&mut Command)) -> (Running, Channel<Any>) {
    let (client, mut server) = fake(dialect, |command| {
        command.arg("command");
        set(command);
    });
    until_command(&mut server);
    (client, server)
}

fn channel(socket: UnixStream, dialect: Any) -> Channel<Any> {
    let mut channel = Channel::new(socket, dialect).unwrap();
    channel.rx.allow_descriptors();
    channel
}

fn say(server: &mut Channel<Any>, msg_type: u32, payload: &[u8]) {
    let header = Header { id: 8, pid: u32::MAX, ..Header::new(msg_type) };
    server.tx.compose(header, payload, None).unwrap();
    server.tx.flush().unwrap();
}

/// Numbers as they stand in a payload.
fn numbers(numbers: &[i32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn say_exit(server: &mut Channel<Any>, status: i32, text: &str) {
    say(server, EXIT, &[&status.to_ne_bytes()[..], text.as_bytes()].concat());
    assert_eq!(server.rx.recv().unwrap().unwrap().header.msg_type, EXITING);
    say(server, EXITED, b"");
}

/// A server of the tmux that is installed, and the program under test as its client.
struct Server(Tmux);

impl Server {
    fn start() -> Option<Self> {
        Tmux::start("cat").map(Self)
    }

    /// Runs a command with the program under test.
    fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Report {
        process::run(&mut self.command(arguments), b"")
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = program(["-S"]);
        command.arg(&self.0.socket).args(arguments);
        command
    }

    fn version(&self) -> String {
        let output = Command::new("tmux").arg("-V").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim_end().trim_start_matches("tmux ").to_owned()
    }

    /// Whether this version speaks the classic dialect: up to 3.5a.
    fn is_classic(&self) -> bool {
        let version = self.version();
        let (major, minor) = version.split_once('.').expect("a version such as 3.3a");
        let minor = minor.trim_end_matches(|character: char| !character.is_ascii_digit());
        let number = |text: &str| text.parse::<u32>().expect("a number");
        (number(major), number(minor)) < (3, 6)
    }
}

/// The program under test.
fn program<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| examples::imsg(env!("CARGO_TARGET_TMPDIR")));
    let mut command = Command::new(&*PROGRAM);
    command
        .arg("tmux")
        .args(arguments)
        .env_remove("TMUX")
        .env_remove("TMUX_TMPDIR")
        .env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Until it has a connection, and sleeps: nobody else lets it go on.
fn until_it_waits(client: &Running) {
    let process = client.process();
    until("the client waits for the server", || {
        let mut descriptors = fs::read_dir(process.file("fd")).unwrap().flatten();
        let connected = descriptors.any(|entry| {
            fs::read_link(entry.path())
                .is_ok_and(|held| held.to_str().is_some_and(|held| held.starts_with("socket:")))
        });
        connected && process.state() == "S"
    });
}

fn limit_memory(command: &mut Command) {
    process::limit(command, Resource::RLIMIT_AS, 32 << 20);
}

/// Bytes without a pattern, the same each time.
fn noise(len: usize) -> Vec<u8> {
    Rng::of(&[1]).bytes(len)
}
