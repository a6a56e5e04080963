//! The command `imsg` as a whole: what it says of itself, in manual pages and to shells.

#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use imsg_tests::examples;
use imsg_tests::process::{self, Report};
use tempfile::TempDir;

#[test]
fn each_subcommand_has_a_manual_page_that_names_all_its_options() {
    let pages = write_pages();
    for subcommand in subcommands() {
        let page = read(pages.path(), &format!("imsg-{subcommand}.1"));
        for option in options(&subcommand) {
            // A hyphen that is not to be broken at, as roff has it.
            let option = option.replace('-', "\\-");
            assert!(page.contains(&option), "{subcommand}: {option}: {page}");
        }
        assert!(read(pages.path(), "imsg.1").contains(&format!("imsg\\-{subcommand}(1)")));
    }
}

#[test]
fn shells_complete_each_subcommand_and_all_its_options() {
    let pages = write_pages();
    for subcommand in subcommands() {
        for option in options(&subcommand) {
            for file in ["imsg.bash", "_imsg"] {
                assert!(read(pages.path(), file).contains(&option), "{file}: {option}");
            }
            let long = format!("-l {}", option.trim_start_matches('-'));
            assert!(read(pages.path(), "imsg.fish").contains(&long), "{option}");
        }
    }
}

#[test]
fn pages_that_cannot_be_written_are_an_error_with_the_directory() {
    let report = imsg(&["pages", "/dev/null/pages"]);
    assert_eq!(report.code(), Some(1));
    let due = "imsg pages: /dev/null/pages: Not a directory (os error 20)\n";
    assert_eq!(report.stderr, due);
}

#[test]
fn the_version_is_that_of_the_crates() {
    assert_eq!(imsg(&["--version"]).text(), concat!("imsg ", env!("CARGO_PKG_VERSION"), "\n"));
}

fn write_pages() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("share/imsg");
    let report = imsg(&["pages", directory.to_str().unwrap()]);
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""));
    for file in fs::read_dir(&directory).unwrap() {
        let file = file.unwrap();
        fs::rename(file.path(), place.path().join(file.file_name())).unwrap();
    }
    place
}

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Those that the help lists.
fn subcommands() -> Vec<String> {
    let report = imsg(&["--help"]);
    let lines = report.text().lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    // What it says of one may go on in the next line.
    let lines = lines.filter(|line| !line.starts_with("   "));
    let names = lines.map(|line| line.split_whitespace().next().unwrap().to_owned());
    let names: Vec<_> = names.filter(|name| name != "help").collect();
    assert!(names.len() >= 3, "{names:?}");
    names
}

/// The long options that the help of a subcommand lists.
fn options(subcommand: &str) -> Vec<String> {
    let report = imsg(&[subcommand, "--help"]);
    let words = report.text().lines().filter_map(|line| {
        let line = line.trim_start();
        let start = if line.starts_with("--") { 0 } else { line.find(", --")? + 2 };
        if !line.starts_with('-') {
            return None;
        }
        line[start..].split([' ', '=', '[']).next().map(str::to_owned)
    });
    let options: Vec<_> = words.filter(|word| word != "--").collect();
    assert!(options.contains(&"--help".to_owned()), "{options:?}");
    options
}

fn imsg(arguments: &[&str]) -> Report {
    let mut command = Command::new(examples::imsg(env!("CARGO_TARGET_TMPDIR")));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process::run(&mut command, b"")
}
