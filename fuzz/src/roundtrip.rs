//! From a send buffer through the model of a kernel into a receive buffer.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use arbitrary::{Arbitrary, Result, Unstructured};
use imsg_wire::testing::kernel::{Kernel, NoSlot, Socket};
use imsg_wire::testing::shim::{ReadOutcome, Shim};
use imsg_wire::testing::{Token, Tokens};
use imsg_wire::{
    Any, Descriptor, Endian, HEADER_LEN, Header, Message, Missing, NoRoom, NotOffered, Pairing,
    Reason, RecvBuf, Refused, SendBuf, Storage, Wiping,
};

use crate::meters::{LOOKS, Memory, Metered, Watched};
use crate::script;

/// How many descriptors the send buffer can hold.
const CAPACITY: usize = 3;

/// Queues messages in every way that there is, sends them in pieces of any size through a kernel
/// that cuts them where it likes, and receives them in pieces of any size.
///
/// After each step the queue has to have what was put into it and not sent, and nothing else. In
/// the end each message was received once, in order and with its own descriptor; no descriptor is
/// open but those that the queue holds; and neither side worked more than it may.
///
/// # Panics
///
/// When that is not so.
pub fn roundtrip(data: &[u8]) {
    if let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(data)) {
        let (storage, memory) = Watched::new(plan.max_len + plan.extra_to_send);
        if plan.wiping {
            Connection::new(&plan, Wiping::new(storage), memory).run(&plan.steps);
        } else {
            Connection::new(&plan, storage, memory).run(&plan.steps);
        }
    }
}

struct Plan {
    dialect: Any,
    rule: Pairing,
    kernel: Kernel,
    wiping: bool,
    /// Whether the receiver allows descriptors.
    allowed: bool,
    /// The largest message, for both sides.
    max_len: usize,
    /// What the storages have beside the place for one message of that size.
    extra_to_send: usize,
    extra_to_receive: usize,
    pid: u32,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    /// Queues a message with a payload of this many bytes.
    Queue {
        how: How,
        header: Header,
        len: usize,
        descriptor: bool,
    },
    /// Sends from where the payload is, behind what is queued, in so many calls, each of so many bytes
    /// at most; and queues the rest.
    Gather {
        forward: bool,
        header: Header,
        len: usize,
        descriptor: bool,
        calls: u8,
        most: usize,
        cut: usize,
    },
    /// Begins a message in place and gives it up; the descriptor is given back or closed.
    GiveUp {
        len: usize,
        descriptor: bool,
        given_back: bool,
    },
    /// Sends a message with a descriptor that is lent, if nothing is queued.
    Lend {
        header: Header,
        len: usize,
        sent: usize,
    },
    /// Sends so many bytes at most; `cut` decides how the kernel cuts them.
    Send {
        most: usize,
        cut: usize,
    },
    /// Says that more was sent than there is.
    Overconsume(usize),
    /// Reads so many bytes at most; the kernel may drop what comes with them.
    Receive {
        most: usize,
        dropped: bool,
    },
    Take(u8),
}

#[derive(Clone, Copy, Debug)]
enum How {
    Compose,
    /// In two parts.
    Parts(usize),
    Forward,
    /// In two parts.
    InPlace(usize),
}

impl Arbitrary<'_> for Plan {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let max_len = match u.int_in_range(0..=7)? {
            0 => HEADER_LEN,
            1..=3 => 40,
            4..=6 => 300,
            _ => usize::from(u.arbitrary::<u16>()?).max(HEADER_LEN),
        };
        Ok(Self {
            dialect: script::dialect(u)?,
            rule: *u.choose(&[Pairing::Exact, Pairing::Ordered])?,
            kernel: *u.choose(&Kernel::ALL)?,
            wiping: u.arbitrary()?,
            allowed: u.ratio(7, 8)?,
            max_len,
            extra_to_send: u.int_in_range(0..=2 * max_len)?,
            extra_to_receive: u.int_in_range(0..=2 * max_len)?,
            pid: u.arbitrary::<u8>()?.into(),
            steps: script::rest(u, 200)?,
        })
    }
}

