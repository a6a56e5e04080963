//! An echo server with two tasks for each client, and a client that loads it.
//!
//! ```sh
//! cargo run -p imsg-os --features tokio --example tasks_tokio -- serve /tmp/echo.sock
//! # in another terminal: 100 clients, with 1000 messages each
//! cargo run -p imsg-os --features tokio --example tasks_tokio -- load /tmp/echo.sock 100 1000
//! ```
//!
//! One task reads requests and one writes answers, with a short queue in between. When a client does
//! not read its answers, the queue fills, the reader stops reading, and the client's own requests
//! back up: nothing grows. A client that sends no whole request for `PATIENCE`, or takes as long to
//! read the answers that are due, is disconnected; so is one that passed its own end of the
//! connection over the connection and died, and has no end of the stream. `recv` and `reserve` let
//! other tasks have their turn by themselves.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use imsg_os::tokio::{Channel, Receiver, Sender};
use imsg_os::{HEADER_LEN, Header, Modern, OwnedMessage, Refused};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long a client may take for a request, or for what it is sent at a time.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest payload of a request, in bytes. The queue of each client takes `QUEUE` times as
/// much.
const PAYLOAD: usize = 1024;
/// How many requests of one client may wait for the writer.
const QUEUE: usize = 8;
/// How many clients are served at a time.
const CLIENTS: usize = 256;
/// In answer to a request whose descriptor is missing; the payload says why.
const REFUSED: u32 = u32::MAX;
/// The most bytes that this takes.
const WHY: usize = 100;

type Request = OwnedMessage<PAYLOAD, OwnedFd>;
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match &arguments[..] {
        // With an empty path, the system makes up a name.
        [serves, path] if serves == "serve" && !path.is_empty() => serve(Path::new(path)).await,
        [loads, path, clients, messages] if loads == "load" => {
            load(Path::new(path), &clients.to_string_lossy(), &messages.to_string_lossy()).await
        }
        _ => Err("usage: tasks_tokio serve PATH | load PATH CLIENTS MESSAGES".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("tasks_tokio: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Serves clients until standard input ends (Ctrl-D), and then those that are there to their end.
async fn serve(path: &Path) -> Result<()> {
    // Past a limit for the size of files, a complaint is to fail, and not to end this program.
    let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
    let listener = UnixListener::bind(path).map_err(|error| format!("{path:?}: {error}"))?;
    let mut clients = JoinSet::new();
    let mut number = 0_u64;
    let (mut input, mut nowhere) = (tokio::io::stdin(), tokio::io::sink());
    let mut end = pin!(tokio::io::copy(&mut input, &mut nowhere));
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((stream, _)) => {
                    number += 1;
                    clients.spawn(client(number, stream));
                }
                Err(error) => {
                    complain(format_args!("cannot take another client: {error}"));
                    sleep(Duration::from_secs(1)).await; // it does not say when it can
                }
            },
            Some(_) = clients.join_next() => {} // one has ended
            _ = &mut end => break,
        }
    }
    drop(listener);
    fs::remove_file(path)?;
    complain(format_args!("{} clients left", clients.len()));
    clients.join_all().await;
    Ok(())
}

/// One client, from its connection to its end.
async fn client(number: u64, stream: UnixStream) {
    match echo(stream).await {
        Ok(count) => {
            complain(format_args!("client {number}: end of the stream, {count} messages"));
        }
        Err(error) => complain(format_args!("client {number}: {error}")),
    }
}

/// Is `eprintln`, but does not panic when nobody listens.
fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

async fn echo(stream: UnixStream) -> Result<u64> {
    let Channel { mut rx, tx } = Channel::new(stream, Modern::new())?;
    rx.allow_descriptors();
    rx.set_max_len(HEADER_LEN + PAYLOAD)?;
    let (requests, queued) = mpsc::channel(QUEUE);

    // When the reader ends, it drops `requests`, and the writer ends when the queue is empty.
    // When the writer fails, the reader must not wait for the next request: hence the `select!`
    // in it.
    let writer = tokio::spawn(write_answers(tx, queued));
    let read = read_requests(rx, requests).await;
    // What was read is answered, whatever the reader met. Then both halves are gone, and the socket
    // closed. What the client did wrong says more than that it cannot be written to any more.
    let written = writer.await?;
    let count = read?;
    written?;
    Ok(count)
}

async fn read_requests(mut rx: Receiver, requests: mpsc::Sender<Request>) -> Result<u64> {
    let mut count = 0;
    loop {
        let message = tokio::select! {
            received = timeout(PATIENCE, rx.recv()) => received.map_err(|_| "idle for too long")??,
            () = requests.closed() => return Ok(count), // the writer says why
        };
        let Some(message) = message else {
            return Ok(count);
        };
        // This cannot fail, as a longer message ended the stream: `set_max_len`.
        let request = Request::try_from(message)?;
        if requests.send(request).await.is_err() {
            return Ok(count); // the writer says why
        }
        count += 1;
    }
}

async fn write_answers(mut tx: Sender, mut requests: mpsc::Receiver<Request>) -> Result<()> {
    while let Some(mut request) = requests.recv().await {
        let room = timeout(PATIENCE, tx.reserve(request.payload().len().max(WHY))).await;
        room.map_err(|_| "does not read its answers")??;
        let descriptor = request.descriptor.take();
        if let Err(Refused { reason, .. }) = tx.forward(&request.view(), descriptor) {
            let header = Header { id: request.header.id, ..Header::new(REFUSED) };
            tx.compose(header, reason.to_string().as_bytes(), None)?;
        }
        if requests.is_empty() {
            timeout(PATIENCE, tx.flush()).await.map_err(|_| "does not read its answers")??;
        }
    }
    tx.shutdown()?;
    Ok(())
}

/// Runs `clients` clients at once, each of which sends `messages` and checks the answers.
async fn load(path: &Path, clients: &str, messages: &str) -> Result<()> {
    let (clients, messages): (u32, u32) = (clients.parse()?, messages.parse()?);
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let stream = connect(path).await.map_err(|error| format!("{path:?}: {error}"))?;
        running.spawn(ask(stream, messages));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    writeln!(io::stdout(), "{clients} clients got {messages} answers each")?;
    Ok(())
}

/// Connects, once the server has room for another client that waits to be taken.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sleep(Duration::from_millis(1)).await;
            }
            connected => return connected,
        }
    }
}

/// Sends in one task and receives in another, so that neither waits for the other.
async fn ask(stream: UnixStream, messages: u32) -> Result<()> {
    let Channel { mut rx, mut tx } = Channel::new(stream, Modern::new())?;
    let sender = tokio::spawn(async move {
        for id in 0..messages {
            let payload = &[b'.'; PAYLOAD][..id as usize % PAYLOAD];
            tx.reserve(payload.len()).await?;
            tx.compose(Header { id, ..Header::new(1) }, payload, None)?;
        }
        tx.flush().await?;
        tx.shutdown()?; // the server sees the end, and answers what is left
        Result::Ok(())
    });
    let mut next = 0;
    while let Some(answer) = rx.recv().await? {
        let (id, len) = (answer.header.id, answer.payload.len());
        if id != next || len != id as usize % PAYLOAD {
            return Err(
                format!("answer {id} of {len} bytes is not the one to request {next}").into()
            );
        }
        next += 1;
    }
    sender.await??;
    if next < messages {
        return Err(format!("the server hung up after {next} answers of {messages}").into());
    }
    Ok(())
}
