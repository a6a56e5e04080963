//! Memory that the kernel maps.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use imsg_os::{Channel, Header, Modern, Pages};

/// How many bytes a buffer of `Channel::new` has.
const DEFAULT: usize = 64 << 10;

/// Has a test be the only one: each measures its process, or needs what the others would take.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn only_what_was_written_to_is_resident() {
    const LEN: usize = 64 << 20;
    let _alone = alone();
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

/// More than are kept.
fn many() -> Vec<Pages> {
    (0..100).map(|_| Pages::new(DEFAULT).unwrap()).collect()
}

fn is_zeros(pages: &Pages) -> bool {
    pages.as_ref() == [0; DEFAULT]
}

#[test]
fn what_was_dropped_is_zeros_when_it_comes_again() {
    let _alone = alone();
    let mut all = many();
    let places: Vec<_> = all.iter().map(|pages| pages.as_ref().as_ptr()).collect();
    all.iter_mut().for_each(|pages| pages.as_mut().fill(1));
    drop(all);

    let all = many();

    assert!(all.iter().any(|pages| places.contains(&pages.as_ref().as_ptr())), "it came again");
    assert!(all.iter().all(is_zeros));
}

#[test]
fn what_was_dropped_is_resident_no_more_but_for_a_page_of_a_few() {
    let _alone = alone();
    drop(many());
    let before = resident_pages();
    let mut all = many();
    all.iter_mut().for_each(|pages| pages.as_mut().fill(1));
    let used = resident_pages();
    drop(all);

    let after = resident_pages();

    assert!(used - before >= 50 * (DEFAULT / page_size()), "it is measured");
    // The kernel counts with an error of some dozens, and a sanitizer takes memory in between. Half of
    // the 16 that are kept would be more.
    let most = 8 * (DEFAULT / page_size());
    assert!(after.saturating_sub(before) <= most, "{before}, then {after} pages");
}

#[test]
fn what_was_locked_in_memory_is_zeros_when_it_comes_again() {
    let _alone = alone();
    // So that there is a place for it.
    let taken = many();
    let mut pages = Pages::new(DEFAULT).unwrap();
    // SAFETY: it is memory of this process.
    let locked = unsafe { libc::mlock(pages.as_ref().as_ptr().cast(), DEFAULT) };
    assert_eq!(locked, 0, "{}", std::io::Error::last_os_error());
    pages.as_mut().fill(1);
    drop(pages);

    assert!(many().iter().all(is_zeros));
    drop(taken);
}

#[test]
fn threads_that_take_and_drop_at_once_never_share() {
    let _alone = alone();
    let take = |number: u8| {
        for _ in 0..500 {
            let mut pages = [(); 3].map(|()| Pages::new(DEFAULT).unwrap());
            assert!(pages.iter().all(is_zeros));
            // Both what stays resident and what does not.
            pages.iter_mut().for_each(|pages| pages.as_mut()[..8192].fill(number));
            thread::yield_now();
            assert!(pages.iter().all(|pages| pages.as_ref()[..8192] == [number; 8192]));
        }
    };
    thread::scope(|scope| {
        (1..=4).for_each(|number| _ = scope.spawn(move || take(number)));
    });
}

fn resident_pages() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn page_size() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap();
    usize::try_from(size.expect("a size")).unwrap()
}
