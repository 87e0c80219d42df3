// SPDX-License-Identifier: Apache-2.0
//! Credit for batches of results: a window of them may be with the consumer at a time.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How long a result waits for others to share its batch.
pub(super) const MAX_AGE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Delivery {
    credits: Semaphore,
    unacknowledged: AtomicUsize,
}

impl Delivery {
    pub(super) fn new(window: NonZeroUsize) -> Self {
        Self {
            credits: Semaphore::new(window.get().min(Semaphore::MAX_PERMITS)),
            unacknowledged: AtomicUsize::new(0),
        }
    }

    /// Waits until a batch may be delivered, and counts it.
    pub(super) async fn credit(&self) {
        if let Ok(credit) = self.credits.acquire().await {
            self.count(credit);
        }
    }

    /// Like [`credit`](Self::credit), without waiting. `false`: no batch may be delivered now.
    pub(super) fn try_credit(&self) -> bool {
        self.credits
            .try_acquire()
            .map(|credit| self.count(credit))
            .is_ok()
    }

    /// Like [`credit`](Self::credit), but while the consumer is busy with another batch, the oldest
    /// result waits for others to join it (as in Nagle's algorithm, RFC 896).
    pub(super) async fn credit_when_due(&self, oldest: Instant) {
        if !self.is_idle() {
            tokio::time::sleep_until(oldest + MAX_AGE).await;
        }
        self.credit().await;
    }

    /// Whether the consumer has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.unacknowledged.load(Ordering::Relaxed) == 0
    }

    fn count(&self, credit: SemaphorePermit<'_>) {
        credit.forget();
        self.unacknowledged.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ack(&self, batches: usize) {
        let rest = |unacknowledged: usize| Some(unacknowledged.saturating_sub(batches));
        let before = self
            .unacknowledged
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        let (Ok(before) | Err(before)) = before;
        self.credits.add_permits(before.min(batches));
    }
}
