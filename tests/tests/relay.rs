//! `imsg relay`, run as a program: between clients and servers of the tmux that is
//! installed, and between peers that the tests play, honest and hostile ones.

#![cfg(target_os = "linux")]

use std::fs::{self, File, Permissions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread;

use imsg_os::imsg_wire::Frame;
use imsg_os::{
    Any, Channel, DEFAULT_MAX_LEN, Descriptor, Dialect, Endian, HEADER_LEN, Header, Pages,
    ReadOutcome, RecvError, WriteOutcome,
};
use imsg_tests::examples;
use imsg_tests::process::{self, Process, Running, until, until_ready, until_some};
use imsg_tests::rng::Rng;
use imsg_tests::tmux::{self, Tmux};
use imsg_wire::testing::senders::{Ends, Sender};
use libc::{TIOCOUTQ, c_int};
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::PollFlags;
use nix::sys::resource::{Resource, rlim_t};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, ControlMessage, MsgFlags, Shutdown, listen, sendmsg, shutdown};
use tempfile::TempDir;

/// The longest payload that every program takes.
const MOST: usize = DEFAULT_MAX_LEN - HEADER_LEN;

/// How much memory a relay may come to need, in KiB, whatever flows.
const MEMORY: usize = 12 * 1024;

/// The most descriptors that a connection may take.
const DESCRIPTORS: usize = 50;

/// What may be said of a program that is killed.
const UNREAD: &str = "it hung up with something unread";

const CLASSIC: Any = Any::Classic(Endian::NATIVE);
const MODERN: Any = Any::Modern(Endian::NATIVE);

// With the tmux that is installed.

#[test]
fn a_client_that_is_attached_through_a_relay_types_and_sees_the_output() {
    let Some(server) = Tmux::start("cat") else { return };
    let names = concat!(env!("CARGO_MANIFEST_DIR"), "/../imsg-os/tools/tmux.names");
    let tap = Program::start(&server.socket, &["--connect-dialect", "tmux", "--names", names]);
    attach_and_type(&server, &tap);

    let messages = tap.messages();
    let line = |part: &str| messages.iter().find(|line| line.contains(part)).expect(part);
    assert!(line("type 101 MSG_IDENTIFY_TERM ").contains("  1 to server  either "));
    let stdin = line("type 104 MSG_IDENTIFY_STDIN ");
    assert!(stdin.contains("  1 to server  classic  ") && stdin.contains("  fd \"/dev/pts/"));
    assert!(line("type 207 MSG_READY ").contains("  1 to client  classic  "));
    assert_eq!(tap.finish(), [""; 0]);
}

#[test]
fn a_client_that_is_attached_through_two_translations_types_and_sees_the_output() {
    let Some(server) = Tmux::start("cat") else { return };
    let chain = Chain::start(&server);
    attach_and_type(&server, &chain.classic_to_modern);
    chain.finish();
}

#[test]
fn fifty_megabytes_pass_byte_for_byte_in_constant_memory() {
    let Some(server) = Tmux::start("cat") else { return };
    let tap = Program::start(&server.socket, &["--connect-dialect", "tmux"]);
    load_and_save(&tap, 50_000_000);
    assert_eq!(tap.finish(), [""; 0]);
}

#[test]
fn fifty_megabytes_pass_two_translations_byte_for_byte_in_constant_memory() {
    let Some(server) = Tmux::start("cat") else { return };
    let chain = Chain::start(&server);
    load_and_save(&chain.classic_to_modern, 50_000_000);
    let memory = chain.modern_to_classic.most_memory();
    assert!(memory < MEMORY, "{memory} KiB");
    chain.finish();
}

#[test]
fn a_client_that_is_killed_is_detached_and_the_others_stay() {
    let Some(server) = Tmux::start("cat") else { return };
    let tap = Program::start(&server.socket, &["--connect-dialect", "tmux"]);
    let baseline = tap.descriptors();
    let (_stays, leaves) = (Terminal::attach(&tap), Terminal::attach(&tap));
    let clients = || server.output_of(["list-clients", "-F", "#{client_pid}"]);
    until("both are attached", || clients().lines().count() == 2);
    let pid: u32 = clients().lines().next_back().unwrap().parse().unwrap();
    Process::of(pid).signal(Signal::SIGKILL);
    until("one is detached", || clients().lines().count() == 1);
    until("its connection is gone", || tap.descriptors() == baseline + 2);
    assert_ne!(clients().trim(), pid.to_string());
    drop(leaves);
    let complaints = tap.finish();
    assert!(complaints.iter().all(|line| line.ends_with(UNREAD)), "{complaints:?}");
}

#[test]
fn a_server_that_is_killed_ends_its_clients_and_can_be_started_again() {
    let Some(mut server) = Tmux::start("cat") else { return };
    let tap = Program::start(&server.socket, &["--connect-dialect", "tmux"]);
    let baseline = tap.descriptors();
    let terminal = Terminal::attach(&tap);
    terminal.until_shown("[first]");
    server.running.kill();
    terminal.until_shown("the client has ended");
    until("the connection is gone", || tap.descriptors() == baseline);

    assert!(!tmux::client(&tap.listen).arg("ls").output().unwrap().status.success());
    server.start_again("cat");
    let listed = tmux::client(&tap.listen).arg("ls").output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let mut complaints = tap.finish();
    complaints.retain(|line| !line.ends_with(UNREAD));
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(
        complaints[0].starts_with("imsg relay: connection 2 cannot be made: "),
        "{complaints:?}"
    );
}

// What passes.

#[test]
fn messages_and_descriptors_pass_both_ways_in_every_dialect() {
    for ways in Ways::all() {
        let relay = Relay::start(&ways.arguments());
        let baseline = relay.program.descriptors();
        let (mut client, mut server) = relay.pair(ways);
        for n in 0..60 {
            // The server can send no descriptor before it is known how.
            exchange(&mut client, &mut server, n);
            exchange(&mut server, &mut client, n + 1000);
        }
        drop((client, server));
        relay.program.until_descriptors(baseline);
        assert_eq!(relay.finish(), [""; 0], "{ways:?}");
    }
}

#[test]
fn the_dialect_is_found_for_each_client_by_itself() {
    let relay = Relay::start(&["--connect-dialect", "classic"]);
    let mut pairs: Vec<_> =
        [CLASSIC, MODERN, CLASSIC, MODERN].map(|client| relay.connect(client, CLASSIC)).into();
    for n in 0..20 {
        for (client, server) in &mut pairs {
            exchange(client, server, n);
            exchange(server, client, n);
        }
    }
    drop(pairs);
    assert_eq!(relay.finish(), [""; 0]);
}

#[test]
fn a_descriptor_that_comes_ahead_of_its_message_finds_it() {
    for listen in ["auto", "classic"] {
        let relay = Relay::start(&["--listen-dialect", listen, "--connect-dialect", "modern"]);
        let (client, mut server) = relay.connect(CLASSIC, MODERN);
        let client = client.into_socket();
        let mut sender = Ends::default();
        for n in 0..300 {
            let descriptor = (n % 7 == 6).then(|| numbered(n));
            sender.compose(Header::new(n), &noise()[..n as usize], descriptor);
        }
        // At first it sends only a part of what comes before the first mark.
        let mut most = 50;
        while sender.offered() > 0 {
            let (bytes, descriptor) = sender.sendmsg(sender.offered().min(most));
            most = usize::MAX;
            send(&client, &bytes, descriptor.as_slice()).unwrap();
        }
        for n in 0..300 {
            server.expect(Header::new(n), &noise()[..n as usize], (n % 7 == 6).then_some(n));
        }
        drop((client, server));
        assert_eq!(relay.finish(), [""; 0]);
    }
}

#[test]
fn a_modern_message_may_be_as_long_as_is_said() {
    for (listen, most) in [("modern", 128 * 1024 + HEADER_LEN), ("auto", 0xffff)] {
        let arguments = ["--listen-dialect", listen, "--connect-dialect", "modern"];
        let relay = Relay::start(&arguments);
        let (mut client, mut server) = relay.connect(MODERN, MODERN);
        client.send(Header::new(0), b"", Some(0));
        server.expect(Header::new(0), b"", Some(0));
        for n in 1..4 {
            client.send(Header::new(n), &noise()[..most - HEADER_LEN], Some(n));
            server.expect(Header::new(n), &noise()[..most - HEADER_LEN], Some(n));
            server.send(Header::new(n), &noise()[..most - HEADER_LEN], Some(n));
            client.expect(Header::new(n), &noise()[..most - HEADER_LEN], Some(n));
        }
        server.send(Header::new(9), &noise()[..=most - HEADER_LEN], None);
        client.expect_end();
        let complaints = relay.finish();
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].starts_with("imsg relay: connection 1: from the server: "));
    }
}

