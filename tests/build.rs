//! Tells the tests what target they are for, and looks for the C library that a benchmark compares this
//! one with.

fn main() {
    let target = std::env::var("TARGET").expect("cargo says what it builds for");
    println!("cargo::rustc-env=TARGET={target}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(libimsg)");
    #[cfg(feature = "libimsg")]
    find_libimsg();
}

/// Only the benchmark links to it. When it is not there, the benchmark says so.
#[cfg(feature = "libimsg")]
fn find_libimsg() {
    if let Ok(library) = pkg_config::Config::new().cargo_metadata(false).probe("libimsg") {
        println!("cargo::rustc-cfg=libimsg");
        for path in library.link_paths {
            println!("cargo::rustc-link-search=native={}", path.display());
        }
    }
}
