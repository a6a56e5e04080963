//! `imsg dump`, run as a program: on what C implementations wrote, and on broken streams.

#![cfg(unix)]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;

use imsg_os::imsg_wire::SendBuf;
use imsg_os::{Any, Endian, HEADER_LEN, Header};
use imsg_tests::examples;
use imsg_tests::process::{self, PATIENCE, Report, Running, until};
use imsg_tests::vectors::{self, Recorded, Vector};
#[cfg(target_os = "linux")]
use nix::sys::resource::Resource;

#[test]
fn every_vector_is_decoded_in_its_dialect_and_byte_order() {
    for vector in vectors::all() {
        let dialect = dialect_name(vector.dialect);
        let (order, _) = order_of(vector.dialect);
        let report = run(["--dialect", dialect, "--byte-order", order, "--json"], vector.bytes);
        assert_eq!(report.stderr, "", "{}", vector.name);
        assert_eq!(report.code(), Some(0), "{}", vector.name);
        let due = objects(&vector, vector.messages.len(), |_| dialect);
        assert!(report.text() == due, "{}: {}", vector.name, report.text());
    }
}

#[test]
fn auto_says_of_each_message_what_its_header_tells() {
    for vector in vectors::all() {
        let (order, endian) = order_of(vector.dialect);
        let report = run(["--byte-order", order, "--json"], vector.bytes);
        assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{}", vector.name);
        let due = objects(&vector, vector.messages.len(), |message| {
            if endian == Endian::Little && !message.carries_descriptor {
                "either"
            } else {
                dialect_name(vector.dialect)
            }
        });
        assert!(report.text() == due, "{}: {}", vector.name, report.text());
    }
}

#[test]
fn native_is_the_byte_order_of_this_machine() {
    let vectors = vectors::all();
    let native = vectors.iter().filter(|vector| order_of(vector.dialect).1 == Endian::NATIVE);
    for vector in native {
        let (order, _) = order_of(vector.dialect);
        let named = run(["--byte-order", order], vector.bytes);
        for arguments in [&[][..], &["--byte-order", "native", "--dialect", "auto"]] {
            let report = run(arguments, vector.bytes);
            assert_eq!(report.code(), Some(0), "{}", vector.name);
            assert!(report.text() == named.text(), "{}", vector.name);
        }
    }
}

#[test]
fn an_object_is_exactly_as_documented() {
    let header = Header { msg_type: 104, id: 8, pid: 77 };
    let stream = stream(Any::Classic(Endian::Little), &[(header, b"", false)]);
    let report = run(["--dialect", "classic", "--byte-order", "little", "--json"], &stream);
    assert_eq!(
        report.text(),
        "{\"offset\":0,\"dialect\":\"classic\",\"type\":104,\"id\":8,\"pid\":77,\"len\":16,\
         \"fd\":false,\"payload\":\"\"}\n"
    );
}

#[test]
fn objects_are_json_to_another_reader() {
    for vector in vectors::all() {
        let (order, _) = order_of(vector.dialect);
        let report = run(["--byte-order", order, "--json"], vector.bytes);
        let objects: Vec<serde_json::Value> =
            report.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), vector.messages.len(), "{}", vector.name);
        for (object, message) in objects.iter().zip(&vector.messages) {
            assert_eq!(object["type"], message.header.msg_type, "{}", vector.name);
            assert_eq!(object["len"], HEADER_LEN + message.payload.len(), "{}", vector.name);
            assert_eq!(object["fd"], message.carries_descriptor, "{}", vector.name);
        }
    }
}

