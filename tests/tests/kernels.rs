//! What each rule and each care is good for, kernel by kernel, as tables that are executed.
//!
//! Where a table says that something is wrong, or has to be heeded, a schedule of honest sends and
//! reads shows it; where it says the contrary, no schedule here does. What is right is tried on
//! random schedules in `honest_peers`.

use imsg_tests::rules::{Claim, Counterexample, Generation, claim};
use imsg_wire::testing::kernel::{CONTROL, Errno, Kernel, NoSlot, Socket};
use imsg_wire::testing::senders::{Ends, Sender, Unmarking};
use imsg_wire::testing::shim::{Broken, Care, ReadOutcome, Shim};
use imsg_wire::{
    Classic, Descriptor, Error, HEADER_LEN, Header, Missing, Pairing, RecvBuf, SendBuf,
};

use Step::{Read, ReadWithoutSlot, Send, SendWaiting};

const GENERATIONS: [Generation; 3] = [Generation::Begins, Generation::Ends, Generation::Unmarked];

const RULES: [Pairing; 3] = [Pairing::Exact, Pairing::Ordered, Pairing::Unmarked];

const ALL: usize = usize::MAX;

// ---- The rules

#[test]
fn a_rule_is_right_or_wrong_where_it_is_said_to_be() {
    for (sender, rule, kernel) in rows() {
        let claim = claim(sender, rule, kernel);
        let wrong = |example: &Counterexample| {
            run(&schedule(*example), sender, rule, kernel, &Shim::default()).is_wrong()
        };
        let row = format!("{sender:?} under {rule:?} on {kernel:?}: {claim:?}");
        match claim {
            Claim::Wrong(example) => assert!(wrong(&example), "{row}"),
            Claim::Right => assert!(!COUNTEREXAMPLES.iter().any(wrong), "{row}"),
        }
    }
}

#[test]
fn a_rule_that_fits_a_generation_gives_no_descriptor_to_a_wrong_message_whatever_is_lost() {
    for (sender, rule, kernel) in rows() {
        if claim(sender, rule, kernel) == Claim::Right {
            for schedule in [without_a_slot(), without_a_slot_before_the_last()] {
                let run = run(&schedule, sender, rule, kernel, &Shim::default());
                assert!(!run.is_wrong(), "{sender:?} under {rule:?} on {kernel:?}: {run:?}");
            }
        }
    }
}

fn rows() -> impl Iterator<Item = (Generation, Pairing, Kernel)> {
    let of = |sender| RULES.into_iter().map(move |rule| (sender, rule));
    let pairs = GENERATIONS.into_iter().flat_map(of);
    pairs.flat_map(|(sender, rule)| Kernel::ALL.into_iter().map(move |it| (sender, rule, it)))
}

const COUNTEREXAMPLES: [Counterexample; 4] = [
    Counterexample::ReadApart,
    Counterexample::SentTogether,
    Counterexample::ReadTogether,
    Counterexample::Alone,
];

fn schedule(example: Counterexample) -> Schedule {
    let (messages, steps) = match example {
        Counterexample::ReadApart => {
            (vec![plain(100), with(0)], vec![Send(ALL), Read(116), Read(16)])
        }
        Counterexample::SentTogether => (vec![with(0), plain(1)], vec![Send(ALL), Read(ALL)]),
        Counterexample::ReadTogether => {
            (vec![with(0), plain(1)], vec![Send(16), Send(ALL), Read(ALL)])
        }
        Counterexample::Alone => (vec![with(0)], vec![Send(ALL), Read(ALL)]),
    };
    Schedule { messages, steps, ..Schedule::default() }
}

// ---- What is done for the sake of a kernel

