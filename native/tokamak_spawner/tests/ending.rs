// SPDX-License-Identifier: Apache-2.0
//! Children end with all that descends from them: when stopped, and when their owner is gone.
#![cfg(target_os = "linux")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpgid, kill_process};

use support::{DEADLINE, Spawner, is_alive, shell, wait_until, without_stdin};
use tokamak_spawner::client::Event;
use tokamak_spawner::processes::ProcessState;
use tokamak_spawner::protocol::{ExitStatus, Request, StartRequest};

/// Starts a daemon that writes its process id: another session, and its parent gone.
const DAEMON: &str = "(setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' &); ";
/// The same, and TERM does not end it.
const STUBBORN_DAEMON: &str =
    "(setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000 >/dev/null 2>&1' &); ";
/// Becomes a program that TERM does not end.
const STUBBORN: &str = "trap '' TERM; echo $$; exec sleep 1000";

const HALF_A_SECOND: Duration = Duration::from_millis(500);

fn stop(id: u64, kill_timeout: u32) -> Request {
    Request::Stop { id, kill_timeout }
}

/// Waits until the spawner has adopted the process.
fn wait_until_adopted(spawner: &Spawner, process: Pid) {
    let parent = spawner.connection.spawner_pid() as i32;
    wait_until("adopted", DEADLINE, || {
        ProcessState::of(process).is_some_and(|state| state.parent == parent)
    });
}

#[test]
fn a_stopped_child_may_end_in_its_own_way() {
    let mut spawner = Spawner::start();
    let command = "trap 'exit 7' TERM; echo $$; while :; do sleep 0.01; done";
    spawner.shell_pids(shell(1, command), 1);
    spawner.send(stop(1, 10_000));
    assert_eq!(spawner.status(1), ExitStatus::Code(7));
    spawner.gone(1);
}

#[test]
fn the_whole_process_group_is_stopped() {
    let mut spawner = Spawner::start();
    let command = "sleep 1000 & echo $!; (sleep 1000 & echo $!; wait) & exec sleep 1000";
    let group = spawner.shell_pids(shell(1, command), 2);
    spawner.send(stop(1, 10_000));
    assert_eq!(spawner.ended(1).status, ExitStatus::Signal(15));
    spawner.gone(1);
    assert!(!group.into_iter().any(is_alive));
}

#[test]
fn a_child_that_ignores_term_is_killed_after_its_time_and_not_before() {
    let mut spawner = Spawner::start();
    spawner.shell_pids(shell(1, STUBBORN), 1);
    let from = Instant::now();
    spawner.send(stop(1, 500));
    assert_eq!(spawner.status(1), ExitStatus::Signal(9));
    let took = from.elapsed();
    assert!(
        took >= HALF_A_SECOND && took < 3 * HALF_A_SECOND,
        "{took:?}"
    );
    spawner.gone(1);
}

#[test]
fn no_time_at_all_is_a_kill_at_once() {
    let mut spawner = Spawner::start();
    let daemon = spawner.shell_pids(shell(1, &format!("{STUBBORN_DAEMON}{STUBBORN}")), 2);
    spawner.send(stop(1, 0));
    assert_eq!(spawner.status(1), ExitStatus::Signal(9));
    spawner.gone(1);
    assert!(!daemon.into_iter().any(is_alive));
}

