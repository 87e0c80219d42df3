// SPDX-License-Identifier: Apache-2.0
//! One event at a time from a native thread, stamped when it is pushed: for latencies.

use crate::atoms::{badarg, ok, user};
use crate::gate::{self, Gate, Order};
use crate::message::MessageEnvironment;
use rustler::{Encoder, Env, LocalPid, Resource, ResourceArc, Term};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokamak::table::{Data, LoopReference, Status, Table};

const USER: u8 = 40;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds of CLOCK_MONOTONIC since this library first looked.
fn now() -> i64 {
    ORIGIN.elapsed().as_nanos() as i64
}

#[rustler::nif]
fn monotonic_nanoseconds() -> i64 {
    now()
}

/// A thread that sends one stamp for each time it is asked.
struct Stamper {
    gate: Arc<Gate>,
}

#[rustler::resource_impl]
impl Resource for Stamper {}

impl Drop for Stamper {
    fn drop(&mut self) {
        self.gate.end();
    }
}

/// Starts a thread that waits `pause` after each request, so that its consumer sleeps again, and
/// then calls what `make` makes, on that thread, with the time.
fn spawn<F: FnMut(i64) -> bool>(
    pause: Duration,
    make: impl FnOnce() -> F + Send + 'static,
) -> Stamper {
    let gate = Arc::new(Gate::default());
    let waiting = Arc::clone(&gate);
    // Without its thread nothing comes, and the bench fails.
    let _ = gate::start("stamper", move || {
        let mut send = make();
        for round in 1.. {
            if waiting.wait(round) == Order::End {
                return;
            }
            std::thread::sleep(pause);
            if !send(now()) {
                return;
            }
        }
    });
    Stamper { gate }
}

#[rustler::nif]
fn stamper_push<'a>(
    env: Env<'a>,
    table: Term<'a>,
    event_loop: Term<'a>,
    pause_microseconds: u64,
) -> Term<'a> {
    let retained =
        Table::fetch(env, table).and_then(|table| LoopReference::retain(table, event_loop));
    let Some(event_loop) = retained else {
        return badarg().encode(env);
    };
    let stamper = spawn(Duration::from_micros(pause_microseconds), || {
        move |stamp| event_loop.push(1, USER, Data::Integer(stamp), Duration::ZERO) == Status::Ok
    });
    ResourceArc::new(stamper).encode(env)
}

/// Baseline: the stamp as a message.
#[rustler::nif]
fn stamper_send(to: LocalPid, pause_microseconds: u64) -> ResourceArc<Stamper> {
    let pause = Duration::from_micros(pause_microseconds);
    ResourceArc::new(spawn(pause, move || {
        let mut messages = MessageEnvironment::new(user());
        move |stamp| messages.send_event(&to, 1, stamp)
    }))
}

#[rustler::nif]
fn stamper_next(stamper: ResourceArc<Stamper>) -> rustler::Atom {
    stamper.gate.open();
    ok()
}
