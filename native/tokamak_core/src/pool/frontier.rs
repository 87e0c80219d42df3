// SPDX-License-Identifier: Apache-2.0
//! The items that wait to be worked on, the workers that wait for items, and the end of both.
//!
//! Wakes are given by whoever takes an item and sees that more is left, so a worker that goes on
//! with what it discovered itself wakes nobody, and a woken worker wakes the next one while there is
//! more to do. Items from outside wake a worker at once.
//!
//! A worker whose items are short takes and queues them by the chunk, as the queue is shared by all: what
//! it [keeps](Worker::keep) it shares when another sleeps, and before it waits for anything.

use std::{mem, vec};

use crate::pool::recruits::Recruits;
use crate::pool::seen::BATCH;
use crate::pool::shim::Queue;
use crate::pool::sleepers::Sleepers;
use crate::pool::termination::{Closed, Termination};

/// How many items a worker counts beyond those it dispatches, so that it rarely touches the counter
/// that all workers share.
const COUNTED_AHEAD: u64 = if cfg!(loom) { 1 } else { 256 };

/// The most items that are queued together.
pub(crate) const CHUNK: usize = if cfg!(loom) { 2 } else { 32 };

/// What is queued together. An item by itself needs no memory of its own.
#[derive(Debug)]
enum Chunk<T> {
    One(T),
    Many(Vec<T>),
}

/// Queue, sleeping workers and termination of one run.
#[derive(Debug)]
pub(crate) struct Frontier<T> {
    queue: Queue<Chunk<T>>,
    sleepers: Sleepers,
    recruits: Recruits,
    termination: Termination,
}

impl<T> Frontier<T> {
    /// For workers that are all there, or come when they are called.
    pub(crate) fn new(recruits: Recruits) -> Self {
        Self {
            queue: Queue::new(),
            sleepers: Sleepers::new(),
            recruits,
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
            self.queue.push(Chunk::One(item));
            self.wake_one();
        }
        self.settle(surplus);
        Ok(())
    }

    /// Takes no more items from outside; the run finishes with those it has and discovers.
    pub(crate) fn close(&self) {
        if self.termination.close() {
            self.tell_end();
        }
    }

    /// Ends the run as it is. `true`: this call ended it, and the caller has to [tell](Self::tell_stop).
    #[must_use]
    pub(crate) fn stop(&self) -> bool {
        self.termination.stop()
    }

    /// Tells of the [`stop`](Self::stop).
    pub(crate) fn tell_stop(&self) {
        self.tell_end();
    }

    /// Workers that were called are left to those who have the time: see [`wake_all`](Self::wake_all).
    fn tell_end(&self) {
        self.sleepers.end();
        if self.recruits.are_none() {
            self.wake_all();
        }
    }

    /// Wakes all who sleep, after the end, where workers were called. Takes its time where they are many.
    pub(crate) fn wake_all(&self) {
        self.sleepers.wake_all();
    }

    /// Whether the run was ended by [`stop`](Self::stop).
    pub(crate) fn is_stopped(&self) -> bool {
        self.termination.is_stopped()
    }

    /// Drops what a stopped run left.
    pub(crate) fn clear(&self) {
        while self.queue.pop().is_some() {}
    }

    /// Takes back items that were counted: those that are done, and those that turned out as seen.
    pub(crate) fn settle(&self, items: u64) {
        if items > 0 && self.termination.settle(items) {
            self.tell_end();
        }
    }

    /// Counts items that an item in hand discovered, before it is known which of them are to be run.
    pub(crate) fn dispatch(&self, items: u64) {
        self.termination.dispatch(items);
    }

    /// Queues counted items by themselves. Wakes nobody: whoever pushes them takes one of them next, or
    /// [wakes](Self::wake_one_if_more_is_left) somebody.
    pub(crate) fn push(&self, items: Vec<T>) {
        for item in items {
            self.queue.push(Chunk::One(item));
        }
    }

    /// An item, for a worker that keeps none.
    pub(crate) fn take(&self) -> Option<T> {
        let item = match self.queue.pop()? {
            Chunk::One(item) => item,
            Chunk::Many(items) => {
                let mut items = items.into_iter();
                let item = items.next()?;
                if items.len() > 0 {
                    self.queue.push(Chunk::Many(items.collect()));
                }
                item
            }
        };
        self.wake_one_if_more_is_left();
        Some(item)
    }

    /// Sleeps until there may be an item to [`take`](Self::take), or the run is over.
    pub(crate) async fn sleep(&self) {
        self.sleepers.sleep_unless(|| !self.queue.is_empty()).await;
    }

    /// Whether the run is finished or stopped.
    pub(crate) fn is_over(&self) -> bool {
        self.termination.is_over()
    }

    /// Waits until the run is finished or stopped.
    pub(crate) async fn over(&self) {
        self.sleepers.ended().await;
    }

    /// A worker that was called looks for work from now on.
    pub(crate) fn arrive(&self) {
        self.recruits.arrive();
    }

