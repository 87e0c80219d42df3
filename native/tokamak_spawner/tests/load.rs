// SPDX-License-Identifier: Apache-2.0
//! Many children at a time: every status, every byte, every event once.
#![cfg(target_os = "linux")]

mod support;

use std::fs;

use support::{DEADLINE, Spawner, shell, wait_until};
use tokamak_spawner::protocol::{ExitStatus, Request};

const CHILDREN: u64 = 2000;
const AT_A_TIME: u64 = 200;

/// Some bytes from most, and more than a pipe holds from some.
fn command(id: u64) -> String {
    if id.is_multiple_of(50) {
        format!(
            "head -c 300000 /dev/zero | tr '\\0' {}; exit {}",
            id % 10,
            id % 256
        )
    } else {
        format!("echo out {id}; echo err {id} >&2; exit {}", id % 256)
    }
}

fn check(spawner: &mut Spawner, id: u64) {
    let ended = spawner.ended(id);
    assert_eq!(
        ended.status,
        ExitStatus::Code((id % 256) as u8),
        "status of {id}"
    );
    if id.is_multiple_of(50) {
        assert!(
            ended.stdout == (id % 10).to_string().repeat(300_000),
            "output of {id}"
        );
    } else {
        assert_eq!(
            (ended.stdout, ended.stderr),
            (format!("out {id}\n"), format!("err {id}\n"))
        );
    }
}

#[test]
fn two_thousand_children_lose_no_status_and_no_byte() {
    let mut spawner = Spawner::start();
    let descriptors = format!("/proc/{}/fd", spawner.pid());
    let open = || fs::read_dir(&descriptors).unwrap().count();
    let before = open();
    for id in 1..=CHILDREN + AT_A_TIME {
        if id <= CHILDREN {
            spawner.send(Request::Start(shell(id, &command(id))));
        }
        if let Some(oldest) = id.checked_sub(AT_A_TIME).filter(|oldest| *oldest > 0) {
            check(&mut spawner, oldest);
        }
    }
    for id in 1..=CHILDREN {
        spawner.gone(id);
    }
    wait_until("no descriptor left", DEADLINE, || open() == before);
    assert_eq!(spawner.finish(), 0);
}