#[test]
fn a_message_that_is_too_long_for_a_classic_program_ends_its_connection_only() {
    for (listen, connect) in [("modern", "classic"), ("auto", "classic"), ("classic", "modern")] {
        let relay =
            Relay::start(&["--listen-dialect", listen, "--connect-dialect", connect, "--quiet"]);
        let dialects = if connect == "classic" { (MODERN, CLASSIC) } else { (CLASSIC, MODERN) };
        let (mut client, mut server) = relay.connect(dialects.0, dialects.1);
        let mut others = relay.connect(dialects.0, dialects.1);
        exchange(&mut client, &mut server, 6);
        let (from, to) = if connect == "classic" { (client, server) } else { (server, client) };
        let (mut from, mut to) = (from, to);
        from.send(Header::new(5), &noise()[..MOST], None);
        from.send(Header::new(7), &noise()[..MOST + 1], None);
        to.expect(Header::new(5), &noise()[..MOST], None);
        to.expect_end();
        from.expect_end();
        exchange(&mut others.0, &mut others.1, 6);
        drop(others);
        let side = if connect == "classic" { "client" } else { "server" };
        assert_eq!(
            relay.finish(),
            [format!(
                "imsg relay: connection 1: from the {side}: a message of type 7 cannot be passed on: it \
                 has 16385 bytes, and the other side takes 16384 at most"
            )]
        );
    }
}

#[test]
fn what_a_client_of_unknown_dialect_cannot_be_sent_ends_its_connection() {
    let relay = Relay::start(&["--connect-dialect", "modern"]);
    for (payload, descriptor) in [(0, Some(3)), (MOST + 1, None)] {
        let (mut client, mut server) = relay.connect(MODERN, MODERN);
        client.send(Header::new(1), b"from the client", None);
        server.expect(Header::new(1), b"from the client", None);
        server.send(Header::new(2), &noise()[..MOST], None);
        server.send(Header::new(3), &noise()[..payload], descriptor);
        client.expect(Header::new(2), &noise()[..MOST], None);
        client.expect_end();
    }
    let complaints = relay.finish();
    assert_eq!(complaints.len(), 2);
    assert!(complaints.iter().all(|line| line.contains("has not shown its dialect yet")));
}

#[test]
fn the_features_of_a_terminal_are_cleared_when_tmux_is_translated() {
    const FEATURES: Header = Header { msg_type: 109, id: 8, pid: u32::MAX };
    let bits = 0xfff_u32.to_ne_bytes();
    for (listen, connect, client, due) in [
        ("modern", "tmux", MODERN, [0; 4]),
        ("auto", "tmux", MODERN, [0; 4]),
        ("classic", "tmux", CLASSIC, bits),
        ("modern", "classic", MODERN, bits),
    ] {
        let relay = Relay::start(&["--listen-dialect", listen, "--connect-dialect", connect]);
        let (mut client, mut server) = relay.connect(client, CLASSIC);
        client.send(FEATURES, &bits, None);
        client.send(FEATURES, b"another length", None);
        client.send(Header::new(1), b"", Some(1));
        server.expect(FEATURES, &due, None);
        server.expect(FEATURES, b"another length", None);
        server.expect(Header::new(1), b"", Some(1));
        server.send(FEATURES, &bits, None);
        client.expect(FEATURES, &bits, None);
        drop((client, server));
        assert_eq!(relay.finish(), [""; 0], "{listen} to {connect}");
    }
}

#[test]
fn a_side_that_ends_its_stream_still_gets_what_the_other_one_says() {
    let relay = Relay::start(&["--listen-dialect", "modern", "--connect-dialect", "modern"]);
    let mut others = relay.connect(MODERN, MODERN);
    let baseline = relay.program.descriptors();
    for server_ends in [false, true] {
        let (client, server) = relay.connect(MODERN, MODERN);
        let (mut ends, mut stays) = if server_ends { (server, client) } else { (client, server) };
        for n in 0..20 {
            ends.send(Header::new(n), &noise()[..MOST], (n == 0).then_some(n));
            until("it has received this", || ends.unread() == 0);
        }
        ends.shut_down();
        // By this, it has seen that, with messages that the other side has no room for.
        for n in 0..3 {
            exchange(&mut others.0, &mut others.1, n);
        }
        for n in 0..20 {
            stays.expect(Header::new(n), &noise()[..MOST], (n == 0).then_some(n));
        }
        stays.expect_end();
        for n in 0..20 {
            stays.send(Header::new(n), &noise()[..MOST], Some(n));
            ends.expect(Header::new(n), &noise()[..MOST], Some(n));
        }
        stays.shut_down();
        ends.expect_end();
        relay.program.until_descriptors(baseline);
    }
    drop(others);
    assert_eq!(relay.finish(), [""; 0]);
}

#[test]
fn all_that_was_sent_before_a_hang_up_arrives_before_it() {
    let relay = Relay::start(&["--connect-dialect", "modern"]);
    let baseline = relay.program.descriptors();
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    let sent = client.send_until_it_blocks(MOST, true);
    // It is gone for good, so the server is told that it takes no more either.
    drop(client);
    until("the server can write no more", || server.write_fails());
    for n in 0..sent {
        server.expect(Header::new(n), &noise()[..MOST], Some(n));
    }
    // The last message was cut off.
    server.expect_end();
    relay.program.until_descriptors(baseline);
    relay.finish();
}

#[test]
fn a_hang_up_is_one_for_the_other_side() {
    let relay = Relay::start(&["--connect-dialect", "modern"]);
    let baseline = relay.program.descriptors();
    for server_leaves in [false, true] {
        let (client, server) = relay.connect(MODERN, MODERN);
        let (leaves, stays) = if server_leaves { (server, client) } else { (client, server) };
        drop(leaves);
        // Which is more than that it sends no more.
        until_ready(&stays.channel, PollFlags::POLLHUP);
        relay.program.until_descriptors(baseline);
    }
    assert_eq!(relay.finish(), [""; 0]);
}

#[test]
fn a_side_that_does_not_read_slows_the_other_one_and_nobody_else() {
    for from_server in [false, true] {
        // What is too much for the buffers is in one case bytes, in the other descriptors.
        for (len, descriptors) in [(MOST, false), (0, true)] {
            let relay = Relay::start(&["--connect-dialect", "classic", "--quiet"]);
            let baseline = relay.program.descriptors();
            let mut others = relay.connect(MODERN, CLASSIC);
            exchange(&mut others.0, &mut others.1, 6);
            let (mut client, mut server) = relay.connect(MODERN, CLASSIC);
            exchange(&mut client, &mut server, 6);

            let (mut fast, mut slow) =
                if from_server { (server, client) } else { (client, server) };
            let sent = fill(&mut fast, len, descriptors, &mut others);
            assert!(relay.program.most_memory() < MEMORY);
            let held = relay.program.descriptors() - baseline - 2;
            assert!(held <= DESCRIPTORS, "{held}");
            if descriptors {
                assert!(held > 10, "{held}: it is not the descriptors that were too many");
            }

            thread::scope(|scope| {
                scope.spawn(|| fast.flush());
                for n in 0..sent {
                    slow.expect(Header::new(n), &noise()[..len], descriptors.then_some(n));
                }
            });
            drop((fast, slow, others));
            relay.program.until_descriptors(baseline);
            let complaints = relay.finish();
            assert!(complaints.len() <= 1, "{complaints:?}");
        }
    }
}

#[test]
fn sides_that_wait_for_each_other_go_on_when_one_reads() {
    let relay = Relay::start(&["--connect-dialect", "modern", "--quiet"]);
    let mut others = relay.connect(MODERN, MODERN);
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    exchange(&mut client, &mut server, 6);
    let [up, down] = [&mut client, &mut server].map(|peer| {
        let queued = fill(peer, 3000, true, &mut others);
        queued - u32::try_from(peer.channel.tx.queue_len()).unwrap()
    });
    for n in 0..up {
        server.expect(Header::new(n), &noise()[..3000], Some(n));
    }
    for n in 0..down {
        client.expect(Header::new(n), &noise()[..3000], Some(n));
    }
    drop((client, server, others));
    relay.finish();
}