#[test]
fn a_second_stop_can_only_bring_the_kill_forward() {
    let mut spawner = Spawner::start();
    spawner.shell_pids(shell(1, STUBBORN), 1);
    let from = Instant::now();
    spawner.send(stop(1, 600_000));
    spawner.send(stop(1, 100));
    spawner.send(stop(1, 600_000));
    assert_eq!(spawner.status(1), ExitStatus::Signal(9));
    assert!(from.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_grandchild_that_outlives_its_stopped_child_is_killed_after_the_time() {
    let mut spawner = Spawner::start();
    let command =
        "(trap '' TERM; sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1') & exec sleep 1000";
    let grandchild = spawner.shell_pids(shell(1, command), 1)[0];
    let from = Instant::now();
    spawner.send(stop(1, 500));
    assert_eq!(spawner.status(1), ExitStatus::Signal(15));
    assert!(is_alive(grandchild) && !spawner.is_gone(1));
    spawner.gone(1);
    assert!(from.elapsed() >= HALF_A_SECOND);
    assert!(!is_alive(grandchild));
}

#[test]
fn a_child_stopped_by_a_signal_can_act_on_term() {
    let mut spawner = Spawner::start();
    let child = spawner.started(without_stdin(1, &["sleep", "1000"]));
    spawner.send(Request::Signal {
        id: 1,
        signal: libc::SIGSTOP,
        group: true,
    });
    wait_until("stopped", DEADLINE, || {
        support::status_field(child, "State").starts_with('T')
    });
    spawner.send(stop(1, 60_000));
    assert_eq!(spawner.status(1), ExitStatus::Signal(15));
}

#[test]
fn a_daemon_ends_with_the_child_that_made_it_and_with_no_other() {
    let mut spawner = Spawner::start();
    let command = format!("{DAEMON}exec sleep 1000");
    let own = spawner.shell_pids(shell(1, &command), 1)[0];
    let other = spawner.shell_pids(shell(2, &command), 1)[0];
    wait_until_adopted(&spawner, own);
    wait_until_adopted(&spawner, other);
    assert_eq!(getpgid(Some(own)), Ok(own));
    spawner.send(stop(1, 10_000));
    spawner.gone(1);
    assert!(!is_alive(own) && is_alive(other));
}

#[test]
fn a_daemon_outlives_its_childs_exit_until_it_is_stopped() {
    let mut spawner = Spawner::start();
    let daemon = spawner.shell_pids(shell(1, &format!("{DAEMON}exit 5")), 1)[0];
    assert_eq!(spawner.status(1), ExitStatus::Code(5));
    // A second child passes through, and its exit does not make the daemon seem gone.
    spawner.shell(2, "exit 0");
    spawner.gone(2);
    assert!(is_alive(daemon) && !spawner.is_gone(1));
    spawner.send(stop(1, 10_000));
    spawner.gone(1);
    assert!(!is_alive(daemon));
}

#[test]
fn a_daemon_that_ignores_term_is_killed() {
    let mut spawner = Spawner::start();
    let daemon = spawner.shell_pids(shell(1, &format!("{STUBBORN_DAEMON}exit 5")), 1)[0];
    spawner.status(1);
    let from = Instant::now();
    spawner.send(stop(1, 500));
    spawner.gone(1);
    assert!(from.elapsed() >= HALF_A_SECOND);
    assert!(!is_alive(daemon));
}

#[test]
fn the_end_of_the_last_descendant_is_told() {
    let mut spawner = Spawner::start();
    let daemon = spawner.shell_pids(shell(1, &format!("{DAEMON}exit 0")), 1)[0];
    spawner.status(1);
    wait_until_adopted(&spawner, daemon);
    assert!(!spawner.is_gone(1));
    kill_process(daemon, Signal::TERM).unwrap();
    spawner.gone(1);
}

#[test]
fn nothing_is_told_of_a_released_child_and_it_goes_on_until_the_end() {
    let mut spawner = Spawner::start();
    let command = "echo $$; exec sleep 1000 >/dev/null 2>&1";
    let released = spawner.shell_pids(shell(1, command), 1)[0];
    spawner.send(Request::Release { id: 1 });
    let daemon = spawner.shell_pids(shell(2, &format!("{DAEMON}exit 0")), 1)[0];
    spawner.status(2);
    spawner.send(Request::Release { id: 2 });
    spawner.shell(3, "exit 0");
    assert!(is_alive(released) && is_alive(daemon));
    kill_process(released, Signal::TERM).unwrap();
    wait_until("collected", DEADLINE, || {
        ProcessState::of(released).is_none()
    });
    spawner.shell(4, "exit 0");
    assert!(!spawner.has_ended(1) && !spawner.is_gone(2));
    assert_eq!(spawner.finish(), 0);
    assert!(!is_alive(daemon));
}

#[test]
fn adopted_processes_leave_no_zombies() {
    let mut spawner = Spawner::start();
    for id in 1..=20 {
        spawner.shell(
            id,
            "(setsid sh -c : &); (true &); sleep 0.01 & true & exit 0",
        );
        spawner.gone(id);
    }
    let own = spawner.connection.spawner_pid() as i32;
    let mut processes = tokamak_spawner::processes::ProcessList::open().unwrap();
    let mut children = processes.pids().unwrap();
    children.retain(|pid| ProcessState::of(*pid).is_some_and(|state| state.parent == own));
    assert_eq!(children, []);
}

/// Starts one child of each kind. Gives the processes that have to be gone in the end.
fn all_kinds(spawner: &mut Spawner, kill_timeout: u32) -> Vec<Pid> {
    let commands = [
        ("echo $$; exec sleep 1000".to_owned(), 1),
        ("sleep 1000 & echo $!; echo $$; wait".to_owned(), 2),
        (STUBBORN.to_owned(), 1),
        (format!("{DAEMON}echo $$; exec sleep 1000"), 2),
        (format!("{DAEMON}exit 0"), 1),
        (format!("{STUBBORN_DAEMON}exit 0"), 1),
        // It takes the mark off, so that it is known as an adopted process alone.
        ("(setsid sh -c 'prlimit --pid $$ --locks=77; echo $$; exec sleep 1000 >/dev/null' &); exit 0".into(), 1),
    ];
    let mut processes = vec![spawner.pid()];
    for ((command, count), id) in commands.into_iter().zip(1..) {
        let start = StartRequest {
            kill_timeout,
            ..shell(id, &command)
        };
        processes.extend(spawner.shell_pids(start, count));
    }
    processes
}

#[test]
fn everything_ends_with_the_connection() {
    let mut spawner = Spawner::start();
    let processes = all_kinds(&mut spawner, 300);
    assert!(processes.iter().all(|process| is_alive(*process)));
    assert_eq!(spawner.finish(), 0);
    assert!(!processes.into_iter().any(is_alive));
}

#[test]
fn everything_ends_when_the_client_is_killed() {
    let helper = "helper_a_client_with_children_of_all_kinds";
    let mut client = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", helper, "--include-ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut processes = Vec::new();
    for line in lines
        .map_while(Result::ok)
        .take_while(|line| line != "complete")
    {
        processes.extend(
            line.strip_prefix("process ")
                .map(|pid| support::pid(pid.parse().unwrap())),
        );
    }
    assert_eq!(processes.len(), 10);
    assert!(processes.iter().all(|process| is_alive(*process)));
    client.kill().unwrap();
    client.wait().unwrap();
    // The kill timeout of strays is 2 s.
    wait_until("all gone", Duration::from_secs(3), || {
        !processes.iter().any(|pid| is_alive(*pid))
    });
}

#[test]
#[ignore = "the client of the test above, which kills it"]
fn helper_a_client_with_children_of_all_kinds() {
    if std::env::args().any(|argument| argument == "--exact") {
        let mut spawner = Spawner::start();
        for process in all_kinds(&mut spawner, 500) {
            println!("\nprocess {process}");
        }
        println!("\ncomplete");
        while !matches!(spawner.connection.recv(DEADLINE), Ok(Some(Event::Closed))) {}
    }
}

#[test]
fn a_killed_spawner_is_noticed_at_once_and_leaves_nothing_after_finish() {
    let mut spawner = Spawner::start();
    let processes = all_kinds(&mut spawner, 300);
    kill_process(spawner.pid(), Signal::KILL).unwrap();
    let from = Instant::now();
    while !matches!(spawner.connection.recv(DEADLINE), Ok(Some(Event::Closed))) {}
    assert!(from.elapsed() < HALF_A_SECOND);
    // Children die with it; daemons are found by their mark. One daemon took its mark off.
    let (last, marked) = processes.split_last().unwrap();
    assert!(spawner.finish() >= 2);
    assert!(!marked.iter().any(|process| is_alive(*process)));
    kill_process(*last, Signal::KILL).unwrap();
    assert_eq!(
        Spawner::start().shell(1, "exit 6").status,
        ExitStatus::Code(6)
    );
}

#[test]
fn signals_that_end_other_programs_do_not_end_the_spawner() {
    let mut spawner = Spawner::start();
    for signal in [
        Signal::TERM,
        Signal::INT,
        Signal::HUP,
        Signal::QUIT,
        Signal::PIPE,
        Signal::ALARM,
    ] {
        kill_process(spawner.pid(), signal).unwrap();
    }
    kill_process(spawner.pid(), Signal::STOP).unwrap();
    kill_process(spawner.pid(), Signal::CONT).unwrap();
    assert_eq!(spawner.shell(1, "exit 8").status, ExitStatus::Code(8));
}
