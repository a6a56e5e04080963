//! What the examples of OpenBSD's manual page imsg_init(3) do, with the names that they have there.
//!
//! The parent opens a file and passes it to the child in an `IMSG_MESSAGE2`; the child answers with
//! an `IMSG_A_MESSAGE`, whose payload is an `int`: the number of bytes that it read. Both wait in
//! poll(2), and dispatch the messages when the socket is ready.
//!
//! There, the child is forked. Here, it is this program started again, so that it has nothing of
//! the parent's memory, and comments say what a line stands for.
//!
//! ```sh
//! cargo run -p imsg-os --example imsg_init -- /etc/passwd
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use command_fds::{CommandFdExt, FdMapping};
use imsg_os::{Channel, Descriptor, Header, Modern, ReadOutcome, inherited, is_peer_gone};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::SIGCHLD;

// enum imsg_type
const IMSG_A_MESSAGE: u32 = 0;
const IMSG_MESSAGE2: u32 = 1;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let result = match (arguments.next(), arguments.next()) {
        (Some(flag), None) if flag == "--child" => child_main(),
        (Some(file), None) => parent_main(Path::new(&file)),
        _ => Err("usage: imsg_init FILE".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Unlike `eprintln`, this does not panic when nobody listens.
            let _ = writeln!(io::stderr(), "imsg_init: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parent_main(file: &Path) -> Result<()> {
    // Whoever started this may ignore SIGCHLD, and then nobody is told how a child ended.
    signal_hook::flag::register(SIGCHLD, Arc::default())?;
    let path = file;
    let file = File::open(path).map_err(|error| format!("{path:?}: {error}"))?;

    // socketpair(…, imsg_fds); fork();
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--child");
    command.fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: 3 }])?;
    let mut child = command.spawn()?;
    drop(command); // close(imsg_fds[1]);

    // imsgbuf_init(&parent_ibuf, imsg_fds[0]);
    ours.set_nonblocking(true)?;
    let mut imsgbuf = Channel::new(ours, Modern::new())?;

    imsgbuf.tx.compose(Header::new(IMSG_MESSAGE2), b"", Some(file.into()))?;

    let answer = poll_loop(&mut imsgbuf, parent_dispatch);
    drop(imsgbuf); // imsgbuf_clear(&parent_ibuf); close(imsg_fds[0]);
    let status = child.wait()?;
    // How the child ended says more than how the channel did.
    if !status.success() {
        let cause = answer.err().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(format!("the child closed the connection: {status}{cause}").into());
    }
    let idata = answer?.ok_or("the child closed the connection")?;
    writeln!(io::stdout(), "{path:?}: the child read {idata} bytes")?;
    Ok(())
}

fn child_main() -> Result<()> {
    // SAFETY: nothing else in this program takes up descriptor 3.
    let socket = UnixStream::from(unsafe { inherited(3) }?);
    socket.set_nonblocking(true)?;
    let mut imsgbuf = Channel::new(socket, Modern::new())?;
    imsgbuf.rx.allow_descriptors(); // imsgbuf_allow_fdpass(&child_ibuf);
    poll_loop(&mut imsgbuf, child_dispatch)?;
    Ok(())
}

/// What is to be done with the messages that were read: `Some` to leave the loop.
type Dispatch<T> = fn(&mut Channel) -> Result<Option<T>>;

/// Waits for the socket in poll(2), until `dispatch` has a value, or the peer closes (`None`).
fn poll_loop<T>(imsgbuf: &mut Channel, dispatch: Dispatch<T>) -> Result<Option<T>> {
    let mut failed = None;
    loop {
        let mut events = PollFlags::POLLIN;
        if imsgbuf.tx.queue_len() > 0 && failed.is_none() {
            events |= PollFlags::POLLOUT;
        }
        let mut fds = [PollFd::new(imsgbuf.as_fd(), events)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let ready = fds[0].revents().unwrap_or(PollFlags::empty());

        if ready.contains(PollFlags::POLLOUT) {
            match imsgbuf.tx.write() {
                // A peer that is gone (EPIPE) may have sent something before. One that is not would
                // never send anything, as it has nothing to answer.
                Err(error) if is_peer_gone(&error) => failed = Some(error),
                other => _ = other?,
            }
        }
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            let outcome = imsgbuf.rx.read()?;
            if let Some(value) = dispatch(imsgbuf)? {
                return Ok(Some(value));
            }
            if outcome == ReadOutcome::Closed {
                return failed.map_or(Ok(None), |error| Err(error.into()));
            }
        }
    }
}

fn parent_dispatch(imsgbuf: &mut Channel) -> Result<Option<i32>> {
    while let Some(imsg) = imsgbuf.rx.next_message()? {
        match imsg.header.msg_type {
            IMSG_A_MESSAGE => {
                let idata = imsg.reader().data()?; // corrupt message: another size
                return Ok(Some(idata));
            }
            other => writeln!(io::stdout(), "ignored a message of type {other}")?,
        }
    }
    Ok(None)
}

fn child_dispatch(imsgbuf: &mut Channel) -> Result<Option<()>> {
    while let Some(imsg) = imsgbuf.rx.next_message()? {
        match (imsg.header.msg_type, imsg.descriptor) {
            (IMSG_MESSAGE2, Descriptor::Here(fd)) => {
                let read = io::copy(&mut File::from(fd), &mut io::sink())?;
                let idata = i32::try_from(read)?;
                imsgbuf.tx.compose(Header::new(IMSG_A_MESSAGE), &idata, None)?;
            }
            (IMSG_MESSAGE2, nothing) => return Err(format!("no file: {nothing:?}").into()),
            (other, _) => writeln!(io::stdout(), "ignored a message of type {other}")?,
        }
    }
    Ok(None)
}
