//! The worker that has the clients.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;

use imsg_os::typed::Protocol;
use imsg_os::{Channel, Message, Modern, Next, Poll, Requests, Sender, Turn};

use crate::complain::complain;
use crate::protocol::{Answer, NAME, Question, ToWorker, VALUE};
use crate::{Result, goes_on, is_there};

const CLIENTS: usize = 50; // any system gives 64 descriptors; other clients wait
/// Clients by their number.
type Clients = BTreeMap<u64, Channel>;
/// Which client asked, and with which id.
type Asked = Requests<(u64, u32), ASKED>;
const ASKED: usize = 32;

const SILENT: Turn = Turn::silent();
/// As many questions of a client as can be passed on now. Without an engine, all are answered.
fn of_client(engine: Option<&Channel>, asked: &Asked) -> Turn {
    let room = |engine: &Channel| engine.tx.room_for(NAME, false).min(ASKED - asked.len());
    Turn::new(VALUE).at_most(engine.map_or(usize::MAX, room))
}

pub(crate) fn run(mut parent: Channel) -> Result<()> {
    let mut poll = Poll::new();
    let mut listener = None::<UnixListener>;
    let mut engine = None::<Channel>;
    let mut asked = Asked::new();
    let mut clients = Clients::new();
    let mut number = 0;
    loop {
        let mut introduced = None;
        let next = parent.turn(&SILENT, poll.is_readable(&parent), |message, _| -> Result<()> {
            match message.try_into()? {
                ToWorker::Peer { descriptor } => {
                    introduced = Some(Channel::new(descriptor, Modern::new())?);
                }
                ToWorker::Listen { descriptor } => listener = Some(descriptor.into()),
                other => return Err(other.name().into()),
            }
            Ok(())
        })?;
        if next == Next::Done {
            return Ok(());
        }

        let mut lost = introduced.is_some();
        if let Some(channel) = &mut engine {
            let turn =
                channel.turn(&SILENT, poll.is_readable(channel), |message, _| -> Result<()> {
                    let to = asked.take(message.header.id).ok_or("it was not asked this")?;
                    reply(&mut clients, to, message.try_into()?);
                    Ok(())
                });
            lost |= !is_there(turn)?;
        }
        if lost {
            asked.drain().for_each(|(_, to)| reply(&mut clients, to, Answer::Unavailable));
            engine = introduced.take(); // if it has died, the parent introduces another one
        }

        clients.retain(|number, client| {
            let turn = of_client(engine.as_ref(), &asked);
            let ask = |message: Message<'_>, tx: &mut Sender| -> Result<()> {
                let id = message.header.id;
                let Question::Get { name } = message.try_into()?;
                let Some(engine) = engine.as_mut().filter(|_| name.len() <= NAME) else {
                    return Ok(Answer::Unavailable.compose(tx, id)?);
                };
                let request = asked.insert((*number, id)).map_err(|_| "there is no room for it")?;
                Ok(Question::Get { name }.compose(&mut engine.tx, request)?)
            };
            let turn = client.turn(&turn, poll.is_readable(client), ask);
            goes_on(format_args!("client {number}"), turn)
        });
        let arrivals = listener.as_ref().filter(|it| poll.is_readable(*it));
        if let Some(Ok((socket, _))) = arrivals.map(UnixListener::accept) {
            number += 1;
            clients.insert(number, Channel::new(socket, Modern::new())?);
        }

        let turn = of_client(engine.as_ref(), &asked);
        let mut waits = poll.begin();
        waits.channel(&parent, &SILENT);
        engine.iter().for_each(|it| waits.channel(it, &SILENT));
        clients.values().for_each(|it| waits.channel(it, &turn));
        listener.iter().filter(|_| clients.len() < CLIENTS).for_each(|it| waits.readable(it));
        waits.wait()?;
    }
}

/// Queues an answer to a client that may be gone; it is sent in the client's next turn.
fn reply(clients: &mut Clients, (number, id): (u64, u32), answer: Answer<'_>) {
    let Some(client) = clients.get_mut(&number) else { return };
    if let Err(refused) = answer.compose(&mut client.tx, id) {
        complain("frontend", format_args!("client {number} reads no answers: {refused}"));
        clients.remove(&number);
    }
}
