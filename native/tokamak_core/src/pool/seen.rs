// SPDX-License-Identifier: Apache-2.0
//! The keys that were seen: a set in shards, each under a lock.
//!
//! A set of many keys is not in any cache, and a lock keeps the processor from looking for the next key
//! while one is on its way from memory. So keys are looked up by the batch, shard by shard: one lock for
//! all keys of a shard, whose ways from memory then overlap.

use std::hash::{BuildHasher, Hash};
use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use crossbeam_utils::CachePadded;
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;

/// So many shards for each worker that has a core: fewer are locked by two at once, more of them miss the cache.
const SHARDS_PER_WORKER: usize = 8;

/// Asking for it reads files.
static CORES: LazyLock<usize> =
    LazyLock::new(|| available_parallelism().map_or(1, NonZeroUsize::get));

/// Growing locks a shard: some more keep that short.
const MIN_SHARDS: usize = 16;
const MAX_SHARDS: usize = 1024;

/// The most keys that are looked up together.
pub(crate) const BATCH: usize = if cfg!(loom) { 2 } else { 128 };

pub(super) struct Seen<K> {
    /// Seeded, as keys may be anybody's choice.
    hasher: RandomState,
    shards: Box<[CachePadded<Mutex<HashTable<K>>>]>,
}

/// The room that a batch takes, kept from one to the next.
pub(super) struct Batch<K> {
    candidates: Vec<Candidate<K>>,
    /// For each shard its first candidate.
    first: Vec<u32>,
}

struct Candidate<K> {
    hash: u64,
    /// `None`: it is new and in the set.
    key: Option<K>,
    /// The next one of the same shard.
    next: u32,
}

const NONE: u32 = u32::MAX;

impl<K> Batch<K> {
    pub(super) const fn new() -> Self {
        Self {
            candidates: Vec::new(),
            first: Vec::new(),
        }
    }
}

impl<K: Hash + Eq> Seen<K> {
    pub(super) fn new(workers: NonZeroUsize) -> Self {
        let shards = workers.get().min(*CORES).saturating_mul(SHARDS_PER_WORKER);
        let shards = shards.clamp(MIN_SHARDS, MAX_SHARDS).next_power_of_two();
        Self {
            hasher: RandomState::default(),
            shards: (0..shards).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Keeps those items whose key was not seen before, and of those with equal keys the first.
    pub(super) fn retain_new<T>(
        &self,
        items: &mut Vec<T>,
        key: impl Fn(&T) -> K,
        batch: &mut Batch<K>,
    ) {
        if let [item] = &items[..] {
            if !self.insert(key(item)) {
                items.clear();
            }
            return;
        }
        let mut start = 0;
        let mut is_new = Vec::with_capacity(items.len());
        while start < items.len() {
            let end = items.len().min(start + BATCH);
            self.insert_all(items[start..end].iter().map(&key), batch);
            is_new.extend(batch.candidates.drain(..).map(|one| one.key.is_none()));
            start = end;
        }
        let mut is_new = is_new.into_iter();
        items.retain(|_| is_new.next() == Some(true));
    }

    /// Frees the keys.
    pub(super) fn forget(&self) {
        for shard in &self.shards {
            drop(std::mem::take(&mut *shard.lock()));
        }
    }

    /// `true`: it was not seen before.
    fn insert(&self, key: K) -> bool {
        let hash = self.hasher.hash_one(&key);
        let mut shard = self.shards[self.shard_of(hash)].lock();
        match shard.entry(hash, |seen| *seen == key, |seen| self.hasher.hash_one(seen)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(key);
                true
            }
        }
    }

    /// Leaves a candidate for each key, in their order.
    fn insert_all(&self, keys: impl Iterator<Item = K>, batch: &mut Batch<K>) {
        let Batch { candidates, first } = batch;
        first.resize(self.shards.len(), NONE);
        for key in keys {
            let hash = self.hasher.hash_one(&key);
            candidates.push(Candidate {
                hash,
                key: Some(key),
                next: NONE,
            });
        }
        // From the last to the first, so that each shard's list is in their order.
        for (index, candidate) in candidates.iter_mut().enumerate().rev() {
            let first = &mut first[self.shard_of(candidate.hash)];
            candidate.next = std::mem::replace(first, index as u32);
        }
        for (shard, first) in self.shards.iter().zip(first) {
            let mut next = std::mem::replace(first, NONE);
            if next == NONE {
                continue;
            }
            let mut shard = shard.lock();
            while let Some(candidate) = candidates.get_mut(next as usize) {
                self.insert_candidate(&mut shard, candidate);
                next = candidate.next;
            }
        }
    }

    fn insert_candidate(&self, shard: &mut HashTable<K>, candidate: &mut Candidate<K>) {
        let is_same = |seen: &K| candidate.key.as_ref() == Some(seen);
        let entry = shard.entry(candidate.hash, is_same, |seen| self.hasher.hash_one(seen));
        if let Entry::Vacant(place) = entry
            && let Some(key) = candidate.key.take()
        {
            place.insert(key);
        }
    }

    /// By the high half: tables use the low bits, and the highest seven.
    fn shard_of(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.shards.len() - 1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn new_of(seen: &Seen<u64>, mut items: Vec<u64>) -> Vec<u64> {
        // Items with equal keys can be told apart.
        seen.retain_new(&mut items, |item| item % 1000, &mut Batch::new());
        items
    }

    #[test]
    fn of_items_with_equal_keys_the_first_is_kept_in_its_place() {
        let seen = Seen::new(NonZeroUsize::MIN);
        assert_eq!(new_of(&seen, vec![7, 1007, 3, 2003, 1003, 5]), [7, 3, 5]);
        assert_eq!(new_of(&seen, vec![1005, 4, 3, 1004]), [4]);
        assert_eq!(new_of(&seen, vec![1004]), []);
        assert_eq!(new_of(&seen, vec![6]), [6]);
        assert_eq!(new_of(&seen, Vec::new()), []);
    }

    #[test]
    fn more_items_than_a_batch_are_looked_up_too() {
        let seen = Seen::new(NonZeroUsize::MIN);
        let items: Vec<u64> = (0..10 * BATCH as u64).map(|n| n * 7919 % 100_000).collect();
        let mut kept = HashSet::new();
        let first = |item: &&u64| kept.insert(*item % 1000);
        let expected: Vec<u64> = items.iter().filter(first).copied().collect();
        assert_eq!(new_of(&seen, items.clone()), expected);
        assert_eq!(new_of(&seen, items), []);
    }

    #[test]
    fn what_is_forgotten_is_new_again() {
        let seen = Seen::new(NonZeroUsize::MIN);
        assert_eq!(new_of(&seen, vec![1, 2]), [1, 2]);
        seen.forget();
        assert_eq!(new_of(&seen, vec![2, 1]), [2, 1]);
    }

    #[test]
    fn of_threads_that_find_the_same_keys_one_keeps_each() {
        let seen = Seen::new(NonZeroUsize::MIN);
        let kept: usize = std::thread::scope(|scope| {
            let finders: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| new_of(&seen, (0..1000).collect()).len()))
                .collect();
            finders.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(kept, 1000);
    }
}
