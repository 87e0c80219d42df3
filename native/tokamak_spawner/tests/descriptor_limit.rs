// SPDX-License-Identifier: Apache-2.0
//! A client without room for a child's pipes. Alone in its process, whose limit it lowers.
#![cfg(target_os = "linux")]

mod support;

use std::fs::{self, File};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use support::{DEADLINE, Spawner, is_alive, wait_until, without_stdin};
use tokamak_spawner::client::Event;
use tokamak_spawner::processes::{ProcessList, ProcessState};
use tokamak_spawner::protocol::{ExitStatus, Request, StartRequest};

#[test]
fn a_child_whose_pipes_find_no_room_fails_and_is_ended() {
    let mut spawner = Spawner::start();
    let mut processes = ProcessList::open().unwrap();
    let own = spawner.connection.spawner_pid() as i32;
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let maximum = getrlimit(Resource::Nofile).maximum;
    let usual = getrlimit(Resource::Nofile);
    let mut fill: Vec<File> = Vec::new();
    // Up to the highest number in use, all numbers are taken; above it there is room for `room`.
    let highest = loop {
        let file = File::open("/dev/null").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file) as u64;
        fill.push(file);
        if open() as u64 > number {
            break number;
        }
    };
    for room in 0..3 {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(highest + 1 + room),
                maximum,
            },
        )
        .unwrap();
        let id = room + 1;
        let sleep = StartRequest::new(id, vec!["sleep".into(), "1000".into()]);
        spawner
            .connection
            .send(&Request::Start(sleep), DEADLINE)
            .unwrap();
        match spawner.connection.recv(DEADLINE).unwrap() {
            Some(Event::StartFailed {
                id: failed,
                errno: libc::EMFILE,
            }) => assert_eq!(failed, id),
            event => panic!("{event:?}"),
        }
    }
    setrlimit(Resource::Nofile, usual).unwrap();
    // The next event is that of the next child: nothing more is told of those that failed.
    assert_eq!(
        spawner.run(without_stdin(9, &["true"])).status,
        ExitStatus::Code(0)
    );
    wait_until("the children are gone", DEADLINE, || {
        let children = processes
            .pids()
            .unwrap()
            .into_iter()
            .filter(|pid| is_alive(*pid));
        children
            .filter_map(ProcessState::of)
            .all(|state| state.parent != own)
    });
    drop(fill);
    assert_eq!(open(), before);
}
