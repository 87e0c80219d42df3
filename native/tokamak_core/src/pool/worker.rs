// SPDX-License-Identifier: Apache-2.0
//! One worker: a task that runs items until the run is over.

use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::seen::Batch;
use super::{
    Begun, Discovered, ItemError, ItemResult, OnError, Outcome, Shared, Stats, Work, delivery,
    frontier,
};
use crate::panic;

/// How long a worker keeps its thread from other tasks.
const SLICE: Duration = Duration::from_millis(1);

/// How many items a worker runs between two looks at the clock.
const ITEMS_PER_LOOK: u32 = 16;

/// When so many items took less than this, the next ones may wait for each other.
const SHORT: Duration = Duration::from_micros(200);

/// What became of an item; the text of a panic.
type Ended<W> = Result<Discovered<W>, String>;

struct Worker<'a, W: Work> {
    shared: &'a Shared<W>,
    results: Vec<ItemResult<W>>,
    /// When the first of `results` came; of no meaning without results.
    oldest_result: Instant,
    stats: Stats,
    items_since_look: u32,
    slice_start: Instant,
    last_look: Instant,
}

/// Runs items until the run is over, then delivers what is left.
pub(super) async fn work<W: Work>(shared: Arc<Shared<W>>) {
    let mut batch = Batch::new();
    let mut items = frontier::Worker::new(&shared.frontier, |items: &mut Vec<W::Item>| {
        shared.discovery.select(&shared.work, items, &mut batch);
    });
    let mut worker = Worker::new(&shared);
    loop {
        let item = match items.try_next() {
            Some(item) => item,
            None => match worker.while_delivering(items.next()).await {
                Some(item) => item,
                None => break,
            },
        };
        let ended = match panic::catch(|| shared.work.begin(&item)) {
            Ok(Begun::Ended(ended)) => Ok(ended),
            Ok(Begun::Waits(waits)) => worker.wait(&item, waits, &mut items).await,
            Err(text) => Err(text),
        };
        worker.conclude(item, ended, &mut items);
        if worker.has_to_breathe() {
            worker.breathe(&mut items).await;
        }
    }
    worker.leave().await;
}

/// Keeps those of discovered items that are to be run.
trait Choose<W: Work>: FnMut(&mut Vec<W::Item>) {}

impl<W: Work, C: FnMut(&mut Vec<W::Item>)> Choose<W> for C {}

impl<'a, W: Work> Worker<'a, W> {
    fn new(shared: &'a Shared<W>) -> Self {
        Self {
            shared,
            results: Vec::new(),
            oldest_result: Instant::now(),
            stats: Stats::default(),
            items_since_look: 0,
            slice_start: Instant::now(),
            last_look: Instant::now(),
        }
    }

    async fn wait<C: Choose<W>>(
        &mut self,
        item: &W::Item,
        waits: W::Waits,
        items: &mut frontier::Worker<'_, W::Item, C>,
    ) -> Ended<W> {
        let work = &self.shared.work;
        let mut running = pin!(panic::catch_future(work.wait(item, waits)));
        match poll_once(running.as_mut()).await {
            Poll::Ready(ended) => ended,
            Poll::Pending => {
                items.leave_the_rest_to_others();
                self.while_delivering(running).await
            }
        }
    }

    fn conclude<C: Choose<W>>(
        &mut self,
        item: W::Item,
        ended: Ended<W>,
        items: &mut frontier::Worker<'_, W::Item, C>,
    ) {
        let result = match ended {
            Ok(Ok((output, discovered))) => {
                items.dispatch(discovered);
                self.stats.succeeded += 1;
                Ok(output)
            }
            Ok(Err(error)) => self.failed(ItemError::Failed(error)),
            Err(text) => self.failed(ItemError::Panicked(text)),
        };
        items.finish();
        match result {
            Err(error) if self.shared.options.on_error == OnError::Stop => {
                self.shared.stop(Outcome::Failed(item, error));
            }
            result => {
                if self.results.is_empty() {
                    self.oldest_result = Instant::now();
                }
                self.results.push((item, result));
            }
        }
    }

    fn failed<T>(&mut self, error: ItemError<W::Error>) -> Result<T, ItemError<W::Error>> {
        self.stats.failed += 1;
        Err(error)
    }

    fn has_to_breathe(&mut self) -> bool {
        self.items_since_look += 1;
        self.items_since_look >= ITEMS_PER_LOOK
            || self.results.len() >= self.shared.options.batch.get()
    }

    /// Between two items: a full batch goes out before the next item, other tasks get their turn.
    async fn breathe<C: Choose<W>>(&mut self, items: &mut frontier::Worker<'_, W::Item, C>) {
        if self.results.len() >= self.shared.options.batch.get() {
            if !self.shared.delivery.try_credit() {
                items.leave_the_rest_to_others();
                self.shared.delivery.credit().await;
            }
            self.deliver();
        }
        if self.items_since_look >= ITEMS_PER_LOOK {
            self.items_since_look = 0;
            self.look_at_the_clock(items).await;
        }
    }

    async fn look_at_the_clock<C: Choose<W>>(
        &mut self,
        items: &mut frontier::Worker<'_, W::Item, C>,
    ) {
        let now = Instant::now();
        let are_short = now - mem::replace(&mut self.last_look, now) < SHORT;
        items.keep(if are_short { frontier::CHUNK } else { 1 });
        let due = !self.results.is_empty() && now - self.oldest_result >= delivery::MAX_AGE;
        if due && self.shared.delivery.try_credit() {
            self.deliver();
        }
        if now - self.slice_start >= SLICE {
            items.leave_the_rest_to_others();
            tokio::task::yield_now().await;
            self.slice_start = Instant::now();
        }
    }

    /// Waits for something else, and meanwhile delivers results that are due.
    async fn while_delivering<F: Future>(&mut self, future: F) -> F::Output {
        let delivery = &self.shared.delivery;
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = delivery.credit_when_due(self.oldest_result), if !self.results.is_empty() => {
                    self.deliver();
                }
            }
        }
    }

    /// Hands a batch over, for a credit that was taken.
    fn deliver(&mut self) {
        self.shared.discovery.publish(&mut self.stats);
        let next = Vec::with_capacity(self.results.len());
        self.shared
            .work
            .deliver(mem::replace(&mut self.results, next));
    }

    async fn leave(mut self) {
        if !self.results.is_empty() && !self.shared.frontier.is_stopped() {
            self.shared.delivery.credit().await;
            self.deliver();
        }
        self.shared.discovery.publish(&mut self.stats);
    }
}

/// Polls a future once: most items are done then, and need nothing of what waiting takes.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}