impl Arbitrary<'_> for Step {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match u.int_in_range(0..=19)? {
            0..=4 => Self::Queue {
                how: how(u)?,
                header: header(u)?,
                len: length(u)?,
                descriptor: u.arbitrary()?,
            },
            5 => Self::Gather {
                forward: u.arbitrary()?,
                header: header(u)?,
                len: length(u)?,
                descriptor: u.arbitrary()?,
                calls: u.int_in_range(0..=3)?,
                most: length(u)?,
                cut: length(u)?,
            },
            6 => Self::GiveUp {
                len: length(u)?,
                descriptor: u.arbitrary()?,
                given_back: u.arbitrary()?,
            },
            7 => Self::Lend { header: header(u)?, len: length(u)?, sent: length(u)? },
            8..=11 => Self::Send { most: length(u)?, cut: length(u)? },
            12 => Self::Overconsume(1 + length(u)?),
            13..=16 => Self::Receive { most: length(u)?, dropped: u.ratio(1, 8)? },
            _ => Self::Take(u.int_in_range(1..=4)?),
        })
    }
}

fn how(u: &mut Unstructured<'_>) -> Result<How> {
    Ok(match u.int_in_range(0..=3)? {
        0 => How::Compose,
        1 => How::Parts(length(u)?),
        2 => How::Forward,
        _ => How::InPlace(length(u)?),
    })
}

fn header(u: &mut Unstructured<'_>) -> Result<Header> {
    let pid = *u.choose(&[0, 1, u32::MAX])?;
    let id = u.arbitrary::<u8>()?;
    Ok(Header { msg_type: u32::from(id) << 24 | 7, id: id.into(), pid })
}

/// Often a small length.
fn length(u: &mut Unstructured<'_>) -> Result<usize> {
    Ok(match u.arbitrary::<u8>()? {
        0xf0.. => u.arbitrary::<u16>()?.into(),
        len => usize::from(len) % 120,
    })
}

/// A connection from a program that sends to one that receives.
struct Connection<S> {
    queue: SendBuf<Metered, S, Token, CAPACITY>,
    talk: Talk,
    memory: Rc<Memory>,
    storage: usize,
    wiping: bool,
    /// Whether bytes of a message that was given up may be left.
    spoilt: bool,
    /// How many bytes may have been released for them.
    spoilt_bytes: usize,
    /// Where the queue starts in the storage unless bytes move.
    start: usize,
    /// How many bytes it had after the step before.
    queued: usize,
    /// How many bytes moved.
    moved: usize,
    decoded: Rc<Cell<usize>>,
    /// The descriptors of the sender.
    tokens: Tokens,
    socket: Socket<Token>,
    receiver: Receiver,
    /// Those on their way, and those of the receiver.
    sent_tokens: Tokens,
}

