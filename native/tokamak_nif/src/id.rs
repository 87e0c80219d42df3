// SPDX-License-Identifier: Apache-2.0
//! NIFs of `tokamak_id`.

use crate::atoms;
use crate::entry;
use rustler::{Encoder, Env, Term};
use tokamak_core::event_id::CALLBACK_IDS;

entry::nifs! { id_next: 0 }

fn id_next<'a>(env: Env<'a>, []: [Term<'a>; 0]) -> Term<'a> {
    CALLBACK_IDS.next().encode(env)
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
