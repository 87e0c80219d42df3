// SPDX-License-Identifier: Apache-2.0
//! The event queue: many producers, one consumer at a time, bounded, with one wake.
//!
//! Producers append to blocks under a lock that is held for some nanoseconds; the consumer takes all
//! blocks at once into a [`Batch`] of its own and pops from that, so it meets the lock once for many
//! items, and an item moves from one processor to the other with its neighbours.
//!
//! The wake protocol is part of what the lock protects:
//!
//! ```text
//!              a push: "send the wake"
//!   quiet ----------------------------------> notified
//!     ^                                          |  a push: nothing to do
//!     +------------------------------------------+
//!       rearm() finds the queue empty; otherwise it stays notified, and the consumer goes on
//! ```
//!
//! Admission and storage are apart: `pushed` counts what was let in, `released` what its consumer
//! is done with. An event that was drained but not yet delivered (it waits for a poller or for a
//! slow handler) still counts, so the bound holds over the whole way to a mailbox.

use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Items of a block.
const BLOCK: usize = 256;
/// Emptied blocks that are kept for reuse while items keep coming: as many as a full queue of the
/// default bound needs.
const SPARE_BLOCKS: usize = 256;
/// Emptied blocks that are kept when the consumer goes to sleep.
const SPARE_BLOCKS_ASLEEP: usize = 1;

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

type Blocks<T> = VecDeque<VecDeque<T>>;

/// What the lock protects.
#[derive(Debug)]
struct State<T> {
    /// The last one is being filled.
    blocks: Blocks<T>,
    spare: Blocks<T>,
    /// A wake is under way, or the consumer is at work.
    notified: bool,
    closed: bool,
    /// Producers that wait for room.
    waiting: usize,
    wakes: u64,
    refused: u64,
    high_water_mark: u64,
}

/// What a consumer has taken out of a queue and not yet looked at.
#[derive(Debug)]
pub struct Batch<T> {
    blocks: Blocks<T>,
    emptied: Blocks<T>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            blocks: VecDeque::new(),
            emptied: VecDeque::new(),
        }
    }
}

impl<T> Batch<T> {
    /// The oldest items, if there are any.
    fn front(&mut self) -> Option<&mut VecDeque<T>> {
        while self.blocks.front().is_some_and(VecDeque::is_empty) {
            let block = self.blocks.pop_front();
            if self.emptied.len() < SPARE_BLOCKS {
                self.emptied.extend(block);
            }
        }
        self.blocks.front_mut()
    }
}

/// A bounded queue with one wake; see the [module](self).
#[derive(Debug)]
pub struct EventQueue<T> {
    limit: u64,
    state: Mutex<State<T>>,
    /// Whether there are blocks: a hint that spares a consumer the lock. All of these are written under
    /// the lock only.
    filled: AtomicBool,
    pushed: AtomicU64,
    released: AtomicU64,
    closed: AtomicBool,
    space: Condvar,
}