impl<S: Storage> Connection<S> {
    fn new(plan: &Plan, storage: S, memory: Rc<Memory>) -> Self {
        let (dialect, decoded) = Metered::new(plan.dialect);
        let mut queue = SendBuf::with_descriptors(dialect, storage);
        queue.set_max_len(plan.max_len).expect("no more than the storage has");
        queue.set_pid(plan.pid);
        Self {
            queue,
            talk: Talk::new(plan),
            memory,
            storage: plan.max_len + plan.extra_to_send,
            wiping: plan.wiping,
            spoilt: false,
            spoilt_bytes: 0,
            start: 0,
            queued: 0,
            moved: 0,
            decoded,
            tokens: Tokens::default(),
            socket: Socket::new(plan.kernel),
            receiver: Receiver::new(plan),
            sent_tokens: Tokens::default(),
        }
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Queue { how, header, len, descriptor } => {
                    self.queue(how, header, len, descriptor);
                }
                Step::Gather { forward, header, len, descriptor, calls, most, cut } => {
                    self.gather(forward, header, len, descriptor, (calls, most, cut));
                }
                Step::GiveUp { len, descriptor, given_back } => {
                    self.give_up(len, descriptor, given_back);
                }
                Step::Lend { header, len, sent } => self.lend(header, len, sent),
                Step::Send { most, cut } => self.send(most, cut),
                Step::Overconsume(more) => self.overconsume(more),
                Step::Receive { most, dropped } => {
                    self.receiver.receive(&mut self.socket, most, dropped, &self.talk);
                }
                Step::Take(takes) => (0..takes).for_each(|_| self.receiver.take(&self.talk)),
            }
            self.check();
        }
        while !self.queue.is_empty() || !self.socket.is_empty() {
            self.send(usize::MAX, 0);
            self.receiver.receive(&mut self.socket, usize::MAX, false, &self.talk);
            self.check();
        }
        self.receiver.end(&self.talk);
        assert_eq!(self.sent_tokens.count(), 0, "descriptors that no message had");
    }

    /// The queue has what it should have, and did no more than it may.
    fn check(&mut self) {
        let queued = self.talk.bytes.len() - self.talk.sent;
        assert_eq!(self.queue.queue_bytes(), queued);
        assert_eq!(self.queue.queue_len(), self.talk.unsent_messages());
        assert_eq!(self.queue.is_empty(), queued == 0);
        assert_eq!(self.tokens.count(), self.talk.descriptors.len(), "descriptors of the queue");
        match self.queue.chunk() {
            None => assert_eq!(queued, 0, "nothing to send"),
            Some(chunk) => {
                let (bytes, id) = self.talk.chunk();
                assert_eq!(chunk.bytes, bytes, "what to send next");
                assert_eq!(chunk.descriptor.map(|token| token.id()), id);
                let start = self.memory.position(chunk.bytes);
                if start != self.start {
                    assert!(self.queued <= self.start, "less is freed than moved");
                    self.moved += self.queued;
                    self.start = start;
                }
            }
        }
        self.queued = queued;
        if self.wiping && !self.spoilt && self.storage <= 1024 {
            self.check_wiped(self.start..self.start + queued);
        }

        let sent = self.talk.sent;
        assert!(self.moved <= sent, "{} bytes moved, {sent} sent", self.moved);
        let (released, used) = (self.memory.released(), sent + self.moved + self.spoilt_bytes);
        assert!(released <= used, "{released} bytes released, of {used}");
        let (decoded, messages) = (self.decoded.get(), self.talk.messages.len());
        assert!(decoded <= messages, "{decoded} headers decoded, of {messages}");
    }

    /// Nothing is left but the bytes `in_use`.
    fn check_wiped(&self, in_use: Range<usize>) {
        let bytes = self.memory.bytes(|| {
            self.queue.chunk();
        });
        let mut others = bytes[..in_use.start].iter().chain(&bytes[in_use.end..]);
        assert!(others.all(|byte| *byte == 0), "what was sent is not wiped");
    }

    fn queue(&mut self, how: How, header: Header, len: usize, descriptor: bool) {
        let Some(payload) = self.talk.payload(len) else {
            return;
        };
        let id = descriptor.then(|| self.talk.next_id());
        let token = id.map(|id| self.tokens.open(id));
        let room = self.queue.has_room(payload.len(), descriptor);
        self.check_room(payload.len(), descriptor, room);
        let queued = match how {
            How::Compose => self.queue.compose(header, payload, token),
            How::Parts(at) => {
                let (front, back) = payload.split_at(at.min(payload.len()));
                self.queue.compose_parts(header, &[front, back], token)
            }
            How::Forward => {
                let descriptor = Descriptor::<Token>::None;
                self.queue.forward(&Message { header, payload, descriptor }, token)
            }
            How::InPlace(at) => {
                let parts = payload.split_at(at.min(payload.len()));
                self.write_in_place(header, parts, token).map_err(|descriptor| {
                    let reason = room.expect_err("there is room to write it in place");
                    Refused { reason, descriptor }
                })
            }
        };
        match queued {
            Ok(()) => {
                assert_eq!(room, Ok(()), "there is no room for what was queued");
                let header =
                    if matches!(how, How::Forward) { header } else { self.talk.sign(header) };
                self.talk.descriptors.extend(id.map(|id| (self.talk.bytes.len(), id)));
                self.talk.add(header, payload, id);
                self.spoilt = false;
            }
            Err(refused) => {
                let full = self.talk.descriptors.len() == CAPACITY;
                check_refused(refused, id, room, full);
            }
        }
    }

    fn gather(
        &mut self,
        forward: bool,
        header: Header,
        len: usize,
        descriptor: bool,
        (calls, most, cut): (u8, usize, usize),
    ) {
        let Some(payload) = self.talk.payload(len) else {
            return;
        };
        let id = descriptor.then(|| self.talk.next_id());
        let token = id.map(|id| self.tokens.open(id));
        let room = self.queue.has_room(payload.len(), descriptor);
        self.check_room(payload.len(), descriptor, room);
        let whole = Message { header, payload, descriptor: Descriptor::<Token>::None };
        let full = self.talk.descriptors.len() == CAPACITY;
        let queue = &mut self.queue;
        let mut message = match if forward {
            queue.gather_forward(&whole, token)
        } else {
            queue.gather(header, payload, token)
        } {
            Ok(message) => message,
            Err(refused) => return check_refused(refused, id, room, full),
        };
        assert_eq!(room, Ok(()), "there is no room for the rest");
        let header = if forward { header } else { self.talk.sign(header) };
        self.talk.descriptors.extend(id.map(|id| (self.talk.bytes.len(), id)));
        self.talk.add(header, payload, id);
        self.spoilt = false;

        let mut sent = Vec::new();
        for _ in 0..calls {
            let (bytes, id) = self.talk.chunk();
            assert_eq!(message.parts().concat(), bytes, "what to send next");
            assert_eq!(message.descriptor().map(Token::id), id);
            let (claimed, offered) = (bytes.len() + 1, bytes.len());
            let refused = NotOffered { claimed, offered, returned: () };
            assert_eq!(message.consume(claimed).map(|token| token.is_some()), Err(refused));
            let bytes = bytes[..most.min(offered)].to_vec();
            let id = id.filter(|_| !bytes.is_empty());
            let done = message.consume(bytes.len()).expect("a part of what was offered");
            assert_eq!(done.map(|token| token.id()), id, "the descriptor that was sent");
            self.talk.pass(bytes.len(), id);
            sent.push((bytes, id));
        }
        drop(message);

        // What was queued before, and is not sent, may have moved for the rest.
        let total = sent.iter().map(|(bytes, _)| bytes.len()).sum::<usize>();
        self.start = if total < self.queued { self.start + total } else { 0 };
        self.queued = self.queued.saturating_sub(total);
        for (bytes, id) in sent {
            self.transmit(&bytes, id, cut);
        }
    }

    /// Gives the descriptor back when there is no room.
    fn write_in_place(
        &mut self,
        header: Header,
        (front, back): (&[u8], &[u8]),
        token: Option<Token>,
    ) -> Result<(), Option<Token>> {
        let returned = match self.queue.create(header, token) {
            Ok(mut message) => {
                if message.add(front).and_then(|()| message.add(back)).is_ok() {
                    message.close();
                    return Ok(());
                }
                message.abandon()
            }
            Err(refused) => refused.descriptor,
        };
        self.spoil();
        Err(returned)
    }

    /// A message in place was given up.
    fn spoil(&mut self) {
        self.spoilt = true;
        self.spoilt_bytes += self.storage;
    }

    /// What `has_room` says is what is promised.
    fn check_room(&self, payload: usize, descriptor: bool, room: Result<(), Reason>) {
        let (len, max) = (HEADER_LEN + payload, self.talk.max_len);
        let queued = self.queued;
        let free = self.storage - queued;
        match room {
            Ok(()) => {
                assert!(len <= max && len <= free, "{len} bytes do not fit");
                assert!(!descriptor || self.talk.descriptors.len() < CAPACITY);
            }
            Err(Reason::TooLong { .. }) => {
                assert_eq!(room, Err(Reason::TooLong { len, max }));
                assert!(len > max, "{len} bytes are not too long");
            }
            Err(Reason::DescriptorsFull) => {
                assert!(descriptor && self.talk.descriptors.len() == CAPACITY);
            }
            Err(Reason::Full { len: wanted, free: found }) => {
                assert!(wanted == len && found < len && found <= free, "{room:?}");
                assert!(queued + len > free, "what is queued could be moved");
            }
            Err(reason) => panic!("{reason}"),
        }
    }

    fn give_up(&mut self, len: usize, descriptor: bool, given_back: bool) {
        let id = descriptor.then(|| self.talk.next_id());
        let token = id.map(|id| self.tokens.open(id));
        let returned = match self.queue.create(Header::new(666), token) {
            Ok(mut message) => {
                let len = len.min(message.remaining());
                message.add(&vec![0xee_u8; len][..]).expect("room for what remains");
                if given_back { message.abandon() } else { None }
            }
            Err(refused) => refused.descriptor,
        };
        self.spoil();
        if given_back {
            assert_eq!(returned.map(|token| token.id()), id, "what is given back");
        }
    }

    fn lend(&mut self, header: Header, len: usize, sent: usize) {
        let Some(payload) = self.talk.payload(len) else {
            return;
        };
        let len = HEADER_LEN + payload.len();
        let (queued, max) = (self.queued, self.talk.max_len);
        match self.queue.lend(header, payload) {
            Ok(lent) => {
                assert!(queued == 0 && len <= max, "a message that has to wait");
                let header = self.talk.sign(header);
                let bytes = self.talk.encode(header, payload, true);
                assert_eq!(lent.parts().concat(), bytes, "what to send");
                let sent = sent % (len + 2);
                let refused = NotOffered { claimed: sent, offered: len, returned: () };
                let expected = if sent > len { Err(refused) } else { Ok(sent > 0) };
                assert_eq!(lent.sent(sent).map(|rest| rest.is_some()), expected);
                self.spoilt = false;
                if sent == 0 || sent > len {
                    return;
                }
                let id = self.talk.next_id();
                self.talk.add(header, payload, Some(id));
                // Only the rest was queued.
                self.talk.pass(sent, None);
                self.start = 0;
                self.transmit(&bytes[..sent], Some(id), 0);
            }
            Err(Reason::Full { .. }) => assert!(queued > 0, "nothing waits"),
            Err(reason) => assert_eq!((reason, queued), (Reason::TooLong { len, max }, 0)),
        }
    }

    fn send(&mut self, most: usize, cut: usize) {
        let Some(chunk) = self.queue.chunk() else {
            return;
        };
        let n = most.min(chunk.bytes.len());
        let (bytes, id) = (chunk.bytes[..n].to_vec(), chunk.descriptor.map(|token| token.id()));
        let id = id.filter(|_| n > 0);
        let done = self.queue.consume(n).expect("a part of the chunk");
        assert_eq!(done.map(|token| token.id()), id, "the descriptor that was sent");
        self.talk.pass(n, id);
        let all_sent = self.talk.sent == self.talk.bytes.len();
        self.start = if all_sent { 0 } else { self.start + n };
        self.transmit(&bytes, id, cut);
    }

    /// Gives `bytes` to the kernel, which cuts them.
    fn transmit(&mut self, bytes: &[u8], id: Option<u32>, cut: usize) {
        let descriptors = Vec::from_iter(id.map(|id| self.sent_tokens.open(id)));
        // Not into too many pieces.
        let size = |left: usize| if cut == 0 { left } else { cut.max(left / 16).min(left) };
        assert_eq!(self.socket.sendmsg(bytes, descriptors, size), Ok(bytes.len()));
    }

    fn overconsume(&mut self, more: usize) {
        let offered = self.queue.chunk().map_or(0, |chunk| chunk.bytes.len());
        let claimed = offered + more;
        let refused = NotOffered { claimed, offered, returned: () };
        assert_eq!(self.queue.consume(claimed).map(|token| token.is_some()), Err(refused));
    }
}

