//! Text of others, so that no terminal obeys it: names of files, of message types and of descriptors,
//! and what a server sends.

use std::fmt::{self, Display, Write as _};

/// Shows a text with an escape in place of each character that has no shape of its own: control
/// characters, and the marks that turn the text that follows.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| {
            if has_shape(character) {
                self.0.write_char(character)
            } else {
                write!(self.0, "{}", character.escape_unicode())
            }
        })
    }
}

/// Whether a terminal only shows it.
fn has_shape(character: char) -> bool {
    matches!(character, '"' | '\\' | '\'') || character.escape_debug().len() == 1
}

/// A string of JSON, with nothing in it that a terminal would obey.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if !has_shape(character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    quoted.push_str(&format!("\\u{unit:04x}"));
                }
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// Shows lines of text that come in pieces: line ends and tabs as they are, all else that is not
/// to be shown as escapes, and bytes that are no UTF-8 as `\xff`.
#[derive(Default)]
pub(crate) struct Lines {
    /// The bytes of a character whose others have not come.
    begun: Vec<u8>,
}

impl Lines {
    pub(crate) fn show(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.begun);
        text.extend_from_slice(bytes);
        let mut shown = String::new();
        let mut chunks = text.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            for character in chunk.valid().chars() {
                match character {
                    '\n' | '\t' => shown.push(character),
                    _ if has_shape(character) => shown.push(character),
                    _ => shown.extend(character.escape_unicode()),
                }
            }
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && may_go_on(invalid) {
                self.begun = invalid.to_owned();
            } else {
                shown.extend(invalid.iter().map(|byte| format!("\\x{byte:02x}")));
            }
        }
        shown.into_bytes()
    }
}

/// Whether these bytes, which are no character, are the first of one.
fn may_go_on(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_all_else_is_not() {
        let text = "caf\u{e9} 'x' \"y\" \\ \u{1b}[31m \u{202e} \u{7f} \n";
        let due = "caf\u{e9} 'x' \"y\" \\ \\u{1b}[31m \\u{202e} \\u{7f} \\u{a}";
        assert_eq!(Escaped(text).to_string(), due);
    }

    #[test]
    fn lines_are_shown_alike_in_whatever_pieces_they_come() {
        let bytes = b"a\tb\n\x1b]0;title\x07 \xc3\xa9 \xe2\x80\xae \xff\xc3( \r\n";
        let due = "a\tb\n\\u{1b}]0;title\\u{7} \u{e9} \\u{202e} \\xff\\xc3( \\u{d}\n";
        for size in 1..=bytes.len() {
            let mut lines = Lines::default();
            let shown: Vec<u8> = bytes.chunks(size).flat_map(|part| lines.show(part)).collect();
            assert_eq!(str::from_utf8(&shown), Ok(due), "{size}");
        }
    }
}