#[test]
fn a_line_names_the_type_and_hex_shows_the_payload_under_it() {
    let messages: [(Header, &[u8], bool); 3] = [
        (Header { msg_type: 104, id: 8, pid: u32::MAX }, b"", true),
        (Header { msg_type: 99, id: 8, pid: 1 }, b"seventeen bytes \x7f", false),
        (Header { msg_type: 200, id: 8, pid: 1 }, b"\x01\0\0\0ls\0\xff", false),
    ];
    let stream = stream(Any::Modern(Endian::Little), &messages);
    let names = concat!(env!("CARGO_MANIFEST_DIR"), "/../imsg-os/tools/tmux.names");
    let arguments = ["--byte-order", "little", "--names", names];

    let report = run(arguments, &stream);
    assert_eq!(
        report.text(),
        "         0  modern   type 104 MSG_IDENTIFY_STDIN  id 8  pid 4294967295  payload 0  fd\n\
         \x20       16  either   type 99  id 8  pid 1  payload 17\n\
         \x20       49  either   type 200 MSG_COMMAND  id 8  pid 1  payload 8\n"
    );
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""));

    let lines = report.text();
    let lines: Vec<_> = lines.lines().collect();
    let rows = [
        "            0000  73 65 76 65 6e 74 65 65 6e 20 62 79 74 65 73 20  |seventeen bytes |",
        "            0010  7f                                               |.|",
        "            0000  01 00 00 00 6c 73 00 ff                          |....ls..|",
    ];
    let report = run(arguments.into_iter().chain(["--hex"]), &stream);
    let due = [lines[0], lines[1], rows[0], rows[1], lines[2], rows[2]];
    assert!(report.text().lines().eq(due), "{}", report.text());

    let named = run(arguments.into_iter().chain(["--json"]), &stream);
    assert_eq!(named.text(), run(["--byte-order", "little", "--json"], &stream).text());
}

#[test]
fn a_names_file_that_is_none_is_refused_with_the_line() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("names");
    for (text, reason) in [
        (&b"# a comment\n\n7 MSG_SEVEN # and another\nMSG_EIGHT 8\n"[..], "line 4 is not a number"),
        (b"7\n", "line 1 is not a number and a name"),
        (b"4294967296 MSG_TOO_LARGE\n", "line 1 is not a number and a name"),
        (b"7 MSG SEVEN\n", "line 1 is not a number and a name"),
        (b"7 MSG\x1b[31m\n", "line 1 is not a number and a name"),
        (b"7 MSG_SEVEN\n7 MSG_OTHER\n", "line 2 names 7 once more"),
        (b"7 \xff\n", "UTF-8"),
    ] {
        fs::write(&path, text).unwrap();
        let report = run(["--names", path.to_str().unwrap()], b"");
        assert_eq!((report.code(), report.text()), (Some(1), ""), "{}", report.stderr);
        let due = format!("imsg dump: {}: ", path.display());
        assert!(report.stderr.starts_with(&due), "{}", report.stderr);
        assert!(report.stderr.contains(reason), "{}", report.stderr);
    }
    let report = run(["--names", "/nowhere"], b"");
    assert_eq!(report.code(), Some(1));
    assert!(report.stderr.starts_with("imsg dump: /nowhere: No such file"), "{}", report.stderr);
}

#[test]
fn a_stream_that_is_cut_anywhere_is_decoded_up_to_there() {
    for vector in vectors::all() {
        let dialect = dialect_name(vector.dialect);
        let (order, _) = order_of(vector.dialect);
        // The first messages, and one that is cut in the middle of a payload of 16 KiB.
        for cut in (0..40).chain([vector.bytes.len() / 2]) {
            let (mut start, mut whole) = (0, 0);
            let mut need = HEADER_LEN;
            for message in &vector.messages {
                let len = HEADER_LEN + message.payload.len();
                if start + len > cut {
                    need = if cut - start < HEADER_LEN { HEADER_LEN } else { len };
                    break;
                }
                start += len;
                whole += 1;
            }
            for given in [&["--dialect", dialect][..], &[]] {
                let arguments = given.iter().copied().chain(["--byte-order", order, "--json"]);
                let report = run(arguments, &vector.bytes[..cut]);
                let case = format!("{}, {given:?}, cut at {cut}", vector.name);
                assert_eq!(report.text().lines().count(), whole, "{case}");
                let (code, complaint) = if start == cut {
                    (0, String::new())
                } else {
                    let have = cut - start;
                    let complaint = format!(
                        "imsg dump: standard input: the stream ends inside the message at offset \
                         {start}, after {have} of {need} bytes\n"
                    );
                    (1, complaint)
                };
                assert_eq!((report.code(), report.stderr), (Some(code), complaint), "{case}");
            }
        }
    }
}

