//! Two ends joined in memory: a handler is tested as its real peers would.

use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::iter;
use std::os::fd::OwnedFd;

use imsg_tests::effort::cases;
use imsg_wire::testing::senders::Ends;
use imsg_wire::testing::{Broken, Call, Duplicate, Kernel, Link, Pair, Stopped, Token, Tokens};
use imsg_wire::typed::{BadMessage, Protocol};
use imsg_wire::{
    Classic, Compose, Descriptor, Error, Header, Message, Missing, Modern, RecvBuf, Refused,
    SendBuf,
};
use proptest::prelude::*;

imsg_wire::protocol! {
    #[derive(Debug)]
    enum Request<'a, F> {
        1 => Keep(&'a [u8]) + F,
        2 => Count,
    }
}

imsg_wire::protocol! {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Answer {
        3 => Kept { bytes: u32 },
        4 => Total { files: u32 },
        5 => Lost,
    }
}

/// A handler as programs have them: it keeps files, and counts them.
#[derive(Debug)]
struct Keeper<F>(Vec<F>);

impl<F> Keeper<F> {
    fn handle<Q>(&mut self, message: Message<'_, F>, tx: &mut Q) -> Result<(), Refused<F>>
    where
        Q: Compose<Descriptor = F>,
    {
        let id = message.header.id;
        let answer = match message.try_into() {
            Ok(Request::Keep(name, file)) => {
                self.0.push(file);
                Answer::Kept { bytes: name.len() as u32 }
            }
            Ok(Request::Count) => Answer::Total { files: self.0.len() as u32 },
            Err(BadMessage { .. }) => Answer::Lost,
        };
        answer.compose(tx, id)
    }
}

fn pair(kernel: Kernel) -> Pair<Modern> {
    let mut pair = Pair::new(Modern::new(), kernel);
    pair.server.rx.allow_descriptors();
    pair
}

fn answers<F>(pair: &mut Pair<Modern, F>) -> Vec<(u32, Answer)> {
    let messages = pair.client.rx.messages().map(|message| message.expect("an honest server"));
    messages
        .map(|message| (message.header.id, message.try_into().ok().expect("an answer")))
        .collect()
}

fn kernel() -> impl Strategy<Value = Kernel> {
    prop::sample::select(Kernel::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(256)))]

    #[test]
    fn however_calls_are_cut_each_request_is_answered_once_and_in_order(
        kernel in kernel(),
        lengths in prop::collection::vec((0..300_usize, any::<bool>()), 0..40),
        calls in prop::collection::vec(0..100_usize, 0..300),
        capacity in prop_oneof![Just(usize::MAX), 600..2000_usize],
    ) {
        let tokens = Tokens::default();
        let mut pair = Pair::with_capacity(Modern::new(), kernel, capacity);
        pair.server.rx.allow_descriptors();
        let mut expected = Vec::new();
        let mut files = 0;
        for (id, (len, keep)) in (0..).zip(&lengths) {
            let name = vec![b'n'; *len];
            let (request, answer) = if *keep && files < 16 {
                files += 1;
                (Request::Keep(&name, tokens.open(id)), Answer::Kept { bytes: *len as u32 })
            } else {
                (Request::Count, Answer::Total { files })
            };
            request.compose(&mut pair.client.tx, id).unwrap();
            expected.push((id, answer));
        }
        let mut keeper = Keeper(Vec::new());
        pair.exchange(calls, |message, tx| keeper.handle(message, tx)).unwrap();
        prop_assert_eq!(answers(&mut pair), expected);
        let kept: Vec<u32> = keeper.0.iter().map(Token::id).collect();
        prop_assert!(kept.is_sorted());
        prop_assert_eq!((kept.len(), tokens.count()), (files as usize, files as usize));
    }
}

