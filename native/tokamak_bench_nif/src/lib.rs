// SPDX-License-Identifier: Apache-2.0
//! Baselines and test producers for `test/` and `test/bench`.

/// Does nothing: the cost of a NIF call.
#[rustler::nif]
fn noop() -> rustler::types::atom::Atom {
    rustler::types::atom::ok()
}

rustler::init!("tokamak_bench_nif");
