//! Calls of several tasks, over one channel.

use std::collections::VecDeque;
use std::error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tokio::sync::{Semaphore, mpsc, oneshot};
use ::tokio::time::{Instant, Sleep, sleep};
use imsg_wire::typed::{Carries, Protocol};
use imsg_wire::{Descriptor, Dialect, Header, Modern, Reason, Refused, Requests, Storage, Writer};

use super::Channel;
use crate::Pages;
use crate::channel::receiver::Message;
use crate::error::{RecvError, SendError, is_peer_gone, is_temporary};
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
/// peer; what is dropped on its way is closed. That is at once for the descriptor of a request that
/// is given up before there is room for it; one that is queued by then stays until the peer reads.
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

type Caller = oneshot::Sender<Result<Reply, CallError>>;

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
            Ok(reply) => reply,
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
    /// The peer is gone, or the driver has ended or was dropped. Whether the peer has the request is
    /// not known; its descriptor is closed.
    Gone,
    /// The system does not send the descriptor of this message, so nothing of it was sent: the peer
    /// [refuses descriptors](crate::Receiver::refuse_descriptors) (`EPERM` on Linux), or this is one
    /// that is never sent, such as that of an `io_uring` (`EINVAL`). Other calls go on.
    NotSent {
        /// What the system says.
        error: io::Error,
        /// The descriptor, given back.
        descriptor: OwnedFd,
    },
    /// The message cannot be sent: its payload is too long, or has a field that cannot be encoded.
    Refused(Refused<OwnedFd>),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the channel ended before the reply came"),
            Self::NotSent { error, .. } => write!(f, "the descriptor cannot be sent: {error}"),
            Self::Refused(refused) => refused.fmt(f),
        }
    }
}

impl error::Error for CallError {}

/// That the driver has ended is [`BrokenPipe`](io::ErrorKind::BrokenPipe). The descriptor of a message
/// that was not sent is closed.
impl From<CallError> for io::Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Gone => io::ErrorKind::BrokenPipe.into(),
            CallError::NotSent { error, .. } => error,
            CallError::Refused(refused) => SendError::from(refused).into(),
        }
    }
}

/// What has the channel of a [`Client`], sends its requests, and finds their replies. `N` is how many
/// calls can wait for a reply at a time.
pub struct Driver<const N: usize, D: Dialect = Modern, S: Storage = Pages, T: Storage = S> {
    channel: Channel<D, S, T>,
    requests: mpsc::Receiver<Request>,
    /// Requests for which there is no room yet.
    held: VecDeque<Request>,
    /// Who waits for a reply.
    waiting: Requests<Caller, N>,
    /// The ids of the messages that are queued, and of some before that were sent since.
    queued: VecDeque<u32>,
}

