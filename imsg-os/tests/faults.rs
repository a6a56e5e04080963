//! What becomes of descriptors when the peer, the kernel or this process does something wrong:
//! over real sockets, against peers made by hand, in both dialects and by both rules.

#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;

use common::{
    ByHand, Got, LEN, Peer, alone, filler, flush_error, in_both_dialects, is_peer,
    leaving_no_descriptor, marked, next, numbered, numbers, peer_and_channel, receive_to_the_end,
    send, send_and_wait, try_send, unmarked, watched,
};
use imsg_os::{
    Channel, Descriptor, Header, Missing, Modern, Pages, Pairing, ReadOutcome, Receiver, RecvError,
    Storage,
};
use imsg_wire::{Ancillary, Error, Fault, RecvBuf};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{Uid, geteuid, setuid};

/// Makes of each function a test for each dialect and rule.
macro_rules! in_both_dialects_by_both_rules {
    ($($name:ident)*) => {
        mod classic_exact {
            use imsg_os::{Classic, Pairing::Exact};
            $(#[test] fn $name() { super::$name(Classic::new(), Exact); })*
        }
        mod classic_ordered {
            use imsg_os::{Classic, Pairing::Ordered};
            $(#[test] fn $name() { super::$name(Classic::new(), Ordered); })*
        }
        mod modern_exact {
            use imsg_os::{Modern, Pairing::Exact};
            $(#[test] fn $name() { super::$name(Modern::new(), Exact); })*
        }
        mod modern_ordered {
            use imsg_os::{Modern, Pairing::Ordered};
            $(#[test] fn $name() { super::$name(Modern::new(), Ordered); })*
        }
    };
}

in_both_dialects_by_both_rules! {
    a_marked_header_that_straddles_a_read_keeps_its_descriptor
    a_descriptor_without_a_mark_is_reported
    a_marked_message_without_a_descriptor_says_so
    a_flood_of_unmarked_descriptors_is_stopped
    a_descriptor_without_a_free_slot_is_reported_as_dropped
    each_of_many_descriptors_without_a_free_slot_is_reported_as_dropped
    several_descriptors_with_a_free_slot_for_one_are_refused
    a_descriptor_in_the_middle_of_a_message_is_reported
    several_descriptors_at_once_are_refused
    the_most_descriptors_that_a_call_takes_are_refused
    a_descriptor_that_is_not_allowed_is_reported_and_closed
    a_descriptor_belongs_to_the_header_whose_first_byte_came_with_it
    a_descriptor_that_came_with_passed_pidfds_is_alone
}

in_both_dialects! {
    one_descriptor_for_two_marks_in_one_read_is_ambiguous_by_the_exact_rule
    one_descriptor_for_two_marks_in_one_read_goes_to_the_first_by_order
    a_descriptor_that_came_before_its_message_is_found_by_order
    a_descriptor_that_came_before_its_message_is_reported_by_the_exact_rule
    descriptors_that_overtook_their_messages_are_found_by_order
    a_peer_killed_within_a_header_leaves_a_truncated_stream
    a_peer_killed_within_a_payload_leaves_a_truncated_stream
    a_peer_killed_within_a_message_with_a_descriptor_leaves_none
    a_plain_message_with_a_passed_pidfd_has_no_descriptor
    a_pidfd_that_finds_no_slot_is_not_a_lost_descriptor
    a_broken_stream_closes_the_descriptors_that_wait
    a_reserve_makes_room_for_a_descriptor
    a_reserve_that_is_used_up_leaves_the_next_descriptor_where_it_is
    a_reserve_that_is_used_up_leaves_no_byte_of_what_it_saw
    a_reserve_does_not_change_what_is_received
}

/// Fault 1.
fn a_marked_header_that_straddles_a_read_keeps_its_descriptor<D: ByHand>(d: D, rule: Pairing) {
    const READ: usize = 65536;
    leaving_no_descriptor(|| {
        for inside in 1..16 {
            let (peer, mut channel) = peer_and_channel(d, rule);
            send(&peer, &filler(d, READ - inside), []);
            send(&peer, &marked(d, 1), [numbered(1)]);
            drop(peer);

            let got = receive_to_the_end(&mut channel.rx);
            let delivered = [Got::Message(1, Descriptor::Here(1)), Got::End];
            assert_eq!(got, delivered, "{inside} bytes of the header in the first read");
        }
    });
}

/// Fault 2. By order, the next marked message gets the descriptor, which nobody can see; what is
/// left over in the end can be seen.
fn a_descriptor_without_a_mark_is_reported<D: ByHand>(d: D, rule: Pairing) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, rule);
        send(&peer, &unmarked(d, 1), [numbered(1)]);
        read(&mut channel.rx);
        send(&peer, &marked(d, 2), [numbered(2)]);
        drop(peer);

        assert_eq!(receive_to_the_end(&mut channel.rx), unmarked_then_marked(rule));
    });
}

