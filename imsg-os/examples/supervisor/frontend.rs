//! The worker that has the clients.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;

use imsg_os::imsg_wire::typed::Protocol;
use imsg_os::{Channel, Message, Modern, Next, Requests, Sender, Turn};

use crate::Result;
use crate::complain::complain;
use crate::protocol::{Answer, NAME, Question, ToWorker, VALUE};
use crate::wait::{Socket, goes_on, is_there, wait};

const CLIENTS: usize = 50; // any system gives 64 descriptors; other clients wait
/// Clients by their number, and whether they have something to read.
type Clients = BTreeMap<u64, (Channel, bool)>;

pub(crate) fn run(mut parent: Channel) -> Result<()> {
    let (silent, answers) = (Turn::silent(), Turn::new(VALUE));
    let (mut from_parent, mut from_engine, mut come) = (false, false, false);
    let mut listener = None::<UnixListener>;
    let mut engine = None::<Channel>;
    // Which client asked, and with which id.
    let mut asked = Requests::<(u64, u32), 32>::new();
    let mut clients = Clients::new();
    let mut number = 0;
    loop {
        let mut introduced = None;
        let next = parent.turn(&silent, from_parent, |message, _| -> Result<()> {
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
            let turn = channel.turn(&silent, from_engine, |message, _| -> Result<()> {
                let to = asked.take(message.header.id).ok_or("it was not asked this")?;
                reply(&mut clients, to, message.try_into()?);
                Ok(())
            });
            lost |= !is_there("the engine", turn)?;
        }
        if lost {
            asked.drain().for_each(|(_, to)| reply(&mut clients, to, Answer::Unavailable));
            engine = introduced.take(); // if it has died, the parent introduces another one
        }

        clients.retain(|number, (client, readable)| {
            let ask = |message: Message<'_>, tx: &mut Sender| -> Result<()> {
                let id = message.header.id;
                let Question::Get { name } = message.try_into()?;
                if name.len() <= NAME
                    && let Some(engine) = &mut engine
                    && engine.tx.has_room(NAME, false).is_ok()
                    && let Ok(request) = asked.insert((*number, id))
                {
                    Question::Get { name }.compose(&mut engine.tx, request)?;
                } else {
                    Answer::Unavailable.compose(tx, id)?;
                }
                Ok(())
            };
            goes_on(format_args!("client {number}"), client.turn(&answers, *readable, ask))
        });
        if let (Some(listener), true) = (&listener, come)
            && let Ok((socket, _)) = listener.accept()
        {
            number += 1;
            clients.insert(number, (Channel::new(socket, Modern::new())?, false));
        }
        come = false;

        let mut sockets = vec![Socket::channel(&parent, &silent, &mut from_parent)];
        if let Some(engine) = &engine {
            sockets.push(Socket::channel(engine, &silent, &mut from_engine));
        }
        if let (Some(listener), true) = (&listener, clients.len() < CLIENTS) {
            sockets.push(Socket::input(listener, &mut come));
        }
        for (client, readable) in clients.values_mut() {
            sockets.push(Socket::channel(client, &answers, readable));
        }
        wait(sockets)?;
    }
}

/// Queues an answer to a client that may be gone; it is sent in the client's next turn.
fn reply(clients: &mut Clients, (number, id): (u64, u32), answer: Answer<'_>) {
    let Some((client, _)) = clients.get_mut(&number) else { return };
    if let Err(refused) = answer.compose(&mut client.tx, id) {
        complain("frontend", format_args!("client {number} reads no answers: {refused}"));
        clients.remove(&number);
    }
}
