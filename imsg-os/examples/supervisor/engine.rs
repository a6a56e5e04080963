//! The worker that has the configuration.

use std::collections::BTreeMap;
use std::mem;

use imsg_os::typed::Protocol;
use imsg_os::{Channel, Message, Modern, Next, Poll, Sender, Turn};

use crate::protocol::{Answer, FromWorker, Question, ToWorker, VALUE};
use crate::{Result, is_there};

const OF_PARENT: Turn = Turn::new(4);
const OF_FRONTEND: Turn = Turn::new(VALUE);

pub(crate) fn run(mut parent: Channel) -> Result<()> {
    let mut poll = Poll::new();
    let mut frontend = None::<Channel>;
    let (mut values, mut staged) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let next =
            parent.turn(&OF_PARENT, poll.is_readable(&parent), |message, tx| -> Result<()> {
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
            && !is_there(channel.turn(&OF_FRONTEND, poll.is_readable(channel), answer))?
        {
            frontend = None; // it has died, and the parent introduces another one
        }
        let mut waits = poll.begin();
        waits.channel(&parent, &OF_PARENT);
        frontend.iter().for_each(|it| waits.channel(it, &OF_FRONTEND));
        waits.wait()?;
    }
}
