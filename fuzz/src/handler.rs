//! The fuzz target that the page about tests of handlers has, as it stands there.

use arbitrary::Unstructured;
use imsg_wire::testing::{Call, Kernel, Pair, Stream, Token, Tokens};
use imsg_wire::typed::{BadMessage, Counted, Protocol};
use imsg_wire::{Compose, Message, Modern};

imsg_wire::protocol! {
    enum Request<'a> { 1 => Open { name: &'a str as Counted<u16> } + Token, 2 => Close }
}

/// Sends a handler any requests, valid or broken in one place, on any kernel, by calls of any size
/// and without room for a descriptor at times.
///
/// # Panics
///
/// When it does not notice that place, or keeps a descriptor.
pub fn handler(data: &[u8]) {
    let _ = target(data);
}

fn handle(
    message: Message<'_, Token>,
    _tx: &mut impl Compose<Descriptor = Token>,
) -> Result<(), BadMessage<Token>> {
    Request::try_from(message).map(drop)
}

fn target(data: &[u8]) -> arbitrary::Result<()> {
    let mut u = Unstructured::new(data);
    let parse = |message: Message<'_, Token>| Request::try_from(message).map(drop);
    let stream = Stream::arbitrary(&mut u, Modern::new(), Request::TYPES, parse)?;
    let mut pair = Pair::new(Modern::new(), u.arbitrary::<Kernel>()?);
    pair.server.rx.allow_descriptors();
    let tokens = Tokens::default();
    stream.send(&mut pair.to_server, |at| tokens.open(at as u32));

    let calls: Vec<Call> = u.arbitrary()?;
    let outcome = pair.exchange(calls, handle);
    assert!(outcome.is_err() || stream.damage.is_none(), "{stream:?}");
    drop((pair, outcome));
    assert_eq!(tokens.count(), 0, "the handler keeps none");
    Ok(())
}
