// SPDX-License-Identifier: Apache-2.0
//! Operations with bugs, to see what becomes of their callers: an error, and nothing else.

use crate::store::Handle;
use rustler::{Encoder, Env, Term};
use tokamak::Bytes;

/// Takes it for granted that there is such a key.
#[tokamak::op(blocking)]
fn length(store: Handle, key: Bytes) -> usize {
    store.read(&key).expect("the key is there").len()
}

/// Checks its own result too late.
struct Percent(u64);

impl Encoder for Percent {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        assert!(self.0 <= 100, "{} percent", self.0);
        self.0.encode(env)
    }
}

/// How much of `of` a part is.
#[tokamak::op]
async fn percent(part: u64, of: u64) -> Percent {
    Percent(part * 100 / of.max(1))
}