#[test]
fn a_descriptor_that_the_process_has_no_slot_for_is_missing_and_closed() {
    for kernel in Kernel::ALL.into_iter().filter(|kernel| *kernel != Kernel::FreeBsd15) {
        let tokens = Tokens::default();
        let mut pair = pair(kernel);
        Request::Keep(b"", tokens.open(1)).compose(&mut pair.client.tx, 1).unwrap();
        let mut found = Vec::new();
        let no_slot = Call { slots: 0, ..Call::UNLIMITED };
        pair.exchange(iter::repeat(no_slot), |message, _| {
            found.push(message.descriptor);
            Ok::<_, Infallible>(())
        })
        .unwrap();
        assert_eq!(found, [Descriptor::Missing(Missing::Dropped)], "{kernel:?}");
        assert_eq!(tokens.count(), 0, "{kernel:?}");
    }
}

#[test]
fn without_a_slot_the_stream_breaks_where_bytes_may_be_lost() {
    let tokens = Tokens::default();
    let mut pair = pair(Kernel::FreeBsd15);
    Request::Keep(b"", tokens.open(1)).compose(&mut pair.client.tx, 1).unwrap();
    let mut keeper = Keeper(Vec::new());
    let handle = |message: Message<'_, _>, tx: &mut _| keeper.handle(message, tx);
    let stopped = pair.exchange(iter::repeat((100, 0)), handle);
    assert!(matches!(stopped, Err(Stopped::Server(Broken::Read(_)))), "{stopped:?}");
    assert_eq!(tokens.count(), 0);
}

#[test]
fn descriptors_that_are_not_allowed_are_closed_on_every_kernel() {
    for kernel in Kernel::ALL {
        let tokens = Tokens::default();
        let mut pair = Pair::new(Modern::new(), kernel);
        Request::Keep(b"", tokens.open(1)).compose(&mut pair.client.tx, 1).unwrap();
        let mut keeper = Keeper(Vec::new());
        pair.exchange([1; 9], |message, tx| keeper.handle(message, tx)).unwrap();
        assert_eq!(answers(&mut pair), [(1, Answer::Lost)], "{kernel:?}");
        assert_eq!(tokens.count(), 0, "{kernel:?}");
    }
}

#[test]
fn what_no_honest_client_sends_stops_the_server_behind_the_messages_before_it() {
    let mut pair = pair(Kernel::Linux);
    Request::<Token>::Count.compose(&mut pair.client.tx, 7).unwrap();
    pair.to_server.send(&mut pair.client.tx, Call::UNLIMITED);
    assert_eq!(pair.to_server.put(&[0; 16], None), 16);
    let mut keeper = Keeper(Vec::new());
    let handle = |message: Message<'_, _>, tx: &mut _| keeper.handle(message, tx);
    let stopped = pair.exchange([5; 4], handle);
    let Err(Stopped::Server(Broken::Stream(Error::Length { offset: 16, .. }))) = stopped else {
        panic!("{stopped:?}");
    };
    // What was answered is still queued, as the server would close the connection now.
    pair.to_client.send(&mut pair.server.tx, Call::UNLIMITED);
    pair.to_client.read(&mut pair.client.rx, Call::UNLIMITED).unwrap();
    assert_eq!(answers(&mut pair), [(7, Answer::Total { files: 0 })]);
}

#[test]
fn a_client_that_hangs_up_inside_a_message_stops_the_server() {
    let mut pair = pair(Kernel::Linux);
    Request::<Token>::Count.compose(&mut pair.client.tx, 7).unwrap();
    assert_eq!(pair.to_server.send(&mut pair.client.tx, Call::from(15)), 15);
    pair.to_server.close();
    let mut server = pair.server.rx;
    let read = |server: &mut _, link: &mut Link| link.read(server, Call::UNLIMITED);
    read(&mut server, &mut pair.to_server).unwrap();
    read(&mut server, &mut pair.to_server).unwrap();
    let error = server.next_message().unwrap_err();
    assert_eq!(error, Error::Truncated { offset: 0, have: 15, need: 16 });
}

