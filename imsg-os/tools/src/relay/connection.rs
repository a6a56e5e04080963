//! A client, the connection to the server that was made for it, and what flows between them.
//!
//! # Bounds
//!
//! Each of the two [pipes](Pipe) has two buffers, and no message is taken before there is room for
//! it on the other side, nor is anything read while messages are left. So a connection holds, for
//! each side that is
//!
//! - classic, 2 buffers of 64 KiB;
//! - found out, 2 of 128 KiB;
//! - modern, 2 of 256 KiB;
//!
//! and at most 50 descriptors: two sockets and, in each pipe, 8 that were received and 16 that are
//! queued. It passes on [64 messages](TURN) of each side, and then the others have their turn.
//!
//! # Limits of time
//!
//! A side that passes its own end of the connection over the connection and dies is one that says
//! nothing more, and never hangs up. So the time for a message that has begun, or whose descriptor is
//! there, is limited; between messages, a side may be silent as long as it likes. Who does not read
//! is waited for, unless that is limited too, or descriptors wait: each may be the end of a peer
//! that is dead, and there is room for a few only.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use imsg_os::{
    Any, Channel, Deadline, Descriptor, Dialect, HEADER_LEN, Message, Missing, Pairing,
    ReadOutcome, Receiver, RecvError, Sender, WriteOutcome,
};
use mio::net::UnixStream;
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use super::side::Side;
use super::tap::{Tap, frame};

/// How connections are to be read and written.
pub(crate) struct Plan {
    /// The dialect of the clients, unless that is to be found out.
    pub(crate) clients: Option<Any>,
    pub(crate) server: Any,
    /// The rule, unless it is that of the dialect.
    pub(crate) pairing: Option<Pairing>,
    /// Whether this is the protocol of tmux.
    pub(crate) tmux: bool,
    /// The time for a message, from its first byte to its last.
    pub(crate) patience: Duration,
    /// The time to read something of what is queued, if that is limited.
    pub(crate) reader_patience: Option<Duration>,
}

/// How many messages of each side are passed on before other connections have their turn.
const TURN: usize = 64;

pub(crate) struct Connection {
    /// From the client to the server.
    up: Pipe,
    /// From the server to the client.
    down: Pipe,
}

/// What comes after a turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// Another one when a socket is ready.
    Wait,
    /// Another one after a while: no socket will say when it is time.
    Later,
    /// Another one, after the others have had theirs: there may be more to read.
    Again,
    /// Nothing.
    Done,
}

impl Connection {
    pub(crate) fn new(
        number: usize,
        client: UnixStream,
        server: UnixStream,
        plan: &Plan,
    ) -> io::Result<Self> {
        let client_end = End { name: "client", side: Side::new(plan.clients) };
        let server_end = End { name: "server", side: Side::new(Some(plan.server)) };
        let client = channel(client, &client_end.side)?;
        let server = channel(server, &server_end.side)?;
        let pipe = |from, to, rx, tx, clears_features| Pipe {
            number,
            from,
            to,
            rx,
            tx: Some(tx),
            pairing: plan.pairing,
            clears_features,
            ended: false,
            broken: false,
            passed_on: 0,
            to_send: Deadline::new(plan.patience),
            to_read: plan.reader_patience.map(Deadline::new),
            to_take_descriptors: Deadline::new(plan.patience),
            descriptors: 0,
            limit: None,
        };
        let up = pipe(client_end.clone(), server_end.clone(), client.rx, server.tx, plan.tmux);
        let down = pipe(server_end, client_end, server.rx, client.tx, false);
        Ok(Self { up, down })
    }

    pub(crate) fn client(&self) -> RawFd {
        self.up.rx.as_raw_fd()
    }

    pub(crate) fn server(&self) -> RawFd {
        self.down.rx.as_raw_fd()
    }

    /// When it has a turn even if nothing happens, as the time of a side may be over.
    pub(crate) fn limit(&self) -> Option<Instant> {
        [self.up.limit, self.down.limit].into_iter().flatten().min()
    }

    /// Does what can be done without waiting, for a while, and reads only once from each side.
    pub(crate) fn serve(&mut self, tap: &mut Tap, now: Instant) -> Turn {
        let turns = [&mut self.up, &mut self.down].map(|pipe| pipe.serve(tap, now));
        if self.up.is_over() && self.down.is_over() {
            return Turn::Done;
        }
        turns[0].max(turns[1])
    }

    /// The client is gone, so nobody reads what comes for it.
    pub(crate) fn client_hung_up(&mut self, tap: &mut Tap) {
        self.down.give_up(tap, HUNG_UP);
    }

