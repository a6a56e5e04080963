//! The examples of the specification, byte for byte.

use imsg_wire::{Ancillary, Any, Descriptor, Endian, Missing, Pairing, RecvBuf};

const SPECIFICATION: &str = include_str!("../../imsg-wire/PROTOCOL.md");

#[test]
fn each_example_gives_what_the_specification_says() {
    let examples = examples();
    assert_eq!(examples.len(), 19);
    for (number, example) in (1..).zip(&examples) {
        assert!(example.title.starts_with(&format!("Example {number}: ")), "{}", example.title);
        assert!(!example.outcome.is_empty(), "{}", example.title);
        for eager in [true, false] {
            assert_eq!(example.run(eager), example.outcome, "{}", example.title);
        }
    }
}

/// A block of the specification.
struct Example {
    title: &'static str,
    reads: Vec<Read>,
    ended: bool,
    /// The lines that tell what comes out.
    outcome: Vec<String>,
}

struct Read {
    bytes: Vec<u8>,
    brought: Ancillary<&'static str>,
}

fn examples() -> Vec<Example> {
    let blocks = SPECIFICATION.split("```text\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("```").expect("an end of the block").0);
    blocks.map(Example::parse).collect()
}

impl Example {
    fn parse(block: &'static str) -> Self {
        let (title, lines) = block.split_once('\n').expect("a title");
        let mut example = Self { title, reads: Vec::new(), ended: false, outcome: Vec::new() };
        for line in lines.lines() {
            if let Some(outcome) = line.strip_prefix("=> ") {
                example.outcome.push(outcome.to_owned());
            } else if line == "end" {
                example.ended = true;
            } else if let Some(beside) = line.strip_prefix("read") {
                let brought = match beside {
                    "" => Ancillary::Nothing,
                    " with A" => Ancillary::One("A"),
                    " with A, B" => Ancillary::Several,
                    " with a dropped descriptor" => Ancillary::Dropped,
                    other => panic!("{title}: unknown read{other}"),
                };
                example.reads.push(Read { bytes: Vec::new(), brought });
            } else {
                example.add_bytes(line);
            }
        }
        example
    }

    /// Takes a line of an offset, bytes in hexadecimal, and a remark.
    fn add_bytes(&mut self, line: &str) {
        let position: usize = self.reads.iter().map(|read| read.bytes.len()).sum();
        let dump = line.split_once('|').map_or(line, |(dump, _)| dump);
        let mut fields = dump.split_whitespace().map(|field| usize::from_str_radix(field, 16));
        assert_eq!(fields.next(), Some(Ok(position)), "{}: the offset in {line:?}", self.title);
        let bytes = fields.map(|byte| u8::try_from(byte.expect("hexadecimal")).expect("a byte"));
        self.reads.last_mut().expect("a read before its bytes").bytes.extend(bytes);
    }

    /// Receives the reads, and takes messages after each one or only in the end.
    fn run(&self, eager: bool) -> Vec<String> {
        let order = if self.says("big-endian") { Endian::Big } else { Endian::Little };
        let dialect = if self.says("classic") { Any::Classic(order) } else { Any::Modern(order) };
        let mut buffer: RecvBuf<_, _, &str> = RecvBuf::with_descriptors(dialect, vec![0; 20000]);
        if self.says("ordered") {
            buffer.set_pairing(Pairing::Ordered);
        } else if self.says("exact") {
            buffer.set_pairing(Pairing::Exact);
        }
        if !self.says("passing not allowed") {
            buffer.allow_descriptors();
        }
        let mut taken = Vec::new();
        for Read { bytes, brought } in &self.reads {
            let Ok(spare) = buffer.spare() else {
                // It is broken already, and the outcome tells.
                break;
            };
            spare[..bytes.len()].copy_from_slice(bytes);
            buffer.commit(bytes.len(), *brought).expect("what was offered");
            if eager {
                taken.extend(take(&mut buffer));
            }
        }
        if self.ended {
            buffer.finish();
        }
        taken.extend(take(&mut buffer));
        // A broken stream gives the same error each time.
        taken.dedup_by(|again, before| again == before && again.starts_with("error: "));
        taken
    }

    fn says(&self, word: &str) -> bool {
        self.title.split([':', ',']).any(|part| part.trim() == word)
    }
}

fn take(buffer: &mut RecvBuf<Any, Vec<u8>, &'static str>) -> Vec<String> {
    let messages = buffer.messages().map(|message| {
        let message = match message {
            Ok(message) => message,
            Err(error) => return format!("error: {error}"),
        };
        let header = message.header;
        let descriptor = match message.descriptor {
            Descriptor::None => String::new(),
            Descriptor::Here(name) => format!(", descriptor {name}"),
            Descriptor::Missing(Missing::NotAllowed) => ", descriptor not allowed".to_owned(),
            Descriptor::Missing(Missing::NotSent) => ", descriptor not sent".to_owned(),
            Descriptor::Missing(Missing::Dropped) => ", descriptor dropped".to_owned(),
        };
        format!(
            "message: type {}, id {}, pid {}, {} bytes{descriptor}",
            header.msg_type,
            header.id,
            header.pid,
            message.payload.len()
        )
    });
    messages.collect()
}
