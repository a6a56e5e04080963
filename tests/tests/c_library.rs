//! The C library: what is installed, and C programs that use it, each as C with the shared object
//! and as C++ with the static library.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use imsg_os::{Channel, Classic, Descriptor, Dialect, Header, Modern};
use imsg_tests::c_library::{How, Installed, Interface, c_program, sources, succeeds};
use imsg_tests::process::{Running, say};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

fn installed() -> Option<Installed> {
    Installed::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Runs a program of `tests/c` with each interface.
fn passes(program: &str) {
    if let Some(library) = installed() {
        for interface in Interface::ALL {
            library.passes(program, interface);
        }
    }
}

#[test]
fn the_structures_lie_as_in_the_headers_of_the_originals() {
    passes("layout");
}

#[test]
fn the_headers_need_no_other_and_take_no_names() {
    passes("header_alone");
}

#[test]
fn buffers_are_built_as_the_manual_says() {
    passes("ibuf_build");
}

#[test]
fn buffers_are_read_as_the_manual_says() {
    passes("ibuf_read");
}

#[test]
fn buffers_own_their_descriptors() {
    passes("ibuf_fd");
}

#[test]
fn any_calls_on_buffers_do_what_a_model_does() {
    passes("ibuf_model");
}

#[test]
fn queues_are_written_in_order_and_lose_nothing() {
    passes("msgbuf_write");
}

#[test]
fn queues_read_messages_of_any_format() {
    if let Some(library) = installed() {
        library.passes("msgbuf_read", Interface::Modern);
    }
}

#[test]
fn messages_are_composed_as_the_manual_says() {
    passes("imsg_compose");
}

#[test]
fn messages_are_received_as_the_manual_says() {
    passes("imsg_receive");
}

#[test]
fn sockets_that_are_full_interrupted_or_changed_lose_nothing() {
    passes("imsg_socket");
}

#[test]
fn each_fault_of_a_peer_has_its_outcome() {
    passes("faults");
}

#[test]
fn what_the_originals_do_not_have_does_what_the_manual_says() {
    passes("beyond");
}

#[test]
fn memory_that_is_short_loses_nothing_and_secrets_are_overwritten() {
    passes("memory");
}

#[test]
fn a_program_has_its_threads_signals_and_output_for_itself() {
    passes("quiet");
}

#[test]
fn the_streams_of_the_originals_are_written_and_read() {
    passes("vectors");
}

#[test]
fn any_calls_on_two_channels_bring_each_message_with_its_descriptor() {
    passes("imsg_model");
}

#[test]
fn two_c_programs_talk_through_small_sockets_and_deaths() {
    passes("pair");
}

#[test]
fn a_c_program_and_a_rust_program_talk() {
    let Some(library) = installed() else { return };
    for how in How::ALL {
        let classic = library.compile(&c_program("echo"), Interface::Classic, how);
        talk(Classic::new(), &mut library.command(&classic));
        let modern = library.compile(&c_program("echo"), Interface::Modern, how);
        talk(Modern::new(), &mut library.command(&modern));
        talk(Classic::new(), library.command(&modern).env("IMSG_DIALECT", "classic"));
    }
}

/// Has `echo` answer messages of many lengths, every third with a descriptor.
fn talk<D: Dialect + Clone>(dialect: D, echo: &mut Command) {
    const MESSAGES: u32 = 600;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut echo = Running::start(echo.stdin(OwnedFd::from(theirs)));
    let mut channel = Channel::new(ours, dialect).unwrap();
    channel.rx.allow_descriptors();
    let payload = |n: u32| vec![n as u8; (n as usize * 131) % (imsg_os::DEFAULT_MAX_LEN - 15)];
    let mut received = 0;
    for n in 0..MESSAGES {
        let descriptor = n.is_multiple_of(3).then(|| numbered(n));
        channel
            .tx
            .compose(Header { id: n, ..Header::new(7) }, &payload(n)[..], descriptor)
            .unwrap();
        channel.tx.flush().unwrap();
        // So that some are under way in each direction.
        if n >= 4 {
            check(&mut channel, received, &payload(received), echo.child.id());
            received += 1;
        }
    }
    while received < MESSAGES {
        check(&mut channel, received, &payload(received), echo.child.id());
        received += 1;
    }
    drop(channel);
    assert!(echo.until_it_ends().success());
}

fn check<D: Dialect>(channel: &mut Channel<D>, n: u32, payload: &[u8], pid: u32) {
    let answer = channel.rx.recv().unwrap().expect("an answer");
    assert_eq!((answer.header.msg_type, answer.header.id, answer.header.pid), (8, n, pid));
    assert!(answer.payload == payload);
    let number = match answer.descriptor {
        Descriptor::Here(file) => Some(File::from(file).metadata().unwrap().len()),
        Descriptor::None => None,
        Descriptor::Missing(why) => panic!("no descriptor: {why:?}"),
    };
    assert_eq!(number, n.is_multiple_of(3).then_some(u64::from(n)));
}

/// A file that is known by its size.
fn numbered(n: u32) -> OwnedFd {
    let file = tempfile::tempfile().unwrap();
    file.set_len(u64::from(n)).unwrap();
    file.into()
}

#[test]
fn the_programs_of_the_manual_pages_run() {
    let Some(library) = installed() else { return };
    let pages = [
        ("imsg_init", Interface::Classic),
        ("imsgbuf_init", Interface::Modern),
        ("ibuf_add", Interface::Classic),
        ("ibuf_add", Interface::Modern),
    ];
    let readme = sources().join("Makefile");
    let size = fs::metadata(&readme).unwrap().len();
    for (page, interface) in pages {
        let source = library.root().join(page).with_extension("c");
        fs::write(&source, example(page)).unwrap();
        for how in How::ALL {
            let program = library.compile(&source, interface, how);
            let mut command = library.command(&program);
            if page == "ibuf_add" {
                let report = succeeds(command.args(["one", "", "three"]));
                assert_eq!(report.text(), "one\n\nthree\n");
            } else {
                let report = succeeds(command.arg(&readme));
                assert_eq!(report.text(), format!("{size} bytes\n"));
            }
        }
    }
}

/// The program in the examples of a manual page.
fn example(page: &str) -> Vec<u8> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/manual");
    succeeds(Command::new(script).arg(manual(page))).stdout
}

