//! Calls of several tasks, over one channel.

use std::error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use ::tokio::sync::{Semaphore, mpsc, oneshot};
use imsg_wire::typed::{Carries, Protocol};
use imsg_wire::{Descriptor, Dialect, Header, Modern, Reason, Refused, Requests, Storage, Writer};

use super::Channel;
use crate::Pages;
use crate::channel::receiver::Message;
use crate::error::{RecvError, SendError};
use crate::turn::TurnError;

/// Calls a peer, from any number of tasks: each has a clone of it.
///
/// A call gives its message an id, and waits for the message of the peer that has the same. The
/// [`Driver`] that comes with it has the channel, and has to run, in a task of its own.
///
/// ```
/// use imsg_os::tokio::{Channel, Driver};
/// use imsg_os::{Header, Message, Modern};
/// use std::convert::Infallible;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (channel, mut server) = Channel::pair(Modern::new())?;
/// let (client, driver) = Driver::<64>::new(channel);
/// let driver = tokio::spawn(driver.run(|message: Message<'_>| {
///     println!("it answers no call: {message:?}");
///     Ok::<_, Infallible>(())
/// }));
/// let server = tokio::spawn(async move {
///     while let Some(request) = server.rx.recv().await.unwrap() {
///         server.tx.forward(&request, None).unwrap(); // with its id
///         server.tx.flush().await.unwrap();
///     }
/// });
///
/// let limit = Duration::from_secs(10);
/// let call = client.call(Header::new(1), b"hello", None);
/// let reply = tokio::time::timeout(limit, call).await??;
/// assert_eq!(reply.payload, b"hello");
///
/// drop(client); // the last one
/// driver.await??;
/// server.await?;
/// # Ok(())
/// # }
/// ```
///
/// The future of a call is cancel safe: it can be dropped at any time, as by a time limit. The
/// request may or may not be sent then, and its reply is dropped when it comes, so that no other
/// call is given it. A descriptor is always in one place: with the caller, on its way, or with the
/// peer; what is dropped on its way is closed.
///
/// Calls wait for their turn when there are as many as the driver holds, or when the peer does not
/// read. Unlike the channel, a call allocates, for the payload and the reply.
#[derive(Clone, Debug)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    /// One for each request that the driver can hold: a call has one as long as it is there.
    permits: Arc<Semaphore>,
}

/// A message on its way to the driver.
struct Request {
    header: Header,
    payload: Vec<u8>,
    descriptor: Option<OwnedFd>,
    caller: Caller,
}

type Caller = oneshot::Sender<Result<Reply, Refused<OwnedFd>>>;

impl Client {
    /// Sends a message, with an id in place of that of the header, and waits for its reply.
    ///
    /// There is no limit of time but that which the program sets, as by `tokio::time::timeout`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn call(
        &self,
        header: Header,
        payload: &[u8],
        descriptor: Option<OwnedFd>,
    ) -> Result<Reply, CallError> {
        // It outlives the receiver below: when it is free, the driver can see that the call is gone.
        let _permit = self.permits.acquire().await.map_err(|_| CallError::Gone)?;
        let (caller, reply) = oneshot::channel();
        let request = Request { header, payload: payload.to_vec(), descriptor, caller };
        self.requests.send(request).await.map_err(|_| CallError::Gone)?;
        match reply.await {
            Ok(reply) => reply.map_err(CallError::Refused),
            Err(_) => Err(CallError::Gone),
        }
    }

    /// As [`call`](Self::call), with a message of a declared protocol
    /// ([`protocol!`](imsg_wire::protocol!)).
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn ask<P>(&self, message: P) -> Result<Reply, CallError>
    where
        P: Protocol + Carries<OwnedFd>,
    {
        let mut payload = vec![0; message.payload_len()];
        let mut writer = Writer::new(&mut payload);
        let written = message.write_payload(&mut writer);
        let header = Header::new(message.msg_type());
        let descriptor = message.into_descriptor();
        match written {
            Ok(()) => self.call(header, &payload, descriptor).await,
            Err(error) => Err(CallError::Refused(Refused { reason: error.into(), descriptor })),
        }
    }
}

/// What the peer answered.
pub struct Reply {
    /// Type, id and pid, as the peer wrote them.
    pub header: Header,
    /// The bytes after the header.
    pub payload: Vec<u8>,
    /// What the peer attached.
    pub descriptor: Descriptor<OwnedFd>,
}

impl Reply {
    /// The reply as a message, which has the descriptor from here on: to make an enum of a declared
    /// protocol of it.
    pub fn message(&mut self) -> Message<'_> {
        let descriptor = std::mem::replace(&mut self.descriptor, Descriptor::None);
        Message { header: self.header, payload: &self.payload, descriptor }
    }
}

impl From<Message<'_>> for Reply {
    fn from(message: Message<'_>) -> Self {
        let Message { header, payload, descriptor } = message;
        Self { header, payload: payload.to_vec(), descriptor }
    }
}

/// Shows the length of the payload, not what is in it.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("header", &self.header)
            .field("payload_len", &self.payload.len())
            .field("descriptor", &self.descriptor)
            .finish()
    }
}

/// A call has no reply.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError {
    /// The driver has ended, as the peer is gone, or it was dropped. Whether the peer has the
    /// request is not known; its descriptor is closed.
    Gone,
    /// The message cannot be sent: its payload is too long, or has a field that cannot be encoded.
    Refused(Refused<OwnedFd>),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the channel ended before the reply came"),
            Self::Refused(refused) => refused.fmt(f),
        }
    }
}

