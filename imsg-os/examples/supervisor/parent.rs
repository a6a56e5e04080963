//! The process that keeps its privileges.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use imsg_os::imsg_wire::typed::Protocol;
use imsg_os::process::{Worker, connected_pair};
use imsg_os::{Channel, Message, Modern, Next, Sender, Turn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::complain::complain;
use crate::protocol::{FromWorker, NAME, ToWorker, VALUE};
use crate::wait::{Socket, wait};
use crate::{Result, Role};

/// How long a worker may take to end.
const GRACE: Duration = Duration::from_secs(1);
/// A worker that dies more often than that in this time is not started again.
const DEATHS: (usize, Duration) = (5, Duration::from_secs(60));
/// Workers are not answered.
const TURN: Turn = Turn::new(0);
/// The longest payload for a worker.
const LARGEST: usize = 1 + NAME + VALUE;

pub(crate) fn run(config: &Path, path: &Path) -> Result<()> {
    let (hangups, stops) = (on_signals(&[SIGHUP])?, on_signals(&[SIGTERM, SIGINT])?);
    let values = read(config)?;
    let mut parent = Parent {
        listener: UnixListener::bind(path)?,
        engine: Child::start(Role::Engine)?,
        frontend: Child::start(Role::Frontend)?,
        values,
        generation: 1,
    };
    say(format_args!("listening on {}", path.display()));
    let result = parent.serve(config, hangups, &stops);
    fs::remove_file(path)?;
    let mut children = [parent.engine, parent.frontend];
    for child in &mut children {
        child.worker.terminate()?;
    }
    for child in children {
        child.end()?;
    }
    result
}

struct Parent {
    engine: Child,
    frontend: Child,
    values: Vec<(String, String)>,
    /// How often values were read.
    generation: u32,
    listener: UnixListener,
}

impl Parent {
    /// Runs until a signal says to stop.
    fn serve(&mut self, config: &Path, mut hangups: UnixStream, stops: &UnixStream) -> Result<()> {
        let (mut hung_up, mut stopped) = (false, false);
        self.connect()?;
        self.configure();
        self.listen()?;
        loop {
            if !self.engine.turn() {
                self.engine.restart()?;
                self.connect()?;
                self.configure();
            }
            if !self.frontend.turn() {
                self.frontend.restart()?;
                self.connect()?;
                self.listen()?;
            }
            wait(vec![
                Socket::input(&hangups, &mut hung_up),
                Socket::input(stops, &mut stopped),
                self.engine.socket(),
                self.frontend.socket(),
            ])?;
            if stopped {
                return Ok(());
            }
            if hung_up {
                let _ = hangups.read(&mut [0; 64]);
                match read(config) {
                    Ok(values) => {
                        self.values = values;
                        self.generation += 1;
                        self.configure();
                    }
                    Err(error) => complain("supervisor", format_args!("nothing changed: {error}")),
                }
            }
        }
    }

    /// Gives each worker one end of a new channel between them.
    fn connect(&mut self) -> Result<()> {
        let (one, other) = connected_pair()?;
        self.engine.unsent.push_back(Unsent::Peer(one));
        self.frontend.unsent.push_back(Unsent::Peer(other));
        Ok(())
    }

    fn listen(&mut self) -> Result<()> {
        self.frontend.unsent.push_back(Unsent::Listen(self.listener.try_clone()?.into()));
        Ok(())
    }

    /// Sends the values to the engine, in place of those that were not sent yet.
    fn configure(&mut self) {
        let unsent = &mut self.engine.unsent;
        unsent.retain(|message| matches!(message, Unsent::Peer(_) | Unsent::Listen(_)));
        unsent.push_back(Unsent::ConfigBegin);
        unsent.extend(self.values.iter().map(|(n, v)| Unsent::ConfigEntry(n.clone(), v.clone())));
        unsent.push_back(Unsent::ConfigEnd(self.generation));
    }
}

/// A worker while it runs.
struct Child {
    role: Role,
    worker: Worker,
    channel: Channel,
    readable: bool,
    unsent: VecDeque<Unsent>,
    deaths: Vec<Instant>,
}

/// A message that waits for room.
enum Unsent {
    Peer(OwnedFd),
    Listen(OwnedFd),
    ConfigBegin,
    ConfigEntry(String, String),
    ConfigEnd(u32),
}

impl Child {
    fn start(role: Role) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--worker", role.name()]).env_clear().stdin(Stdio::null());
        let (worker, socket) = Worker::start(command)?;
        // Descriptors are not allowed here: the kernel closes what a worker run wild may send.
        let channel = Channel::new(socket, Modern::new())?;
        let (unsent, deaths) = (VecDeque::new(), Vec::new());
        Ok(Self { role, worker, channel, readable: false, unsent, deaths })
    }

    /// Sends and receives what can be. `false` when the worker has died, or does what it should not.
    fn turn(&mut self) -> bool {
        let (role, pid) = (self.role.name(), self.worker.child.id());
        let heard = |message: Message<'_>, _: &mut Sender| -> Result<()> {
            match message.try_into()? {
                FromWorker::Ready(layers) => {
                    say(format_args!("{role} {pid} is ready, as user {}", layers.user));
                }
                FromWorker::Configured { generation } => {
                    say(format_args!("{role} {pid} has configuration {generation}"));
                }
            }
            Ok(())
        };
        let mut turn = || -> Result<Next> {
            loop {
                let tx = &mut self.channel.tx;
                while tx.has_room(LARGEST, true).is_ok()
                    && let Some(message) = self.unsent.pop_front()
                {
                    message.compose(tx)?;
                }
                let next = self.channel.turn(&TURN, self.readable, heard)?;
                self.readable = false;
                // What is not sent waits for room, unless this has made some.
                if self.unsent.is_empty() || self.channel.tx.has_room(LARGEST, true).is_err() {
                    return Ok(next);
                }
            }
        };
        turn().map(|next| next != Next::Done).unwrap_or_else(|error| {
            complain("supervisor", format_args!("the {role}: {error}"));
            false
        })
    }

    fn socket(&mut self) -> Socket<'_> {
        Socket::channel(&self.channel, &TURN, &mut self.readable)
    }

    /// Starts another one in place of this, which has died or is to.
    fn restart(&mut self) -> Result<()> {
        let now = Instant::now();
        let dead = mem::replace(self, Self::start(self.role)?);
        self.deaths.extend(dead.deaths.iter().filter(|then| now - **then < DEATHS.1));
        self.deaths.push(now);
        dead.end()?;
        if self.deaths.len() > DEATHS.0 {
            return Err(format!("the {} dies too often", self.role.name()).into());
        }
        Ok(())
    }

    /// Waits until it has ended, which the end of its channel tells it to do, and says how it did.
    fn end(self) -> Result<()> {
        let (role, pid) = (self.role.name(), self.worker.child.id());
        drop(self.channel);
        let status = self.worker.end(GRACE)?;
        say(format_args!("{role} {pid} has ended: {status}"));
        Ok(())
    }
}