    /// The server is gone, so nobody reads what comes for it.
    pub(crate) fn server_hung_up(&mut self, tap: &mut Tap) {
        self.up.give_up(tap, HUNG_UP);
    }

    /// Reads no more. What was read is passed on.
    pub(crate) fn end(&mut self) {
        self.up.ended = true;
        self.down.ended = true;
    }
}

const HUNG_UP: &str = "it hung up";

fn channel(socket: UnixStream, side: &Side) -> io::Result<Channel<Side>> {
    let mut channel = Channel::with_storage(socket, side.clone(), side.buffer()?, side.buffer()?)?;
    channel.rx.set_max_len(Dialect::max_len(side)).map_err(io::Error::other)?;
    channel.tx.set_max_len(Dialect::max_len(side)).map_err(io::Error::other)?;
    channel.rx.allow_descriptors();
    Ok(channel)
}

/// A client, or the server.
#[derive(Clone)]
struct End {
    name: &'static str,
    side: Side,
}

/// One direction of a connection.
struct Pipe {
    /// That of the connection.
    number: usize,
    from: End,
    to: End,
    rx: Receiver<Side>,
    /// None once the other side was told that no more comes, or takes no more.
    tx: Option<Sender<Side>>,
    pairing: Option<Pairing>,
    /// Whether this translates the greeting of tmux.
    clears_features: bool,
    /// Whether nothing more is read.
    ended: bool,
    /// Whether no more messages are taken, and the connection ends when what was taken is sent.
    broken: bool,
    /// How many bytes were queued, ever.
    passed_on: u64,
    to_send: Deadline,
    to_read: Option<Deadline>,
    /// The same, while descriptors are queued.
    to_take_descriptors: Deadline,
    /// How many descriptors were queued, ever.
    descriptors: u64,
    /// When the time of one of the sides is over.
    limit: Option<Instant>,
}

impl Pipe {
    fn is_over(&self) -> bool {
        self.tx.is_none()
    }

    fn serve(&mut self, tap: &mut Tap, now: Instant) -> Turn {
        self.limit = None;
        let turn = self.pass_on(tap).and_then(|turn| self.check_time(turn, tap, now));
        turn.unwrap_or_else(|error| {
            self.complain_of_sender(tap, error);
            self.ended = true;
            self.broken = true;
            Turn::Again
        })
    }

    /// Ends what takes too long. An error is one of the side that sends.
    fn check_time(
        &mut self,
        turn: Turn,
        tap: &mut Tap,
        now: Instant,
    ) -> Result<Turn, Box<dyn Error>> {
        let Self { rx, tx: Some(tx), .. } = &*self else { return Ok(turn) };
        // What cannot be sent for now is the fault of neither, and meanwhile nothing is read.
        let waits_for_others = turn == Turn::Later;
        let reads = !self.ended && !waits_for_others;
        let unfinished = if reads { rx.unfinished() } else { None };
        let queued = tx.queue_bytes() as u64;
        let unread = (queued > 0 && !waits_for_others).then_some(self.passed_on - queued);
        let holds_descriptors = tx.sent().descriptors < self.descriptors;
        let to_send = self.to_send.update(unfinished, now);
        let to_read = self.to_read.as_mut().and_then(|to_read| to_read.update(unread, now));
        let to_take = self.to_take_descriptors.update(unread.filter(|_| holds_descriptors), now);
        let to_read = to_read.into_iter().chain(to_take).min();
        let over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        if over(to_send) {
            return Err("it did not complete a message in time".into());
        }
        if over(to_read) {
            self.give_up(tap, "it did not read in time");
            self.ended = true;
            self.broken = true;
            return Ok(Turn::Done);
        }
        self.limit = to_send.into_iter().chain(to_read).min();
        Ok(turn)
    }

    /// Passes on what has arrived, for a while, and reads once. An error is one of the side that
    /// sends.
    fn pass_on(&mut self, tap: &mut Tap) -> Result<Turn, Box<dyn Error>> {
        let mut left = TURN;
        loop {
            left -= self.forward(tap, left)?;
            let Some(tx) = &mut self.tx else { return Ok(self.last_turn()) };
            let blocked = match tx.write() {
                Ok(outcome) => outcome == WriteOutcome::WouldBlock,
                Err(error) if has_too_many_on_their_way(&error) => return Ok(Turn::Later),
                Err(error) => {
                    self.give_up(tap, error);
                    return Ok(self.last_turn());
                }
            };
            let ready = !self.broken && self.rx.is_ready();
            if blocked && (ready || self.ended) {
                return Ok(Turn::Wait);
            }
            // Nothing is read on while messages are there.
            if !ready {
                break;
            }
            if left == 0 {
                return Ok(Turn::Again);
            }
        }
        if self.ended {
            // The other side reads the end of the stream, as this one did.
            if let Some(tx) = self.tx.take() {
                let _ = tx.shutdown();
            }
            return Ok(self.last_turn());
        }
        self.read(tap)
    }

