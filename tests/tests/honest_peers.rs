//! Whatever an honest peer sends comes out as it was sent, each descriptor at its own message.
//!
//! A peer, a kernel and a program are simulated. All that a real system leaves to chance is chosen
//! by proptest: where a send falls short, how the kernel cuts a send into socket buffers, how much
//! is read at once, when the program takes messages, and when it can have no more descriptors.
//! Descriptors are numbers. Each rule is tried on the kernels on which it is said to be right.

use std::collections::VecDeque;
use std::fmt;

use imsg_tests::effort::cases;
use imsg_tests::rules::{Generation, right_on};
use imsg_wire::testing::kernel::{CONTROL, Errno, Kernel, NoSlot, Socket};
use imsg_wire::testing::senders::{Ends, Sender, Unmarking};
use imsg_wire::testing::shim::{Broken, FEW, ReadOutcome, Shim};
use imsg_wire::{
    Ancillary, Classic, Descriptor, Dialect, Error, HEADER_LEN, Header, Message, Missing, Modern,
    NoRoom, Pairing, Reason, RecvBuf, Refused, SendBuf, WriteError,
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn modern_messages_arrive_as_sent_under_the_exact_rule(
        talk in talk_on(right_on(Generation::Begins, Pairing::Exact)),
    ) {
        let sender = Begins::new(Modern::new(), &talk);
        let received = converse::<_, 2>(Modern::new(), Pairing::Exact, sender, &talk);
        prop_assert_eq!(received.outcome, received.expected);
    }

    #[test]
    fn modern_messages_arrive_as_sent_under_the_ordered_rule(
        talk in talk_on(right_on(Generation::Begins, Pairing::Ordered)),
    ) {
        let sender = Begins::new(Modern::new(), &talk);
        let received = converse::<_, 2>(Modern::new(), Pairing::Ordered, sender, &talk);
        prop_assert_eq!(received.outcome, received.expected);
    }

    #[test]
    fn classic_messages_arrive_as_sent_under_the_exact_rule(
        talk in talk_on(right_on(Generation::Begins, Pairing::Exact)),
    ) {
        let sender = Begins::new(Classic::new(), &talk);
        let received = converse::<_, 2>(Classic::new(), Pairing::Exact, sender, &talk);
        prop_assert_eq!(received.outcome, received.expected);
    }

    #[test]
    fn classic_messages_arrive_as_sent_under_the_ordered_rule(
        talk in talk_on(right_on(Generation::Begins, Pairing::Ordered)),
    ) {
        let sender = Begins::new(Classic::new(), &talk);
        let received = converse::<_, 2>(Classic::new(), Pairing::Ordered, sender, &talk);
        prop_assert_eq!(received.outcome, received.expected);
    }

    #[test]
    fn messages_of_the_old_generation_arrive_as_sent_under_the_ordered_rule(
        talk in talk_on(right_on(Generation::Ends, Pairing::Ordered)),
    ) {
        let sender = Ends::default();
        let received = converse::<_, 64>(Classic::new(), Pairing::Ordered, sender, &talk);
        prop_assert_eq!(received.outcome, received.expected);
    }

    #[test]
    fn messages_without_marks_arrive_as_sent_under_the_unmarked_rule(
        talk in talk_on(right_on(Generation::Unmarked, Pairing::Unmarked)),
    ) {
        let sender = Unmarking::default();
        let received = converse::<_, 2>(Classic::new(), Pairing::Unmarked, sender, &talk);
        prop_assert_eq!(received.outcome, received.expected);
    }

    #[test]
    fn each_descriptor_is_given_back_once_it_is_sent(talk in talk()) {
        let mut sender = Begins::new(Modern::new(), &talk);
        send_all(&mut sender, &talk, |_| ());
        let sent: Vec<u32> = talk.descriptors().collect();
        prop_assert_eq!(sender.given_back, sent);
    }

    #[test]
    fn queue_len_is_the_number_of_messages_not_wholly_sent(talk in talk()) {
        let mut sender = Begins::new(Modern::new(), &talk);
        let mut differing = Vec::new();
        send_all(&mut sender, &talk, |sender| {
            let (actual, counted) = (sender.queue.queue_len(), sender.unsent.len());
            if actual != counted {
                differing.push((actual, counted));
            }
        });
        prop_assert_eq!(differing, []);
    }

    #[test]
    fn queue_bytes_is_the_number_of_bytes_not_sent(talk in talk()) {
        let mut sender = Begins::new(Modern::new(), &talk);
        let mut differing = Vec::new();
        send_all(&mut sender, &talk, |sender| {
            let (actual, counted) = (sender.queue.queue_bytes(), sender.unsent.iter().sum::<usize>());
            if actual != counted {
                differing.push((actual, counted));
            }
        });
        prop_assert_eq!(differing, []);
    }

    #[test]
    fn under_the_exact_rule_it_does_not_matter_when_messages_are_taken(
        talk in talk(), faults in faults(), pauses in choices(),
    ) {
        let reads = reads(Begins::new(Modern::new(), &talk), &talk, &faults);
        let at_once = replay::<_, 2>(Modern::new(), Pairing::Exact, &reads, None);
        let late = replay::<_, 2>(Modern::new(), Pairing::Exact, &reads, Some(pauses));
        prop_assert_eq!(at_once, late);
    }

    #[test]
    fn under_the_ordered_rule_it_does_not_matter_when_messages_are_taken(
        talk in talk(), faults in faults(), pauses in choices(),
    ) {
        let reads = reads(Ends::default(), &talk, &faults);
        let at_once = replay::<_, 2>(Classic::new(), Pairing::Ordered, &reads, None);
        let late = replay::<_, 2>(Classic::new(), Pairing::Ordered, &reads, Some(pauses));
        prop_assert_eq!(at_once, late);
    }

    #[test]
    fn under_the_unmarked_rule_it_does_not_matter_when_messages_are_taken(
        talk in talk(), faults in faults(), pauses in choices(),
    ) {
        let reads = reads(Unmarking::default(), &talk, &faults);
        let at_once = replay::<_, 2>(Classic::new(), Pairing::Unmarked, &reads, None);
        let late = replay::<_, 2>(Classic::new(), Pairing::Unmarked, &reads, Some(pauses));
        prop_assert_eq!(at_once, late);
    }
}