impl<T> EventQueue<T> {
    /// A queue that lets in up to `limit` items that are not yet delivered.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit as u64,
            state: Mutex::new(State {
                blocks: VecDeque::new(),
                spare: VecDeque::new(),
                notified: false,
                closed: false,
                waiting: 0,
                wakes: 0,
                refused: 0,
                high_water_mark: 0,
            }),
            filled: AtomicBool::new(false),
            pushed: AtomicU64::new(0),
            released: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            space: Condvar::new(),
        }
    }

    /// Pushes an item if the bound allows it; never waits.
    ///
    /// # Errors
    /// [`Refused`] with the item, when the queue is full or closed.
    pub fn try_push(&self, item: T) -> Result<Wake, Refused<T>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed(item));
        }
        if self.is_full() {
            state.refused = state.refused.saturating_add(1);
            return Err(Refused::Overloaded(item));
        }
        self.count_pushed(1);
        Ok(self.append(&mut state, item))
    }

    /// Pushes an item that was admitted elsewhere (a timer, an fd with at most one event pending):
    /// the bound does not apply, but the item counts.
    ///
    /// # Errors
    /// [`Refused::Closed`] with the item, when the queue is closed.
    pub fn push_admitted(&self, item: T) -> Result<Wake, Refused<T>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed(item));
        }
        self.count_pushed(1);
        Ok(self.append(&mut state, item))
    }

    /// Reserves places for items that come later, by
    /// [`push_many_reserved`](Self::push_many_reserved); given back by
    /// [`release`](Self::release).
    ///
    /// # Errors
    /// [`Refused`], when there are not so many places, or the queue is closed.
    pub fn reserve(&self, count: usize) -> Result<(), Refused<()>> {
        let count = count as u64;
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed(()));
        }
        if count > self.limit.saturating_sub(self.len()) {
            state.refused = state.refused.saturating_add(count);
            return Err(Refused::Overloaded(()));
        }
        self.count_pushed(count);
        Ok(())
    }

    /// Pushes many items into reserved places with one notification at the end.
    ///
    /// # Errors
    /// [`Refused::Closed`], when the queue is closed; the items are dropped.
    pub fn push_many_reserved(
        &self,
        items: impl ExactSizeIterator<Item = T>,
    ) -> Result<Wake, Refused<()>> {
        let blocks = into_blocks(items);
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed(()));
        }
        Ok(self.append_blocks(&mut state, blocks))
    }

    /// Counts `count` items that were admitted elsewhere and do not pass through the queue.
    pub fn admit(&self, count: usize) {
        let _state = self.state.lock();
        self.count_pushed(count as u64);
    }

    /// Pushes many admitted items with one notification at the end.
    ///
    /// # Errors
    /// [`Refused::Closed`], when the queue is closed; the items are dropped.
    pub fn push_many_admitted(
        &self,
        items: impl ExactSizeIterator<Item = T>,
    ) -> Result<Wake, Refused<()>> {
        let count = items.len() as u64;
        let blocks = into_blocks(items);
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed(()));
        }
        self.count_pushed(count);
        Ok(self.append_blocks(&mut state, blocks))
    }

    /// Pushes an item, waiting up to `timeout` while the queue is full. Blocks its thread: for
    /// native producers, never for a scheduler.
    ///
    /// # Errors
    /// [`Refused`] with the item, when the queue is still full after `timeout`, or closed.
    pub fn push_timeout(&self, item: T, timeout: Duration) -> Result<Wake, Refused<T>> {
        let mut state = self.state.lock();
        if self.is_full() && !state.closed {
            state = self.wait_for_space(state, timeout);
        }
        if state.closed {
            return Err(Refused::Closed(item));
        }
        if self.is_full() {
            state.refused = state.refused.saturating_add(1);
            return Err(Refused::Overloaded(item));
        }
        self.count_pushed(1);
        Ok(self.append(&mut state, item))
    }

    #[cold]
    fn wait_for_space<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<T>>,
        timeout: Duration,
    ) -> MutexGuard<'a, State<T>> {
        let deadline = Instant::now() + timeout;
        let mut late = false;
        state.waiting += 1;
        while self.is_full() && !state.closed && !late {
            (state, late) = self.space.wait_until(state, deadline);
        }
        state.waiting -= 1;
        state
    }

    /// The oldest items that are left in the batch or, when it has none, in the queue. Those that are
    /// taken out keep their places under the bound until they are released.
    pub fn front<'a>(&self, batch: &'a mut Batch<T>) -> Option<&'a mut VecDeque<T>> {
        if batch.front().is_none() {
            self.take(batch);
        }
        batch.front()
    }

    /// Takes the oldest item, see [`front`](Self::front).
    pub fn pop(&self, batch: &mut Batch<T>) -> Option<T> {
        self.front(batch)?.pop_front()
    }

    /// Moves all there is into an empty batch, and its emptied blocks to the producers. What is
    /// missed because the hint is old is found by [`rearm`](Self::rearm).
    fn take(&self, batch: &mut Batch<T>) {
        if !self.filled.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        self.filled.store(false, Ordering::Relaxed);
        std::mem::swap(&mut state.blocks, &mut batch.blocks);
        if state.spare.is_empty() {
            std::mem::swap(&mut state.spare, &mut batch.emptied);
        }
    }

    /// Gives back the places of `count` delivered items and lets waiting producers go on.
    pub fn release(&self, count: usize) {
        if count == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.high_water_mark = state.high_water_mark.max(self.len());
        let released = self.released.load(Ordering::Relaxed) + count as u64;
        self.released.store(released, Ordering::Relaxed);
        let wake = self.lets_producers_go_on(&state);
        drop(state);
        if wake {
            self.space.notify_all();
        }
    }

    /// To be called by the consumer when it found nothing more: `true` if it has to go on.
    #[must_use]
    pub fn rearm(&self, batch: &mut Batch<T>) -> bool {
        let mut state = self.state.lock();
        if !state.blocks.is_empty() || batch.front().is_some() {
            return true;
        }
        state.notified = false;
        let mut surplus = std::mem::take(&mut state.spare);
        state
            .spare
            .extend(surplus.drain(..surplus.len().min(SPARE_BLOCKS_ASLEEP)));
        let wake = self.lets_producers_go_on(&state);
        drop(state);
        if wake {
            self.space.notify_all();
        }
        batch.emptied.truncate(SPARE_BLOCKS_ASLEEP);
        false
    }

    /// Who waits for room is woken when there is much of it, not for each place; but for any when the
    /// consumer has taken all: the places it still holds may stay taken for ever.
    fn lets_producers_go_on(&self, state: &State<T>) -> bool {
        state.waiting > 0
            && (self.len() <= self.limit / 2 || state.blocks.is_empty() && !self.is_full())
    }

    /// Says that there is something for the consumer that is not in this queue.
    pub fn notify(&self) -> Wake {
        self.state.lock().notify()
    }

    /// Whether a wake is under way, or the consumer is at work.
    pub fn is_notified(&self) -> bool {
        self.state.lock().notified
    }

    /// Lets nothing more in and ends the wait of producers. What is queued can still be taken.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.closed.store(true, Ordering::Release);
        drop(state);
        self.space.notify_all();
    }

    /// Whether the queue was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Items let in and not yet delivered.
    pub fn len(&self) -> u64 {
        let released = self.released.load(Ordering::Relaxed);
        self.pushed.load(Ordering::Relaxed).saturating_sub(released)
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
        let state = self.state.lock();
        QueueMetrics {
            pushed: self.pushed.load(Ordering::Relaxed),
            drained: self.released.load(Ordering::Relaxed),
            wakes: state.wakes,
            refused: state.refused,
            high_water_mark: state.high_water_mark.max(self.len()),
        }
    }

    fn append_blocks(&self, state: &mut State<T>, mut blocks: VecDeque<VecDeque<T>>) -> Wake {
        state.blocks.append(&mut blocks);
        self.filled.store(true, Ordering::Relaxed);
        state.notify()
    }

    fn append(&self, state: &mut State<T>, item: T) -> Wake {
        if state.blocks.is_empty() {
            self.filled.store(true, Ordering::Relaxed);
        }
        state.append(item);
        state.notify()
    }

    /// To be called under the lock.
    fn count_pushed(&self, count: u64) {
        let pushed = self.pushed.load(Ordering::Relaxed) + count;
        self.pushed.store(pushed, Ordering::Relaxed);
    }
}

