// SPDX-License-Identifier: Apache-2.0
//! A worker pool for work that discovers work: crawls, dependency closures, directory trees.
//!
//! Workers are tasks of the tokio runtime. They take items from one lock-free queue, add what the
//! items discover unless its key was seen before, and hand over results in batches, on credit. With
//! nothing to do they sleep; the run ends when it was closed and nothing is outstanding
//! (`termination`), when it is cancelled, or with the first error where [`OnError::Stop`] says so.
//!
//! ```text
//! add ─┐  fresh keys                      deliver, one credit a batch
//!      ├──> queue ──> worker ── results ──────────────────────────────> consumer
//!      └── discovered <─┘                <──────────────────────── ack
//! ```

mod delivery;
mod discovery;
mod frontier;
mod hand;
#[cfg(all(test, loom))]
mod loom_tests;
mod recruits;
mod seen;
mod shim;
mod sleepers;
mod supervisor;
mod termination;
mod worker;

use std::hash::Hash;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use delivery::Delivery;
use discovery::Discovery;
use frontier::Frontier;
pub use hand::{Hand, Hands};
use recruits::Recruits;
use seen::Batch;
pub use termination::Closed;

/// What a pool does: the handler, the identity of items, and the consumer of results.
pub trait Work: Send + Sync + 'static {
    /// A piece of work.
    type Item: Send + Sync + 'static;
    /// What makes two items the same.
    type Key: Hash + Eq + Send + Sync + 'static;
    /// What an item results in.
    type Output: Send + 'static;
    /// Why an item failed.
    type Error: Send + 'static;
    /// An item that waits for something. Moved for items that do not, too, so it is better small.
    type Waits: Send;

    /// The identity of an item: of items with equal keys only one is run.
    fn key(&self, item: &Self::Item) -> Self::Key;

    /// Runs an item as far as it goes without waiting; gives its result and what it discovered, or what
    /// [`wait`](Self::wait) needs. A panic of either is the item's error.
    fn begin(&self, item: &Self::Item) -> Begun<Discovered<Self>, Self::Waits>;

    /// Runs the rest of an item.
    fn wait(
        &self,
        item: &Self::Item,
        waits: Self::Waits,
    ) -> impl Future<Output = Discovered<Self>> + Send;

    /// Takes a batch of results; each batch uses one credit until [`Pool::ack`]. Runs on a worker and
    /// must not block.
    fn deliver(&self, batch: Vec<ItemResult<Self>>);
}

/// How far an item came without waiting. Most items are done at once, and need no future.
#[derive(Debug)]
pub enum Begun<T, W> {
    /// It is done.
    Ended(T),
    /// It waits for something.
    Waits(W),
}

/// The result of an item and what it discovered, or its error.
pub type Discovered<W> = Result<(<W as Work>::Output, Vec<<W as Work>::Item>), <W as Work>::Error>;

/// An item and what became of it.
pub type ItemResult<W> = (
    <W as Work>::Item,
    Result<<W as Work>::Output, ItemError<<W as Work>::Error>>,
);

/// Why an item has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemError<E> {
    /// The handler returned an error.
    Failed(E),
    /// The handler panicked; the text of the panic.
    Panicked(String),
}

/// What an item's error means for the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// It is delivered as the item's result.
    #[default]
    Skip,
    /// It ends the run.
    Stop,
}

/// How a pool runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many items are in hand at a time.
    pub workers: NonZeroUsize,
    /// How many batches may be delivered without having been acknowledged.
    pub window: NonZeroUsize,
    /// The most results in a batch.
    pub batch: NonZeroUsize,
    /// What an item's error means for the run.
    pub on_error: OnError,
    /// The most items that are run; what is discovered beyond is counted as refused.
    pub max_items: Option<NonZeroU64>,
}

impl Default for Options {
    /// Two workers, 16 batches of 256 results, errors skipped, no limit.
    fn default() -> Self {
        const ONE: NonZeroUsize = NonZeroUsize::MIN;
        Self {
            workers: ONE.saturating_add(1),
            window: ONE.saturating_add(15),
            batch: ONE.saturating_add(255),
            on_error: OnError::Skip,
            max_items: None,
        }
    }
}

