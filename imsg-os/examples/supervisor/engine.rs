//! The worker that has the configuration.

use std::collections::BTreeMap;
use std::mem;

use imsg_os::typed::Protocol;
use imsg_os::{Channel, Message, Modern, Next, Poll, Sender, Turn};

use crate::protocol::{Answer, FromWorker, Question, ToWorker, VALUE};
use crate::{Result, is_there};

const TURN: Turn = Turn::new(VALUE); // no answer is longer

pub(crate) fn run(mut parent: Channel) -> Result<()> {
    let mut poll = Poll::new();
    let mut frontend = None::<Channel>;
    let (mut values, mut staged) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let next = parent.turn(&TURN, poll.is_readable(&parent), |message, tx| -> Result<()> {
            match message.try_into()? {
                ToWorker::Peer { descriptor } => {
                    frontend = Some(Channel::new(descriptor, Modern::new())?);
                }
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
            let value = values.get(name).map(|value| Answer::Value { value });
            Ok(value.unwrap_or(Answer::Unknown).compose(tx, id)?)
        };
        if let Some(channel) = &mut frontend
            && !is_there(channel.turn(&TURN, poll.is_readable(channel), answer))?
        {
            frontend = None; // it has died, and the parent introduces another one
        }
        let mut waits = poll.begin();
        waits.channel(&parent, &TURN);
        frontend.iter().for_each(|it| waits.channel(it, &TURN));
        waits.wait()?;
    }
}