/// What a driver waits for.
enum Event<'a> {
    /// What failed for a time can be tried again.
    Rested,
    /// Calls were given up whose requests were held.
    GivenUp,
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
        let (waiting, queued) = (Requests::new(), VecDeque::new());
        (client, Self { channel, requests, held: VecDeque::new(), waiting, queued })
    }

    /// Runs until no client is left and all is sent, or until the peer closes its end.
    ///
    /// `unexpected` judges the messages whose id is of no call, or of one that was given up; when it
    /// returns an error, the driver ends. It gets the reply to a call that was given up only some
    /// time later: until then it is dropped. A peer that sends something else than replies gives
    /// that the id 0, which is never of a call.
    ///
    /// Where the system has no room, for descriptors on their way or here (of a channel that [keeps a
    /// reserve](crate::Receiver::keep_reserve)) or for what is sent, this tries again every few
    /// milliseconds. A message whose descriptor cannot be sent is [given back](CallError::NotSent) to
    /// its caller. When the peer is gone, calls that were not sent are told at once; those that
    /// were get the replies that it sent before, which are received to the end of the stream.
    ///
    /// When this ends, or is dropped, no call waits any longer.
    ///
    /// # Errors
    ///
    /// As a turn of an event loop, but none that is [temporary](TurnError::is_temporary).
    ///
    /// # Panics
    ///
    /// In a runtime whose time is not enabled.
    pub async fn run<E>(
        mut self,
        mut unexpected: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), TurnError<E>> {
        let mut clients_left = true;
        let mut failed = None;
        let (mut send_rest, mut recv_rest) = (Rest::new(), Rest::new());
        loop {
            self.queue_held();
            let Self { channel: Channel { rx, tx }, requests, held, waiting, queued } = &mut self;
            let room = held.front().map(|request| request.payload.len());
            let sends = failed.is_none() && tx.queue_bytes() > 0;
            if !clients_left && !sends && held.is_empty() {
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
                    if send_rest.poll_over(cx) || recv_rest.poll_over(cx) {
                        return Poll::Ready(Event::Rested);
                    }
                    // Neither their descriptors nor their places wait for the peer to read.
                    let before = held.len();
                    held.retain_mut(|request| request.caller.poll_closed(cx).is_pending());
                    if held.len() < before {
                        return Poll::Ready(Event::GivenUp);
                    }
                    if sends
                        && !send_rest.rests
                        && let Poll::Ready(sent) = send.as_mut().poll(cx)
                    {
                        return Poll::Ready(Event::Sent(sent));
                    }
                    if clients_left
                        && held.len() < N
                        && let Poll::Ready(request) = request.as_mut().poll(cx)
                    {
                        return Poll::Ready(Event::Request(request));
                    }
                    if recv_rest.rests {
                        return Poll::Pending;
                    }
                    message.as_mut().poll(cx).map(Event::Message)
                })
                .await
            };
            match event {
                Event::Rested | Event::GivenUp => {}
                Event::Message(Err(RecvError::DescriptorLimit)) => recv_rest.begin(),
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
                Event::Request(Some(request)) => held.push_back(request),
                Event::Sent(Ok(())) => {}
                Event::Sent(Err(error)) if is_temporary(&error) => send_rest.begin(),
                Event::Sent(Err(error)) if is_peer_gone(&error) => {
                    held.clear();
                    // Dropped, each tells its caller.
                    queued.drain(..queued.len().saturating_sub(tx.queue_len()));
                    queued.drain(..).for_each(|id| drop(waiting.take(id)));
                    tx.buf.reset();
                    failed = Some(error);
                }
                Event::Sent(Err(error)) => {
                    let of_descriptor = [Some(libc::EPERM), Some(libc::EINVAL)];
                    if !of_descriptor.contains(&error.raw_os_error()) {
                        return Err(error.into());
                    }
                    let Some(Message { header, descriptor: Descriptor::Here(descriptor), .. }) =
                        tx.take_back()
                    else {
                        return Err(error.into());
                    };
                    if let Some(caller) = waiting.take(header.id) {
                        let _ = caller.send(Err(CallError::NotSent { error, descriptor }));
                    }
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Queues the requests that are held, as long as there is room.
    fn queue_held(&mut self) {
        let Self { channel: Channel { tx, .. }, held, waiting, queued, .. } = self;
        while let Some(Request { payload, descriptor, .. }) = held.front() {
            let room = tx.has_room(payload.len(), descriptor.is_some());
            if matches!(room, Err(Reason::Full { .. } | Reason::DescriptorsFull)) {
                return;
            }
            let Some(Request { header, payload, descriptor, caller }) = held.pop_front() else {
                return;
            };
            if caller.is_closed() {
                continue;
            }
            if waiting.len() == N {
                // Each call that is not given up has a permit, and so has this one.
                waiting.expire(|_, caller| caller.is_closed()).for_each(drop);
            }
            // It does not fail, as there is a place now.
            let Ok(id) = waiting.insert(caller) else { return };
            // Those before were sent.
            queued.drain(..queued.len().saturating_sub(tx.queue_len()));
            match tx.compose(Header { id, ..header }, &payload[..], descriptor) {
                Ok(()) => queued.push_back(id),
                Err(refused) => {
                    if let Some(caller) = waiting.take(id) {
                        let _ = caller.send(Err(CallError::Refused(refused)));
                    }
                }
            }
        }
    }
}

/// What failed for want of room is not tried again before this is over: nothing tells when there is
/// room, and the socket may be ready all the time.
struct Rest {
    rests: bool,
    timer: Pin<Box<Sleep>>,
}

impl Rest {
    const LENGTH: Duration = Duration::from_millis(10);

    fn new() -> Self {
        Self { rests: false, timer: Box::pin(sleep(Self::LENGTH)) }
    }

    fn begin(&mut self) {
        self.rests = true;
        self.timer.as_mut().reset(Instant::now() + Self::LENGTH);
    }

    /// Whether a rest ends now.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        let over = self.rests && self.timer.as_mut().poll(cx).is_ready();
        self.rests &= !over;
        over
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