/// For each care the kernels that need it, and what shows that.
fn cares() -> [(Care, Vec<Kernel>, Schedule); 9] {
    use Kernel::{DragonFly, FreeBsd14, FreeBsd15, Gvisor, Linux, NetBsd, OpenBsd, Xnu};

    [
        (Care::Truncation, vec![Linux], without_a_slot()),
        (Care::EmptyRights, vec![Gvisor], without_a_slot()),
        (Care::FailedRead, vec![FreeBsd14, NetBsd, OpenBsd, DragonFly, Xnu], without_a_slot()),
        (Care::BrokenRead, vec![FreeBsd15], without_a_slot()),
        (Care::NoBytes, vec![FreeBsd15], read_without_a_byte()),
        (Care::RepeatedRights, vec![FreeBsd15], sent_again()),
        (Care::ControlBuffer, vec![DragonFly, Xnu], not_allowed()),
        (Care::Full, vec![NetBsd, Xnu], full(Send)),
        (Care::Waiting, vec![Gvisor], full(SendWaiting)),
    ]
}

#[test]
fn each_care_is_needed_where_it_is_said_to_be_and_nowhere_else() {
    for (care, kernels, schedule) in cares() {
        for kernel in Kernel::ALL {
            let careless = Shim::without(care);
            let run = run(&schedule, Generation::Ends, Pairing::Ordered, kernel, &careless);
            let needed = kernels.contains(&kernel);
            assert_eq!(run.is_wrong(), needed, "without {care:?} on {kernel:?}: {run:?}");
        }
    }
}

#[test]
fn with_all_care_each_of_the_schedules_is_right_on_all_kernels() {
    for (_, _, schedule) in cares() {
        for kernel in Kernel::ALL {
            let shim = Shim::default();
            let run = run(&schedule, Generation::Ends, Pairing::Ordered, kernel, &shim);
            assert!(!run.is_wrong(), "{kernel:?}: {run:?}");
        }
    }
}

/// The first descriptor comes when there is no slot for it, before its message, with a part of
/// what was queued before that; and the second one with the rest.
fn without_a_slot() -> Schedule {
    Schedule {
        messages: vec![plain(1000), with(0), with(0)],
        steps: vec![Send(500), Send(ALL), ReadWithoutSlot(ALL), Read(ALL), Read(ALL)],
        ..Schedule::default()
    }
}

fn without_a_slot_before_the_last() -> Schedule {
    Schedule {
        messages: vec![with(3), plain(1000), with(0), plain(7), with(5)],
        steps: vec![
            Send(500),
            Send(300),
            Send(ALL),
            Read(10),
            ReadWithoutSlot(900),
            Read(5),
            ReadWithoutSlot(ALL),
        ],
        ..Schedule::default()
    }
}

/// A descriptor is sent when there is just the room that it takes itself, and is read alone.
fn read_without_a_byte() -> Schedule {
    Schedule { steps: vec![Send(ALL), Send(ALL), Read(ALL), Read(ALL)], ..just_room() }
}

/// The same, and it is sent again before it is read.
fn sent_again() -> Schedule {
    Schedule { steps: vec![Send(ALL), Send(ALL), Read(300), Send(ALL)], ..just_room() }
}

fn just_room() -> Schedule {
    Schedule {
        messages: vec![plain(600 - HEADER_LEN), with(0)],
        queued_at_first: 1,
        capacity: 600 + CONTROL,
        ..Schedule::default()
    }
}

/// A descriptor is sent when there is no room, and never any for all that goes with it.
fn full(send: fn(usize) -> Step) -> Schedule {
    Schedule {
        messages: vec![plain(600 - HEADER_LEN), with(5000)],
        queued_at_first: 1,
        capacity: 600,
        steps: vec![Send(ALL), send(ALL)],
        ..Schedule::default()
    }
}

/// The program takes no descriptors.
fn not_allowed() -> Schedule {
    Schedule {
        messages: vec![with(0), plain(1)],
        allowed: false,
        steps: vec![Send(ALL), Send(ALL), ReadWithoutSlot(ALL)],
        ..Schedule::default()
    }
}

// ---- The schedule for which the rule about lost descriptors was made

#[test]
fn what_is_lost_before_its_message_is_missed_by_no_other_message() {
    for kernel in Kernel::ALL {
        let (generation, rule) = (Generation::Ends, Pairing::Ordered);
        let run = run(&without_a_slot(), generation, rule, kernel, &Shim::default());
        if let NoSlot::Breaks(error) = kernel.no_slot() {
            assert_eq!(run.broken, Some(Broken::Read(error)), "{kernel:?}");
        } else {
            let dropped = Descriptor::Missing(Missing::Dropped);
            let expected = [Descriptor::None, dropped, Descriptor::Here(2)];
            assert_eq!(run.received, expected, "{kernel:?}");
        }
    }
}

