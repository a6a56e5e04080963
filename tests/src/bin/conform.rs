//! What `imsg conform` asks a program to be: it sends each message back.
//!
//! With an argument it is faulty: `loses`, `swaps` or `keeps` descriptors, or `exits`, `hangs` or
//! `crashes` at a message of more than 4000 bytes, or `forgives` what breaks the stream.

use std::env;
use std::error::Error;
use std::os::fd::OwnedFd;
use std::process::{self, ExitCode};
use std::thread;

use imsg_os::{
    Any, Channel, Descriptor, Endian, HEADER_LEN, Message, ReadOutcome, Refused, Sender, inherited,
};

fn main() -> ExitCode {
    let fault = env::args().nth(1).unwrap_or_default();
    match run(&fault) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if fault == "forgives" => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conform: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(fault: &str) -> Result<(), Box<dyn Error>> {
    let dialect = match env::var("IMSG_DIALECT").as_deref() {
        Ok("classic") => Any::Classic(Endian::NATIVE),
        _ => Any::Modern(Endian::NATIVE),
    };
    // SAFETY: nothing else in this program takes up descriptor 3.
    let socket = unsafe { inherited(3) }?;
    let mut channel = Channel::new(socket, dialect)?;
    channel.rx.allow_descriptors();
    // The longest answer, which may have a descriptor.
    let longest = channel.tx.max_len() - HEADER_LEN;
    let mut kept = Vec::new();
    loop {
        let outcome = channel.rx.read()?;
        for message in channel.rx.messages() {
            if channel.tx.has_room(longest, true).is_err() {
                channel.tx.flush()?;
            }
            match message {
                Ok(mut message) => {
                    damage(&mut message, fault, &mut kept);
                    send_back(message, &mut channel.tx)?;
                }
                // All before it is sent back, too.
                Err(error) => {
                    channel.tx.flush()?;
                    return Err(error.into());
                }
            }
        }
        channel.tx.flush()?;
        if outcome == ReadOutcome::Closed {
            return Ok(());
        }
    }
}

/// A descriptor that is missing has no mark in the answer.
fn send_back(mut message: Message<'_>, tx: &mut Sender<Any>) -> Result<(), Refused<OwnedFd>> {
    let descriptor = message.descriptor.take();
    tx.compose(message.header, message.payload, descriptor)
}

/// What a faulty program does to a message.
fn damage(message: &mut Message<'_>, fault: &str, kept: &mut Vec<OwnedFd>) {
    let is_long = message.payload.len() > 4000;
    match fault {
        "loses" => drop(message.descriptor.take()),
        "keeps" => {
            if let Descriptor::Here(descriptor) = &message.descriptor {
                kept.extend(descriptor.try_clone());
            }
        }
        // Each message gets the descriptor of the one before.
        "swaps" => {
            if let Descriptor::Here(descriptor) = &mut message.descriptor {
                kept.extend(descriptor.try_clone());
                if kept.len() > 1 {
                    *descriptor = kept.remove(0);
                }
            }
        }
        "exits" if is_long => process::exit(1),
        "hangs" if is_long => loop {
            thread::park();
        },
        "crashes" if is_long => process::abort(),
        _ => {}
    }
}