#[test]
fn a_length_out_of_range_is_named_with_its_offset_after_what_came_before() {
    for order in [Endian::Little, Endian::Big] {
        let (order_name, _) = order_of(Any::Classic(order));
        for (given, dialect) in [
            ("classic", Any::Classic(order)),
            ("modern", Any::Modern(order)),
            ("auto", Any::Classic(order)),
        ] {
            let good = stream(dialect, &[(Header::new(1), b"good", false)]);
            for len in [0, 15, 16385, 65535] {
                let bad = header_with_length(dialect, len);
                let arguments = ["--dialect", given, "--byte-order", order_name];
                let report = run(arguments, &[good.clone(), bad].concat());
                let case = format!("{given}, {order_name}, length {len}: {}", report.stderr);
                assert_eq!(report.code(), Some(1), "{case}");
                assert_eq!(report.text().lines().count(), 1, "{case}");
                assert_eq!(report.stderr.lines().count(), 1, "{case}");
                assert!(report.stderr.contains("at offset 20, "), "{case}");
                let reason =
                    format!("a length of {len} bytes is out of range; 16 to 16384 are allowed");
                assert!(report.stderr.contains(&reason), "{case}");
            }
        }
    }
}

#[test]
fn the_maximum_can_be_lowered_and_raised() {
    let message = |len: usize, dialect| {
        stream(dialect, &[(Header::new(1), &vec![7; len - HEADER_LEN], false)])
    };
    for (arguments, dialect, len, code) in [
        (&["--max-len", "100"][..], Any::Modern(Endian::Little), 100, 0),
        (&["--max-len", "100"], Any::Modern(Endian::Little), 101, 1),
        (&["--max-len", "65535"], Any::Classic(Endian::Little), 65535, 0),
        (&["--max-len", "16"], Any::Classic(Endian::Little), 16, 0),
        (&["--dialect", "modern", "--max-len", "131072"], Any::Modern(Endian::Little), 131072, 0),
        (&["--dialect", "modern", "--max-len", "131072"], Any::Modern(Endian::Little), 131073, 1),
        (
            &["--dialect", "modern", "--max-len", "2147483647"],
            Any::Modern(Endian::Little),
            1 << 20,
            0,
        ),
        (&["--dialect", "classic", "--max-len", "65536"], Any::Classic(Endian::Little), 65535, 0),
    ] {
        let stream = message(len, dialect);
        let arguments = arguments.iter().copied().chain(["--byte-order", "little", "--json"]);
        let report = run(arguments.clone(), &stream.repeat(3));
        let arguments: Vec<_> = arguments.collect();
        assert_eq!(report.code(), Some(code), "{arguments:?}: {}", report.stderr);
        let messages = if code == 0 { 3 } else { 0 };
        assert_eq!(report.text().lines().count(), messages, "{arguments:?}");
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for arguments in [
        &["--max-len", "65536"][..],
        &["--max-len", "15"],
        &["--max-len", "2147483648", "--dialect", "modern"],
        &["--dialect", "middle"],
        &["--json", "--hex"],
        &["one", "two"],
    ] {
        let report = run(arguments, b"");
        assert_eq!((report.code(), report.text()), (Some(2), ""), "{arguments:?}");
    }
    let report = run(["--max-len", "65536"], b"");
    assert!(report.stderr.contains("needs an explicit --dialect"), "{}", report.stderr);
}

#[test]
fn auto_refuses_a_stream_whose_headers_contradict_each_other() {
    let mark = Header::new(104);
    for order in [Endian::Little, Endian::Big] {
        let (order_name, _) = order_of(Any::Classic(order));
        let classic = stream(Any::Classic(order), &[(mark, b"one", true)]);
        let modern = stream(Any::Modern(order), &[(mark, b"two", true)]);
        for (parts, offset, told, at, other) in [
            ([&classic, &classic, &modern], 38, "modern", 0, "classic"),
            ([&classic, &modern, &classic], 19, "modern", 0, "classic"),
            ([&modern, &classic, &modern], 19, "classic", 0, "modern"),
        ] {
            let stream = parts.map(Vec::as_slice).concat();
            let report = run(["--byte-order", order_name], &stream);
            let complaint = format!(
                "imsg dump: standard input: at offset {offset}, a {told} header in a stream that is \
                 {other} by the header at offset {at}\n"
            );
            assert_eq!((report.code(), report.stderr.as_str()), (Some(1), complaint.as_str()));
            assert_eq!(report.text().lines().count(), offset / 19);
        }
    }
}

#[test]
fn unmarked_little_endian_messages_contradict_nothing() {
    let plain = (Header::new(1), &b"plain"[..], false);
    let marked = (Header::new(2), &b"marked"[..], true);
    for (dialect, name) in
        [(Any::Classic(Endian::Little), "classic"), (Any::Modern(Endian::Little), "modern")]
    {
        let stream = stream(dialect, &[plain, marked, plain, marked, plain]);
        let report = run(["--byte-order", "little"], &stream);
        assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""));
        let told: Vec<_> =
            report.text().lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
        assert_eq!(told, ["either", name, "either", name, "either"]);
    }
}

