// SPDX-License-Identifier: Apache-2.0
//! The event queue: many producers, one consumer at a time, bounded, with one wake.
//!
//! Admission and storage are apart: `pushed` counts what was let in, `released` what its consumer
//! is done with. An event that was drained but not yet delivered (it waits for a poller or for a
//! slow handler) still counts, so the bound holds over the whole way to a mailbox.

use crate::wake_flag::WakeFlag;
use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

/// What the pusher has to do after a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a lost wake is a consumer that sleeps for ever"]
pub enum Wake {
    /// Send the consumer its wake.
    Send,
    /// Nothing: the consumer is awake, or its wake is under way.
    Pending,
}

/// Why something was not let in. The item comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    /// The bound is reached.
    Overloaded(T),
    /// The queue is closed.
    Closed(T),
}

/// Counters of a queue since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueMetrics {
    /// Items let in.
    pub pushed: u64,
    /// Items delivered.
    pub drained: u64,
    /// Wakes that a producer had to send.
    pub wakes: u64,
    /// Items refused because the bound was reached.
    pub refused: u64,
    /// The most items that were ever waiting when a consumer came.
    pub high_water_mark: u64,
}

/// A bounded queue with the one-wake protocol of [`WakeFlag`].
#[derive(Debug)]
pub struct EventQueue<T> {
    items: SegQueue<T>,
    limit: u64,
    flag: CachePadded<WakeFlag>,
    pushed: CachePadded<AtomicU64>,
    released: CachePadded<AtomicU64>,
    wakes: AtomicU64,
    refused: AtomicU64,
    high_water_mark: AtomicU64,
    closed: AtomicBool,
    waiting_producers: AtomicUsize,
    space_lock: Mutex<()>,
    space: Condvar,
}

impl<T> EventQueue<T> {
    /// A queue that lets in up to `limit` items that are not yet delivered.
    pub fn new(limit: usize) -> Self {
        Self {
            items: SegQueue::new(),
            limit: limit as u64,
            flag: CachePadded::new(WakeFlag::new()),
            pushed: CachePadded::new(AtomicU64::new(0)),
            released: CachePadded::new(AtomicU64::new(0)),
            wakes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            high_water_mark: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            waiting_producers: AtomicUsize::new(0),
            space_lock: Mutex::new(()),
            space: Condvar::new(),
        }
    }

