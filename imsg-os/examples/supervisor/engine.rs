//! The worker that has the configuration.

use std::collections::BTreeMap;
use std::mem;

use imsg_os::imsg_wire::typed::Protocol;
use imsg_os::{Channel, Message, Modern, Next, Sender, Turn};

use crate::Result;
use crate::protocol::{Answer, FromWorker, Question, ToWorker, VALUE};
use crate::wait::{Socket, is_there, wait};

pub(crate) fn run(mut parent: Channel) -> Result<()> {
    let (of_parent, of_frontend) = (Turn::new(4), Turn::new(VALUE));
    let (mut from_parent, mut from_frontend) = (false, false);
    let mut frontend = None::<Channel>;
    let (mut values, mut staged) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let next = parent.turn(&of_parent, from_parent, |message, tx| -> Result<()> {
            match message.try_into()? {
                ToWorker::Peer { descriptor } => {
                    frontend = Some(Channel::new(descriptor, Modern::new())?);
                }
                // One that was begun before is given up.
                ToWorker::ConfigBegin => staged.clear(),
                ToWorker::ConfigEntry { name, value } => {
                    staged.insert(name.to_owned(), value.to_owned());
                }
                ToWorker::ConfigEnd { generation } => {
                    values = mem::take(&mut staged);
                    FromWorker::Configured { generation }.compose(tx, 0)?;
                }
                other @ ToWorker::Listen { .. } => return Err(other.name().into()),
            }
            Ok(())
        })?;
        if next == Next::Done {
            return Ok(());
        }
        let answer = |message: Message<'_>, tx: &mut Sender| -> Result<()> {
            let id = message.header.id;
            let Question::Get { name } = message.try_into()?;
            let answer = match values.get(name) {
                Some(value) => Answer::Value { value },
                None => Answer::Unknown,
            };
            Ok(answer.compose(tx, id)?)
        };
        if let Some(channel) = &mut frontend
            && !is_there("the frontend", channel.turn(&of_frontend, from_frontend, answer))?
        {
            frontend = None; // it has died, and the parent introduces another one
        }
        let mut sockets = vec![Socket::channel(&parent, &of_parent, &mut from_parent)];
        if let Some(channel) = &frontend {
            sockets.push(Socket::channel(channel, &of_frontend, &mut from_frontend));
        }
        wait(sockets)?;
    }
}
