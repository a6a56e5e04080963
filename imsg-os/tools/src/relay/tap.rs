//! What the user gets to see.

use std::fmt::Arguments;
use std::fs;
use std::io::{self, BufWriter, Stdout, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::SystemTime;

use imsg_os::imsg_wire::{self, Frame};
use imsg_os::{Descriptor, HEADER_LEN, Message};

use super::complain;
use super::raw::{self, Raw};
use super::side::Side;
use crate::print::{Entry, Format, print};
use crate::stdio::{self, Stdio};
use crate::text::quoted;

/// Prints messages to standard output, and complaints to standard error.
pub(crate) struct Tap {
    /// None when messages are not printed, or not any longer.
    format: Option<Format>,
    out: BufWriter<Stdio<Stdout>>,
    /// None when it is not kept, or not any longer.
    raw: Option<Raw>,
}

impl Tap {
    pub(crate) fn new(format: Option<Format>, raw: Option<Raw>) -> Self {
        Self { format, out: BufWriter::with_capacity(64 * 1024, stdio::output()), raw }
    }

    pub(crate) fn connection(&mut self, number: usize) {
        let kept = self.raw.as_mut().map_or(Ok(()), |raw| raw.begin(number));
        self.check_raw(kept);
    }

    pub(crate) fn message(&mut self, number: usize, to: &str, side: &Side, message: &Message<'_>) {
        let from = if to == "server" { raw::From::Client } else { raw::From::Server };
        let raw = self.raw.as_mut();
        let kept = raw.map_or(Ok(()), |raw| raw.message(number, from, side, message));
        self.check_raw(kept);
        let Some(format) = &self.format else { return };
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let time = format!("{}.{:06}", now.as_secs(), now.subsec_micros());
        let target = match &message.descriptor {
            Descriptor::None => None,
            Descriptor::Here(descriptor) => target(descriptor),
            Descriptor::Missing(_) => Some("\"missing\"".into()),
        };
        let printed = print(
            &mut self.out,
            format,
            &Entry {
                place: format_args!("{time}  {number} to {to}"),
                keys: format_args!(r#""time":{time},"connection":{number},"direction":"to {to}""#),
                dialect: side.name(),
                frame: frame(message),
                payload: message.payload,
                target: target.as_deref(),
            },
        );
        self.check(printed);
    }

    pub(crate) fn complain(&mut self, text: Arguments<'_>) {
        self.flush();
        complain(text);
    }

    pub(crate) fn flush(&mut self) {
        let flushed = self.out.flush();
        self.check(flushed);
        let flushed = self.raw.as_mut().map_or(Ok(()), Raw::flush);
        self.check_raw(flushed);
    }

    fn check_raw(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.raw = None;
            complain(format_args!("what is received is not kept any more: {error}"));
        }
    }

    /// When nobody reads the messages any more, the connections go on: they are those of others.
    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && self.format.take().is_some()
        {
            complain(format_args!("messages are not printed any more: {error}"));
        }
    }
}

/// What the header of a message says, whichever dialect it is in.
pub(crate) fn frame<F>(message: &imsg_wire::Message<'_, F>) -> Frame {
    let len = HEADER_LEN + message.payload.len();
    let marked = !matches!(message.descriptor, Descriptor::None);
    Frame { header: message.header, len, marked }
}

/// What a descriptor is, where the system tells.
fn target(descriptor: &OwnedFd) -> Option<String> {
    let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let target = fs::read_link(link).ok()?;
    Some(quoted(&target.to_string_lossy()))
}
