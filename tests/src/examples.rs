//! The examples of the crates, as programs.

use std::path::{Path, PathBuf};

/// Builds an example of a crate of this workspace, with these features, and tells where it is.
/// `tmp` is `env!("CARGO_TARGET_TMPDIR")`, which only tests have.
///
/// # Panics
///
/// When it does not build.
pub fn build(tmp: &str, of: &str, example: &str, features: &str) -> PathBuf {
    let target = Path::new(tmp).parent().expect("a directory in that of the target");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member of the workspace");
    let build = escargot::CargoBuild::new()
        .manifest_path(root.join(of).join("Cargo.toml"))
        .target_dir(target)
        .example(example)
        .features(features)
        .release();
    build.run().expect("the example builds").path().to_owned()
}
