// SPDX-License-Identifier: Apache-2.0
//! Threads that report progress as fast as they can, as another library would.

use rustler::{Atom, Encoder, Env, Term};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokamak::environment::with_scratch;
use tokamak::table::Table;

rustler::atoms! { ok, badarg }

/// Threads that have not ended.
static RUNNING: AtomicU64 = AtomicU64::new(0);
/// Reports of all storms.
static REPORTS: AtomicU64 = AtomicU64::new(0);

/// Starts `threads` threads that report the keys from 1 to `keys` for so long, below 900 of 1,000 each.
#[rustler::nif]
fn start_storm<'a>(
    env: Env<'a>,
    table: Term<'a>,
    threads: u64,
    keys: u64,
    milliseconds: u64,
) -> Atom {
    let Some(table) = Table::fetch(env, table) else {
        return badarg();
    };
    let end = Instant::now() + Duration::from_millis(milliseconds);
    for _ in 0..threads {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        let thread = std::thread::Builder::new()
            .name("test-storm".to_owned())
            .spawn(move || {
                report(table, keys, end);
                RUNNING.fetch_sub(1, Ordering::SeqCst);
            });
        if thread.is_err() {
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            return badarg();
        }
    }
    ok()
}

fn report(table: &Table, keys: u64, end: Instant) {
    let mut round = 0;
    while Instant::now() < end {
        for key in 1..=keys {
            with_scratch(|env| table.report_progress(key.encode(env), round % 900, 1000));
        }
        round += 1;
        REPORTS.fetch_add(keys, Ordering::SeqCst);
    }
}

/// `{Threads, Reports}`: those that have not ended, and what all have reported.
#[rustler::nif]
fn storm() -> (u64, u64) {
    (
        RUNNING.load(Ordering::SeqCst),
        REPORTS.load(Ordering::SeqCst),
    )
}