// ---- Running them

/// Honest sends and reads. When the steps are done, all is sent and read that is left.
#[derive(Clone, Debug)]
struct Schedule {
    /// The payload of each message, and whether it has a descriptor, whose number is its own.
    messages: Vec<(usize, bool)>,
    /// How many messages are queued at first. The others are when those are sent.
    queued_at_first: usize,
    /// The room that there is on the way.
    capacity: usize,
    /// Whether the program takes descriptors.
    allowed: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Sends so many bytes at most, if there is room.
    Send(usize),
    /// The same, and waits for room.
    SendWaiting(usize),
    /// Reads so many bytes at most.
    Read(usize),
    /// The same in a process that cannot have any descriptors more.
    ReadWithoutSlot(usize),
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            queued_at_first: ALL,
            capacity: usize::MAX,
            allowed: true,
            steps: Vec::new(),
        }
    }
}

fn plain(payload: usize) -> (usize, bool) {
    (payload, false)
}

fn with(payload: usize) -> (usize, bool) {
    (payload, true)
}

/// What came of a schedule.
#[derive(Debug)]
struct Run {
    /// What each message received had.
    received: Vec<Descriptor<u32>>,
    expected: Vec<Descriptor<u32>>,
    failed: Option<Error>,
    broken: Option<Broken>,
    refused: Option<Errno>,
    leaked: Vec<u32>,
    kernel: Kernel,
}

impl Run {
    /// Whether it is not what an honest sender should get. A kernel may lose bytes when it says so
    /// at once.
    fn is_wrong(&self) -> bool {
        let may_break = self.broken.is_some_and(|broken| match (broken, self.kernel.no_slot()) {
            (Broken::Read(error), NoSlot::Breaks(may)) => error == may,
            _ => false,
        });
        let as_sent = if may_break {
            self.expected.starts_with(&self.received)
        } else {
            self.broken.is_none() && self.expected == self.received
        };
        !as_sent || self.failed.is_some() || self.refused.is_some() || !self.leaked.is_empty()
    }
}

/// Runs a schedule; both ends are `shim`.
fn run(schedule: &Schedule, sender: Generation, rule: Pairing, kernel: Kernel, shim: &Shim) -> Run {
    let mut socket = Socket::with_capacity(kernel, schedule.capacity);
    let mut queue = Queue::new(sender);
    let mut end = End::new(rule, schedule.allowed, shim.clone());
    let mut refused = None;

    let at_first = schedule.queued_at_first.min(schedule.messages.len());
    let (mut next, mut later) = schedule.messages.split_at(at_first);
    let at_the_end = std::iter::repeat([Send(ALL), Read(ALL)]).flatten();
    for step in schedule.steps.iter().copied().chain(at_the_end) {
        if queue.sender().offered() == 0 {
            queue.compose(next);
            (next, later) = (later, &[]);
        }
        let sent = match step {
            Send(most) => queue.send(most, |bytes, descriptor| {
                shim.send(&mut socket, bytes, descriptor, false, &mut |all| all, |_| {})
            }),
            SendWaiting(most) => queue.send(most, |bytes, descriptor| {
                let meanwhile = |socket: &mut _| end.read(socket, ALL, ALL);
                shim.send(&mut socket, bytes, descriptor, true, &mut |all| all, meanwhile)
            }),
            Read(most) => {
                end.read(&mut socket, most, ALL);
                Ok(())
            }
            ReadWithoutSlot(most) => {
                end.read(&mut socket, most, 0);
                Ok(())
            }
        };
        refused = sent.err().filter(|error| *error != Errno::WouldBlock);
        let all_sent = next.is_empty() && queue.sender().offered() == 0;
        if end.is_over || refused.is_some() || all_sent && socket.is_empty() {
            break;
        }
    }
    socket.close();
    end.read(&mut socket, ALL, ALL);
    let lost = socket.take_lost();
    Run {
        expected: schedule.expected(&lost),
        received: end.received,
        failed: end.failed,
        broken: end.broken,
        refused,
        leaked: socket.leaked().to_vec(),
        kernel,
    }
}