/// Shrinking is allowed to take long: it runs only when a test fails.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: cases(1000),
        failure_persistence: None,
        max_shrink_iters: 100_000,
        ..ProptestConfig::default()
    }
}

/// What a sending program is told by `getpid`.
const SENDER_PID: u32 = 4711;

/// Messages, and everything that decides how they travel.
#[derive(Clone, Debug)]
struct Talk {
    messages: Vec<Planned>,
    /// The largest message, header included: both sides are set to it.
    max_len: usize,
    /// The room that the storages have beside one message of that size.
    extra_to_send: usize,
    extra_to_receive: usize,
    kernel: Kernel,
    /// The room that there is on the way.
    capacity: usize,
    /// Whether the sender waits in its calls.
    waits: bool,
    /// Whether the receiver cannot have any more descriptors at times.
    scarce: bool,
    choices: Choices,
}

/// A message to be sent. Its descriptor is its number in the conversation.
#[derive(Clone, Debug)]
struct Planned {
    header: Header,
    payload_len: usize,
    carries_descriptor: bool,
}

fn talk() -> impl Strategy<Value = Talk> {
    talk_on(Kernel::ALL.to_vec())
}

fn talk_on(kernels: Vec<Kernel>) -> impl Strategy<Value = Talk> {
    let max_len = prop_oneof![Just(HEADER_LEN), Just(40), Just(300), Just(16384)];
    let kernel = prop::sample::select(kernels);
    (max_len, kernel, any::<bool>(), any::<bool>()).prop_flat_map(
        |(max_len, kernel, waits, scarce)| {
            let messages = prop::collection::vec(planned(max_len - HEADER_LEN), 0..24);
            let extra = || 0..=2 * max_len;
            // There is always room at last for a descriptor and what has to go with it.
            let least = CONTROL + if kernel.fails_when_full() { FEW } else { 1 };
            let capacity = prop_oneof![
                2 => least..least + 64,
                1 => least..least + 2 * max_len,
                1 => Just(usize::MAX),
            ];
            (messages, extra(), extra(), capacity, choices()).prop_map(
                move |(messages, extra_to_send, extra_to_receive, capacity, choices)| Talk {
                    messages,
                    max_len,
                    extra_to_send,
                    extra_to_receive,
                    kernel,
                    capacity,
                    waits,
                    scarce,
                    choices,
                },
            )
        },
    )
}

