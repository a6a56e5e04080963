//! A socket with a path, which is there as long as its program listens.

use std::fs;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Listens on a socket, without waiting for clients. Its path is removed when this is dropped.
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Makes a socket in place of one that nobody listens on any more, as its program was killed.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        // What is no socket refuses to be connected to, too.
        let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
        let refuses = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if is_socket && UnixStream::connect(path).is_err_and(refuses) {
            fs::remove_file(path)?;
        }
        let listener = Self { socket: UnixListener::bind(path)?, path: path.to_owned() };
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl Deref for Listener {
    type Target = UnixListener;

    fn deref(&self) -> &UnixListener {
        &self.socket
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
