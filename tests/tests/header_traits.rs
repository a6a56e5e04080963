//! What headers can do beside being sent.

use std::collections::HashSet;

use imsg_wire::{Frame, Header};

const HEADER: Header = Header { msg_type: 7, id: u32::MAX, pid: 0 };

#[test]
fn a_header_comes_back_from_json() {
    let json = serde_json::to_string(&HEADER).expect("a header is plain data");
    assert_eq!(json, r#"{"msg_type":7,"id":4294967295,"pid":0}"#);
    assert_eq!(serde_json::from_str::<Header>(&json).expect("what was written"), HEADER);
}

#[test]
fn a_frame_comes_back_from_json() {
    let frame = Frame { header: HEADER, len: 16, marked: true };
    let json = serde_json::to_string(&frame).expect("a frame is plain data");
    assert_eq!(serde_json::from_str::<Frame>(&json).expect("what was written"), frame);
}

#[test]
fn headers_are_the_same_if_their_fields_are() {
    let same = HEADER;
    let others = [Header { id: 1, ..HEADER }, Header { pid: 1, ..HEADER }, Header::new(8)];
    assert_eq!(HashSet::from([HEADER, same]).len(), 1);
    let all: HashSet<_> = others.into_iter().chain([HEADER]).collect();
    assert_eq!(all.len(), 4);
}

#[test]
fn a_reply_has_the_id_of_its_request_and_the_pid_of_this_process() {
    let request = Header { id: 7, pid: 99, ..Header::new(1) };
    assert_eq!(request.reply(2), Header { msg_type: 2, id: 7, pid: 0 });
    assert_eq!(request.with_id(8), Header { msg_type: 1, id: 8, pid: 99 });
}