fn planned(max_payload: usize) -> impl Strategy<Value = Planned> {
    let payload_len = prop_oneof![
        3 => Just(0),
        3 => 0..=max_payload.min(64),
        1 => 0..=max_payload,
        1 => Just(max_payload),
    ];
    (any::<(u32, u32)>(), pid(), payload_len, any::<bool>()).prop_map(
        |((msg_type, id), pid, payload_len, carries_descriptor)| Planned {
            header: Header { msg_type, id, pid },
            payload_len,
            carries_descriptor,
        },
    )
}

fn pid() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(u32::MAX), any::<u32>()]
}

impl Talk {
    /// The header and payload of message `at`, as they are to arrive, and its descriptor.
    fn message(&self, at: usize) -> (Header, Vec<u8>, Option<u32>) {
        let Planned { mut header, payload_len, carries_descriptor } = self.messages[at];
        if header.pid == 0 {
            header.pid = SENDER_PID;
        }
        // The bytes tell both the message and the place in it.
        let payload = (0..payload_len).map(|place| (31 * at + place + place / 251) as u8).collect();
        (header, payload, carries_descriptor.then_some(at as u32))
    }

    fn descriptors(&self) -> impl Iterator<Item = u32> {
        (0..self.messages.len()).filter_map(|at| self.message(at).2)
    }
}

/// A source of arbitrary small decisions, which repeat when they run out.
#[derive(Clone)]
struct Choices {
    values: Vec<u16>,
    next: usize,
}

fn choices() -> impl Strategy<Value = Choices> {
    prop::collection::vec(any::<u16>(), 1..200).prop_map(|values| Choices { values, next: 0 })
}

/// On one line.
impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.values)
    }
}

impl Choices {
    fn next(&mut self) -> usize {
        let value = self.values[self.next % self.values.len()];
        self.next += 1;
        usize::from(value)
    }

    /// A number less than `end`.
    fn below(&mut self, end: usize) -> usize {
        self.next() % end
    }

    /// A size from 1 to `most`: often a small one, often all.
    fn size(&mut self, most: usize) -> usize {
        let value = self.next();
        match value % 4 {
            0 => most,
            1 => 1 + value / 4 % most.min(40),
            _ => 1 + value / 4 % most,
        }
    }
}

/// A sending program, with its library.
trait Library: Sender<Descriptor = u32> {
    /// Queues a message, or gives the descriptor back because something must be sent before.
    fn queue(
        &mut self,
        header: Header,
        payload: &[u8],
        descriptor: Option<u32>,
        choices: &mut Choices,
    ) -> Result<(), Option<u32>>;
}

/// Our own sender, in the `begins` way of imsg-buffer.c 1.13 and later.
struct Begins<D> {
    queue: SendBuf<D, Vec<u8>, u32, 3>,
    /// The unsent bytes of each message that was queued and not wholly sent.
    unsent: VecDeque<usize>,
    /// The descriptors that were given back after they were sent.
    given_back: Vec<u32>,
}