#[test]
fn two_hundred_clients_that_come_and_leave_at_random_leave_nothing_behind() {
    const THREADS: usize = 8;
    const EACH: usize = 25;
    for ways in [Ways("auto", CLASSIC, "modern"), Ways("modern", MODERN, "classic")] {
        let relay = Relay::start(&ways.arguments());
        let baseline = relay.program.descriptors();
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..THREADS * EACH {
                    let mut peer = relay.accept(ways.server());
                    scope.spawn(move || while peer.echo() {});
                }
            });
            for thread in 0..THREADS {
                let relay = &relay;
                scope.spawn(move || {
                    let mut rng = Rng::of(&[thread as u64]);
                    let mut clients: Vec<_> =
                        (0..EACH).map(|_| relay.connect_client(ways.1)).collect();
                    while !clients.is_empty() {
                        let chosen = rng.size_below(clients.len());
                        if rng.one_in(6) {
                            leave(clients.swap_remove(chosen), &mut rng);
                        } else {
                            round_trip(&mut clients[chosen], &mut rng);
                        }
                    }
                });
            }
        });
        relay.program.until_descriptors(baseline);
        let (mut client, mut server) = relay.pair(ways);
        exchange(&mut client, &mut server, 6);
        drop((client, server));
        let complaints = relay.finish();
        assert!(complaints.len() <= THREADS * EACH, "more than a line for one: {complaints:?}");
    }
}

// What does not.

#[test]
fn a_hostile_peer_at_either_end_ends_its_own_connection_only() {
    for ways in Ways::all() {
        for hostile_server in [false, true] {
            let relay = Relay::start(&ways.arguments());
            let baseline = relay.program.descriptors() + 2;
            let mut honest = relay.pair(ways);
            exchange(&mut honest.0, &mut honest.1, 6);
            let dialect = if hostile_server { ways.server() } else { ways.1 };
            for (number, case) in hostile(dialect).into_iter().enumerate() {
                let what = format!("{ways:?}, hostile server: {hostile_server}, {}", case.what);
                let (mut client, mut server) = relay.pair(ways);
                if hostile_server {
                    // So that it may send a descriptor.
                    exchange(&mut client, &mut server, 6);
                }
                let (bad, mut good) =
                    if hostile_server { (server, client) } else { (client, server) };
                let bad = bad.into_socket();
                for (bytes, descriptors) in case.sends {
                    let descriptors: Vec<_> = descriptors.into_iter().map(numbered).collect();
                    // It may be hung up on before it has said all.
                    let _ = send(&bad, &bytes, &descriptors);
                }
                if case.hangs_up {
                    shutdown(bad.as_raw_fd(), Shutdown::Write).unwrap();
                }
                while let Some(got) = good.receive() {
                    // A descriptor is that of its own message.
                    assert!(
                        got.number.is_none_or(|number| number == got.header.msg_type),
                        "{what}"
                    );
                }
                relay.program.until_descriptors(baseline);
                relay.program.until_complaints(number + 1);
                let complaint = &relay.program.complaints()[number];
                assert!(complaint.contains(case.due), "{what}: {complaint}");
                exchange(&mut honest.0, &mut honest.1, 6);
            }
            drop(honest);
            relay.finish();
        }
    }
}

#[test]
fn without_a_server_a_client_is_hung_up_on_with_a_line() {
    let relay = Relay::start(&["--connect-dialect", "modern"]);
    let Relay { program, server } = relay;
    drop(server);
    for _ in 0..3 {
        connect(&program.listen, MODERN).expect_end();
    }
    fs::remove_file(&program.connect).unwrap();
    connect(&program.listen, MODERN).expect_end();
    let server = UnixListener::bind(&program.connect).unwrap();
    let relay = Relay { program, server };
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    exchange(&mut client, &mut server, 6);
    drop((client, server));
    let complaints = relay.finish();
    assert_eq!(complaints.len(), 4);
    assert!(complaints[0].contains("connection 1 cannot be made: "), "{complaints:?}");
    assert!(complaints[0].ends_with("Connection refused (os error 111)"), "{complaints:?}");
}

#[test]
fn clients_wait_while_as_many_wait_at_the_server_as_may() {
    let relay = Relay::start(&["--connect-dialect", "modern"]);
    listen(&relay.server, Backlog::new(2).unwrap()).unwrap();
    let mut clients: Vec<_> = (0..30).map(|_| relay.connect_client(MODERN)).collect();
    clients[29].send(Header::new(29), b"", None);
    let mut servers: Vec<_> = (0..30).map(|_| relay.accept(MODERN)).collect();
    servers[29].expect(Header::new(29), b"", None);
    drop((clients, servers));
    assert_eq!(relay.finish(), [""; 0]);
}

#[test]
fn more_clients_than_are_allowed_are_hung_up_on_with_a_line() {
    let relay = Relay::start(&["--connect-dialect", "modern", "--max-clients", "2"]);
    let baseline = relay.program.descriptors();
    let mut pairs = [(); 2].map(|()| relay.connect(MODERN, MODERN));
    relay.connect_client(MODERN).expect_end();
    for (client, server) in &mut pairs {
        exchange(client, server, 6);
    }
    drop(pairs);
    relay.program.until_descriptors(baseline);
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    exchange(&mut client, &mut server, 6);
    drop((client, server));
    assert_eq!(
        relay.finish(),
        ["imsg relay: connection 3 cannot be made: there are as many clients as are allowed"]
    );
}

#[test]
fn sides_that_pass_their_own_ends_and_die_in_a_message_leave_their_places_to_others() {
    const MOST_CLIENTS: usize = 65;
    for server_dies in [false, true] {
        let both = ["--listen-dialect", "modern", "--connect-dialect", "modern"];
        let most = MOST_CLIENTS.to_string();
        let limits = ["--max-clients", &most, "--patience", "0.2"];
        let relay = Relay::start(&[both, limits].concat());
        let baseline = relay.program.descriptors();
        let mut idle = relay.connect(MODERN, MODERN);
        exchange(&mut idle.0, &mut idle.1, 6);
        let frame = Frame { header: Header::new(1), len: HEADER_LEN + 100, marked: true };
        let begun = [&MODERN.encode(&frame)[..], &[0; 50]].concat();
        let mut stays = Vec::new();
        for n in 1..MOST_CLIENTS {
            let (client, server) = relay.connect(MODERN, MODERN);
            let (dies, honest) = if server_dies { (server, client) } else { (client, server) };
            let dies = dies.into_socket();
            let own_end = OwnedFd::from(dies.try_clone().unwrap());
            send(&dies, &begun[..n], &[own_end]).unwrap();
            drop(dies);
            stays.push(honest);
        }
        stays.iter_mut().for_each(Peer::expect_end);
        relay.program.until_complaints(MOST_CLIENTS - 1);
        relay.program.until_descriptors(baseline + 2);
        // It has said nothing for longer than any of them.
        exchange(&mut idle.0, &mut idle.1, 6);
        let mut others: Vec<_> = (1..MOST_CLIENTS).map(|_| relay.connect(MODERN, MODERN)).collect();
        others.iter_mut().for_each(|(client, server)| exchange(client, server, 6));
        drop((idle, others));
        let complaints = relay.finish();
        assert_eq!(complaints.len(), MOST_CLIENTS - 1, "{complaints:?}");
        let side = if server_dies { "server" } else { "client" };
        let due = format!(": from the {side}: it did not complete a message in time");
        assert!(complaints.iter().all(|line| line.ends_with(&due)), "{complaints:?}");
    }
}

#[test]
fn a_side_that_does_not_read_is_hung_up_on_when_that_is_limited() {
    for server_is_stuck in [false, true] {
        let relay = Relay::start(&["--connect-dialect", "modern", "--reader-patience", "0.2"]);
        let baseline = relay.program.descriptors();
        let (client, server) = relay.connect(MODERN, MODERN);
        let (mut sends, stuck) = if server_is_stuck { (client, server) } else { (server, client) };
        let tx = &mut sends.channel.tx;
        while tx.write().is_ok() {
            until_ready(tx, PollFlags::POLLOUT);
            while tx.has_room(MOST, false).is_ok() {
                tx.compose(Header::new(1), &noise()[..MOST], None).unwrap();
            }
        }
        relay.program.until_descriptors(baseline);
        drop(stuck);
        let complaints = relay.finish();
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].ends_with("of them here: it did not read in time"), "{complaints:?}");
    }
}

