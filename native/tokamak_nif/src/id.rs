// SPDX-License-Identifier: Apache-2.0
//! NIFs of `tokamak_id`.

use crate::atoms;
use rustler::{Encoder, Env, Term};
use tokamak_core::event_id::CALLBACK_IDS;

#[rustler::nif]
fn id_next() -> u64 {
    CALLBACK_IDS.next()
}

#[rustler::nif]
fn id_reserve<'a>(env: Env<'a>, count: Term<'a>) -> Term<'a> {
    match count
        .decode::<u64>()
        .ok()
        .and_then(|n| CALLBACK_IDS.reserve(n))
    {
        Some(first) => first.encode(env),
        None => atoms::badarg().encode(env),
    }
}
