// SPDX-License-Identifier: Apache-2.0
//! Places that are filled as they are needed, and looked up without a lock.
//!
//! In chunks of as many places as there are chunks: of many places that are allowed, those that are used take memory and
//! time.

use std::sync::OnceLock;

pub(super) struct Slots<T> {
    limit: usize,
    chunk: usize,
    chunks: Box<[OnceLock<Chunk<T>>]>,
}

type Chunk<T> = Box<[OnceLock<T>]>;

impl<T> Slots<T> {
    /// Places from 0, so many at most.
    pub(super) fn new(limit: usize) -> Self {
        let chunk = limit.isqrt() + 1;
        Self {
            limit,
            chunk,
            chunks: empty(limit.div_ceil(chunk)),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        let chunk = self.chunks.get(index / self.chunk)?.get()?;
        chunk.get(index % self.chunk)?.get()
    }

    /// Fills a place, unless that was done; `None` beyond the limit.
    pub(super) fn get_or_fill(&self, index: usize, fill: impl FnOnce() -> T) -> Option<&T> {
        if index >= self.limit {
            return None;
        }
        let chunk = self.chunks.get(index / self.chunk)?;
        let chunk = chunk.get_or_init(|| empty(self.chunk));
        Some(chunk.get(index % self.chunk)?.get_or_init(fill))
    }

    /// What is filled.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let chunks = self.chunks.iter().filter_map(OnceLock::get);
        chunks.flatten().filter_map(OnceLock::get)
    }
}

fn empty<T>(count: usize) -> Box<[OnceLock<T>]> {
    (0..count).map(|_| OnceLock::new()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once_up_to_the_limit() {
        for limit in [1, 2, 3, 10, 16, 1000] {
            let slots = Slots::new(limit);
            for index in 0..limit {
                assert_eq!(slots.get(index), None);
                assert_eq!(slots.get_or_fill(index, || index), Some(&index));
                assert_eq!(slots.get_or_fill(index, || 0), Some(&index));
                assert_eq!(slots.get(index), Some(&index));
            }
            assert_eq!(slots.get_or_fill(limit, || 0), None);
            assert!(slots.iter().copied().eq(0..limit));
        }
    }

    #[test]
    fn what_is_not_used_takes_no_chunk() {
        let slots = Slots::new(1 << 24);
        slots.get_or_fill(5_000_000, || ());
        assert_eq!(slots.iter().count(), 1);
        assert_eq!(
            slots
                .chunks
                .iter()
                .filter(|chunk| chunk.get().is_some())
                .count(),
            1
        );
    }
}