/// Of an unmarked message that brought descriptor 1, and a marked one that brought its own.
fn unmarked_then_marked(rule: Pairing) -> Vec<Got> {
    let unmarked = Got::Message(1, Descriptor::None);
    if rule == Pairing::Exact {
        vec![unmarked, Got::violation(Fault::Unclaimed, LEN)]
    } else {
        let given = Got::Message(2, Descriptor::Here(1));
        vec![unmarked, given, Got::violation(Fault::Unclaimed, 2 * LEN)]
    }
}

/// Fault 3.
fn a_marked_message_without_a_descriptor_says_so<D: ByHand>(d: D, rule: Pairing) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, rule);
        send(&peer, &marked(d, 1), []);
        read(&mut channel.rx);
        send(&peer, &marked(d, 2), [numbered(2)]);
        drop(peer);

        let missing = Got::Message(1, Descriptor::Missing(Missing::NotSent));
        let delivered = Got::Message(2, Descriptor::Here(2));
        assert_eq!(receive_to_the_end(&mut channel.rx), [missing, delivered, Got::End]);
    });
}

/// Fault 3, in one range.
fn one_descriptor_for_two_marks_in_one_read_is_ambiguous_by_the_exact_rule<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let mut channel = two_marks_in_one_read(d, Pairing::Exact);

        let before = Got::Message(1, Descriptor::None);
        let ambiguous = Got::violation(Fault::Ambiguous, LEN);
        assert_eq!(receive_to_the_end(&mut channel.rx), [before, ambiguous]);
    });
}

/// Fault 3, in one range. That it is the wrong one cannot be seen, but none is lost and none is
/// given twice.
fn one_descriptor_for_two_marks_in_one_read_goes_to_the_first_by_order<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let mut channel = two_marks_in_one_read(d, Pairing::Ordered);

        let before = Got::Message(1, Descriptor::None);
        let given = Got::Message(2, Descriptor::Here(3));
        let missing = Got::Message(3, Descriptor::Missing(Missing::NotSent));
        assert_eq!(receive_to_the_end(&mut channel.rx), [before, given, missing, Got::End]);
    });
}

fn two_marks_in_one_read<D: ByHand>(d: D, rule: Pairing) -> Channel<D> {
    let (peer, channel) = peer_and_channel(d, rule);
    send(&peer, &[unmarked(d, 1), marked(d, 2)].concat(), []);
    send(&peer, &marked(d, 3), [numbered(3)]);
    channel
}

/// Fault 4.
fn a_flood_of_unmarked_descriptors_is_stopped<D: ByHand>(d: D, rule: Pairing) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, rule);
        let flood = thread::spawn(move || {
            for _ in 0..500 {
                match try_send(&peer, &unmarked(d, 1), [numbered(1)]) {
                    // The receiver has had enough, and closed.
                    Err(Errno::EPIPE | Errno::ECONNRESET) => return,
                    result => assert_eq!(result, Ok(LEN as usize)),
                }
            }
        });

        let mut received = 0;
        let error = loop {
            match next(&mut channel.rx) {
                Got::Message(1, Descriptor::None) => received += 1,
                Got::Error(error) => break error,
                got => panic!("{got:?}"),
            }
        };
        let offset = received * LEN;
        if rule == Pairing::Exact {
            assert_eq!(Got::Error(error), Got::violation(Fault::Unclaimed, LEN));
            assert_eq!(received, 1);
        } else {
            let capacity = usize::try_from(received).unwrap();
            assert_eq!(error, Error::TooManyDescriptors { offset, capacity });
        }
        assert_eq!(next(&mut channel.rx), Got::Error(error));
        drop(channel);
        flood.join().unwrap();
    });
}

