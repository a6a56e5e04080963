//! The programs of `tests/freestanding`: what the linker proves of imsg-wire, and a service in a
//! process with four system calls.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};

use command_fds::{CommandFdExt, FdMapping};
use imsg_os::{Channel, Header, Modern};
use imsg_tests::process::Process;
use object::{Object, ObjectSection, SectionFlags};
use zerocopy::FromBytes;

const ECHO: u32 = 1;
const ECHOED: u32 = 2;
const SUMMARY: u32 = 3;
const SUMMARISED: u32 = 4;

#[test]
fn no_panic_can_be_reached_from_any_of_imsg_wire() {
    let output = cargo_build("proof", &[]);
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
    use std::io::Write;
    let (mut socket, mut child) = spawn_sealed();
    socket.write_all(&[0xff; 64]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(65));
}

#[test]
fn a_sealed_process_says_that_the_stream_ended_inside_a_message() {
    use std::io::Write;
    let (mut socket, mut child) = spawn_sealed();
    socket.write_all(&[0; 3]).unwrap();
    drop(socket);
    assert_eq!(child.wait().unwrap().code(), Some(65));
}

#[test]
fn the_code_of_a_sealed_process_fits_16_kib() {
    let file = std::fs::read(sealed()).unwrap();
    let file = object::File::parse(&*file).unwrap();
    let size: u64 = file
        .sections()
        .filter(|section| is_loaded(section) && !is_writable(section))
        .map(|section| section.size())
        .sum();
    println!("code and read-only data: {size} bytes");
    assert!(size <= 16 * 1024, "{size} bytes");
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
