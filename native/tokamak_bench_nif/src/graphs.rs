// SPDX-License-Identifier: Apache-2.0
//! Baselines of the worker pool: the same graphs by one thread with a hash set, and by threads that share
//! queue and set behind a mutex. Results are sent in the same batches.

use crate::atoms::{finished, ok, results};
use rustler::{Atom, LocalPid, OwnedEnv};
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

const ITEMS: u64 = 1_000_000;
const BATCH: usize = 256;

#[derive(Clone, Copy, rustler::NifUnitEnum)]
enum Shape {
    Chain,
    Star,
    Tree,
    Dense,
}

impl Shape {
    /// As in `tokamak_test_engine`.
    fn children(self, item: u64) -> Vec<u64> {
        let existing = |child: &u64| *child < ITEMS;
        match self {
            Self::Chain => Some(item + 1).into_iter().filter(existing).collect(),
            Self::Star if item == 0 => (1..ITEMS).collect(),
            Self::Star => Vec::new(),
            Self::Tree => (4 * item + 1..=4 * item + 4).filter(existing).collect(),
            Self::Dense => (1..=10).map(|n| (item * 10 + n) % ITEMS).collect(),
        }
    }
}

/// Sends batches of results.
struct Results {
    to: LocalPid,
    env: OwnedEnv,
    batch: Vec<(u64, (Atom, u64))>,
}

impl Results {
    fn new(to: LocalPid) -> Self {
        let (env, batch) = (OwnedEnv::new(), Vec::with_capacity(BATCH));
        Self { to, env, batch }
    }

    fn add(&mut self, item: u64) {
        self.batch.push((item, (ok(), item * 2)));
        if self.batch.len() == BATCH {
            self.send();
        }
    }

    fn send(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        // Of a bench that was ended nobody waits for results.
        let _ = self.env.send_and_clear(&self.to, |_| (results(), batch));
    }

    fn finish(mut self) {
        self.send();
    }
}

/// Runs a graph on threads: `{results, [{Item, {ok, Result}}]}`, then `finished`.
#[rustler::nif]
fn graph_start(to: LocalPid, shape: Shape, threads: usize) -> Atom {
    std::thread::spawn(move || {
        match threads {
            1 => single(to, shape),
            _ => guarded(to, shape, threads),
        }
        let _ = OwnedEnv::new().send_and_clear(&to, |_| finished());
    });
    ok()
}

fn single(to: LocalPid, shape: Shape) {
    let (mut seen, mut queue) = (HashSet::from([0]), VecDeque::from([0]));
    let mut results = Results::new(to);
    while let Some(item) = queue.pop_front() {
        let children = shape.children(item).into_iter();
        queue.extend(children.filter(|child| seen.insert(*child)));
        results.add(item);
    }
    results.finish();
}

#[derive(Default)]
struct Shared {
    queue: VecDeque<u64>,
    seen: HashSet<u64>,
    outstanding: u64,
}

type Guard = Arc<(Mutex<Shared>, Condvar)>;

fn guarded(to: LocalPid, shape: Shape, threads: usize) {
    let shared = Shared {
        queue: VecDeque::from([0]),
        seen: HashSet::from([0]),
        outstanding: 1,
    };
    let guard: Guard = Arc::new((Mutex::new(shared), Condvar::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| worker(to, shape, &guard));
        }
    });
}

fn worker(to: LocalPid, shape: Shape, guard: &Guard) {
    let (mutex, changed) = &**guard;
    let lock = || mutex.lock().unwrap_or_else(PoisonError::into_inner);
    let mut results = Results::new(to);
    let mut shared = lock();
    while shared.outstanding > 0 {
        let Some(item) = shared.queue.pop_front() else {
            shared = changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(shared);
        let children = shape.children(item);
        results.add(item);
        shared = lock();
        for child in children {
            if shared.seen.insert(child) {
                shared.queue.push_back(child);
                shared.outstanding += 1;
                changed.notify_one();
            }
        }
        shared.outstanding -= 1;
    }
    drop(shared);
    changed.notify_all();
    results.finish();
}
