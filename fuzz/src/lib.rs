//! What the fuzz targets do, as functions, so that a stable compiler can replay what was found.

mod descriptors;
mod handler;
#[allow(dead_code, reason = "only the layout matters here")]
#[path = "../../imsg-os/examples/shared/layers.rs"]
mod layers;
mod meters;
mod parse;
mod payload;
mod privsep;
mod roundtrip;
mod script;
mod stream;

pub use descriptors::descriptors;
pub use handler::handler;
pub use parse::parse;
pub use payload::payload;
pub use privsep::privsep;
pub use roundtrip::roundtrip;
pub use stream::stream;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Inputs of any length, each from the one before (xorshift).
    fn inputs() -> impl Iterator<Item = Vec<u8>> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..3000).map(move |_| {
            let len = next() % 300;
            (0..len).map(|_| next() as u8).collect()
        })
    }

    /// Runs a target on its corpus, and on what it found.
    fn replay(name: &str, target: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
        let corpus = fs::read_dir(fuzz.join("corpus").join(name)).expect("a corpus");
        // A target that found nothing has no directory there.
        let found = fs::read_dir(fuzz.join("regressions").join(name)).into_iter().flatten();
        for entry in corpus.chain(found) {
            let path = entry.expect("a readable directory").path();
            println!("{}", path.display());
            target(&fs::read(path).expect("a readable file"));
        }
    }

    macro_rules! tests {
        ($($target:ident)*) => {$(
            mod $target {
                #[test]
                fn holds_for_arbitrary_bytes() {
                    super::inputs().for_each(|input| crate::$target(&input));
                }

                #[test]
                fn holds_for_its_corpus() {
                    super::replay(stringify!($target), crate::$target);
                }
            }
        )*};
    }

    tests! { parse stream roundtrip payload descriptors handler privsep }
}
