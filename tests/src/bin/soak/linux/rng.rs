//! Random numbers that are the same everywhere and always.

/// SplitMix64.
pub(crate) struct Rng(u64);

impl Rng {
    /// A generator whose numbers follow from all of `words`.
    pub(crate) fn of(words: &[u64]) -> Self {
        Self(words.iter().fold(0, |state, word| Self(state ^ word).next()))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The high half of a product is less than either factor.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    pub(crate) fn size_below(&mut self, end: usize) -> usize {
        self.below(end as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number up to and with `most`, of any magnitude.
    pub(crate) fn magnitude(&mut self, most: u64) -> u64 {
        let bits = self.below(u64::from(u64::BITS - most.leading_zeros()) + 1);
        let end = 1_u64.checked_shl(bits as u32).unwrap_or(u64::MAX);
        self.below(end.min(most.saturating_add(1)))
    }

    pub(crate) fn size(&mut self, most: usize) -> usize {
        self.magnitude(most as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.size_below(from.len())]
    }
}
