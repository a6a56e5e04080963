//! The worker that has the clients.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;

use imsg_os::typed::Protocol;
use imsg_os::{Channel, Message, Modern, Next, Poll, Requests, Sender, Turn};

use crate::protocol::{Answer, NAME, Question, ToWorker, VALUE};
use crate::{Result, goes_on, is_there};

const CLIENTS: usize = 50; // any system gives 64 descriptors; other clients wait
/// Clients by their number.
type Clients = BTreeMap<u64, Channel>;
/// Which client asked, and with which id.
type Asked = Requests<(u64, u32), ASKED>;
const ASKED: usize = 32;

const SILENT: Turn = Turn::silent();
/// Takes as many questions of a client as the engine has room for; and for their answers, and those
/// to come, there are places and room.
fn of_client(client: &Channel, engine: Option<&Channel>, asked: &Asked) -> Turn {
    let answers = client.tx.room_for(VALUE, false).min(ASKED).saturating_sub(asked.len());
    let questions = engine.map_or(usize::MAX, |engine| engine.tx.room_for(NAME, false));
    Turn::silent().at_most(questions.min(answers))
}

pub(crate) fn run(mut parent: Channel) -> Result<()> {
    let mut poll = Poll::new();
    let (mut listener, mut engine) = (None::<UnixListener>, None::<Channel>);
    let mut asked = Asked::new();
    let (mut clients, mut number) = (Clients::new(), 0);
    loop {
        let mut lost = false;
        let next = parent.turn(&SILENT, poll.is_readable(&parent), |message, _| -> Result<()> {
            match message.try_into()? {
                ToWorker::Peer { descriptor } => {
                    (engine, lost) = (Some(Channel::new(descriptor, Modern::new())?), true);
                }
                ToWorker::Listen { descriptor } => listener = Some(descriptor.into()),
                other => return Err(other.name().into()),
            }
            Ok(())
        })?;
        if next == Next::Done {
            return Ok(());
        }

        let replied = |message: Message<'_>, _: &mut Sender| -> Result<()> {
            let to = asked.take(message.header.id).ok_or("it was not asked this")?;
            reply(&mut clients, to, message.try_into()?)
        };
        if let Some(channel) = &mut engine
            && !is_there(channel.turn(&SILENT, poll.is_readable(channel), replied))?
        {
            (engine, lost) = (None, true); // it has died, and the parent introduces another one
        }
        if lost {
            asked.drain().try_for_each(|(_, to)| reply(&mut clients, to, Answer::Unavailable))?;
        }

        clients.retain(|number, client| {
            let turn = of_client(client, engine.as_ref(), &asked);
            let ask = |message: Message<'_>, tx: &mut Sender| -> Result<()> {
                let id = message.header.id;
                let Question::Get { name } = message.try_into()?;
                let Some(engine) = engine.as_mut().filter(|_| name.len() <= NAME) else {
                    return Ok(Answer::Unavailable.compose(tx, id)?);
                };
                let request = asked.insert((*number, id)).map_err(|_| "there is no room for it")?;
                Ok(Question::Get { name }.compose(&mut engine.tx, request)?)
            };
            match client.turn(&turn, poll.is_readable(client), ask) {
                // It may have closed its sending side only, and wait for an answer.
                Ok(Next::Done) => asked.iter().any(|(_, (of, _))| of == number),
                next => goes_on(format_args!("client {number}"), next),
            }
        });
        let arrivals = listener.as_ref().filter(|it| poll.is_readable(*it));
        if let Some(Ok((socket, _))) = arrivals.map(UnixListener::accept) {
            number += 1;
            clients.insert(number, Channel::new(socket, Modern::new())?);
        }

        let mut waits = poll.begin();
        waits.channel(&parent, &SILENT);
        engine.iter().for_each(|it| waits.channel(it, &SILENT));
        for client in clients.values() {
            waits.channel(client, &of_client(client, engine.as_ref(), &asked));
        }
        listener.iter().filter(|_| clients.len() < CLIENTS).for_each(|it| waits.readable(it));
        waits.wait()?;
    }
}

/// Queues an answer to a client that may be gone; it is sent in the client's next turn.
fn reply(clients: &mut Clients, (number, id): (u64, u32), answer: Answer<'_>) -> Result<()> {
    clients.get_mut(&number).map_or(Ok(()), |client| Ok(answer.compose(&mut client.tx, id)?))
}
