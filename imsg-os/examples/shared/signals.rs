//! Signals as something to wait for.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::low_level::pipe;

/// What becomes readable when one of these signals comes.
pub(crate) fn on_signals(signals: &[i32]) -> io::Result<UnixStream> {
    let (ours, handlers) = UnixStream::pair()?;
    for signal in signals {
        pipe::register(*signal, handlers.try_clone()?)?;
    }
    Ok(ours)
}
