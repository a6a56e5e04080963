//! The C library as it is installed, and the C programs of `tests/c` that use it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Report, say};

/// Which of the two headers a program is compiled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// That of imsg-compat.
    Classic,
    /// That of OpenBSD since 7.7.
    Modern,
}

impl Interface {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Modern];

    /// What `pkg-config` knows it by.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            Self::Classic => "libimsg",
            Self::Modern => "libimsg-modern",
        }
    }
}

/// How a program is compiled, and what it is linked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// As C, with the shared object.
    Shared,
    /// As C++, with the static library.
    Static,
}

impl How {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Shared, Self::Static];

    fn compiler(self) -> Command {
        let (variable, usual, flags): (_, _, &[&str]) = match self {
            Self::Shared => ("CC", "cc", &["-std=c99"]),
            Self::Static => ("CXX", "c++", &["-std=c++11"]),
        };
        let mut command = Command::new(env::var_os(variable).unwrap_or_else(|| usual.into()));
        command.args(flags).args(["-g", "-Wall", "-Wextra", "-Werror"]);
        command
    }
}

/// The C library in a directory that is removed in the end.
#[derive(Debug)]
pub struct Installed {
    root: TempDir,
    /// Of its Makefile.
    variables: Vec<String>,
}

impl Installed {
    /// Where it is installed, as distributions do.
    pub const LIBDIR: &str = "/usr/lib/here";

    /// Builds and installs it. `tmp` is `env!("CARGO_TARGET_TMPDIR")`, which only tests have. `None`
    /// where that cannot be, which is said.
    ///
    /// # Panics
    ///
    /// When it does not build.
    #[must_use]
    pub fn new(tmp: &str) -> Option<Self> {
        let target = Path::new(tmp).parent().expect("a directory in that of the target");
        if target.ends_with(env!("TARGET")) {
            return not_run("the C library is tested for the machine that compiles");
        }
        for program in ["make", "cc", "c++", "pkg-config"] {
            if Command::new(program).arg("--version").output().is_err() {
                return not_run(&format!("{program} is not installed"));
            }
        }
        let root = TempDir::new().expect("a directory for a while");
        let installed = Self {
            variables: vec![
                format!("TARGET_DIR={}", target.display()),
                format!("OUT={}/libimsg", target.display()),
                format!("DESTDIR={}", root.path().display()),
                "PREFIX=/usr".to_owned(),
                format!("LIBDIR={}", Self::LIBDIR),
            ],
            root,
        };
        installed.make("install");
        Some(installed)
    }

    /// Calls its Makefile.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn make(&self, goal: &str) {
        let mut command = Command::new("make");
        command.arg("-C").arg(sources()).arg(goal).args(&self.variables);
        succeeds(&mut command);
    }

    /// A file of what was installed, by its path on a system.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// Its directory, as if it was the root.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// What `pkg-config` says for this system.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[must_use]
    pub fn pkg_config(&self, interface: Interface, options: &[&str]) -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command
            .args(options)
            .arg(interface.package())
            .env("PKG_CONFIG_SYSROOT_DIR", self.root.path())
            .env("PKG_CONFIG_LIBDIR", self.file(Self::LIBDIR).join("pkgconfig"));
        succeeds(&mut command).text().split_whitespace().map(str::to_owned).collect()
    }

    /// Compiles a program.
    ///
    /// # Panics
    ///
    /// When it does not compile.
    #[must_use]
    pub fn compile(&self, source: &Path, interface: Interface, how: How) -> PathBuf {
        let name = source.file_stem().expect("a file").to_string_lossy();
        let program = self.root.path().join(format!("{name}-{interface:?}-{how:?}"));
        let mut command = how.compiler();
        command
            .args(["-D_DEFAULT_SOURCE", "-D_POSIX_C_SOURCE=200809L"])
            .arg(format!("-DMODERN={}", u8::from(interface == Interface::Modern)))
            .args(["-x", if how == How::Shared { "c" } else { "c++" }])
            .arg(source)
            .args(["-x", "none", "-o"])
            .arg(&program)
            .args(self.flags(interface, how));
        succeeds(&mut command);
        program
    }

    fn flags(&self, interface: Interface, how: How) -> Vec<String> {
        match how {
            How::Shared => self.pkg_config(interface, &["--cflags", "--libs"]),
            How::Static => {
                let flags = self.pkg_config(interface, &["--static", "--cflags", "--libs"]);
                let of_static = |flag| match flag {
                    flag if flag == "-limsg" => "-l:libimsg.a".to_owned(),
                    flag => flag,
                };
                flags.into_iter().map(of_static).collect()
            }
        }
    }

    /// A command that runs a program with the shared object.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("LD_LIBRARY_PATH", self.file(Self::LIBDIR))
            .env("IMSG_VECTORS", Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors"));
        command
    }

    /// Compiles a program of `tests/c` in both ways, and runs it.
    ///
    /// # Panics
    ///
    /// When it does not compile, or one of its checks fails.
    pub fn passes(&self, program: &str, interface: Interface) {
        for how in How::ALL {
            let program = self.compile(&c_program(program), interface, how);
            succeeds(&mut self.command(&program));
        }
    }
}

/// The directory of the library's crate.
#[must_use]
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("imsg-os").join("libimsg")
}

/// The source of a program of `tests/c`.
#[must_use]
pub fn c_program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(name).with_extension("c")
}

/// Runs a command.
///
/// # Panics
///
/// When it fails.
pub fn succeeds(command: &mut Command) -> Report {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let report = Report {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(report.status.success(), "{command:?}: {}\n{}", report.status, report.stderr);
    report
}

fn not_run<T>(why: &str) -> Option<T> {
    say(&format!("NOT RUN: {why}"));
    None
}