impl<T> State<T> {
    fn append(&mut self, item: T) {
        match self.blocks.back_mut() {
            Some(block) if block.len() < BLOCK => block.push_back(item),
            _ => {
                let mut block = self.spare.pop_front().unwrap_or_default();
                block.push_back(item);
                self.blocks.push_back(block);
            }
        }
    }

    fn notify(&mut self) -> Wake {
        if std::mem::replace(&mut self.notified, true) {
            return Wake::Pending;
        }
        self.wakes += 1;
        Wake::Send
    }
}

fn into_blocks<T>(mut items: impl ExactSizeIterator<Item = T>) -> Blocks<T> {
    let mut blocks = VecDeque::with_capacity(items.len().div_ceil(BLOCK));
    while items.len() > 0 {
        blocks.push_back(items.by_ref().take(BLOCK).collect());
    }
    blocks
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    #[test]
    fn only_the_first_push_sends_a_wake_until_the_consumer_rearms() {
        let (queue, mut batch) = (EventQueue::new(8), Batch::default());
        assert_eq!(queue.try_push(1), Ok(Wake::Send));
        assert_eq!(queue.try_push(2), Ok(Wake::Pending));
        assert_eq!(
            [(); 3].map(|()| queue.pop(&mut batch)),
            [Some(1), Some(2), None]
        );
        assert!(!queue.rearm(&mut batch));
        assert_eq!(queue.try_push(3), Ok(Wake::Send));
        assert!(
            queue.rearm(&mut batch),
            "something is left, so the consumer goes on"
        );
    }

    #[test]
    fn a_full_queue_refuses_until_its_consumer_releases_and_gives_the_item_back() {
        let (queue, mut batch) = (EventQueue::new(2), Batch::default());
        assert!(queue.try_push("a").is_ok());
        assert!(queue.try_push("b").is_ok());
        assert_eq!(queue.try_push("c"), Err(Refused::Overloaded("c")));
        assert_eq!(queue.pop(&mut batch), Some("a"));
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
        let (queue, mut batch) = (EventQueue::new(2), Batch::default());
        assert!(queue.try_push(1).is_ok());
        queue.close();
        assert_eq!(queue.try_push(2), Err(Refused::Closed(2)));
        assert_eq!(queue.push_admitted(2), Err(Refused::Closed(2)));
        assert_eq!(queue.pop(&mut batch), Some(1));
    }

    #[test]
    fn a_waiting_producer_goes_on_when_a_place_is_released() {
        let queue = Arc::new(EventQueue::new(1));
        let mut batch = Batch::default();
        assert!(queue.try_push(1).is_ok());
        let producer = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.push_timeout(2, Duration::from_secs(60)))
        };
        assert_eq!(queue.pop(&mut batch), Some(1));
        queue.release(1);
        assert!(producer.join().expect("the producer ended").is_ok());
        assert_eq!(queue.pop(&mut batch), Some(2));
    }

    /// A producer that waits for room already.
    fn waiting_producer(queue: &Arc<EventQueue<u32>>) -> std::thread::JoinHandle<bool> {
        let producer = {
            let queue = Arc::clone(queue);
            std::thread::spawn(move || queue.push_timeout(0, Duration::from_secs(60)).is_ok())
        };
        while queue.state.lock().waiting == 0 {
            std::thread::yield_now();
        }
        producer
    }

    #[test]
    fn a_waiting_producer_goes_on_though_most_places_stay_taken() {
        let (queue, mut batch) = (Arc::new(EventQueue::new(10)), Batch::default());
        assert!(queue.reserve(8).is_ok());
        assert!(queue.try_push(1).is_ok() && queue.try_push(2).is_ok());
        let producer = waiting_producer(&queue);
        assert_eq!([(); 2].map(|()| queue.pop(&mut batch)), [Some(1), Some(2)]);
        queue.release(2);
        assert!(producer.join().expect("the producer ended"));
    }

    #[test]
    fn a_waiting_producer_goes_on_when_the_consumer_sleeps_and_holds_most_places() {
        let (queue, mut batch) = (Arc::new(EventQueue::new(10)), Batch::default());
        assert!(queue.reserve(10).is_ok());
        let producer = waiting_producer(&queue);
        assert!(queue.push_admitted(1).is_ok());
        queue.release(4);
        assert_eq!(queue.pop(&mut batch), Some(1));
        assert!(!queue.rearm(&mut batch));
        assert!(producer.join().expect("the producer ended"));
    }

    #[test]
    fn more_places_than_can_be_counted_are_refused() {
        let queue = EventQueue::new(10);
        assert!(queue.try_push(1).is_ok());
        assert_eq!(queue.reserve(usize::MAX), Err(Refused::Overloaded(())));
        assert_eq!(queue.reserve(10), Err(Refused::Overloaded(())));
        assert_eq!(queue.metrics().pushed, 1);
        assert_eq!(queue.metrics().refused, u64::MAX);
        assert!(queue.reserve(9).is_ok());
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
        let mut batch = Batch::default();
        while next.iter().sum::<u64>() < 4 * EACH {
            woken
                .recv_timeout(Duration::from_secs(60))
                .expect("no wake is lost");
            loop {
                while let Some((producer, i)) = queue.pop(&mut batch) {
                    assert_eq!(i, next[producer as usize]);
                    next[producer as usize] += 1;
                    queue.release(1);
                }
                if !queue.rearm(&mut batch) {
                    break;
                }
            }
        }
        for producer in producers {
            producer.join().expect("the producer ended");
        }
        assert!(queue.is_empty());
        assert!(queue.metrics().high_water_mark <= 64);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::{Batch, EventQueue, Refused, Wake};
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;
    use std::time::Duration;

    /// The queue with a mailbox that can hold wakes.
    struct Model {
        queue: EventQueue<u32>,
        mailbox: Mutex<usize>,
        arrived: Condvar,
        largest_mailbox: AtomicUsize,
    }

    impl Model {
        fn new(limit: usize) -> Arc<Self> {
            Arc::new(Self {
                queue: EventQueue::new(limit),
                mailbox: Mutex::new(0),
                arrived: Condvar::new(),
                largest_mailbox: AtomicUsize::new(0),
            })
        }

        fn after_push(&self, wake: Wake) {
            if wake == Wake::Send {
                let mut mailbox = self.mailbox.lock().unwrap();
                *mailbox += 1;
                self.largest_mailbox.fetch_max(*mailbox, Ordering::Relaxed);
                self.arrived.notify_one();
            }
        }

        fn push(&self, item: u32) {
            match self.queue.push_timeout(item, Duration::from_secs(1)) {
                Ok(wake) => self.after_push(wake),
                Err(Refused::Closed(_)) => {}
                Err(Refused::Overloaded(_)) => panic!("models have no time"),
            }
        }

        fn close(&self) {
            self.queue.close();
            self.after_push(self.queue.notify());
        }

        fn wait(&self) {
            let mut mailbox = self.mailbox.lock().unwrap();
            while *mailbox == 0 {
                mailbox = self.arrived.wait(mailbox).unwrap();
            }
            *mailbox -= 1;
        }

        /// Takes all there is, as a drain does, until the flag is quiet again.
        fn drain(&self, taken: &mut Vec<u32>, stop: impl Fn(&[u32]) -> bool) {
            let mut batch = Batch::default();
            loop {
                while let Some(item) = self.queue.pop(&mut batch) {
                    taken.push(item);
                    self.queue.release(1);
                }
                if stop(taken) || !self.queue.rearm(&mut batch) {
                    return;
                }
            }
        }
    }

    /// Two producers, one of them with two items, against a consumer that sleeps between drains.
    fn two_producers(limit: usize) {
        let model = Model::new(limit);
        let producers: Vec<_> = [vec![1, 2], vec![11]]
            .into_iter()
            .map(|items| {
                let model = Arc::clone(&model);
                thread::spawn(move || items.into_iter().for_each(|item| model.push(item)))
            })
            .collect();
        let mut taken = Vec::new();
        while taken.len() < 3 {
            model.wait();
            model.drain(&mut taken, |taken| taken.len() == 3);
        }
        for producer in producers {
            producer.join().unwrap();
        }
        let mut first: Vec<u32> = taken.clone();
        first.retain(|item| *item < 10);
        assert_eq!(first, [1, 2]);
        assert!(taken.contains(&11));
        assert_eq!(model.largest_mailbox.load(Ordering::Relaxed), 1);
    }

    fn bounded(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        // Three involuntary switches show every known bug of such protocols, in seconds.
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    #[test]
    fn loom_no_push_of_two_producers_is_missed_and_at_most_one_wake_waits() {
        bounded(|| two_producers(3));
    }

    #[test]
    fn loom_producers_that_wait_for_room_always_get_it() {
        bounded(|| two_producers(1));
    }

    #[test]
    fn loom_a_producer_that_waits_gets_room_though_the_other_places_stay_taken() {
        bounded(|| {
            let model = Model::new(3);
            assert!(model.queue.reserve(2).is_ok());
            let producer = {
                let model = Arc::clone(&model);
                thread::spawn(move || [1, 2].into_iter().for_each(|item| model.push(item)))
            };
            let mut taken = Vec::new();
            while taken.len() < 2 {
                model.wait();
                model.drain(&mut taken, |taken| taken.len() == 2);
            }
            producer.join().unwrap();
        });
    }

    #[test]
    fn loom_a_close_reaches_a_consumer_that_waits_and_a_producer_that_waits() {
        bounded(|| {
            let model = Model::new(1);
            let producer = {
                let model = Arc::clone(&model);
                thread::spawn(move || {
                    model.push(1);
                    model.push(2);
                })
            };
            let closer = {
                let model = Arc::clone(&model);
                thread::spawn(move || model.close())
            };
            let mut taken = Vec::new();
            while !model.queue.is_closed() {
                model.wait();
                model.drain(&mut taken, |_| model.queue.is_closed());
            }
            producer.join().unwrap();
            closer.join().unwrap();
        });
    }
}