/// Fault 5.
fn a_descriptor_without_a_free_slot_is_reported_as_dropped<D: ByHand>(d: D, rule: Pairing) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, rule);
        send(&peer, &marked(d, 1), [numbered(1)]);
        without_a_free_slot(|| read(&mut channel.rx));
        send(&peer, &marked(d, 2), [numbered(2)]);
        drop(peer);

        let lost = Got::Message(1, Descriptor::Missing(Missing::Dropped));
        let delivered = Got::Message(2, Descriptor::Here(2));
        assert_eq!(receive_to_the_end(&mut channel.rx), [lost, delivered, Got::End]);
    });
}

/// Fault 5, for more descriptors than wait in a queue.
fn each_of_many_descriptors_without_a_free_slot_is_reported_as_dropped<D: ByHand>(
    d: D,
    rule: Pairing,
) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, rule);
        for n in 0..50 {
            send(&peer, &marked(d, n), [numbered(u64::from(n))]);
        }
        without_a_free_slot(|| {
            for n in 0..50 {
                let lost = Got::Message(n, Descriptor::Missing(Missing::Dropped));
                assert_eq!(next(&mut channel.rx), lost);
            }
        });
    });
}

/// Faults 5 and 7 at once: the kernel installs one and drops the others, so that the one is not to
/// be taken for all there was.
fn several_descriptors_with_a_free_slot_for_one_are_refused<D: ByHand>(d: D, rule: Pairing) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, rule);
        send(&peer, &marked(d, 1), [numbered(1), numbered(2)]);
        let slot = File::open("/dev/null").unwrap();
        without_a_free_slot(|| {
            drop(slot);
            read(&mut channel.rx);
        });
        drop(peer);

        assert_eq!(receive_to_the_end(&mut channel.rx), [Got::violation(Fault::Several, 0)]);
    });
}

fn without_a_free_slot(body: impl FnOnce()) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let mut slots = Vec::new();
    let error = loop {
        match File::open("/dev/null") {
            Ok(file) => slots.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    body();
}

fn a_reserve_makes_room_for_a_descriptor<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, Pairing::Exact);
        channel.rx.keep_reserve().unwrap();
        send(&peer, &marked(d, 1), [numbered(1)]);
        without_a_free_slot(|| {
            read(&mut channel.rx);
            assert!(channel.rx.is_at_limit());
        });
        drop(peer);

        let delivered = Got::Message(1, Descriptor::Here(1));
        assert_eq!(receive_to_the_end(&mut channel.rx), [delivered, Got::End]);
        assert!(!channel.rx.is_at_limit());
    });
}

fn a_reserve_that_is_used_up_leaves_no_byte_of_what_it_saw<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (peer, socket) = UnixStream::pair().unwrap();
        let (mut received, mut queued) = ([0; 256], [0; 16]);
        let mut channel =
            Channel::with_storage(socket, d, &mut received[..], &mut queued[..]).unwrap();
        channel.rx.allow_descriptors();
        channel.rx.keep_reserve().unwrap();
        send(&peer, &marked(d, 1), [numbered(1)]);
        send(&peer, &marked(d, 0x5ec4e7), [numbered(2)]);
        without_a_free_slot(|| {
            read(&mut channel.rx);
            assert!(matches!(channel.rx.read(), Err(RecvError::DescriptorLimit)));
        });
        drop(channel);

        let secret = 0x5ec4e7_u32.to_ne_bytes();
        assert!(!received.windows(secret.len()).any(|bytes| bytes == secret));
    });
}