/// A message was refused for the reason that `room` gave, or as `full` says that there is no room
/// for its descriptor, which comes back.
fn check_refused(
    Refused { reason, descriptor }: Refused<Token>,
    id: Option<u32>,
    room: Result<(), Reason>,
    full: bool,
) {
    let none_left = full && id.is_some() && reason == Reason::DescriptorsFull;
    assert!(room == Err(reason) || none_left, "{reason:?} instead of {room:?}");
    assert_eq!(descriptor.map(|token| token.id()), id, "what is given back");
}

/// All that was to be sent, as one stream.
struct Talk {
    dialect: Any,
    pid: u32,
    max_len: usize,
    bytes: Vec<u8>,
    /// How many of them were sent.
    sent: usize,
    messages: Vec<Said>,
    /// The descriptors that are queued, and where their messages start.
    descriptors: VecDeque<(usize, u32)>,
}

struct Said {
    header: Header,
    payload: Range<usize>,
    descriptor: Option<u32>,
}

impl Talk {
    fn new(plan: &Plan) -> Self {
        Self {
            dialect: plan.dialect,
            pid: plan.pid,
            max_len: plan.max_len,
            bytes: Vec::new(),
            sent: 0,
            messages: Vec::new(),
            descriptors: VecDeque::new(),
        }
    }

