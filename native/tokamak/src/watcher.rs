// SPDX-License-Identifier: Apache-2.0
//! What the process that raises alarms, `tokamak_alarms`, learns of this library.
//!
//! With nothing in flight that process sleeps. The first call that is admitted then, and the first event or
//! call that is refused, sends it a message; from then on it looks from time to time, until nothing is in
//! flight any more.

use crate::environment::{SavedTerm, Sender, send_anywhere};
use crate::runtime::Runtime;
use crate::{atoms, operation, runtime};
use parking_lot::Mutex;
use rustler::{Atom, Encoder, Env, LocalPid, Term};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether the watcher waits to be told that something happens.
static SLEEPS: AtomicBool = AtomicBool::new(false);
static WATCHER: Mutex<Option<LocalPid>> = Mutex::new(None);

/// Calls that were refused because `max_in_flight` were running.
static REFUSED_CALLS: AtomicU64 = AtomicU64::new(0);
/// Events and timers that loops refused because of their bounds.
static REFUSED_EVENTS: AtomicU64 = AtomicU64::new(0);

/// Something is in flight.
pub fn active() {
    // A call that misses that the watcher just went to sleep is noticed with the next one.
    if SLEEPS.load(Ordering::Relaxed) {
        wake();
    }
}

#[cold]
fn wake() {
    if !SLEEPS.swap(false, Ordering::AcqRel) {
        return;
    }
    if let Some(watcher) = *WATCHER.lock() {
        send_anywhere(watcher, |env| {
            let engine = Atom::from_str(env, operation::engine()).ok();
            (atoms::active(), engine).encode(env)
        });
    }
}

/// Calls were refused.
#[cold]
pub fn calls_refused(count: u32) {
    REFUSED_CALLS.fetch_add(u64::from(count), Ordering::Relaxed);
    active();
}

/// Events were refused.
#[cold]
pub fn events_refused(count: usize) {
    let add = |before: u64| Some(before.saturating_add(count as u64));
    let _ = REFUSED_EVENTS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    active();
}

/// Calls that were refused since the library was loaded.
pub fn refused_calls() -> u64 {
    REFUSED_CALLS.load(Ordering::Relaxed)
}

/// Events and timers that loops refused since the library was loaded.
pub fn refused_events() -> u64 {
    REFUSED_EVENTS.load(Ordering::Relaxed)
}

/// The calling process is the watcher, and goes to sleep: `idle`. Where something is in flight already it is
/// `active`, and has to look again.
pub fn watch(env: Env) -> Term {
    *WATCHER.lock() = Some(env.pid());
    SLEEPS.store(true, Ordering::SeqCst);
    let in_flight = runtime::current().map_or(0, |runtime| runtime.in_flight());
    // If somebody was faster, the message is on its way.
    if in_flight > 0 && SLEEPS.swap(false, Ordering::AcqRel) {
        atoms::active().encode(env)
    } else {
        atoms::idle().encode(env)
    }
}

/// What the watcher looks at: `{Workers, InFlight, MaxInFlight, RefusedCalls, RefusedEvents}`, or `shutdown`.
/// `Workers` are `free` when one of them sleeps, and `busy` otherwise. If they are busy and there is a
/// reference, `{tokamak, Reference, probed}` is sent as soon as one of them gets to it.
pub fn look<'a>(env: Env<'a>, reference: Term<'a>) -> Term<'a> {
    let Some(runtime) = runtime::current() else {
        return atoms::shutdown().encode(env);
    };
    let is_free = parked_workers(&runtime) > 0;
    if !is_free && reference.is_ref() {
        probe(env, &runtime, reference);
    }
    let workers = if is_free {
        atoms::free()
    } else {
        atoms::busy()
    };
    let max = runtime.options.max_in_flight;
    (
        workers,
        runtime.in_flight(),
        max,
        refused_calls(),
        refused_events(),
    )
        .encode(env)
}

/// Workers that have nothing to do and sleep.
pub fn parked_workers(runtime: &Runtime) -> usize {
    let metrics = runtime.handle().metrics();
    (0..metrics.num_workers())
        .filter(|worker| metrics.worker_park_unpark_count(*worker) % 2 == 1)
        .count()
}

fn probe(env: Env, runtime: &Arc<Runtime>, reference: Term) {
    let (pid, reference) = (env.pid(), SavedTerm::save(reference));
    drop(runtime.handle().spawn(async move {
        Sender::Thread.send(&pid, |env| {
            (atoms::tokamak(), reference.load(env), atoms::probed()).encode(env)
        });
    }));
}
