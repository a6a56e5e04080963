//! What all channels have, however they wait.
//!
//! [`imsg_os::Channel`](crate::Channel) and `imsg_os::tokio::Channel` are this one over a socket of
//! their kind, and so are their halves; their pages say how to make and how to use them. Nothing
//! else can be made of these types: they are public for code that is generic over both.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use imsg_wire::{DEFAULT_MAX_LEN, Dialect, NotOffered, RecvBuf, SendBuf, Storage};

use crate::sys::{self, Credentials, Pages};

pub(crate) mod receiver;
pub(crate) mod sender;

use receiver::Reading;
pub use receiver::Receiver;
pub use sender::{Gathered, Sender};

/// A buffer of the default size: four of the largest messages.
pub(crate) fn default_storage() -> io::Result<Pages> {
    Pages::new(4 * DEFAULT_MAX_LEN)
}

/// A stream socket of the kind `K`, which carries messages both ways (`struct imsgbuf`). `S` is the
/// storage of what is received, `T` that of what is to be sent.
#[derive(Debug)]
pub struct Channel<D: Dialect, S: Storage, K, T: Storage = S> {
    /// The receiving half.
    pub rx: Receiver<D, S, K>,
    /// The sending half.
    pub tx: Sender<D, T, K>,
}

impl<D: Dialect, S: Storage, K: AsFd, T: Storage> Channel<D, S, K, T> {
    /// Who is at the other end: the process that connected, or that made the socket pair, at the
    /// time that it did.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        sys::peer_credentials(self.as_fd())
    }

    /// A channel over a socket that was found to be connected, whose calls may block or not.
    pub(crate) fn over(socket: K, dialect: D, received: S, queued: T, waits: bool) -> Self
    where
        D: Clone,
    {
        let socket = Arc::new(socket);
        let buf = RecvBuf::with_descriptors(dialect.clone(), received);
        let reading = Reading { waits, reserve: None, failed: false };
        let rx = Receiver { socket: Arc::clone(&socket), buf, reading };
        let buf = SendBuf::with_descriptors(dialect, queued);
        let mut tx = Sender { socket, buf, waits, gone: None };
        tx.set_pid(std::process::id());
        Self { rx, tx }
    }
}

impl<D: Dialect, S: Storage, K: AsFd, T: Storage> AsFd for Channel<D, S, K, T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rx.as_fd()
    }
}

impl<D: Dialect, S: Storage, K: AsFd, T: Storage> AsRawFd for Channel<D, S, K, T> {
    fn as_raw_fd(&self) -> RawFd {
        self.rx.as_raw_fd()
    }
}

/// Does not happen: the kernel reads and takes no more than it is given. Allocates nothing.
pub(crate) fn more_than_offered<T>(_: NotOffered<T>) -> io::Error {
    io::ErrorKind::Other.into()
}
