// SPDX-License-Identifier: Apache-2.0
//! How long it takes from a wake to the drain that it is for.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tokamak::stopwatch;
use tokamak_core::histogram::{Histogram, Snapshot};
use tokamak_core::sharded::Sharded;

/// One in so many wakes of a loop is timed: two looks at the clock cost as much as some events.
pub const SAMPLE: u64 = 8;

static TIMES: LazyLock<Sharded<Histogram>> = LazyLock::new(|| Sharded::new(Histogram::new));

/// The times of all loops since the library was loaded, in nanoseconds.
pub fn times() -> Snapshot {
    let mut snapshot = Snapshot::default();
    TIMES.iter().for_each(|times| snapshot.add(times));
    snapshot
}

/// The wakes of a loop.
#[derive(Default)]
pub struct Wakes {
    /// Roughly: of two that are sent at a time one may be missed.
    sent: AtomicU64,
    /// When a wake that is timed was sent; 0: none is under way.
    sent_at: AtomicU64,
}

impl Wakes {
    /// A wake is about to be sent.
    pub fn sending(&self) {
        let sent = self.sent.load(Ordering::Relaxed);
        self.sent.store(sent + 1, Ordering::Relaxed);
        if sent.is_multiple_of(SAMPLE) {
            self.sent_at.store(stopwatch::ticks(), Ordering::Relaxed);
        }
    }

    /// The consumer is there.
    pub fn arrived(&self) {
        if self.sent_at.load(Ordering::Relaxed) != 0 {
            self.record();
        }
    }

    #[cold]
    fn record(&self) {
        let sent_at = self.sent_at.swap(0, Ordering::Relaxed);
        if sent_at != 0 {
            TIMES.get().record(stopwatch::nanoseconds_since(sent_at));
        }
    }
}
