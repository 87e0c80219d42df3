// SPDX-License-Identifier: Apache-2.0
//! Threads that push events into a loop as another library would.

use rustler::{Atom, Encoder, Env, Term};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokamak::table::{Data, LoopReference, Status, Table};

rustler::atoms! { ok, badarg, running, refused, closed, failed }

/// Event type `user`.
const USER: u8 = 40;

/// Threads that have not ended.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// How threads ended that could not push everything, since they were last asked for.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
static CLOSED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Starts `threads` threads. Thread `n` pushes the integers from 0 to `each - 1` for the callback id
/// `first_id + n`, and waits up to `wait_milliseconds` for room each time.
#[rustler::nif]
fn start_producers<'a>(
    env: Env<'a>,
    table: Term<'a>,
    event_loop: Term<'a>,
    threads: u64,
    each: i64,
    first_id: u64,
    wait_milliseconds: u64,
) -> Atom {
    let reference = Table::fetch(env, table)
        .and_then(|table| LoopReference::retain(table, event_loop))
        .map(Arc::new);
    let Some(reference) = reference else {
        return badarg();
    };
    let wait = Duration::from_millis(wait_milliseconds);
    for n in 0..threads {
        let reference = Arc::clone(&reference);
        RUNNING.fetch_add(1, Ordering::SeqCst);
        let thread = std::thread::Builder::new()
            .name("test-producer".to_owned())
            .spawn(move || {
                produce(&reference, first_id + n, each, wait);
                drop(reference);
                RUNNING.fetch_sub(1, Ordering::SeqCst);
            });
        if thread.is_err() {
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            return badarg();
        }
    }
    ok()
}

fn produce(event_loop: &LoopReference, id: u64, each: i64, wait: Duration) {
    for n in 0..each {
        let end = match event_loop.push(id, USER, Data::Integer(n), wait) {
            Status::Ok => continue,
            Status::Overloaded => &REFUSED,
            Status::Closed => &CLOSED,
            _ => &FAILED,
        };
        end.fetch_add(1, Ordering::SeqCst);
        return;
    }
}

/// How many threads run; how many ended early since the last call, and why.
#[rustler::nif]
fn producers<'a>(env: Env<'a>) -> Term<'a> {
    rustler::term_map!(env, {
        running() => RUNNING.load(Ordering::SeqCst),
        refused() => REFUSED.swap(0, Ordering::SeqCst),
        closed() => CLOSED.swap(0, Ordering::SeqCst),
        failed() => FAILED.swap(0, Ordering::SeqCst),
    })
}

/// Reserves callback ids through the table, one block after the other, and returns their starts.
#[rustler::nif(schedule = "DirtyCpu")]
fn reserve_ids<'a>(env: Env<'a>, table: Term<'a>, blocks: usize, count: u64) -> Term<'a> {
    match Table::fetch(env, table) {
        Some(table) => (0..blocks)
            .map(|_| table.reserve_ids(count).unwrap_or(0))
            .collect::<Vec<u64>>()
            .encode(env),
        None => badarg().encode(env),
    }
}