    /// Wakes one who sleeps, or calls one, if there is something for it.
    pub(crate) fn wake_one_if_more_is_left(&self) {
        let somebody_is_there = self.sleepers.are_there() || self.recruits.seem_there();
        if somebody_is_there && !self.queue.is_empty() {
            self.wake_one();
        }
    }

    fn wake_one(&self) {
        if !self.sleepers.wake_one() {
            self.recruits.call_one();
        }
    }
}

/// One worker's hold on the frontier. To be dropped only after [`next`](Self::next) gave `None`, or
/// after the run was stopped: what it counted would be outstanding for ever.
#[derive(Debug)]
pub(crate) struct Worker<'a, T, C> {
    frontier: &'a Frontier<T>,
    /// Keeps those of discovered items that are to be run.
    choose: C,
    /// Counted as outstanding, but neither queued, kept nor in hand.
    counted: u64,
    /// How many discovered items are queued together; 1: each by itself, at once.
    chunk: usize,
    /// The rest of the chunk that is worked on.
    taken: vec::IntoIter<T>,
    /// Discovered and not chosen yet.
    candidates: Vec<T>,
    /// Chosen and not queued yet.
    chosen: Vec<T>,
}

impl<'a, T, C: FnMut(&mut Vec<T>)> Worker<'a, T, C> {
    pub(crate) fn new(frontier: &'a Frontier<T>, choose: C) -> Self {
        Self {
            frontier,
            choose,
            counted: 0,
            chunk: 1,
            taken: Vec::new().into_iter(),
            candidates: Vec::new(),
            chosen: Vec::new(),
        }
    }

    /// From now on queues so many discovered items together: an item may then wait for the one before it
    /// while another worker sleeps.
    pub(crate) fn keep(&mut self, chunk: usize) {
        self.chunk = chunk;
    }

    /// The next item without waiting, unless the run was stopped.
    #[inline]
    pub(crate) fn try_next(&mut self) -> Option<T> {
        let frontier = self.frontier;
        if frontier.termination.is_stopped() {
            return None;
        }
        if let Some(item) = self.taken.next() {
            // Without a fence: who falls asleep unseen is seen at the next item.
            if frontier.sleepers.seem_there() {
                self.leave_the_rest_to_others();
            }
            return Some(item);
        }
        self.queue_discovered();
        let item = match frontier.queue.pop()? {
            Chunk::One(item) => item,
            Chunk::Many(items) => {
                self.taken = items.into_iter();
                self.taken.next()?
            }
        };
        if frontier.sleepers.are_there() {
            self.queue_taken();
            frontier.wake_one_if_more_is_left();
        }
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

    /// Queues those of what the item in hand discovered that are to be run, or keeps them for the next chunk.
    pub(crate) fn dispatch(&mut self, mut items: Vec<T>) {
        self.count(items.len() as u64);
        self.candidates.append(&mut items);
        if self.candidates.len() >= BATCH || self.chunk == 1 {
            self.queue_candidates();
        }
    }

    /// Counts items that were discovered, before it is known which of them are to be run.
    fn count(&mut self, items: u64) {
        if self.counted < items {
            let more = items - self.counted + COUNTED_AHEAD;
            self.frontier.termination.dispatch(more);
            self.counted += more;
        }
        self.counted -= items;
    }

    /// The item in hand is done, and all that it discovered is dispatched.
    pub(crate) fn finish(&mut self) {
        self.counted += 1;
    }

    /// Queues all that is kept. To be called before the worker waits for something else than work.
    pub(crate) fn leave_the_rest_to_others(&mut self) {
        self.queue_taken();
        self.queue_discovered();
        self.frontier.wake_one_if_more_is_left();
    }

    fn queue_discovered(&mut self) {
        self.queue_candidates();
        self.queue_chosen();
    }

    fn queue_candidates(&mut self) {
        if self.candidates.is_empty() {
            return;
        }
        let mut items = mem::take(&mut self.candidates);
        let counted = items.len();
        (self.choose)(&mut items);
        self.counted += (counted - items.len()) as u64;
        for item in items.drain(..) {
            self.chosen.push(item);
            if self.chosen.len() >= self.chunk {
                self.queue_chosen();
            }
        }
        self.candidates = items;
    }

    fn queue_chosen(&mut self) {
        match self.chosen.len() {
            0 => {}
            1 => {
                if let Some(one) = self.chosen.pop() {
                    self.frontier.queue.push(Chunk::One(one));
                }
            }
            _ => {
                let next = Vec::with_capacity(self.chunk);
                let chosen = mem::replace(&mut self.chosen, next);
                self.frontier.queue.push(Chunk::Many(chosen));
            }
        }
    }

    fn queue_taken(&mut self) {
        let rest = mem::take(&mut self.taken);
        if rest.len() > 0 {
            self.frontier.queue.push(Chunk::Many(rest.collect()));
        }
    }
}
