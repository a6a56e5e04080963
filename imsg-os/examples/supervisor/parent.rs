//! The process that keeps its privileges.

use std::fmt::Display;
use std::fs;
use std::io::Read;
use std::os::unix::{net::UnixStream, process::CommandExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imsg_os::process::{Worker, connected_pair};
use imsg_os::typed::Protocol;
use imsg_os::{Channel, Message, Modern, Pages, Poll, Restarts, Sender, Turn};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use crate::complain::complain;
use crate::listen::Listener;
use crate::protocol::{FromWorker, NAME, ToWorker, VALUE};
use crate::signals::on_signals;
use crate::{Result, goes_on};

const TURN: Turn = Turn::silent();
/// The largest configuration, and the queue for it, in bytes. Only what is used of it is resident.
const CONFIG: usize = 8 << 20;
const QUEUE: usize = 16 * CONFIG; // a line of 2 bytes is a message of 17

pub(crate) fn run(config: &Path, path: &Path) -> Result<()> {
    // Whoever started this may ignore SIGCHLD, and then nobody is told how a worker ended.
    signal_hook::flag::register(SIGCHLD, Arc::default())?;
    let (hangups, stops) = (on_signals(&[SIGHUP])?, on_signals(&[SIGTERM, SIGINT])?);
    let values = read(config)?;
    let listener = Listener::bind(path)?;
    let workers = ["engine", "frontend"].map(Child::new);
    let mut parent = Parent { workers, values, generation: 1, listener };
    complain("supervisor", format_args!("listening on {path:?}"));
    let result = parent.serve(config, hangups, &stops);
    drop(parent.listener);
    let mut running = parent.workers.iter_mut().flat_map(|child| &mut child.running);
    running.try_for_each(|(worker, _)| worker.terminate())?;
    parent.workers.iter_mut().try_for_each(|child| child.end(Duration::from_secs(1)))?;
    result
}

struct Parent {
    workers: [Child; 2], // the engine and the frontend
    values: Vec<(String, String)>,
    generation: u32,
    listener: Listener,
}

impl Parent {
    /// Runs until a signal says to stop.
    fn serve(&mut self, config: &Path, mut hangups: UnixStream, stops: &UnixStream) -> Result<()> {
        let mut poll = Poll::new();
        loop {
            let mut waits = poll.begin();
            waits.readable(&hangups);
            waits.readable(stops);
            for child in &self.workers {
                match &child.running {
                    Some((_, channel)) => waits.channel(channel, &TURN),
                    None => waits.until(child.due),
                }
            }
            waits.wait()?;
            if poll.is_readable(stops) {
                return Ok(());
            }
            let mut started = false;
            for child in &mut self.workers {
                started |= child.go_on(&poll)?;
            }
            if started {
                self.introduce()?;
            }
            if poll.is_readable(&hangups) {
                let _ = hangups.read(&mut [0; 64]);
                match read(config) {
                    Ok(values) => {
                        (self.values, self.generation) = (values, self.generation + 1);
                        self.configure()?;
                    }
                    Err(error) => complain("supervisor", format_args!("nothing changed: {error}")),
                }
            }
        }
    }

    /// Connects the workers to each other, once both run, and sends them what they need.
    fn introduce(&mut self) -> Result<()> {
        let (one, other) = connected_pair()?;
        let socket = self.listener.try_clone()?.into();
        let [engine, frontend] = &mut self.workers;
        if engine.running.is_some() && frontend.running.is_some() {
            engine.send(|tx| ToWorker::Peer { descriptor: one }.compose(tx, 0))?;
            frontend.send(|tx| ToWorker::Peer { descriptor: other }.compose(tx, 0))?;
            frontend.send(|tx| ToWorker::Listen { descriptor: socket }.compose(tx, 0))?;
        }
        self.configure()
    }

    /// Sends all values to the engine.
    fn configure(&mut self) -> Result<()> {
        let (engine, values, generation) = (&mut self.workers[0], &self.values, self.generation);
        engine.send(|tx| {
            ToWorker::ConfigBegin.compose(tx, 0)?;
            for (name, value) in values {
                ToWorker::ConfigEntry { name, value }.compose(tx, 0)?;
            }
            ToWorker::ConfigEnd { generation }.compose(tx, 0)
        })
    }
}

struct Child {
    role: &'static str,
    restarts: Restarts<5>,
    running: Option<(Worker, Channel)>,
    /// When it is to be started, if it does not run.
    due: Instant,
}

impl Child {
    fn new(role: &'static str) -> Self {
        let restarts = Restarts::new(Duration::from_secs(60), Duration::from_millis(100));
        Self { role, restarts, running: None, due: Instant::now() }
    }

    /// Starts it if it is time to, and says whether it did; or sends and receives what can be.
    fn go_on(&mut self, poll: &Poll) -> Result<bool> {
        let role = self.role;
        let Some((worker, channel)) = &mut self.running else {
            if self.due > Instant::now() {
                return Ok(false);
            }
            let mut command = Command::new(std::env::current_exe()?);
            // In a group of its own, as Ctrl-C is for this process alone.
            command.args(["--worker", role]).env_clear().stdin(Stdio::null()).process_group(0);
            let (worker, socket) = Worker::start(command)?;
            // Descriptors are not allowed here: the kernel closes what a worker run wild may send.
            let (received, queued) = (Pages::new(1 << 16)?, Pages::new(QUEUE)?);
            let channel = Channel::with_storage(socket, Modern::new(), received, queued)?;
            self.running = Some((worker, channel));
            return Ok(true);
        };
        let pid = worker.child.id();
        let heard = |message: Message<'_>, _: &mut Sender| -> Result<()> {
            let what = match message.try_into()? {
                FromWorker::Ready(layers) => format!("is ready, as user {}", layers.user),
                FromWorker::Configured { generation } => format!("has configuration {generation}"),
            };
            complain("supervisor", format_args!("{role} {pid} {what}"));
            Ok(())
        };
        if !goes_on(role, channel.turn(&TURN, poll.is_readable(channel), heard)) {
            self.restart()?;
        }
        Ok(false)
    }

    /// Queues messages, if it runs. One that has no room for them does not read, and is to die.
    fn send<E: Display>(&mut self, say: impl FnOnce(&mut Sender) -> Result<(), E>) -> Result<()> {
        let Some((_, channel)) = &mut self.running else { return Ok(()) };
        let Err(refused) = say(&mut channel.tx) else { return Ok(()) };
        complain("supervisor", format_args!("{}: {refused}", self.role));
        self.restart()
    }

    /// Has another one started in place of this, which has died or is to.
    fn restart(&mut self) -> Result<()> {
        self.end(Duration::from_millis(50))?; // the others wait
        let due = self.restarts.died(Instant::now());
        self.due = due.ok_or_else(|| format!("the {} dies too often", self.role))?;
        Ok(())
    }

    /// Waits until it has ended, which the end of its channel tells it to do, and says how it did.
    fn end(&mut self, limit: Duration) -> Result<()> {
        let Some((mut worker, channel)) = self.running.take() else { return Ok(()) };
        drop(channel);
        let (role, pid, status) = (self.role, worker.child.id(), worker.end(limit)?);
        complain("supervisor", format_args!("{role} {pid} has ended: {status}"));
        Ok(())
    }
}

/// Reads names and values.
fn read(config: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(config).map_err(|e| format!("{config:?}: {e}"))?;
    let entry = |line: &str| match line.split_once(' ') {
        Some((name, value)) if name.len() <= NAME && value.len() <= VALUE => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(format!("{config:?}: not a name and a value: {line:?}").into()),
    };
    match text.len() {
        ..=CONFIG => text.lines().map(entry).collect(),
        _ => Err(format!("{config:?}: it is too long").into()),
    }
}
