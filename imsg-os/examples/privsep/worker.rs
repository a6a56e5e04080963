//! The side without privileges. It looks at bytes that anyone may have made up.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use imsg_os::process::CHANNEL;
use imsg_os::typed::Protocol;
use imsg_os::{Any, Channel, Sender, inherited};
use sha2::{Digest, Sha256};

use crate::protocol::{Answer, Failure, Request, Summary};
use crate::{Dialect, open, sandbox};

pub(crate) fn run(dialect: Dialect) -> Result<ExitCode, Box<dyn Error>> {
    // SAFETY: nothing else in this program takes up descriptor 3.
    #[expect(unsafe_code, reason = "only the program can tell what its descriptors are")]
    let socket = unsafe { inherited(CHANNEL) }?;
    let layers = sandbox::enter()?;

    let mut channel = Channel::<Any>::new(socket, dialect.into())?;
    channel.rx.allow_descriptors();
    send(&mut channel.tx, 0, Answer::Ready(layers))?;

    let mut buf = vec![0; 64 * 1024];
    while let Some(message) = channel.rx.recv()? {
        let id = message.header.id;
        let Request::Read(path, file) =
            message.try_into().map_err(|bad| format!("the parent sent a {bad}"))?;
        let path = Path::new(OsStr::from_bytes(path));
        let answer = match summarize(file.into(), path, &mut buf) {
            Ok(summary) => Answer::Summary(summary),
            Err(error) => Answer::Failure(Failure { errno: errno(&error).into() }),
        };
        send(&mut channel.tx, id, answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn send(tx: &mut Sender<Any>, id: u32, answer: Answer) -> Result<(), Box<dyn Error>> {
    answer.compose(tx, id)?;
    Ok(tx.flush()?)
}

fn summarize(mut file: File, path: &Path, buf: &mut [u8]) -> io::Result<Summary> {
    let own_open = open(path).map_or_else(|error| errno(&error), |_| 0);

    let (mut size, mut lines, mut sha256) = (0, 0, Sha256::new());
    loop {
        let bytes = match file.read(buf) {
            Ok(0) => break,
            Ok(n) => &buf[..n],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        size += bytes.len() as u64;
        lines += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        sha256.update(bytes);
    }
    Ok(Summary {
        size: size.into(),
        lines: lines.into(),
        sha256: sha256.finalize().into(),
        own_open: own_open.into(),
    })
}

fn errno(error: &io::Error) -> i32 {
    // Without one it is not of the system, but of a path that the system was not asked about.
    error.raw_os_error().unwrap_or(libc::EINVAL)
}
