//! The lines of a log, as far as they tell of sockets.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

/// The longest line, in bytes. One of 131072 bytes of data, as escapes, has an eighth of it.
const LONGEST: u64 = 4 << 20;

/// What a system call did.
pub(super) enum Call {
    /// It made sockets, of these numbers.
    Made { sockets: Vec<u64> },
    /// It closed one descriptor of a socket.
    Closed { socket: u64 },
    /// It received or sent.
    Moved(Moved),
}

/// Bytes that a process received from a socket or sent to it.
pub(super) struct Moved {
    /// That of the log, from 1 on.
    pub(super) line: u64,
    pub(super) process: u32,
    pub(super) descriptor: u32,
    pub(super) socket: u64,
    pub(super) direction: Direction,
    pub(super) bytes: Vec<u8>,
    /// How many there were, of which the log may have only the first.
    pub(super) count: usize,
    /// The files behind the descriptors that came with the first of them.
    pub(super) files: Vec<String>,
    /// Whether there were descriptors that the process could not get.
    pub(super) dropped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    In,
    Out,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// The calls of a log, one after the other.
pub(super) struct Calls<R> {
    input: R,
    line: u64,
    text: Vec<u8>,
    /// The beginnings of calls that others have interrupted, by process.
    begun: HashMap<u32, String>,
}

impl<R: BufRead> Calls<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, line: 0, text: Vec::new(), begun: HashMap::new() }
    }

    pub(super) fn next_call(&mut self) -> io::Result<Option<Call>> {
        loop {
            self.text.clear();
            let limited = &mut self.input.by_ref().take(LONGEST);
            if limited.read_until(b'\n', &mut self.text)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if self.text.len() as u64 == LONGEST {
                let reason = format!("line {} has more than {LONGEST} bytes", self.line);
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            let text = String::from_utf8_lossy(&self.text);
            let (process, text) = split_process(text.trim_end());
            let whole = if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
                self.begun.insert(process, begun.to_owned());
                continue;
            } else if text.starts_with("<... ") {
                let rest = text.split_once(" resumed>").map_or("", |(_, rest)| rest);
                self.begun.remove(&process).unwrap_or_default() + rest
            } else {
                text.to_owned()
            };
            if let Some(call) = call(self.line, process, &whole) {
                return Ok(Some(call));
            }
        }
    }
}

/// The process, which is 0 in a log of one that has no numbers, and the call, without the time.
fn split_process(line: &str) -> (u32, &str) {
    let line = line.strip_prefix("[pid ").map_or(line, str::trim_start);
    let (first, rest) = line.split_once([' ', ']']).unwrap_or((line, ""));
    let (process, mut text) = match first.parse() {
        Ok(process) => (process, rest.trim_start_matches([' ', ']'])),
        Err(_) => (0, line),
    };
    // A time, as "-t" and its kin add, begins with a digit, and no call does.
    while text.starts_with(|character: char| character.is_ascii_digit())
        && let Some((_, rest)) = text.split_once(' ')
    {
        text = rest.trim_start();
    }
    (process, text)
}

fn call(line: u64, process: u32, text: &str) -> Option<Call> {
    let (name, arguments) = text.split_once('(')?;
    let (arguments, result) = arguments.rsplit_once(" = ")?;
    if result.starts_with(['-', '?']) {
        return None;
    }
    let arguments = arguments.trim_end().strip_suffix(')')?;
    let direction = match name {
        "socket" | "socketpair" | "accept" | "accept4" => {
            let sockets = sockets(arguments).chain(sockets(result)).collect();
            return Some(Call::Made { sockets });
        }
        "close" => {
            let (_, file) = numbered(arguments)?;
            return Some(Call::Closed { socket: socket(file)? });
        }
        "read" | "readv" | "recv" | "recvfrom" | "recvmsg" => Direction::In,
        "write" | "writev" | "send" | "sendto" | "sendmsg" => Direction::Out,
        _ => return None,
    };
    let (descriptor, file) = numbered(arguments)?;
    let socket = socket(file)?;
    let arguments = &arguments[descriptor.to_string().len() + file.len() + 2..];
    // What was only looked at comes again.
    if find(arguments, "MSG_PEEK").is_some() {
        return None;
    }
    let count = result.split_whitespace().next()?.parse().ok()?;
    let mut bytes = Vec::new();
    if name.ends_with('v') && name != "recv" || name.ends_with("msg") {
        let mut rest = arguments;
        while let Some((_, behind)) = find(rest, "iov_base=") {
            let end = add_string(behind, &mut bytes)?;
            rest = &behind[end..];
        }
    } else {
        add_string(arguments.strip_prefix(", ")?, &mut bytes)?;
    }
    bytes.truncate(count);
    let files = find(arguments, "cmsg_type=SCM_RIGHTS").map_or(Vec::new(), |(_, rest)| files(rest));
    let dropped = find(arguments, "MSG_CTRUNC").is_some();
    Some(Call::Moved(Moved {
        line,
        process,
        descriptor,
        socket,
        direction,
        bytes,
        count,
        files,
        dropped,
    }))
}

