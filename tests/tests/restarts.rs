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

proptest! {
    #[test]
    fn what_dies_soon_after_each_start_is_given_up_after_so_many_whatever_the_delay(
        delay in 0..5000_u64,
        lives in prop::collection::vec(0..100_u64, N),
    ) {
        let mut restarts = Restarts::<N>::new(WINDOW, Duration::from_millis(delay));
        let mut now = Instant::now();
        for life in lives {
            let due = restarts.died(now);
            prop_assert!(due.is_some());
            now = due.unwrap() + Duration::from_millis(life);
        }
        prop_assert_eq!(restarts.died(now), None);
    }
}

#[test]
fn what_could_be_restarted_only_at_a_time_that_no_clock_counts_is_given_up() {
    let mut restarts = Restarts::<2>::new(Duration::MAX, Duration::MAX);
    let now = Instant::now() + Duration::from_secs(1 << 62);
    assert_eq!(restarts.died(now), Some(now));
    assert_eq!(restarts.died(now), None);
}

#[test]
fn in_a_window_of_no_time_each_is_restarted_at_once() {
    let mut restarts = Restarts::<1>::new(Duration::ZERO, DELAY);
    let now = Instant::now();
    assert_eq!([(); 3].map(|()| restarts.died(now)), [Some(now); 3]);
}

#[test]
fn what_may_not_be_restarted_is_given_up_at_once() {
    let mut restarts = Restarts::<0>::new(WINDOW, DELAY);
    assert_eq!(restarts.died(Instant::now()), None);
}
