// SPDX-License-Identifier: Apache-2.0
//! Histograms of times, that cost a few nanoseconds to add to.
//!
//! The buckets are fixed: eight of equal width for each power of two. So a value is known to an eighth of
//! itself, over the whole range from a nanosecond to an hour, in 2.5 KiB.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets for each power of two, as a power of two.
const PRECISION: u32 = 3;
const PER_OCTAVE: usize = 1 << PRECISION;
/// Values from this power of two on are in the last bucket: as nanoseconds, 73 minutes.
const OCTAVES: u32 = 42;

/// How many buckets a histogram has.
pub const BUCKETS: usize = (OCTAVES - PRECISION + 1) as usize * PER_OCTAVE;

/// The bucket of a value.
fn bucket_of(value: u64) -> usize {
    if value < PER_OCTAVE as u64 {
        return value as usize;
    }
    let octave = value.ilog2();
    if octave >= OCTAVES {
        return BUCKETS - 1;
    }
    let step = (value >> (octave - PRECISION)) as usize & (PER_OCTAVE - 1);
    (octave - PRECISION + 1) as usize * PER_OCTAVE + step
}

/// The lowest value that is above a bucket's. The last bucket has all greater values, too.
///
/// # Panics
/// When there is no such bucket.
#[must_use]
pub const fn end_of(bucket: usize) -> u64 {
    assert!(bucket < BUCKETS);
    if bucket < PER_OCTAVE {
        return bucket as u64 + 1;
    }
    let steps = PER_OCTAVE + bucket % PER_OCTAVE + 1;
    (steps as u64) << (bucket / PER_OCTAVE - 1)
}

/// A histogram that any thread adds to.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        }
    }

    /// Adds a value.
    pub fn record(&self, value: u64) {
        self.counts[bucket_of(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// What histograms held when they were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    counts: Vec<u64>,
    sum: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            sum: 0,
        }
    }
}

impl Snapshot {
    /// Adds what a histogram holds. While others add to that, its sum may be a little ahead or behind.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        self.sum += histogram.sum.load(Ordering::Relaxed);
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The buckets that hold something, by their ends (see [`end_of`]), with how much.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let filled = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        filled.map(|(bucket, count)| (end_of(bucket), *count))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot_of(values: &[u64]) -> Snapshot {
        let histogram = Histogram::new();
        values.iter().for_each(|value| histogram.record(*value));
        let mut snapshot = Snapshot::default();
        snapshot.add(&histogram);
        snapshot
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for bucket in 1..BUCKETS {
            let start = end_of(bucket - 1);
            assert!(start < end_of(bucket));
            assert_eq!(bucket_of(start), bucket);
            assert_eq!(bucket_of(end_of(bucket) - 1), bucket);
        }
        assert_eq!((bucket_of(0), end_of(0)), (0, 1));
    }

    #[test]
    fn powers_of_two_are_ends_of_buckets() {
        for power in 0..=OCTAVES {
            assert!((0..BUCKETS).any(|bucket| end_of(bucket) == 1 << power));
        }
    }

    #[test]
    fn values_beyond_the_range_are_in_the_last_bucket() {
        let snapshot = snapshot_of(&[1 << OCTAVES, u64::MAX >> 1]);
        let last = (end_of(BUCKETS - 1), 2);
        assert_eq!(snapshot.buckets().collect::<Vec<_>>(), [last]);
    }

    #[test]
    fn what_several_threads_record_is_all_there() {
        let histogram = Histogram::new();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let histogram = &histogram;
                scope.spawn(move || (0..10_000).for_each(|_| histogram.record(thread)));
            }
        });
        let mut snapshot = Snapshot::default();
        snapshot.add(&histogram);
        assert_eq!((snapshot.count(), snapshot.sum()), (40_000, 100_000));
        let expected = [2, 3, 4, 5].map(|end| (end, 10_000));
        assert_eq!(snapshot.buckets().collect::<Vec<_>>(), expected);
    }

    proptest! {
        #[test]
        fn a_value_is_below_the_end_of_its_bucket_by_an_eighth_at_most(value in 0..1u64 << OCTAVES) {
            let end = end_of(bucket_of(value));
            prop_assert!(value < end);
            prop_assert!(end - 1 - value <= value / 8);
        }

        #[test]
        fn count_and_sum_are_those_of_the_values(values in prop::collection::vec(0..1u64 << 50, 0..200)) {
            let snapshot = snapshot_of(&values);
            prop_assert_eq!(snapshot.count(), values.len() as u64);
            prop_assert_eq!(snapshot.sum(), values.iter().sum::<u64>());
            prop_assert!(snapshot.buckets().all(|(_, count)| count > 0));
        }
    }
}
