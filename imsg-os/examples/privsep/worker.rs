//! The side without privileges. It looks at bytes that anyone may have made up.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use imsg_os::{Any, Channel, Descriptor, Header, inherited};
use sha2::{Digest, Sha256};

use crate::protocol::{CHANNEL, FAILURE, Failure, READ, READY, SUMMARY, Summary};
use crate::{Dialect, open, sandbox};

pub(crate) fn run(dialect: Dialect) -> Result<ExitCode, Box<dyn Error>> {
    let socket = inherited(CHANNEL)
        .map_err(|error| format!("no channel on descriptor {CHANNEL}: {error}"))?;
    let layers = sandbox::enter()?;

    let mut channel = Channel::<Any>::new(socket, dialect.into())?;
    channel.rx.allow_descriptors();
    channel.tx.compose(Header::new(READY), &layers, None)?;
    channel.tx.flush()?;

    let mut buf = vec![0; 64 * 1024];
    while let Some(request) = channel.rx.recv()? {
        let file = match request.descriptor {
            Descriptor::Here(file) if request.header.msg_type == READ => File::from(file),
            _ => return Err(format!("the parent sent an unexpected message: {request:?}").into()),
        };
        let path = Path::new(OsStr::from_bytes(request.payload));
        let answer = |msg_type| Header { id: request.header.id, ..Header::new(msg_type) };
        match summarize(file, path, &mut buf) {
            Ok(summary) => channel.tx.compose(answer(SUMMARY), &summary, None)?,
            Err(error) => {
                let failure = Failure { errno: errno(&error).into() };
                channel.tx.compose(answer(FAILURE), &failure, None)?;
            }
        }
        channel.tx.flush()?;
    }
    Ok(ExitCode::SUCCESS)
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
