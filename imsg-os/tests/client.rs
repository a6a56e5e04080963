//! Calls of several tasks over one channel of tokio.

#![cfg(all(feature = "tokio", target_os = "linux"))]

mod common;

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use common::{alone, leaving_no_descriptor, number_of, numbered, numbers, watched};
use imsg_os::tokio::{CallError, Channel, Client, Driver};
use imsg_os::{Descriptor, Header, Message, Modern, Reason, RecvError, Refused, TurnError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{Uid, geteuid, setuid};
use tokio::task::JoinHandle;

type Run<E = Infallible> = JoinHandle<Result<(), TurnError<E>>>;

/// A client that can wait for `N` replies, its driver in a task, and the peer.
fn start<const N: usize>() -> (Client, Run, Channel) {
    start_with::<N, _>(|message| panic!("{message:?}"))
}

fn start_with<const N: usize, E: Send + 'static>(
    unexpected: impl FnMut(Message<'_>) -> Result<(), E> + Send + 'static,
) -> (Client, Run<E>, Channel) {
    let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    channel.rx.allow_descriptors();
    peer.rx.allow_descriptors();
    let (client, driver) = Driver::<N>::new(channel);
    (client, tokio::spawn(driver.run(unexpected)), peer)
}

/// Calls with a descriptor of this number. The payload and the number of the descriptor of the reply.
async fn call(client: &Client, number: u64) -> Result<(u64, Descriptor<u64>), CallError> {
    let descriptor = Some(numbered(number));
    let reply = client.call(Header::new(1), &number.to_ne_bytes(), descriptor).await?;
    let payload = reply.payload.try_into().expect("8 bytes");
    Ok((u64::from_ne_bytes(payload), numbers(reply.descriptor)))
}

/// The id, the payload and the descriptor of a request.
async fn request(peer: &mut Channel) -> (u32, u64, OwnedFd) {
    let message = peer.rx.recv().await.unwrap().expect("a request");
    let number = u64::from_ne_bytes(message.payload.try_into().expect("8 bytes"));
    let Descriptor::Here(descriptor) = message.descriptor else { panic!("no descriptor") };
    (message.header.id, number, descriptor)
}

async fn answer(peer: &mut Channel, (id, number, descriptor): (u32, u64, OwnedFd)) {
    peer.tx.reserve(8).await.unwrap();
    peer.tx.compose(Header { id, ..Header::new(2) }, &number, Some(descriptor)).unwrap();
    peer.tx.flush().await.unwrap();
}

fn block_on(body: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(async {
        let limit = Duration::from_secs(100);
        tokio::time::timeout(limit, body).await.expect("it hangs");
    });
}

#[test]
fn replies_in_another_order_find_their_calls_and_so_do_their_descriptors() {
    leaving_no_descriptor(|| {
        block_on(async {
            let (client, run, mut peer) = start::<8>();
            let calls: Vec<_> = (0..8)
                .map(|n| {
                    let client = client.clone();
                    tokio::spawn(async move { call(&client, n).await })
                })
                .collect();
            drop(client);
            let mut requests = Vec::new();
            while requests.len() < calls.len() {
                requests.push(request(&mut peer).await);
            }

            for request in requests.into_iter().rev() {
                answer(&mut peer, request).await;
            }

            for (n, call) in (0..).zip(calls) {
                assert_eq!(call.await.unwrap().unwrap(), (n, Descriptor::Here(n)));
            }
            run.await.unwrap().unwrap();
            assert!(peer.rx.recv().await.unwrap().is_none());
        });
    });
}

#[test]
fn the_reply_to_a_call_that_was_given_up_is_dropped_and_given_to_no_other() {
    leaving_no_descriptor(|| {
        block_on(async {
            let (client, _run, mut peer) = start::<2>();
            let given_up = {
                let call = call(&client, 1);
                tokio::select! {
                    _ = call => panic!("it has no reply"),
                    request = request(&mut peer) => request,
                }
            };

            let (reply, ()) = tokio::join!(call(&client, 2), async {
                let second = request(&mut peer).await;
                answer(&mut peer, given_up).await;
                answer(&mut peer, second).await;
            });

            assert_eq!(reply.unwrap(), (2, Descriptor::Here(2)));
        });
    });
}

#[test]
fn a_call_that_was_given_up_makes_room_for_another_and_its_late_reply_is_unexpected() {
    block_on(async {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let (client, _run, mut peer) = start_with::<1, Infallible>(move |message| {
            tell.send(message.header.id).unwrap();
            Ok(())
        });
        let given_up = {
            let call = call(&client, 1);
            tokio::select! {
                _ = call => panic!("it has no reply"),
                request = request(&mut peer) => request,
            }
        };
        let late = given_up.0;

        let (reply, ()) = tokio::join!(call(&client, 2), async {
            let second = request(&mut peer).await;
            answer(&mut peer, given_up).await;
            answer(&mut peer, second).await;
        });

        assert_eq!(reply.unwrap(), (2, Descriptor::Here(2)));
        assert_eq!(told.recv().await, Some(late));
    });
}

#[test]
fn a_call_that_is_given_up_before_its_turn_closes_its_descriptor() {
    block_on(async {
        let (client, _run, mut peer) = start::<1>();
        let first = call(&client, 1);
        let (descriptor, watch) = watched();
        let second = client.call(Header::new(1), b"", Some(descriptor));

        tokio::select! {
            biased;
            _ = async { tokio::join!(first, second) } => panic!("there is no reply"),
            _ = request(&mut peer) => {}
        }

        assert!(watch.sees_it_closed());
    });
}

#[test]
fn a_call_gets_the_reply_that_was_sent_before_the_peer_hung_up_and_others_are_told() {
    block_on(async {
        let (client, run, mut peer) = start::<4>();

        let (one, other, ()) = tokio::join!(call(&client, 1), call(&client, 2), async {
            let first = request(&mut peer).await;
            assert_eq!(first.1, 1);
            answer(&mut peer, first).await;
            request(&mut peer).await;
            drop(peer);
        });

        assert_eq!(one.unwrap(), (1, Descriptor::Here(1)));
        assert!(matches!(other, Err(CallError::Gone)), "{other:?}");
        run.await.unwrap().unwrap();
        assert!(matches!(call(&client, 3).await, Err(CallError::Gone)));
    });
}

#[test]
fn a_payload_that_is_too_long_is_refused_with_its_descriptor_and_the_next_call_goes_on() {
    block_on(async {
        let (client, _run, mut peer) = start::<4>();

        let refused = client.call(Header::new(1), &[0; 1 << 20], Some(numbered(7))).await;

        let Err(CallError::Refused(refused)) = refused else { panic!("{refused:?}") };
        assert!(matches!(refused.reason, Reason::TooLong { .. }), "{refused}");
        assert_eq!(number_of(refused.descriptor.unwrap()), 7);
        let (reply, ()) = tokio::join!(call(&client, 2), async {
            let second = request(&mut peer).await;
            answer(&mut peer, second).await;
        });
        assert_eq!(reply.unwrap(), (2, Descriptor::Here(2)));
    });
}

#[test]
fn a_message_that_answers_no_call_is_judged_and_can_end_the_driver() {
    block_on(async {
        let (client, run, mut peer) = start_with::<4, _>(|message| Err(message.header.msg_type));
        peer.tx.compose(Header::new(99), b"", None).unwrap();
        peer.tx.flush().await.unwrap();

        let error = run.await.unwrap().unwrap_err();

        assert!(matches!(error, TurnError::Handler(99)), "{error:?}");
        assert!(matches!(call(&client, 1).await, Err(CallError::Gone)));
    });
}

#[test]
fn a_peer_that_does_not_read_holds_calls_up_and_loses_none() {
    block_on(async {
        const CALLS: usize = 40;
        let (client, run, mut peer) = start::<CALLS>();
        let calls: Vec<_> = (0..CALLS)
            .map(|n| {
                let client = client.clone();
                let payload = vec![n as u8; 16_000];
                tokio::spawn(async move {
                    let reply = client.call(Header::new(1), &payload, Some(numbered(1))).await;
                    reply.unwrap().payload == [n as u8]
                })
            })
            .collect();
        drop(client);

        while let Some(message) = peer.rx.recv().await.unwrap() {
            let header = Header { id: message.header.id, ..Header::new(2) };
            peer.tx.reserve(1).await.unwrap();
            peer.tx.compose(header, &message.payload[..1], None).unwrap();
            peer.tx.flush().await.unwrap();
        }

        for call in calls {
            assert!(call.await.unwrap());
        }
        run.await.unwrap().unwrap();
    });
}

#[test]
fn a_call_that_is_given_up_while_the_peer_does_not_read_closes_its_descriptor() {
    block_on(async {
        const CALLS: usize = 40;
        let (client, _run, _peer) = start::<CALLS>();
        let calls: Vec<_> = (0..CALLS)
            .map(|_| {
                let (client, (descriptor, watch)) = (client.clone(), watched());
                let call = async move {
                    let payload = [0; 16_000];
                    client.call(Header::new(1), &payload, Some(descriptor)).await.map(drop)
                };
                (tokio::spawn(call), watch)
            })
            .collect();
        tokio::task::yield_now().await;

        // The queue and the socket do not take so many, and those before wait for the peer to read.
        for (call, watch) in &calls[CALLS / 2..] {
            assert!(watch.sees_it_open());
            call.abort();
            while watch.sees_it_open() {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn however_calls_are_given_up_each_other_one_gets_its_own_reply() {
    leaving_no_descriptor(|| {
        block_on(async {
            let (client, run, mut peer) = start_with::<3, Infallible>(|_| Ok(()));
            let server = tokio::spawn(async move {
                let mut kept = Vec::new();
                loop {
                    let mut message = match peer.rx.recv().await {
                        Ok(Some(message)) => message,
                        // The last replies were to nobody, and not read.
                        Err(RecvError::Io(error)) if error.kind() == ErrorKind::ConnectionReset => {
                            break;
                        }
                        other => break assert!(other.unwrap().is_none()),
                    };
                    let header = Header { id: message.header.id, ..Header::new(2) };
                    let number = u64::from_ne_bytes(message.payload.try_into().unwrap());
                    let descriptor = message.descriptor.take();
                    kept.push((header, number, descriptor));
                    // Some in another order.
                    if number % 3 > 0 {
                        continue;
                    }
                    while let Some((header, number, descriptor)) = kept.pop() {
                        peer.tx.reserve(8).await.unwrap();
                        peer.tx.compose(header, &number, descriptor).unwrap();
                    }
                    // The driver may have ended.
                    let _ = peer.tx.flush().await;
                }
            });
            let tasks: Vec<_> = (0..4_u64)
                .map(|task| {
                    let client = client.clone();
                    tokio::spawn(async move {
                        let mut answered = 0;
                        for n in 0..200 {
                            let number = task + 4 * n;
                            let mut polls = number * 7 % 23;
                            let mut call = std::pin::pin!(call(&client, number));
                            // Gives up after some polls, wherever it is then.
                            let reply = std::future::poll_fn(|cx| {
                                if polls == 0 {
                                    return std::task::Poll::Ready(None);
                                }
                                polls -= 1;
                                cx.waker().wake_by_ref();
                                call.as_mut().poll(cx).map(Some)
                            });
                            if let Some(reply) = reply.await {
                                assert_eq!(reply.unwrap(), (number, Descriptor::Here(number)));
                                answered += 1;
                            }
                        }
                        answered
                    })
                })
                .collect();
            drop(client);

            let mut answered = 0;
            for task in tasks {
                answered += task.await.unwrap();
            }

            run.await.unwrap().unwrap();
            server.await.unwrap();
            assert!((1..800).contains(&answered), "{answered} of 800 were answered");
        });
    });
}

imsg_wire::protocol! {
    /// What is asked, with and without a descriptor.
    #[derive(Debug)]
    enum Question<'a> {
        5 => Named { number: u32, name: &'a std::ffi::CStr } + Option<OwnedFd>,
        6 => Padded { name: &'a str as imsg_wire::typed::Padded<4> } + OwnedFd,
    }
}

#[test]
fn a_question_is_sent_as_it_is_declared_and_its_reply_can_be_taken_apart() {
    leaving_no_descriptor(|| {
        block_on(async {
            let (client, run, mut peer) = start::<2>();
            let peer = tokio::spawn(async move {
                let mut request = peer.rx.recv().await.unwrap().expect("a request");
                assert_eq!(
                    (request.header.msg_type, request.payload),
                    (5, &b"\x07\0\0\0name\0"[..])
                );
                let descriptor = request.descriptor.take();
                assert!(descriptor.is_some());
                peer.tx.forward(&request, descriptor).unwrap();
                peer.tx.flush().await.unwrap();
                assert!(peer.rx.recv().await.unwrap().is_none());
            });
            let number = u32::from_ne_bytes([7, 0, 0, 0]);
            let descriptor = Some(numbered(9));
            let question = Question::Named { number, name: c"name", descriptor };
            let mut reply = client.ask(question).await.unwrap();
            let Ok(Question::Named { number: same, name, descriptor: Some(descriptor) }) =
                reply.message().try_into()
            else {
                panic!("{reply:?}");
            };
            assert_eq!((same, name, number_of(descriptor)), (number, c"name", 9));
            drop(client);
            run.await.unwrap().unwrap();
            peer.await.unwrap();
        });
    });
}

#[test]
fn a_question_that_cannot_be_encoded_is_refused_with_its_descriptor_and_nothing_is_sent() {
    leaving_no_descriptor(|| {
        block_on(async {
            let (client, run, mut peer) = start::<2>();
            let error = client
                .ask(Question::Padded { name: "too long", descriptor: numbered(3) })
                .await
                .unwrap_err();
            let CallError::Refused(refused) = error else { panic!("{error:?}") };
            assert!(matches!(refused.reason, Reason::Payload(_)), "{refused:?}");
            assert_eq!(refused.descriptor.map(number_of), Some(3));
            drop(client);
            run.await.unwrap().unwrap();
            assert!(peer.rx.recv().await.unwrap().is_none());
        });
    });
}

#[test]
fn a_descriptor_that_the_peer_refuses_is_given_back_and_other_calls_go_on() {
    leaving_no_descriptor(|| {
        block_on(async {
            let (client, run, mut peer) = start::<4>();
            if !refuses_descriptors(&mut peer) {
                return;
            }
            let serve = async {
                for _ in 0..2 {
                    let request = peer.rx.recv().await.unwrap().expect("a request");
                    peer.tx.forward(&request, None).unwrap();
                    peer.tx.flush().await.unwrap();
                }
            };

            // All three are queued before any is sent.
            let (first, refused, behind, ()) = tokio::join!(
                client.call(Header::new(1), b"first", None),
                call(&client, 7),
                client.call(Header::new(1), b"behind", None),
                serve
            );

            assert_eq!(first.unwrap().payload, b"first");
            assert_eq!(behind.unwrap().payload, b"behind");
            let Err(CallError::NotSent { error, descriptor }) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            assert_eq!(number_of(descriptor), 7);
            drop(client);
            run.await.unwrap().unwrap();
        });
    });
}

fn refuses_descriptors(channel: &mut Channel) -> bool {
    match channel.rx.refuse_descriptors() {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            eprintln!("NOT RUN: this system cannot refuse descriptors");
            false
        }
        result => {
            result.unwrap();
            true
        }
    }
}

#[test]
fn calls_are_sent_again_when_too_many_descriptors_were_on_their_way() {
    alone(|| {
        block_on(async {
            const CALLS: u64 = 10;
            let (client, run, mut peer) = start::<{ CALLS as usize }>();
            let (mut other, mut other_peer) = Channel::pair(Modern::new()).unwrap();
            other_peer.rx.allow_descriptors();
            become_an_ordinary_user();
            // The channel of the client gets no event when there is room again.
            let error = loop {
                other.tx.compose(Header::new(1), b"", Some(numbered(1))).unwrap();
                if let Err(error) = other.tx.flush().await {
                    break error;
                }
            };
            assert_eq!(error.raw_os_error(), Some(libc::ETOOMANYREFS));
            let calls: Vec<_> = (0..CALLS)
                .map(|n| {
                    let client = client.clone();
                    tokio::spawn(async move { call(&client, n).await })
                })
                .collect();
            drop(client);
            // A request that has no descriptor would wait behind them, too.
            for _ in 0..CALLS {
                tokio::task::yield_now().await;
            }

            drop((other, other_peer));
            for _ in 0..CALLS {
                let request = request(&mut peer).await;
                answer(&mut peer, request).await;
            }

            for (n, call) in (0..).zip(calls) {
                assert_eq!(call.await.unwrap().unwrap(), (n, Descriptor::Here(n)));
            }
            run.await.unwrap().unwrap();
        });
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

#[test]
fn a_reply_is_received_when_this_process_has_room_for_its_descriptor_again() {
    alone(|| {
        block_on(async {
            let (mut channel, mut peer) = Channel::pair(Modern::new()).unwrap();
            channel.rx.allow_descriptors();
            channel.rx.keep_reserve().unwrap();
            peer.rx.allow_descriptors();
            let (client, driver) = Driver::<2>::new(channel);
            let run = tokio::spawn(driver.run(|_| Ok::<_, Infallible>(())));
            let answers = [numbered(1), numbered(2)];
            let call = async || client.call(Header::new(1), b"", None).await.unwrap().descriptor;
            let serve = async {
                for descriptor in answers {
                    let header = peer.rx.recv().await.unwrap().expect("a request").header;
                    peer.tx.compose(header, b"", Some(descriptor)).unwrap();
                }
                let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
                setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
                peer.tx.flush().await.unwrap();
                std::iter::from_fn(|| File::open("/dev/null").ok()).collect::<Vec<_>>()
            };

            let first = async {
                // It has the place of the reserve; there is none for the second.
                let (first, filling) = tokio::join!(call(), serve);
                drop(filling);
                first
            };
            let (first, second) = tokio::join!(first, call());

            assert_eq!(numbers(first), Descriptor::Here(1));
            assert_eq!(numbers(second), Descriptor::Here(2));
            drop(client);
            run.await.unwrap().unwrap();
        });
    });
}

#[test]
fn a_call_to_a_peer_that_reads_no_more_is_told_at_once_and_one_that_was_sent_gets_its_reply() {
    block_on(async {
        let (client, run, mut peer) = start::<4>();
        let (sent, (not_sent, late)) = tokio::join!(call(&client, 1), async {
            let first = request(&mut peer).await;
            shutdown(peer.rx.as_raw_fd(), Shutdown::Read).unwrap();
            let not_sent = call(&client, 2).await;
            let late = call(&client, 3).await;
            answer(&mut peer, first).await;
            (not_sent, late)
        });

        assert_eq!(sent.unwrap(), (1, Descriptor::Here(1)));
        assert!(matches!(not_sent, Err(CallError::Gone)), "{not_sent:?}");
        assert!(matches!(late, Err(CallError::Gone)), "{late:?}");
        drop(peer);
        assert!(run.await.unwrap().unwrap_err().is_peer_gone());
    });
}

#[test]
fn a_call_without_a_reply_is_an_error_of_the_system_that_says_why() {
    let gone = io::Error::from(CallError::Gone);
    assert!(imsg_os::is_peer_gone(&gone), "{gone:?}");
    let reason = Reason::TooLong { len: 2, max: 1 };
    let refused = CallError::Refused(Refused { reason, descriptor: None });
    assert_eq!(io::Error::from(refused).raw_os_error(), Some(libc::ERANGE));
}
