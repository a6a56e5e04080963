//! The programs of `tests/freestanding`: what the linker proves of imsg-wire, and a service in a
//! process with four system calls, and on a board with a serial line.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use imsg_os::{Channel, Header, Modern};
use imsg_tests::process::Process;
use imsg_wire::{self as wire, SendBuf};
use object::{Object, ObjectSection, SectionFlags};
use zerocopy::{FromBytes, LittleEndian};

const ECHO: u32 = 1;
const ECHOED: u32 = 2;
const SUMMARY: u32 = 3;
const SUMMARISED: u32 = 4;

// At one level; `tests/freestanding/prove` does it for all, and for bare metals.
#[test]
fn no_panic_can_be_reached_from_any_of_imsg_wire() {
    let output = cargo_build("proof", &["--features", "all"]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_program_with_one_reachable_panic_does_not_link() {
    let output = cargo_build("proof", &["--features", "reachable-panic"]);
    assert!(!output.status.success());
    let text = text(&output);
    let line = text.lines().find(|line| line.contains("undefined"));
    assert!(line.is_some_and(|line| line.contains("imsg_a_panic_is_reachable")), "{text}");
}

#[test]
fn a_sealed_process_echoes_100_000_messages() {
    let (mut channel, child) = start_sealed();
    let mut payload = Vec::new();
    let (mut sent, mut received) = (0_u32, 0_u32);
    while received < 100_000 {
        for _ in 0..32 {
            payload.clear();
            payload.resize((sent % 509) as usize, sent as u8);
            channel
                .tx
                .compose(Header { id: sent, ..Header::new(ECHO) }, &payload[..], None)
                .unwrap();
            sent += 1;
        }
        channel.tx.flush().unwrap();
        while received < sent {
            let reply = channel.rx.recv().unwrap().expect("a reply");
            assert_eq!((reply.header.msg_type, reply.header.id), (ECHOED, received));
            assert_eq!(reply.payload.len(), (received % 509) as usize);
            assert!(reply.payload.iter().all(|byte| *byte == received as u8));
            received += 1;
        }
    }
    assert_eq!(hang_up(channel, child).code(), Some(0));
}

#[test]
fn a_sealed_process_answers_typed_requests() {
    #[derive(FromBytes, Debug, PartialEq)]
    #[repr(C)]
    struct Summary {
        count: u64,
        sum: u64,
        min: u32,
        max: u32,
    }
    let (mut channel, child) = start_sealed();
    channel.tx.compose(Header::new(SUMMARY), &[7_u32, u32::MAX, 3], None).unwrap();
    channel.tx.compose(Header::new(SUMMARY), b"five.", None).unwrap();
    channel.tx.compose(Header::new(99), b"unknown", None).unwrap();
    channel.tx.flush().unwrap();
    let reply = channel.rx.recv().unwrap().expect("a reply");
    assert_eq!(reply.header.msg_type, SUMMARISED);
    let expected = Summary { count: 3, sum: 10 + u64::from(u32::MAX), min: 3, max: u32::MAX };
    assert_eq!(reply.reader().data::<Summary>(), Ok(expected));
    for request in ["of another size", "of an unknown type"] {
        let reply = channel.rx.recv().unwrap().expect("a reply");
        assert_eq!((reply.header.msg_type, reply.payload), (0, &b""[..]), "{request}");
    }
    assert_eq!(hang_up(channel, child).code(), Some(0));
}

#[test]
fn a_sealed_process_is_in_strict_mode_before_it_answers() {
    let (mut channel, child) = start_sealed();
    channel.tx.compose(Header::new(ECHO), b"", None).unwrap();
    channel.tx.flush().unwrap();
    channel.rx.recv().unwrap().expect("a reply");
    assert_eq!(Process::of(child.id()).status("Seccomp").as_deref(), Some("1"));
    hang_up(channel, child);
}

#[test]
fn a_sealed_process_says_that_it_was_fed_garbage() {
    let (mut socket, mut child) = spawn_sealed();
    socket.write_all(&[0xff; 64]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(65));
}

#[test]
fn a_sealed_process_says_that_the_stream_ended_inside_a_message() {
    let (mut socket, mut child) = spawn_sealed();
    socket.write_all(&[0; 3]).unwrap();
    drop(socket);
    assert_eq!(child.wait().unwrap().code(), Some(65));
}

#[test]
fn the_code_of_a_sealed_process_fits_9_kib() {
    let file = std::fs::read(sealed()).unwrap();
    let file = object::File::parse(&*file).unwrap();
    let size: u64 = file
        .sections()
        .filter(|section| is_loaded(section) && !is_writable(section))
        .map(|section| section.size())
        .sum();
    println!("code and read-only data: {size} bytes");
    assert!(size < 9 * 1024, "{size} bytes");
}

#[test]
fn a_sealed_process_has_no_writable_data() {
    let file = std::fs::read(sealed()).unwrap();
    let file = object::File::parse(&*file).unwrap();
    // The buffers are on the stack. The linker puts three words into a table of addresses, and
    // pads it.
    let own = file
        .sections()
        .filter(|section| is_loaded(section) && is_writable(section))
        .filter(|section| !matches!(section.name(), Ok(".got" | ".relro_padding")))
        .map(|section| (section.name().unwrap().to_owned(), section.size()));
    assert_eq!(own.collect::<Vec<_>>(), []);
}

const BOARDS: [Board; 2] = [
    Board { target: "thumbv6m-none-eabi", emulator: &["qemu-system-arm", "-M", "microbit"] },
    Board {
        target: "riscv32imc-unknown-none-elf",
        emulator: &["qemu-system-riscv32", "-M", "virt", "-bios", "none"],
    },
];

#[test]
fn a_board_answers_requests_over_a_serial_line() {
    let largest = [b'y'; 112];
    let numbers = [7_u32, u32::MAX, 3].map(u32::to_le_bytes);
    let mut requests = Line::default();
    requests.add(ECHO, 1, b"hello");
    requests.add(SUMMARY, 2, numbers.as_flattened());
    requests.add(SUMMARY, 3, b"five.");
    requests.add(99, 4, b"unknown");
    let mut summary = Vec::new();
    summary.extend(3_u64.to_le_bytes());
    summary.extend((10 + u64::from(u32::MAX)).to_le_bytes());
    summary.extend(3_u32.to_le_bytes());
    summary.extend(u32::MAX.to_le_bytes());
    let mut expected = Line::default();
    expected.add(ECHOED, 1, b"hello");
    expected.add(SUMMARISED, 2, &summary);
    expected.add(0, 3, b"");
    expected.add(0, 4, b"");
    for id in 5..50 {
        requests.add(ECHO, id, &largest[..id as usize]);
        requests.add(ECHO, id, &largest);
        expected.add(ECHOED, id, &largest[..id as usize]);
        expected.add(ECHOED, id, &largest);
    }
    for board in BOARDS {
        if let Some(mut node) = board.start() {
            assert!(node.answer(&requests, expected.0.len()) == expected.0, "{}", board.target);
        }
    }
}

#[test]
fn a_board_says_that_it_was_fed_garbage() {
    let mut requests = Line::default();
    requests.add(ECHO, 1, b"before");
    requests.0.extend([0xff; 16]);
    requests.add(ECHO, 2, b"behind");
    let mut expected = Line::default();
    expected.add(ECHOED, 1, b"before");
    expected.add(0, 0, b"");
    for board in BOARDS {
        if let Some(mut node) = board.start() {
            assert_eq!(node.answer(&requests, expected.0.len()), expected.0, "{}", board.target);
        }
    }
}

#[test]
fn a_node_on_a_board_has_the_size_that_the_readme_says() {
    let readme = include_str!("../../README.md");
    for board in BOARDS {
        let Some(node) = board.node() else { continue };
        let file = std::fs::read(node).unwrap();
        let file = object::File::parse(&*file).unwrap();
        let size = |name| file.section_by_name(name).expect("the linker script has it").size();
        let (code, memory, stack) = (size(".text"), size(".bss"), size(".stack"));
        println!("{}: {code} bytes of code, {memory} of memory, {stack} of stack", board.target);
        assert!(code < 8 * 1024 && memory <= 576 && stack == 1024, "{}", board.target);
    }
    assert!(readme.contains("less than 8 KiB of code, 576 bytes of memory and a stack of 1 KiB"));
}

/// A computer without an operating system, as QEMU has it.
struct Board {
    target: &'static str,
    emulator: &'static [&'static str],
}

impl Board {
    /// Builds the program, if there is a compiler for it.
    fn node(&self) -> Option<PathBuf> {
        let libraries = Command::new("rustc")
            .args(["--print", "target-libdir", "--target", self.target])
            .output()
            .unwrap();
        if !Path::new(String::from_utf8(libraries.stdout).unwrap().trim()).exists() {
            eprintln!("NOT RUN: {} is not installed", self.target);
            return None;
        }
        // As small as can be, which is what programs for boards are built for.
        let size = ["--config", "profile.release.opt-level=\"z\"", "--target", self.target];
        let output = cargo_build("node", &size);
        assert!(output.status.success(), "{}", text(&output));
        Some(target_dir().join(self.target).join("release/node"))
    }

    /// Switches the board on, if there is one.
    fn start(&self) -> Option<Node> {
        let node = self.node()?;
        let (emulator, arguments) = self.emulator.split_first().expect("a program");
        let child = Command::new(emulator)
            .args(arguments)
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-kernel"])
            .arg(node)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        match child {
            Ok(child) => Some(Node(child)),
            Err(error) => {
                eprintln!("NOT RUN: {emulator}: {error}");
                None
            }
        }
    }
}

/// A board that is switched on.
struct Node(Child);

impl Node {
    fn answer(&mut self, requests: &Line, len: usize) -> Vec<u8> {
        let mut line = self.0.stdin.take().expect("it was not taken");
        let mut answers = vec![0; len];
        std::thread::scope(|scope| {
            scope.spawn(|| line.write_all(&requests.0).unwrap());
            self.0.stdout.as_mut().unwrap().read_exact(&mut answers).unwrap();
        });
        self.0.stdin = Some(line);
        answers
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes on a serial line to a little-endian board.
#[derive(Default)]
struct Line(Vec<u8>);

impl Line {
    fn add(&mut self, msg_type: u32, id: u32, payload: &[u8]) {
        let mut queue = SendBuf::new(wire::Modern::<LittleEndian>::default(), [0; 128]);
        queue.compose(Header { id, ..Header::new(msg_type) }, payload, None).unwrap();
        self.0.extend(queue.chunk().unwrap().bytes);
    }
}

fn start_sealed() -> (Channel, Child) {
    let (socket, child) = spawn_sealed();
    (Channel::new(socket, Modern::new()).unwrap(), child)
}

fn hang_up(channel: Channel, mut child: Child) -> ExitStatus {
    drop(channel);
    child.wait().unwrap()
}

fn spawn_sealed() -> (UnixStream, Child) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(sealed());
    command.fd_mappings(vec![FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: 3 }]).unwrap();
    (ours, command.spawn().unwrap())
}

/// Builds the program, and says where it is.
fn sealed() -> PathBuf {
    let output = cargo_build("sealed", &[]);
    assert!(output.status.success(), "{}", text(&output));
    target_dir().join("release/sealed")
}

fn cargo_build(program: &str, options: &[&str]) -> Output {
    Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--bin", program])
        .args(options)
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("freestanding/Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir())
        // What instruments the tests has no place in a program without a library.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .unwrap()
}

fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("freestanding")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_loaded<'a>(section: &impl ObjectSection<'a>) -> bool {
    has_flag(section, object::elf::SHF_ALLOC)
}

fn is_writable<'a>(section: &impl ObjectSection<'a>) -> bool {
    has_flag(section, object::elf::SHF_WRITE)
}

fn has_flag<'a>(section: &impl ObjectSection<'a>, flag: object::elf::SectionFlags) -> bool {
    match section.flags() {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.contains(flag),
        _ => false,
    }
}
