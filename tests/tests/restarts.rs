//! `Restarts` beside a list of all deaths.

use std::time::{Duration, Instant};

use imsg_os::Restarts;
use proptest::prelude::*;

const N: usize = 4;
const WINDOW: Duration = Duration::from_millis(1000);
const DELAY: Duration = Duration::from_millis(10);

proptest! {
    #[test]
    fn what_dies_is_started_again_later_each_time_and_no_more_than_so_often_in_the_window(
        pauses in prop::collection::vec(prop_oneof![0..400_u64, Just(1000), 0..3000_u64], 0..60),
    ) {
        let mut restarts = Restarts::<N>::new(WINDOW, DELAY);
        let mut now = Instant::now();
        let mut restarted = Vec::<Instant>::new();
        for pause in pauses {
            now += Duration::from_millis(pause);
            let before = restarted.iter().filter(|at| now - **at < WINDOW).count();
            let expected = match before {
                N.. => None,
                0 => Some(now),
                1 => Some(now + DELAY),
                _ => Some(now + DELAY * (1 << (before - 1))),
            };
            prop_assert_eq!(restarts.died(now), expected);
            if expected.is_some() {
                restarted.push(now);
            }
        }
    }
}

#[test]
fn a_delay_that_cannot_be_counted_is_never_over() {
    let mut restarts = Restarts::<100>::new(Duration::MAX, Duration::from_secs(1 << 40));
    let now = Instant::now();
    assert_eq!(restarts.died(now), Some(now));
    let later = (0..99).map(|_| restarts.died(now)).collect::<Vec<_>>();
    assert!(later.is_sorted_by(|a, b| b.is_none() || a <= b && a.is_some()), "{later:?}");
    assert_eq!(later[98], None);
}

#[test]
fn what_may_not_be_restarted_is_given_up_at_once() {
    let mut restarts = Restarts::<0>::new(WINDOW, DELAY);
    assert_eq!(restarts.died(Instant::now()), None);
}