/// A number and what is in the angle brackets behind it: `7<UNIX-STREAM:[12->13]>`.
fn numbered(text: &str) -> Option<(u32, &str)> {
    let (number, rest) = text.split_once('<')?;
    let number = number.parse().ok()?;
    let mut depth = 0;
    let mut at = 0;
    let bytes = rest.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = at + string_end(&rest[at..])? - 1,
            b'<' => depth += 1,
            // As in "12->13".
            b'>' if at > 0 && bytes[at - 1] == b'-' => {}
            b'>' if depth == 0 => return Some((number, &rest[..at])),
            b'>' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The number of a local socket.
fn socket(file: &str) -> Option<u64> {
    let inside = file.strip_prefix("UNIX-STREAM:[").or_else(|| file.strip_prefix("UNIX:["))?;
    let end = inside.find(|character: char| !character.is_ascii_digit())?;
    inside[..end].parse().ok()
}

/// Those of all local sockets that are named.
fn sockets(text: &str) -> impl Iterator<Item = u64> {
    text.match_indices("UNIX").filter_map(|(at, _)| socket(&text[at..]))
}

/// The names of the files in `cmsg_data=[4</dev/null<char 1:3>>, …]`.
fn files(text: &str) -> Vec<String> {
    let mut files = Vec::new();
    let Some((_, mut rest)) = text.split_once("cmsg_data=[") else { return files };
    while let Some((number, file)) = numbered(rest) {
        let end = number.to_string().len() + file.len() + 2;
        // What kind of device it is stands behind its name.
        let is_name = !file.starts_with("UNIX");
        let name = if is_name { file.split('<').next().unwrap_or_default() } else { file };
        let mut bytes = Vec::new();
        unescape(name, &mut bytes);
        files.push(String::from_utf8_lossy(&bytes).into_owned());
        match rest[end..].strip_prefix(", ") {
            Some(more) => rest = more,
            None => break,
        }
    }
    files
}

/// Splits at a text that stands outside of strings.
fn find<'a>(text: &'a str, what: &str) -> Option<(&'a str, &'a str)> {
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(what) {
            return Some((&text[..at], &text[at + what.len()..]));
        }
        at += match text[at..].chars().next()? {
            '"' => string_end(&text[at..])?,
            character => character.len_utf8(),
        };
    }
    None
}

/// Adds the bytes of the string that the text begins with, and tells where that ends.
fn add_string(text: &str, bytes: &mut Vec<u8>) -> Option<usize> {
    let end = string_end(text)?;
    unescape(&text[1..end - 1], bytes);
    Some(end)
}

/// Where the string ends that the text begins with.
fn string_end(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    if bytes.next()?.1 != b'"' {
        return None;
    }
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next()?,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Takes the escapes of C out of a string.
fn unescape(text: &str, bytes: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let Some((&kind, behind)) = rest.split_first() else { return };
        let (radix, digits, most) = match kind {
            b'x' => (16, behind, 2),
            b'0'..=b'7' => (8, rest, 3),
            _ => {
                rest = behind;
                bytes.push(match kind {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'v' => 0x0b,
                    b'f' => 0x0c,
                    other => other,
                });
                continue;
            }
        };
        let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
        let count = digits.iter().take(most).take_while(is_digit).count();
        let number = digits[..count].iter().fold(0, |number, digit| {
            number * radix + char::from(*digit).to_digit(radix).unwrap_or_default()
        });
        bytes.push(number as u8);
        rest = &digits[count..];
    }
}