#[test]
fn a_classic_header_with_unknown_flags_is_neither_to_auto_and_classic_if_told_so() {
    let mut stream = stream(Any::Classic(Endian::Little), &[(Header::new(1), b"", true)]);
    stream[6] = 3;
    let report = run(["--byte-order", "little"], &stream);
    assert_eq!((report.code(), report.text()), (Some(1), ""));
    let due = "at offset 0, a header of neither dialect: as a classic one, it has unknown flags; \
               as a modern one, a length of 196624 bytes is out of range";
    assert!(report.stderr.contains(due), "{}", report.stderr);

    let report = run(["--byte-order", "little", "--dialect", "classic"], &stream);
    assert_eq!((report.code(), report.text().lines().count()), (Some(0), 1), "{}", report.stderr);
}

#[test]
fn a_stream_is_read_from_a_file_or_from_standard_input() {
    let vector = &vectors::all()[0];
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("capture");
    fs::write(&path, vector.bytes).unwrap();
    let path = path.to_str().unwrap();

    let due = run(["--byte-order", "little"], vector.bytes);
    assert_eq!((due.code(), due.stderr.as_str()), (Some(0), ""));
    for arguments in [["--byte-order", "little", path], ["--byte-order", "little", "-"]] {
        let report = run(arguments, vector.bytes);
        assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""));
        assert!(report.text() == due.text());
    }

    for (path, reason) in [
        ("/nowhere", "No such file or directory"),
        (place.path().to_str().unwrap(), "Is a directory"),
    ] {
        let report = run([path], b"");
        let due = format!("imsg dump: {path}: {reason}");
        assert_eq!((report.code(), report.text()), (Some(1), ""));
        assert!(report.stderr.starts_with(&due), "{}", report.stderr);
    }
}

#[test]
fn nothing_at_all_is_a_stream_without_messages() {
    let report = run([""; 0], b"");
    assert_eq!((report.code(), report.text(), report.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn a_message_is_printed_before_the_next_one_is_there() {
    let mut program = Running::start(&mut command([""; 0]));
    let mut stdin = program.child.stdin.take().unwrap();
    let stdout = program.child.stdout.take().unwrap();
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            sender.send(line.unwrap()).unwrap();
        }
    });
    for msg_type in 1..4 {
        let bytes = stream(Any::Modern(Endian::NATIVE), &[(Header::new(msg_type), b"", true)]);
        stdin.write_all(&bytes).unwrap();
        let line = lines.recv_timeout(PATIENCE).unwrap();
        assert!(line.contains(&format!("type {msg_type} ")), "{line}");
    }
    drop(stdin);
    assert!(program.until_it_ends().success());
}

