//! The soname is that of imsg-compat, which has no version in it.

fn main() {
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if matches!(os.as_str(), "macos" | "ios") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libimsg.dylib");
    } else {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libimsg.so");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
