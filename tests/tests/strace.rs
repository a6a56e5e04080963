//! `imsg dump --strace`, run on logs of real programs, on logs that are made up, and on what the relay
//! keeps.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use imsg_os::{Any, Endian, HEADER_LEN, Header};
use imsg_tests::examples;
use imsg_tests::process::{self, Process, Report, Running, strace, until};
use imsg_tests::tmux::{self, Tmux};
use imsg_wire::SendBuf;
use nix::sys::resource::Resource;
use tempfile::TempDir;

/// What the help says to trace.
const TRACE: [&str; 6] = [
    "-f",
    "-yy",
    "-xx",
    "-s",
    "131072",
    "-etrace=%network,read,write,readv,writev,close,dup,dup2,dup3,pipe,fork,clone",
];

const CLASSIC: Any = Any::Classic(Endian::NATIVE);
const MODERN: Any = Any::Modern(Endian::NATIVE);

// Logs of real programs.

#[test]
fn a_daemon_and_its_worker_are_read_on_both_sides_with_the_file_that_passes() {
    let Some(mut strace) = strace() else { return };
    let place = tempfile::tempdir().unwrap();
    let (log, file) = (place.path().join("log"), place.path().join("a file"));
    fs::write(&file, "text").unwrap();
    let privsep = examples::build(env!("CARGO_TARGET_TMPDIR"), "imsg-os", "privsep", "process");
    strace.args(TRACE).arg("-o").arg(&log).arg(privsep).arg(&file);
    let report = process::run(strace.stdout(Stdio::piped()).stderr(Stdio::piped()), b"");
    assert_eq!(report.code(), Some(0), "{report:?}");

    let report = dump(&log, &[]);
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{}", report.text());
    let lines: Vec<_> = report.text().lines().collect();
    for (part, direction) in [
        ("type 1 ", "out"),
        ("type 1 ", "in"),
        ("type 2 ", "out"),
        ("type 2 ", "in"),
        ("type 3 ", "out"),
        ("type 3 ", "in"),
    ] {
        let fits =
            |line: &&&str| line.contains(part) && line.contains(&format!(" fd 3 {direction:<3} "));
        assert_eq!(lines.iter().filter(fits).count(), 1, "{part} {direction}: {lines:?}");
    }
    let name = format!("fd {:?}", file.to_str().unwrap());
    assert_eq!(lines.iter().filter(|line| line.ends_with(&name)).count(), 2, "{lines:?}");
    // Two processes.
    let processes: std::collections::BTreeSet<_> =
        lines.iter().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(processes.len(), 2, "{lines:?}");
}

#[test]
fn tmux_is_read_while_it_runs() {
    let Some(_) = strace() else { return };
    let Some(server) = Tmux::start("cat") else { return };
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let tracer = attach(&server.running, &log);
    assert_eq!(server.output_of(["display-message", "-p", "hello"]), "hello\n");
    detach(tracer);

    let names = concat!(env!("CARGO_MANIFEST_DIR"), "/../imsg-os/tools/tmux.names");
    let report = dump(&log, &["--names", names]);
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{}", report.text());
    let line = |part: &str| report.text().lines().find(|line| line.contains(part)).expect(part);
    assert!(line("MSG_IDENTIFY_TERM").contains(" in "));
    assert!(line("MSG_IDENTIFY_STDIN").contains("  fd \"pipe:["));
    assert!(line("MSG_EXIT ").contains(" out "));
    let process = format!(" {} fd ", server.running.child.id());
    assert!(report.text().lines().all(|line| line.contains(&process)), "{}", report.text());
}

