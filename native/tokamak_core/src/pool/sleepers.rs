// SPDX-License-Identifier: Apache-2.0
//! Where workers sleep that found no work.
//!
//! A semaphore on which exactly as many permits are released as sleepers were counted out. A worker
//! announces itself, looks for work once more, and then either withdraws or waits for a permit. A
//! waker counts one sleeper out and releases one permit for it. A worker that cannot withdraw was
//! counted out by a waker: a permit is on its way to it.
//!
//! The race it handles: work comes after the worker looked and before it sleeps. Announcing and
//! adding work are each followed by a full fence before the look at the other side, so at least one
//! of the two sees the other.

use crate::pool::shim::Semaphore;
use crate::sync::{AtomicUsize, Ordering, fence};

#[derive(Debug)]
pub(crate) struct Sleepers {
    announced: AtomicUsize,
    permits: Semaphore,
    /// Without permits: only ever closed.
    end: Semaphore,
}

impl Sleepers {
    pub(crate) fn new() -> Self {
        Self {
            announced: AtomicUsize::new(0),
            permits: Semaphore::new(0),
            end: Semaphore::new(0),
        }
    }

    /// Sleeps unless `has_reason_to_stay` after all, until woken or closed. May return for nothing.
    pub(crate) async fn sleep_unless(&self, has_reason_to_stay: impl FnOnce() -> bool) {
        self.announced.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if has_reason_to_stay() && self.count_one_out() {
            return;
        }
        self.permits.take().await;
    }

    /// Whether a sleeper could be woken. To be called after work was added.
    pub(crate) fn are_there(&self) -> bool {
        fence(Ordering::SeqCst);
        self.seem_there()
    }

    /// Whether a sleeper could be woken, as far as is known here: cheap, and it may be late to know.
    pub(crate) fn seem_there(&self) -> bool {
        self.announced.load(Ordering::Relaxed) > 0
    }

    /// Wakes a sleeper, if there is one. To be called after work was added.
    pub(crate) fn wake_one(&self) -> bool {
        let woken = self.are_there() && self.count_one_out();
        if woken {
            self.permits.release_one();
        }
        woken
    }

    /// Tells those who wait for the [end](Self::ended), few, that it came.
    pub(crate) fn end(&self) {
        self.end.close();
    }

    /// Wakes all sleepers; none sleeps from now on.
    pub(crate) fn wake_all(&self) {
        self.permits.close();
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) {
        self.end.take().await;
    }

    fn count_one_out(&self) -> bool {
        let one_less = |announced: usize| announced.checked_sub(1);
        self.announced
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_less)
            .is_ok()
    }
}
