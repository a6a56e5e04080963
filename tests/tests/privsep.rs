//! The example `privsep`, run as a program: by root and by an ordinary user, in both dialects.

#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex, Once, Weak};

use command_fds::{CommandFdExt, FdMapping};
use imsg_os::{Any, Channel, Descriptor, Endian, Header};
use imsg_tests::examples;
use imsg_tests::process::{self, Process, Running, say, until, until_some};
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use tempfile::TempDir;

const NOBODY: u32 = 65534;

const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SHA256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn size_lines_and_sha256_of_every_file_are_right() {
    let place = Place::new();
    let million = vec![b'a'; 1_000_000];
    let nist = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    let text = "one\ntwo\n\nfour, without an end";
    let cases: [(&[u8], &[u8], usize, &str); 7] = [
        (b"empty", b"", 0, SHA256_OF_NOTHING),
        (b"abc", b"abc", 0, SHA256_OF_ABC),
        (
            b"two blocks",
            nist,
            0,
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            b"a million",
            &million,
            0,
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ),
        (
            b"text",
            text.as_bytes(),
            3,
            "6bd12ddc5cc39caa0020ea9bbcae8cafa9615e277d9e95817b062c697bf5c748",
        ),
        (b"not UTF-8: \xff\xfe", b"abc", 0, SHA256_OF_ABC),
        (b"two\nlines \x1b[31m", b"abc", 0, SHA256_OF_ABC),
    ];
    let paths = cases.map(|(name, content, ..)| place.file(OsStr::from_bytes(name), content));

    for setting in Setting::all() {
        let report = setting.run(&place, &paths);
        assert_eq!((report.code(), report.errors.as_slice()), (Some(0), &[][..]), "{setting:?}");
        assert_eq!(report.rows.len(), cases.len(), "{setting:?}");
        for ((row, path), (_, content, lines, sha256)) in report.rows.iter().zip(&paths).zip(cases)
        {
            assert_eq!(row.name, format!("{path:?}"), "{setting:?}");
            assert_eq!(row.size, content.len(), "{setting:?}, {}", row.name);
            assert_eq!(row.lines, lines, "{setting:?}, {}", row.name);
            assert_eq!(row.sha256, sha256, "{setting:?}, {}", row.name);
        }
    }
}

#[test]
fn what_cannot_be_read_is_named_with_the_reason_and_the_others_go_on() {
    let place = Place::new();
    let directory = place.path("directory");
    fs::create_dir(&directory).unwrap();
    let fifo = place.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let secret = place.file("secret", b"abc");
    fs::set_permissions(&secret, Permissions::from_mode(0o000)).unwrap();

    let unreadable = [
        (place.path("missing"), "No such file or directory"),
        (directory, "Is a directory"),
        (fifo, "not a regular file"),
        (PathBuf::from("/dev/null"), "not a regular file"),
        (place.path("long").join("n".repeat(20_000)), "File name too long"),
    ];
    let readable = place.file("readable", b"abc");
    let mut paths = vec![secret.clone(), readable.clone()];
    for (path, _) in &unreadable {
        paths.extend([path.clone(), readable.clone()]);
    }

    for setting in Setting::all() {
        let report = setting.run(&place, &paths);
        let mut reasons: Vec<_> = unreadable.iter().map(|(path, why)| (path, *why)).collect();
        let mut summaries = unreadable.len() + 1;
        if setting.root {
            summaries += 1;
        } else {
            reasons.insert(0, (&secret, "Permission denied"));
        }
        assert_eq!(report.code(), Some(1), "{setting:?}");
        assert_eq!(report.errors.len(), reasons.len(), "{setting:?}: {:?}", report.errors);
        for (line, (path, why)) in report.errors.iter().zip(reasons) {
            assert!(line.starts_with(&format!("privsep: {path:?}: {why}")), "{setting:?}: {line}");
        }
        assert_eq!(report.rows.len(), summaries, "{setting:?}");
        for row in &report.rows {
            assert_eq!((row.size, row.sha256.as_str()), (3, SHA256_OF_ABC), "{setting:?}");
        }
    }
}

