// SPDX-License-Identifier: Apache-2.0
//! One worker: a task that runs items until the run is over.

use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::{ItemError, ItemResult, OnError, Outcome, Shared, Stats, Work, delivery, frontier};
use crate::panic;

/// How long a worker keeps its thread from other tasks.
const SLICE: Duration = Duration::from_millis(1);

/// How many items a worker runs between two looks at the clock.
const ITEMS_PER_LOOK: u32 = 16;

/// When so many items took less than this, the next ones may wait for each other.
const SHORT: Duration = Duration::from_micros(200);

struct Worker<'a, W: Work> {
    shared: &'a Shared<W>,
    results: Vec<ItemResult<W>>,
    /// When the first of `results` came; of no meaning without results.
    oldest_result: Instant,
    /// Items discovered by the item in hand; empty between items.
    fresh: Vec<W::Item>,
    stats: Stats,
    items_since_look: u32,
    slice_start: Instant,
    last_look: Instant,
}

/// Runs items until the run is over, then delivers what is left.
pub(super) async fn work<W: Work>(shared: Arc<Shared<W>>) {
    let mut items = frontier::Worker::new(&shared.frontier);
    let mut worker = Worker::new(&shared);
    loop {
        let item = match items.try_next() {
            Some(item) => item,
            None => match worker.while_delivering(items.next()).await {
                Some(item) => item,
                None => break,
            },
        };
        worker.run(item, &mut items).await;
        worker.breathe(&mut items).await;
    }
    worker.leave().await;
}

impl<'a, W: Work> Worker<'a, W> {
    fn new(shared: &'a Shared<W>) -> Self {
        Self {
            shared,
            results: Vec::new(),
            oldest_result: Instant::now(),
            fresh: Vec::new(),
            stats: Stats::default(),
            items_since_look: 0,
            slice_start: Instant::now(),
            last_look: Instant::now(),
        }
    }

    async fn run(&mut self, item: W::Item, items: &mut frontier::Worker<'_, W::Item>) {
        let work = &self.shared.work;
        let ended = {
            let mut running = pin!(panic::catch(|| work.run(&item)));
            match poll_once(running.as_mut()).await {
                Poll::Ready(ended) => ended,
                Poll::Pending => {
                    items.leave_the_rest_to_others();
                    self.while_delivering(running).await
                }
            }
        };
        let result = match ended {
            Ok(Ok((output, discovered))) => {
                self.shared
                    .discovery
                    .select(work, discovered, &mut self.fresh, &mut self.stats);
                items.dispatch(self.fresh.drain(..));
                Ok(output)
            }
            Ok(Err(error)) => Err(ItemError::Failed(error)),
            Err(text) => Err(ItemError::Panicked(text)),
        };
        items.finish();
        self.conclude(item, result);
    }

    fn conclude(&mut self, item: W::Item, result: Result<W::Output, ItemError<W::Error>>) {
        match &result {
            Ok(_) => self.stats.succeeded += 1,
            Err(_) => self.stats.failed += 1,
        }
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

    /// Between two items: a full batch goes out before the next item, other tasks get their turn.
    async fn breathe(&mut self, items: &mut frontier::Worker<'_, W::Item>) {
        if self.results.len() >= self.shared.options.batch.get() {
            if !self.shared.delivery.try_credit() {
                items.leave_the_rest_to_others();
                self.shared.delivery.credit().await;
            }
            self.deliver();
        }
        self.items_since_look += 1;
        if self.items_since_look == ITEMS_PER_LOOK {
            self.items_since_look = 0;
            self.look_at_the_clock(items).await;
        }
    }

    async fn look_at_the_clock(&mut self, items: &mut frontier::Worker<'_, W::Item>) {
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