impl<D: Dialect> Begins<D> {
    fn new(dialect: D, talk: &Talk) -> Self {
        let mut queue =
            SendBuf::with_descriptors(dialect, vec![0; talk.max_len + talk.extra_to_send]);
        queue.set_max_len(talk.max_len).unwrap();
        queue.set_pid(SENDER_PID);
        Self { queue, unsent: VecDeque::new(), given_back: Vec::new() }
    }

    fn compose(
        &mut self,
        header: Header,
        payload: &[u8],
        descriptor: Option<u32>,
        choices: &mut Choices,
    ) -> Result<(), Option<u32>> {
        match choices.below(4) {
            0 => self.queue.compose(header, payload, descriptor).map_err(not_now),
            1 => {
                let parts = parts(payload, choices);
                self.queue.compose_parts(header, &parts, descriptor).map_err(not_now)
            }
            2 if header.pid != 0 => {
                let message = Message { header, payload, descriptor: Descriptor::<u32>::None };
                self.queue.forward(&message, descriptor).map_err(not_now)
            }
            _ => self.create(header, payload, descriptor, choices),
        }
    }

    fn create(
        &mut self,
        header: Header,
        payload: &[u8],
        descriptor: Option<u32>,
        choices: &mut Choices,
    ) -> Result<(), Option<u32>> {
        let mut writer = self.queue.create(header, descriptor).map_err(not_now)?;
        for part in parts(payload, choices) {
            match writer.add(part) {
                Ok(()) => {}
                Err(WriteError::Full { .. }) => return Err(writer.abandon()),
                Err(error) => panic!("{error}"),
            }
        }
        writer.close();
        Ok(())
    }

    /// Begins a message and gives it up.
    fn change_mind(&mut self, choices: &mut Choices) {
        let descriptor = (choices.below(2) == 0).then_some(u32::MAX);
        if let Ok(mut writer) = self.queue.create(Header::new(666), descriptor) {
            let len = choices.below(100).min(writer.remaining());
            writer.add(&vec![0xee_u8; len][..]).expect("room for what remains");
        }
    }
}

/// The descriptor of a message for which there is no room before something is sent.
fn not_now(refused: Refused<u32>) -> Option<u32> {
    match refused.reason {
        Reason::Full { .. } | Reason::DescriptorsFull => refused.descriptor,
        reason => panic!("{reason}"),
    }
}

/// Cuts `payload` in up to four parts, some of which may be empty.
fn parts<'a>(mut payload: &'a [u8], choices: &mut Choices) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    for _ in 0..choices.below(4) {
        let (part, rest) = payload.split_at(choices.below(payload.len() + 1));
        parts.push(part);
        payload = rest;
    }
    parts.push(payload);
    parts
}

impl<D: Dialect> Library for Begins<D> {
    fn queue(
        &mut self,
        header: Header,
        payload: &[u8],
        descriptor: Option<u32>,
        choices: &mut Choices,
    ) -> Result<(), Option<u32>> {
        if choices.below(4) == 0 {
            self.change_mind(choices);
        }
        let unsigned = header.pid == SENDER_PID && choices.below(2) == 0;
        let header = if unsigned { Header { pid: 0, ..header } } else { header };
        self.compose(header, payload, descriptor, choices)?;
        self.unsent.push_back(HEADER_LEN + payload.len());
        Ok(())
    }
}

impl<D: Dialect> Sender for Begins<D> {
    type Descriptor = u32;

    fn chunk(&self) -> (Vec<u8>, Option<&u32>) {
        Sender::chunk(&self.queue)
    }

    fn consume(&mut self, n: usize) -> Option<u32> {
        let given_back = Sender::consume(&mut self.queue, n);
        self.given_back.extend(given_back);
        self.count_sent(n);
        given_back
    }
}

impl<D> Begins<D> {
    fn count_sent(&mut self, mut n: usize) {
        while n > 0 {
            let first = self.unsent.front_mut().expect("an unsent message");
            let part = n.min(*first);
            *first -= part;
            n -= part;
            if *first == 0 {
                self.unsent.pop_front();
            }
        }
    }
}

