//! Limits of time, as arguments.

use std::error::Error;
use std::time::Duration;

/// A number of seconds, which need not be whole.
pub(crate) fn seconds(number: &str) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    Ok(Duration::try_from_secs_f64(number.parse()?)?)
}
