//! A process that can do nothing but read, write and exit. It is started with one end of a Unix stream
//! socket that has an imsg channel as descriptor 3, enters seccomp's strict mode, and answers requests
//! (see `service.rs`) until the other side hangs up.
//!
//! Exit codes: 0 when the other side hung up, 65 when it broke the protocol, 71 when strict mode cannot
//! be entered, 74 when it cannot be read or written.

#![no_std]
#![no_main]

use imsg_freestanding::service::{Broken, Failure, Link, Queue, Received, serve};
use imsg_freestanding::{entry, kernel};
use imsg_wire::Modern;

const CHANNEL: usize = 3;
const BUFFER: usize = 16384;

entry!(main);

fn main() -> u8 {
    if kernel::ignore_sigpipe().and_then(|()| kernel::enter_strict_mode()).is_err() {
        return 71;
    }
    let mut rx = Received::with_descriptors(Modern::new(), [0; BUFFER]);
    let mut tx = Queue::with_descriptors(Modern::new(), [0; BUFFER]);
    match serve(&mut Socket, &mut rx, &mut tx) {
        Ok(()) => 0,
        Err(Failure::Protocol) => 65,
        Err(Failure::Link) => 74,
    }
}

struct Socket;

impl Link for Socket {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Broken> {
        kernel::read(CHANNEL, buf).map_err(|_| Broken)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        kernel::write(CHANNEL, bytes).map_err(|_| Broken)
    }
}