/// Totals of a run. While it goes on, a worker's part follows with its results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Items taken: seeds and discovered ones, each key once.
    pub dispatched: u64,
    /// Items that were run with a result.
    pub succeeded: u64,
    /// Items that were run and failed.
    pub failed: u64,
    /// Items left out because their key was seen before.
    pub duplicates: u64,
    /// Items left out because of [`Options::max_items`].
    pub refused: u64,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome<W: Work> {
    /// All items were run and their results delivered.
    Finished,
    /// [`Pool::cancel`] came first.
    Cancelled,
    /// An item failed under [`OnError::Stop`].
    Failed(W::Item, ItemError<W::Error>),
    /// [`Work::key`] or [`Work::deliver`] panicked; the text of the panic.
    Crashed(String),
}

/// A handle of a run; clones are handles of the same run.
#[derive(Debug)]
pub struct Pool<W: Work>(Arc<Shared<W>>);

impl<W: Work> Clone for Pool<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<W: Work> {
    work: W,
    options: Options,
    frontier: Frontier<W::Item>,
    discovery: Discovery<W::Key>,
    delivery: Delivery,
    failure: Mutex<Option<Outcome<W>>>,
    stopped: Notify,
}

impl<W: Work> std::fmt::Debug for Shared<W> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<W: Work> Pool<W> {
    /// A run, open for items, and the future that runs it: to be spawned on a tokio runtime whose time
    /// driver is enabled. When the future ends no worker is left; dropping it cancels the run without
    /// waiting for that. For a time limit, [`cancel`](Self::cancel) the run and wait for its end.
    pub fn new(work: W, options: Options) -> (Self, impl Future<Output = Outcome<W>> + Send) {
        let shared = Shared::new(work, options, Recruits::none());
        let pool = Self(Arc::clone(&shared));
        (pool, supervisor::supervise(shared))
    }

    /// As [`new`](Self::new), for workers that others drive: nothing is run but by the hands, and neither
    /// [`Work::begin`] nor [`Work::wait`] is called. `call` is given the number, from 1, of each worker that is
    /// needed: somebody has to take a [hand](Hands::hand) for it soon and look for work with it, as no other is called
    /// before. It is called where work is added, taken or found, and must not block. A hand that is dropped with an
    /// item leaves the run open.
    pub fn driven(
        work: W,
        options: Options,
        call: impl Fn(usize) + Send + Sync + 'static,
    ) -> (Self, Hands<W>, impl Future<Output = Outcome<W>> + Send) {
        let recruits = Recruits::new(options.workers.get(), Box::new(call));
        let shared = Shared::new(work, options, recruits);
        let (hands, task) = hand::hands(Arc::clone(&shared));
        let pool = Self(Arc::clone(&shared));
        (pool, hands, supervisor::supervise_driven(shared, task))
    }

    /// Adds items from outside. Takes some 0.2 µs an item of the calling thread.
    ///
    /// # Errors
    /// [`Closed`] when the run was closed or cancelled, or is over: none of the items was taken.
    pub fn add(&self, mut items: Vec<W::Item>) -> Result<(), Closed> {
        let Shared {
            work,
            frontier,
            discovery,
            ..
        } = &*self.0;
        frontier.admit(items.len() as u64, || {
            discovery.select(work, &mut items, &mut Batch::new());
            items.into_iter()
        })
    }

    /// No more items come from outside: the run ends when those it has and discovers are done.
    pub fn close(&self) {
        self.0.frontier.close();
    }

    /// Ends the run without waiting for items in hand; what is not delivered is dropped.
    pub fn cancel(&self) {
        self.0.stop(Outcome::Cancelled);
    }

    /// Gives back the credits of `batches` delivered ones; more than were delivered count for nothing.
    pub fn ack(&self, batches: usize) {
        self.0.delivery.ack(batches);
    }

    /// The totals so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.discovery.stats()
    }
}

impl<W: Work> Shared<W> {
    fn new(work: W, options: Options, recruits: Recruits) -> Arc<Self> {
        Arc::new(Self {
            work,
            options,
            frontier: Frontier::new(recruits),
            discovery: Discovery::new(options.workers, options.max_items),
            delivery: Delivery::new(options.window),
            failure: Mutex::new(None),
            stopped: Notify::new(),
        })
    }

    /// Ends the run with `outcome` unless it is over.
    fn stop(&self, outcome: Outcome<W>) {
        let mut failure = self.failure.lock();
        if !self.frontier.stop() {
            return;
        }
        // Who sees the stop, and takes this lock, finds its reason.
        *failure = Some(outcome);
        drop(failure);
        self.frontier.tell_stop();
        self.stopped.notify_one();
    }
}