impl Schedule {
    /// What each message should have, when nobody could have the descriptors that are `lost`.
    fn expected(&self, lost: &[u32]) -> Vec<Descriptor<u32>> {
        let descriptor = |(at, (_, with)): (u32, &(usize, bool))| match with {
            false => Descriptor::None,
            true if !self.allowed => Descriptor::Missing(Missing::NotAllowed),
            true if lost.contains(&at) => Descriptor::Missing(Missing::Dropped),
            true => Descriptor::Here(at),
        };
        (0..).zip(&self.messages).map(descriptor).collect()
    }
}

/// The program that sends.
struct Queue {
    library: Library,
    /// How many messages were queued.
    queued: u32,
}

enum Library {
    Begins(Box<SendBuf<Classic, Vec<u8>, u32, 8>>),
    Ends(Ends<u32>),
    Unmarked(Unmarking<u32>),
}

impl Queue {
    fn new(generation: Generation) -> Self {
        let library = match generation {
            Generation::Begins => {
                Library::Begins(Box::new(SendBuf::with_descriptors(Classic::new(), vec![0; 16384])))
            }
            Generation::Ends => Library::Ends(Ends::default()),
            Generation::Unmarked => Library::Unmarked(Unmarking::default()),
        };
        Self { library, queued: 0 }
    }

    fn sender(&mut self) -> &mut dyn Sender<Descriptor = u32> {
        match &mut self.library {
            Library::Begins(queue) => &mut **queue,
            Library::Ends(queue) => queue,
            Library::Unmarked(queue) => queue,
        }
    }

    fn compose(&mut self, messages: &[(usize, bool)]) {
        for (payload, with) in messages {
            let id = self.queued;
            self.queued += 1;
            let (header, payload) = (Header::new(id), vec![b'!'; *payload]);
            let descriptor = with.then_some(id);
            match &mut self.library {
                Library::Begins(queue) => {
                    queue.compose(header, &payload[..], descriptor).expect("room for all");
                }
                Library::Ends(queue) => queue.compose(header, &payload, descriptor),
                Library::Unmarked(queue) => queue.compose(header, &payload, descriptor),
            }
        }
    }

    /// Sends so many bytes at most, if there are any.
    fn send(
        &mut self,
        most: usize,
        send: impl FnOnce(&[u8], Option<&u32>) -> Result<usize, Errno>,
    ) -> Result<(), Errno> {
        let (bytes, descriptor) = self.sender().chunk();
        if !bytes.is_empty() {
            let n = send(&bytes[..bytes.len().min(most)], descriptor)?;
            self.sender().consume(n);
        }
        Ok(())
    }
}

/// The program that receives.
struct End {
    shim: Shim,
    buf: RecvBuf<Classic, Vec<u8>, u32, 8>,
    received: Vec<Descriptor<u32>>,
    failed: Option<Error>,
    broken: Option<Broken>,
    is_over: bool,
}

impl End {
    fn new(rule: Pairing, allowed: bool, shim: Shim) -> Self {
        let mut buf = RecvBuf::with_descriptors(Classic::new(), vec![0; 16384]);
        buf.set_pairing(rule);
        if allowed {
            buf.allow_descriptors();
        }
        Self { shim, buf, received: Vec::new(), failed: None, broken: None, is_over: false }
    }

    /// Reads, and takes what is there.
    fn read(&mut self, socket: &mut Socket<u32>, most: usize, slots: usize) {
        if self.is_over {
            return;
        }
        match self.shim.read(socket, &mut self.buf, most, slots) {
            Ok(outcome) => self.is_over = outcome == ReadOutcome::Closed,
            Err(broken) => self.broken = Some(broken),
        }
        for message in self.buf.messages() {
            match message {
                Ok(message) => self.received.push(message.descriptor),
                Err(error) => self.failed = Some(error),
            }
        }
        self.is_over |= self.failed.is_some() || self.broken.is_some();
    }
}
