//! What a peer may send, made of arbitrary bytes.

use alloc::vec;
use alloc::vec::Vec;

use arbitrary::{Result, Unstructured};
use zerocopy::IntoBytes;

use crate::descriptor::{Descriptor, DescriptorError, Missing};
use crate::dialect::{Dialect, header_len};
use crate::error::ReadError;
use crate::header::{DEFAULT_MAX_LEN, Frame, Header};
use crate::message::Message;
use crate::testing::Link;
use crate::typed::{BadMessage, Mistake};

/// A stream of messages of a declared protocol, valid or broken in one place (feature `arbitrary`).
///
/// ```
/// use arbitrary::Unstructured;
/// use imsg_wire::testing::{Stream, Token};
/// use imsg_wire::typed::{Counted, Protocol};
/// use imsg_wire::{DEFAULT_MAX_LEN, Message, Messages, Modern};
///
/// imsg_wire::protocol! {
///     enum Request<'a> {
///         1 => Open { flags: u32, name: &'a str as Counted<u16> } + Token,
///         2 => Close,
///     }
/// }
///
/// # let input = (0..200).map(|n: u8| n.wrapping_mul(77)).collect::<Vec<_>>();
/// let mut input = Unstructured::new(&input); // of a fuzzer
/// let parse = |message: Message<'_, Token>| Request::try_from(message).map(drop);
/// let stream = Stream::arbitrary(&mut input, Modern::new(), Request::TYPES, parse)?;
///
/// let parsed = Messages::new(Modern::new(), &stream.bytes, DEFAULT_MAX_LEN);
/// for (frame, _) in parsed.take(stream.intact).map(Result::unwrap) {
///     assert!(Request::name_of(frame.header.msg_type).is_some());
/// }
/// # Ok::<(), arbitrary::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where messages start with which descriptors are sent, as offsets in the bytes.
    pub descriptors: Vec<usize>,
    /// How many valid messages there are before what is broken, or in all.
    pub intact: usize,
    /// What is broken.
    pub damage: Option<Damage>,
}

/// What is broken in a [`Stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Damage {
    /// A message is of a type that the protocol does not have.
    Type,
    /// The payload of a message is none that the protocol takes.
    Payload,
    /// A message lacks its descriptor, or has one that it should not have; or it is marked and no
    /// descriptor is sent with it, or, where it needs one, the other way round. (Where it needs
    /// none, nobody can tell in a process that can have no more descriptors.) Where one read brings
    /// the descriptor of an earlier message and a mark without one, the stream fails before that
    /// message.
    Descriptor,
    /// A header states a length that no message has: less than a header, or 60000 bytes and more.
    /// Nothing follows.
    Length,
    /// The stream ends inside a message.
    End,
}

/// The messages of a stream, at most.
const MESSAGES: usize = 16;

/// The bytes of a payload at first. It gets others where the protocol wants them.
const PAYLOAD: usize = 64;

impl Stream {
    /// Makes a stream of what a fuzzer gives.
    ///
    /// `types` are those of the protocol, and `parse` is its `TryFrom`, which is asked what is
    /// valid. So this needs nothing but the declaration, and goes along with any change of it. A
    /// message is left out when no valid payload is found within some hundred attempts: an `enum`
    /// needs a value less than 64, and in the midst of a struct one that is 0.
    ///
    /// # Errors
    ///
    /// As for anything that is made of arbitrary bytes.
    pub fn arbitrary<D: Dialect, F>(
        u: &mut Unstructured<'_>,
        dialect: D,
        types: &[(u32, &'static str)],
        parse: impl Fn(Message<'_, F>) -> core::result::Result<(), BadMessage<F>>,
    ) -> Result<Self> {
        let check = |msg_type, payload: &[u8], missing: Option<Missing>| {
            let descriptor = missing.map_or(Descriptor::None, Descriptor::Missing);
            let message = Message { header: Header::new(msg_type), payload, descriptor };
            parse(message).map_err(|bad| bad.mistake)
        };
        let stream = Self { bytes: vec![], descriptors: vec![], intact: 0, damage: None };
        Maker { dialect, types, check, stream }.make(u)
    }

    /// Sends all of it as a client would, each descriptor with the first byte of its message, and
    /// ends the stream. `open` is given the offset of the message.
    ///
    /// # Panics
    ///
    /// When the link has no room for it.
    pub fn send<F>(&self, link: &mut Link<F>, mut open: impl FnMut(usize) -> F) {
        let mut start = 0;
        let mut descriptor = None;
        for end in self.descriptors.iter().copied().chain([self.bytes.len()]) {
            let chunk = &self.bytes[start..end];
            if !chunk.is_empty() {
                let sent = link.put(chunk, descriptor.take().map(&mut open));
                assert_eq!(sent, chunk.len(), "the link has room for all");
            }
            (start, descriptor) = (end, Some(end));
        }
        link.close();
    }
}

/// Makes a stream. `check` says what is wrong with a message that has no descriptor, or whose
/// descriptor is missing.
struct Maker<'a, D, C> {
    dialect: D,
    types: &'a [(u32, &'static str)],
    check: C,
    stream: Stream,
}