    /// Pushes an item if the bound allows it; never waits.
    ///
    /// # Errors
    /// [`Refused`] with the item, when the queue is full or closed.
    pub fn try_push(&self, item: T) -> Result<Wake, Refused<T>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Refused::Closed(item));
        }
        let before = self.pushed.fetch_add(1, Ordering::SeqCst);
        if before.wrapping_sub(self.released.load(Ordering::SeqCst)) >= self.limit {
            self.pushed.fetch_sub(1, Ordering::SeqCst);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::Overloaded(item));
        }
        self.items.push(item);
        Ok(self.notify())
    }

    /// Pushes an item that was admitted elsewhere (a timer, an fd with at most one event pending, a
    /// submitted operation): the bound does not apply, but the item counts.
    ///
    /// # Errors
    /// [`Refused::Closed`] with the item, when the queue is closed.
    pub fn push_admitted(&self, item: T) -> Result<Wake, Refused<T>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Refused::Closed(item));
        }
        self.pushed.fetch_add(1, Ordering::SeqCst);
        self.items.push(item);
        Ok(self.notify())
    }

    /// Reserves places for items that come later, by [`push_reserved`](Self::push_reserved); given back by
    /// [`release`](Self::release).
    ///
    /// # Errors
    /// [`Refused`], when there are not so many places, or the queue is closed.
    pub fn reserve(&self, count: usize) -> Result<(), Refused<()>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Refused::Closed(()));
        }
        let count = count as u64;
        let before = self.pushed.fetch_add(count, Ordering::SeqCst);
        let waiting = before.wrapping_sub(self.released.load(Ordering::SeqCst));
        if waiting + count > self.limit {
            self.pushed.fetch_sub(count, Ordering::SeqCst);
            self.refused.fetch_add(count, Ordering::Relaxed);
            return Err(Refused::Overloaded(()));
        }
        Ok(())
    }

    /// Pushes an item into a reserved place.
    ///
    /// # Errors
    /// [`Refused::Closed`] with the item, when the queue is closed.
    pub fn push_reserved(&self, item: T) -> Result<Wake, Refused<T>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Refused::Closed(item));
        }
        self.items.push(item);
        Ok(self.notify())
    }

    /// Counts `count` items that were admitted elsewhere and do not pass through the queue.
    pub fn admit(&self, count: usize) {
        self.pushed.fetch_add(count as u64, Ordering::SeqCst);
    }

    /// Pushes many admitted items with one notification at the end.
    ///
    /// # Errors
    /// [`Refused::Closed`], when the queue is closed; the items are dropped.
    pub fn push_many_admitted(
        &self,
        items: impl ExactSizeIterator<Item = T>,
    ) -> Result<Wake, Refused<()>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Refused::Closed(()));
        }
        self.pushed.fetch_add(items.len() as u64, Ordering::SeqCst);
        for item in items {
            self.items.push(item);
        }
        Ok(self.notify())
    }

    /// Pushes an item, waiting up to `timeout` while the queue is full. Blocks its thread: for
    /// native producers, never for a scheduler.
    ///
    /// # Errors
    /// [`Refused`] with the item, when the queue is still full after `timeout`, or closed.
    pub fn push_timeout(&self, item: T, timeout: Duration) -> Result<Wake, Refused<T>> {
        let mut item = match self.try_push_counted_once(item) {
            Err(Refused::Overloaded(item)) => item,
            other => return other,
        };
        let deadline = Instant::now() + timeout;
        loop {
            let mut lock = self.space_lock.lock();
            self.waiting_producers.fetch_add(1, Ordering::SeqCst);
            // Pairs with the fence of `release`: it sees us waiting, or we see what it released.
            fence(Ordering::SeqCst);
            let late = self.is_full()
                && !self.is_closed()
                && self.space.wait_until(&mut lock, deadline).timed_out();
            self.waiting_producers.fetch_sub(1, Ordering::SeqCst);
            drop(lock);
            item = match self.try_push_counted_once(item) {
                Err(Refused::Overloaded(item)) if !late => item,
                other => return other,
            };
        }
    }

    /// `try_push` whose refusals are not counted: a producer that waits was not turned away.
    fn try_push_counted_once(&self, item: T) -> Result<Wake, Refused<T>> {
        if self.is_full() && !self.is_closed() {
            return Err(Refused::Overloaded(item));
        }
        self.try_push(item)
    }

    /// Takes the oldest item. It keeps its place under the bound until it is released.
    pub fn pop(&self) -> Option<T> {
        self.items.pop()
    }

    /// Gives back the places of `count` delivered items and lets waiting producers go on.
    pub fn release(&self, count: usize) {
        if count == 0 {
            return;
        }
        let released = self.released.fetch_add(count as u64, Ordering::SeqCst);
        let waited = self.pushed.load(Ordering::Relaxed).wrapping_sub(released);
        self.high_water_mark.fetch_max(waited, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.waiting_producers.load(Ordering::SeqCst) > 0 {
            // Taking the lock means that no producer is between its last look and its sleep.
            drop(self.space_lock.lock());
            self.space.notify_all();
        }
    }

    /// To be called by the consumer when it found nothing more: `true` if it has to go on.
    #[must_use]
    pub fn rearm(&self, has_more: impl FnOnce() -> bool) -> bool {
        self.flag.rearm(|| !self.items.is_empty() || has_more())
    }

    /// Says that there is something for the consumer that is not in this queue.
    pub fn notify(&self) -> Wake {
        if self.flag.notify() {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            Wake::Send
        } else {
            Wake::Pending
        }
    }

    /// Whether a wake is under way, or the consumer is at work.
    pub fn is_notified(&self) -> bool {
        self.flag.is_notified()
    }

    /// Lets nothing more in and ends the wait of producers. What is queued can still be taken.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        drop(self.space_lock.lock());
        self.space.notify_all();
    }

    /// Whether the queue was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Items let in and not yet delivered.
    pub fn len(&self) -> u64 {
        let released = self.released.load(Ordering::SeqCst);
        self.pushed.load(Ordering::SeqCst).saturating_sub(released)
    }

    /// Whether everything that was let in is delivered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether as many items wait as may.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// The counters.
    pub fn metrics(&self) -> QueueMetrics {
        let drained = self.released.load(Ordering::SeqCst);
        let pushed = self.pushed.load(Ordering::SeqCst);
        let waiting = pushed.saturating_sub(drained);
        QueueMetrics {
            pushed,
            drained,
            wakes: self.wakes.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            high_water_mark: self.high_water_mark.load(Ordering::Relaxed).max(waiting),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    #[test]
    fn only_the_first_push_sends_a_wake_until_the_consumer_rearms() {
        let queue = EventQueue::new(8);
        assert_eq!(queue.try_push(1), Ok(Wake::Send));
        assert_eq!(queue.try_push(2), Ok(Wake::Pending));
        assert_eq!(
            (queue.pop(), queue.pop(), queue.pop()),
            (Some(1), Some(2), None)
        );
        assert!(!queue.rearm(|| false));
        assert_eq!(queue.try_push(3), Ok(Wake::Send));
        assert!(
            queue.rearm(|| false),
            "something is left, so the consumer goes on"
        );
    }

    #[test]
    fn a_full_queue_refuses_until_its_consumer_releases_and_gives_the_item_back() {
        let queue = EventQueue::new(2);
        assert!(queue.try_push("a").is_ok());
        assert!(queue.try_push("b").is_ok());
        assert_eq!(queue.try_push("c"), Err(Refused::Overloaded("c")));
        assert_eq!(queue.pop(), Some("a"));
        assert_eq!(
            queue.try_push("c"),
            Err(Refused::Overloaded("c")),
            "taken is not delivered"
        );
        queue.release(1);
        assert!(queue.try_push("c").is_ok());
        assert_eq!(queue.metrics().refused, 2);
        assert_eq!(queue.metrics().high_water_mark, 2);
    }

    #[test]
    fn a_closed_queue_refuses_and_keeps_what_it_has() {
        let queue = EventQueue::new(2);
        assert!(queue.try_push(1).is_ok());
        queue.close();
        assert_eq!(queue.try_push(2), Err(Refused::Closed(2)));
        assert_eq!(queue.push_admitted(2), Err(Refused::Closed(2)));
        assert_eq!(queue.pop(), Some(1));
    }

    #[test]
    fn a_waiting_producer_goes_on_when_a_place_is_released() {
        let queue = Arc::new(EventQueue::new(1));
        assert!(queue.try_push(1).is_ok());
        let producer = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.push_timeout(2, Duration::from_secs(60)))
        };
        assert_eq!(queue.pop(), Some(1));
        queue.release(1);
        assert!(producer.join().expect("the producer ended").is_ok());
        assert_eq!(queue.pop(), Some(2));
    }

    #[test]
    fn a_close_ends_the_wait_of_a_producer() {
        let queue = Arc::new(EventQueue::new(1));
        assert!(queue.try_push(1).is_ok());
        let (started, is_started) = mpsc::channel();
        let producer = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                started.send(()).expect("the test listens");
                queue.push_timeout(2, Duration::from_secs(60))
            })
        };
        is_started.recv().expect("the producer started");
        queue.close();
        let refused = producer.join().expect("the producer ended");
        assert_eq!(refused, Err(Refused::Closed(2)));
    }

    #[test]
    fn a_producer_that_waited_in_vain_gets_its_item_back() {
        let queue = EventQueue::new(1);
        assert!(queue.try_push(1).is_ok());
        let refused = queue.push_timeout(2, Duration::from_millis(1));
        assert_eq!(refused, Err(Refused::Overloaded(2)));
    }

    #[test]
    fn four_producers_against_a_small_bound_lose_nothing_and_keep_their_order() {
        const EACH: u64 = 50_000;
        let queue = Arc::new(EventQueue::new(64));
        let (wake, woken) = mpsc::channel();
        let producers: Vec<_> = (0..4_u64)
            .map(|producer| {
                let (queue, wake) = (Arc::clone(&queue), wake.clone());
                std::thread::spawn(move || {
                    for i in 0..EACH {
                        match queue.push_timeout((producer, i), Duration::from_secs(60)) {
                            Ok(Wake::Send) => wake.send(()).expect("the consumer listens"),
                            Ok(Wake::Pending) => {}
                            Err(_) => panic!("nobody closes the queue"),
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; 4];
        while next.iter().sum::<u64>() < 4 * EACH {
            woken
                .recv_timeout(Duration::from_secs(60))
                .expect("no wake is lost");
            loop {
                while let Some((producer, i)) = queue.pop() {
                    assert_eq!(i, next[producer as usize]);
                    next[producer as usize] += 1;
                    queue.release(1);
                }
                if !queue.rearm(|| false) {
                    break;
                }
            }
        }
        for producer in producers {
            producer.join().expect("the producer ended");
        }
        assert!(queue.is_empty());
        assert!(queue.metrics().high_water_mark <= 64 + 4);
    }
}