#[test]
fn a_full_descriptor_table_ends_the_connections_that_need_more() {
    let arguments = ["--connect-dialect", "modern"];
    let relay = Relay::start(&arguments);
    let alone = relay.program.descriptors();
    let limits = [20, 21].map(|room| relay.program.limit_with_room_for(room));
    relay.finish();
    // There is room for ten connections, and for half of one, or none.
    for (room, limit) in [20, 21].into_iter().zip(limits) {
        let relay = Relay::start_as(&arguments, None, |command, _| {
            self::limit(command, limit);
        });
        let mut pairs: Vec<_> = (0..10).map(|_| relay.connect(MODERN, MODERN)).collect();
        relay.connect_client(MODERN).expect_end();
        relay.program.until_complaints(1);
        let complaint = &relay.program.complaints()[0];
        assert!(complaint.contains("connection 11 "), "{complaint}");
        assert!(complaint.ends_with("Too many open files (os error 24)"), "{complaint}");
        for (client, server) in &mut pairs {
            client.send(Header::new(1), b"still there", None);
            server.expect(Header::new(1), b"still there", None);
        }
        if room == 20 {
            let (mut client, mut server) = pairs.pop().unwrap();
            client.send(Header::new(2), b"", Some(2));
            server.expect_end();
            client.expect_end();
            relay.program.until_complaints(2);
            assert!(relay.program.complaints()[1].contains("of type 2 is lost"));
        } else {
            pairs.pop();
        }
        relay.program.until_descriptors(alone + 18);
        pairs.push(relay.connect(MODERN, MODERN));
        drop(pairs);
        relay.program.until_descriptors(alone);
        relay.finish();
    }
}

#[test]
fn descriptors_wait_while_as_many_are_on_their_way_as_may() {
    // The system counts those of each user, but for root.
    const NOBODY_ELSE: u32 = 64_731;
    const MOST_ON_THEIR_WAY: usize = 64;
    let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    let relay = Relay::start_as(&["--connect-dialect", "modern"], None, |command, place| {
        let copy = place.join("relay");
        fs::copy(&*PROGRAM, &copy).unwrap();
        open(place);
        open(&place.join("server"));
        let mut copied = Command::new(copy);
        copied.args(command.get_args());
        limit(&mut copied, MOST_ON_THEIR_WAY);
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            copied.uid(NOBODY_ELSE).gid(NOBODY_ELSE);
        }
        *command = copied;
    });
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    let (mut other_client, mut other_server) = relay.connect(MODERN, MODERN);
    let mut idle = relay.connect(MODERN, MODERN);
    // As many as the system lets pass, and one. It may count those that are not received yet, too.
    let sent = MOST_ON_THEIR_WAY as u32 + 2;
    for n in 0..sent {
        client.send(Header::new(n), b"", Some(n));
        until("it has received this", || client.unread() == 0);
    }
    other_client.send(Header::new(1), b"", Some(1));
    until("it has received this", || other_client.unread() == 0);
    // By this, it has tried to pass that on.
    exchange(&mut idle.0, &mut idle.1, 7);
    expect_sleep(&relay.program);
    for n in 0..sent {
        server.expect(Header::new(n), b"", Some(n));
    }
    other_server.expect(Header::new(1), b"", Some(1));
    exchange(&mut client, &mut server, 6);
    drop((client, server, other_client, other_server, idle));
    assert_eq!(relay.finish(), [""; 0]);
}

// The socket, the signals, the output.

#[test]
fn the_socket_is_for_its_owner_and_goes_away_with_the_program() {
    let relay = Relay::start(&["--connect-dialect", "modern"]);
    let metadata = fs::metadata(&relay.program.listen).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o777, 0o600);
    relay.finish();
}

#[test]
fn a_socket_that_is_live_or_something_else_is_refused_and_stays() {
    let relay = Relay::start(&["--connect-dialect", "modern"]);
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, b"text").unwrap();
    let link = place.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for (path, due) in [
        (&relay.program.listen, "a program listens on it already"),
        (&relay.program.connect, "it is the socket of the server"),
        (&file, "it exists, and is no socket"),
        (&link, "it exists, and is no socket"),
        (&place.path().join("nowhere/socket"), "No such file or directory (os error 2)"),
    ] {
        let arguments = ["--connect-dialect", "modern"];
        let output = command(path, &relay.program.connect, &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(complaint, format!("imsg relay: {}: {due}\n", path.display()));
    }
    assert_eq!(fs::read(&link).unwrap(), b"text");
    // The check was no client.
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    exchange(&mut client, &mut server, 6);
    drop((client, server));
    relay.finish();
}

#[test]
fn a_socket_that_a_killed_program_left_is_taken_over() {
    let mut relay = Relay::start(&["--connect-dialect", "modern"]);
    relay.program.running.kill();
    assert!(relay.program.listen.exists());
    let Relay { program, server } = relay;
    let Program { directory, connect, .. } = program;
    let command = |listen: &Path| command(listen, &connect, &["--connect-dialect", "modern"]);
    let program = Program::run(directory, &connect, None, command);
    let relay = Relay { program, server };
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    exchange(&mut client, &mut server, 6);
    drop((client, server));
    relay.finish();
}

#[test]
fn of_two_that_start_at_once_on_a_stale_socket_one_listens_and_one_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let (socket, server) = (place.path().join("socket"), place.path().join("server"));
    for round in 0..30 {
        drop(UnixListener::bind(&socket).unwrap());
        let start = || {
            let mut command = command(&socket, &server, &["--connect-dialect", "modern"]);
            Running::start(command.stdout(Stdio::null()).stderr(Stdio::piped()))
        };
        let (mut one, mut other) = (start(), start());
        let ended = until_some("one has ended", || {
            [&mut one, &mut other].into_iter().position(|it| it.child.try_wait().unwrap().is_some())
        });
        let (loser, mut winner) = if ended == 0 { (one, other) } else { (other, one) };
        let report = loser.finish();
        assert_eq!(report.code(), Some(1), "round {round}: {report:?}");
        assert!(report.stderr.ends_with("a program listens on it already\n"), "{report:?}");
        until("the other one listens", || UnixStream::connect(&socket).is_ok());
        winner.process().signal(Signal::SIGTERM);
        assert!(winner.until_it_ends().success());
        assert!(!socket.exists());
    }
}

#[test]
fn a_relay_is_not_connected_to_itself_by_whatever_path() {
    let place = tempfile::tempdir().unwrap();
    let alias = place.path().join("alias");
    std::os::unix::fs::symlink(place.path(), &alias).unwrap();
    let (listen, connect_to) = (place.path().join("socket"), alias.join("socket"));
    let output = command(&listen, &connect_to, &["--connect-dialect", "modern"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8(output.stderr).unwrap();
    let due = format!("imsg relay: {}: it is the socket of this relay\n", connect_to.display());
    assert_eq!(complaint, due);
    assert!(!listen.exists());

    // Where it becomes that later.
    let server = place.path().join("server");
    let relay = Program::start(&server, &["--connect-dialect", "modern"]);
    std::os::unix::fs::symlink(&relay.listen, &server).unwrap();
    connect(&relay.listen, MODERN).expect_end();
    let complaints = relay.finish();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].ends_with(": it is the socket of this relay"), "{complaints:?}");
}

#[test]
fn an_empty_path_is_none_for_a_socket() {
    for (listen, connect) in [("", "/nowhere"), ("/nowhere", "")] {
        let mut command = command(listen.as_ref(), connect.as_ref(), &["--connect-dialect=modern"]);
        assert_eq!(command.output().unwrap().status.code(), Some(2));
    }
}

#[test]
fn a_tmux_server_that_does_not_answer_the_probe_is_waited_for_a_while_only() {
    let place = tempfile::tempdir().unwrap();
    let (listen, connect) = (place.path().join("relay"), place.path().join("server"));
    let server = UnixListener::bind(&connect).unwrap();
    for half in [false, true] {
        let limits = ["--connect-dialect", "tmux", "--patience", "0.2", "-v"];
        let mut command = command(&listen, &connect, &limits);
        let program = Running::start(command.stderr(Stdio::piped()));
        until_ready(&server, PollFlags::POLLIN);
        let (mut silent, _) = server.accept().unwrap();
        if half {
            silent.write_all(&[12, 0, 0, 0, 16]).unwrap();
        }
        let report = program.finish();
        assert_eq!(report.code(), Some(1));
        let lines: Vec<_> = report.stderr.lines().collect();
        let due = "waiting for the server to answer the probe for its dialect";
        assert!(lines[0].ends_with(due), "{lines:?}");
        let due = "the server did not answer the probe for its dialect in time";
        assert!(lines[1].ends_with(due), "{lines:?}");
        assert!(!listen.exists());
    }
}