#[test]
fn nobody_at_the_output_ends_it_quietly() {
    // Of a stream that is fine, of one that is broken, and while more comes in.
    let vector = &vectors::all()[0];
    let broken = &vector.bytes[..vector.bytes.len() - 1];
    for (arguments, input) in [
        (&["--byte-order", "little"][..], vector.bytes),
        (&["--byte-order", "little"], broken),
        (&["--byte-order", "little", "--json"], &vector.bytes.repeat(10)),
    ] {
        let (read, write) = io::pipe().unwrap();
        drop(read);
        let report = process::run(command(arguments).stdout(write), input);
        assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_output_that_takes_nothing_is_an_error() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let vector = &vectors::all()[0];
    let report = process::run(command(["--byte-order", "little"]).stdout(full()), vector.bytes);
    assert_eq!(report.code(), Some(1));
    assert_eq!(report.stderr, "imsg dump: cannot print: No space left on device (os error 28)\n");
}

#[test]
#[cfg(target_os = "linux")]
fn an_output_that_somebody_made_non_blocking_gets_every_line() {
    let messages = vec![(Header::new(1), &b""[..], false); 5000];
    let stream = stream(Any::Modern(Endian::NATIVE), &messages);
    let (mut read, write) = io::pipe().unwrap();
    process::make_nonblocking(&write);
    let mut command = command([""; 0]);
    let mut program = Running::start(command.stdout(write));
    drop(command);
    program.child.stdin.take().unwrap().write_all(&stream).unwrap();
    // It has filled the pipe, and nobody reads.
    until("it waits", || program.process().state() == "S");
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert!(program.until_it_ends().success());
    assert_eq!(text.lines().count(), messages.len());
}

#[test]
#[cfg(target_os = "linux")]
fn an_input_that_somebody_made_non_blocking_is_read_to_its_end() {
    let stream = stream(Any::Modern(Endian::NATIVE), &[(Header::new(1), &b""[..], false); 3]);
    let (read, mut write) = io::pipe().unwrap();
    process::make_nonblocking(&read);
    let program = Running::start(command([""; 0]).stdin(read));
    for part in stream.chunks(10) {
        until("it waits", || program.process().state() == "S");
        write.write_all(part).unwrap();
    }
    drop(write);
    let report = program.finish();
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""));
    assert_eq!(report.text().lines().count(), 3);
}

#[test]
fn what_others_named_is_shown_and_not_obeyed() {
    let place = tempfile::tempdir().unwrap();
    let names = place.path().join("\u{1b}]0;names\u{7}");
    fs::write(&names, "7 MSG_\u{202e}SEVEN\n").unwrap();
    let stream = stream(Any::Modern(Endian::NATIVE), &[(Header::new(7), b"", false)]);
    let report = run([OsStr::new("--names"), names.as_os_str()], &stream);
    assert!(report.text().contains("type 7 MSG_\\u{202e}SEVEN  id 0"), "{}", report.text());

    let due = "\\u{1b}]0;names\\u{7}";
    for arguments in [
        [names.as_os_str(), OsStr::new("--hex")],
        ["--names".as_ref(), "\u{1b}]0;names\u{7}".as_ref()],
    ] {
        let report = run(arguments, b"");
        assert_eq!(report.code(), Some(1));
        assert!(report.stderr.contains(due) && !report.stderr.contains('\u{1b}'), "{report:?}");
    }
    let report = run(["--\u{202e}"], b"");
    assert_eq!(report.code(), Some(2));
    assert!(report.stderr.contains("'--\\u{202e}'"), "{}", report.stderr);
}

#[test]
#[cfg(target_os = "linux")]
fn a_limit_for_files_is_an_error_with_the_reason() {
    let vector = &vectors::all()[0];
    let mut command = command(["--byte-order", "little"]);
    process::limit(&mut command, Resource::RLIMIT_FSIZE, 1000);
    let report = process::run(command.stdout(tempfile::tempfile().unwrap()), vector.bytes);
    assert_eq!(report.code(), Some(1));
    assert_eq!(report.stderr, "imsg dump: cannot print: File too large (os error 27)\n");
}

#[test]
#[cfg(target_os = "linux")]
fn a_message_that_finds_no_memory_is_an_error_with_its_length() {
    const LEN: usize = 1 << 30;
    let mut command = command(["--dialect", "modern", "--max-len", "2147483647", "--json"]);
    process::limit(&mut command, Resource::RLIMIT_AS, 400 << 20);
    let mut program = Running::start(&mut command);
    let mut stdin = program.child.stdin.take().unwrap();
    let before = stream(Any::Modern(Endian::NATIVE), &[(Header::new(1), b"", false)]);
    let header = header_with_length(Any::Modern(Endian::NATIVE), LEN);
    let writer = thread::spawn(move || {
        stdin.write_all(&[before, header].concat())?;
        let zeros = vec![0; 1 << 20];
        (0..LEN / zeros.len()).try_for_each(|_| stdin.write_all(&zeros))
    });
    let report = program.finish();
    let error = writer.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(report.code(), Some(1));
    let due = "imsg dump: standard input: at offset 16, no memory is left for a message of \
               1073741824 bytes\n";
    assert_eq!(report.stderr, due);
    assert_eq!(report.text().lines().count(), 1);
}

