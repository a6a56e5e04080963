//! The protocols of the examples and of `imsg tmux` are, byte for byte, what they were when they were
//! written field by field; see `vectors/README.md`.

#![cfg(all(unix, target_endian = "little"))]
#![allow(dead_code, reason = "the programs use more of their protocols")]

use std::fmt::Debug;
use std::fs::File;
use std::os::fd::OwnedFd;

use imsg_os::Descriptor;
use imsg_wire::typed::{BadMessage, Carries, Protocol};
use imsg_wire::{Message, Messages, Modern, SendBuf};

#[path = "../../imsg-os/tools/src/tmux/error.rs"]
mod error;
#[path = "../../imsg-os/examples/shared/layers.rs"]
mod layers;
#[path = "../../imsg-os/examples/privsep/protocol.rs"]
mod privsep;
mod patience {
    pub(crate) type Wait = &'static str;
}
mod probe {
    pub(crate) type ProbeError = &'static str;
}
#[path = "../../imsg-os/tools/src/tmux/protocol.rs"]
mod protocol;

use layers::Layers;
use privsep::{Answer, Failure, Request, Summary};
use protocol::{FromClient, FromServer};

const PID: u32 = 4321;

/// What the header of each message of tmux has.
const OF_TMUX: (u32, u32) = (8, u32::MAX);

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../vectors/examples/", $name, ".bin"))
    };
}

type Queue = SendBuf<Modern, Vec<u8>, OwnedFd>;

fn queue() -> Queue {
    let mut queue = Queue::with_descriptors(Modern::new(), vec![0; 4096]);
    queue.set_pid(PID);
    queue
}

fn file() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// The stream of these messages, each with its id and pid.
fn stream<M>(messages: impl IntoIterator<Item = (M, (u32, u32))>) -> Vec<u8>
where
    M: Protocol + Carries<OwnedFd>,
{
    let mut queue = queue();
    for (message, (id, pid)) in messages {
        message.compose_as(&mut queue, id, pid).unwrap();
    }
    let mut stream = Vec::new();
    while let Some(chunk) = queue.chunk() {
        stream.extend_from_slice(chunk.bytes);
        let n = chunk.bytes.len();
        queue.consume(n).unwrap();
    }
    stream
}

/// The messages of a stream, each with its id and pid.
fn messages<'a, M>(stream: &'a [u8]) -> Vec<(M, (u32, u32))>
where
    M: TryFrom<Message<'a, OwnedFd>, Error: Debug>,
{
    let messages = Messages::new(Modern::new(), stream, stream.len());
    let parse = |message: Result<(imsg_wire::Frame, &'a [u8]), _>| {
        let (frame, payload) = message.unwrap();
        let descriptor = if frame.marked { Descriptor::Here(file()) } else { Descriptor::None };
        let message = Message { header: frame.header, payload, descriptor };
        (M::try_from(message).unwrap(), (frame.header.id, frame.header.pid))
    };
    messages.map(parse).collect()
}

#[test]
fn requests_of_privsep_are_the_bytes_that_they_were() {
    let requests =
        [(Request::Read(b"/etc/passwd", file()), (1, 0)), (Request::Read(b"", file()), (2, 0))];
    assert_eq!(stream(requests), recorded!("privsep-requests"));
}

#[test]
fn answers_of_privsep_are_the_bytes_that_they_were() {
    let layers = Layers {
        user: 65534.into(),
        group: 65533.into(),
        was_root: 1,
        no_new_privileges: 1,
        landlock: 7.into(),
    };
    let summary = Summary {
        size: 1_234_567_890_123.into(),
        lines: 42.into(),
        sha256: std::array::from_fn(|i| i as u8),
        own_open: 13.into(),
    };
    let answers = [
        (Answer::Ready(layers), (0, 0)),
        (Answer::Summary(summary), (1, 0)),
        (Answer::Failure(Failure { errno: 21.into() }), (2, 0)),
    ];
    assert_eq!(stream(answers), recorded!("privsep-answers"));
}

#[test]
fn what_a_client_of_tmux_says_is_the_bytes_that_it_was() {
    let said = [
        FromClient::LongFlags(FromClient::UTF8),
        FromClient::Term(b"vt100"),
        FromClient::Features(0),
        FromClient::TtyName(b"/dev/pts/1"),
        FromClient::Cwd("/süß".as_bytes()),
        FromClient::Stdin { descriptor: file() },
        FromClient::Stdout { descriptor: file() },
        FromClient::ClientPid(4321),
        FromClient::Environ(b"NAME=value"),
        FromClient::Environ(b"EMPTY="),
        FromClient::Done,
        FromClient::Command { argc: 3, argv: "new-session\0-d\0süß\0".as_bytes() },
        FromClient::Read { stream: 5, data: b"some data" },
        FromClient::ReadDone { stream: 5, error: 9 },
        FromClient::WriteReady { stream: 6, error: 0 },
        FromClient::Exiting,
    ];
    assert_eq!(stream(said.map(|message| (message, OF_TMUX))), recorded!("tmux-client"));
}

#[test]
fn recorded_streams_are_read_and_written_again_byte_for_byte() {
    let requests = recorded!("privsep-requests");
    assert_eq!(stream(messages::<Request<'_>>(requests)), requests);
    let answers = recorded!("privsep-answers");
    assert_eq!(stream(messages::<Answer>(answers)), answers);
    let said = recorded!("tmux-client");
    assert_eq!(stream(messages::<FromClient<'_>>(said)), said);
}

#[test]
fn what_a_server_of_tmux_says_is_understood_as_it_was() {
    let said: Vec<(FromServer<'_>, _)> = messages(recorded!("tmux-server"));
    let due = [
        FromServer::ReadOpen { stream: 5, fd: 0, path: b"-" },
        FromServer::ReadOpen { stream: 6, fd: -1, path: b"" },
        FromServer::ReadCancel { stream: 5 },
        FromServer::WriteOpen { stream: 6, fd: 1, flags: 0o2000, path: b"/path" },
        FromServer::Write { stream: 6, data: b"output" },
        FromServer::Write { stream: 6, data: b"" },
        FromServer::WriteClose { stream: 6 },
        FromServer::Flags(0x10000),
        FromServer::Ready,
        FromServer::Detach(b"first\0"),
        FromServer::DetachKill(b"first\0"),
        FromServer::Exit((0, b"")),
        FromServer::Exit((7, b"")),
        FromServer::Exit((7, b"lost")),
        FromServer::Exited,
        FromServer::Shutdown,
    ];
    assert_eq!(said.len(), due.len());
    for ((said, header), due) in said.into_iter().zip(due) {
        assert_eq!(header, OF_TMUX);
        assert_eq!(stream([(said, (8, 0))]), stream([(due, (8, 0))]));
    }
}

#[test]
fn a_message_of_the_other_side_is_refused() {
    let message =
        Message { header: imsg_wire::Header::new(3), payload: b"", descriptor: Descriptor::None };
    let refused: Result<Request<'_>, BadMessage<OwnedFd>> = message.try_into();
    assert!(refused.is_err());
}
