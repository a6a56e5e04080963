//! How often what ends is started again.

use std::time::{Duration, Instant};

/// When to start a worker again that died, and whether at all: `N` times at most in a window of time.
///
/// One that dies for the first time in the window is started again at once. After each further death
/// there is a delay, which doubles each time, so that a worker that cannot run does not use up the
/// processor. The delays in a window are shorter together than half of it, whatever they are set to:
/// so one that dies soon after each start is given up.
///
/// ```
/// use imsg_os::Restarts;
/// use std::time::{Duration, Instant};
///
/// let mut restarts = Restarts::<3>::new(Duration::from_secs(60), Duration::from_millis(500));
/// let start = Instant::now();
/// let at = |millis| start + Duration::from_millis(millis);
///
/// assert_eq!(restarts.died(at(0)), Some(at(0))); // at once
/// assert_eq!(restarts.died(at(100)), Some(at(600)));
/// assert_eq!(restarts.died(at(700)), Some(at(1700)));
/// assert_eq!(restarts.died(at(1800)), None); // too often: give it up
///
/// assert_eq!(restarts.died(at(70_000)), Some(at(70_000))); // a minute later all are forgotten
/// ```
///
/// In an event loop, the time is one to [wait for](crate::Waits::until).
#[derive(Clone, Debug)]
pub struct Restarts<const N: usize> {
    window: Duration,
    delay: Duration,
    /// When it died, the last ones.
    deaths: [Option<Instant>; N],
}

impl<const N: usize> Restarts<N> {
    /// No deaths yet; `N` are restarted in each `window`. The second one waits for `delay`.
    ///
    /// In a window of no time there are no deaths before, so each is restarted at once.
    #[must_use]
    pub const fn new(window: Duration, delay: Duration) -> Self {
        Self { window, delay, deaths: [None; N] }
    }

    /// The worker has died: when to start it again, which is `now` or later. `None` when that was
    /// done `N` times in the window already; the program then gives up, and this death is not counted.
    /// `None` also when that time is so far away that no clock counts it.
    pub fn died(&mut self, now: Instant) -> Option<Instant> {
        let mut before = 0;
        let mut free = None;
        for death in &mut self.deaths {
            let age = death.map(|death| now.saturating_duration_since(death));
            if age.is_some_and(|age| age < self.window) {
                before += 1;
            } else {
                free = Some(death);
            }
        }
        *free? = Some(now);
        let delay = match before {
            0 => Duration::ZERO,
            _ => self.delay.saturating_mul(2_u32.saturating_pow(before - 1)),
        };
        let longest = self.window / u32::try_from(N).unwrap_or(u32::MAX).saturating_mul(2);
        now.checked_add(delay.min(longest))
    }
}