fn manual(page: &str) -> PathBuf {
    sources().join("man").join(page).with_extension("3")
}

#[test]
fn a_program_links_with_the_static_library_alone() {
    let Some(library) = installed() else { return };
    fs::remove_file(library.file(Installed::LIBDIR).join("libimsg.so")).unwrap();
    for interface in Interface::ALL {
        let program = library.root().join("alone");
        let mut command = Command::new("cc");
        command.arg(c_program("header_alone")).arg("-o").arg(&program);
        command.args(library.pkg_config(interface, &["--static", "--cflags", "--libs"]));
        succeeds(&mut command);
        succeeds(&mut Command::new(&program));
    }
}

#[test]
fn pkg_config_knows_both_interfaces() {
    let Some(library) = installed() else { return };
    let version = |interface| library.pkg_config(interface, &["--modversion"]).concat();
    // That of imsg-compat, whose interface this is.
    assert_eq!(version(Interface::Classic), "8.0.0");
    assert_eq!(version(Interface::Modern), env!("CARGO_PKG_VERSION"));
}

#[test]
fn what_is_installed_is_removed_again() {
    let Some(library) = installed() else { return };
    let files = files_in(library.root());
    for file in [
        "usr/include/imsg.h",
        "usr/include/libimsg-modern/imsg.h",
        "usr/lib/here/libimsg.a",
        "usr/lib/here/libimsg.so",
        "usr/lib/here/pkgconfig/libimsg.pc",
        "usr/lib/here/pkgconfig/libimsg-modern.pc",
        "usr/share/man/man3/imsg_init.3",
        "usr/share/man/man3/imsgbuf_init.3",
        "usr/share/man/man3/ibuf_add.3",
    ] {
        assert!(files.contains(Path::new(file)), "{file}");
    }
    library.make("uninstall");
    assert_eq!(files_in(library.root()), BTreeSet::new());
}

