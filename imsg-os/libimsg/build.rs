//! How the shared object is linked.

use std::env;
use std::process::{Command, Stdio};

fn main() {
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    // The soname is that of imsg-compat, which has no version in it.
    if matches!(os.as_str(), "macos" | "ios") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libimsg.dylib");
    } else {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libimsg.so");
    }
    // lld, which rustc prefers, keeps all that the exception tables of dropped functions name: that
    // is the code which prints panics, five times as large as the library. GNU ld drops it.
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if os == "linux" && release && env::var("HOST") == env::var("TARGET") && has_gnu_ld() {
        println!("cargo::rustc-cdylib-link-arg=-fuse-ld=bfd");
    }
    println!("cargo::rerun-if-changed=build.rs");
}

fn has_gnu_ld() -> bool {
    Command::new("ld.bfd")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