#[test]
fn a_server_that_accepts_nobody_is_waited_for_a_while_only() {
    let place = tempfile::tempdir().unwrap();
    let (listen_at, connect) = (place.path().join("relay"), place.path().join("server"));
    let server = UnixListener::bind(&connect).unwrap();
    listen(&server, Backlog::new(0).unwrap()).unwrap();
    let _waits = UnixStream::connect(&connect).unwrap();
    let limits = ["--connect-dialect", "tmux", "--patience", "0.2"];
    let report = command(&listen_at, &connect, &limits).output().unwrap();
    assert_eq!(report.status.code(), Some(1));
    let complaint = String::from_utf8(report.stderr).unwrap();
    assert!(complaint.ends_with(": it accepts no connection\n"), "{complaint}");
}

#[test]
fn a_program_that_gets_no_thread_ends_with_the_reason_and_leaves_no_socket() {
    // The system does not limit those of root.
    const NOBODY_ELSE: u32 = 64_732;
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
    let (copy, socket) = (place.path().join("imsg"), place.path().join("socket"));
    fs::copy(&*PROGRAM, &copy).unwrap();
    let mut limited = Command::new(copy);
    let server = place.path().join("server");
    limited.args(command(&socket, &server, &["--connect-dialect", "modern"]).get_args());
    process::limit(&mut limited, Resource::RLIMIT_NPROC, 1);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        limited.uid(NOBODY_ELSE).gid(NOBODY_ELSE);
    }
    let output = limited.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8(output.stderr).unwrap();
    let due = "imsg relay: no thread can be started that waits for signals: ";
    assert!(complaint.starts_with(due), "{complaint}");
    assert!(!socket.exists());
}

#[test]
fn a_connection_that_finds_no_memory_is_refused_and_others_go_on() {
    let arguments = ["--listen-dialect", "modern", "--connect-dialect", "modern"];
    let relay = Relay::start(&arguments);
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    exchange(&mut client, &mut server, 6);
    let process = relay.program.process();
    let used = process.memory("VmSize").unwrap() as rlim_t;
    process::limit_now(process, Resource::RLIMIT_AS, (used << 10) + (4 << 20));
    let mut others: Vec<_> = (0..20).map(|_| relay.connect_client(MODERN)).collect();
    relay.program.until_complaints(10);
    others.last_mut().unwrap().expect_end();
    exchange(&mut client, &mut server, 7);
    drop((client, server, others));
    let complaints = relay.finish();
    let is_due = |line: &String| line.contains("cannot be made: ") && line.contains("memory");
    assert!(complaints.iter().all(is_due), "{complaints:?}");
}

#[test]
fn output_that_somebody_made_non_blocking_gets_every_line() {
    const MESSAGES: u32 = 3000;
    let (mut read, write) = io::pipe().unwrap();
    process::make_nonblocking(&write);
    let relay = Relay::start_as(&["--connect-dialect", "modern"], Some(write.into()), as_it_is);
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    let text = thread::scope(|scope| {
        scope.spawn(|| (0..MESSAGES).for_each(|n| client.send(Header::new(n), b"", None)));
        let all =
            scope.spawn(|| (0..MESSAGES).for_each(|n| server.expect(Header::new(n), b"", None)));
        // It has filled the pipe, and nobody reads.
        until("the pipe is full", || queued(&read) > 30_000);
        let reader = scope.spawn(move || {
            let mut text = String::new();
            read.read_to_string(&mut text).map(|_| text)
        });
        all.join().unwrap();
        assert_eq!(relay.finish(), [""; 0]);
        reader.join().unwrap().unwrap()
    });
    assert_eq!(text.lines().count(), MESSAGES as usize);
}

#[test]
fn connections_go_on_when_the_messages_find_no_place() {
    for limited in [false, true] {
        let output = if limited {
            tempfile::tempfile().unwrap()
        } else {
            File::options().write(true).open("/dev/full").unwrap()
        };
        let limit = |command: &mut Command, _: &Path| {
            if limited {
                // Enough for what it complains of.
                process::limit(command, Resource::RLIMIT_FSIZE, 400);
            }
        };
        let arguments = ["--connect-dialect", "modern", "--hex"];
        let relay = Relay::start_as(&arguments, Some(output.into()), limit);
        let (mut client, mut server) = relay.connect(MODERN, MODERN);
        (0..10).for_each(|n| exchange(&mut client, &mut server, n));
        drop((client, server));
        let why = if limited {
            "File too large (os error 27)"
        } else {
            "No space left on device (os error 28)"
        };
        assert_eq!(
            relay.finish(),
            [format!("imsg relay: messages are not printed any more: {why}")]
        );
    }
}

#[test]
fn names_of_sockets_are_shown_and_not_obeyed() {
    let path = Path::new("/nowhere/\u{1b}[31m\u{202e}");
    let output = command(path, path, &["--connect-dialect", "modern"]).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    let due = "imsg relay: /nowhere/\\u{1b}[31m\\u{202e}: it is the socket of the server\n";
    assert_eq!(complaint, due);
}

#[test]
fn a_client_whose_descriptors_are_not_taken_leaves_its_place_to_others() {
    // Longer than it takes to send all that is taken.
    let limits = ["--listen-dialect", "modern", "--patience", "3"];
    let relay = Relay::start(&[&["--connect-dialect", "modern"][..], &limits].concat());
    let baseline = relay.program.descriptors();
    let mut idle = relay.connect(MODERN, MODERN);
    // The server reads nothing.
    let (mut client, server) = relay.connect(MODERN, MODERN);
    fill(&mut client, 0, true, &mut idle);
    drop(client);
    relay.program.until_complaints(1);
    relay.program.until_descriptors(baseline + 2);
    exchange(&mut idle.0, &mut idle.1, 6);
    drop((idle, server));
    let complaints = relay.finish();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("connection 2: to the server: "), "{complaints:?}");
    assert!(complaints[0].ends_with("it did not read in time"), "{complaints:?}");
}

#[test]
fn a_socket_that_took_the_place_of_ours_is_not_removed() {
    let relay = Relay::start(&["--connect-dialect", "modern"]);
    fs::remove_file(&relay.program.listen).unwrap();
    let _other = UnixListener::bind(&relay.program.listen).unwrap();
    let report = relay.program.stop(Signal::SIGTERM);
    assert!(report.status.success() && report.leaves_socket);
}

#[test]
fn what_was_received_is_passed_on_before_a_signal_ends_the_program() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let relay = Relay::start(&["--connect-dialect", "modern"]);
        let mut others = relay.connect(MODERN, MODERN);
        let (mut client, mut server) = relay.connect(MODERN, MODERN);
        fill(&mut client, 3000, true, &mut others);
        let Relay { program, server: listener } = relay;
        thread::scope(|scope| {
            let process = program.process();
            let listen = program.listen.clone();
            let stopped = scope.spawn(move || program.stop(signal));
            // It takes no more clients, but is still there for this one.
            until("the socket is gone", || !listen.exists());
            assert_eq!(kill(process.0, None), Ok(()));
            let mut received = 0;
            while let Some(got) = server.receive() {
                assert_eq!((got.header.msg_type, got.number), (received, Some(received)));
                received += 1;
            }
            let report = stopped.join().unwrap();
            assert!(report.status.success());
            let shown = report.messages.iter().filter(|line| line.contains("  2 to server  "));
            assert_eq!(shown.count(), received as usize, "what was shown was passed on");
        });
        drop(listener);
    }
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    let relay = Relay::start(&["--connect-dialect", "modern"]);
    let mut others = relay.connect(MODERN, MODERN);
    let (mut client, _server) = relay.connect(MODERN, MODERN);
    fill(&mut client, 3000, true, &mut others);
    // In this order, as who starts the tests may have had the first one ignored.
    relay.program.process().signal(Signal::SIGINT);
    let report = relay.program.stop(Signal::SIGTERM);
    assert!(report.status.signal().is_some(), "{:?}", report.status);
    assert!(!report.leaves_socket);
}

