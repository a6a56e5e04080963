//! The examples of the crates, and the command `imsg`, as programs.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use escargot::CargoBuild;

/// What starts a program of another machine than this one: a command that takes it as an argument.
pub const RUNNER: &str = "IMSG_TEST_RUNNER";

/// Builds an example of a crate of this workspace, with these features, for the target of the tests,
/// and tells where it is. `tmp` is `env!("CARGO_TARGET_TMPDIR")`, which only tests have.
///
/// # Panics
///
/// When it does not build.
pub fn build(tmp: &str, of: &str, example: &str, features: &str) -> PathBuf {
    program(tmp, of, |build| build.example(example).features(features))
}

/// Builds the command `imsg` in the same way.
///
/// # Panics
///
/// When it does not build.
pub fn imsg(tmp: &str) -> PathBuf {
    program(tmp, "imsg-os/tools", |build| build.bin("imsg"))
}

fn program(tmp: &str, of: &str, which: impl FnOnce(CargoBuild) -> CargoBuild) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member of the workspace");
    let build = CargoBuild::new().manifest_path(root.join(of).join("Cargo.toml")).release();
    let mut build = which(build);
    let mut target = Path::new(tmp).parent().expect("a directory in that of the target");
    if target.ends_with(env!("TARGET")) {
        build = build.target(env!("TARGET"));
        target = target.parent().expect("it is in that of all targets");
    }
    let program = build.target_dir(target).run().expect("it builds").path().to_owned();
    match env::var(RUNNER) {
        Ok(runner) => launcher(&runner, &program),
        Err(_) => program,
    }
}

/// A program that starts `program` by what can run programs of its target here.
fn launcher(runner: &str, program: &Path) -> PathBuf {
    let launcher = program.with_extension("emulated");
    let new = launcher.with_extension(std::process::id().to_string());
    let program = program.display();
    fs::write(&new, format!("#!/bin/sh\nexec {runner} '{program}' \"$@\"\n")).expect("write it");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("make it a program");
    // Others may start it at this moment.
    fs::rename(&new, &launcher).expect("put it in its place");
    launcher
}
