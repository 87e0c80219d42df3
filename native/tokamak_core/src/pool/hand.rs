// SPDX-License-Identifier: Apache-2.0
//! Workers that somebody else drives: a process of the VM, say, that runs an item and comes back for the next.
//!
//! They are made when they are called: there may be many more allowed than ever have work.
//!
//! A [`Hand`] finishes an item and takes the next one on the caller's thread, so that an item which leads to
//! another needs no other thread. A task does what would keep a caller for long, or has to be done while all of
//! them are away: it delivers the results of all hands, and queues what an item discovered that discovered much.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::seen::Batch;
use super::{Discovered, ItemError, ItemResult, OnError, Outcome, Shared, Stats, Work, delivery};

/// What one call of a hand looks up and queues, at most: more of it is the task's.
const FEW: usize = 512;

/// What hands and their task share.
pub(super) struct Driven<W: Work> {
    shared: Arc<Shared<W>>,
    outbox: Mutex<Outbox<W>>,
    /// The outbox is no longer empty, or has a full batch.
    changed: Notify,
    /// Items that discovered many.
    large: Mutex<Vec<Large<W>>>,
    /// There is one.
    found_many: Notify,
}

/// An item that ended, its result and its children.
type Large<W> = (
    <W as Work>::Item,
    <W as Work>::Output,
    Vec<<W as Work>::Item>,
);

struct Outbox<W: Work> {
    results: Vec<ItemResult<W>>,
    /// When the first of `results` came; of no meaning without results.
    oldest: Instant,
    stats: Stats,
    /// Hands that wait for room.
    waiting: Vec<Waker>,
    /// Nobody delivers any more, so nobody has to wait.
    closed: bool,
}

/// Closes the outbox when its task ends, or is ended.
struct Close<W: Work>(Arc<Driven<W>>);