fn a_reserve_that_is_used_up_leaves_the_next_descriptor_where_it_is<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, Pairing::Exact);
        channel.rx.keep_reserve().unwrap();
        send(&peer, &marked(d, 1), [numbered(1)]);
        send(&peer, &unmarked(d, 2), []);
        send(&peer, &marked(d, 3), [numbered(3)]);
        without_a_free_slot(|| {
            read(&mut channel.rx);
            // What comes before the descriptor.
            read(&mut channel.rx);
            assert!(matches!(channel.rx.read(), Err(RecvError::DescriptorLimit)));
            assert!(matches!(channel.rx.read(), Err(RecvError::DescriptorLimit)));
        });
        drop(peer);

        let delivered = [
            Got::Message(1, Descriptor::Here(1)),
            Got::Message(2, Descriptor::None),
            Got::Message(3, Descriptor::Here(3)),
            Got::End,
        ];
        assert_eq!(receive_to_the_end(&mut channel.rx), delivered);
    });
}

fn a_reserve_does_not_change_what_is_received<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, Pairing::Exact);
        channel.rx.keep_reserve().unwrap();
        send(&peer, &unmarked(d, 1), []);
        send(&peer, &marked(d, 2), [numbered(2)]);
        send(&peer, &marked(d, 3), [numbered(3)]);
        send(&peer, &unmarked(d, 4), [numbered(4), numbered(5)]);
        send(&peer, &unmarked(d, 5), []);
        drop(peer);

        let delivered = [
            Got::Message(1, Descriptor::None),
            Got::Message(2, Descriptor::Here(2)),
            Got::Message(3, Descriptor::Here(3)),
            Got::Message(4, Descriptor::None),
            Got::violation(Fault::Several, 4 * LEN),
        ];
        assert_eq!(receive_to_the_end(&mut channel.rx), delivered);
    });
}

/// Fault 6. By order, it is as fault 2.
fn a_descriptor_in_the_middle_of_a_message_is_reported<D: ByHand>(d: D, rule: Pairing) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, rule);
        let message = unmarked(d, 1);
        send(&peer, &message[..18], []);
        send(&peer, &message[18..], [numbered(1)]);
        send(&peer, &marked(d, 2), [numbered(2)]);
        drop(peer);

        assert_eq!(receive_to_the_end(&mut channel.rx), unmarked_then_marked(rule));
    });
}

/// Fault 7.
fn several_descriptors_at_once_are_refused<D: ByHand>(d: D, rule: Pairing) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, rule);
        send(&peer, &marked(d, 1), [numbered(1)]);
        send(&peer, &marked(d, 2), [numbered(2), numbered(3)]);
        send(&peer, &marked(d, 3), [numbered(4)]);
        drop(peer);

        let delivered = Got::Message(1, Descriptor::Here(1));
        let several = Got::violation(Fault::Several, LEN);
        assert_eq!(receive_to_the_end(&mut channel.rx), [delivered, several]);
    });
}

/// Fault 7, as far as Linux goes.
fn the_most_descriptors_that_a_call_takes_are_refused<D: ByHand>(d: D, rule: Pairing) {
    const MOST: u64 = 253;
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, rule);
        let too_many: Vec<_> = (0..=MOST).map(numbered).collect();
        assert_eq!(try_send(&peer, &unmarked(d, 1), too_many), Err(Errno::EINVAL));
        let most: Vec<_> = (0..MOST).map(numbered).collect();
        send(&peer, &unmarked(d, 1), most);
        send(&peer, &unmarked(d, 2), []);
        drop(peer);

        let before = Got::Message(1, Descriptor::None);
        let several = Got::violation(Fault::Several, LEN);
        assert_eq!(receive_to_the_end(&mut channel.rx), [before, several]);
    });
}

fn a_broken_stream_closes_the_descriptors_that_wait<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, Pairing::Ordered);
        let (descriptor, watch) = watched();
        send(&peer, &unmarked(d, 1), [descriptor]);
        send(&peer, &unmarked(d, 2), [numbered(1), numbered(2)]);
        read(&mut channel.rx);
        assert!(watch.sees_it_open());
        drop(peer);

        let got = receive_to_the_end(&mut channel.rx);
        assert_eq!(got.last(), Some(&Got::violation(Fault::Several, 2 * LEN)));
        assert!(watch.sees_it_closed());
        drop(channel);
    });
}

