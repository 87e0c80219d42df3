// SPDX-License-Identifier: Apache-2.0
//! When a run of work that discovers work is over.
//!
//! One word holds the number of outstanding items and two flags:
//!
//! ```text
//!                 close, items = 0
//!   open ------------------------------------> finished (the word is 0)
//!    |  \                                        ^
//!    |   \  close, items > 0                     | the last item is settled
//!    |    ------------------------> closed ------+
//!    |                                |
//!    +--------- stop -----------------+--------> stopped
//! ```
//!
//! An item is outstanding from before it is queued until the items it discovered are outstanding
//! themselves. So the word never reaches 0 while work is queued, in hand, or on its way, and the
//! one operation that brings it there knows that it did. Counting too many is safe, as long as it is
//! taken back before whoever counted goes to sleep.

use crate::sync::{AtomicU64, Ordering};

const OPEN: u64 = 0b01;
const STOPPED: u64 = 0b10;
const ITEM: u64 = 0b100;
const FINISHED: u64 = 0;

/// No items are taken from outside any more: the run was closed, stopped, or is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// The outstanding items of a run and whether more may come; see the [module](self).
#[derive(Debug)]
pub(crate) struct Termination {
    word: AtomicU64,
}

impl Termination {
    /// Open, with nothing outstanding.
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(OPEN),
        }
    }

    /// Counts items that come from outside, before they are queued.
    pub(crate) fn admit(&self, items: u64) -> Result<(), Closed> {
        let admitted = |word| (word & (OPEN | STOPPED) == OPEN).then_some(word + items * ITEM);
        let result = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, admitted);
        result.map(|_| ()).map_err(|_| Closed)
    }

    /// Counts items that an outstanding item discovered, before they are queued.
    pub(crate) fn dispatch(&self, items: u64) {
        // The caller's own item keeps the word from 0, and it settles that one later: no order needed.
        self.word.fetch_add(items * ITEM, Ordering::Relaxed);
    }

    /// Takes back items that were counted. `true`: the run is finished, and the caller has to tell.
    #[must_use]
    pub(crate) fn settle(&self, items: u64) -> bool {
        let before = self.word.fetch_sub(items * ITEM, Ordering::AcqRel);
        items > 0 && before == items * ITEM
    }

    /// Takes no more from outside. `true`: the run is finished, and the caller has to tell.
    #[must_use]
    pub(crate) fn close(&self) -> bool {
        self.word.fetch_and(!OPEN, Ordering::AcqRel) == OPEN
    }

    /// Ends the run as it is. `true`: this call ended it, and the caller has to tell; `false`: it was
    /// over before.
    #[must_use]
    pub(crate) fn stop(&self) -> bool {
        let stopped = |word| (!is_over(word)).then_some(word | STOPPED);
        self.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, stopped)
            .is_ok()
    }

    /// Whether the run is finished or stopped.
    pub(crate) fn is_over(&self) -> bool {
        is_over(self.word.load(Ordering::Acquire))
    }

    /// Whether the run was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.word.load(Ordering::Acquire) & STOPPED != 0
    }
}

fn is_over(word: u64) -> bool {
    word == FINISHED || word & STOPPED != 0
}
