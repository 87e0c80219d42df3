// SPDX-License-Identifier: Apache-2.0
//! Workers that are made when there is work for them.
//!
//! One is called at a time, by whoever sees work and nobody who sleeps; it calls the next one itself, by taking an
//! item where more is left. So short items are done by few, and those that wait get as many as may be.
//!
//! The race it handles: work comes while one is on its way, and nobody else is called for it. Adding work and
//! arriving are each followed by a full fence before the look at the other side, as in [`sleepers`](super::sleepers):
//! either the one that arrives finds the work, or whoever added it finds that it arrived, and calls the next.

use crate::sync::{AtomicBool, AtomicUsize, Ordering, fence};

/// Has worker so many, counted from 1, come and look for work.
type Call = Box<dyn Fn(usize) + Send + Sync>;

pub(crate) struct Recruits {
    limit: usize,
    called: AtomicUsize,
    /// One was called, and has not looked for work yet.
    coming: AtomicBool,
    call: Call,
}

impl Recruits {
    pub(crate) fn new(limit: usize, call: Call) -> Self {
        Self {
            limit,
            called: AtomicUsize::new(0),
            coming: AtomicBool::new(false),
            call,
        }
    }

    pub(crate) fn none() -> Self {
        Self::new(0, Box::new(|_| {}))
    }

    /// Whether there never is one.
    pub(crate) fn are_none(&self) -> bool {
        self.limit == 0
    }

    /// Whether one could be called, as far as is known here. After a fence it is known well enough.
    pub(crate) fn seem_there(&self) -> bool {
        self.called.load(Ordering::Relaxed) < self.limit && !self.coming.load(Ordering::Relaxed)
    }

    /// Calls one, if there is one to call and none is on its way. To be called after work was added, and a fence.
    pub(crate) fn call_one(&self) {
        if !self.seem_there() || self.coming.swap(true, Ordering::AcqRel) {
            return;
        }
        // One thread at a time comes here, until the one it calls arrives.
        let called = self.called.load(Ordering::Relaxed);
        if called < self.limit {
            self.called.store(called + 1, Ordering::Relaxed);
            (self.call)(called + 1);
        }
    }

    /// One that was called looks for work from now on.
    pub(crate) fn arrive(&self) {
        self.coming.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Recruits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Recruits")
            .field("limit", &self.limit)
            .field("called", &self.called)
            .finish_non_exhaustive()
    }
}