/// Fault 8.
fn a_descriptor_that_is_not_allowed_is_reported_and_closed<D: ByHand>(d: D, rule: Pairing) {
    leaving_no_descriptor(|| {
        let (peer, socket) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(socket, d).unwrap();
        channel.rx.set_pairing(rule);
        let (descriptor, watch) = watched();
        send(&peer, &marked(d, 1), [descriptor]);
        read(&mut channel.rx);
        assert!(watch.sees_it_closed());
        drop(peer);

        let refused = Got::Message(1, Descriptor::Missing(Missing::NotAllowed));
        assert_eq!(receive_to_the_end(&mut channel.rx), [refused, Got::End]);
    });
}

/// What libutil did before 2021: the marked message is the last one of its `sendmsg`.
fn a_descriptor_that_came_before_its_message_is_found_by_order<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let mut channel = marked_messages_that_end_their_sendmsg(d);
        channel.rx.set_pairing(Pairing::Ordered);

        let delivered = (1..=3).map(|n| Got::Message(n, Descriptor::Here(u64::from(n))));
        let expected: Vec<_> = delivered.chain([Got::End]).collect();
        assert_eq!(receive_to_the_end(&mut channel.rx), expected);
    });
}

fn a_descriptor_that_came_before_its_message_is_reported_by_the_exact_rule<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let mut channel = marked_messages_that_end_their_sendmsg(d);
        channel.rx.set_pairing(Pairing::Exact);

        assert_eq!(receive_to_the_end(&mut channel.rx), [Got::violation(Fault::Unclaimed, 4096)]);
    });
}

/// Read by 4096 bytes at most, so that none of the descriptors comes with its message.
fn marked_messages_that_end_their_sendmsg<D: ByHand>(d: D) -> Channel<D> {
    let (peer, socket) = UnixStream::pair().unwrap();
    let memory = || Pages::new(4096).expect("memory");
    let mut channel = Channel::with_storage(socket, d, memory(), memory()).unwrap();
    channel.rx.allow_descriptors();
    for n in 1..=3 {
        send(&peer, &[filler(d, 5777), marked(d, n)].concat(), [numbered(u64::from(n))]);
    }
    channel
}

/// What libutil did before 2021 after a short `sendmsg`: it took the descriptor with its first
/// bytes, and the next one brings another while the first marked message is still to come.
fn descriptors_that_overtook_their_messages_are_found_by_order<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, Pairing::Ordered);
        let stream = [filler(d, 5777), marked(d, 1), filler(d, 100), marked(d, 2)].concat();
        send(&peer, &stream[..3000], [numbered(1)]);
        send(&peer, &stream[3000..], [numbered(2)]);
        drop(peer);

        let first = Got::Message(1, Descriptor::Here(1));
        let second = Got::Message(2, Descriptor::Here(2));
        assert_eq!(receive_to_the_end(&mut channel.rx), [first, second, Got::End]);
    });
}

/// Fault 6 in a marked message: both rules take the descriptor for its own as long as the first
/// byte of its header came with it, and not otherwise.
fn a_descriptor_belongs_to_the_header_whose_first_byte_came_with_it<D: ByHand>(
    d: D,
    rule: Pairing,
) {
    let last = LEN as usize - 1;
    leaving_no_descriptor(|| {
        for position in (0..16).chain([last]) {
            for most in [1, 7, 4096] {
                for eager in [true, false] {
                    let sent = attached_at(d, position);
                    let (got, range) = received(d, rule, sent, most, eager);
                    assert_eq!(
                        got,
                        attributed(rule, &range),
                        "at byte {position} of the message, reads of {most} bytes, messages are \
                         taken {}, the descriptor came with {range:?}",
                        if eager { "after each read" } else { "in the end" },
                    );
                }
            }
        }
    });
}

/// An unmarked, a marked and an unmarked message, and a descriptor on one byte of the marked one.
fn attached_at<D: ByHand>(d: D, position: usize) -> UnixStream {
    let (peer, socket) = UnixStream::pair().unwrap();
    let message = marked(d, 2);
    send(&peer, &[&unmarked(d, 1)[..], &message[..position]].concat(), []);
    send(&peer, &message[position..], [numbered(2)]);
    send(&peer, &unmarked(d, 3), []);
    socket
}

