//! The dialects: how a header is laid out, and how to tell which one a peer speaks.
//!
//! | offset | [`Classic`] | [`Modern`] |
//! | --- | --- | --- |
//! | 0 | type, 32 bits | type, 32 bits |
//! | 4 | length, 16 bits | length, 31 bits; bit 31 is the descriptor mark |
//! | 6 | flags, 16 bits; bit 0 is the descriptor mark | |
//! | 8 | id, 32 bits | id, 32 bits |
//! | 12 | pid, 32 bits | pid, 32 bits |
//!
//! Both are in the host's byte order, and both are the same bytes on a little-endian host as long
//! as no message carries a descriptor.

use core::marker::PhantomData;

use zerocopy::{
    BigEndian, ByteOrder, FromBytes, Immutable, IntoBytes, KnownLayout, LittleEndian, NativeEndian,
    Unaligned, transmute, transmute_ref,
};

use crate::descriptor::Pairing;
use crate::header::{ClassicHeader, Frame, HEADER_LEN, ModernHeader};

/// A framing: how the header of a message is laid out.
///
/// [`Classic`], [`Modern`] and [`Any`] are the dialects of imsg. The trait is open, so that a
/// program whose internal messages have another header gets the same buffers by saying how that
/// header is read and written (what `msgbuf_new_reader` is for in libutil).
///
/// ```
/// use imsg_wire::{Ancillary, Dialect, Frame, Header, Pairing, RecvBuf, SendBuf};
///
/// /// Nothing but a length of 64 bits, whose top bit marks a descriptor.
/// #[derive(Clone, Copy)]
/// struct LengthOnly;
///
/// const MARK: u64 = 1 << 63;
///
/// impl Dialect for LengthOnly {
///     type Raw = [u8; 8];
///
///     fn decode(&self, raw: &[u8; 8]) -> Frame {
///         let word = u64::from_ne_bytes(*raw);
///         let len = usize::try_from(word & !MARK).unwrap_or(usize::MAX);
///         Frame { header: Header::default(), len, marked: word & MARK != 0 }
///     }
///
///     fn encode(&self, frame: &Frame) -> [u8; 8] {
///         let mark = if frame.marked { MARK } else { 0 };
///         (frame.len as u64 | mark).to_ne_bytes()
///     }
///
///     fn max_len(&self) -> usize {
///         usize::MAX >> 1
///     }
///
///     fn pairing(&self) -> Pairing {
///         Pairing::Exact
///     }
/// }
///
/// let mut queue = SendBuf::new(LengthOnly, [0; 64]);
/// queue.compose(Header::default(), b"hello", None)?;
/// let bytes = queue.chunk().unwrap().bytes;
/// assert_eq!(bytes.len(), 8 + 5);
///
/// let mut received = RecvBuf::new(LengthOnly, [0; 64]);
/// received.spare()?[..bytes.len()].copy_from_slice(bytes);
/// received.commit(bytes.len(), Ancillary::Nothing)?;
/// assert_eq!(received.next_message()?.unwrap().payload, b"hello");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// `imsg_os::Channel` takes such a dialect too.
pub trait Dialect {
    /// The header as it stands on the wire.
    type Raw: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned;

    /// Reads a header.
    ///
    /// This never fails: a header that must be refused gets a length that is out of range, such
    /// as 0.
    ///
    /// The buffers give it nothing but headers of their stream, none before those in front of it;
    /// the same one any number of times.
    fn decode(&self, raw: &Self::Raw) -> Frame;

    /// Writes a header. The length is at most [`max_len`](Dialect::max_len).
    fn encode(&self, frame: &Frame) -> Self::Raw;

    /// The largest length that a header of this dialect can state, in bytes, header included.
    fn max_len(&self) -> usize;

    /// The rule by which received descriptors find their messages, unless a program chooses
    /// another.
    fn pairing(&self) -> Pairing;
}

/// The bytes of a header in dialect `D`.
pub(crate) const fn header_len<D: Dialect>() -> usize {
    // A message has at least one byte, so that each one taken shortens the stream.
    const { assert!(size_of::<D::Raw>() > 0, "a header needs at least one byte") };
    size_of::<D::Raw>()
}

/// The dialect of imsg-compat, of tmux up to 3.5a, and of OpenBSD up to 7.6.
///
/// Native byte order is [`Classic::new`]; another is named: `Classic::<BigEndian>::default()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Classic<O = NativeEndian>(PhantomData<O>);

/// The dialect of OpenBSD's libutil since 7.7, and of tmux since 3.6.
///
/// Native byte order is [`Modern::new`]; another is named: `Modern::<BigEndian>::default()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Modern<O = NativeEndian>(PhantomData<O>);

impl Classic {
    /// The classic dialect in this machine's byte order.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl Modern {
    /// The modern dialect in this machine's byte order.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<O: ByteOrder> Dialect for Classic<O> {
    type Raw = [u8; HEADER_LEN];

    #[inline]
    fn decode(&self, raw: &Self::Raw) -> Frame {
        classic::<O>(raw).decode()
    }

    #[inline]
    fn encode(&self, frame: &Frame) -> Self::Raw {
        transmute!(ClassicHeader::<O>::encode(frame))
    }

    #[inline]
    fn max_len(&self) -> usize {
        0xffff
    }

    fn pairing(&self) -> Pairing {
        Pairing::Ordered
    }
}

impl<O: ByteOrder> Dialect for Modern<O> {
    type Raw = [u8; HEADER_LEN];

