//! An echo server for any number of clients, on `tokio`.
//!
//! ```text
//! cargo run --release -p imsg-os --example echo_tokio --features tokio -- --listen /tmp/echo
//! ```
//!
//! It does the same as `echo_poll` and `echo_mio`. The memory for a client is that of its channel and
//! of its task: the task waits until there is room for an answer, and reads nothing meanwhile, so
//! that a client that does not read is held up by the kernel, and nobody else is. After some messages
//! of a client, `recv` and `reserve` give way to other tasks by themselves. A client may be silent as
//! long as it likes, but not in the middle of a message, nor may it leave its answers unread: so one
//! that passed its own end of the connection over the connection and died, and has no end of the
//! stream, is hung up on all the same.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use imsg_os::tokio::{Channel, Receiver};
use imsg_os::{Any, Endian, Header, Message, ReadOutcome};
use tokio::net::UnixListener;
use tokio::time::timeout;

/// Sends each message back to the client that it came from, with its type, id and descriptor.
///
/// Ends when its standard input does.
#[derive(Parser)]
#[command(name = "echo_tokio")]
struct Arguments {
    /// Where to make the socket
    #[arg(long, value_name = "PATH")]
    listen: PathBuf,

    /// The dialect of imsg that the clients speak: classic or modern
    #[arg(long, value_parser = dialect, default_value = "modern")]
    dialect: Any,

    /// How long a client may take for a message, from its first byte to its last, and to make room
    /// for answers by reading them. It is hung up on then
    #[arg(long, value_parser = seconds, value_name = "SECONDS", default_value = "30")]
    patience: Duration,
}

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn seconds(number: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(number.parse()?)?)
}

fn dialect(name: &str) -> std::result::Result<Any, &'static str> {
    match name {
        "classic" => Ok(Any::Classic(Endian::NATIVE)),
        "modern" => Ok(Any::Modern(Endian::NATIVE)),
        _ => Err("it is neither classic nor modern"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { listen, dialect, patience } = Arguments::parse();
    match run(&listen, dialect, patience).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{listen:?}: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(path: &Path, dialect: Any, patience: Duration) -> Result<()> {
    // Past a limit for the size of files, a complaint is to fail, and not to end this program.
    let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
    let listener = UnixListener::bind(path)?;
    let served = match writeln!(io::stdout(), "listening on {path:?}") {
        Ok(()) => serve_clients(&listener, dialect, patience).await,
        Err(error) => Err(error),
    };
    std::fs::remove_file(path)?;
    Ok(served?)
}

/// Serves clients until standard input ends.
async fn serve_clients(
    listener: &UnixListener,
    dialect: Any,
    patience: Duration,
) -> io::Result<()> {
    let (mut input, mut nowhere) = (tokio::io::stdin(), tokio::io::sink());
    tokio::select! {
        _ = tokio::io::copy(&mut input, &mut nowhere) => Ok(()),
        error = take_clients(listener, dialect, patience) => error,
    }
}

async fn take_clients(listener: &UnixListener, dialect: Any, patience: Duration) -> io::Result<()> {
    let mut number = 0_u64;
    let mut crowded = false;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                crowded = false;
                number += 1;
                let channel = Channel::new(socket, dialect)?;
                tokio::spawn(async move {
                    if let Err(error) = serve(channel, patience).await {
                        complain(format_args!("client {number}: {error}"));
                    }
                });
            }
            Err(error) => {
                // The system has no place for another client. It does not say when it has.
                if !crowded {
                    complain(format_args!("cannot take another client: {error}"));
                }
                crowded = true;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve(Channel { mut rx, mut tx }: Channel<Any>, patience: Duration) -> Result<()> {
    const UNREAD: &str = "it did not read its answers in time";
    rx.allow_descriptors();
    while let Some(mut message) = next(&mut rx, patience).await? {
        let len = message.payload.len();
        // A limit of time costs something, also where nothing has to wait.
        if tx.has_room(len, true).is_err() {
            timeout(patience, tx.reserve(len)).await.map_err(|_| UNREAD)??;
        }
        // A pid of 0 stands for that of this process. The answer has no descriptor where
        // there was no place to receive one.
        let header = Header { pid: 0, ..message.header };
        tx.compose(header, message.payload, message.descriptor.take())?;
        // The answers to all that has arrived go together.
        if !rx.is_ready() {
            timeout(patience, tx.flush()).await.map_err(|_| UNREAD)??;
        }
    }
    Ok(())
}

/// The next message. `None` is the end of the stream.
async fn next(rx: &mut Receiver<Any>, patience: Duration) -> Result<Option<Message<'_>>> {
    // The time begins when the message does.
    while !rx.is_ready() && rx.unfinished().is_none() {
        if rx.read().await? == ReadOutcome::Closed {
            break;
        }
    }
    if rx.is_ready() {
        return Ok(rx.recv().await?);
    }
    let message = timeout(patience, rx.recv()).await;
    Ok(message.map_err(|_| "it did not complete a message in time")??)
}

/// Is `eprintln`, but does not panic when nobody listens.
fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "echo_tokio: {text}");
}