#[test]
fn a_connection_that_is_older_than_the_log_is_found() {
    let Some(_) = strace() else { return };
    let Some(server) = Tmux::start("cat") else { return };
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    // A client that waits, and whose answer comes only when it is traced.
    let mut client = tmux::client(&server.socket);
    client.args(["wait-for", "channel"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut client = Running::start(&mut client);
    until("it waits", || is_connected(client.process()) && client.process().state() == "S");
    // The server takes one after the other.
    server.output_of(["list-sessions"]);
    let tracer = attach(&server.running, &log);
    server.output_of(["wait-for", "-S", "channel"]);
    assert!(client.until_it_ends().success());
    detach(tracer);

    let report = dump(&log, &[]);
    assert_eq!(report.code(), Some(0), "{}: {}", report.stderr, report.text());
    assert!(
        report.stderr.contains("a stream that began before the log: 0 bytes skipped"),
        "{report:?}"
    );
}

fn is_connected(process: Process) -> bool {
    let mut descriptors = fs::read_dir(process.file("fd")).unwrap().flatten();
    descriptors.any(|entry| {
        let held = fs::read_link(entry.path()).unwrap_or_default();
        held.to_str().is_some_and(|held| held.starts_with("socket:"))
    })
}

/// A tracer of a process that runs.
fn attach(program: &Running, log: &Path) -> Running {
    let process = program.process();
    let mut command = Command::new("strace");
    command.args(TRACE).arg("-o").arg(log).arg("-p").arg(process.0.to_string());
    let tracer =
        Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    let is_traced = |process: Process| process.status("TracerPid").is_some_and(|pid| pid != "0");
    until("it is traced", || is_traced(process));
    tracer
}

/// Has it write all that it saw.
fn detach(mut tracer: Running) {
    tracer.process().signal(nix::sys::signal::Signal::SIGTERM);
    tracer.until_it_ends();
}

// Logs that are made up.

#[test]
fn short_reads_and_writes_interrupted_calls_and_copies_of_descriptors_make_one_stream() {
    let one = message(MODERN, Header { msg_type: 1, id: 2, pid: 3 }, b"hello", false);
    let two = message(MODERN, Header { msg_type: 4, id: 5, pid: 6 }, b"", true);
    let all = [&one[..], &two].concat();
    let log = [
        "10 socketpair(AF_UNIX, SOCK_STREAM, 0, [3<UNIX-STREAM:[70->71]>, 4<UNIX-STREAM:[71->70]>]) = 0".to_owned(),
        // It takes a part, and is called again with the rest, by another process with a copy.
        format!("10 write(3<UNIX-STREAM:[70->71]>, \"{}\", {}) = 7", hex(&one), one.len()),
        "10 dup(3<UNIX-STREAM:[70->71]>) = 9<UNIX-STREAM:[70->71]>".to_owned(),
        format!("11 writev(9<UNIX-STREAM:[70->71]>, [{{iov_base=\"{}\", iov_len=4}}, {{iov_base=\"{}\", iov_len={}}}], 2 <unfinished ...>", hex(&one[7..11]), hex(&one[11..]), one.len() - 11),
        format!("12 read(4<UNIX-STREAM:[71->70]>, \"{}\", 12) = 12", hex(&all[..12])),
        format!("11 <... writev resumed>) = {}", one.len() - 7),
        format!("10 sendmsg(3<UNIX-STREAM:[70->71]>, {{msg_iov=[{{iov_base=\"{}\", iov_len=16}}], msg_iovlen=1, msg_control=[{{cmsg_len=20, cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS, cmsg_data=[5</dev/null<char 1:3>>]}}], msg_flags=0}}, 0) = 16", hex(&two)),
        "12 recvmsg(4<UNIX-STREAM:[71->70]>, {msg_iov=[{iov_base=\"\\x00\"}]}, MSG_PEEK) = 1".to_owned(),
        "12 recvmsg(4<UNIX-STREAM:[71->70]>, 0x7ff, 0) = -1 EAGAIN (Resource temporarily unavailable)".to_owned(),
        format!("12 recvmsg(4<UNIX-STREAM:[71->70]>, {{msg_iov=[{{iov_base=\"{}\", iov_len=65535}}], msg_control=[{{cmsg_type=SCM_RIGHTS, cmsg_data=[6</dev/null<char 1:3>>]}}]}}, 0) = {}", hex(&all[12..]), all.len() - 12),
        "12 recvmsg(4<UNIX-STREAM:[71->70]>, {msg_iov=[{iov_base=\"\", iov_len=65535}]}, 0) = 0".to_owned(),
    ];
    let report = dump_text(&log.join("\n"), &[]);
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{}", report.text());
    assert_eq!(
        report.text(),
        "     6  11 fd 9 out  either   type 1  id 2  pid 3  payload 5\n\
         \x20    7  10 fd 3 out  modern   type 4  id 5  pid 6  payload 0  fd \"/dev/null\"\n\
         \x20   10  12 fd 4 in   either   type 1  id 2  pid 3  payload 5\n\
         \x20   10  12 fd 4 in   modern   type 4  id 5  pid 6  payload 0  fd \"/dev/null\"\n"
    );
}

#[test]
fn an_object_has_where_it_was_found() {
    let bytes = message(CLASSIC, Header { msg_type: 1, id: 2, pid: 3 }, b"x", false);
    let log = format!(
        "10 socket(AF_UNIX, SOCK_STREAM, 0) = 3<UNIX-STREAM:[70]>\n10 write(3<UNIX-STREAM:[70->71]>, \"{}\", 17) = 17\n",
        hex(&bytes)
    );
    assert_eq!(
        dump_text(&log, &["--json"]).text(),
        "{\"line\":2,\"process\":10,\"descriptor\":3,\"direction\":\"out\",\"dialect\":\"either\",\"type\":1,\
         \"id\":2,\"pid\":3,\"len\":17,\"fd\":false,\"payload\":\"78\"}\n"
    );
}

#[test]
fn a_stream_that_began_before_the_log_is_found_behind_the_rest_of_a_message() {
    let messages: Vec<_> =
        (1..4).flat_map(|n| message(MODERN, Header::new(n), &[7; 30], false)).collect();
    let log = format!(
        "10 read(3<UNIX-STREAM:[70->71]>, \"{}\", 65536) = {}\n",
        hex(&messages[20..]),
        messages.len() - 20
    );
    let report = dump_text(&log, &[]);
    let due = "imsg dump: line 1: process 10, descriptor 3, in: a stream that began before the log: \
               26 bytes skipped\n";
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), due));
    let types: Vec<_> = report
        .text()
        .lines()
        .map(|line| line.split("type ").nth(1).unwrap().chars().next())
        .collect();
    assert_eq!(types, [Some('2'), Some('3')]);
}

