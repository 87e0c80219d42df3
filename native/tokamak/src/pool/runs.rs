// SPDX-License-Identifier: Apache-2.0
//! The runs that are going on, and the totals of all there ever were: for `tokamak:stats/0`.

use super::{Pool, Totals};
use parking_lot::Mutex;
use rustler::{Encoder, Env, LocalPid, Term};
use std::collections::HashMap;
use std::sync::LazyLock;
use tokamak_core::pool::Stats;

#[derive(Default)]
struct Runs {
    started: u64,
    going_on: HashMap<u64, (LocalPid, Pool)>,
    /// Of the runs that have ended.
    ended: Stats,
}

static RUNS: LazyLock<Mutex<Runs>> = LazyLock::new(Mutex::default);

/// A run that goes on; dropped at its end.
pub(super) struct Counted(u64);

impl Counted {
    /// A run starts.
    pub fn new(owner: LocalPid, pool: Pool) -> Self {
        let mut runs = RUNS.lock();
        runs.started += 1;
        let number = runs.started;
        runs.going_on.insert(number, (owner, pool));
        Self(number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut runs = RUNS.lock();
        let ended = runs.going_on.remove(&self.0);
        if let Some((_, pool)) = &ended {
            runs.ended = sum(runs.ended, pool.stats());
        }
        drop(runs);
        // The pool may be the last one of its run.
        drop(ended);
    }
}

fn sum(one: Stats, other: Stats) -> Stats {
    Stats {
        dispatched: one.dispatched + other.dispatched,
        succeeded: one.succeeded + other.succeeded,
        failed: one.failed + other.failed,
        duplicates: one.duplicates + other.duplicates,
        refused: one.refused + other.refused,
    }
}

/// `{Started, Running, Totals}` of all runs since the library was loaded.
pub(crate) fn totals(env: Env) -> Term {
    let runs = RUNS.lock();
    let going_on = runs.going_on.values().map(|(_, pool)| pool.stats());
    let totals = going_on.fold(runs.ended, sum);
    let (started, running) = (runs.started, runs.going_on.len());
    drop(runs);
    (started, running, Totals(totals)).encode(env)
}

/// `[{Owner, Totals}]` of the runs that go on, the oldest first.
pub(crate) fn going_on(env: Env) -> Term {
    let runs = RUNS.lock();
    let mut list: Vec<(u64, LocalPid, Stats)> = runs
        .going_on
        .iter()
        .map(|(number, (owner, pool))| (*number, *owner, pool.stats()))
        .collect();
    drop(runs);
    list.sort_unstable_by_key(|(number, _, _)| *number);
    let list: Vec<(LocalPid, Totals)> = list
        .into_iter()
        .map(|(_, owner, stats)| (owner, Totals(stats)))
        .collect();
    list.encode(env)
}
