//! A program that receives what a [`Script`] says, and accounts for every descriptor.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use imsg_wire::{Ancillary, Any, Descriptor, Error, Message, NoRoom, RecvBuf};

use crate::reference::{Delivered, End, Id, Outcome, Read, Script};

/// When a program takes its messages. All take them when the buffer has no place to read into.
#[derive(Clone, Copy, Debug)]
pub enum Consumer<'a> {
    /// After each read, until there are no more.
    Eager,
    /// After each read, as long as the buffer says that it is ready.
    WhileReady,
    /// Only when it has to.
    Lazy,
    /// So many after each read; one number after the other, over and over.
    Erratic(&'a [u8]),
}

impl<'a> Consumer<'a> {
    /// One of each kind; `steps` are those of the erratic one.
    #[must_use]
    pub fn all(steps: &'a [u8]) -> [Self; 4] {
        [Self::Eager, Self::WhileReady, Self::Lazy, Self::Erratic(steps)]
    }
}

/// What happened when a script was run.
#[derive(Debug)]
pub struct Run {
    /// What the program got.
    pub outcome: Outcome,
    /// The descriptors that the buffer was given.
    pub received: BTreeSet<Id>,
    /// Those that it closed before it was dropped itself.
    pub closed_early: BTreeSet<Id>,
    /// All that the buffer closed.
    pub closed: Vec<Id>,
    /// All that the program got.
    pub delivered: Vec<Id>,
    /// Where `is_ready` said something else than `next_message`.
    pub ready_wrongly: Option<u64>,
    /// Whether the buffer went on to say what it said in the end.
    pub end_stays: bool,
}

/// Runs `script` through a buffer for `N` descriptors.
///
/// # Panics
///
/// When the script is not for `N` descriptors, or the buffer does what no program can go on after.
#[must_use]
pub fn run<const N: usize>(script: &Script, consumer: Consumer<'_>) -> Run {
    assert!(script.capacity == N);
    let mut program = Program::<N>::new(script);
    program.read_all(script, consumer);
    let failed = program.failed;
    let end = match failed {
        Some(error) => End::Failed(error),
        None if script.ended => End::Clean,
        None => End::Waiting,
    };
    let end_stays = program.says(end) && program.says(end);
    let offset = program.buffer.offset();
    let Program { buffer, messages, received, ledger, ready_wrongly, .. } = program;
    let closed_early = ledger.closed.borrow().iter().copied().collect();
    drop(buffer);
    Run {
        outcome: Outcome { messages, end, offset },
        received,
        closed_early,
        closed: ledger.closed.take(),
        delivered: ledger.delivered.take(),
        ready_wrongly,
        end_stays,
    }
}

struct Program<const N: usize> {
    buffer: RecvBuf<Any, Box<[u8]>, Token, N>,
    messages: Vec<Delivered>,
    failed: Option<Error>,
    received: BTreeSet<Id>,
    ledger: Rc<Ledger>,
    ready_wrongly: Option<u64>,
}

impl<const N: usize> Program<N> {
    fn new(script: &Script) -> Self {
        // As little as can do, so that bytes have to move.
        let largest = script.reads.iter().map(|read| read.len).max().unwrap_or(0);
        let storage = vec![0; script.max_len + largest].into_boxed_slice();
        let mut buffer = RecvBuf::with_descriptors(script.dialect, storage);
        buffer.set_max_len(script.max_len).unwrap();
        buffer.set_pairing(script.rule);
        Self {
            buffer,
            messages: Vec::new(),
            failed: None,
            received: BTreeSet::new(),
            ledger: Rc::default(),
            ready_wrongly: None,
        }
    }

    fn read_all(&mut self, script: &Script, consumer: Consumer<'_>) {
        let mut bytes = &script.bytes[..];
        for (index, read) in script.reads.iter().enumerate() {
            if script.allowed_after == Some(index) {
                self.buffer.allow_descriptors();
            }
            let (now, later) = bytes.split_at(read.len);
            bytes = later;
            if !self.make_room(now) {
                return;
            }
            self.commit(read);
            self.take_some(index, consumer);
        }
        if script.ended {
            self.buffer.finish();
        }
        while self.take() {}
    }