impl Unsent {
    fn compose(self, tx: &mut Sender) -> Result<()> {
        let message = match self {
            Self::Peer(descriptor) => ToWorker::Peer { descriptor },
            Self::Listen(descriptor) => ToWorker::Listen { descriptor },
            Self::ConfigBegin => ToWorker::ConfigBegin,
            Self::ConfigEntry(ref name, ref value) => ToWorker::ConfigEntry { name, value },
            Self::ConfigEnd(generation) => ToWorker::ConfigEnd { generation },
        };
        Ok(message.compose(tx, 0)?)
    }
}

/// What becomes readable when one of these signals comes.
fn on_signals(signals: &[i32]) -> io::Result<UnixStream> {
    let (ours, handlers) = UnixStream::pair()?;
    for signal in signals {
        pipe::register(*signal, handlers.try_clone()?)?;
    }
    Ok(ours)
}

/// Reads names and values.
fn read(config: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(config).map_err(|e| format!("{}: {e}", config.display()))?;
    let entry = |line: &str| match line.split_once(' ') {
        Some((name, value)) if name.len() <= NAME && value.len() <= VALUE => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(format!("{}: not a name and a value: {line:?}", config.display()).into()),
    };
    text.lines().map(entry).collect()
}

/// Is `println`, but does not panic when nobody listens.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}