/// Whether a message takes a descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    None,
    Maybe,
    Always,
}

/// A message that the protocol takes, but for its descriptor.
struct Valid {
    header: Header,
    payload: Vec<u8>,
    takes: Takes,
}

impl<D, C> Maker<'_, D, C>
where
    D: Dialect,
    C: Fn(u32, &[u8], Option<Missing>) -> core::result::Result<(), Mistake>,
{
    fn make(mut self, u: &mut Unstructured<'_>) -> Result<Stream> {
        let messages = u.int_in_range(0..=MESSAGES)?;
        let damaged = if u.arbitrary()? { Some(u.int_in_range(0..=messages)?) } else { None };
        for at in 0..=messages {
            if damaged == Some(at) {
                self.damage(u)?;
            }
            if at == messages || matches!(self.stream.damage, Some(Damage::Length | Damage::End)) {
                break;
            }
            if let Some(Valid { header, payload, takes }) = self.valid(u)? {
                let with = takes == Takes::Always || takes == Takes::Maybe && u.arbitrary()?;
                self.push(header, &payload, with, with);
                self.stream.intact += usize::from(self.stream.damage.is_none());
            }
        }
        Ok(self.stream)
    }

    fn damage(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let damage = *u.choose(&[
            Damage::Type,
            Damage::Payload,
            Damage::Descriptor,
            Damage::Length,
            Damage::End,
        ])?;
        let done = match (damage, self.valid(u)?) {
            (Damage::Payload, Some(valid)) => self.damaged_payload(u, valid)?,
            (Damage::Descriptor, Some(valid)) => {
                self.damaged_descriptor(u, &valid)?;
                true
            }
            (Damage::Length, _) => {
                self.header_without_message(u)?;
                true
            }
            (Damage::End, Some(Valid { header, payload, takes })) => {
                let start = self.stream.bytes.len();
                let with = takes == Takes::Always;
                self.push(header, &payload, with, with);
                let left = u.int_in_range(1..=self.stream.bytes.len() - start - 1)?;
                self.stream.bytes.truncate(start + left);
                true
            }
            _ => false,
        };
        if !done {
            self.unknown_type(u)?;
        }
        self.stream.damage = Some(if done { damage } else { Damage::Type });
        Ok(())
    }

    fn header_without_message(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let short = u.arbitrary()?;
        let range = if short { 0..=header_len::<D>() - 1 } else { 60_000..=65_535 };
        let frame = Frame { header: u.arbitrary()?, len: u.int_in_range(range)?, marked: false };
        self.stream.bytes.extend_from_slice(self.dialect.encode(&frame).as_bytes());
        Ok(())
    }

    fn unknown_type(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let mut header: Header = u.arbitrary()?;
        while self.types.iter().any(|(known, _)| *known == header.msg_type) {
            header.msg_type = header.msg_type.wrapping_add(1);
        }
        let payload = some_bytes(u)?;
        self.push(header, &payload, false, false);
        Ok(())
    }

    /// Pushes the message with another payload; false if the protocol takes every one that is tried.
    fn damaged_payload(&mut self, u: &mut Unstructured<'_>, valid: Valid) -> Result<bool> {
        let Valid { header, payload, takes } = valid;
        let shorter = payload[..u.int_in_range(0..=payload.len())?].to_vec();
        let longer = [&payload[..], &some_bytes(u)?, &[0]].concat();
        let mut changed = payload;
        if !changed.is_empty() {
            let at = u.choose_index(changed.len())?;
            changed[at] = u.arbitrary()?;
        }
        let mut others = [changed, shorter, longer];
        others.rotate_left(u.choose_index(3)?);
        for payload in others {
            let checked = (self.check)(header.msg_type, &payload, None);
            if matches!(checked, Err(Mistake::Field { .. } | Mistake::TooLong { .. })) {
                let with = takes == Takes::Always;
                self.push(header, &payload, with, with);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn damaged_descriptor(&mut self, u: &mut Unstructured<'_>, valid: &Valid) -> Result<()> {
        // Whether it is marked, and whether a descriptor is sent with it.
        let (marked, sent) = match valid.takes {
            Takes::None => *u.choose(&[(true, true), (true, false)])?,
            Takes::Maybe => (true, false),
            Takes::Always => *u.choose(&[(false, false), (true, false), (false, true)])?,
        };
        self.push(valid.header, &valid.payload, marked, sent);
        Ok(())
    }

    fn push(&mut self, header: Header, payload: &[u8], marked: bool, sent: bool) {
        let len = header_len::<D>() + payload.len();
        let raw = self.dialect.encode(&Frame { header, len, marked });
        let bytes = &mut self.stream.bytes;
        if sent {
            self.stream.descriptors.push(bytes.len());
        }
        bytes.extend_from_slice(raw.as_bytes());
        bytes.extend_from_slice(payload);
    }

    fn valid(&self, u: &mut Unstructured<'_>) -> Result<Option<Valid>> {
        let (msg_type, _) = *u.choose(self.types)?;
        let header = Header { msg_type, ..u.arbitrary()? };
        let Some(payload) = self.payload(u, msg_type)? else {
            return Ok(None);
        };
        let missing = Some(Missing::NotSent);
        let not_expected = Mistake::Descriptor(DescriptorError::NotExpected);
        let takes = match (self.check)(msg_type, &payload, None) {
            Err(_) => Takes::Always,
            Ok(()) if (self.check)(msg_type, &payload, missing) == Err(not_expected) => Takes::None,
            Ok(()) => Takes::Maybe,
        };
        Ok(Some(Valid { header, payload, takes }))
    }

    /// A payload for a message of this type: arbitrary bytes, mended until the protocol takes them.
    fn payload(&self, u: &mut Unstructured<'_>, msg_type: u32) -> Result<Option<Vec<u8>>> {
        /// How often a field is mended.
        const ATTEMPTS: usize = 256;
        /// After how many of them it may be long.
        const PATIENCE: usize = 4;

        let check = |payload: &[u8]| (self.check)(msg_type, payload, None);
        let mut payload = some_bytes(u)?;
        // The field that is wrong, where it starts, and how often it was mended. What is before it
        // is right.
        let (mut wrong, mut start, mut attempt) = ("", 0, 0);
        while attempt < ATTEMPTS {
            let (field, error) = match check(&payload) {
                // The fields are looked at before the descriptor.
                Ok(()) | Err(Mistake::Descriptor(_)) => return Ok(Some(payload)),
                Err(Mistake::Type) => return Ok(None),
                Err(Mistake::Field { field, error }) => (field, error),
                Err(Mistake::TooLong { extra }) => {
                    payload.truncate(payload.len().saturating_sub(extra));
                    attempt += 1;
                    continue;
                }
            };
            if field != wrong {
                let is_at_field = |end: &usize| {
                    let checked = check(payload.get(..*end).unwrap_or_default());
                    matches!(checked, Err(Mistake::Field { field: at, .. }) if at == field)
                };
                start = (start..payload.len()).find(is_at_field).unwrap_or(payload.len());
                (wrong, attempt) = (field, 0);
            }
            let most = if attempt < PATIENCE { 4 * PAYLOAD } else { DEFAULT_MAX_LEN };
            match error {
                ReadError::Short { need, have }
                    if payload.len().saturating_add(need - have) < most - header_len::<D>() =>
                {
                    for _ in have..need {
                        payload.push(u.arbitrary()?);
                    }
                }
                ReadError::Shape { .. } => payload.push(0),
                _ => write_some_value(u, &mut payload[start..], attempt)?,
            }
            attempt += 1;
        }
        Ok(None)
    }
}

fn some_bytes(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let len = u.int_in_range(0..=PAYLOAD)?;
    (0..len).map(|_| u.arbitrary()).collect()
}

/// Writes what fields begin with: text that ends, or a small number, and zeros behind it.
fn write_some_value(u: &mut Unstructured<'_>, place: &mut [u8], attempt: usize) -> Result<()> {
    place.fill(0);
    let number = (u.int_in_range(0..=7)? + (attempt / 4) as u32) % 64;
    let number = match attempt % 4 {
        0 => {
            let len = place.len() / 2;
            for byte in &mut place[..len] {
                *byte = u.int_in_range(b' '..=b'~')?;
            }
            return Ok(());
        }
        1 => number.to_le_bytes().to_vec(),
        2 => (number as u16).to_be_bytes().to_vec(),
        _ => number.to_be_bytes().to_vec(),
    };
    for (byte, value) in place.iter_mut().zip(number) {
        *byte = value;
    }
    Ok(())
}
