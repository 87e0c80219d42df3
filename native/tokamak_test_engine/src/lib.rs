// SPDX-License-Identifier: Apache-2.0
//! An engine for the tests of native calls. Made as the author of an engine would make one: with the SDK
//! alone.

mod calls;
mod counters;
mod duplex;
mod failures;
mod pools;
mod results;
mod streams;

/// The tests make operations panic, a thousand times: nobody wants to read that.
fn silence_panics(_env: rustler::Env) -> bool {
    std::panic::set_hook(Box::new(|_| {}));
    true
}

tokamak::nif!("tokamak_test_engine", load = silence_panics);