/// What [`attached_at`] is to become when the descriptor came with this range.
fn attributed(rule: Pairing, range: &Range<u64>) -> Vec<Got> {
    let before = Got::Message(1, Descriptor::None);
    let behind = Got::Message(3, Descriptor::None);
    if range.contains(&LEN) {
        return vec![before, Got::Message(2, Descriptor::Here(2)), behind, Got::End];
    }
    let missing = Got::Message(2, Descriptor::Missing(Missing::NotSent));
    if rule == Pairing::Exact {
        vec![before, missing, Got::violation(Fault::Unclaimed, range.end)]
    } else {
        vec![before, missing, behind, Got::violation(Fault::Unclaimed, 3 * LEN)]
    }
}

/// Everything that is there, by reads of `most` bytes, and the range that brought the descriptor.
fn received<D: ByHand>(
    d: D,
    rule: Pairing,
    socket: UnixStream,
    most: usize,
    eager: bool,
) -> (Vec<Got>, Range<u64>) {
    let mut buf = RecvBuf::<_, _, OwnedFd>::with_descriptors(d, [0; 4096]);
    buf.allow_descriptors();
    buf.set_pairing(rule);
    let mut got = Vec::new();
    let mut offset = 0;
    let mut range = None;
    while let Ok(spare) = buf.spare() {
        let most = most.min(spare.len());
        let (n, ancillary) = receive_by_hand(&socket, &mut spare[..most]);
        let start = offset;
        offset += n as u64;
        if matches!(ancillary, Ancillary::One(_)) {
            assert_eq!(range.replace(start..offset), None, "there is but one descriptor");
        }
        buf.commit(n, ancillary).unwrap();
        if n == 0 {
            buf.finish();
        }
        if eager || n == 0 {
            got.extend(buf.messages().map(|item| match item {
                Ok(message) => Got::Message(message.header.msg_type, numbers(message.descriptor)),
                Err(error) => Got::Error(error),
            }));
        }
    }
    if !matches!(got.last(), Some(Got::Error(_))) {
        got.push(Got::End);
    }
    (got, range.expect("a descriptor"))
}

fn receive_by_hand(socket: &UnixStream, spare: &mut [u8]) -> (usize, Ancillary<OwnedFd>) {
    let mut control = cmsg_space!([RawFd; 2]);
    let mut iov = [IoSliceMut::new(spare)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)
        .expect("receive by hand");
    let mut descriptors = Vec::new();
    for item in message.cmsgs().expect("control messages") {
        if let ControlMessageOwned::ScmRights(rights) = item {
            descriptors.extend(rights);
        }
    }
    match descriptors[..] {
        [] => (message.bytes, Ancillary::Nothing),
        // SAFETY: the kernel installed it for this call, and nobody else knows of it.
        [one] => (message.bytes, Ancillary::One(unsafe { OwnedFd::from_raw_fd(one) })),
        _ => panic!("{} descriptors came", descriptors.len()),
    }
}

fn a_peer_killed_within_a_header_leaves_a_truncated_stream<D: ByHand>(d: D) {
    let sent = [unmarked(d, 1), unmarked(d, 2)[..9].to_vec()].concat();
    let before = Got::Message(1, Descriptor::None);
    let truncated = Got::Error(Error::Truncated { offset: LEN, have: 9, need: 16 });
    a_killed_peer_leaves(d, &sent, false, &[before, truncated]);
}

fn a_peer_killed_within_a_payload_leaves_a_truncated_stream<D: ByHand>(d: D) {
    let sent = [unmarked(d, 1), unmarked(d, 2)[..18].to_vec()].concat();
    let before = Got::Message(1, Descriptor::None);
    let truncated = Got::Error(Error::Truncated { offset: LEN, have: 18, need: LEN as usize });
    a_killed_peer_leaves(d, &sent, false, &[before, truncated]);
}

fn a_peer_killed_within_a_message_with_a_descriptor_leaves_none<D: ByHand>(d: D) {
    let sent = &marked(d, 1)[..18];
    let truncated = Got::Error(Error::Truncated { offset: 0, have: 18, need: LEN as usize });
    a_killed_peer_leaves(d, sent, true, &[truncated]);
}