    /// A payload for the next message, which may be too long; `None` when enough was said.
    fn payload(&self, len: usize) -> Option<&'static [u8]> {
        let len = len % (self.max_len - HEADER_LEN + 2);
        let enough = self.bytes.len() + len > script::MOST;
        (!enough).then(|| script::content(self.bytes.len(), len))
    }

    /// The number of the next message is that of its descriptor.
    fn next_id(&self) -> u32 {
        self.messages.len() as u32
    }

    fn sign(&self, header: Header) -> Header {
        Header { pid: if header.pid == 0 { self.pid } else { header.pid }, ..header }
    }

    fn add(&mut self, header: Header, payload: &[u8], descriptor: Option<u32>) {
        self.bytes.extend(self.encode(header, payload, descriptor.is_some()));
        let end = self.bytes.len();
        self.messages.push(Said { header, payload: end - payload.len()..end, descriptor });
    }

    fn encode(&self, header: Header, payload: &[u8], marked: bool) -> Vec<u8> {
        let len = (HEADER_LEN + payload.len()) as u32;
        let (endian, middle) = match self.dialect {
            Any::Modern(endian) => (endian, vec![len | u32::from(marked) << 31]),
            // Two numbers of 16 bits.
            Any::Classic(endian) => (endian, vec![len, marked.into()]),
        };
        let mut bytes = Vec::new();
        let mut put = |number: u32, width: usize| match endian {
            Endian::Little => bytes.extend(&number.to_le_bytes()[..width]),
            Endian::Big => bytes.extend(&number.to_be_bytes()[4 - width..]),
        };
        put(header.msg_type, 4);
        middle.iter().for_each(|number| put(*number, 4 / middle.len()));
        put(header.id, 4);
        put(header.pid, 4);
        bytes.extend(payload);
        bytes
    }

    /// What is to be sent next: up to the next message with a descriptor.
    fn chunk(&self) -> (&[u8], Option<u32>) {
        let unsent = &self.bytes[self.sent..];
        let id = self.descriptors.front().filter(|(start, _)| *start == self.sent);
        let next = self.descriptors.iter().find(|(start, _)| *start > self.sent);
        let end = next.map_or(unsent.len(), |(start, _)| start - self.sent);
        (&unsent[..end], id.map(|(_, id)| *id))
    }

    /// So many bytes were sent, with this descriptor.
    fn pass(&mut self, n: usize, id: Option<u32>) {
        self.sent += n;
        if id.is_some() {
            self.descriptors.pop_front();
        }
    }

    fn unsent_messages(&self) -> usize {
        self.messages.iter().rev().take_while(|said| said.payload.end > self.sent).count()
    }
}