#[test]
fn output_that_is_not_read_delays_the_end_for_a_while_only() {
    let (_read, mut write) = io::pipe().unwrap();
    let size = fcntl(&write, FcntlArg::F_GETPIPE_SZ).unwrap();
    write.write_all(&vec![0; size as usize]).unwrap();
    let relay = Relay::start_as(&["--connect-dialect", "modern"], Some(write.into()), as_it_is);
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    // To show this one, it waits for room.
    client.send(Header::new(1), b"", None);
    server.expect(Header::new(1), b"", None);
    assert_eq!(
        relay.finish(),
        ["imsg relay: it takes too long to pass on what was received: it is cut off"]
    );
}

#[test]
fn a_relay_that_has_nothing_to_do_sleeps() {
    let relay = Relay::start(&["--connect-dialect", "modern", "--quiet"]);
    let mut kept: Vec<_> = (0..10).map(|_| relay.connect(MODERN, MODERN)).collect();
    kept.iter_mut().for_each(|(client, server)| exchange(client, server, 6));
    // What it could do with these, it cannot do for now.
    for shut in [false, true] {
        let (mut client, server) = relay.connect(MODERN, MODERN);
        client.send_until_it_blocks(MOST, false);
        if shut {
            client.shut_down();
        }
        kept.push((client, server));
    }
    let (client, server) = relay.connect(MODERN, MODERN);
    client.shut_down();
    kept.push((client, server));
    let (mut client, _stays) = relay.connect(MODERN, MODERN);
    client.send_until_it_blocks(MOST, false);
    drop(client);
    let (client, server) = &mut kept[0];
    exchange(client, server, 6);

    expect_sleep(&relay.program);
}

#[test]
fn a_message_is_shown_as_it_was_received() {
    let names = concat!(env!("CARGO_MANIFEST_DIR"), "/../imsg-os/tools/tmux.names");
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a \"file\"\x1b[31m é\u{202e}\u{e0001}");
    fs::write(&path, b"").unwrap();
    let target =
        format!("\"{}/a \\\"file\\\"\\u001b[31m é\\u202e\\udb40\\udc01\"", place.path().display());
    let header = Header { msg_type: 104, id: 8, pid: 0 };
    let object = format!(
        "\"connection\":1,\"direction\":\"to server\",\"dialect\":\"modern\",\"type\":104,\"id\":8,\
         \"pid\":0,\"len\":19,\"fd\":true,\"target\":{target},\"payload\":\"616207\"}}"
    );
    let line = format!(
        "1 to server  modern   type 104 MSG_IDENTIFY_STDIN  id 8  pid 0  payload 3  fd {target}"
    );
    let row = "            0000  61 62 07                                         |ab.|";
    let plain = "1 to client  classic  type 9  id 0  pid 0  payload 0";
    for (option, due) in [
        ("--names", vec![line.as_str(), plain]),
        ("--hex", vec![&line, row, plain]),
        ("--json", vec![&object]),
        ("--quiet", vec![]),
    ] {
        let mut arguments = vec!["--connect-dialect", "classic", "--names", names];
        if option != "--names" {
            arguments.push(option);
        }
        let relay = Relay::start(&arguments);
        let (mut client, mut server) = relay.connect(MODERN, CLASSIC);
        client
            .channel
            .tx
            .compose(header, b"ab\x07", Some(File::open(&path).unwrap().into()))
            .unwrap();
        client.flush();
        assert_eq!(server.receive().unwrap().payload, b"ab\x07");
        server.send(Header::new(9), b"", None);
        client.expect(Header::new(9), b"", None);
        drop((client, server));
        let messages = relay.program.stop(Signal::SIGTERM).messages;
        if option == "--json" {
            let objects = messages.iter().map(|line| serde_json::from_str(line).unwrap());
            let objects: Vec<serde_json::Value> = objects.collect();
            assert_eq!(objects[0]["target"], path.to_str().unwrap());
            assert_eq!(objects[1]["direction"], "to client");
        }
        for (message, due) in messages.iter().zip(&due) {
            assert!(message.ends_with(due), "{option}: {message}");
        }
        assert!(option == "--json" || messages.len() == due.len(), "{messages:?}");
    }
}

#[test]
fn connections_go_on_when_nobody_reads_the_messages() {
    let (read, write) = io::pipe().unwrap();
    drop(read);
    let relay = Relay::start_as(&["--connect-dialect", "modern"], Some(write.into()), as_it_is);
    let (mut client, mut server) = relay.connect(MODERN, MODERN);
    for n in 0..10 {
        exchange(&mut client, &mut server, n);
    }
    drop((client, server));
    assert_eq!(
        relay.finish(),
        ["imsg relay: messages are not printed any more: Broken pipe (os error 32)"]
    );
}

// Peers that the tests play.

/// A client or a server, which waits for nothing for ever.
struct Peer {
    channel: Channel<Any>,
}

struct Got {
    header: Header,
    payload: Vec<u8>,
    /// What the descriptor says.
    number: Option<u32>,
}

impl Peer {
    fn new(socket: UnixStream, dialect: Any) -> Self {
        socket.set_nonblocking(true).unwrap();
        let buffer = || Pages::new(300_000).expect("memory");
        let mut channel = Channel::with_storage(socket, dialect, buffer(), buffer()).unwrap();
        let most = dialect.max_len().min(150_000);
        channel.rx.set_max_len(most).unwrap();
        channel.tx.set_max_len(most).unwrap();
        channel.rx.allow_descriptors();
        // A pid of 0 is to be passed on, too.
        channel.tx.set_pid(0);
        Self { channel }
    }

    fn into_socket(self) -> UnixStream {
        let socket = UnixStream::from(OwnedFd::try_from(self.channel).unwrap());
        socket.set_nonblocking(false).unwrap();
        socket
    }

    fn send(&mut self, header: Header, payload: &[u8], number: Option<u32>) {
        self.channel.tx.compose_parts(header, &[payload], number.map(numbered)).unwrap();
        self.flush();
    }

    fn flush(&mut self) {
        self.try_flush().unwrap();
    }

    fn try_flush(&mut self) -> io::Result<()> {
        while self.channel.tx.write()? == WriteOutcome::WouldBlock {
            until_ready(&self.channel, PollFlags::POLLOUT);
        }
        Ok(())
    }

    /// Sends messages of types from `next` on, and returns the type of the next one. The last of
    /// them are queued.
    fn send_more_until_it_blocks(&mut self, mut next: u32, len: usize, descriptors: bool) -> u32 {
        let tx = &mut self.channel.tx;
        loop {
            while tx.has_room(len, descriptors).is_ok() {
                let descriptor = descriptors.then(|| numbered(next));
                tx.compose(Header::new(next), &noise()[..len], descriptor).unwrap();
                next += 1;
            }
            if tx.write().unwrap() == WriteOutcome::WouldBlock {
                return next;
            }
        }
    }

    /// The same, and returns how many were sent, not only queued.
    fn send_until_it_blocks(&mut self, len: usize, descriptors: bool) -> u32 {
        let next = self.send_more_until_it_blocks(0, len, descriptors);
        next - u32::try_from(self.channel.tx.queue_len()).unwrap()
    }

