//! How much is tried, where each case takes long: under Miri, and in an emulator.

use std::env;

use crate::examples::RUNNER;

/// Where all cases can be tried, one in how many is: in all of them, 1 on a processor.
///
/// It is a prime number, so that those that are tried have, taken together, all values of each thing
/// that cases differ in.
pub fn one_in() -> usize {
    match place() {
        Place::Processor => 1,
        Place::Emulator => 199,
        Place::Miri => 40_009,
    }
}

/// Which cases of many are tried, [one in so many](one_in), however they are counted.
#[derive(Debug, Default)]
pub struct Sample {
    /// How many are left out before the next one.
    skip: usize,
}

impl Sample {
    /// Those of the next `n` cases that are tried, which are 0 to `n`.
    pub fn of(&mut self, n: usize) -> impl Iterator<Item = usize> + use<> {
        let (step, first) = (one_in(), self.skip);
        let tried = n.saturating_sub(first).div_ceil(step);
        self.skip = first + tried * step - n;
        (first..n).step_by(step)
    }
}

/// Of `all` cases, how many are tried.
pub fn in_all(all: u64) -> u64 {
    all.div_ceil(one_in() as u64)
}

/// Where `all` random cases are tried, how many are.
pub fn cases(all: u32) -> u32 {
    match place() {
        Place::Processor => all,
        Place::Emulator => all / 10,
        Place::Miri => all / 100,
    }
    .max(1)
}

/// What runs the tests.
enum Place {
    Processor,
    Emulator,
    Miri,
}

fn place() -> Place {
    if cfg!(miri) {
        Place::Miri
    } else if env::var_os(RUNNER).is_some() {
        Place::Emulator
    } else {
        Place::Processor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_same_however_its_cases_are_counted() {
        let mut parts = Sample::default();
        let mut from = 0;
        let mut tried = Vec::new();
        for n in [0, 1, 7, 200, 3, 0, 500, 1000] {
            tried.extend(parts.of(n).map(|case| from + case));
            from += n;
        }
        assert_eq!(tried, Sample::default().of(from).collect::<Vec<_>>());
        assert_eq!(tried.len() as u64, in_all(from as u64));
    }
}
