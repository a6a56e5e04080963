//! Claims of more than was offered: nothing changes, and what was handed in comes back.

use imsg_wire::{Ancillary, Header, Modern, NotOffered, RecvBuf, SendBuf};

type Buffer = RecvBuf<Modern, [u8; 64], &'static str>;
type Queue = SendBuf<Modern, [u8; 64], &'static str>;

#[test]
fn more_bytes_than_were_lent_are_not_received() {
    let mut buffer = buffer();
    assert_eq!(buffer.spare().expect("room").len(), 64);
    let claim = buffer.commit(65, Ancillary::One("A"));
    let returned = Ancillary::One("A");
    assert_eq!(claim, Err(NotOffered { claimed: 65, offered: 64, returned }));
    assert!(!buffer.is_ready());
    assert_eq!(buffer.commit(64, Ancillary::Nothing), Ok(()));
}

#[test]
fn bytes_are_received_once_for_each_time_that_room_was_lent() {
    let mut buffer = buffer();
    buffer.spare().expect("room");
    assert_eq!(buffer.commit(8, Ancillary::Nothing), Ok(()));
    let claim = buffer.commit(8, Ancillary::Nothing);
    let returned = Ancillary::Nothing;
    assert_eq!(claim, Err(NotOffered { claimed: 8, offered: 0, returned }));
    assert_eq!(buffer.spare().expect("room").len(), 56);
}

#[test]
fn a_descriptor_is_not_received_where_no_room_was_lent() {
    let mut buffer = buffer();
    let claim = buffer.commit(0, Ancillary::One("A"));
    let returned = Ancillary::One("A");
    assert_eq!(claim, Err(NotOffered { claimed: 0, offered: 0, returned }));
    buffer.finish();
    assert!(!buffer.is_ready(), "nothing was received that could be unclaimed");
}

#[test]
fn nothing_can_be_received_at_any_time() {
    let mut buffer = buffer();
    assert_eq!(buffer.commit(0, Ancillary::Nothing), Ok(()));
    buffer.spare().expect("room");
    assert_eq!(buffer.commit(0, Ancillary::Nothing), Ok(()));
    assert!(!buffer.is_ready());
}

#[test]
fn no_room_is_lent_any_more_after_the_end() {
    let mut buffer = buffer();
    buffer.spare().expect("room");
    buffer.finish();
    let claim = buffer.commit(1, Ancillary::Nothing);
    let returned = Ancillary::Nothing;
    assert_eq!(claim, Err(NotOffered { claimed: 1, offered: 0, returned }));
}

#[test]
fn more_bytes_than_a_chunk_has_are_not_sent() {
    let mut queue = queue();
    queue.compose(Header::new(1), b"abcd", Some("A")).expect("room");
    queue.compose(Header::new(2), b"", Some("B")).expect("room");
    let claim = queue.consume(21);
    assert_eq!(claim, Err(NotOffered { claimed: 21, offered: 20, returned: () }));
    assert_eq!((queue.queue_len(), queue.queue_bytes()), (2, 36));
    assert_eq!(queue.consume(20), Ok(Some("A")));
    assert_eq!(queue.consume(16), Ok(Some("B")));
}

#[test]
fn more_bytes_than_a_lent_message_has_are_not_sent() {
    let mut queue = queue();
    let lent = queue.lend(Header::new(1), b"abcd").expect("room");
    let refused = lent.sent(21).unwrap_err();
    assert_eq!(refused, NotOffered { claimed: 21, offered: 20, returned: () });
    assert!(queue.is_empty());
}

fn buffer() -> Buffer {
    let mut buffer = Buffer::with_descriptors(Modern::new(), [0; 64]);
    buffer.allow_descriptors();
    buffer
}

fn queue() -> Queue {
    Queue::with_descriptors(Modern::new(), [0; 64])
}
