//! Links without start files and libraries; for a board, where its memory is.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=board.ld");
    let target = |what| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let args: &[&str] = match (&*target("OS"), &*target("ARCH")) {
        ("none", "arm") => &["--defsym=code=0", "--defsym=memory=0x20000000", "-Tboard.ld"],
        ("none", _) => &["--defsym=code=0x80000000", "--defsym=memory=0x80100000", "-Tboard.ld"],
        _ => &[
            "-nostartfiles",
            "-nostdlib",
            "-static",
            "-no-pie",
            "-Wl,--gc-sections",
            "-Wl,--build-id=none",
        ],
    };
    println!("cargo:rustc-link-search={}", env!("CARGO_MANIFEST_DIR"));
    for arg in args {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
}