#[test]
fn what_breaks_a_stream_is_said_and_others_go_on() {
    let good = message(MODERN, Header::new(1), b"", false);
    let bad = [&good[..], &[0; 16]].concat();
    let unmarked = "{iov_base=\"BYTES\", iov_len=16}], msg_control=[{cmsg_type=SCM_RIGHTS, cmsg_data=[5</a>]}]}, 0) = 16";
    let log = [
        "1 socketpair(AF_UNIX, SOCK_STREAM, 0, [3<UNIX-STREAM:[70->71]>, 4<UNIX-STREAM:[71->70]>]) = 0".to_owned(),
        format!("1 write(3<UNIX-STREAM:[70->71]>, \"{}\", 32) = 32", hex(&bad)),
        format!("1 write(4<UNIX-STREAM:[71->70]>, \"{}\", 16) = 16", hex(&good)),
        format!("1 read(9<UNIX-STREAM:[90->91]>, \"{}\"..., 64) = 64", hex(&good)),
        format!("1 sendmsg(4<UNIX-STREAM:[71->70]>, {{msg_iov=[{}", unmarked.replace("BYTES", &hex(&good))),
    ];
    let report = dump_text(&log.join("\n"), &["--dialect", "modern"]);
    assert_eq!(report.code(), Some(1));
    assert_eq!(report.text().lines().count(), 4, "{}", report.text());
    let complaints: Vec<_> = report.stderr.lines().collect();
    let due = "imsg dump: line 2: process 1, descriptor 3, out: at offset 16, a length of 0 bytes is out of range";
    assert!(complaints[0].starts_with(due), "{complaints:?}");
    assert!(report.stderr.contains("the log has only 16 of 64 bytes"), "{complaints:?}");
}

#[test]
fn other_streams_are_passed_over_and_a_log_without_any_is_an_error() {
    let log = "1 socket(AF_UNIX, SOCK_STREAM, 0) = 3<UNIX-STREAM:[70]>\n\
               1 write(3<UNIX-STREAM:[70->71]>, \"GET / HTTP/1.1\\r\\n\\r\\n\", 18) = 18\n\
               1 read(4<UNIX-STREAM:[80->81]>, \"HTTP/1.1 200 OK\\r\\nand so on\", 400) = 26\n\
               1 +++ exited with 0 +++\n";
    for log in [log, "", "no log at all ( = \n1 read(3<UNIX-STREAM:[7->8]>, \"\\x\n"] {
        let report = dump_text(log, &[]);
        assert_eq!((report.code(), report.text()), (Some(1), ""), "{log}");
        assert!(
            report.stderr.contains("there is no stream of messages in it"),
            "{}",
            report.stderr
        );
    }
}