#[test]
fn a_file_larger_than_the_memory_allowed_is_read_whole() {
    let place = Place::new();
    let big = place.sparse("big", 200_000_000);
    for setting in Setting::all() {
        let mut command = setting.command(&place, [&big]);
        // For the worker as well, as limits are inherited.
        process::limit(&mut command, Resource::RLIMIT_AS, 64 << 20);
        let report = Report::of(command);
        assert_eq!((report.code(), report.errors.as_slice()), (Some(0), &[][..]), "{setting:?}");
        assert_eq!(report.rows[0].size, 200_000_000, "{setting:?}");
        let sha256 = "d162f6594b643795442d4c7bba3a1711962b9e63717625d9f1f9696df315c86b";
        assert_eq!(report.rows[0].sha256, sha256, "{setting:?}");
    }
}

#[test]
fn two_thousand_files_need_no_more_descriptors_than_one() {
    let place = Place::new();
    let mut paths: Vec<_> = (0..2000).map(|n| place.file(format!("{n}"), b"abc")).collect();
    paths.insert(1000, place.path("missing"));
    for setting in Setting::all() {
        let mut command = setting.command(&place, &paths);
        process::limit(&mut command, Resource::RLIMIT_NOFILE, 12);
        let report = Report::of(command);
        assert_eq!(report.code(), Some(1), "{setting:?}");
        assert_eq!(report.errors.len(), 1, "{setting:?}: {:?}", report.errors);
        assert_eq!(report.rows.len(), 2000, "{setting:?}");
        assert!(report.rows.iter().all(|row| row.sha256 == SHA256_OF_ABC), "{setting:?}");
    }
}

#[test]
fn the_worker_cannot_open_a_file_where_landlock_is_in_force() {
    let place = Place::new();
    let path = place.file("readable by all", b"abc");
    let version = landlock_of_this_kernel();
    for setting in Setting::all() {
        let report = setting.run(&place, [&path]);
        if version > 0 {
            // The crate knows no newer one.
            let due = format!(", no files (Landlock {})", version.min(10));
            assert!(report.layers.contains(&due), "{setting:?}: {}", report.layers);
            assert_eq!(report.rows[0].own_open, "refused", "{setting:?}");
        } else {
            assert!(report.layers.contains("no Landlock"), "{setting:?}: {}", report.layers);
            assert_eq!(report.rows[0].own_open, "opened", "{setting:?}");
        }
    }
    if version == 0 {
        say("NOT TESTED: this kernel has no Landlock, so the worker could open what it was passed");
    }
}

