//! A board without an operating system that answers requests (see `service.rs`) over a serial line.
//! When the other side breaks the protocol, it sends a message of type 0 with id 0, and no more until it
//! is reset. Messages have 128 bytes at most, and all memory is fixed.

#![no_std]
#![no_main]

use core::mem::MaybeUninit;

use heapless::Deque;
use imsg_freestanding::board::uart;
use imsg_freestanding::entry;
use imsg_freestanding::service::{Broken, ERROR, Link, Queue, Received, flush, serve};
use imsg_wire::{Header, Modern};

const LARGEST: usize = 128;

entry!(main);

/// All but the stack.
struct Memory {
    line: Serial,
    rx: Received<[u8; LARGEST]>,
    tx: Queue<[u8; LARGEST]>,
}

fn main() -> u8 {
    static mut MEMORY: MaybeUninit<Memory> = MaybeUninit::uninit();
    // SAFETY: the program is entered once, and there are no threads.
    let memory = unsafe { &mut *(&raw mut MEMORY) };
    let Memory { line, rx, tx } = memory.write(Memory {
        line: Serial { received: Deque::new(), to_send: Deque::new() },
        rx: Received::with_descriptors(Modern::new(), [0; LARGEST]),
        tx: Queue::with_descriptors(Modern::new(), [0; LARGEST]),
    });
    // A line does not end, so it was broken.
    let _ = serve(line, rx, tx);
    let _ = tx.compose(Header::new(ERROR), b"", None);
    let _ = flush(line, tx);
    while !line.to_send.is_empty() {
        line.turn();
    }
    1
}

/// A ring of a few bytes each way, between the program and the line.
struct Serial {
    received: Deque<u8, 8>,
    to_send: Deque<u8, 8>,
}

impl Serial {
    /// Moves what can be moved at once. (Where there is more to do than to answer, an interrupt would.)
    fn turn(&mut self) {
        while !self.received.is_full()
            && let Some(byte) = uart::take()
        {
            let _ = self.received.push_back(byte);
        }
        while let Some(byte) = self.to_send.front()
            && uart::put(*byte)
        {
            self.to_send.pop_front();
        }
    }
}

impl Link for Serial {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Broken> {
        while self.received.is_empty() {
            self.turn();
        }
        let mut n: usize = 0;
        for place in buf {
            let Some(byte) = self.received.pop_front() else { break };
            *place = byte;
            n = n.saturating_add(1);
        }
        Ok(n)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        while self.to_send.is_full() {
            self.turn();
        }
        let mut n: usize = 0;
        for byte in bytes {
            if self.to_send.push_back(*byte).is_err() {
                break;
            }
            n = n.saturating_add(1);
        }
        self.turn();
        Ok(n)
    }
}
