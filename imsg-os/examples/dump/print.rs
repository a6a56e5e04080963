//! Messages as text, and as JSON.

use std::io::{self, Write};

use imsg_os::imsg_wire::Frame;

use crate::names::Names;
use crate::stream::{Entry, name};

/// How messages are written down.
pub(crate) enum Format {
    /// A line each, and their payloads under it if they are wanted in hexadecimal.
    Text { names: Names, hex: bool },
    /// An object each, on a line.
    Json,
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
    let Entry { offset, frame: Frame { header, marked, .. }, payload, .. } = entry;
    let dialect = name(entry.dialect);
    write!(out, "{offset:>10}  {dialect:<7}  type {}", header.msg_type)?;
    if let Some(name) = names.of(header.msg_type) {
        write!(out, " {name}")?;
    }
    let (id, pid, len) = (header.id, header.pid, payload.len());
    let mark = if *marked { "  fd" } else { "" };
    writeln!(out, "  id {id}  pid {pid}  payload {len}{mark}")
}

/// The order of the keys is part of the format.
fn print_object(out: &mut impl Write, entry: &Entry<'_>) -> io::Result<()> {
    let Entry { offset, frame: Frame { header, len, marked }, payload, .. } = entry;
    let dialect = name(entry.dialect);
    let (msg_type, id, pid) = (header.msg_type, header.id, header.pid);
    write!(out, r#"{{"offset":{offset},"dialect":"{dialect}","type":{msg_type},"id":{id},"#)?;
    write!(out, r#""pid":{pid},"len":{len},"fd":{marked},"payload":""#)?;
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
