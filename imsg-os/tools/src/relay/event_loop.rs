//! The event loop.
//!
//! `mio` tells only that a socket has become ready, once (edge-triggered). So a connection has one
//! turn after the other until all that it could do would block: what is blocked by a read or a
//! write that found no place goes on with the event of that socket, and a pipe that does not read
//! for want of room has something queued. A hang-up is an event, too, and told once. What is no
//! event is that the time of a side is over; so a connection has a turn then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::mem;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::connection::{Connection, Plan, Turn};
use super::listener::{Arrival, Identity, Listener, target};
use super::tap::Tap;

/// After what time to try again what no event tells the time for.
const RETRY: Duration = Duration::from_millis(100);

/// How many clients are taken before the connections have a turn.
const ARRIVALS: usize = 64;

// Connections are numbered from 1 on. The client of number n has the token 2 n, its server the
// next one.
const LISTENER: usize = 0;
const END: Token = Token(1);

/// Where to connect for each client.
pub(crate) struct Server {
    pub(crate) path: PathBuf,
    /// The socket of this relay, which would be connected to itself without end.
    pub(crate) not: Option<Identity>,
}

impl Server {
    fn connect(&self) -> io::Result<UnixStream> {
        if self.not.is_some() && self.not == target(&self.path) {
            return Err(io::Error::other("it is the socket of this relay"));
        }
        UnixStream::connect(&self.path)
    }
}

pub(crate) struct Relay {
    server: Server,
    plan: Plan,
    max_clients: usize,
    tap: Tap,
    poll: Poll,
    /// None when no more clients are taken.
    listener: Option<Listener>,
    /// A client for which the server has no place now.
    waiting: Option<UnixStream>,
    connections: BTreeMap<usize, Connection>,
    /// The number of the last client.
    last: usize,
    /// Who has a turn next.
    turns: BTreeSet<usize>,
    /// Who has a turn after a while, and none before: what they try in vain is an event by itself.
    later: BTreeSet<usize>,
    /// When that is, if there are any.
    retry: Option<Instant>,
    /// When the time of a side is over, with the numbers of their connections.
    limits: BTreeSet<(Instant, usize)>,
}

impl Relay {
    pub(crate) fn new(
        mut listener: Listener,
        server: Server,
        plan: Plan,
        max_clients: usize,
        tap: Tap,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let readable = Interest::READABLE;
        poll.registry().register(&mut listener.socket, Token(LISTENER), readable)?;
        Ok(Self {
            server,
            plan,
            max_clients,
            tap,
            poll,
            listener: Some(listener),
            waiting: None,
            connections: BTreeMap::new(),
            last: 0,
            turns: BTreeSet::new(),
            later: BTreeSet::new(),
            retry: None,
            limits: BTreeSet::new(),
        })
    }

    /// What ends it, when it is woken.
    pub(crate) fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), END)
    }

    /// Serves clients until it is woken, and then those that are left.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        while self.listener.is_some() || !self.connections.is_empty() {
            self.tap.flush();
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let now = Instant::now();
            if self.retry.is_some_and(|at| at <= now) {
                self.turns.append(&mut self.later);
                self.retry = None;
            }
            let over = self.limits.iter().take_while(|(at, _)| *at <= now);
            self.turns.extend(over.map(|&(_, number)| number));
            for event in &events {
                if event.token() == END {
                    self.end();
                    continue;
                }
                let (number, is_server) = (event.token().0 / 2, event.token().0 % 2 == 1);
                if !self.later.contains(&number) {
                    self.turns.insert(number);
                }
                if event.is_write_closed()
                    && let Some(connection) = self.connections.get_mut(&number)
                {
                    let tap = &mut self.tap;
                    if is_server {
                        connection.server_hung_up(tap);
                    } else {
                        connection.client_hung_up(tap);
                    }
                }
            }
            for number in mem::take(&mut self.turns) {
                match self.serve(number, now) {
                    Turn::Again => _ = self.turns.insert(number),
                    Turn::Later => {
                        self.later.insert(number);
                        self.retry.get_or_insert_with(|| Instant::now() + RETRY);
                    }
                    Turn::Wait => {}
                    Turn::Done => _ = self.connections.remove(&number),
                }
            }
        }
        self.tap.flush();
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.turns.is_empty() {
            return Some(Duration::ZERO);
        }
        let limit = self.limits.first().map(|&(at, _)| at);
        let next = self.retry.into_iter().chain(limit).min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Takes no more clients, and reads no more.
    fn end(&mut self) {
        self.listener = None;
        self.waiting = None;
        self.connections.values_mut().for_each(Connection::end);
        self.turns.extend(self.connections.keys());
    }

    fn serve(&mut self, number: usize, now: Instant) -> Turn {
        if number == LISTENER {
            return self.take_clients();
        }
        let Some(connection) = self.connections.get_mut(&number) else { return Turn::Done };
        if let Some(limit) = connection.limit() {
            self.limits.remove(&(limit, number));
        }
        let turn = connection.serve(&mut self.tap, now);
        if turn != Turn::Done {
            self.limits.extend(connection.limit().map(|limit| (limit, number)));
        }
        turn
    }

    fn take_clients(&mut self) -> Turn {
        for _ in 0..ARRIVALS {
            let client = match self.waiting.take() {
                Some(client) => client,
                None => match self.listener.as_mut().map_or(Arrival::Nobody, Listener::accept) {
                    Arrival::Client(client) => {
                        self.last += 1;
                        client
                    }
                    Arrival::Refused(why) => {
                        self.last += 1;
                        self.refuse(&why);
                        continue;
                    }
                    Arrival::Nobody => return Turn::Wait,
                    Arrival::Unknown => return Turn::Later,
                },
            };
            if self.connections.len() >= self.max_clients {
                self.refuse(&"there are as many clients as are allowed");
                continue;
            }
            match self.server.connect() {
                // As many wait there as may; meanwhile, others wait here.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.waiting = Some(client);
                    return Turn::Later;
                }
                Err(error) => self.refuse(&format!("{}: {error}", self.server.path.display())),
                Ok(server) => {
                    if let Err(error) = self.connect(client, server) {
                        self.refuse(&error);
                    }
                }
            }
        }
        Turn::Again
    }

    fn connect(&mut self, client: UnixStream, server: UnixStream) -> io::Result<()> {
        let connection = Connection::new(self.last, client, server, &self.plan)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let tokens = [2 * self.last, 2 * self.last + 1].map(Token);
        for (socket, token) in [connection.client(), connection.server()].iter().zip(tokens) {
            self.poll.registry().register(&mut SourceFd(socket), token, both)?;
        }
        self.tap.connection(self.last);
        self.connections.insert(self.last, connection);
        Ok(())
    }

    /// Says that the last client was hung up on.
    fn refuse(&mut self, why: &dyn Display) {
        let number = self.last;
        self.tap.complain(format_args!("connection {number} cannot be made: {why}"));
    }
}
