//! Random numbers that are the same everywhere and always.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose numbers follow from all of `words`.
    pub fn of(words: &[u64]) -> Self {
        Self(words.iter().fold(0, |state, word| Self(state ^ word).number()))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of a product is less than either factor.
        ((u128::from(self.number()) * u128::from(end)) >> 64) as u64
    }

    /// The same, of another type.
    pub fn size_below(&mut self, end: usize) -> usize {
        self.below(end as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number up to and with `most`, of any magnitude.
    pub fn magnitude(&mut self, most: u64) -> u64 {
        let bits = self.below(u64::from(u64::BITS - most.leading_zeros()) + 1);
        let end = 1_u64.checked_shl(bits as u32).unwrap_or(u64::MAX);
        self.below(end.min(most.saturating_add(1)))
    }

    /// The same, of another type.
    pub fn size(&mut self, most: usize) -> usize {
        self.magnitude(most as u64) as usize
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.size_below(from.len())]
    }

    /// Bytes without a pattern.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.number().to_ne_bytes()[..part.len()]);
        }
        bytes
    }
}