    /// Takes up to this many messages as long as there is room for them, and queues them for the
    /// other side. Returns how many it took.
    fn forward(&mut self, tap: &mut Tap, most: usize) -> Result<usize, Box<dyn Error>> {
        let Self { number, from, to, rx, tx: Some(tx), .. } = self else { return Ok(0) };
        let mut taken = 0;
        // To ask whether a message is there may show the dialect, and with that the rule by which
        // what came with the message is to be paired.
        while taken < most && !self.broken && has_room(tx) && rx.is_ready() {
            rx.set_pairing(self.pairing.unwrap_or_else(|| from.side.pairing()));
            let Some(mut message) = rx.next_message()? else { break };
            tap.message(*number, to.name, &from.side, &message);
            check(&message, &to.side)?;
            if self.clears_features && from.side.known() != to.side.known() {
                clear_features(&mut message);
            }
            let descriptor = message.descriptor.take();
            self.descriptors += u64::from(descriptor.is_some());
            tx.forward(&message, descriptor)?;
            self.passed_on += (HEADER_LEN + message.payload.len()) as u64;
            taken += 1;
        }
        Ok(taken)
    }

    fn read(&mut self, tap: &mut Tap) -> Result<Turn, Box<dyn Error>> {
        match self.rx.read() {
            Ok(ReadOutcome::WouldBlock) => return Ok(Turn::Wait),
            Ok(ReadOutcome::Data) => {}
            Ok(ReadOutcome::Closed) => self.ended = true,
            // Said once, and before the end of the stream.
            Err(RecvError::Io(error)) if error.kind() == ErrorKind::ConnectionReset => {
                self.complain_of_sender(tap, "it hung up with something unread");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Turn::Again)
    }

    /// The side that this sends to takes no more; so the other one is told.
    fn give_up(&mut self, tap: &mut Tap, why: impl Display) {
        let Some(tx) = self.tx.take() else { return };
        let (number, to, lost) = (self.number, self.to.name, tx.queue_len());
        if lost > 0 {
            tap.complain(format_args!(
                "connection {number}: to the {to}: messages are lost, {lost} of them here: {why}"
            ));
        }
        let _ = shutdown(self.rx.as_raw_fd(), Shutdown::Read);
    }

    fn complain_of_sender(&self, tap: &mut Tap, what: impl Display) {
        let (number, from) = (self.number, self.from.name);
        tap.complain(format_args!("connection {number}: from the {from}: {what}"));
    }

    fn last_turn(&self) -> Turn {
        if self.broken { Turn::Done } else { Turn::Wait }
    }
}

/// Whether a message of any length, with a descriptor, would not be refused.
fn has_room(tx: &Sender<Side>) -> bool {
    tx.has_room(tx.max_len() - HEADER_LEN, true).is_ok()
}

/// Whether as many descriptors are on their way as this user may have there. The socket is
/// writable all the same, so it does not tell when it is time to try again.
fn has_too_many_on_their_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ETOOMANYREFS as i32)
}

/// Whether a message is whole, and the other side understands it.
fn check(message: &Message<'_>, to: &Side) -> Result<(), String> {
    let msg_type = message.header.msg_type;
    match message.descriptor {
        Descriptor::Missing(Missing::Dropped) => Err(format!(
            "the descriptor of a message of type {msg_type} is lost, as this program has no room \
             for it, or is not allowed to have it"
        )),
        Descriptor::Missing(_) => {
            Err(format!("a message of type {msg_type} came without its descriptor"))
        }
        _ => to
            .takes(&frame(message))
            .map_err(|why| format!("a message of type {msg_type} cannot be passed on: {why}")),
    }
}

/// The terminal features that a client of tmux asks for, as bits that mean other things in other
/// versions. With none, the server finds out itself.
fn clear_features(message: &mut Message<'_>) {
    const IDENTIFY_FEATURES: u32 = 109;
    const NONE: [u8; 4] = [0; 4];
    if message.header.msg_type == IDENTIFY_FEATURES && message.payload.len() == NONE.len() {
        message.payload = &NONE;
    }
}