#[test]
fn thousands_of_connections_need_no_more_memory_than_one() {
    let bytes = hex(&message(MODERN, Header::new(1), b"x", false));
    let mut log = String::new();
    for n in 0..5000 {
        let socket = format!("3<UNIX-STREAM:[{n}->9]>");
        log += &format!("1 socket(AF_UNIX, SOCK_STREAM, 0) = 3<UNIX-STREAM:[{n}]>\n");
        log += &format!("1 write({socket}, \"{bytes}\", 17) = 17\n1 close({socket}) = 0\n");
    }
    let (_place, mut command) = dump_of(&log);
    process::limit(&mut command, Resource::RLIMIT_AS, 32 << 20);
    let report = process::run(&mut command, b"");
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""));
    assert_eq!(report.text().lines().count(), 5000);
}

#[test]
fn a_line_without_an_end_is_an_error() {
    let (_place, mut command) = dump_of(&"x".repeat(5 << 20));
    let report = process::run(&mut command, b"");
    assert_eq!(report.code(), Some(1));
    assert!(report.stderr.ends_with(": line 1 has more than 4194304 bytes\n"), "{report:?}");
}

#[test]
fn any_cut_of_a_log_is_read_without_a_panic() {
    let bytes = message(MODERN, Header::new(1), b"x", true);
    let line = format!(
        "1 sendmsg(3<UNIX-STREAM:[7->8,\"\\x2f\"]>, {{msg_iov=[{{iov_base=\"{}\", iov_len=17}}], msg_control=[{{cmsg_type=SCM_RIGHTS, cmsg_data=[5</a<char 1:3>>]}}]}}, 0) = 17",
        hex(&bytes)
    );
    let cuts: String = (0..line.len()).map(|cut| format!("{}\n", &line[..cut])).collect();
    let report = dump_text(&cuts, &[]);
    assert!(!report.stderr.contains("panicked"), "{}", report.stderr);
    assert!(report.code().is_some());
}

// What the relay keeps.

#[test]
fn what_the_relay_keeps_is_read_in_both_directions_with_descriptors() {
    let Some(server) = Tmux::start("cat") else { return };
    let place = tempfile::tempdir().unwrap();
    let (listen, raw) = (place.path().join("relay"), place.path().join("raw"));
    let mut command = Command::new(imsg());
    command.args(["relay", "--connect-dialect", "tmux", "--quiet", "--listen"]).arg(&listen);
    command.arg("--connect").arg(&server.socket).arg("--raw").arg(&raw);
    let mut relay = Running::start(command.stdin(Stdio::null()).stderr(Stdio::null()));
    until("it listens", || listen.exists());
    let mut client = tmux::client(&listen);
    client.args(["display-message", "-p", "hello"]);
    assert_eq!(client.output().unwrap().stdout, b"hello\n");
    relay.process().signal(nix::sys::signal::Signal::SIGTERM);
    assert!(relay.until_it_ends().success());

    let report = dump(&raw, &[]);
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{}", report.text());
    let line = |part: &str| report.text().lines().find(|line| line.contains(part)).expect(part);
    assert!(line("type 104 ").contains(" 1 fd 3 in "));
    assert!(line("type 104 ").ends_with("  fd \"/dev/null\""), "{}", line("type 104 "));
    assert!(line("type 203 ").contains(" 1 fd 4 in "));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&raw).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

// Helpers.

fn message(dialect: Any, header: Header, payload: &[u8], marked: bool) -> Vec<u8> {
    let mut queue: SendBuf<_, _, ()> =
        SendBuf::with_descriptors(dialect, vec![0; HEADER_LEN + payload.len()]);
    queue.set_pid(1);
    queue.compose(header, payload, marked.then_some(())).unwrap();
    queue.chunk().unwrap().bytes.to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn dump_text(log: &str, arguments: &[&str]) -> Report {
    let (_place, mut command) = dump_of(log);
    process::run(command.args(arguments), b"")
}

fn dump(log: &Path, arguments: &[&str]) -> Report {
    process::run(command(log).args(arguments), b"")
}

/// What dumps a log with this in it.
fn dump_of(log: &str) -> (TempDir, Command) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("log");
    fs::write(&path, log).unwrap();
    let command = command(&path);
    (place, command)
}

fn command(log: &Path) -> Command {
    let mut command = Command::new(imsg());
    command.args(["dump", "--strace"]).arg(log);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn imsg() -> &'static Path {
    static IMSG: LazyLock<PathBuf> = LazyLock::new(|| examples::imsg(env!("CARGO_TARGET_TMPDIR")));
    &IMSG
}
