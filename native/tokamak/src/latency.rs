// SPDX-License-Identifier: Apache-2.0
//! How many calls ended, by kind, and how long they took.
//!
//! Of the kinds that cost so little that it would show, only some calls are timed, picked by chance: one in 64
//! eager calls, one in 8 async ones. The counts are exact but for eager calls, of which only those are counted, as
//! 64 each.

use crate::atoms;
use crate::operation::{Entry, Kind};
use crate::stopwatch::{self, Stopwatch};
use rustler::Atom;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use tokamak_core::histogram::{Histogram, Snapshot};
use tokamak_core::sharded::Sharded;
use tokamak_core::word_hasher;

/// One in so many eager calls is timed, as a power of two.
const EAGER_SAMPLE: u32 = 6;
/// One in so many async calls is timed, as a power of two.
const ASYNC_SAMPLE: u32 = 3;

/// What is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Label {
    /// Ready at its first poll; timed from the decoding of its arguments to its term.
    Eager,
    /// Everything else that is a future; timed, as those below, from the start of its task.
    Async,
    Blocking,
    /// From opening to the last item.
    Stream,
    Duplex,
    /// A gather as a whole.
    Gather,
    /// What was submitted in one call, as a whole.
    Submit,
    /// A run of a pool.
    Pool,
}

impl Label {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Eager,
        Self::Async,
        Self::Blocking,
        Self::Stream,
        Self::Duplex,
        Self::Gather,
        Self::Submit,
        Self::Pool,
    ];

    /// Its name for Erlang.
    pub fn atom(self) -> Atom {
        match self {
            Self::Eager => atoms::eager(),
            Self::Async => atoms::async_(),
            Self::Blocking => atoms::blocking(),
            Self::Stream => atoms::stream(),
            Self::Duplex => atoms::duplex(),
            Self::Gather => atoms::gather(),
            Self::Submit => atoms::submit(),
            Self::Pool => atoms::pool(),
        }
    }

    /// One in how many is timed.
    pub fn sample(self) -> u64 {
        1 << self.sample_power()
    }

    fn sample_power(self) -> u32 {
        match self {
            Self::Eager => EAGER_SAMPLE,
            Self::Async => ASYNC_SAMPLE,
            _ => 0,
        }
    }

    /// What a task of an operation is.
    pub fn of(entry: &Entry) -> Self {
        match entry.operation.kind {
            Kind::Async | Kind::Eager => Self::Async,
            Kind::Blocking => Self::Blocking,
            Kind::Stream => Self::Stream,
            Kind::Duplex => Self::Duplex,
        }
    }
}

/// Calls that were made as parts of a gather or of a `submit_many`.
static PARTS: AtomicU64 = AtomicU64::new(0);

/// Counts the parts of a batch.
pub fn count_parts(count: usize) {
    PARTS.fetch_add(count as u64, Ordering::Relaxed);
}

/// Calls that were made as parts of a batch.
pub fn parts() -> u64 {
    PARTS.load(Ordering::Relaxed)
}

/// The calls of one kind.
struct Calls {
    ended: AtomicU64,
    times: Histogram,
}

static CALLS: LazyLock<Sharded<[Calls; Label::ALL.len()]>> = LazyLock::new(|| {
    Sharded::new(|| {
        std::array::from_fn(|_| Calls {
            ended: AtomicU64::new(0),
            times: Histogram::new(),
        })
    })
});

/// What is known of the calls of a kind since the library was loaded.
pub struct Known {
    /// How many ended; of eager calls, as an estimate.
    pub ended: u64,
    /// How long the timed ones took, in nanoseconds.
    pub times: Snapshot,
}

/// What is known of a kind.
pub fn known(label: Label) -> Known {
    let mut known = Known {
        ended: 0,
        times: Snapshot::default(),
    };
    for shard in CALLS.iter() {
        let calls = &shard[label as usize];
        known.ended += calls.ended.load(Ordering::Relaxed);
        known.times.add(&calls.times);
    }
    known
}

/// Whether the call of a number is picked. Numbers that follow each other in any step are spread evenly, so
/// that a pattern in the calls meets none here.
fn is_picked(number: u64, sample_power: u32) -> bool {
    word_hasher::spread(number).leading_zeros() >= sample_power
}

/// Whether this eager call is one of the 64 that stands for all. Even a counter of the thread's own would cost
/// five per cent of it, so the chance is the processor's counter, which was looked at anyway. Calls that follow each
/// other are nearly evenly apart in it, and meet a pattern in one multiplication, but not in two.
pub fn is_eager_picked(watch: &Stopwatch) -> bool {
    let spread = word_hasher::spread(watch.start_ticks());
    is_picked(spread ^ (spread >> 32), EAGER_SAMPLE)
}

/// Counts an eager call that was picked.
#[cold]
pub fn eager_ended(nanoseconds: u64) {
    let calls = &CALLS.get()[Label::Eager as usize];
    calls.ended.fetch_add(1 << EAGER_SAMPLE, Ordering::Relaxed);
    calls.times.record(nanoseconds);
}

/// A call whose end is counted.
pub struct Measured {
    /// The label and one; 0 before the start and after the end.
    label: AtomicU8,
    /// When it started, if it is timed.
    started: AtomicU64,
}

impl Measured {
    /// A call that has not started.
    pub const fn new() -> Self {
        Self {
            label: AtomicU8::new(0),
            started: AtomicU64::new(0),
        }
    }

    /// It starts: on the thread that then makes it known to others.
    pub fn start(&self, label: Label, number: u64) {
        if is_picked(number, label.sample_power()) {
            self.started.store(stopwatch::ticks(), Ordering::Relaxed);
        }
        self.label.store(label as u8 + 1, Ordering::Relaxed);
    }

    /// It ends; another end counts for nothing.
    pub fn end(&self) {
        let Some(label) = self.label.swap(0, Ordering::Relaxed).checked_sub(1) else {
            return;
        };
        let calls = &CALLS.get()[usize::from(label)];
        calls.ended.fetch_add(1, Ordering::Relaxed);
        let started = self.started.load(Ordering::Relaxed);
        if started != 0 {
            calls.times.record(stopwatch::nanoseconds_since(started));
        }
    }
}
