//! A dialect and a storage that tell what a buffer did with them.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use imsg_wire::{Any, Dialect, Frame, Pairing, Storage};

/// How often a call of a receive buffer decodes the header of the next message, at most.
pub(crate) const LOOKS: usize = 3;

/// A dialect that counts the headers that were decoded.
pub(crate) struct Metered {
    dialect: Any,
    decoded: Rc<Cell<usize>>,
}

impl Metered {
    pub(crate) fn new(dialect: Any) -> (Self, Rc<Cell<usize>>) {
        let decoded = Rc::default();
        (Self { dialect, decoded: Rc::clone(&decoded) }, decoded)
    }
}

impl Dialect for Metered {
    type Raw = <Any as Dialect>::Raw;

    fn decode(&self, raw: &Self::Raw) -> Frame {
        self.decoded.set(self.decoded.get() + 1);
        self.dialect.decode(raw)
    }

    fn encode(&self, frame: &Frame) -> Self::Raw {
        self.dialect.encode(frame)
    }

    fn max_len(&self) -> usize {
        self.dialect.max_len()
    }

    fn pairing(&self) -> Pairing {
        self.dialect.pairing()
    }
}

/// A storage that can be looked into, and takes no range that is not its own.
pub(crate) struct Watched {
    bytes: Vec<u8>,
    memory: Rc<Memory>,
}

/// What is known of a [`Watched`] storage from outside.
pub(crate) struct Memory {
    address: usize,
    len: usize,
    seen: RefCell<Option<Vec<u8>>>,
    released: Cell<usize>,
}

impl Watched {
    pub(crate) fn new(len: usize) -> (Self, Rc<Memory>) {
        let bytes = vec![0; len];
        let address = bytes.as_ptr().addr();
        let memory = Memory { address, len, seen: RefCell::default(), released: Cell::default() };
        let memory = Rc::new(memory);
        (Self { bytes, memory: Rc::clone(&memory) }, memory)
    }
}

impl Storage for Watched {
    fn bytes(&self) -> &[u8] {
        if let Some(seen) = &mut *self.memory.seen.borrow_mut() {
            seen.clone_from(&self.bytes);
        }
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn release(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.bytes.len(), "{range:?}");
        self.memory.released.set(self.memory.released.get() + range.len());
    }
}

impl Memory {
    /// Where a part of the storage starts in it.
    pub(crate) fn position(&self, part: &[u8]) -> usize {
        let position = part.as_ptr().addr().wrapping_sub(self.address);
        assert!(position + part.len() <= self.len, "bytes that are not the storage's");
        position
    }

    /// How many bytes the storage was told that they are not needed any more.
    pub(crate) fn released(&self) -> usize {
        self.released.get()
    }

    /// All bytes; `look` must make the buffer ask its storage for them.
    pub(crate) fn bytes(&self, look: impl FnOnce()) -> Vec<u8> {
        self.seen.replace(Some(Vec::new()));
        look();
        self.seen.take().expect("it was asked for")
    }
}
