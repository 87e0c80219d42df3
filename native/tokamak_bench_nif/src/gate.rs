// SPDX-License-Identifier: Apache-2.0
//! Where threads wait until they are told to go, so that their start is not measured.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Starts a thread under a name that a profiler shows; `None` when the system has no more.
pub fn start<R: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> R + Send + 'static,
) -> Option<JoinHandle<R>> {
    Builder::new().name(name.to_owned()).spawn(run).ok()
}

/// What the threads are told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Go,
    /// Nobody needs them any more.
    End,
}

#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rounds: u64,
    ended: bool,
}

impl Gate {
    /// Lets every thread pass once more.
    pub fn open(&self) {
        self.change(|state| state.rounds += 1);
    }

    /// Sends every thread home.
    pub fn end(&self) {
        self.change(|state| state.ended = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits for round number `round`, counted from 1. A round that was begun is not taken back.
    pub fn wait(&self, round: u64) -> Order {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |state: &mut State| state.rounds < round && !state.ended;
        let state = self
            .changed
            .wait_while(state, waits)
            .unwrap_or_else(PoisonError::into_inner);
        if state.rounds < round {
            Order::End
        } else {
            Order::Go
        }
    }
}