/// A program that receives.
struct Receiver {
    buffer: RecvBuf<Metered, Vec<u8>, Token, 2>,
    shim: Shim,
    allowed: bool,
    /// How many bytes were received.
    received: usize,
    /// How many messages were taken.
    taken: usize,
    /// What the kernel dropped.
    dropped: BTreeSet<u32>,
    decoded: Rc<Cell<usize>>,
    /// How often the buffer was asked for something.
    calls: usize,
}

impl Receiver {
    fn new(plan: &Plan) -> Self {
        let (dialect, decoded) = Metered::new(plan.dialect);
        let mut buffer =
            RecvBuf::with_descriptors(dialect, vec![0; plan.max_len + plan.extra_to_receive]);
        buffer.set_max_len(plan.max_len).expect("no more than the storage has");
        buffer.set_pairing(plan.rule);
        if plan.allowed {
            buffer.allow_descriptors();
        }
        Self {
            buffer,
            shim: Shim::default(),
            allowed: plan.allowed,
            received: 0,
            taken: 0,
            dropped: BTreeSet::new(),
            decoded,
            calls: 0,
        }
    }

    fn receive(&mut self, socket: &mut Socket<Token>, most: usize, dropped: bool, talk: &Talk) {
        self.calls += 1;
        while self.buffer.spare() == Err(NoRoom::Full) {
            assert!(self.is_ready(talk), "a full buffer has something to take");
            self.take(talk);
            self.calls += 1;
        }
        self.calls += 1;
        // A kernel that may lose bytes then ends the stream, which is not for here.
        let may_break = matches!(socket.kernel().no_slot(), NoSlot::Breaks(_));
        let slots = if dropped && !may_break { 0 } else { usize::MAX };
        let read = self.shim.read(socket, &mut self.buffer, most.max(1), slots);
        match read.expect("an honest peer") {
            ReadOutcome::Data(n) => self.received += n,
            ReadOutcome::WouldBlock => {}
            ReadOutcome::Full => panic!("there was room"),
            ReadOutcome::Closed => panic!("the sender has not ended the stream"),
        }
        self.dropped.extend(socket.take_lost().iter().map(|token| token.id()));
    }