#[test]
fn at_work_the_worker_holds_nothing_but_its_channel_and_the_file() {
    let place = Place::new();
    let endless = place.sparse("endless", 1 << 40);
    let secret = place.file("secret", b"abc");
    for setting in Setting::all() {
        let mut command = setting.command(&place, [&endless]);
        let inherited = File::open(&secret).unwrap().into();
        command.fd_mappings(vec![FdMapping { parent_fd: inherited, child_fd: 9 }]).unwrap();
        let program = start(command);
        let worker = worker_at(&program, &endless);

        assert_eq!(
            fs::read_link(program.process().file("fd/9")).unwrap(),
            secret,
            "{setting:?}: it is there to be inherited"
        );
        let mut descriptors: Vec<_> = fs::read_dir(worker.file("fd"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u32>().unwrap())
            .collect();
        descriptors.sort_unstable();
        assert_eq!(descriptors, [0, 1, 2, 3, 4], "{setting:?}");
        for standard in ["fd/0", "fd/1"] {
            let held = fs::read_link(worker.file(standard)).unwrap();
            assert_eq!(held, Path::new("/dev/null"), "{setting:?}: {standard}");
        }

        let field = |name: &str| {
            let value = worker.status(name).unwrap();
            value.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(field("NoNewPrivs"), ["1"], "{setting:?}");
        assert_eq!(fs::read(worker.file("environ")).unwrap(), b"", "{setting:?}");
        if setting.root || test_is_root() {
            let nobody = vec![NOBODY.to_string(); 4];
            assert_eq!(field("Uid"), nobody, "{setting:?}");
            assert_eq!(field("Gid"), nobody, "{setting:?}");
            assert!(field("Groups").is_empty(), "{setting:?}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(set), ["0000000000000000"], "{setting:?}: {set}");
            }
        }
    }
}

#[test]
fn the_program_says_which_layers_are_in_force() {
    let place = Place::new();
    let path = place.file("abc", b"abc");
    for setting in Setting::all() {
        let layers = setting.run(&place, [&path]).layers;
        let no_groups = if setting.root { ", no other groups" } else { "" };
        let user = if setting.root || test_is_root() {
            format!("user {NOBODY}, group {NOBODY}{no_groups}, no new privileges, ")
        } else {
            ", no new privileges, ".to_owned()
        };
        assert!(layers.starts_with("worker "), "{setting:?}: {layers}");
        assert!(layers.contains(": descriptors 0 to 3, user "), "{setting:?}: {layers}");
        assert!(layers.contains(&user), "{setting:?}: {layers}");
    }
}

#[test]
fn a_killed_worker_ends_the_program_and_the_signal_is_named() {
    let place = Place::new();
    let abc = place.file("abc", b"abc");
    let endless = place.sparse("endless", 1 << 40);
    for setting in Setting::all() {
        let program = start(setting.command(&place, [&abc, &endless, &abc]));
        let worker = worker_at(&program, &endless);
        worker.signal(Signal::SIGKILL);
        let report = Report::parse(program.finish());
        assert_eq!(report.code(), Some(2), "{setting:?}");
        let due = "privsep: the worker ended early: signal: 9 (SIGKILL)";
        assert_eq!(report.errors, [due], "{setting:?}");
        assert_eq!(report.rows.len(), 1, "{setting:?}: what was done before is printed");
    }
}

#[test]
fn a_worker_killed_before_it_takes_a_request_ends_the_program_too() {
    let place = Place::new();
    let abc = place.file("abc", b"abc");
    for setting in Setting::all() {
        let mut command = setting.command(&place, vec![&abc; 30_000]);
        let program = Running::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
        let worker = worker_at(&program, &abc);
        until("a request is sent to a worker that is stopped", || {
            worker.signal(Signal::SIGSTOP);
            until("the worker is stopped", || worker.state() == "T");
            until("the parent waits for it", || program.process().state() == "S");
            let taken = worker.file("fd/4").is_symlink();
            if taken {
                worker.signal(Signal::SIGCONT);
            }
            !taken
        });
        worker.signal(Signal::SIGKILL);
        let report = Report::parse(program.finish());
        assert_eq!(report.code(), Some(2), "{setting:?}");
        let due = "privsep: the worker ended early: signal: 9 (SIGKILL)";
        assert_eq!(report.errors, [due], "{setting:?}");
    }
}

#[test]
fn a_worker_does_not_outlive_a_killed_parent() {
    let place = Place::new();
    let endless = place.sparse("endless", 1 << 40);
    for setting in Setting::all() {
        let program = start(setting.command(&place, [&endless]));
        let worker = worker_at(&program, &endless);
        program.process().signal(Signal::SIGKILL);
        program.finish();
        // Whoever inherits orphans may leave it a zombie, which has no memory.
        until("the worker ends", || worker.memory("VmRSS").is_none());
    }
}

#[test]
fn a_worker_that_cannot_give_up_root_reads_nothing() {
    let place = Place::new();
    let path = place.file("abc", b"abc");
    for setting in Setting::all().filter(|setting| setting.root) {
        let mut command = setting.command(&place, [&path]);
        let drop_setuid = || {
            const CAP_SETUID: libc::c_ulong = 7;
            // SAFETY: the call takes integers.
            match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SETUID, 0, 0, 0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure makes a system call and nothing else.
        unsafe { command.pre_exec(drop_setuid) };
        let report = Report::of(command);
        assert_eq!(report.code(), Some(2), "{setting:?}");
        let due = [
            "privsep worker: cannot become nobody: EPERM: Operation not permitted",
            "privsep: the worker ended early: exit status: 2",
        ];
        assert_eq!(report.errors, due, "{setting:?}");
        assert!(report.rows.is_empty(), "{setting:?}");
    }
}

#[test]
fn the_worker_ends_at_the_first_message_that_is_not_a_request() {
    const READY: u32 = 1;
    const READ: u32 = 2;
    const SUMMARY: u32 = 3;
    let place = Place::new();
    let path = place.file("abc", b"abc");
    let file = || Some(OwnedFd::from(File::open(&path).unwrap()));

    for setting in Setting::all() {
        for (case, msg_type, descriptor, complaint) in [
            ("no file", READ, None, "bad message of type 2 (Read): the message needs a descriptor"),
            ("another type", 99, file(), "bad message of type 99: the type is unknown"),
        ] {
            let (worker, mut channel) = setting.worker(&place);
            assert_eq!(channel.rx.recv().unwrap().unwrap().header.msg_type, READY);

            let request = Header { id: 7, ..Header::new(READ) };
            channel.tx.compose(request, path.as_os_str().as_bytes(), file()).unwrap();
            channel.tx.flush().unwrap();
            let answer = channel.rx.recv().unwrap().unwrap();
            assert_eq!((answer.header.msg_type, answer.header.id), (SUMMARY, 7), "{setting:?}");
            assert_eq!(answer.payload.len(), 8 + 8 + 32 + 4, "{setting:?}");
            assert!(matches!(answer.descriptor, Descriptor::None), "{setting:?}");

            channel.tx.compose(Header::new(msg_type), b"", descriptor).unwrap();
            channel.tx.flush().unwrap();
            let report = Report::parse(worker.finish());
            assert_eq!(report.code(), Some(2), "{setting:?}, {case}");
            assert_eq!(report.errors.len(), 1, "{setting:?}, {case}: {:?}", report.errors);
            assert!(report.errors[0].contains(complaint), "{setting:?}: {:?}", report.errors);
        }
    }
}

#[test]
fn nobody_at_the_output_is_an_error_and_no_panic() {
    let place = Place::new();
    let path = place.file("abc", b"abc");
    for setting in Setting::all() {
        let (read, write) = io::pipe().unwrap();
        drop(read);
        let mut program = setting.command(&place, [&path]);
        let program = Running::start(program.stdout(write).stderr(Stdio::piped()));
        let report = Report::parse(program.finish());
        assert_eq!(report.code(), Some(2), "{setting:?}");
        assert_eq!(report.errors, ["privsep: cannot print: Broken pipe (os error 32)"]);
    }
}

#[test]
fn output_that_somebody_made_non_blocking_gets_every_line() {
    const FILES: usize = 1500;
    let place = Place::new();
    let path = place.file("abc", b"abc");
    let setting = Setting::all().next().unwrap();
    let (mut read, write) = io::pipe().unwrap();
    process::make_nonblocking(&write);
    let mut command = setting.command(&place, std::iter::repeat_n(&path, FILES));
    let mut program = Running::start(command.stdout(write).stderr(Stdio::null()));
    // It has the other end, too.
    drop(command);
    // It has filled the pipe, and its worker has nothing to do.
    process::until("it waits", || {
        let is_asleep = |process: Process| process.state() == "S";
        program.process().first_child().is_some_and(is_asleep) && is_asleep(program.process())
    });
    let mut text = String::new();
    io::Read::read_to_string(&mut read, &mut text).unwrap();
    assert!(program.until_it_ends().success());
    assert_eq!(text.lines().count(), 2 + FILES);
}

#[test]
fn a_parent_that_ignores_the_ends_of_children_costs_no_answer() {
    let place = Place::new();
    let path = place.file("abc", b"abc");
    for setting in Setting::all() {
        let mut program = setting.command(&place, [&path]);
        process::ignore(&mut program, Signal::SIGCHLD);
        let report = Report::of(program);
        assert_eq!((report.code(), report.rows.len()), (Some(0), 1), "{setting:?}: {report:?}");
        assert!(report.errors.is_empty(), "{setting:?}: {report:?}");
    }
}

#[test]
fn help_explains_and_no_file_at_all_is_a_mistake() {
    let place = Place::new();
    for setting in Setting::all() {
        let output = setting.command(&place, ["--help"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("without privileges"), "{text}");
        assert!(!text.contains("--worker"), "it is not for people: {text}");

        let output = setting.command(&place, [""; 0]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{setting:?}");
    }
}

/// Who runs the program, and in which dialect.
#[derive(Clone, Copy, Debug)]
struct Setting {
    root: bool,
    dialect: &'static str,
}

impl Setting {
    fn all() -> impl Iterator<Item = Self> {
        let users: &[bool] = if test_is_root() {
            &[true, false]
        } else {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                say("NOT TESTED: privsep as root, since the tests do not run as root");
            });
            &[false]
        };
        users.iter().flat_map(|&root| ["classic", "modern"].map(|dialect| Self { root, dialect }))
    }

    fn command<A: AsRef<OsStr>>(
        &self,
        place: &Place,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(&place.program.path);
        command.arg("--dialect").arg(self.dialect).args(arguments);
        if test_is_root() && !self.root {
            // Clears the groups as well.
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn run<A: AsRef<OsStr>>(&self, place: &Place, paths: impl IntoIterator<Item = A>) -> Report {
        Report::of(self.command(place, paths))
    }

    /// A worker alone, and the parent's end of its channel.
    fn worker(&self, place: &Place) -> (Running, Channel<Any>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = self.command(place, ["--worker"]);
        command.fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: 3 }]).unwrap();
        let dialect = match self.dialect {
            "classic" => Any::Classic(Endian::NATIVE),
            _ => Any::Modern(Endian::NATIVE),
        };
        (start(command), Channel::new(ours, dialect).unwrap())
    }
}

/// A directory for the files of a test, and the program.
struct Place {
    program: Arc<Program>,
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { program: Program::shared(), directory: public_directory() }
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.directory.path().join(name.as_ref())
    }

    fn file(&self, name: impl AsRef<OsStr>, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn sparse(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }
}

/// The program, where every user can execute it.
struct Program {
    path: PathBuf,
    _directory: TempDir,
}

impl Program {
    /// The copy that all tests use that run at the same time.
    ///
    /// No test that uses it can have started a process while it was written; that process could
    /// hold it open for writing, and to execute it would fail (`ETXTBSY`).
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Program>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let program = Arc::new(Self::copy());
            *shared = Arc::downgrade(&program);
            program
        })
    }

    fn copy() -> Self {
        static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
            examples::build(env!("CARGO_TARGET_TMPDIR"), "imsg-os", "privsep", "process")
        });
        let directory = public_directory();
        let path = directory.path().join("privsep");
        fs::copy(&*BUILT, &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self { path, _directory: directory }
    }
}

