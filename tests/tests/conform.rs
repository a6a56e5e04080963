//! `imsg conform`, run as a program: on a program that is as it has to be, and on faulty ones.

#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use imsg_tests::c_library::{How, Installed, Interface, c_program};
use imsg_tests::examples;
use imsg_tests::process::{self, Report};
use nix::sys::signal::Signal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_conform");

#[test]
fn our_library_passes_all_cases_in_both_dialects() {
    for (dialect, least) in [("modern", 40), ("classic", 40)] {
        let report = conform(&["--dialect", dialect, "--", PROGRAM]);
        assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{}", report.text());
        let verdicts: Vec<_> = report.text().lines().map(verdict).collect();
        assert!(verdicts.len() >= least, "{}", report.text());
        let told = |verdict: &&str| *verdict == "ok";
        assert!(dialect == "classic" || verdicts.iter().all(told), "{}", report.text());
        assert!(verdicts.iter().all(|it| ["ok", "untold"].contains(it)), "{}", report.text());
    }
}

#[test]
fn our_c_library_passes_all_cases_by_both_interfaces() {
    let Some(library) = Installed::new(env!("CARGO_TARGET_TMPDIR")) else { return };
    for (dialect, interface) in [("classic", Interface::Classic), ("modern", Interface::Modern)] {
        let program = library.compile(&c_program("conform"), interface, How::Static);
        let report = conform(&["--dialect", dialect, "--", program.to_str().unwrap()]);
        assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{}", report.text());
    }
}

#[test]
fn each_kind_of_fault_has_its_verdict() {
    for (fault, only, due) in [
        ("loses", "every length with a descriptor", "lost"),
        ("swaps", "every length with a descriptor", "wrong file"),
        ("keeps", "every length with a descriptor", "leaked"),
        ("exits", "payloads of every length", "refused"),
        ("hangs", "payloads of every length", "hung"),
        ("crashes", "payloads of every length", "crashed"),
        ("forgives", "a length of 15 bytes", "accepted"),
        ("forgives", "an end inside a payload", "accepted"),
        ("forgives", "left at the end", "accepted"),
    ] {
        // The others are waited for only if they do not do what is due.
        let patience = if ["hangs", "keeps"].contains(&fault) { "1" } else { "50" };
        let arguments = ["--patience", patience, "--only", only, "--", PROGRAM, fault];
        let report = conform(&arguments);
        assert_eq!(report.code(), Some(1), "{fault}: {}", report.text());
        let lines: Vec<_> = report.text().lines().collect();
        assert_eq!(lines.len(), 1, "{fault}: {lines:?}");
        assert_eq!(verdict(lines[0]), due, "{fault}: {lines:?}");
        assert!(lines[0].contains(": expected "), "{fault}: {lines:?}");
    }
}

#[test]
fn what_a_library_is_known_to_fail_is_no_failure_when_it_is_named() {
    let forgives = |arguments: &[&str]| {
        let only = ["--only", "an end inside a", "--", PROGRAM, "forgives"];
        conform(&[arguments, &only].concat())
    };
    for stock in ["openbgpd-7.7", "openbgpd-8.8"] {
        let report = forgives(&["--stock", stock]);
        assert!(report.text().lines().all(|line| verdict(line) == "known"), "{}", report.text());
        assert_eq!(report.code(), Some(0));
    }
    assert_eq!(forgives(&[]).code(), Some(1));
    // It fails in another way.
    let arguments = ["--stock", "openbgpd-8.8", "--only", "a length of 15", "--", PROGRAM];
    let report = conform(&[&arguments[..], &["forgives"]].concat());
    assert_eq!(verdict(report.text()), "accepted", "{}", report.text());
}

#[test]
fn a_program_that_does_nothing_fails_every_case() {
    for (program, due) in [("true", "refused"), ("false", "refused")] {
        let report = conform(&["--only", "3 Limits", "--", program]);
        assert_eq!(report.code(), Some(1));
        assert!(report.text().lines().all(|line| verdict(line) == due), "{}", report.text());
    }
}

#[test]
fn a_case_is_named_after_a_section_of_the_specification() {
    let specification = include_str!("../../imsg-wire/PROTOCOL.md");
    let report = conform(&["--", PROGRAM]);
    for line in report.text().lines() {
        let section = line[12..].split(':').next().unwrap();
        let (number, title) = section.split_once(' ').unwrap();
        assert!(specification.contains(&format!("\n## {number}. {title}\n")), "{line}");
    }
}

#[test]
fn an_object_has_the_case_and_how_it_ended() {
    let report = conform(&["--json", "--only", "a length of 15", "--", PROGRAM]);
    assert_eq!(
        report.text(),
        "{\"section\":\"3 Limits\",\"case\":\"a length of 15 bytes\",\"dialect\":\"modern\",\
         \"verdict\":\"ok\"}\n"
    );
    let report = conform(&["--json", "--only", "a length of 15", "--", "true"]);
    let object: serde_json::Value = serde_json::from_str(report.text().trim_end()).unwrap();
    assert_eq!(object["verdict"], "refused");
    assert!(object["expected"].is_string() && object["got"].is_string(), "{object}");
}

#[test]
fn a_parent_that_ignores_the_ends_of_children_changes_nothing() {
    let mut command = command(&["--only", "3 Limits", "--", PROGRAM]);
    process::ignore(&mut command, Signal::SIGCHLD);
    let report = process::run(&mut command, b"");
    assert_eq!((report.code(), report.stderr.as_str()), (Some(0), ""), "{}", report.text());
}

#[test]
fn output_that_takes_nothing_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = command(&["--only", "a length of 15", "--", PROGRAM]);
    let report = process::run(command.stdout(full), b"");
    assert_eq!(report.code(), Some(1));
    let due = "imsg conform: cannot print: No space left on device (os error 28)\n";
    assert_eq!(report.stderr, due);
}

#[test]
fn what_the_program_complains_of_is_shown_if_that_is_asked_for() {
    let arguments = ["--only", "a length of 15", "--", PROGRAM];
    assert_eq!(conform(&arguments).stderr, "");
    let report = conform(&[&["-v"], &arguments[..]].concat());
    let due = "conform: at offset 61, a length of 15 bytes is out of range";
    assert!(report.stderr.starts_with(due), "{}", report.stderr);
}

#[test]
fn a_program_that_is_not_there_is_an_error_that_names_it() {
    let report = conform(&["--", "/nowhere/program"]);
    assert_eq!((report.code(), report.text()), (Some(1), ""));
    let due = "imsg conform: /nowhere/program: No such file or directory (os error 2)\n";
    assert_eq!(report.stderr, due);
}

#[test]
fn help_says_what_the_program_has_to_do() {
    let report = conform(&["--help"]);
    assert_eq!(report.code(), Some(0));
    for part in ["on descriptor 3", "IMSG_DIALECT", "the same type, id, pid, payload"] {
        assert!(report.text().contains(part), "{}", report.text());
    }
}

/// What a line begins with.
fn verdict(line: &str) -> &str {
    line[..10].trim_end()
}

fn conform(arguments: &[&str]) -> Report {
    process::run(&mut command(arguments), b"")
}

fn command(arguments: &[&str]) -> Command {
    static IMSG: LazyLock<PathBuf> = LazyLock::new(|| examples::imsg(env!("CARGO_TARGET_TMPDIR")));
    let mut command = Command::new(&*IMSG);
    command.arg("conform").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
