// SPDX-License-Identifier: Apache-2.0
//! What loops and subprocesses count, for `tokamak_stats`. `docs/counters.md` says what each number means.
//!
//! These run on dirty schedulers: there may be very many loops.

use crate::atoms;
use crate::event_loop::EventLoop;
use crate::library;
use crate::wakes;
use crate::watch::Direction;
use parking_lot::Mutex;
use rustler::{Encoder, Env, Term};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What loops count up.
#[derive(Clone, Copy, Default)]
struct Totals {
    pushed: u64,
    drained: u64,
    wakes: u64,
    coalesced: u64,
    busy_polls: u64,
    busy_polls_in_vain: u64,
}

/// What loops hold.
#[derive(Default)]
struct Holdings {
    queued: u64,
    timers: usize,
    watched: [usize; 2],
    handlers: usize,
    high_water_mark: u64,
}

impl Totals {
    fn add(&mut self, event_loop: &EventLoop) {
        let metrics = event_loop.queue.metrics();
        self.pushed += metrics.pushed;
        self.drained += metrics.drained;
        self.wakes += metrics.wakes;
        self.coalesced += event_loop.coalesced();
        let looks = event_loop.busy_poll.looks();
        self.busy_polls += looks.all;
        self.busy_polls_in_vain += looks.in_vain;
    }
}

impl Holdings {
    fn add(&mut self, event_loop: &EventLoop) {
        let metrics = event_loop.queue.metrics();
        self.queued += event_loop.queue.len();
        self.timers += event_loop.timers.len();
        let watched = event_loop.watched();
        for direction in Direction::BOTH {
            self.watched[direction.index()] += watched[direction.index()];
        }
        self.handlers += event_loop.handlers.len();
        self.high_water_mark = self.high_water_mark.max(metrics.high_water_mark);
    }
}

/// The totals of the loops that have ended.
static ENDED: Mutex<Totals> = Mutex::new(Totals {
    pushed: 0,
    drained: 0,
    wakes: 0,
    coalesced: 0,
    busy_polls: 0,
    busy_polls_in_vain: 0,
});

/// A loop has ended: its counters stay in the totals.
pub fn loop_ended(event_loop: &EventLoop) {
    let mut ended = ENDED.lock();
    ended.add(event_loop);
    event_loop.is_counted.store(true, Ordering::Relaxed);
}

fn known_loops() -> Vec<Arc<EventLoop>> {
    library::services().map_or_else(Vec::new, |services| services.loops())
}

fn totals(loops: &[Arc<EventLoop>]) -> Totals {
    // Under the lock a loop is either among those that ended, or it is not.
    let ended = ENDED.lock();
    let mut totals = *ended;
    for event_loop in loops {
        if !event_loop.is_counted.load(Ordering::Relaxed) {
            totals.add(event_loop);
        }
    }
    totals
}

/// `{Counters, Sample, WakeTimes}` of all loops: one wake in `Sample` is among the times.
#[rustler::nif(schedule = "DirtyCpu")]
fn loop_totals<'a>(env: Env<'a>) -> Term<'a> {
    let loops = known_loops();
    let totals = totals(&loops);
    let mut holdings = Holdings::default();
    for event_loop in loops.iter().filter(|known| !known.is_closed()) {
        holdings.add(event_loop);
    }
    let counters = rustler::term_map!(env, {
        atoms::pushed() => totals.pushed,
        atoms::drained() => totals.drained,
        atoms::wakes() => totals.wakes,
        atoms::coalesced() => totals.coalesced,
        atoms::busy_polls() => totals.busy_polls,
        atoms::busy_polls_in_vain() => totals.busy_polls_in_vain,
        atoms::refused() => tokamak::watcher::refused_events(),
        atoms::queued() => holdings.queued,
        atoms::timers() => holdings.timers,
        atoms::readers() => holdings.watched[Direction::Read.index()],
        atoms::writers() => holdings.watched[Direction::Write.index()],
        atoms::handlers() => holdings.handlers,
        atoms::high_water_mark() => holdings.high_water_mark,
    });
    let times = tokamak::stats::histogram(env, &wakes::times());
    (counters, wakes::SAMPLE, times).encode(env)
}

/// The handles of all loops that are open.
#[rustler::nif(schedule = "DirtyCpu")]
fn loop_list<'a>(env: Env<'a>) -> Vec<Term<'a>> {
    let loops = known_loops();
    loops.iter().filter_map(|known| known.term(env)).collect()
}