    /// Takes a message if there is one, which must be the next one that was sent.
    fn take(&mut self, talk: &Talk) {
        let ready = self.is_ready(talk);
        assert_eq!(self.buffer.is_ready(), ready, "whether a message is there");
        self.calls += 2;
        let found = self.buffer.next_message().expect("an honest peer");
        assert_eq!(found.is_some(), ready, "a message");
        let Some(found) = found else {
            return;
        };
        let said = &talk.messages[self.taken];
        assert_eq!(found.header, said.header);
        assert_eq!(found.payload, &talk.bytes[said.payload.clone()], "the payload");
        let descriptor = match said.descriptor {
            None => Descriptor::None,
            Some(_) if !self.allowed => Descriptor::Missing(Missing::NotAllowed),
            Some(id) if self.dropped.contains(&id) => Descriptor::Missing(Missing::Dropped),
            Some(id) => Descriptor::Here(id),
        };
        let found = match found.descriptor {
            Descriptor::None => Descriptor::None,
            Descriptor::Here(token) => Descriptor::Here(token.id()),
            Descriptor::Missing(why) => Descriptor::Missing(why),
        };
        assert_eq!(found, descriptor);
        self.taken += 1;
        // A call looks at one header, and once for a descriptor at each that came with it.
        let headers = talk.messages.partition_point(|said| said.payload.start <= self.received);
        let (decoded, allowed) = (self.decoded.get(), LOOKS * self.calls + headers);
        assert!(decoded <= allowed, "{decoded} headers decoded, {allowed} allowed");
    }

    fn is_ready(&self, talk: &Talk) -> bool {
        talk.messages.get(self.taken).is_some_and(|next| next.payload.end <= self.received)
    }

    /// Takes all that is left. All was received then.
    fn end(&mut self, talk: &Talk) {
        self.buffer.finish();
        while self.is_ready(talk) {
            self.take(talk);
        }
        assert_eq!(self.taken, talk.messages.len(), "messages that were not received");
        self.take(talk);
        assert_eq!(self.buffer.spare(), Err(NoRoom::Finished));
    }
}
