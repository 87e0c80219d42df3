// SPDX-License-Identifier: Apache-2.0
//! A process that waits for one message, `{tokamak, Ref, What}`.

use crate::atoms;
use rustler::{Encoder, Env, LocalPid, Term};
use tokamak::environment::{self, SavedTerm, Sender};

/// Who waits, and for which reference.
pub struct Waiter {
    pub pid: LocalPid,
    reference: SavedTerm,
}

impl Waiter {
    /// The calling process, if it gave a reference.
    pub fn calling(env: Env, reference: Term) -> Option<Self> {
        reference.is_ref().then(|| Self {
            pid: env.pid(),
            reference: SavedTerm::save(reference),
        })
    }

    pub fn send(self, sender: Sender, what: impl FnOnce(Env) -> Term) {
        sender.send(&self.pid, |env| {
            (atoms::tokamak(), self.reference.load(env), what(env)).encode(env)
        });
    }

    pub fn send_anywhere(self, what: impl FnOnce(Env) -> Term + Send + 'static) {
        environment::send_anywhere(self.pid, move |env| {
            (atoms::tokamak(), self.reference.load(env), what(env)).encode(env)
        });
    }
}
