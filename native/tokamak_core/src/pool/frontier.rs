// SPDX-License-Identifier: Apache-2.0
//! The items that wait to be worked on, the workers that wait for items, and the end of both.
//!
//! Wakes are given by whoever takes an item and sees that more is left, so a worker that goes on
//! with what it discovered itself wakes nobody, and a woken worker wakes the next one while there is
//! more to do. Items from outside wake a worker at once.

use crate::pool::shim::Queue;
use crate::pool::sleepers::Sleepers;
use crate::pool::termination::{Closed, Termination};

/// How many items a worker counts beyond those it dispatches, so that it rarely touches the counter
/// that all workers share.
const COUNTED_AHEAD: u64 = if cfg!(loom) { 1 } else { 256 };

/// Queue, sleeping workers and termination of one run.
#[derive(Debug)]
pub(crate) struct Frontier<T> {
    queue: Queue<T>,
    sleepers: Sleepers,
    termination: Termination,
}

impl<T> Frontier<T> {
    pub(crate) fn new() -> Self {
        Self {
            queue: Queue::new(),
            sleepers: Sleepers::new(),
            termination: Termination::new(),
        }
    }

    /// Queues those of `candidates` items from outside that `fresh` leaves. They are counted before
    /// `fresh` runs: what it notes about them (that they were seen) is true only if they are taken.
    pub(crate) fn admit<I: Iterator<Item = T>>(
        &self,
        candidates: u64,
        fresh: impl FnOnce() -> I,
    ) -> Result<(), Closed> {
        self.termination.admit(candidates)?;
        let mut surplus = candidates;
        for item in fresh() {
            surplus -= 1;
            self.queue.push(item);
            self.sleepers.wake_one();
        }
        self.settle(surplus);
        Ok(())
    }

    /// Takes no more items from outside; the run finishes with those it has and discovers.
    pub(crate) fn close(&self) {
        if self.termination.close() {
            self.sleepers.close();
        }
    }

    /// Ends the run as it is. `true`: this call ended it.
    pub(crate) fn stop(&self) -> bool {
        let stopped = self.termination.stop();
        if stopped {
            self.sleepers.close();
        }
        stopped
    }

    /// Whether the run was ended by [`stop`](Self::stop).
    pub(crate) fn is_stopped(&self) -> bool {
        self.termination.is_stopped()
    }

    /// Drops what a stopped run left.
    pub(crate) fn clear(&self) {
        while self.queue.pop().is_some() {}
    }

    fn settle(&self, items: u64) {
        if items > 0 && self.termination.settle(items) {
            self.sleepers.close();
        }
    }

    fn wake_one_if_more_is_left(&self) {
        if self.sleepers.are_there() && !self.queue.is_empty() {
            self.sleepers.wake_one();
        }
    }
}

/// One worker's hold on the frontier. To be dropped only after [`next`](Self::next) gave `None`, or
/// after the run was stopped: what it counted would be outstanding for ever.
#[derive(Debug)]
pub(crate) struct Worker<'a, T> {
    frontier: &'a Frontier<T>,
    /// Counted as outstanding, but neither queued nor in hand.
    counted: u64,
}

impl<'a, T> Worker<'a, T> {
    pub(crate) fn new(frontier: &'a Frontier<T>) -> Self {
        Self {
            frontier,
            counted: 0,
        }
    }

    /// The next item without waiting, unless the run was stopped.
    #[inline]
    pub(crate) fn try_next(&self) -> Option<T> {
        if self.frontier.termination.is_stopped() {
            return None;
        }
        let item = self.frontier.queue.pop()?;
        self.frontier.wake_one_if_more_is_left();
        Some(item)
    }

    /// The next item; `None` when the run is over. An item taken has to be [finished](Self::finish).
    pub(crate) async fn next(&mut self) -> Option<T> {
        let frontier = self.frontier;
        loop {
            if let Some(item) = self.try_next() {
                return Some(item);
            }
            frontier.settle(std::mem::take(&mut self.counted));
            if frontier.termination.is_over() {
                return None;
            }
            // The end needs no second look: closed sleepers keep nobody.
            frontier
                .sleepers
                .sleep_unless(|| !frontier.queue.is_empty())
                .await;
        }
    }

    /// Queues what the item in hand discovered.
    pub(crate) fn dispatch(&mut self, items: impl ExactSizeIterator<Item = T>) {
        let needed = items.len() as u64;
        if self.counted < needed {
            let more = needed - self.counted + COUNTED_AHEAD;
            self.frontier.termination.dispatch(more);
            self.counted += more;
        }
        self.counted -= needed;
        for item in items {
            self.frontier.queue.push(item);
        }
    }

    /// The item in hand is done, and all that it discovered is dispatched.
    pub(crate) fn finish(&mut self) {
        self.counted += 1;
    }

    /// To be called before the worker waits for something else than work.
    pub(crate) fn leave_the_rest_to_others(&self) {
        self.frontier.wake_one_if_more_is_left();
    }
}