impl<W: Work> Drop for Close<W> {
    fn drop(&mut self) {
        let mut outbox = self.0.outbox.lock();
        outbox.closed = true;
        let waiting = mem::take(&mut outbox.waiting);
        drop(outbox);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A worker's place. To be driven by one at a time; whoever holds it may change.
pub struct Hand<W: Work> {
    driven: Arc<Driven<W>>,
    /// It has looked for work.
    arrived: bool,
    item: Option<W::Item>,
    /// Discovered by the item in hand before its end.
    children: Vec<W::Item>,
    batch: Batch<W::Key>,
    asleep: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Makes the hands of a run, each when it is called.
pub struct Hands<W: Work>(Arc<Driven<W>>);

impl<W: Work> Hands<W> {
    /// A hand, for a call.
    #[must_use]
    pub fn hand(&self) -> Hand<W> {
        Hand {
            driven: Arc::clone(&self.0),
            arrived: false,
            item: None,
            children: Vec::new(),
            batch: Batch::new(),
            asleep: None,
        }
    }

    /// Wakes the hands that sleep, once the run is over: its end does not, as it may come in a call of one of them,
    /// and they may be many.
    pub fn wake_all(&self) {
        self.0.shared.frontier.wake_all();
    }
}

/// The hands of a run, and their task.
pub(super) fn hands<W: Work>(
    shared: Arc<Shared<W>>,
) -> (Hands<W>, impl Future<Output = ()> + Send) {
    let driven = Arc::new(Driven {
        shared,
        outbox: Mutex::new(Outbox {
            results: Vec::new(),
            oldest: Instant::now(),
            stats: Stats::default(),
            waiting: Vec::new(),
            closed: false,
        }),
        changed: Notify::new(),
        large: Mutex::new(Vec::new()),
        found_many: Notify::new(),
    });
    let hands = Hands(Arc::clone(&driven));
    let close = Close(driven);
    let task = async move {
        let driven = &close.0;
        tokio::join!(driven.deliver_results(), driven.conclude_large_items());
    };
    (hands, task)
}

impl<W: Work> Hand<W> {
    /// The next item to run, once the one before is finished; `None` when the run is over. The waker is woken when
    /// it is worth to ask again; of the end [`Hands::wake_all`] tells.
    pub fn poll_next(&mut self, cx: &mut Context) -> Poll<Option<&W::Item>> {
        let frontier = &self.driven.shared.frontier;
        while self.item.is_none() {
            if frontier.is_stopped() {
                return Poll::Ready(None);
            }
            if let Some(asleep) = &mut self.asleep {
                ready!(asleep.as_mut().poll(cx));
                self.asleep = None;
            }
            ready!(self.driven.poll_room(cx));
            if !self.arrived {
                self.arrived = true;
                frontier.arrive();
            }
            self.item = frontier.take();
            if self.item.is_none() {
                if frontier.is_over() {
                    return Poll::Ready(None);
                }
                let driven = Arc::clone(&self.driven);
                self.asleep = Some(Box::pin(
                    async move { driven.shared.frontier.sleep().await },
                ));
            }
        }
        Poll::Ready(self.item.as_ref())
    }

    /// The item in hand discovered these, too. They are dispatched with its end, if it is not an error.
    pub fn discover(&mut self, children: Vec<W::Item>) {
        if self.item.is_some() {
            self.children.extend(children);
        }
    }

    /// The item in hand, if there is one, has ended.
    pub fn finish(&mut self, ended: Discovered<W>) {
        let Some(item) = self.item.take() else {
            return;
        };
        let mut children = mem::take(&mut self.children);
        match ended {
            Err(error) => self.driven.conclude(item, Err(error), 0),
            Ok((output, more)) => {
                children.extend(more);
                if children.len() > FEW {
                    self.driven.large.lock().push((item, output, children));
                    self.driven.found_many.notify_one();
                } else {
                    let seen = self.driven.queue(children, &mut self.batch);
                    self.driven.conclude(item, Ok(output), seen);
                }
            }
        }
    }
}

impl<W: Work> Driven<W> {
    /// Queues what an item discovered that is not yet settled; gives how many of it were seen before.
    fn queue(&self, mut children: Vec<W::Item>, batch: &mut Batch<W::Key>) -> u64 {
        let Shared {
            work,
            frontier,
            discovery,
            ..
        } = &*self.shared;
        let counted = children.len();
        frontier.dispatch(counted as u64);
        discovery.select(work, &mut children, batch);
        let seen = counted - children.len();
        frontier.push(children);
        seen as u64
    }

    /// An item has ended, and what it discovered is queued.
    fn conclude(&self, item: W::Item, result: Result<W::Output, W::Error>, seen: u64) {
        match result {
            Err(error) if self.shared.options.on_error == OnError::Stop => {
                let error = ItemError::Failed(error);
                self.shared.stop(Outcome::Failed(item, error));
            }
            result => self.put((item, result.map_err(ItemError::Failed))),
        }
        // Its result is in the outbox: whoever sees that the run is over finds all of them.
        self.shared.frontier.settle(1 + seen);
    }

    /// Until the run is over: queues what items discovered that discovered much, some of it at a time.
    async fn conclude_large_items(&self) {
        let frontier = &self.shared.frontier;
        let mut batch = Batch::new();
        while !frontier.is_over() {
            tokio::select! {
                () = self.found_many.notified() => {}
                () = frontier.over() => return,
            }
            let items = mem::take(&mut *self.large.lock());
            for (item, output, children) in items {
                let mut children = children.into_iter();
                let mut seen = 0;
                while children.len() > 0 {
                    let some = children.by_ref().take(FEW).collect();
                    seen += self.queue(some, &mut batch);
                    frontier.wake_one_if_more_is_left();
                    tokio::task::yield_now().await;
                }
                self.conclude(item, Ok(output), seen);
            }
        }
    }

    fn put(&self, result: ItemResult<W>) {
        let batch = self.shared.options.batch.get();
        let mut outbox = self.outbox.lock();
        match result.1 {
            Ok(_) => outbox.stats.succeeded += 1,
            Err(_) => outbox.stats.failed += 1,
        }
        if outbox.results.is_empty() {
            outbox.oldest = Instant::now();
        }
        outbox.results.push(result);
        let count = outbox.results.len();
        drop(outbox);
        if count == 1 || count == batch {
            self.changed.notify_one();
        }
    }

    /// Whether one more result would have a place: one batch can wait for its credit, one can be made.
    fn poll_room(&self, cx: &mut Context) -> Poll<()> {
        let mut outbox = self.outbox.lock();
        if outbox.closed || outbox.results.len() < 2 * self.shared.options.batch.get() {
            return Poll::Ready(());
        }
        outbox.waiting.push(cx.waker().clone());
        Poll::Pending
    }

    async fn deliver_results(&self) {
        loop {
            // Before the look at the outbox: after it nothing comes any more.
            let over = self.shared.frontier.is_over();
            let (count, oldest) = {
                let outbox = self.outbox.lock();
                (outbox.results.len(), outbox.oldest)
            };
            if count == 0 {
                if over {
                    return;
                }
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = self.shared.frontier.over() => {}
                }
                continue;
            }
            let delivery = &self.shared.delivery;
            let is_due = over
                || count >= self.shared.options.batch.get()
                || delivery.is_idle()
                || oldest.elapsed() >= delivery::MAX_AGE;
            if !is_due {
                // More may come that share its message.
                let due = tokio::time::sleep_until(oldest + delivery::MAX_AGE);
                tokio::select! {
                    () = due => {}
                    () = self.changed.notified() => {}
                    () = self.shared.frontier.over() => {}
                }
                continue;
            }
            delivery.credit().await;
            self.deliver();
        }
    }

    fn deliver(&self) {
        let batch = self.shared.options.batch.get();
        let mut outbox = self.outbox.lock();
        let count = batch.min(outbox.results.len());
        let rest = outbox.results.split_off(count);
        let results = mem::replace(&mut outbox.results, rest);
        let mut stats = mem::take(&mut outbox.stats);
        // Where there is no room yet, as many ended at once, what is left is delivered next.
        let waiting = match outbox.results.len() < 2 * batch {
            true => mem::take(&mut outbox.waiting),
            false => Vec::new(),
        };
        drop(outbox);
        self.shared.discovery.publish(&mut stats);
        self.shared.work.deliver(results);
        waiting.into_iter().for_each(Waker::wake);
    }
}
