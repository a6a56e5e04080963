//! The protocol of the example `privsep`, and a handler of it.

use std::fs::File;
use std::os::fd::OwnedFd;

use arbitrary::{Result, Unstructured};
use imsg_wire::testing::{Kernel, Pair, Stream};
use imsg_wire::typed::Protocol;
use imsg_wire::{Message, Modern};

use protocol::{Answer, Failure, Request};

#[allow(dead_code, reason = "the example has more of it")]
#[path = "../../imsg-os/examples/privsep/protocol.rs"]
mod protocol;

/// Sends a worker any requests, valid or broken in one place, on any kernel and cut anywhere. It has
/// to notice that place, and to answer all requests if there is none.
///
/// # Panics
///
/// When it does not.
pub fn privsep(data: &[u8]) {
    let _ = serve(&mut Unstructured::new(data));
}

fn serve(u: &mut Unstructured<'_>) -> Result<()> {
    let parse = |message: Message<'_, OwnedFd>| Request::try_from(message).map(drop);
    let stream = Stream::arbitrary(u, Modern::new(), Request::TYPES, parse)?;
    let mut pair = Pair::new(Modern::new(), u.arbitrary::<Kernel>()?);
    pair.server.rx.allow_descriptors();
    stream.send(&mut pair.to_server, |_| File::open("/dev/null").expect("a file").into());

    let calls = u.arbitrary_iter::<u8>()?.map_while(Result::ok).map(usize::from);
    let outcome = pair.exchange(calls, |message, tx| {
        let id = message.header.id;
        let Request::Read(path, _file) = message.try_into().map_err(|_| "not a request")?;
        let errno = (path.len() as i32).into();
        Answer::Failure(Failure { errno }).compose(tx, id).map_err(|_| "no room")
    });
    assert_eq!(outcome.is_err(), stream.damage.is_some(), "{outcome:?} for {stream:?}");
    if outcome.is_ok() {
        let answers = pair.client.rx.messages().map(|message| message.expect("an honest server"));
        assert_eq!(answers.filter_map(|it| Answer::try_from(it).ok()).count(), stream.intact);
    }
    Ok(())
}