#[test]
#[cfg(target_os = "linux")]
fn a_gigabyte_through_a_pipe_needs_no_more_memory_than_a_kilobyte() {
    const ROUNDS: u64 = 1000;
    let large = vec![b'x'; 16384 - HEADER_LEN];
    let mut messages = vec![(Header::new(1), large.as_slice(), false); 63];
    messages.push((Header::new(2), &large, true));
    messages.extend([(Header::new(3), &b"small"[..], false); 8]);
    let round = stream(Any::Classic(Endian::Little), &messages);
    assert!(round.len() as u64 * ROUNDS > 1_000_000_000);

    let mut command = command(["--byte-order", "little"]);
    process::limit(&mut command, Resource::RLIMIT_AS, 32 << 20);
    let mut program = Running::start(&mut command);
    let mut stdin = program.child.stdin.take().unwrap();
    let writer = {
        let round = round.clone();
        thread::spawn(move || (0..ROUNDS).try_for_each(|_| stdin.write_all(&round)))
    };
    let (mut lines, mut last) = (0, String::new());
    for line in BufReader::new(program.child.stdout.take().unwrap()).lines() {
        lines += 1;
        last = line.unwrap();
    }
    writer.join().unwrap().unwrap();
    assert!(program.until_it_ends().success());
    assert_eq!(lines, ROUNDS * messages.len() as u64);
    let offset = round.len() as u64 * ROUNDS - (HEADER_LEN + 5) as u64;
    assert_eq!(last, format!("{offset:>10}  either   type 3  id 0  pid 0  payload 5"));
}

#[test]
fn help_explains() {
    let report = run(["--help"], b"");
    assert_eq!(report.code(), Some(0));
    assert!(report.text().contains("contradict each other"), "{}", report.text());
}

/// What `--json` is to print of the first messages of a vector.
fn objects<'a>(vector: &Vector, count: usize, dialect: impl Fn(&Recorded) -> &'a str) -> String {
    let (mut text, mut offset) = (String::new(), 0);
    for message in &vector.messages[..count] {
        let Header { msg_type, id, pid } = message.header;
        let len = HEADER_LEN + message.payload.len();
        let (dialect, marked) = (dialect(message), message.carries_descriptor);
        write!(
            text,
            "{{\"offset\":{offset},\"dialect\":\"{dialect}\",\"type\":{msg_type},\"id\":{id},\
             \"pid\":{pid},\"len\":{len},\"fd\":{marked},\"payload\":\""
        )
        .unwrap();
        for byte in &message.payload {
            write!(text, "{byte:02x}").unwrap();
        }
        text += "\"}\n";
        offset += len;
    }
    text
}

/// The bytes of messages; those with `true` are marked.
fn stream(dialect: Any, messages: &[(Header, &[u8], bool)]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (header, payload, marked) in messages {
        let len = HEADER_LEN + payload.len();
        let mut queue: SendBuf<_, _, ()> = SendBuf::with_descriptors(dialect, vec![0; len]);
        queue.set_max_len(len.min(imsg_os::Dialect::max_len(&dialect))).unwrap();
        queue.compose(*header, *payload, marked.then_some(())).unwrap();
        stream.extend(queue.chunk().unwrap().bytes);
    }
    stream
}

fn header_with_length(dialect: Any, len: usize) -> Vec<u8> {
    use imsg_os::Dialect;
    use imsg_os::imsg_wire::Frame;
    dialect.encode(&Frame { header: Header::new(1), len, marked: false }).to_vec()
}

fn dialect_name(dialect: Any) -> &'static str {
    match dialect {
        Any::Classic(_) => "classic",
        Any::Modern(_) => "modern",
    }
}

fn order_of(dialect: Any) -> (&'static str, Endian) {
    match dialect {
        Any::Classic(order) | Any::Modern(order) => match order {
            Endian::Little => ("little", order),
            Endian::Big => ("big", order),
        },
    }
}

fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>, input: &[u8]) -> Report {
    process::run(&mut command(arguments), input)
}

fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| examples::imsg(env!("CARGO_TARGET_TMPDIR")));
    let mut command = Command::new(&*PROGRAM);
    command.arg("dump").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
