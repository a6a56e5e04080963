//! Memory that the kernel maps. (One test, as it measures its process.)

#![cfg(target_os = "linux")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;

use imsg_os::{Channel, Header, Modern, Pages};

#[test]
fn only_what_was_written_to_is_resident() {
    const LEN: usize = 64 << 20;
    assert_eq!(Pages::new(0).unwrap_err().kind(), ErrorKind::InvalidInput);

    let before = resident_pages();
    let (one, other) = UnixStream::pair().unwrap();
    let [mut ours, mut theirs] = [one, other].map(|socket| {
        let pages = || Pages::new(LEN).unwrap();
        Channel::with_storage(socket, Modern::new(), pages(), pages()).unwrap()
    });
    ours.tx.compose(Header::new(1), b"hello", None).unwrap();
    ours.tx.flush().unwrap();
    assert_eq!(theirs.rx.recv().unwrap().expect("a message").payload, b"hello");
    let more = resident_pages().saturating_sub(before);
    assert!(more < LEN / page_size(), "{more} pages more");

    drop((ours, theirs));
    let mut pages = Pages::new(LEN).unwrap();
    assert!(pages.as_ref().iter().all(|byte| *byte == 0));
    pages.as_mut().fill(1);
    assert!(resident_pages().saturating_sub(before) >= LEN / page_size(), "it is measured");
}

fn resident_pages() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn page_size() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap();
    usize::try_from(size.expect("a size")).unwrap()
}