impl error::Error for CallError {}

/// That the driver has ended is [`BrokenPipe`](io::ErrorKind::BrokenPipe). The descriptor of a message
/// that was refused is closed.
impl From<CallError> for io::Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Gone => io::ErrorKind::BrokenPipe.into(),
            CallError::Refused(refused) => SendError::from(refused).into(),
        }
    }
}

/// What has the channel of a [`Client`], sends its requests, and finds their replies. `N` is how many
/// calls can wait for a reply at a time.
pub struct Driver<const N: usize, D: Dialect = Modern, S: Storage = Pages, T: Storage = S> {
    channel: Channel<D, S, T>,
    requests: mpsc::Receiver<Request>,
    /// A request for which there is no room yet.
    held: Option<Request>,
    /// Who waits for a reply.
    waiting: Requests<Caller, N>,
}

/// What a driver waits for.
enum Event<'a> {
    Sent(io::Result<()>),
    /// `None` when no client is left.
    Request(Option<Request>),
    Message(Result<Option<Message<'a>>, RecvError>),
}

impl<const N: usize, D: Dialect, S: Storage, T: Storage> Driver<N, D, S, T> {
    /// A client, and what drives it, over a channel that has nothing else to do.
    ///
    /// If replies may have descriptors, allow these on the channel before.
    #[must_use = "no call is made unless the driver runs"]
    pub fn new(channel: Channel<D, S, T>) -> (Client, Self) {
        let (sender, requests) = mpsc::channel(N);
        let client = Client { requests: sender, permits: Arc::new(Semaphore::new(N)) };
        (client, Self { channel, requests, held: None, waiting: Requests::new() })
    }

    /// Runs until no client is left and all is sent, or until the peer closes its end.
    ///
    /// `unexpected` judges the messages whose id is of no call, or of one that was given up; when it
    /// returns an error, the driver ends. It gets the reply to a call that was given up only some
    /// time later: until then it is dropped. A peer that sends something else than replies gives
    /// that the id 0, which is never of a call.
    ///
    /// When this ends, or is dropped, no call waits any longer.
    ///
    /// # Errors
    ///
    /// As a turn of an event loop. When nothing can be sent any more, what the peer sent before is
    /// received to its end.
    pub async fn run<E>(
        mut self,
        mut unexpected: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), TurnError<E>> {
        let mut clients_left = true;
        let mut failed = None;
        loop {
            self.queue_held();
            let Self { channel: Channel { rx, tx }, requests, held, waiting } = &mut self;
            let room = held.as_ref().map(|request| request.payload.len());
            let sends = failed.is_none() && tx.queue_bytes() > 0;
            if !clients_left && !sends && held.is_none() {
                break;
            }
            let event = {
                let mut send = pin!(async {
                    match room {
                        // There will be room for what is held; other errors than of the system do
                        // not come, as it fits.
                        Some(len) => tx.reserve(len).await.map_err(io::Error::from),
                        None => tx.flush().await,
                    }
                });
                let mut request = pin!(requests.recv());
                let mut message = pin!(rx.recv());
                poll_fn(|cx| {
                    if sends && let Poll::Ready(sent) = send.as_mut().poll(cx) {
                        return Poll::Ready(Event::Sent(sent));
                    }
                    if clients_left
                        && room.is_none()
                        && let Poll::Ready(request) = request.as_mut().poll(cx)
                    {
                        return Poll::Ready(Event::Request(request));
                    }
                    message.as_mut().poll(cx).map(Event::Message)
                })
                .await
            };
            match event {
                Event::Message(message) => match message? {
                    Some(message) => match waiting.take(message.header.id) {
                        // Its caller may be gone.
                        Some(caller) => _ = caller.send(Ok(Reply::from(message))),
                        None => unexpected(message).map_err(TurnError::Handler)?,
                    },
                    None => break,
                },
                Event::Request(None) => clients_left = false,
                // Dropped, it tells its caller.
                Event::Request(Some(_)) if failed.is_some() => {}
                Event::Request(request) => *held = request,
                Event::Sent(Ok(())) => {}
                Event::Sent(Err(error)) => {
                    failed = Some(error);
                    *held = None;
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Queues the request that is held, if there is room.
    fn queue_held(&mut self) {
        let Self { channel: Channel { tx, .. }, held, waiting, .. } = self;
        let Some(request) = held.take_if(|Request { payload, descriptor, .. }| {
            let room = tx.has_room(payload.len(), descriptor.is_some());
            !matches!(room, Err(Reason::Full { .. } | Reason::DescriptorsFull))
        }) else {
            return;
        };
        let Request { header, payload, descriptor, caller } = request;
        if caller.is_closed() {
            return;
        }
        if waiting.len() == N {
            // Each call that is not given up has a permit, and so has this one.
            waiting.expire(|_, caller| caller.is_closed()).for_each(drop);
        }
        // It does not fail, as there is a place now.
        let Ok(id) = waiting.insert(caller) else { return };
        if let Err(refused) = tx.compose(Header { id, ..header }, &payload[..], descriptor)
            && let Some(caller) = waiting.take(id)
        {
            let _ = caller.send(Err(refused));
        }
    }
}

impl<const N: usize, D: Dialect, S: Storage, T: Storage> fmt::Debug for Driver<N, D, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("rx", &self.channel.rx)
            .field("tx", &self.channel.tx)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