/// The files in a directory, links included.
fn files_in(root: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                files.insert(entry.path().strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    files
}

#[test]
fn each_function_is_exported_and_nothing_else() {
    let Some(library) = installed() else { return };
    let bytes = fs::read(library.file(Installed::LIBDIR).join("libimsg.so")).unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    let exported: BTreeSet<String> = object
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text)
        .map(|symbol| symbol.name().unwrap().to_owned())
        .collect();
    let mut declared = functions(&header(Interface::Classic));
    for (name, symbol) in with_symbols(&header(Interface::Modern)) {
        declared.insert(if symbol { format!("{name}_modern") } else { name });
    }
    assert_eq!(exported, declared);
}

#[test]
fn each_function_has_a_manual_page() {
    let Some(library) = installed() else { return };
    let pages = library.file("/usr/share/man/man3");
    for interface in Interface::ALL {
        for function in functions(&header(interface)) {
            let mut text = String::new();
            let page = pages.join(&function).with_extension("3");
            File::open(&page)
                .unwrap_or_else(|error| panic!("{}: {error}", page.display()))
                .read_to_string(&mut text)
                .unwrap();
            assert!(text.contains(&format!(".Nm {function}")), "{function}: its page");
        }
    }
}

#[test]
fn the_manual_pages_have_no_mistakes() {
    for page in ["imsg_init", "imsgbuf_init", "ibuf_add"] {
        let Ok(output) = Command::new("mandoc").arg("-Tlint").arg(manual(page)).output() else {
            return say("NOT RUN: mandoc is not installed");
        };
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        // Which other pages there are is this machine's business.
        let about_the_page = |line: &&str| {
            !line.contains("referenced manual not found") && !line.contains("mandoc.db")
        };
        assert_eq!(said.lines().find(about_the_page), None);
    }
}

#[test]
fn the_shared_object_is_small_and_needs_the_c_library_only() {
    let Some(library) = installed() else { return };
    let bytes = fs::read(library.file(Installed::LIBDIR).join("libimsg.so")).unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    let text: u64 = object
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .map(|section| section.size())
        .sum();
    assert!(text < 256 << 10, "{text} bytes of code");

    let dynamic = succeeds(
        Command::new("readelf").arg("-d").arg(library.file(Installed::LIBDIR).join("libimsg.so")),
    );
    let tags = |tag: &str| -> Vec<String> {
        let lines = dynamic.text().lines().filter(|line| line.contains(tag));
        let name = |line: &str| line.split(['[', ']']).nth(1).unwrap().to_owned();
        lines.map(name).collect()
    };
    assert_eq!(tags("SONAME"), ["libimsg.so"]);
    for needed in tags("NEEDED") {
        let of_c = ["libc.", "libm.", "libgcc_s.", "ld-linux", "ld-musl"];
        assert!(of_c.iter().any(|library| needed.starts_with(library)), "{needed}");
    }
}

fn header(interface: Interface) -> String {
    let name = match interface {
        Interface::Classic => "include/imsg.h",
        Interface::Modern => "include/libimsg-modern/imsg.h",
    };
    fs::read_to_string(sources().join(name)).unwrap()
}

fn functions(header: &str) -> BTreeSet<String> {
    with_symbols(header).into_iter().map(|(name, _)| name).collect()
}

/// The functions that a header declares, and whether each has a symbol of its own.
fn with_symbols(header: &str) -> Vec<(String, bool)> {
    let text = without_comments(header);
    let named = text.split(';').filter_map(|declaration| {
        let (before, _) = declaration.split_once('(')?;
        let name = before.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next_back()?;
        let ours = ["ibuf_", "ibufq_", "msgbuf_", "imsg_", "imsgbuf_"];
        ours.iter()
            .any(|prefix| name.starts_with(prefix))
            .then(|| (name.to_owned(), declaration.contains("IMSG_SYM(")))
    });
    named.collect()
}

fn without_comments(text: &str) -> String {
    let rest = |part: &str| part.split_once("*/").map(|(_, rest)| rest.to_owned());
    let (first, others) = text.split_once("/*").unwrap_or((text, ""));
    let others = others.split("/*").filter_map(rest);
    std::iter::once(first.to_owned()).chain(others).collect()
}
