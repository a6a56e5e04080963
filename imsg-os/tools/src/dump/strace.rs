//! Streams of messages in what strace wrote of processes.
//!
//! - `call` reads the lines: who read or wrote what, on which socket, with which descriptors,
//! - `flow` is one direction of a socket, as one process sees it.
//!
//! Sockets have their own number in the log (`-yy`), whatever descriptors stand for them. So copies of
//! a descriptor, and processes that share one, need no book-keeping.

mod call;
mod flow;

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Write};

use imsg_os::Any;

use self::call::{Call, Calls, Direction};
use self::flow::Flow;
use crate::complain::complain;
use crate::print::{Entry, Format, print};
use crate::relay::frame;
use crate::text::quoted;

/// What came of a log.
pub(crate) enum Failure {
    Input(io::Error),
    Output(io::Error),
    /// Some streams are broken, which was said.
    Broken,
    /// Nothing in it is a stream of messages.
    Nothing,
}

/// Prints the messages in a log. Of a dialect that is not given, each stream shows it.
pub(crate) fn dump(
    input: impl BufRead,
    dialect: Option<Any>,
    format: &Format,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut log = Log {
        dialect,
        format,
        flows: HashMap::new(),
        begun: HashSet::new(),
        found: Found::default(),
    };
    let mut calls = Calls::new(input);
    while let Some(call) = calls.next_call().map_err(Failure::Input)? {
        log.take(&call, out).map_err(Failure::Output)?;
    }
    match log.found {
        Found { broken: true, .. } => Err(Failure::Broken),
        Found { messages: 0, .. } => Err(Failure::Nothing),
        _ => Ok(()),
    }
}

struct Log<'a> {
    dialect: Option<Any>,
    format: &'a Format,
    /// By the number of the socket.
    flows: HashMap<(u64, Direction), Flow>,
    /// The sockets that were made after the log began.
    begun: HashSet<u64>,
    found: Found,
}

#[derive(Default)]
struct Found {
    messages: u64,
    broken: bool,
}

impl Log<'_> {
    fn take(&mut self, call: &Call, out: &mut impl Write) -> io::Result<()> {
        match call {
            Call::Made { sockets } => {
                self.begun.extend(sockets);
                Ok(())
            }
            Call::Closed { socket } => {
                for direction in [Direction::In, Direction::Out] {
                    // Another descriptor may stand for it still, in the middle of a message.
                    if self.flows.get(&(*socket, direction)).is_some_and(Flow::is_between) {
                        self.flows.remove(&(*socket, direction));
                    }
                }
                Ok(())
            }
            Call::Moved(moved) => {
                let from_start = self.begun.contains(&moved.socket);
                let key = (moved.socket, moved.direction);
                let dialect = self.dialect;
                let flow = self.flows.entry(key).or_insert_with(|| Flow::new(dialect, from_start));
                self.found.take(flow, moved, self.format, out)
            }
        }
    }
}

impl Found {
    fn take(
        &mut self,
        flow: &mut Flow,
        moved: &call::Moved,
        format: &Format,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let call::Moved { line, process, descriptor, direction, .. } = moved;
        let direction = direction.name();
        let mut printed = Ok(());
        let result = flow.take(moved, |message, dialect| {
            self.messages += 1;
            let target = match &message.descriptor {
                imsg_os::Descriptor::None => None,
                imsg_os::Descriptor::Here(file) => Some(quoted(file)),
                imsg_os::Descriptor::Missing(_) => Some("\"missing\"".into()),
            };
            if printed.is_err() {
                return;
            }
            printed = print(
                out,
                format,
                &Entry {
                    place: format_args!("{line:>6}  {process} fd {descriptor} {direction:<3}"),
                    keys: format_args!(
                        r#""line":{line},"process":{process},"descriptor":{descriptor},"direction":"{direction}""#
                    ),
                    dialect,
                    frame: frame(&message),
                    payload: message.payload,
                    target: target.as_deref(),
                },
            );
        });
        printed?;
        let place = format!("line {line}: process {process}, descriptor {descriptor}, {direction}");
        match result {
            Ok(None) => {}
            Ok(Some(note)) => {
                out.flush()?;
                complain("dump", format_args!("{place}: {note}"));
            }
            Err(error) => {
                self.broken = true;
                out.flush()?;
                complain("dump", format_args!("{place}: {error}; what follows is not shown"));
            }
        }
        Ok(())
    }
}
