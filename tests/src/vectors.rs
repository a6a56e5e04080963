//! The streams that C implementations wrote, with their manifests; see `vectors/README.md`.

use imsg_wire::{Any, Endian, Header};
use serde::Deserialize;

/// One stream, as a C implementation wrote it to its socket.
#[derive(Debug)]
pub struct Vector {
    /// The name of its files, without the extension.
    pub name: &'static str,
    /// The dialect and byte order that it is written in.
    pub dialect: Any,
    /// The stream.
    pub bytes: &'static [u8],
    /// What was sent.
    pub messages: Vec<Recorded>,
}

/// A message as it was given to the C implementation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Type, id and pid.
    pub header: Header,
    /// The payload.
    pub payload: Vec<u8>,
    /// Whether a descriptor was sent with it.
    pub carries_descriptor: bool,
}

/// All vectors.
///
/// # Panics
///
/// When a manifest is not what the README says.
pub fn all() -> Vec<Vector> {
    macro_rules! files {
        ($($name:literal),*) => {
            vec![$(Vector::read(
                $name,
                include_bytes!(concat!("../vectors/", $name, ".bin")),
                include_str!(concat!("../vectors/", $name, ".json")),
            )),*]
        };
    }
    files!["classic-le", "classic-be", "modern-le", "modern-be"]
}

impl Vector {
    fn read(name: &'static str, bytes: &'static [u8], manifest: &str) -> Self {
        let manifest: Manifest = serde_json::from_str(manifest).expect("the manifest is JSON");
        let order = match manifest.byte_order.as_str() {
            "little" => Endian::Little,
            "big" => Endian::Big,
            other => panic!("{name}: unknown byte order {other}"),
        };
        let dialect = match manifest.dialect.as_str() {
            "classic" => Any::Classic(order),
            "modern" => Any::Modern(order),
            other => panic!("{name}: unknown dialect {other}"),
        };
        let messages = manifest.messages.iter().map(Entry::recorded).collect();
        Self { name, dialect, bytes, messages }
    }
}

#[derive(Deserialize)]
struct Manifest {
    dialect: String,
    byte_order: String,
    messages: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    msg_type: u32,
    id: u32,
    pid: u32,
    fd: bool,
    payload: String,
}

impl Entry {
    fn recorded(&self) -> Recorded {
        Recorded {
            header: Header { msg_type: self.msg_type, id: self.id, pid: self.pid },
            payload: from_hex(&self.payload),
            carries_descriptor: self.fd,
        }
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    assert!(odd.is_empty(), "two hexadecimal digits make a byte");
    pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect()
}

fn digit(character: u8) -> u8 {
    match character {
        b'0'..=b'9' => character - b'0',
        b'a'..=b'f' => character - b'a' + 10,
        _ => panic!("{character:#x} is not a hexadecimal digit"),
    }
}
