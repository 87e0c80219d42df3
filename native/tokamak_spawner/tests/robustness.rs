// SPDX-License-Identifier: Apache-2.0
//! The spawner survives what its system and its children do, and ends cleanly on what no client sends.
#![cfg(target_os = "linux")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::{Resource, Rlimit, getpgid, prlimit};

use support::{DEADLINE, Spawner, is_alive, program, shell, wait_until, without_stdin};
use tokamak_spawner::client::{Connection, Event, SendError, StartError};
use tokamak_spawner::packet::{self, MAX_PACKET};
use tokamak_spawner::protocol::{
    Base, ExitStatus, HEAD, Output, Reply, Request, StartRequest, VERSION,
};

/// A spawner without the client that sends no nonsense.
struct Raw {
    socket: OwnedFd,
    process: Child,
}

impl Raw {
    fn start() -> Self {
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let process = Command::new(program())
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        let raw = Self { socket, process };
        assert!(matches!(
            raw.reply(),
            Some(Reply::Hello {
                version: VERSION,
                ..
            })
        ));
        raw
    }

    /// The next reply; `None` when the spawner has closed.
    fn reply(&self) -> Option<Reply> {
        let mut buffer = [0; MAX_PACKET];
        loop {
            match packet::receive(&self.socket, &mut buffer) {
                Err(Errno::AGAIN) => {
                    let mut wanted = [PollFd::new(&self.socket, PollFlags::IN)];
                    assert_eq!(
                        poll(&mut wanted, Some(&DEADLINE.try_into().unwrap())),
                        Ok(1)
                    );
                }
                Err(Errno::CONNRESET) => return None,
                Ok(packet) if packet.bytes.is_empty() => return None,
                Ok(packet) => return Some(Reply::decode(packet.bytes).unwrap()),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn request(&self, request: Request) {
        packet::send_request(&self.socket, &request.encode()).unwrap();
    }

    /// Closes the connection and waits for the spawner's end.
    fn hang_up(self, what: &str) {
        let Self {
            socket,
            mut process,
        } = self;
        drop(socket);
        wait_until(what, DEADLINE, || process.try_wait().unwrap().is_some());
    }

    /// Expects the spawner to end its child and itself.
    fn expect_end(mut self, what: &str) {
        while self.reply().is_some() {}
        wait_until(what, DEADLINE, || {
            self.process.try_wait().unwrap().is_some()
        });
    }
}

#[test]
fn what_is_no_request_ends_the_spawner_and_its_children() {
    let start = Request::Start(shell(1, "exec sleep 1000")).encode();
    let nonsense: [&[u8]; 8] = [
        &[255],
        &[0],
        &[&[0], &start[..HEAD - 1]].concat(),
        &[&[0], &start[..HEAD + 1]].concat(),
        &[1, 2, 3],
        &start[..start.len() - 1],
        &[&start[..], &[0]].concat(),
        &start,
    ];
    for bytes in nonsense {
        let raw = Raw::start();
        raw.request(Request::Start(shell(1, "exec sleep 1000")));
        let Some(Reply::Started { pid, .. }) = raw.reply() else {
            panic!("not started")
        };
        packet::send(&raw.socket, bytes, &[]).unwrap();
        raw.expect_end("the end after nonsense");
        assert!(!is_alive(support::pid(pid)));
    }
}

/// A request in which some bytes are others, or that is cut, comes between two good ones.
#[test]
fn a_damaged_request_is_answered_or_ends_the_spawner_and_its_children() {
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let cut = prop::option::of(any::<prop::sample::Index>());
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(32)
    };
    proptest!(config, |(damage in damage, cut in cut)| {
        let mut bytes = Request::Start(without_stdin(2, &["sleep", "1000"])).encode();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        let raw = Raw::start();
        raw.request(Request::Start(shell(1, "exec sleep 1000")));
        let Some(Reply::Started { pid, .. }) = raw.reply() else {
            panic!("not started")
        };
        packet::send(&raw.socket, &bytes, &[]).unwrap();
        let last = Request::Start(without_stdin(3, &["true"])).encode();
        // Refused where the damage has ended it.
        let _ = packet::send_request(&raw.socket, &last);
        while raw.reply().is_some_and(|reply| !matches!(reply, Reply::Exited { id: 3, .. })) {}
        raw.hang_up("the end after damage");
        prop_assert!(!is_alive(support::pid(pid)));
    });
}

#[test]
fn a_packet_longer_than_any_request_ends_the_spawner() {
    let raw = Raw::start();
    send(&raw.socket, &[1; MAX_PACKET + 1], SendFlags::empty()).unwrap();
    raw.expect_end("the end after a long packet");
}

#[test]
fn a_request_whose_file_is_missing_or_useless_fails() {
    let raw = Raw::start();
    let in_file = |id: u64| {
        let start = Request::Start(without_stdin(id, &["true"])).encode();
        [&[0], &start[..HEAD]].concat()
    };
    packet::send(&raw.socket, &in_file(1), &[]).unwrap();
    let errno = Errno::MFILE.raw_os_error();
    assert_eq!(raw.reply(), Some(Reply::StartFailed { id: 1, errno }));
    let directory = File::open("/").unwrap();
    packet::send(&raw.socket, &in_file(2), &[directory.as_fd()]).unwrap();
    let errno = Errno::ISDIR.raw_os_error();
    assert_eq!(raw.reply(), Some(Reply::StartFailed { id: 2, errno }));
    let huge = File::from(memfd_create("huge", MemfdFlags::CLOEXEC).unwrap());
    huge.set_len(1 << 40).unwrap();
    packet::send(&raw.socket, &in_file(3), &[huge.as_fd()]).unwrap();
    let errno = Errno::TOOBIG.raw_os_error();
    assert_eq!(raw.reply(), Some(Reply::StartFailed { id: 3, errno }));
    let mut nonsense = File::from(memfd_create("nonsense", MemfdFlags::CLOEXEC).unwrap());
    nonsense.write_all(b"nonsense").unwrap();
    packet::send(&raw.socket, &in_file(4), &[nonsense.as_fd()]).unwrap();
    raw.expect_end("the end after a file of nonsense");
}

#[test]
fn a_program_that_is_no_spawner_is_told_and_ended() {
    let start = |path: &str| Connection::start(path.as_ref(), DEADLINE);
    assert_eq!(
        start("/no/such/program").unwrap_err().to_string(),
        "cannot run the spawner: No such file or directory (os error 2)"
    );
    assert_eq!(
        start("/bin/true").unwrap_err().to_string(),
        "the program is not a working spawner"
    );
    let timeout = Duration::from_millis(50);
    let silent = Connection::start("/usr/bin/yes".as_ref(), timeout);
    assert_eq!(
        silent.unwrap_err().to_string(),
        "the spawner did not answer in time"
    );
}

/// A program that does something before it becomes the spawner.
fn wrapper(name: &str, script: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(
        &path,
        format!("#!/bin/sh\n{script} '{}'\n", program().display()),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

#[test]
fn a_spawner_of_another_version_is_told() {
    let path = wrapper(
        "version_99",
        r"printf '\001\143\000\000\000\001\000\000\000' >&0; exec sleep 1000",
    );
    let error = Connection::start(&path, DEADLINE).unwrap_err();
    assert!(matches!(error, StartError::Version(99)), "{error}");
}

#[test]
fn where_children_cannot_be_marked_groups_and_the_end_still_work() {
    let path = wrapper("unmarked", "exec prlimit --locks=1000:1000");
    let mut spawner = Spawner::start_program(&path);
    let command =
        "(setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' &); sleep 1000 & echo $!; wait";
    let processes = spawner.shell_pids(shell(1, command), 2);
    let (daemon, in_group): (Vec<_>, Vec<_>) = processes
        .into_iter()
        .partition(|pid| getpgid(Some(*pid)) == Ok(*pid));
    assert_eq!((daemon.len(), in_group.len()), (1, 1));
    spawner.send(Request::Stop {
        id: 1,
        kill_timeout: 5000,
    });
    assert_eq!(spawner.status(1), ExitStatus::Signal(15));
    assert!(spawner.is_gone(1));
    wait_until("the group ended", DEADLINE, || !is_alive(in_group[0]));
    assert!(is_alive(daemon[0]));
    assert_eq!(spawner.finish(), 0);
    assert!(!is_alive(daemon[0]));
}

#[test]
fn a_spawner_started_by_hand_says_so() {
    let output = Command::new(program())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("started by tokamak only")
    );
}

#[test]
fn without_descriptors_starts_fail_and_nothing_is_lost() {
    let mut spawner = Spawner::start();
    let sleep = without_stdin(1, &["sleep", "1000"]);
    spawner.started(StartRequest {
        stdout: Output::Null,
        stderr: Output::Null,
        ..sleep
    });
    let before = spawner.descriptors();
    let limit = |current| spawner.limit_descriptors(current);
    let usual = spawner.without_descriptors();
    // With each further descriptor the start fails at another step, and then works.
    for more in 0..8 {
        limit(Some((before + more) as u64));
        let id = 2 + more as u64;
        spawner
            .connection
            .send(
                &Request::Start(StartRequest::new(id, vec!["true".into()])),
                DEADLINE,
            )
            .unwrap();
        match spawner.connection.recv(DEADLINE).unwrap() {
            Some(Event::StartFailed { errno, .. }) => {
                assert_eq!(tokamak_spawner::errno::name(errno), "emfile");
                assert!(more < 6, "{more} more descriptors");
            }
            Some(Event::Started { pipes, .. }) => {
                assert!(more >= 6, "{more} more descriptors");
                drop(pipes);
                let exit = spawner.connection.recv(DEADLINE).unwrap();
                assert!(matches!(exit, Some(Event::Exited { .. })), "{exit:?}");
            }
            event => panic!("{event:?}"),
        }
        assert_eq!(spawner.descriptors(), before);
    }
    // A request in a file needs a descriptor too; and stopping needs none.
    limit(Some(before as u64));
    let long = without_stdin(20, &["true", &"a".repeat(MAX_PACKET)]);
    spawner
        .connection
        .send(&Request::Start(long), DEADLINE)
        .unwrap();
    let event = loop {
        match spawner.connection.recv(DEADLINE).unwrap().unwrap() {
            Event::Gone { .. } => {}
            event => break event,
        }
    };
    assert!(
        matches!(event, Event::StartFailed { id: 20, errno } if errno == libc::EMFILE),
        "{event:?}"
    );
    limit(usual);
    assert_eq!(spawner.shell(21, "exit 3").status, ExitStatus::Code(3));
    assert_eq!(spawner.finish(), 0);
}

/// Starts that are on their way when an environment cannot be read, long ones and further environments among them.
#[test]
fn starts_from_an_environment_that_could_not_be_read_fail_with_its_error() {
    let mut spawner = Spawner::start();
    let environment = |id, letter: &str| Request::Environment {
        id,
        variables: vec![format!("A={}", letter.repeat(MAX_PACKET)).into()],
    };
    let start = |id, base, argument: &str| StartRequest {
        base: Base::Kept(base),
        ..without_stdin(id, &["/bin/sh", "-c", "printf %.1s $A", argument])
    };
    let long = "a".repeat(MAX_PACKET);
    spawner.send(environment(1, "a"));
    assert_eq!(spawner.run(start(2, 1, "")).stdout, "a");
    let usual = spawner.without_descriptors();
    for id in [3, 4] {
        spawner.send(environment(id, "b"));
        assert_eq!(spawner.failure(id), "emfile");
    }
    assert_eq!(spawner.start_error(start(5, 4, &long)), "emfile");
    spawner.limit_descriptors(usual);
    // The error of the environment, whatever could not be read after it.
    assert_eq!(spawner.start_error(start(6, 4, "")), "emfile");
    assert_eq!(spawner.start_error(start(7, 4, &long)), "emfile");
    // It has replaced those before it.
    assert_eq!(spawner.start_error(start(8, 3, "")), "enomem");
    assert_eq!(spawner.start_error(start(9, 1, "")), "enomem");
    spawner.send(environment(10, "c"));
    assert_eq!(spawner.run(start(11, 10, &long)).stdout, "c");
    assert_eq!(spawner.finish(), 0);
}

#[test]
fn a_daemon_can_be_ended_without_descriptors() {
    let mut spawner = Spawner::start();
    let command = "(setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' &); exec sleep 1000";
    let daemon = spawner.shell_pids(shell(1, command), 1)[0];
    let limit = Rlimit {
        current: Some(3),
        maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
    };
    prlimit(Some(spawner.pid()), Resource::Nofile, limit).unwrap();
    spawner.send(Request::Stop {
        id: 1,
        kill_timeout: 5000,
    });
    spawner.gone(1);
    assert!(!is_alive(daemon));
}

#[test]
fn a_client_that_does_not_receive_loses_nothing() {
    let spawner = Spawner::start();
    // Starts until the spawner takes no more, as nobody takes its events.
    let mut sent = 0;
    let mut full_since = None;
    while full_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(300)) {
        match spawner
            .connection
            .try_send(&Request::Start(without_stdin(sent + 1, &["true"])))
        {
            Ok(()) => (sent, full_since) = (sent + 1, None),
            Err(SendError::Full) => {
                full_since.get_or_insert_with(Instant::now);
                thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
    let (mut started, mut exited, mut gone) = (0, 0, 0);
    while gone < sent {
        match spawner
            .connection
            .recv(DEADLINE)
            .unwrap()
            .expect("an event in time")
        {
            Event::Started { id, .. } => {
                started += 1;
                assert_eq!(id, started, "starts are answered in order");
            }
            Event::Exited {
                status, all_gone, ..
            } => {
                // Its output has nowhere to go, but it has none.
                assert_eq!(status, ExitStatus::Code(0));
                exited += 1;
                gone += u64::from(all_gone);
            }
            Event::Gone { .. } => gone += 1,
            event => panic!("{event:?}"),
        }
    }
    assert_eq!((started, exited), (sent, sent));
}

#[test]
fn an_idle_spawner_does_not_wake() {
    let mut spawner = Spawner::start();
    for id in 1..=5 {
        spawner.started(without_stdin(id, &["sleep", "1000"]));
    }
    // An exited child with a daemon is not looked at again and again.
    let command = "(setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' &); exit 0";
    spawner.shell_pids(shell(6, command), 1);
    spawner.status(6);
    let switches = || {
        let count = |field| {
            support::status_field(spawner.pid(), field)
                .parse::<u64>()
                .unwrap()
        };
        (
            count("voluntary_ctxt_switches"),
            count("nonvoluntary_ctxt_switches"),
        )
    };
    // The look after the exit comes within the distance that looks keep.
    let mut last = switches();
    wait_until("a second without a wake", DEADLINE, || {
        thread::sleep(Duration::from_secs(1));
        let before = std::mem::replace(&mut last, switches());
        before == last
    });
    thread::sleep(Duration::from_secs(3));
    assert_eq!(switches(), last);
}
