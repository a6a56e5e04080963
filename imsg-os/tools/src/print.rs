//! Messages as text, and as JSON.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::path::PathBuf;

use imsg_os::imsg_wire::Frame;

use crate::names::Names;
use crate::text::Escaped;

// No comment for the whole, which would be the description of the program.
#[derive(clap::Args)]
pub(crate) struct Printing {
    /// Name the types of messages as this file says, which has lines such as "7 MSG_HELLO"; JSON
    /// has the numbers all the same
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,

    /// Print a JSON object for each message, in place of the line
    #[arg(long, conflicts_with = "hex")]
    json: bool,

    /// Show the payload under each line, in hexadecimal and ASCII
    #[arg(long)]
    hex: bool,
}

impl Printing {
    /// How to print; the error names the file that is none with names.
    pub(crate) fn format(&self) -> Result<Format, String> {
        let names = match &self.names {
            Some(path) => {
                Names::read(path).map_err(|reason| format!("{}: {reason}", path.display()))?
            }
            None => Names::default(),
        };
        Ok(if self.json { Format::Json } else { Format::Text { names, hex: self.hex } })
    }
}

/// How messages are written down.
pub(crate) enum Format {
    /// A line each, and their payloads under it if they are wanted in hexadecimal.
    Text { names: Names, hex: bool },
    /// An object each, on a line.
    Json,
}

/// A message, and what is known beside it.
pub(crate) struct Entry<'a> {
    /// Where or when it was found, as text,
    pub(crate) place: Arguments<'a>,
    /// and as the first keys of an object.
    pub(crate) keys: Arguments<'a>,
    pub(crate) dialect: &'a str,
    pub(crate) frame: Frame,
    pub(crate) payload: &'a [u8],
    /// What its descriptor is, as a string in quotes, if that is known.
    pub(crate) target: Option<&'a str>,
}

pub(crate) fn print(out: &mut impl Write, format: &Format, entry: &Entry<'_>) -> io::Result<()> {
    match format {
        Format::Text { names, hex } => {
            print_line(out, names, entry)?;
            if *hex { print_dump(out, entry.payload) } else { Ok(()) }
        }
        Format::Json => print_object(out, entry),
    }
}

fn print_line(out: &mut impl Write, names: &Names, entry: &Entry<'_>) -> io::Result<()> {
    let Entry { place, dialect, frame: Frame { header, marked, .. }, payload, .. } = entry;
    write!(out, "{place}  {dialect:<7}  type {}", header.msg_type)?;
    if let Some(name) = names.of(header.msg_type) {
        write!(out, " {}", Escaped(name))?;
    }
    let (id, pid, len) = (header.id, header.pid, payload.len());
    let mark = if *marked { "  fd" } else { "" };
    write!(out, "  id {id}  pid {pid}  payload {len}{mark}")?;
    if let Some(target) = entry.target {
        write!(out, " {target}")?;
    }
    out.write_all(b"\n")
}

/// The order of the keys is part of the format.
fn print_object(out: &mut impl Write, entry: &Entry<'_>) -> io::Result<()> {
    let Entry { keys, dialect, frame: Frame { header, len, marked }, payload, .. } = entry;
    let (msg_type, id, pid) = (header.msg_type, header.id, header.pid);
    write!(out, r#"{{{keys},"dialect":"{dialect}","type":{msg_type},"id":{id},"#)?;
    write!(out, r#""pid":{pid},"len":{len},"fd":{marked},"#)?;
    if let Some(target) = entry.target {
        write!(out, r#""target":{target},"#)?;
    }
    out.write_all(br#""payload":""#)?;
    let mut digits = [0; 1024];
    for part in payload.chunks(digits.len() / 2) {
        let digits = &mut digits[..part.len() * 2];
        for (place, byte) in digits.chunks_exact_mut(2).zip(part) {
            place.copy_from_slice(&hex(*byte));
        }
        out.write_all(digits)?;
    }
    out.write_all(b"\"}\n")
}

/// The bytes of a row of a hexadecimal dump.
const ROW: usize = 16;

fn print_dump(out: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    for (row, bytes) in payload.chunks(ROW).enumerate() {
        let mut digits = [b' '; 3 * ROW];
        let mut text = [b'.'; ROW];
        for ((digits, text), byte) in digits.chunks_exact_mut(3).zip(&mut text).zip(bytes) {
            digits[..2].copy_from_slice(&hex(*byte));
            if byte.is_ascii_graphic() || *byte == b' ' {
                *text = *byte;
            }
        }
        write!(out, "            {:04x}  ", row * ROW)?;
        out.write_all(&digits)?;
        out.write_all(b" |")?;
        out.write_all(&text[..bytes.len()])?;
        out.write_all(b"|\n")?;
    }
    Ok(())
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}
