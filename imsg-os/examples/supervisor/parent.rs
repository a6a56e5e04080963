//! The process that keeps its privileges.

use std::collections::VecDeque;
use std::fs;
use std::io::Read;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imsg_os::imsg_wire::typed::Protocol;
use imsg_os::process::{Worker, connected_pair};
use imsg_os::{Channel, Message, Modern, Refused, Sender, Turn};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use crate::Result;
use crate::complain::complain;
use crate::listen::Listener;
use crate::protocol::{FromWorker, NAME, ToWorker, VALUE};
use crate::wait::{Socket, goes_on, on_signals, wait};

const GRACE: Duration = Duration::from_secs(1); // that workers may take to end
/// A worker that dies more often than that in this time is not started again.
const DEATHS: (usize, Duration) = (5, Duration::from_secs(60));
const TURN: Turn = Turn::silent();
/// The longest payload for a worker.
const LARGEST: usize = 1 + NAME + VALUE;

pub(crate) fn run(config: &Path, path: &Path) -> Result<()> {
    // Whoever started this may ignore SIGCHLD, and then nobody is told how a worker ended.
    signal_hook::flag::register(SIGCHLD, Arc::default())?;
    let (hangups, stops) = (on_signals(&[SIGHUP])?, on_signals(&[SIGTERM, SIGINT])?);
    let values = read(config)?;
    let listener = Listener::bind(path)?;
    let workers = [Child::start("engine")?, Child::start("frontend")?];
    let mut parent = Parent { workers, values, generation: 1, listener };
    complain("supervisor", format_args!("listening on {path:?}"));
    let result = parent.serve(config, hangups, &stops);
    drop(parent.listener);
    for child in &mut parent.workers {
        child.worker.terminate()?;
    }
    for child in parent.workers {
        child.end(GRACE)?;
    }
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
        let (mut hung_up, mut stopped) = (false, false);
        self.introduce()?;
        while !stopped {
            if let Some(dead) = self.workers.iter_mut().find_map(|it| (!it.turn()).then_some(it)) {
                dead.restart()?;
                self.introduce()?;
                continue;
            }
            let mut sockets = vec![Socket::input(&hangups, &mut hung_up)];
            sockets.push(Socket::input(stops, &mut stopped));
            for Child { channel, readable, .. } in &mut self.workers {
                sockets.push(Socket::channel(channel, &TURN, readable));
            }
            wait(sockets)?;
            if hung_up {
                let _ = hangups.read(&mut [0; 64]);
                match read(config) {
                    Ok(values) => {
                        (self.values, self.generation) = (values, self.generation + 1);
                        self.configure();
                    }
                    Err(error) => complain("supervisor", format_args!("nothing changed: {error}")),
                }
            }
        }
        Ok(())
    }

    /// Connects the workers to each other, and sends them what they need.
    fn introduce(&mut self) -> Result<()> {
        let (one, other) = connected_pair()?;
        let socket = self.listener.try_clone()?.into();
        let [engine, frontend] = &mut self.workers;
        engine.send(|tx| ToWorker::Peer { descriptor: one }.compose(tx, 0));
        frontend.send(|tx| ToWorker::Peer { descriptor: other }.compose(tx, 0));
        frontend.send(|tx| ToWorker::Listen { descriptor: socket }.compose(tx, 0));
        self.configure();
        Ok(())
    }

    /// Sends all values to the engine.
    fn configure(&mut self) {
        let (engine, generation) = (&mut self.workers[0], self.generation);
        engine.send(|tx| ToWorker::ConfigBegin.compose(tx, 0));
        for (name, value) in self.values.clone() {
            engine.send(move |tx| {
                ToWorker::ConfigEntry { name: &name, value: &value }.compose(tx, 0)
            });
        }
        engine.send(move |tx| ToWorker::ConfigEnd { generation }.compose(tx, 0));
    }
}

type Composed = Result<(), Refused<OwnedFd>>;
type Unsent = Box<dyn FnOnce(&mut Sender) -> Composed>;

/// A worker while it runs.
struct Child {
    role: &'static str,
    worker: Worker,
    channel: Channel,
    readable: bool,
    unsent: VecDeque<Unsent>,
    deaths: Vec<Instant>,
}

impl Child {
    fn start(role: &'static str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--worker", role]).env_clear().stdin(Stdio::null());
        let (worker, socket) = Worker::start(command)?;
        // Descriptors are not allowed here: the kernel closes what a worker run wild may send.
        let channel = Channel::new(socket, Modern::new())?;
        let (unsent, deaths) = (VecDeque::new(), Vec::new());
        Ok(Self { role, worker, channel, readable: false, unsent, deaths })
    }

    /// Sends and receives what can be. `false` when it has died, or did what it should not.
    fn turn(&mut self) -> bool {
        let (role, pid) = (self.role, self.worker.child.id());
        let heard = |message: Message<'_>, _: &mut Sender| -> Result<()> {
            let what = match message.try_into()? {
                FromWorker::Ready(layers) => format!("is ready, as user {}", layers.user),
                FromWorker::Configured { generation } => format!("has configuration {generation}"),
            };
            complain("supervisor", format_args!("{role} {pid} {what}"));
            Ok(())
        };
        loop {
            let tx = &mut self.channel.tx;
            while tx.has_room(LARGEST, true).is_ok()
                && let Some(compose) = self.unsent.pop_front()
            {
                compose(tx).unwrap_or_else(|refused| complain("supervisor", refused));
            }
            let readable = mem::take(&mut self.readable);
            if !goes_on(role, self.channel.turn(&TURN, readable, heard)) {
                return false;
            }
            // What is not sent waits for room, unless this has made some.
            if self.unsent.is_empty() || self.channel.tx.has_room(LARGEST, true).is_err() {
                return true;
            }
        }
    }

    /// Has a message sent once there is room.
    fn send(&mut self, compose: impl FnOnce(&mut Sender) -> Composed + 'static) {
        self.unsent.push_back(Box::new(compose));
    }

    /// Starts another one in place of this, which has died or is to.
    fn restart(&mut self) -> Result<()> {
        let now = Instant::now();
        let dead = mem::replace(self, Self::start(self.role)?);
        self.deaths.extend(dead.deaths.iter().filter(|then| now - **then < DEATHS.1));
        self.deaths.push(now);
        dead.end(Duration::from_millis(50))?; // the others wait
        if self.deaths.len() > DEATHS.0 {
            return Err(format!("the {} dies too often", self.role).into());
        }
        Ok(())
    }

    /// Waits until it has ended, which the end of its channel tells it to do, and says how it did.
    fn end(mut self, limit: Duration) -> Result<()> {
        let (role, pid) = (self.role, self.worker.child.id());
        drop(self.channel);
        let status = self.worker.end(limit)?;
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
    text.lines().map(entry).collect()
}
