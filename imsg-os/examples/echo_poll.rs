//! An echo server for any number of clients, on `poll`.
//!
//! ```text
//! cargo run --release -p imsg-os --example echo_poll -- --listen /tmp/echo
//! ```
//!
//! It does the same as `echo_mio` and `echo_tokio`. Nothing here waits but `poll`. The memory for a client is that of its channel: no message is taken before there is
//! room for its answer, and then nothing is read, so that a client that does not read is held up by
//! the kernel, and nobody else is.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, mem};

use clap::Parser;
use imsg_os::{Any, Channel, Endian, HEADER_LEN, Header, Message, Next, Refused, Sender, Turn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Sends each message back to the client that it came from, with its type, id and descriptor.
///
/// Ends when its standard input does.
#[derive(Parser)]
#[command(name = "echo_poll")]
struct Arguments {
    /// Where to make the socket
    #[arg(long, value_name = "PATH")]
    listen: PathBuf,

    /// The dialect of imsg that the clients speak: classic or modern
    #[arg(long, value_parser = dialect, default_value = "modern")]
    dialect: Any,
}

fn dialect(name: &str) -> Result<Any, &'static str> {
    match name {
        "classic" => Ok(Any::Classic(Endian::NATIVE)),
        "modern" => Ok(Any::Modern(Endian::NATIVE)),
        _ => Err("it is neither classic nor modern"),
    }
}

fn main() -> ExitCode {
    let Arguments { listen, dialect } = Arguments::parse();
    match run(&listen, dialect) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{}: {error}", listen.display()));
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, dialect: Any) -> Result<(), Box<dyn Error>> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    writeln!(io::stdout(), "listening on {}", path.display())?;

    let mut clients = Vec::<Client>::new();
    let mut number = 0;
    // Whether the system has no place for another client. It does not say when it has.
    let mut crowded = false;
    loop {
        let (on_listener, timeout) = match crowded {
            false => (PollFlags::POLLIN, PollTimeout::NONE),
            true => (PollFlags::empty(), PollTimeout::from(1000_u16)),
        };
        let again = clients.iter().any(|client| client.next == Next::Again);
        let timeout = if again { PollTimeout::ZERO } else { timeout };
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), on_listener),
        ];
        fds.extend(clients.iter().map(|c| PollFd::new(c.channel.as_fd(), c.wants())));
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let events: Vec<_> =
            fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR)).collect();

        if !events[0].is_empty() && !matches!(stdin.lock().read(&mut [0; 512]), Ok(1..)) {
            return Ok(fs::remove_file(path)?);
        }
        let mut of_clients = events[2..].iter();
        clients.retain_mut(|client| {
            let events = of_clients.next().copied().unwrap_or(PollFlags::empty());
            if events.is_empty() && client.next != Next::Again {
                return true;
            }
            client.serve(events).unwrap_or_else(|error| {
                complain(format_args!("client {}: {error}", client.number));
                false
            })
        });
        if !events[1].is_empty() || crowded {
            let refused = loop {
                match listener.accept() {
                    Ok((socket, _)) => {
                        number += 1;
                        clients.push(Client::new(socket, dialect, number)?);
                    }
                    Err(error) => break error,
                }
            };
            let was_crowded = mem::replace(&mut crowded, refused.kind() != ErrorKind::WouldBlock);
            if crowded && !was_crowded {
                complain(format_args!("cannot take another client: {refused}"));
            }
        }
    }
}

struct Client {
    number: u64,
    channel: Channel<Any>,
    turn: Turn,
    next: Next,
}

impl Client {
    fn new(socket: UnixStream, dialect: Any, number: u64) -> io::Result<Self> {
        let mut channel = Channel::new(socket, dialect)?;
        channel.rx.allow_descriptors();
        // An answer is as long as its message.
        let turn = Turn::new(channel.tx.max_len() - HEADER_LEN);
        let next = channel.next(&turn);
        Ok(Self { number, channel, turn, next })
    }

    /// What to wait for.
    fn wants(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if let Next::Poll { readable, writable } = self.next {
            flags.set(PollFlags::POLLIN, readable);
            flags.set(PollFlags::POLLOUT, writable);
        }
        flags
    }

    /// Does what can be done without waiting. `false` when there will be no more.
    fn serve(&mut self, events: PollFlags) -> Result<bool, Box<dyn Error>> {
        // It may also have hung up.
        let readable = events.intersects(!PollFlags::POLLOUT);
        self.next = self.channel.turn(&self.turn, readable, echo)?;
        Ok(self.next != Next::Done)
    }
}

fn echo(mut message: Message<'_>, tx: &mut Sender<Any>) -> Result<(), Refused<OwnedFd>> {
    // A pid of 0 stands for that of this process. The answer has no descriptor where there was no
    // place to receive one.
    let header = Header { pid: 0, ..message.header };
    tx.compose(header, message.payload, message.descriptor.take())
}

/// Is `eprintln`, but does not panic when nobody listens.
fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "echo_poll: {text}");
}