fn public_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

/// The worker, once it has `file` open to read it.
fn worker_at(program: &Running, file: &Path) -> Process {
    until_some("the worker is at the file", || {
        let worker = program.process().first_child()?;
        let held = fs::read_link(worker.file("fd/4")).ok()?;
        (held == file).then_some(worker)
    })
}

fn start(mut command: Command) -> Running {
    Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// All that the program said.
#[derive(Debug)]
struct Report {
    status: ExitStatus,
    layers: String,
    rows: Vec<Row>,
    errors: Vec<String>,
}

#[derive(Debug)]
struct Row {
    size: usize,
    lines: usize,
    sha256: String,
    own_open: String,
    name: String,
}

impl Report {
    fn of(command: Command) -> Self {
        Self::parse(start(command).finish())
    }

    fn parse(report: process::Report) -> Self {
        let mut lines = report.text().lines();
        let layers = lines.next().unwrap_or_default().to_owned();
        let title: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
        if !layers.is_empty() {
            assert_eq!(title, ["size", "lines", "sha256", "own", "open", "name"]);
        }
        let rows = lines.map(Row::parse).collect();
        let errors = report.stderr.lines().map(str::to_owned).collect();
        Self { status: report.status, layers, rows, errors }
    }

    fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Row {
    fn parse(line: &str) -> Self {
        let (columns, name) = line.split_at(line.find('"').unwrap());
        let columns: Vec<_> = columns.split_whitespace().collect();
        let [size, lines, sha256, own_open] = columns[..] else { panic!("not a row: {line}") };
        Self {
            size: size.parse().unwrap(),
            lines: lines.parse().unwrap(),
            sha256: sha256.to_owned(),
            own_open: own_open.to_owned(),
            name: name.to_owned(),
        }
    }
}

fn test_is_root() -> bool {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The version of Landlock, or 0 without.
fn landlock_of_this_kernel() -> libc::c_long {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    let no_ruleset = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag, the call takes no ruleset, and returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            no_ruleset,
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    version.max(0)
}