#[test]
fn the_end_of_the_stream_is_no_fault_between_messages() {
    let mut pair = pair(Kernel::Linux);
    Request::<Token>::Count.compose(&mut pair.client.tx, 7).unwrap();
    pair.to_server.send(&mut pair.client.tx, Call::UNLIMITED);
    pair.to_server.close();
    let mut keeper = Keeper(Vec::new());
    pair.exchange([9; 9], |message, tx| keeper.handle(message, tx)).unwrap();
    assert_eq!(answers(&mut pair), [(7, Answer::Total { files: 0 })]);
    assert!(pair.server.rx.is_finished());
}

#[test]
fn after_an_error_of_the_handler_the_next_exchange_goes_on_behind_its_message() {
    let mut pair = pair(Kernel::OpenBsd);
    for id in 1..=3 {
        Request::<Token>::Count.compose(&mut pair.client.tx, id).unwrap();
    }
    let mut handled = Vec::new();
    let mut handle = |message: Message<'_, Token>, _: &mut _| {
        handled.push(message.header.id);
        if message.header.id == 2 { Err("two") } else { Ok(()) }
    };
    assert_eq!(pair.exchange([7; 7], &mut handle), Err(Stopped::Handler("two")));
    assert_eq!(pair.exchange([7; 7], &mut handle), Ok(()));
    assert_eq!(handled, [1, 2, 3]);
}

#[test]
fn a_client_that_takes_nothing_holds_the_server_up_and_no_answer_is_lost() {
    const REQUESTS: u32 = 3000;

    let mut pair = Pair::<_, Token>::with_capacity(Modern::new(), Kernel::Linux, 1000);
    let (mut sent, mut answered) = (0, 0);
    let mut rounds = 0;
    while answered < REQUESTS {
        let tx = &mut pair.client.tx;
        while sent < REQUESTS && tx.compose(Header::new(1).with_id(sent), &[0; 25], None).is_ok() {
            sent += 1;
        }
        let echo = |message: Message<'_, _>, tx: &mut SendBuf<_, _, _>| tx.forward(&message, None);
        pair.exchange(iter::empty::<Call>(), echo).unwrap();
        for message in pair.client.rx.messages() {
            assert_eq!(message.unwrap().header.id, answered);
            answered += 1;
        }
        rounds += 1;
    }
    assert!(rounds > 1, "not all answers fit into the buffer of the client");
}

#[test]
fn a_handler_that_takes_descriptors_of_the_system_is_given_some() {
    let mut pair = Pair::<_, OwnedFd>::new(Modern::new(), Kernel::Linux);
    pair.server.rx.allow_descriptors();
    let file = File::open("Cargo.toml").unwrap();
    Request::Keep(b"Cargo.toml", OwnedFd::from(file)).compose(&mut pair.client.tx, 1).unwrap();
    let mut keeper = Keeper(Vec::new());
    pair.exchange([1; 60], |message, tx| keeper.handle(message, tx)).unwrap();
    let mut text = String::new();
    let descriptor = keeper.0.pop().expect("the file");
    File::from(descriptor).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("[package]"));
}

#[test]
fn a_sender_of_the_old_generation_can_be_linked_to_a_handler() {
    let tokens = Tokens::default();
    let mut sender = Ends::default();
    sender.compose(Header::new(1), b"before", None);
    sender.compose(Header::new(2), b"with", Some(tokens.open(5)));
    let mut link = Link::new(Kernel::Linux);
    let mut buf: RecvBuf<_, _, Token> = RecvBuf::with_descriptors(Classic::new(), vec![0; 1024]);
    buf.allow_descriptors();
    while link.send(&mut sender, Call::from(10)) > 0 {
        link.read(&mut buf, Call::UNLIMITED).unwrap();
    }
    let descriptors: Vec<_> = buf.messages().map(|message| message.unwrap().descriptor).collect();
    assert_eq!(descriptors, [Descriptor::None, Descriptor::Here(tokens.open(5))]);
    drop(descriptors);
    assert_eq!(tokens.count(), 0);
}

#[test]
fn a_duplicate_is_counted_too() {
    let tokens = Tokens::default();
    let one = tokens.open(1);
    let other = one.duplicate();
    assert_eq!((&one, tokens.count()), (&other, 2));
}