impl Library for Ends<u32> {
    fn queue(
        &mut self,
        header: Header,
        payload: &[u8],
        descriptor: Option<u32>,
        _choices: &mut Choices,
    ) -> Result<(), Option<u32>> {
        self.compose(header, payload, descriptor);
        Ok(())
    }
}

impl Library for Unmarking<u32> {
    fn queue(
        &mut self,
        header: Header,
        payload: &[u8],
        descriptor: Option<u32>,
        _choices: &mut Choices,
    ) -> Result<(), Option<u32>> {
        self.compose(header, payload, descriptor);
        Ok(())
    }
}

/// What a receiving program got in the end.
#[derive(Debug, PartialEq)]
struct Outcome {
    messages: Vec<Taken>,
    error: Option<Error>,
}

#[derive(PartialEq)]
struct Taken {
    header: Header,
    payload: Vec<u8>,
    descriptor: Descriptor<u32>,
}

impl From<Message<'_, u32>> for Taken {
    fn from(message: Message<'_, u32>) -> Self {
        let Message { header, payload, descriptor } = message;
        Self { header, payload: payload.to_vec(), descriptor }
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { header, payload, descriptor } = self;
        let first = &payload[..payload.len().min(4)];
        write!(f, "{header:?} {} bytes {first:x?} {descriptor:?}", payload.len())
    }
}

impl Outcome {
    /// All that was to be sent, but for the descriptors that nobody could have.
    fn all(talk: &Talk, lost: &[u32]) -> Self {
        let taken = |at| {
            let (header, payload, descriptor) = talk.message(at);
            let descriptor = match descriptor {
                None => Descriptor::None,
                Some(id) if lost.contains(&id) => Descriptor::Missing(Missing::Dropped),
                Some(id) => Descriptor::Here(id),
            };
            Taken { header, payload, descriptor }
        };
        Self { messages: (0..talk.messages.len()).map(taken).collect(), error: None }
    }
}

/// Sends the whole conversation to nowhere; `inspect` sees the sender after each step.
fn send_all<D: Dialect>(sender: &mut Begins<D>, talk: &Talk, mut inspect: impl FnMut(&Begins<D>)) {
    let mut choices = talk.choices.clone();
    for at in 0..talk.messages.len() {
        let (header, payload, mut descriptor) = talk.message(at);
        while let Err(refused) = sender.queue(header, &payload, descriptor, &mut choices) {
            descriptor = refused;
            inspect(sender);
            sender.consume(choices.size(sender.offered()));
            inspect(sender);
        }
        inspect(sender);
        for _ in 0..choices.below(3) {
            if sender.offered() > 0 {
                sender.consume(choices.size(sender.offered()));
                inspect(sender);
            }
        }
    }
    while sender.offered() > 0 {
        sender.consume(choices.size(sender.offered()));
        inspect(sender);
    }
}

/// What came of a conversation, and what should have.
struct Conversation {
    outcome: Outcome,
    expected: Outcome,
}

