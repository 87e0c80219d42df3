// SPDX-License-Identifier: Apache-2.0
//! Baselines and test producers for `test/` and `test/bench`.
//!
//! Baselines are what the author of a NIF would write by hand, as well as it can be done: they do
//! not use tokamak. Producers reach tokamak as any other library does, through its C table.

mod children;
mod gate;
mod graphs;
mod hand_written;
mod message;
mod pipes;
mod producers;
mod select;
mod stamps;
mod usage;

mod atoms {
    rustler::atoms! { again, badarg, closed, error, failed, ok, user, undefined, finished, results }
}

/// Does nothing: the cost of a NIF call.
#[rustler::nif]
fn noop() -> rustler::Atom {
    atoms::ok()
}

/// Gives its argument back, by way of a dirty scheduler.
#[rustler::nif(schedule = "DirtyIo")]
fn dirty_echo(number: i64) -> i64 {
    number
}

fn load(env: rustler::Env, _load_info: rustler::Term) -> bool {
    select::open_resource_type(env)
}

rustler::init!("tokamak_bench_nif", load = load);
