//! The socket where clients connect.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};

pub(crate) struct Listener {
    pub(crate) socket: UnixListener,
    /// A descriptor to be closed when there is no room for that of a client, so that this can be
    /// taken, and hung up on.
    reserve: Option<File>,
}

impl Listener {
    pub(crate) fn bind(path: &Path) -> io::Result<(Self, SocketFile)> {
        let socket = match bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => take_over(path)?,
            bound => bound?,
        };
        let file = SocketFile { path: path.to_owned(), identity: identity(path) };
        socket.set_nonblocking(true)?;
        let socket = UnixListener::from_std(socket);
        Ok((Self { socket, reserve: spare() }, file))
    }

    /// Takes the next client.
    pub(crate) fn accept(&mut self) -> Arrival {
        let full = match self.socket.accept() {
            Ok((client, _)) => return Arrival::Client(client),
            Err(error) if is_table_full(&error) => error,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Arrival::Nobody,
            Err(_) => return Arrival::Unknown,
        };
        // The system says so also when there is no client at all.
        if self.reserve.take().is_none() {
            self.reserve = spare();
            return Arrival::Unknown;
        }
        let accepted = self.socket.accept().map(drop);
        self.reserve = spare();
        match accepted {
            Ok(()) => Arrival::Refused(full),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Arrival::Nobody,
            Err(_) => Arrival::Unknown,
        }
    }
}

/// Who is there.
pub(crate) enum Arrival {
    Client(UnixStream),
    /// A client that was hung up on, as there is no room for another descriptor.
    Refused(io::Error),
    Nobody,
    /// The system cannot tell now, nor will it tell when it can.
    Unknown,
}

/// Takes the socket away when it is dropped, which has to be before the listener is: as long as
/// that is there, no other file has this identity.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Option<Identity>,
}

/// The device of a file, and its number there.
pub(crate) type Identity = (u64, u64);

impl SocketFile {
    /// Which file it is, of all in the system.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Whether it is found there, by whatever path.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.identity.is_some() && self.identity == target(path)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have put another one there.
        if self.identity.is_some() && self.identity == identity(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket for its owner only, from the first moment on.
fn bind(path: &Path) -> io::Result<net::UnixListener> {
    // No other thread makes files meanwhile.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = net::UnixListener::bind(path);
    umask(before);
    bound
}

/// Takes the place of a socket that nobody listens on, as a program leaves it that was killed.
fn take_over(path: &Path) -> io::Result<net::UnixListener> {
    // Of two that begin at once, the second one must not take away what the first has just made.
    let _turn = lock_directory(path)?;
    match bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path)?;
            // One that found no socket here needs no lock to make its own.
            bind(path).map_err(|error| match error.kind() {
                ErrorKind::AddrInUse => in_use(LISTENED_ON),
                _ => error,
            })
        }
        bound => bound,
    }
}

const LISTENED_ON: &str = "a program listens on it already";

fn in_use(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::AddrInUse, reason)
}

/// A lock that every relay takes before it removes a socket in this directory.
fn lock_directory(path: &Path) -> io::Result<Flock<File>> {
    /// How long another one may take, which makes a few system calls.
    const PATIENCE: Duration = Duration::from_secs(5);
    let end = Instant::now() + PATIENCE;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut directory = File::open(directory.unwrap_or(Path::new(".")))?;
    loop {
        directory = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((directory, Errno::EAGAIN)) if Instant::now() < end => directory,
            Err((_, Errno::EAGAIN)) => {
                let reason = "another program has a lock on its directory";
                return Err(io::Error::new(ErrorKind::ResourceBusy, reason));
            }
            Err((_, errno)) => return Err(errno.into()),
        };
        thread::sleep(Duration::from_millis(5));
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use("it exists, and is no socket"));
    }
    // Of another kind than a living socket, so that the program which has that is not disturbed.
    match net::UnixDatagram::unbound()?.connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.raw_os_error() != Some(Errno::EPROTOTYPE as i32) => Err(error),
        _ => Err(in_use(LISTENED_ON)),
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// That of the file where the path leads.
pub(crate) fn target(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_table_full(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE].map(|full| Some(full as i32)).contains(&error.raw_os_error())
}
