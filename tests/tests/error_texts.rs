//! What errors say, and what `Debug` shows of messages and buffers.

use std::io;
use std::os::unix::net::UnixDatagram;

use imsg_os::{Channel, NotAStream, RecvError, SendError};
use imsg_wire::{
    Any, BadLength, Classic, Descriptor, Endian, Error, Fault, Header, Message, Messages, Missing,
    Modern, NoRoom, NotOffered, OwnedMessage, ReadError, Reader, Reason, RecvBuf, Refused, SendBuf,
    Violation, Wiping, WriteError,
};
use zerocopy::{BigEndian, LittleEndian};

const PAYLOAD: &[u8] = b"twenty bytes, or so.";

#[test]
fn a_bad_length_says_which_are_allowed() {
    let error = BadLength { len: 15, min: 16, max: 16384 };
    says(error, "a length of 15 bytes is out of range; 16 to 16384 are allowed");
}

#[test]
fn an_error_of_a_stream_says_where_it_is() {
    let error = BadLength { len: 15, min: 16, max: 16384 };
    says(
        Error::Length { offset: 32, error },
        "at offset 32, a length of 15 bytes is out of range; 16 to 16384 are allowed",
    );
    says(
        Error::Truncated { offset: 32, have: 3, need: 16 },
        "the stream ended inside the message at offset 32, after 3 of 16 bytes",
    );
    says(
        Error::TooManyDescriptors { offset: 32, capacity: 8 },
        "8 descriptors arrived before offset 32 and no message claims them",
    );
    says(
        Error::StorageTooSmall { storage: 8, need: 16 },
        "the storage has 8 bytes where 16 bytes are needed",
    );
}

#[test]
fn a_violation_says_what_came_and_where() {
    for (fault, text) in [
        (
            Fault::Ambiguous,
            "one descriptor came with more than one marked message, the first at offset 48",
        ),
        (Fault::Unclaimed, "a descriptor came before offset 48 that no message claims"),
        (
            Fault::Several,
            "several descriptors came at once, for or before the message at offset 48",
        ),
    ] {
        let violation = Violation { fault, offset: 48 };
        says(violation, text);
        says(Error::Descriptor(violation), text);
    }
}

#[test]
fn a_buffer_without_room_says_why() {
    says(NoRoom::Full, "the buffer is full: take messages before reading on");
    says(NoRoom::Finished, "the stream has ended");
    says(
        NoRoom::Failed(Error::StorageTooSmall { storage: 8, need: 16 }),
        "the storage has 8 bytes where 16 bytes are needed",
    );
}

#[test]
fn what_was_not_offered_says_how_much_was() {
    says(
        NotOffered { claimed: 9, offered: 4, returned: () },
        "9 bytes were claimed as done where 4 bytes were offered",
    );
}

#[test]
fn a_refused_message_says_why() {
    for (reason, text) in [
        (
            Reason::TooLong { len: 20000, max: 16384 },
            "a message of 20000 bytes is longer than the maximum of 16384 bytes",
        ),
        (
            Reason::Full { len: 100, free: 50 },
            "the queue has 50 bytes free, and the message 100 bytes",
        ),
        (Reason::DescriptorsFull, "the queue cannot hold another descriptor"),
    ] {
        says(reason, text);
        says(Refused { reason, descriptor: Some(()) }, text);
        says(SendError::Refused(reason), text);
    }
}

#[test]
fn a_field_that_was_not_read_says_why() {
    for (error, text) in [
        (ReadError::Short { need: 8, have: 3 }, "the payload has 3 bytes left where 8 are needed"),
        (
            ReadError::Size { expected: 8, have: 9 },
            "the payload has 9 bytes left where 8 are expected",
        ),
        (ReadError::Shape { have: 5 }, "the payload has 5 bytes left, which make no whole value"),
        (ReadError::Unterminated { len: 16 }, "a string has no end within 16 bytes"),
        (ReadError::NotUtf8, "a string is not UTF-8"),
    ] {
        says(error, text);
    }
}

#[test]
fn a_field_that_was_not_written_says_why() {
    for (error, text) in [
        (
            WriteError::TooLong { len: 9, max: 8 },
            "a payload of 9 bytes is longer than the maximum of 8 bytes",
        ),
        (
            WriteError::Full { len: 9, free: 8 },
            "there is room for 8 bytes, and 9 are to be written",
        ),
        (
            WriteError::String { len: 8, field: 8 },
            "a string of 8 bytes has a NUL in it, or does not fit a field of 8 bytes with one \
             behind it",
        ),
        (
            WriteError::Outside { offset: 6, len: 4, written: 8 },
            "4 bytes at offset 6 do not lie within the 8 bytes written",
        ),
    ] {
        says(error, text);
    }
}

#[test]
fn a_missing_descriptor_says_why() {
    for (missing, text) in [
        (Missing::NotAllowed, "descriptors were not allowed yet"),
        (Missing::Dropped, "the kernel dropped the descriptor"),
        (Missing::NotSent, "the sender attached no descriptor"),
    ] {
        says(missing, text);
        says(Reason::Missing(missing), text);
    }
}

