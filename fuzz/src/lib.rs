//! What the fuzz targets do, as functions, so that a stable compiler can replay what was found.

mod descriptors;
mod parse;

pub use descriptors::descriptors;
pub use parse::parse;

#[cfg(test)]
mod tests {
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

    #[test]
    fn parse_holds_for_arbitrary_bytes() {
        inputs().for_each(|input| crate::parse(&input));
    }

    #[test]
    fn descriptors_holds_for_arbitrary_bytes() {
        inputs().for_each(|input| crate::descriptors(&input));
    }
}