    #[inline]
    fn decode(&self, raw: &Self::Raw) -> Frame {
        modern::<O>(raw).decode()
    }

    #[inline]
    fn encode(&self, frame: &Frame) -> Self::Raw {
        transmute!(ModernHeader::<O>::encode(frame))
    }

    #[inline]
    fn max_len(&self) -> usize {
        usize::try_from(0x7fff_ffff_u32).unwrap_or(usize::MAX)
    }

    fn pairing(&self) -> Pairing {
        Pairing::Exact
    }
}

// Not derived, as that would ask the byte order for a value.
impl<O> Default for Classic<O> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<O> Default for Modern<O> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// A byte order as a value, where it is known only at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl Endian {
    /// The byte order of this machine.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

/// A dialect of imsg that is chosen at run time.
///
/// ```
/// use imsg_wire::{Any, DEFAULT_MAX_LEN, Endian, split};
///
/// let capture = [0, 0, 0, 1, 0, 17, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, b'!'];
/// let dialect = Any::Classic(Endian::Big);
/// let (frame, payload, rest) = split(&dialect, &capture, DEFAULT_MAX_LEN)?.unwrap();
/// assert_eq!((frame.header.msg_type, frame.header.id, frame.header.pid), (1, 2, 3));
/// assert_eq!((payload, rest), (&b"!"[..], &b""[..]));
/// # Ok::<(), imsg_wire::BadLength>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Any {
    /// What [`Classic`] reads and writes.
    Classic(Endian),
    /// What [`Modern`] reads and writes.
    Modern(Endian),
}

impl Dialect for Any {
    type Raw = [u8; HEADER_LEN];

    #[inline]
    fn decode(&self, raw: &Self::Raw) -> Frame {
        match self {
            Self::Classic(Endian::Little) => Classic::<LittleEndian>::default().decode(raw),
            Self::Classic(Endian::Big) => Classic::<BigEndian>::default().decode(raw),
            Self::Modern(Endian::Little) => Modern::<LittleEndian>::default().decode(raw),
            Self::Modern(Endian::Big) => Modern::<BigEndian>::default().decode(raw),
        }
    }

    #[inline]
    fn encode(&self, frame: &Frame) -> Self::Raw {
        match self {
            Self::Classic(Endian::Little) => Classic::<LittleEndian>::default().encode(frame),
            Self::Classic(Endian::Big) => Classic::<BigEndian>::default().encode(frame),
            Self::Modern(Endian::Little) => Modern::<LittleEndian>::default().encode(frame),
            Self::Modern(Endian::Big) => Modern::<BigEndian>::default().encode(frame),
        }
    }

    #[inline]
    fn max_len(&self) -> usize {
        match self {
            Self::Classic(_) => Classic::new().max_len(),
            Self::Modern(_) => Modern::new().max_len(),
        }
    }

    fn pairing(&self) -> Pairing {
        match self {
            Self::Classic(_) => Classic::new().pairing(),
            Self::Modern(_) => Modern::new().pairing(),
        }
    }
}

/// What one header tells about the dialect of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detected {
    /// Only a classic sender writes this header.
    Classic,
    /// Only a modern sender writes this header.
    Modern,
    /// Both write these bytes, and they mean the same: a message without a descriptor, in
    /// little-endian order.
    Either,
    /// Neither writes this header within the given maximum.
    Contradicts,
}

impl Detected {
    /// Which dialects could have written `header`, in byte order `order`, given that no message is
    /// longer than `max_len` bytes, header included.
    ///
    /// The maximum is 16 bits wide because a longer modern length can look like a classic one
    /// with a mark (65552 is a classic 16), so that nothing could be told.
    ///
    /// ```
    /// use imsg_wire::{Detected, Endian};
    ///
    /// let mut header = [0; 16];
    /// header[4] = 16;
    /// assert_eq!(Detected::of(&header, Endian::Little, 16384), Detected::Either);
    /// header[6] = 1;
    /// assert_eq!(Detected::of(&header, Endian::Little, 16384), Detected::Classic);
    /// header[6..8].copy_from_slice(&[0, 0x80]);
    /// assert_eq!(Detected::of(&header, Endian::Little, 16384), Detected::Modern);
    /// header[4] = 15;
    /// assert_eq!(Detected::of(&header, Endian::Little, 16384), Detected::Contradicts);
    /// ```
    #[must_use]
    pub fn of(header: &[u8; HEADER_LEN], order: Endian, max_len: u16) -> Self {
        match order {
            Endian::Little => Self::in_order::<LittleEndian>(header, max_len),
            Endian::Big => Self::in_order::<BigEndian>(header, max_len),
        }
    }

    fn in_order<O: ByteOrder>(header: &[u8; HEADER_LEN], max_len: u16) -> Self {
        let fits = |frame: Frame| (HEADER_LEN..=usize::from(max_len)).contains(&frame.len);
        let as_classic = classic::<O>(header);
        let classic = fits(as_classic.decode()) && as_classic.has_only_known_flags();
        let modern = fits(modern::<O>(header).decode());
        match (classic, modern) {
            (true, false) => Self::Classic,
            (false, true) => Self::Modern,
            (true, true) => Self::Either,
            (false, false) => Self::Contradicts,
        }
    }
}

fn classic<O: ByteOrder>(raw: &[u8; HEADER_LEN]) -> &ClassicHeader<O> {
    transmute_ref!(raw)
}

fn modern<O: ByteOrder>(raw: &[u8; HEADER_LEN]) -> &ModernHeader<O> {
    transmute_ref!(raw)
}
