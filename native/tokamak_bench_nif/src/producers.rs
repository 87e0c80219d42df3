// SPDX-License-Identifier: Apache-2.0
//! Native threads that produce events: `{FirstId + Thread, user, 0..Count - 1}` in order.
//!
//! They are made first and wait at a gate, so that only producing is measured.

use crate::atoms::{badarg, failed, ok, user};
use crate::gate::{self, Gate, Order};
use crate::message::MessageEnvironment;
use rustler::{Encoder, Env, LocalPid, Resource, ResourceArc, Term};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokamak::table::{Data, LoopReference, Status, Table};

/// The stable code of the event type `user`.
const USER: u8 = 40;
/// How long a producer waits for room in a full queue.
const PATIENCE: Duration = Duration::from_secs(60);

/// Threads that produce.
struct Producers {
    gate: Arc<Gate>,
    /// `None` stands for a thread that could not be started.
    threads: Mutex<Vec<Option<JoinHandle<bool>>>>,
}

#[rustler::resource_impl]
impl Resource for Producers {}

impl Drop for Producers {
    fn drop(&mut self) {
        self.gate.end();
    }
}

/// Starts `threads` threads; each calls the function that `make` made for it once the gate is open.
fn spawn<F>(threads: u64, make: impl Fn(u64) -> F) -> Producers
where
    F: FnOnce() -> bool + Send + 'static,
{
    let gate = Arc::new(Gate::default());
    let threads = (0..threads)
        .map(|index| {
            let (gate, produce) = (Arc::clone(&gate), make(index));
            let run = move || gate.wait(1) == Order::Go && produce();
            gate::start("producer", run)
        })
        .collect();
    Producers {
        gate,
        threads: Mutex::new(threads),
    }
}

/// Producers that push into an event loop through the C table.
#[rustler::nif]
fn producers_push<'a>(
    env: Env<'a>,
    table: Term<'a>,
    event_loop: Term<'a>,
    first_id: u64,
    threads: u64,
    count: i64,
) -> Term<'a> {
    let retained =
        Table::fetch(env, table).and_then(|table| LoopReference::retain(table, event_loop));
    let Some(event_loop) = retained.map(Arc::new) else {
        return badarg().encode(env);
    };
    let producers = spawn(threads, |index| {
        let event_loop = Arc::clone(&event_loop);
        move || push(&event_loop, first_id + index, count)
    });
    ResourceArc::new(producers).encode(env)
}

fn push(event_loop: &LoopReference, id: u64, count: i64) -> bool {
    (0..count)
        .all(|integer| event_loop.push(id, USER, Data::Integer(integer), PATIENCE) == Status::Ok)
}

/// Baseline: producers that send one message an event.
#[rustler::nif]
fn producers_send(to: LocalPid, first_id: u64, threads: u64, count: i64) -> ResourceArc<Producers> {
    ResourceArc::new(spawn(threads, |index| {
        move || {
            let mut messages = MessageEnvironment::new(user());
            (0..count).all(|integer| messages.send_event(&to, first_id + index, integer))
        }
    }))
}

/// The upper limit: producers that send lists of `size` events.
#[rustler::nif]
fn producers_send_lists(
    to: LocalPid,
    first_id: u64,
    threads: u64,
    count: i64,
    size: i64,
) -> ResourceArc<Producers> {
    ResourceArc::new(spawn(threads, |index| {
        move || {
            let mut messages = MessageEnvironment::new(user());
            (0..count).step_by(size.max(1) as usize).all(|first| {
                let integers = first..(first + size).min(count);
                messages.send_list(&to, first_id + index, integers)
            })
        }
    }))
}

/// Opens the gate.
#[rustler::nif]
fn producers_start(producers: ResourceArc<Producers>) -> rustler::Atom {
    producers.gate.open();
    ok()
}

/// Waits for the end of the threads; `failed` when one of them could not deliver everything.
#[rustler::nif(schedule = "DirtyIo")]
fn producers_join(producers: ResourceArc<Producers>) -> rustler::Atom {
    let threads = std::mem::take(
        &mut *producers
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner),
    );
    let delivered = threads
        .into_iter()
        .all(|thread| thread.is_some_and(|thread| thread.join().unwrap_or(false)));
    if delivered { ok() } else { failed() }
}
