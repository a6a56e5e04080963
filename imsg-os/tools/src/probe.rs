//! Which dialect does a tmux server speak?

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;

use imsg_os::{Any, Channel, Classic, Endian, Header, RecvError};

/// What a server makes of the probe.
pub(crate) enum Answer {
    /// As a classic one it understands it, up to 3.5a; as a modern one it hangs up, since 3.6.
    Speaks(Any),
    /// It says what no known server says.
    Other { msg_type: u32 },
}

/// From a client: its standard input, as a descriptor.
const IDENTIFY_STDIN: u32 = 104;

/// From a server: its version is another one.
const OTHER_VERSION: u32 = 12;

/// Asks by a message that only a classic server understands: one that carries a descriptor, and has
/// a version that no server has.
///
/// A classic server answers that its version is another. A modern one reads a length that is out of
/// range, and hangs up. Neither does more, and neither takes harm.
pub(crate) fn probe(socket: UnixStream) -> Result<Answer, RecvError> {
    let modern = Answer::Speaks(Any::Modern(Endian::NATIVE));
    let mut channel = Channel::new(socket, Classic::new()).map_err(io::Error::from)?;
    let question = Header { pid: u32::MAX, ..Header::new(IDENTIFY_STDIN) };
    let descriptor = File::open("/dev/null")?.into();
    channel.tx.compose(question, b"", Some(descriptor)).map_err(io::Error::other)?;
    channel.tx.flush()?;

    match channel.rx.recv() {
        Ok(Some(message)) => Ok(match message.header.msg_type {
            OTHER_VERSION => Answer::Speaks(Any::Classic(Endian::NATIVE)),
            msg_type => Answer::Other { msg_type },
        }),
        Ok(None) => Ok(modern),
        Err(error) if error.is_peer_gone() => Ok(modern),
        Err(error) => Err(error),
    }
}
