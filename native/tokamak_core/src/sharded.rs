// SPDX-License-Identifier: Apache-2.0
//! Counters that many threads count up and hardly anybody reads: threads are spread over several of them.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there are of each: enough that threads which are busy at a time seldom meet.
const SHARDS: usize = 8;

/// Keeps its content away from what other processors write.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// Several of the same; each thread uses one of them. They may be large, and are first used on threads with small
/// stacks: so each is made by itself and kept on the heap.
#[derive(Debug)]
pub struct Sharded<T>(Vec<Apart<T>>);

impl<T> Sharded<T> {
    /// Makes them.
    pub fn new(make: impl Fn() -> T) -> Self {
        Self((0..SHARDS).map(|_| Apart(make())).collect())
    }

    /// The one of the calling thread. Others may use it, too.
    pub fn get(&self) -> &T {
        &self.0[shard_of_thread()].0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }
}

/// The number of the calling thread, given at its first call.
fn shard_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn a_thread_keeps_its_shard() {
        let counters = Sharded::new(|| AtomicU64::new(0));
        assert!(std::ptr::eq(counters.get(), counters.get()));
    }

    #[test]
    fn what_threads_count_adds_up() {
        let counters = Sharded::new(|| AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counters.get().fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let sum: u64 = counters.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, 2 * SHARDS as u64 * 1000);
        let used = counters.iter().filter(|n| n.load(Ordering::Relaxed) > 0);
        assert!(used.count() > 1, "threads are spread");
    }
}