#[track_caller]
fn a_killed_peer_leaves<D: ByHand>(d: D, sent: &[u8], with_descriptor: bool, expected: &[Got]) {
    if is_peer() {
        let descriptor = with_descriptor.then(|| numbered(1));
        return send_and_wait(sent, Vec::from_iter(descriptor));
    }
    leaving_no_descriptor(|| {
        let (theirs, mut channel) = peer_and_channel(d, Pairing::Ordered);
        Peer::start(theirs).kill();

        assert_eq!(receive_to_the_end(&mut channel.rx), expected);
    });
}

fn a_descriptor_that_came_with_passed_pidfds_is_alone<D: ByHand>(d: D, rule: Pairing) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, rule);
        if !pass_pidfds(&channel) {
            return;
        }
        send(&peer, &marked(d, 1), [numbered(1)]);
        send(&peer, &marked(d, 2), [numbered(2)]);
        drop(peer);

        let first = Got::Message(1, Descriptor::Here(1));
        let second = Got::Message(2, Descriptor::Here(2));
        assert_eq!(receive_to_the_end(&mut channel.rx), [first, second, Got::End]);
    });
}

fn a_plain_message_with_a_passed_pidfd_has_no_descriptor<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, Pairing::Exact);
        if !pass_pidfds(&channel) {
            return;
        }
        send(&peer, &unmarked(d, 1), []);
        drop(peer);

        assert_eq!(
            receive_to_the_end(&mut channel.rx),
            [Got::Message(1, Descriptor::None), Got::End]
        );
    });
}

fn a_pidfd_that_finds_no_slot_is_not_a_lost_descriptor<D: ByHand>(d: D) {
    leaving_no_descriptor(|| {
        let (peer, mut channel) = peer_and_channel(d, Pairing::Exact);
        if !pass_pidfds(&channel) {
            return;
        }
        send(&peer, &marked(d, 1), []);
        without_a_free_slot(|| read(&mut channel.rx));
        drop(peer);

        let missing = Got::Message(1, Descriptor::Missing(Missing::NotSent));
        assert_eq!(receive_to_the_end(&mut channel.rx), [missing, Got::End]);
    });
}

/// Asks for a pidfd with each read, from now on; `false` where the kernel knows none.
fn pass_pidfds<D: ByHand>(channel: &Channel<D>) -> bool {
    const SO_PASSPIDFD: libc::c_int = 76;
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of an integer, as the option takes.
    let result = unsafe {
        libc::setsockopt(
            channel.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSPIDFD,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    match Errno::result(result) {
        Ok(_) => true,
        Err(Errno::ENOPROTOOPT) => false,
        Err(error) => panic!("SO_PASSPIDFD: {error}"),
    }
}

#[test]
fn too_many_descriptors_in_flight_are_an_error_that_can_be_retried() {
    alone(|| {
        let (mut sender, mut receiver) = Channel::pair(Modern::new()).unwrap();
        receiver.rx.allow_descriptors();
        become_an_ordinary_user();

        let (sent, error) = (0_u64..)
            .find_map(|n| {
                sender.tx.compose(Header::new(n as u32), b"", Some(numbered(n))).unwrap();
                sender.tx.flush().err().map(|error| (n, error))
            })
            .unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ETOOMANYREFS));
        assert_eq!(sender.tx.queue_len(), 1);
        assert_eq!(flush_error(&mut sender), Some(libc::ETOOMANYREFS));

        let mut expect = |n: u64| {
            assert_eq!(next(&mut receiver.rx), Got::Message(n as u32, Descriptor::Here(n)));
        };
        (0..10).for_each(&mut expect);
        assert_eq!(flush_error(&mut sender), None);
        (10..=sent).for_each(&mut expect);
    });
}

/// One that may have few descriptors in flight. Root may have any number.
fn become_an_ordinary_user() {
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
    if geteuid().is_root() {
        // What others of the same user have in flight counts too, so this is nobody else's.
        setuid(Uid::from_raw(20_000 + std::process::id() % 40_000)).unwrap();
    }
}

#[track_caller]
fn read<D: ByHand, S: Storage>(rx: &mut Receiver<D, S>) {
    assert_eq!(rx.read().expect("read"), ReadOutcome::Data);
}