    /// Places `bytes` where the buffer wants them; false when it has failed.
    fn make_room(&mut self, bytes: &[u8]) -> bool {
        loop {
            match self.buffer.spare() {
                Ok(spare) if spare.len() >= bytes.len() => {
                    spare[..bytes.len()].copy_from_slice(bytes);
                    return true;
                }
                Ok(_) | Err(NoRoom::Full) => {}
                Err(NoRoom::Finished) => panic!("the stream has not ended"),
                Err(NoRoom::Failed(error)) => {
                    self.failed = Some(error);
                    return false;
                }
            }
            if !self.take() {
                assert!(self.failed.is_some(), "no room for a read, and no message to take");
                return false;
            }
        }
    }

    fn commit(&mut self, read: &Read) {
        let ancillary = match read.brought {
            Ancillary::Nothing => Ancillary::Nothing,
            Ancillary::Several => Ancillary::Several,
            Ancillary::Dropped => Ancillary::Dropped,
            Ancillary::One(id) => {
                self.received.insert(id);
                Ancillary::One(Token { id, delivered: false, ledger: Rc::clone(&self.ledger) })
            }
        };
        assert!(self.buffer.commit(read.len, ancillary).is_ok());
    }

    fn take_some(&mut self, index: usize, consumer: Consumer<'_>) {
        match consumer {
            Consumer::Eager => {
                for item in self.buffer.messages() {
                    match item {
                        Ok(message) => self.messages.push(delivered(message)),
                        Err(error) => self.failed = Some(error),
                    }
                }
            }
            Consumer::WhileReady => while self.buffer.is_ready() && self.take() {},
            Consumer::Lazy => {}
            Consumer::Erratic(steps) => {
                for _ in 0..steps[index % steps.len()] {
                    self.take();
                }
            }
        }
    }

    /// Takes a message; false when there is none.
    fn take(&mut self) -> bool {
        let at = self.buffer.offset();
        let ready = self.buffer.is_ready();
        let taken = self.buffer.next_message();
        if ready == matches!(taken, Ok(None)) {
            self.ready_wrongly.get_or_insert(at);
        }
        match taken {
            Ok(Some(message)) => {
                self.messages.push(delivered(message));
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.failed = Some(error);
                false
            }
        }
    }

    /// Whether the buffer, asked again, says that the stream is in state `end`.
    fn says(&mut self, end: End) -> bool {
        let next = self.buffer.next_message().map(|message| message.is_some());
        match end {
            End::Waiting => next == Ok(false),
            End::Clean => next == Ok(false) && self.room() == Err(NoRoom::Finished),
            End::Failed(error) => next == Err(error) && self.room() == Err(NoRoom::Failed(error)),
        }
    }

    fn room(&mut self) -> Result<(), NoRoom> {
        self.buffer.spare().map(|_| ())
    }
}

fn delivered(message: Message<'_, Token>) -> Delivered {
    Delivered {
        header: message.header,
        payload: message.payload.to_vec(),
        descriptor: match message.descriptor {
            Descriptor::None => Descriptor::None,
            Descriptor::Here(token) => Descriptor::Here(token.deliver()),
            Descriptor::Missing(why) => Descriptor::Missing(why),
        },
    }
}

/// A descriptor that notes what becomes of it.
struct Token {
    id: Id,
    delivered: bool,
    ledger: Rc<Ledger>,
}

#[derive(Default)]
struct Ledger {
    delivered: RefCell<Vec<Id>>,
    closed: RefCell<Vec<Id>>,
}

impl Token {
    fn deliver(mut self) -> Id {
        self.delivered = true;
        self.id
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let Ledger { delivered, closed } = &*self.ledger;
        let list = if self.delivered { delivered } else { closed };
        list.borrow_mut().push(self.id);
    }
}
