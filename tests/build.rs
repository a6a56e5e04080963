//! Tells the tests what target they are for, and looks for the C library that a benchmark compares this
//! one with.

fn main() {
    let target = std::env::var("TARGET").expect("cargo says what it builds for");
    println!("cargo::rustc-env=TARGET={target}");
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "libimsg")]
    find_imsg_compat();
}

/// Only the benchmark loads it. When it is not there, the benchmark says so.
#[cfg(feature = "libimsg")]
fn find_imsg_compat() {
    let Ok(library) = pkg_config::Config::new().cargo_metadata(false).probe("libimsg") else {
        return;
    };
    let files = library.link_paths.iter().map(|path| path.join("libimsg.so"));
    if let Some(file) = files.into_iter().find(|file| file.exists()) {
        println!("cargo::rustc-env=IMSG_COMPAT={}", file.display());
    }
}
