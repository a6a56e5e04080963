//! An echo server for any number of clients, on `tokio`.
//!
//! ```text
//! cargo run --release -p imsg-os --example echo_tokio --features tokio -- --listen /tmp/echo
//! ```
//!
//! It does the same as `echo_poll` and `echo_mio`. The memory for a client is that of its channel and
//! of its task: the task waits until there is room for an answer, and reads nothing meanwhile, so
//! that a client that does not read is held up by the kernel, and nobody else is.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use imsg_os::tokio::Channel;
use imsg_os::{Any, Endian, Header};
use tokio::net::UnixListener;

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
}

fn dialect(name: &str) -> Result<Any, &'static str> {
    match name {
        "classic" => Ok(Any::Classic(Endian::NATIVE)),
        "modern" => Ok(Any::Modern(Endian::NATIVE)),
        _ => Err("it is neither classic nor modern"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { listen, dialect } = Arguments::parse();
    match run(&listen, dialect).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{}: {error}", listen.display()));
            ExitCode::FAILURE
        }
    }
}

async fn run(path: &Path, dialect: Any) -> Result<(), Box<dyn Error>> {
    let listener = UnixListener::bind(path)?;
    writeln!(io::stdout(), "listening on {}", path.display())?;

    let (mut input, mut nowhere) = (tokio::io::stdin(), tokio::io::sink());
    tokio::select! {
        _ = tokio::io::copy(&mut input, &mut nowhere) => Ok(std::fs::remove_file(path)?),
        error = take_clients(&listener, dialect) => Ok(error?),
    }
}

async fn take_clients(listener: &UnixListener, dialect: Any) -> io::Result<()> {
    let mut number = 0_u64;
    let mut crowded = false;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                crowded = false;
                number += 1;
                let channel = Channel::new(socket, dialect)?;
                tokio::spawn(async move {
                    if let Err(error) = serve(channel).await {
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

async fn serve(Channel { mut rx, mut tx }: Channel<Any>) -> Result<(), Box<dyn Error>> {
    rx.allow_descriptors();
    while let Some(mut message) = rx.recv().await? {
        tx.reserve(message.payload.len()).await?;
        // A pid of 0 stands for that of this process. The answer has no descriptor where
        // there was no place to receive one.
        let header = Header { pid: 0, ..message.header };
        tx.compose(header, message.payload, message.descriptor.take())?;
        // The answers to all that has arrived go together.
        if !rx.is_ready() {
            tx.flush().await?;
        }
    }
    Ok(())
}

/// Is `eprintln`, but does not panic when nobody listens.
fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "echo_tokio: {text}");
}
