//! Handlers with time limits, in the time of a runtime that is paused.
//!
//! Both ends are tasks of one runtime of one thread: it would give a peer elsewhere no time.

#![cfg(feature = "tokio")]

use std::convert::Infallible;
use std::time::Duration;

use imsg_os::tokio::{Channel, Driver};
use imsg_os::{Header, Message, Modern};
use tokio::time::{Instant, sleep, timeout};

const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq)]
enum End {
    HungUp,
    Idle,
}

/// The handler: it answers, and gives up a client that is idle for too long.
async fn serve(mut channel: Channel) -> End {
    loop {
        let Ok(received) = timeout(LIMIT, channel.rx.recv()).await else {
            return End::Idle;
        };
        let Some(request) = received.expect("an honest client") else {
            return End::HungUp;
        };
        channel.tx.forward(&request, None).expect("room for one");
        channel.tx.flush().await.expect("a client that reads");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_given_up_at_the_limit() {
    let (_client, server) = Channel::pair(Modern::new()).unwrap();
    let start = Instant::now();
    assert_eq!(serve(server).await, End::Idle);
    assert_eq!(start.elapsed(), LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_something_before_the_limit_is_answered_each_time() {
    let (mut client, server) = Channel::pair(Modern::new()).unwrap();
    let server = tokio::spawn(serve(server));
    for id in 0..100 {
        sleep(LIMIT - Duration::from_secs(1)).await;
        client.tx.compose(Header::new(1).with_id(id), b"", None).unwrap();
        client.tx.flush().await.unwrap();
        let answer = client.rx.recv().await.unwrap().expect("an answer");
        assert_eq!(answer.header.id, id);
    }
    drop(client);
    assert_eq!(server.await.unwrap(), End::HungUp);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends_at_its_limit_and_the_answer_is_of_no_other_call() {
    let (channel, mut peer) = Channel::pair(Modern::new()).unwrap();
    let (client, driver) = Driver::<4>::new(channel);
    let run = tokio::spawn(driver.run(|_: Message<'_>| Ok::<_, Infallible>(())));
    let start = Instant::now();
    assert!(timeout(LIMIT, client.call(Header::new(1), b"late", None)).await.is_err());
    assert_eq!(start.elapsed(), LIMIT);

    let answers = tokio::spawn(async move {
        while let Some(request) = peer.rx.recv().await.unwrap() {
            peer.tx.forward(&request, None).unwrap();
            peer.tx.flush().await.unwrap();
        }
    });
    let reply = timeout(LIMIT, client.call(Header::new(1), b"in time", None)).await.unwrap();
    assert_eq!(reply.unwrap().payload, b"in time");
    drop(client);
    run.await.unwrap().unwrap();
    answers.await.unwrap();
}