/// Lets `sender` send the whole conversation, while a program that pauses as it likes receives it.
fn converse<D: Dialect, const N: usize>(
    dialect: D,
    rule: Pairing,
    sender: impl Library,
    talk: &Talk,
) -> Conversation {
    let mut receiver = Program::new(dialect, rule, talk.max_len + talk.extra_to_receive);
    receiver.buffer.set_max_len(talk.max_len).unwrap();
    let mut connection = Connection::<D, _, N> {
        sender,
        socket: Socket::with_capacity(talk.kernel, talk.capacity),
        receiver: Receiving {
            program: receiver,
            shim: Shim::default(),
            scarce: talk.scarce,
            choices: talk.choices.clone(),
            broken: None,
        },
        waits: talk.waits,
        choices: talk.choices.clone(),
    };
    for at in 0..talk.messages.len() {
        if connection.queue(talk.message(at)) {
            connection.go_on();
        }
    }
    while connection.is_busy() {
        connection.send();
        connection.receiver.receive(&mut connection.socket);
        connection.go_on();
    }
    let Connection { mut socket, receiver, .. } = connection;
    let lost = socket.take_lost();
    let mut expected = Outcome::all(talk, &lost);
    let outcome = match receiver.broken {
        None => receiver.program.end(),
        Some(Broken::Stream(_)) => receiver.program.end(),
        // A kernel that may lose bytes says so, and what came before that is right.
        Some(Broken::Read(error)) => {
            assert_eq!(talk.kernel.no_slot(), NoSlot::Breaks(error));
            let outcome = receiver.program.so_far();
            expected.messages.truncate(outcome.messages.len());
            outcome
        }
    };
    Conversation { outcome, expected }
}

/// A connection from a sending to a receiving program.
struct Connection<D, X, const N: usize> {
    sender: X,
    socket: Socket<u32>,
    receiver: Receiving<D, N>,
    waits: bool,
    choices: Choices,
}

impl<D: Dialect, X: Library, const N: usize> Connection<D, X, N> {
    /// Queues a message; false when that has no use any more.
    fn queue(&mut self, (header, payload, mut descriptor): (Header, Vec<u8>, Option<u32>)) -> bool {
        let before = descriptor;
        while let Err(refused) = self.sender.queue(header, &payload, descriptor, &mut self.choices)
        {
            assert_eq!(refused, before, "a refused descriptor is given back");
            assert!(self.sender.offered() > 0, "an empty queue has room for any message");
            descriptor = refused;
            self.send();
            if self.receiver.is_over() {
                return false;
            }
        }
        true
    }

    /// Each side does something, or nothing.
    fn go_on(&mut self) {
        for _ in 0..self.choices.below(3) {
            self.send();
        }
        for _ in 0..self.choices.below(3) {
            self.receiver.receive(&mut self.socket);
        }
        for _ in 0..self.choices.below(4) {
            self.receiver.program.take_one();
        }
    }

    fn is_busy(&self) -> bool {
        !self.receiver.is_over() && (self.sender.offered() > 0 || !self.socket.is_empty())
    }

