// SPDX-License-Identifier: Apache-2.0
//! Callback ids: one atomic counter for the whole library.

use std::sync::atomic::{AtomicU64, Ordering};

/// The largest id a callback may have: what a signed 64-bit integer holds.
pub const MAX_ID: u64 = i64::MAX as u64;

/// Where the last block ends: single ids, of which there is always a next, have the rest for themselves.
const BLOCKS_END: u64 = MAX_ID / 2;

/// The most ids of one block, so that no caller takes those of all others.
const MAX_BLOCK: u64 = 1 << 40;

/// A source of ids that are unique and increasing for as long as it lives.
#[derive(Debug)]
pub struct IdCounter {
    next: AtomicU64,
}

impl IdCounter {
    /// A counter whose first id is 1.
    pub const fn new() -> Self {
        Self {
            next: AtomicU64::new(1),
        }
    }

    /// Takes the next id.
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Reserves the block `first..first + count` and returns `first`, or `None` where `count` is above
    /// 2^40 or the ids that are left do not suffice (the counter then stands where it stood).
    pub fn reserve(&self, count: u64) -> Option<u64> {
        if count > MAX_BLOCK {
            return None;
        }
        let available = |next: u64| next.checked_add(count).filter(|end| *end <= BLOCKS_END);
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, available)
            .ok()
    }
}

impl Default for IdCounter {
    fn default() -> Self {
        Self::new()
    }
}

/// The counter that Erlang (`tokamak_id`), native code and foreign runtimes share.
pub static CALLBACK_IDS: IdCounter = IdCounter::new();

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Arc;

    #[test]
    fn ids_start_at_one_and_a_block_is_contiguous() {
        let ids = IdCounter::new();
        assert_eq!(ids.next(), 1);
        assert_eq!(ids.reserve(10), Some(2));
        assert_eq!(ids.next(), 12);
    }

    #[test]
    fn a_block_beyond_the_largest_id_is_refused_and_takes_nothing() {
        let ids = IdCounter::new();
        assert_eq!(ids.reserve(u64::MAX), None);
        assert_eq!(ids.reserve(MAX_ID), None);
        assert_eq!(ids.next(), 1);
    }

    #[test]
    fn after_all_blocks_there_is_a_next_id() {
        let ids = IdCounter::new();
        let last = (0..1 << 23).map_while(|_| ids.reserve(MAX_BLOCK)).last();
        assert!(last.is_some_and(|first| first + MAX_BLOCK <= BLOCKS_END));
        assert_eq!(ids.reserve(MAX_BLOCK), None);
        assert!(ids.next() <= BLOCKS_END);
    }

    #[test]
    fn threads_never_get_the_same_id() {
        let ids = Arc::new(IdCounter::new());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let ids = Arc::clone(&ids);
                std::thread::spawn(move || (0..10_000).map(|_| ids.next()).collect::<Vec<_>>())
            })
            .collect();
        let all: Vec<u64> = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("the thread ended"))
            .collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 40_000);
    }
}
