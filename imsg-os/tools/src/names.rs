//! The names of message types.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::path::Path;

#[derive(Default)]
pub(crate) struct Names(HashMap<u32, String>);

impl Names {
    /// Reads a file whose lines are a number and a name. Empty lines, and what follows a `#`, say
    /// nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let mut names = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().collect();
            let (msg_type, name) = match words[..] {
                [] => continue,
                [msg_type, name] if !name.contains(char::is_control) => {
                    (msg_type.parse().ok(), name)
                }
                _ => (None, ""),
            };
            let Some(msg_type) = msg_type else {
                return Err(format!("line {number} is not a number and a name: {line:?}"));
            };
            match names.entry(msg_type) {
                Entry::Vacant(place) => place.insert(name.to_owned()),
                Entry::Occupied(_) => {
                    return Err(format!("line {number} names {msg_type} once more"));
                }
            };
        }
        Ok(Self(names))
    }

    pub(crate) fn of(&self, msg_type: u32) -> Option<&str> {
        self.0.get(&msg_type).map(String::as_str)
    }
}
