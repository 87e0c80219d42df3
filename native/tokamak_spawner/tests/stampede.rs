// SPDX-License-Identifier: Apache-2.0
//! Children of all kinds, stopped, signalled and released at random: every one ends once, and
//! nothing of them is left in the end.
#![cfg(target_os = "linux")]

mod support;

use std::collections::HashMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use rustix::process::Pid;

use support::{DEADLINE, is_alive, program, shell};
use tokamak_spawner::client::{Connection, Event};
use tokamak_spawner::lineage::Lineage;
use tokamak_spawner::processes::ProcessList;
use tokamak_spawner::protocol::{Request, StartRequest};

const KINDS: [&str; 8] = [
    "exit 0",
    "exec sleep 1000",
    "echo out; exec sleep 0.02",
    "trap '' TERM; exec sleep 1000",
    "sleep 1000 & sleep 1000 & exit 1",
    "(setsid sleep 1000 >/dev/null 2>&1 &); exit 2",
    "(setsid sh -c \"trap '' TERM; sleep 1000\" &); exec sleep 0.03",
    "exec /no/such/program",
];

#[derive(Debug, Clone)]
enum Step {
    Start(usize),
    FailToStart,
    Stop(prop::sample::Index, u32),
    Signal(prop::sample::Index, i32, bool),
    Release(prop::sample::Index),
    TakeEvents(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let child = any::<prop::sample::Index>;
    prop_oneof![
        6 => (0..KINDS.len()).prop_map(Step::Start),
        1 => Just(Step::FailToStart),
        4 => (child(), 0..60_u32).prop_map(|(child, time)| Step::Stop(child, time)),
        2 => (child(), prop::sample::select(vec![0, 1, 9, 15, 19, 18, 99]), any::<bool>())
            .prop_map(|(child, signal, group)| Step::Signal(child, signal, group)),
        1 => child().prop_map(Step::Release),
        3 => (0..8_u8).prop_map(Step::TakeEvents),
    ]
}

/// How far each child has come. Released ones may or may not tell more.
#[derive(Default)]
struct Told {
    children: HashMap<u64, Progress>,
    released: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Progress {
    Asked,
    Started,
    Exited,
    Ended,
}

impl Told {
    fn note(&mut self, event: Event) {
        let (id, expected, next) = match event {
            Event::Started { id, .. } => (id, Progress::Asked, Progress::Started),
            Event::StartFailed { id, .. } => (id, Progress::Asked, Progress::Ended),
            Event::Exited {
                id, all_gone: true, ..
            } => (id, Progress::Started, Progress::Ended),
            Event::Exited { id, .. } => (id, Progress::Started, Progress::Exited),
            Event::Gone { id } => (id, Progress::Exited, Progress::Ended),
            Event::Closed => panic!("the spawner is gone"),
        };
        assert_eq!(
            self.children.insert(id, next),
            Some(expected),
            "event of {id}"
        );
    }

    fn waits(&self) -> bool {
        self.children
            .iter()
            .any(|(id, progress)| *progress != Progress::Ended && !self.released.contains(id))
    }
}

fn descendants(family: u32) -> Vec<Pid> {
    let pids = ProcessList::open().unwrap().pids().unwrap();
    let belongs = |pid: &Pid| Lineage::of(*pid).is_some_and(|lineage| lineage.family == family);
    pids.into_iter()
        .filter(belongs)
        .filter(|pid| is_alive(*pid))
        .collect()
}

fn run(steps: Vec<Step>) {
    let connection = Connection::start(program(), DEADLINE).unwrap();
    let send = |request| connection.send(&request, DEADLINE).unwrap();
    let mut told = Told::default();
    let mut last = 0;
    let start = |told: &mut Told, last: &mut u64, start: StartRequest| {
        *last += 1;
        told.children.insert(*last, Progress::Asked);
        send(Request::Start(StartRequest {
            id: *last,
            kill_timeout: 50,
            ..start
        }));
    };
    for step in steps {
        let pick = |child: prop::sample::Index| child.index(last as usize + 1) as u64;
        match step {
            Step::Start(kind) => start(&mut told, &mut last, shell(0, KINDS[kind])),
            Step::FailToStart => {
                start(
                    &mut told,
                    &mut last,
                    support::without_stdin(0, &["/no/such/program"]),
                );
            }
            Step::Stop(child, kill_timeout) => send(Request::Stop {
                id: pick(child),
                kill_timeout,
            }),
            Step::Signal(child, signal, group) => {
                send(Request::Signal {
                    id: pick(child),
                    signal,
                    group,
                });
            }
            Step::Release(child) => {
                send(Request::Release { id: pick(child) });
                told.released.push(pick(child));
            }
            Step::TakeEvents(count) => {
                for _ in 0..count {
                    connection
                        .try_recv()
                        .unwrap()
                        .into_iter()
                        .for_each(|event| told.note(event));
                }
            }
        }
    }
    (1..=last).for_each(|id| {
        send(Request::Stop {
            id,
            kill_timeout: 50,
        })
    });
    while told.waits() {
        told.note(
            connection
                .recv(DEADLINE)
                .unwrap()
                .expect("an event in time"),
        );
    }
    let family = connection.family();
    connection.close();
    assert_eq!(connection.finish(Duration::from_secs(4)), Ok(0));
    assert_eq!(descendants(family), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn children_at_random_end_once_and_leave_nothing(steps in vec(step(), 1..120)) {
        run(steps);
    }
}
