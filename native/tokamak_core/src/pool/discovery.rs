// SPDX-License-Identifier: Apache-2.0
//! Which items are new, and the totals of a run.

use std::hash::Hash;
use std::mem;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;
use dashmap::DashMap;
use foldhash::quality::RandomState;

use super::{Stats, Work};

/// So many shards for each worker, as dashmap has them for each processor: fewer are locked by two at once, more
/// of them miss the cache.
const SHARDS_PER_WORKER: usize = 8;

/// Rehashing locks a shard: some more keep that short.
const MIN_SHARDS: usize = 16;
const MAX_SHARDS: usize = 1024;

#[derive(Default)]
struct Counters {
    dispatched: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    duplicates: AtomicU64,
    refused: AtomicU64,
}

pub(super) struct Discovery<K> {
    /// Seeded, as keys may be anybody's choice.
    seen: DashMap<K, (), RandomState>,
    /// How many items may still be dispatched, where that is limited.
    room: Option<AtomicU64>,
    counters: CachePadded<Counters>,
}

impl<K: Hash + Eq> Discovery<K> {
    pub(super) fn new(workers: NonZeroUsize, max_items: Option<NonZeroU64>) -> Self {
        let shards = workers.get().saturating_mul(SHARDS_PER_WORKER);
        let shards = shards.clamp(MIN_SHARDS, MAX_SHARDS).next_power_of_two();
        Self {
            seen: DashMap::with_hasher_and_shard_amount(RandomState::default(), shards),
            room: max_items.map(|max| AtomicU64::new(max.get())),
            counters: CachePadded::default(),
        }
    }

    /// Appends the items to `fresh` that are to be run, and counts all of them in `stats`.
    pub(super) fn select<W: Work<Key = K>>(
        &self,
        work: &W,
        items: Vec<W::Item>,
        fresh: &mut Vec<W::Item>,
        stats: &mut Stats,
    ) {
        let (before, candidates) = (fresh.len(), items.len());
        fresh.extend(
            items
                .into_iter()
                .filter(|item| self.seen.insert(work.key(item), ()).is_none()),
        );
        let new = fresh.len() - before;
        let granted = self.reserve(new);
        fresh.truncate(before + granted);
        stats.dispatched += granted as u64;
        stats.refused += (new - granted) as u64;
        stats.duplicates += (candidates - new) as u64;
    }

    /// Frees the keys.
    pub(super) fn forget(&self) {
        self.seen.clear();
        self.seen.shrink_to_fit();
    }

    fn reserve(&self, wanted: usize) -> usize {
        let Some(room) = &self.room else {
            return wanted;
        };
        let rest = |room: u64| Some(room.saturating_sub(wanted as u64));
        let (Ok(before) | Err(before)) = room.fetch_update(Relaxed, Relaxed, rest);
        before.min(wanted as u64) as usize
    }

    /// Adds a worker's counts to the totals.
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
