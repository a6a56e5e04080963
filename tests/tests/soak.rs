//! The soak, for as long as a test may take.

#![cfg(target_os = "linux")]

use std::process::Command;

#[test]
fn two_processes_lose_nothing_for_two_seconds() {
    let output = Command::new(env!("CARGO_BIN_EXE_soak"))
        .args(["--seconds", "2", "--seed", "7"])
        .output()
        .expect("start the soak");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.trim_end().ends_with("leaks: 0"),
        "{}\n{said}{complained}",
        output.status
    );
}