#[test]
fn a_channel_error_says_what_is_below_it() {
    let system = || io::Error::from_raw_os_error(libc::EPIPE);
    let text = system().to_string();
    says(RecvError::Io(system()), &text);
    says(SendError::Io(system()), &text);
    says(
        RecvError::Protocol(Error::StorageTooSmall { storage: 8, need: 16 }),
        "the storage has 8 bytes where 16 bytes are needed",
    );
    says(RecvError::Full, "the buffer is full: take messages before reading on");
    says(
        RecvError::DescriptorLimit,
        "a descriptor waits, and this process has no room for another one",
    );
}

#[test]
fn a_socket_that_makes_no_channel_says_what_a_channel_needs() {
    let socket = UnixDatagram::unbound().unwrap();
    let error: NotAStream = Channel::new(socket, Modern::new()).unwrap_err();
    says(error, "a channel needs a connected Unix stream socket: it is a socket of another type");
}

#[test]
fn debug_output_shows_the_length_of_a_payload_and_none_of_its_bytes() {
    let shown = "20 bytes";
    let header = Header::new(1);
    let message = Message { header, payload: PAYLOAD, descriptor: Descriptor::Here("A") };
    let fields = format!(
        " {{ header: Header {{ msg_type: 1, id: 0, pid: 0 }}, payload: {shown}, \
         descriptor: Here(\"A\") }}"
    );
    assert_eq!(format!("{message:?}"), format!("Message{fields}"));
    let owned: OwnedMessage<20, &str> = message.try_into().unwrap();
    assert_eq!(format!("{owned:?}"), format!("OwnedMessage{fields}"));
    assert_eq!(format!("{:?}", Reader::new(PAYLOAD)), format!("Reader({shown})"));
    assert_eq!(format!("{:?}", Reader::new(b"")), "Reader(0 bytes)");
}

#[test]
fn debug_output_of_buffers_shows_their_state_and_no_bytes() {
    let mut queue: SendBuf<_, _, &str> = SendBuf::with_descriptors(Modern::new(), [0; 64]);
    queue.compose(Header::new(0x0101_0101), PAYLOAD, Some("A")).unwrap();
    assert_eq!(
        format!("{queue:?}"),
        "SendBuf { messages: 1, bytes: 36, descriptors: 1, max_len: 64, .. }"
    );
    let chunk = queue.chunk().unwrap();
    assert_eq!(format!("{chunk:?}"), "Chunk { bytes: 36 bytes, descriptor: Some(\"A\") }");
    let bytes = chunk.bytes.to_vec();
    queue.consume(36).unwrap();

    let lent = queue.lend(Header::new(1), PAYLOAD).unwrap();
    assert_eq!(format!("{lent:?}"), "Lent { len: 36, .. }");
    drop(lent);
    let mut writer = queue.create(Header::new(1), None).unwrap();
    writer.add(b"ab").unwrap();
    assert_eq!(format!("{writer:?}"), "Writer { written: 2 bytes, remaining: 46, .. }");

    let mut buffer = RecvBuf::new(Modern::new(), [0; 64]);
    buffer.spare().unwrap()[..30].copy_from_slice(&bytes[..30]);
    buffer.commit(30, imsg_wire::Ancillary::Nothing).unwrap();
    assert_eq!(
        format!("{buffer:?}"),
        "RecvBuf { unread: 30, offset: 0, max_len: 64, finished: false, failed: None, .. }"
    );
    assert_eq!(format!("{:?}", buffer.messages()), "Received { unread: 30, .. }");

    let messages = Messages::new(Modern::new(), &bytes[..2], 64);
    assert_eq!(format!("{messages:?}"), "Messages { rest: 2 bytes, max_len: 64, offset: 0, .. }");
}

#[test]
fn a_refusal_becomes_an_error_of_a_channel_and_of_the_system() {
    for (reason, number) in [
        (Reason::TooLong { len: 65, max: 64 }, libc::ERANGE),
        (Reason::Full { len: 20, free: 10 }, libc::ENOBUFS),
        (Reason::DescriptorsFull, libc::ENOBUFS),
        (Reason::Missing(Missing::NotSent), libc::EBADMSG),
    ] {
        let error = SendError::from(Refused { reason, descriptor: None });
        assert!(matches!(error, SendError::Refused(same) if same == reason));
        assert_eq!(io::Error::from(error).raw_os_error(), Some(number));
    }
}

#[test]
fn debug_output_of_a_wiping_storage_shows_none_of_its_bytes() {
    assert_eq!(format!("{:?}", Wiping::new(*b"secret")), "Wiping { bytes: 6, .. }");
}

#[test]
fn debug_output_names_a_dialect_and_its_byte_order() {
    let classic = format!("{:?}", Classic::<BigEndian>::default());
    assert!(classic.starts_with("Classic(") && classic.contains("BigEndian"), "{classic}");
    let modern = format!("{:?}", Modern::<LittleEndian>::default());
    assert!(modern.starts_with("Modern(") && modern.contains("LittleEndian"), "{modern}");
    assert_eq!(format!("{:?}", Any::Modern(Endian::Little)), "Modern(Little)");
}

/// Checks the text of an error, and that it is the only one: nothing below it is said twice.
fn says<E: std::error::Error>(error: E, text: &str) {
    assert_eq!(error.to_string(), text);
    assert!(error.source().is_none());
}