    /// How much memory of the system has what was sent, and not read yet.
    fn unread(&self) -> c_int {
        let mut bytes = 0;
        // SAFETY: the pointer is that of an integer, for which the call has a value.
        let result = unsafe { libc::ioctl(self.channel.as_raw_fd(), TIOCOUTQ, &raw mut bytes) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        bytes
    }

    fn shut_down(&self) {
        shutdown(self.channel.as_raw_fd(), Shutdown::Write).unwrap();
    }

    /// Whether the other side says that it takes no more.
    fn write_fails(&mut self) -> bool {
        self.channel.tx.compose(Header::new(0), b"", None).unwrap();
        self.channel.tx.write().is_err()
    }

    /// The next message; none when there will be no more.
    fn receive(&mut self) -> Option<Got> {
        let rx = &mut self.channel.rx;
        while !rx.is_ready() {
            match rx.read() {
                Ok(ReadOutcome::Data) => {}
                Ok(ReadOutcome::WouldBlock) => _ = until_ready(rx, PollFlags::POLLIN),
                Ok(ReadOutcome::Closed) => break,
                Err(RecvError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => panic!("{error}"),
            }
        }
        let message = rx.next_message().unwrap()?;
        let number = match message.descriptor {
            Descriptor::None => None,
            Descriptor::Here(pipe) => {
                // Something else has none.
                let mut number = [0xff; 4];
                let _ = File::from(pipe).read_exact(&mut number);
                Some(u32::from_ne_bytes(number))
            }
            Descriptor::Missing(why) => panic!("{:?}: {why:?}", message.header),
        };
        Some(Got { header: message.header, payload: message.payload.to_vec(), number })
    }

    #[track_caller]
    fn expect(&mut self, header: Header, payload: &[u8], number: Option<u32>) {
        let got = self.receive().expect("a message");
        assert_eq!((got.header, got.number), (header, number));
        assert!(got.payload == payload, "{header:?}");
    }

    #[track_caller]
    fn expect_end(&mut self) {
        let got = self.receive().map(|got| got.header);
        assert_eq!(got, None);
    }

    /// Answers a message with the same; false when there is no more.
    fn echo(&mut self) -> bool {
        let Some(got) = self.receive() else { return false };
        let descriptor = got.number.map(numbered);
        self.channel.tx.compose_parts(got.header, &[&got.payload], descriptor).unwrap();
        self.try_flush().is_ok()
    }
}

/// How many bytes are in a pipe.
fn queued(pipe: &impl AsRawFd) -> c_int {
    let mut bytes = 0;
    // SAFETY: the pointer is that of an integer, for which the call has a value.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    bytes
}

/// Sends until nothing more is taken, while others go on. Returns the type after that of the last
/// message.
fn fill(from: &mut Peer, len: usize, descriptors: bool, others: &mut (Peer, Peer)) -> u32 {
    let (mut sent, mut before) = (0, None);
    loop {
        sent = from.send_more_until_it_blocks(sent, len, descriptors);
        let now = Some((sent, from.unread()));
        if now == before {
            return sent;
        }
        before = now;
        let bytes = sent as usize * (HEADER_LEN + len);
        assert!(bytes < 2 << 20 && sent < 4000, "the relay reads on");
        // While the relay does this, it has a turn at all else that it can do.
        exchange(&mut others.0, &mut others.1, 6);
    }
}

/// Checks that a relay uses next to no processor time while another one uses a lot.
fn expect_sleep(program: &Program) {
    let busy = Relay::start(&["--connect-dialect", "modern", "--quiet"]);
    let (mut client, mut server) = busy.connect(MODERN, MODERN);
    let before = (program.process().ticks(), busy.program.process().ticks());
    // It has the processor as often as one that spins would have it.
    while busy.program.process().ticks() < before.1 + 20 {
        exchange(&mut client, &mut server, 6);
    }
    let ticks = program.process().ticks() - before.0;
    assert!(ticks <= 4, "{ticks}");
}

/// Sends a message, which depends on `n`, and receives it. There is a descriptor with every third.
fn exchange(from: &mut Peer, to: &mut Peer, n: u32) {
    let header = Header { msg_type: n, id: n.wrapping_mul(0x1234_5678), pid: n % 3 };
    let len = [0, 1, 100, 3000, MOST][n as usize % 5];
    let payload = &noise()[n as usize..][..len];
    let number = n.is_multiple_of(3).then_some(n);
    thread::scope(|scope| {
        scope.spawn(|| from.send(header, payload, number));
        to.expect(header, payload, number);
    });
}

fn round_trip(client: &mut Peer, rng: &mut Rng) {
    let header = Header { id: rng.number() as u32, ..Header::new(rng.number() as u32) };
    let len = if rng.one_in(4) { rng.size_below(MOST + 1) } else { rng.size_below(300) };
    let number = rng.one_in(3).then_some(header.msg_type);
    client.send(header, &noise()[..len], number);
    client.expect(header, &noise()[..len], number);
}

fn leave(mut client: Peer, rng: &mut Rng) {
    match rng.below(4) {
        0 => {}
        1 => client.into_socket().write_all(&[0; 5]).unwrap(),
        // With the answer on its way.
        2 => client.send(Header::new(2), b"", Some(2)),
        _ => {
            client.send(Header::new(3), b"", Some(3));
            client.shut_down();
            client.expect(Header::new(3), b"", Some(3));
            client.expect_end();
        }
    }
}

/// What a peer must not do.
struct Case {
    what: &'static str,
    /// Bytes, and the numbers of the descriptors beside them.
    sends: Vec<(Vec<u8>, Vec<u32>)>,
    hangs_up: bool,
    /// What is to be said of it.
    due: &'static str,
}

fn hostile(dialect: Any) -> Vec<Case> {
    let message = |msg_type, len, marked| {
        let header = Header::new(msg_type);
        dialect.encode(&Frame { header, len, marked }).to_vec()
    };
    let plain = |msg_type| message(msg_type, HEADER_LEN, false);
    let marked = |msg_type| message(msg_type, HEADER_LEN, true);
    let case = |what, sends, due| Case { what, sends, hangs_up: false, due };
    let ends = |what, sends, due| Case { what, sends, hangs_up: true, due };
    let (length, cut) = ("is out of range", "the stream ended inside the message");
    let (unclaimed, several) = ("message claims", "several descriptors came at once");
    let mut cases = vec![
        case("a length of 0", vec![(message(1, 0, false), vec![])], length),
        case("a length of 15", vec![(plain(1), vec![]), (message(2, 15, true), vec![2])], length),
        case("garbage", vec![(vec![0xff; 0x10000], vec![])], length),
        ends("a part of a header", vec![(plain(1)[..7].to_vec(), vec![])], cut),
        ends("a part of a message", vec![(message(1, 100, false), vec![])], cut),
        ends("a part of one with a descriptor", vec![(message(1, 100, true), vec![1])], cut),
        case("a mark without a descriptor", vec![(marked(1), vec![])], "without its descriptor"),
        case("two descriptors at once", vec![(marked(1), vec![1, 1])], several),
        case("a hundred at once", vec![(marked(1), vec![1; 100])], several),
        case("500 without a mark", (0..500).map(|n| (plain(n), vec![n])).collect(), unclaimed),
        ends(
            "a descriptor in the middle",
            vec![(plain(1)[..9].to_vec(), vec![]), (plain(1)[9..].to_vec(), vec![1])],
            unclaimed,
        ),
    ];
    if dialect == MODERN {
        // What a classic peer of the older generation does looks the same.
        cases.push(case(
            "one without a mark, then another one",
            vec![(plain(1), vec![1]), (marked(2), vec![2])],
            unclaimed,
        ));
        cases.push(case(
            "two marks and one descriptor",
            vec![([marked(1), marked(2)].concat(), vec![1])],
            "came with more than one marked message",
        ));
    }
    cases
}

/// Sends all of `bytes` with the descriptors beside them, in any way that the kernel allows.
fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> nix::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights };
    let iov = [IoSlice::new(bytes)];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None)?;
    assert_eq!(sent, bytes.len(), "the kernel took a part of it");
    Ok(())
}

/// A descriptor that can be told from others: a pipe with a number in it.
fn numbered(number: u32) -> OwnedFd {
    let (read, mut write) = io::pipe().unwrap();
    write.write_all(&number.to_ne_bytes()).unwrap();
    read.into()
}

/// All payloads are parts of this.
fn noise() -> &'static [u8] {
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| Rng::of(&[1]).bytes(200_000));
    &NOISE
}

// The program.

/// How the relay is told to listen, what its clients speak, and how it is told to connect.
#[derive(Clone, Copy, Debug)]
struct Ways(&'static str, Any, &'static str);

impl Ways {
    fn all() -> impl Iterator<Item = Self> {
        [("auto", CLASSIC), ("auto", MODERN), ("classic", CLASSIC), ("modern", MODERN)]
            .into_iter()
            .flat_map(|(listen, client)| {
                ["classic", "modern"].map(|connect| Self(listen, client, connect))
            })
    }

    fn arguments(self) -> [&'static str; 4] {
        ["--listen-dialect", self.0, "--connect-dialect", self.2]
    }

    fn server(self) -> Any {
        if self.2 == "classic" { CLASSIC } else { MODERN }
    }
}

/// A relay to a server that the test plays.
struct Relay {
    program: Program,
    server: UnixListener,
}

impl Relay {
    fn start(arguments: &[&str]) -> Self {
        Self::start_as(arguments, None, as_it_is)
    }

