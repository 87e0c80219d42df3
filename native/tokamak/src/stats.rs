// SPDX-License-Identifier: Apache-2.0
//! What an engine counts, as a term. `docs/counters.md` says what each number means.

use crate::atoms;
use crate::latency::{self, Label};
use crate::runtime::{self, Runtime};
use crate::{pool, watcher};
use rustler::{Encoder, Env, Term};
use std::time::Duration;

/// The counters of this engine; `shutdown` when its runtime does not run.
pub fn stats(env: Env) -> Term {
    let Some(runtime) = runtime::current() else {
        return atoms::shutdown().encode(env);
    };
    let options = runtime.options;
    let metrics = runtime.handle().metrics();
    let slow: Vec<(String, u64)> = runtime::slow_polls()
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
    let free = runtime.blocking.available_permits();
    let (busy, parks) = work(&runtime);
    rustler::term_map!(env, {
        atoms::workers() => options.worker_threads,
        atoms::max_blocking_threads() => options.max_blocking_threads,
        atoms::max_in_flight() => options.max_in_flight,
        atoms::in_flight() => runtime.in_flight(),
        atoms::refused() => watcher::refused_calls(),
        atoms::blocking_running() => options.max_blocking_threads.saturating_sub(free),
        atoms::queue_depth() => metrics.global_queue_depth(),
        atoms::tasks() => metrics.num_alive_tasks(),
        atoms::slow_polls() => slow,
        atoms::busy() => nanoseconds(busy),
        atoms::parks() => parks,
        atoms::parked() => watcher::parked_workers(&runtime),
        atoms::uptime() => nanoseconds(runtime.started.elapsed()),
        atoms::parts() => latency::parts(),
        atoms::calls() => calls(env),
        atoms::pools() => pool::totals(env),
        atoms::pool_info() => pool::going_on(env),
    })
}

/// How long all workers together were busy, and how often they went to sleep.
fn work(runtime: &Runtime) -> (Duration, u64) {
    let metrics = runtime.handle().metrics();
    let workers = 0..metrics.num_workers();
    let busy = workers
        .clone()
        .map(|n| metrics.worker_total_busy_duration(n));
    (
        busy.sum(),
        workers.map(|n| metrics.worker_park_count(n)).sum(),
    )
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `[{Kind, Ended, Sample, Times}]`: one call in `Sample` is among the times.
fn calls(env: Env) -> Vec<Term> {
    Label::ALL
        .into_iter()
        .map(|label| {
            let known = latency::known(label);
            let times = histogram(env, &known.times);
            (label.atom(), known.ended, label.sample(), times).encode(env)
        })
        .collect()
}

/// `{Sum, [{End, Count}]}`: how many values are below each end, and not below the one before.
pub fn histogram<'a>(env: Env<'a>, snapshot: &tokamak_core::histogram::Snapshot) -> Term<'a> {
    let buckets: Vec<(u64, u64)> = snapshot.buckets().collect();
    (snapshot.sum(), buckets).encode(env)
}