    /// Sends something. When there is no room, the other side has its turn.
    fn send(&mut self) {
        let Self { sender, socket, receiver, waits, choices } = self;
        let (bytes, descriptor) = sender.chunk();
        if bytes.is_empty() || receiver.is_over() {
            return;
        }
        let mut n = choices.size(bytes.len());
        if let Some(few) = socket.room().checked_sub(CONTROL)
            && (1..bytes.len()).contains(&few)
            && choices.below(2) == 0
        {
            // So that there is room for nothing but a descriptor.
            n = few;
        }
        let mut size = |most| choices.size(most);
        let sent =
            Shim::default().send(socket, &bytes[..n], descriptor, *waits, &mut size, |socket| {
                receiver.receive(socket);
            });
        match sent {
            Ok(n) => drop(sender.consume(n)),
            Err(Errno::WouldBlock) => receiver.receive(socket),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// A program that receives from a socket.
struct Receiving<D, const N: usize> {
    program: Program<D, N>,
    shim: Shim,
    scarce: bool,
    choices: Choices,
    broken: Option<Broken>,
}

impl<D: Dialect, const N: usize> Receiving<D, N> {
    fn receive(&mut self, socket: &mut Socket<u32>) {
        if self.program.spare().is_none() {
            self.program.take_all();
        }
        if self.is_over() {
            // So that nobody waits for ever.
            let _ = socket.recv(&mut [0; 1024]);
            return;
        }
        let most = self.choices.size(self.program.buffer.spare().expect("room").len());
        let slots = if self.scarce && self.choices.below(3) == 0 { 0 } else { usize::MAX };
        match self.shim.read(socket, &mut self.program.buffer, most, slots) {
            Ok(ReadOutcome::Data(_) | ReadOutcome::WouldBlock) => {}
            Ok(ReadOutcome::Full) => panic!("there was room"),
            Ok(ReadOutcome::Closed) => panic!("the sender has not ended the stream"),
            Err(broken) => self.broken = Some(broken),
        }
    }

    fn is_over(&self) -> bool {
        self.broken.is_some() || self.program.error.is_some()
    }
}

fn ancillary(descriptors: &[u32]) -> Ancillary<u32> {
    match descriptors {
        [] => Ancillary::Nothing,
        [descriptor] => Ancillary::One(*descriptor),
        _ => Ancillary::Several,
    }
}

/// A receiving program.
struct Program<D, const N: usize> {
    buffer: RecvBuf<D, Vec<u8>, u32, N>,
    messages: Vec<Taken>,
    error: Option<Error>,
}

impl<D: Dialect, const N: usize> Program<D, N> {
    fn new(dialect: D, rule: Pairing, storage: usize) -> Self {
        let mut buffer = RecvBuf::with_descriptors(dialect, vec![0; storage]);
        buffer.set_pairing(rule);
        buffer.allow_descriptors();
        Self { buffer, messages: Vec::new(), error: None }
    }

    /// The place to read into, for which messages are taken only when they must be.
    fn spare(&mut self) -> Option<&mut [u8]> {
        while self.buffer.spare() == Err(NoRoom::Full) {
            assert!(self.buffer.is_ready(), "a full buffer has something to take");
            self.take_one();
        }
        match self.buffer.spare() {
            Ok(spare) => Some(spare),
            Err(NoRoom::Failed(_)) => None,
            Err(reason) => panic!("{reason}"),
        }
    }

    fn commit(&mut self, n: usize, ancillary: Ancillary<u32>) {
        self.buffer.commit(n, ancillary).expect("a part of the room");
    }

    /// Takes a message if one is ready. An error is taken once.
    fn take_one(&mut self) {
        if self.error.is_some() || !self.buffer.is_ready() {
            return;
        }
        match self.buffer.next_message() {
            Ok(Some(message)) => self.messages.push(Taken::from(message)),
            Ok(None) => panic!("there is a message or an error when the buffer is ready"),
            Err(error) => self.error = Some(error),
        }
    }

    /// Takes messages until there are no more.
    fn take_all(&mut self) {
        if self.error.is_some() {
            return;
        }
        for item in self.buffer.messages() {
            match item {
                Ok(message) => self.messages.push(Taken::from(message)),
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// Takes all that is left after the last read.
    fn end(mut self) -> Outcome {
        self.buffer.finish();
        self.so_far()
    }

    /// Takes all that is there.
    fn so_far(mut self) -> Outcome {
        self.take_all();
        Outcome { messages: self.messages, error: self.error }
    }
}

/// Bytes that were read at once, and what came with them.
type Read = (Vec<u8>, Ancillary<u32>);

/// What a peer or the way to it did wrong.
#[derive(Clone, Debug)]
enum Fault {
    /// Something else came beside the bytes of a read.
    Beside(Ancillary<u32>),
    /// A read goes on into the next one, where an honest kernel may end it.
    Merged,
    /// From this read on the kernel drops all descriptors.
    NoMoreDescriptors,
    /// A byte of a read has another value.
    Byte { place: usize, value: u8 },
    /// The stream ends inside a read.
    End { place: usize },
}

/// Faults, and which read each of them befalls.
fn faults() -> impl Strategy<Value = Vec<(usize, Fault)>> {
    let beside = prop_oneof![
        Just(Ancillary::Nothing),
        Just(Ancillary::Dropped),
        Just(Ancillary::One(u32::MAX)),
        Just(Ancillary::Several),
    ];
    let fault = prop_oneof![
        8 => beside.prop_map(Fault::Beside),
        4 => Just(Fault::Merged),
        2 => Just(Fault::NoMoreDescriptors),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(place, value)| Fault::Byte { place, value }),
        1 => any::<usize>().prop_map(|place| Fault::End { place }),
    ];
    prop::collection::vec((any::<usize>(), fault), 0..6)
}

/// The reads by which a conversation may arrive, with their faults.
fn reads(sender: impl Library, talk: &Talk, faults: &[(usize, Fault)]) -> Vec<Read> {
    let mut reads = honest_reads(sender, talk);
    for (at, fault) in faults {
        if reads.is_empty() {
            break;
        }
        let at = at % reads.len();
        let (bytes, ancillary) = &mut reads[at];
        match fault {
            Fault::Merged => merge(&mut reads, at),
            Fault::NoMoreDescriptors => drop_descriptors(&mut reads[at..]),
            Fault::Beside(what) => *ancillary = *what,
            Fault::Byte { place, value } => {
                let place = place % bytes.len();
                bytes[place] = *value;
            }
            Fault::End { place } => {
                bytes.truncate(1 + place % bytes.len());
                reads.truncate(at + 1);
            }
        }
    }
    reads
}

/// Merges read `at` and the next one, if there is one.
fn merge(reads: &mut Vec<Read>, at: usize) {
    if at + 1 < reads.len() {
        let (next, beside) = reads.remove(at + 1);
        let (bytes, ancillary) = &mut reads[at];
        bytes.extend(next);
        if *ancillary == Ancillary::Nothing {
            *ancillary = beside;
        }
    }
}

fn drop_descriptors(reads: &mut [Read]) {
    for (_, ancillary) in reads.iter_mut().filter(|(_, what)| *what != Ancillary::Nothing) {
        *ancillary = Ancillary::Dropped;
    }
}

fn honest_reads(mut sender: impl Library, talk: &Talk) -> Vec<Read> {
    let mut choices = talk.choices.clone();
    let mut socket = Socket::new(talk.kernel);
    let mut send = |sender: &mut dyn Library, choices: &mut Choices| {
        let (bytes, descriptor) = sender.chunk();
        let n = choices.size(bytes.len());
        let sent = socket
            .sendmsg(&bytes[..n], Vec::from_iter(descriptor.copied()), |most| choices.size(most));
        sender.consume(sent.expect("room"));
    };
    for at in 0..talk.messages.len() {
        let (header, payload, descriptor) = talk.message(at);
        while sender.queue(header, &payload, descriptor, &mut choices).is_err() {
            send(&mut sender, &mut choices);
        }
    }
    while sender.offered() > 0 {
        send(&mut sender, &mut choices);
    }
    let mut reads = Vec::new();
    let mut space = vec![0; talk.max_len + talk.extra_to_receive];
    let most = space.len();
    while !socket.is_empty() {
        let read = &mut space[..choices.size(most)];
        let received = socket.recvmsg(read, usize::MAX).expect("something");
        let descriptors = received.rights.concat();
        reads.push((space[..received.bytes].to_vec(), ancillary(&descriptors)));
    }
    reads
}

/// Receives `reads`, and takes messages when the pauses say so, or else after each read.
fn replay<D: Dialect, const N: usize>(
    dialect: D,
    rule: Pairing,
    reads: &[Read],
    mut pauses: Option<Choices>,
) -> Outcome {
    let all = reads.iter().map(|(bytes, _)| bytes.len()).sum::<usize>();
    let mut program = Program::<D, N>::new(dialect, rule, all.max(HEADER_LEN));
    for (bytes, ancillary) in reads {
        let Some(spare) = program.spare() else {
            break;
        };
        spare[..bytes.len()].copy_from_slice(bytes);
        program.commit(bytes.len(), *ancillary);
        match &mut pauses {
            Some(pauses) => (0..pauses.below(4)).for_each(|_| program.take_one()),
            None => program.take_all(),
        }
    }
    program.end()
}