    /// Starts it with this as its standard output, by its command as `adapt` changes it, given the
    /// directory of its sockets.
    fn start_as(
        arguments: &[&str],
        output: Option<Stdio>,
        adapt: impl FnOnce(&mut Command, &Path),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_owned();
        let connect = place.join("server");
        let server = UnixListener::bind(&connect).unwrap();
        let program = thread::scope(|scope| {
            if arguments.contains(&"tmux") {
                // It is asked for its dialect, and answers as a classic one.
                scope.spawn(|| {
                    let mut probed = accept(&server, CLASSIC);
                    assert_eq!(probed.receive().unwrap().header.msg_type, 104);
                    probed.send(Header::new(12), b"", None);
                });
            }
            Program::run(directory, &connect, output, |listen| {
                let mut command = command(listen, &connect, arguments);
                adapt(&mut command, &place);
                command
            })
        });
        Self { program, server }
    }

    /// A client, and the server's end of the connection that is made for it.
    fn connect(&self, client: Any, server: Any) -> (Peer, Peer) {
        (self.connect_client(client), self.accept(server))
    }

    fn pair(&self, ways: Ways) -> (Peer, Peer) {
        self.connect(ways.1, ways.server())
    }

    fn connect_client(&self, dialect: Any) -> Peer {
        connect(&self.program.listen, dialect)
    }

    fn accept(&self, dialect: Any) -> Peer {
        accept(&self.server, dialect)
    }

    fn finish(self) -> Vec<String> {
        self.program.finish()
    }
}

fn connect(path: &Path, dialect: Any) -> Peer {
    Peer::new(UnixStream::connect(path).unwrap(), dialect)
}

fn accept(server: &UnixListener, dialect: Any) -> Peer {
    until_ready(server, PollFlags::POLLIN);
    Peer::new(server.accept().unwrap().0, dialect)
}

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| examples::imsg(env!("CARGO_TARGET_TMPDIR")));

fn command(listen: &Path, connect: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(&*PROGRAM);
    command.arg("relay").arg("--listen").arg(listen).arg("--connect").arg(connect).args(arguments);
    if !arguments.contains(&"--patience") {
        // Longer than any test is to take.
        command.args(["--patience", "600"]);
    }
    command
}

fn as_it_is(_: &mut Command, _: &Path) {}

/// Limits the number of its descriptors.
fn limit(command: &mut Command, most: usize) {
    process::limit(command, Resource::RLIMIT_NOFILE, most as rlim_t);
}

/// The relay while it runs.
struct Program {
    running: Running,
    listen: PathBuf,
    connect: PathBuf,
    directory: TempDir,
}

/// What it said until it ended.
struct Report {
    status: ExitStatus,
    messages: Vec<String>,
    complaints: Vec<String>,
    /// Whether there is a socket, or another file, where it listened.
    leaves_socket: bool,
}

impl Program {
    fn start(connect: &Path, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::run(directory, connect, None, |listen| command(listen, connect, arguments))
    }

    fn run(
        directory: TempDir,
        connect: &Path,
        output: Option<Stdio>,
        command: impl FnOnce(&Path) -> Command,
    ) -> Self {
        let listen = directory.path().join("relay-socket");
        let file = |name| Stdio::from(File::create(directory.path().join(name)).unwrap());
        let mut command = command(&listen);
        command
            .stdin(Stdio::null())
            .stdout(output.unwrap_or_else(|| file("messages")))
            .stderr(file("complaints"));
        let running = Running::start(&mut command);
        let program = Self { running, listen, connect: connect.to_owned(), directory };
        let due = format!("imsg relay: listening on {}", program.listen.display());
        until("it listens", || program.lines("complaints").contains(&due));
        program
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join(file)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn messages(&self) -> Vec<String> {
        self.lines("messages")
    }

    fn complaints(&self) -> Vec<String> {
        let mut lines = self.lines("complaints");
        lines.retain(|line| !line.contains("listening on") && !line.contains("a probe found"));
        lines
    }

    fn until_complaints(&self, number: usize) {
        until("it complains", || self.complaints().len() >= number);
    }

    fn process(&self) -> Process {
        self.running.process()
    }

    fn descriptors(&self) -> usize {
        self.process().descriptors()
    }

    fn until_descriptors(&self, number: usize) {
        until(&format!("it has {number} descriptors"), || self.descriptors() == number);
    }

    /// The limit for as many descriptors as it has, and some more. Those that it inherited may have
    /// any number.
    fn limit_with_room_for(&self, more: usize) -> usize {
        let used = |number: &usize| self.process().file(&format!("fd/{number}")).exists();
        (0..).filter(|number| !used(number)).nth(more).unwrap()
    }

    /// The most memory that it ever had, in KiB.
    fn most_memory(&self) -> usize {
        self.process().memory("VmHWM").unwrap()
    }

    /// Ends it by a signal.
    fn stop(mut self, signal: Signal) -> Report {
        self.process().signal(signal);
        let status = self.running.until_it_ends();
        let messages = self.directory.path().join("messages");
        let messages = if messages.exists() { self.messages() } else { Vec::new() };
        Report {
            status,
            messages,
            complaints: self.complaints(),
            leaves_socket: self.listen.exists(),
        }
    }

    /// Ends it as it is meant to be ended, and returns what it complained of.
    fn finish(self) -> Vec<String> {
        let report = self.stop(Signal::SIGTERM);
        assert!(report.status.success(), "{:?}", report.complaints);
        assert!(!report.leaves_socket);
        report.complaints
    }
}

/// From a classic client to a modern server, which is a relay to a classic one.
struct Chain {
    classic_to_modern: Program,
    modern_to_classic: Program,
}

impl Chain {
    fn start(server: &Tmux) -> Self {
        let arguments = ["--listen-dialect", "modern", "--connect-dialect", "tmux"];
        let modern_to_classic = Program::start(&server.socket, &arguments);
        let arguments = ["--connect-dialect", "modern"];
        let classic_to_modern = Program::start(&modern_to_classic.listen, &arguments);
        Self { classic_to_modern, modern_to_classic }
    }

    fn finish(self) {
        assert_eq!(self.classic_to_modern.finish(), [""; 0]);
        assert_eq!(self.modern_to_classic.finish(), [""; 0]);
    }
}

// The tmux that is installed.

/// A terminal: another tmux, whose screen can be looked at.
struct Terminal(Tmux);

impl Terminal {
    /// One in which a client is attached through a relay.
    fn attach(relay: &Program) -> Self {
        let listen = relay.listen.display();
        let attach = format!("env -u TMUX tmux -u -f /dev/null -S {listen} attach");
        let command = format!("{attach}; echo the client has ended; exec cat");
        Self(Tmux::start(&command).expect("there is a tmux"))
    }

    fn types(&self, keys: &[&str]) {
        self.0.output_of(["send-keys", "-t", "first"].iter().chain(keys));
    }

    fn screen(&self) -> String {
        self.0.output_of(["capture-pane", "-p", "-t", "first"])
    }

    fn until_shown(&self, text: &str) {
        until(&format!("{text:?} is shown"), || self.screen().contains(text));
    }
}

fn attach_and_type(server: &Tmux, relay: &Program) {
    let baseline = relay.descriptors();
    let terminal = Terminal::attach(relay);
    terminal.until_shown("[first]");
    terminal.types(&["typed by hand", "Enter"]);
    // Once as it is typed, and once by the program in the session.
    until("the output is shown", || terminal.screen().matches("typed by hand").count() == 2);
    assert!(server.output_of(["capture-pane", "-p", "-t", "first"]).contains("typed by hand"));
    terminal.types(&["C-b", "d"]);
    terminal.until_shown("the client has ended");
    relay.until_descriptors(baseline);
}

/// Loads a buffer into the server, and saves it again.
fn load_and_save(relay: &Program, len: usize) {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    let data = Rng::of(&[2]).bytes(len);
    fs::write(&from, &data).unwrap();
    let mut load = tmux::client(&relay.listen);
    load.args(["load-buffer", "-"]).stdin(File::open(&from).unwrap());
    assert!(load.status().unwrap().success());
    let mut save = tmux::client(&relay.listen);
    save.args(["save-buffer", "-"]).stdout(File::create(&to).unwrap());
    assert!(save.status().unwrap().success());
    assert!(fs::read(&to).unwrap() == data);
    let memory = relay.most_memory();
    assert!(memory < MEMORY, "{memory} KiB");
}
