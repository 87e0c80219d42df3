// SPDX-License-Identifier: Apache-2.0
//! Which items are new, and the totals of a run.

use std::hash::Hash;
use std::mem;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

use super::seen::{Batch, Seen};
use super::{Stats, Work};

#[derive(Default)]
struct Counters {
    dispatched: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    duplicates: AtomicU64,
    refused: AtomicU64,
}

pub(super) struct Discovery<K> {
    seen: Seen<K>,
    /// How many items may still be dispatched, where that is limited.
    room: Option<AtomicU64>,
    counters: CachePadded<Counters>,
}

impl<K: Hash + Eq> Discovery<K> {
    pub(super) fn new(workers: NonZeroUsize, max_items: Option<NonZeroU64>) -> Self {
        Self {
            seen: Seen::new(workers),
            room: max_items.map(|max| AtomicU64::new(max.get())),
            counters: CachePadded::default(),
        }
    }

    /// Keeps the items that are to be run, and counts all of them.
    pub(super) fn select<W: Work<Key = K>>(
        &self,
        work: &W,
        items: &mut Vec<W::Item>,
        batch: &mut Batch<K>,
    ) {
        let candidates = items.len();
        self.seen.retain_new(items, |item| work.key(item), batch);
        let new = items.len();
        items.truncate(self.reserve(new));
        self.publish(&mut Stats {
            dispatched: items.len() as u64,
            refused: (new - items.len()) as u64,
            duplicates: (candidates - new) as u64,
            ..Stats::default()
        });
    }

    /// Frees the keys.
    pub(super) fn forget(&self) {
        self.seen.forget();
    }

    fn reserve(&self, wanted: usize) -> usize {
        let Some(room) = &self.room else {
            return wanted;
        };
        let rest = |room: u64| Some(room.saturating_sub(wanted as u64));
        let (Ok(before) | Err(before)) = room.fetch_update(Relaxed, Relaxed, rest);
        before.min(wanted as u64) as usize
    }

    /// Adds to the totals, and takes what was added.
    pub(super) fn publish(&self, stats: &mut Stats) {
        let Stats {
            dispatched,
            succeeded,
            failed,
            duplicates,
            refused,
        } = mem::take(stats);
        for (total, count) in [
            (&self.counters.dispatched, dispatched),
            (&self.counters.succeeded, succeeded),
            (&self.counters.failed, failed),
            (&self.counters.duplicates, duplicates),
            (&self.counters.refused, refused),
        ] {
            if count > 0 {
                total.fetch_add(count, Relaxed);
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let Counters {
            dispatched,
            succeeded,
            failed,
            duplicates,
            refused,
        } = &*self.counters;
        Stats {
            dispatched: dispatched.load(Relaxed),
            succeeded: succeeded.load(Relaxed),
            failed: failed.load(Relaxed),
            duplicates: duplicates.load(Relaxed),
            refused: refused.load(Relaxed),
        }
    }
}
