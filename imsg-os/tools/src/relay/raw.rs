//! What was received, as a log of system calls that `imsg dump --strace` reads.
//!
//! It is as strace would write it of a process for each connection, numbered as the connection is, with
//! the client on descriptor 3 and the server on descriptor 4. Each message is a call.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use imsg_os::{Descriptor, Dialect, Message};

use super::side::Side;
use super::tap::frame;

pub(crate) struct Raw {
    out: BufWriter<File>,
    line: String,
}

/// Who sent a message.
#[derive(Clone, Copy)]
pub(crate) enum From {
    Client,
    Server,
}

impl Raw {
    /// Makes the file, for its owner only.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { out: BufWriter::with_capacity(64 * 1024, file), line: String::new() })
    }

    /// A connection begins, so that nothing of its streams was before.
    pub(crate) fn begin(&mut self, number: usize) -> io::Result<()> {
        let [client, server] = [From::Client, From::Server].map(|from| from.end(number));
        writeln!(self.out, "{number} socketpair(AF_UNIX, SOCK_STREAM, 0, [{client}, {server}]) = 0")
    }

    pub(crate) fn message(
        &mut self,
        number: usize,
        from: From,
        side: &Side,
        message: &Message<'_>,
    ) -> io::Result<()> {
        let frame = frame(message);
        let (end, count) = (from.end(number), frame.len);
        self.line.clear();
        let line = &mut self.line;
        let _ = write!(line, "{number} recvmsg({end}, {{msg_iov=[{{iov_base=\"");
        escape(&side.encode(&frame), line);
        escape(message.payload, line);
        let _ = write!(line, "\", iov_len={count}}}], msg_iovlen=1");
        if let Descriptor::Here(descriptor) = &message.descriptor {
            *line += ", msg_control=[{cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS, cmsg_data=[5<";
            escape(&target(descriptor), line);
            *line += ">]}]";
        }
        let _ = writeln!(line, "}}, 0) = {count}");
        self.out.write_all(line.as_bytes())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl From {
    fn end(self, number: usize) -> String {
        let (one, other) = (2 * number, 2 * number + 1);
        match self {
            Self::Client => format!("3<UNIX-STREAM:[{one}->{other}]>"),
            Self::Server => format!("4<UNIX-STREAM:[{other}->{one}]>"),
        }
    }
}

fn escape(bytes: &[u8], line: &mut String) {
    for byte in bytes {
        let _ = write!(line, "\\x{byte:02x}");
    }
}

/// What a descriptor is, where the system tells.
fn target(descriptor: &OwnedFd) -> Vec<u8> {
    let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    fs::read_link(link).map(|target| target.as_os_str().as_bytes().to_vec()).unwrap_or_default()
}
