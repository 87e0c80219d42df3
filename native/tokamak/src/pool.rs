// SPDX-License-Identifier: Apache-2.0
//! Runs of the worker pool: what `tokamak_pool` starts natively.
//!
//! A run is a [`Task`] of its owner, so it ends as calls do: with its result, a cancel, its owner's death
//! or a shutdown. Its end and its batches of results go through one gate, which closes before a cancel
//! returns: nothing comes after it.

mod feed;
mod item;
mod operation;
mod runs;
mod slots;

pub(crate) use feed::{Feed, Next};
pub(crate) use item::Item;
pub(crate) use operation::{OperationHandler, Waits};
pub(crate) use runs::{going_on, totals};

use crate::atoms;
use crate::environment::{SavedTerm, Sender, TermKey, TermList, on_scheduler};
use crate::latency::Label;
use crate::list::List;
use crate::owners::{self, Possession};
use crate::pool_calls::PoolResource;
use crate::progress;
use crate::reply::{Reason, Reply, encode_error, encode_reply};
use crate::task::{RunEnd, Task};
use crate::{Value, calls};
use parking_lot::RwLock;
use rustler::{Encoder, Env, LocalPid, ResourceArc, Term};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokamak_core::pool::{
    self as core_pool, Begun, Discovered, ItemError, ItemResult, Options, Outcome, Stats, Work,
};

/// What an item resulted in, and what it discovered. Moved a few times for each item, so what is rare is small.
pub(crate) type Discovery = Result<(Value, Vec<Item>), Box<Reason>>;

/// A run's pool.
pub(crate) type Pool = core_pool::Pool<Job>;

/// Who runs the items.
pub(crate) enum Handler {
    Operation(OperationHandler),
    Workers(Arc<Feed>),
}

/// The reference of a run's messages.
pub(crate) enum Reference {
    Made(SavedTerm),
    Handle(ResourceArc<PoolResource>),
}

struct Open {
    reference: Reference,
    pool: Pool,
    counted: runs::Counted,
}

/// The way from a run to its owner.
pub(crate) struct Gate {
    owner: LocalPid,
    progress: Option<TermKey>,
    /// Told when the run has ended.
    feed: Option<Arc<Feed>>,
    /// `None` before the start and after the end. It also breaks the circle of run, handle and gate.
    open: RwLock<Option<Open>>,
}

/// What a run does.
pub(crate) struct Job {
    /// `None`: worker processes drive it.
    operation: Option<OperationHandler>,
    gate: Arc<Gate>,
}

impl Work for Job {
    type Item = Item;
    type Key = Item;
    type Output = Value;
    type Error = Box<Reason>;
    type Waits = Waits;

    fn key(&self, item: &Item) -> Item {
        item.key()
    }

    fn begin(&self, item: &Item) -> Begun<Discovered<Self>, Waits> {
        match &self.operation {
            Some(operation) => operation.begin(item),
            None => Begun::Ended(Err(Reason::Cancelled.into())),
        }
    }

    async fn wait(&self, _item: &Item, waits: Waits) -> Discovered<Self> {
        match &self.operation {
            Some(operation) => operation.wait(waits).await,
            None => Err(Reason::Cancelled.into()),
        }
    }

    fn deliver(&self, batch: Vec<ItemResult<Self>>) {
        self.gate.deliver(&batch);
    }
}

/// The process that manages the worker processes: the run fails when it dies first.
struct Manager(Arc<Task>);

impl Possession for Manager {
    fn owner_died(&self) {
        let reason = "the manager of the worker processes died";
        self.0.end(Err(Reason::Text(reason.to_owned())));
    }
}

/// A run: its handle for those who add, acknowledge and close.
pub(crate) struct Run {
    pub pool: Pool,
    pub task: Arc<Task>,
    pub feed: Option<Arc<Feed>>,
    gate: Arc<Gate>,
    time_limit: Option<Duration>,
    running: parking_lot::Mutex<Option<Running>>,
    manager: Option<Arc<Manager>>,
}

type Running = std::pin::Pin<Box<dyn Future<Output = Outcome<Job>> + Send>>;

impl Run {
    /// A run of `owner`; [`start`](Self::start) starts it.
    pub fn new(
        task: Arc<Task>,
        owner: LocalPid,
        handler: Handler,
        options: Options,
        time_limit: Option<Duration>,
        progress: Option<TermKey>,
    ) -> Self {
        let (operation, feed) = match handler {
            Handler::Operation(operation) => (Some(operation), None),
            Handler::Workers(feed) => (None, Some(feed)),
        };
        let gate = Arc::new(Gate {
            owner,
            progress,
            feed: feed.clone(),
            open: RwLock::new(None),
        });
        let job = Job {
            operation,
            gate: Arc::clone(&gate),
        };
        let (pool, running): (_, Running) = match &feed {
            None => {
                let (pool, running) = core_pool::Pool::new(job, options);
                (pool, Box::pin(running))
            }
            Some(feed) => {
                let caller = Arc::clone(feed);
                let call = move |number| caller.call(number);
                let (pool, hands, running) = core_pool::Pool::driven(job, options, call);
                feed.set_hands(hands);
                (pool, Box::pin(running))
            }
        };
        Self {
            pool,
            task,
            feed,
            gate,
            time_limit,
            running: parking_lot::Mutex::new(Some(running)),
            manager: None,
        }
    }

    /// Has the run fail when the manager of its worker processes dies. `false`: it has died.
    pub fn depends_on(&mut self, env: Env, manager: &LocalPid) -> bool {
        let watch = Arc::new(Manager(Arc::clone(&self.task)));
        let possession: Weak<Manager> = Arc::downgrade(&watch);
        self.manager = Some(watch);
        owners::own(env, manager, owners::next_key(), possession)
    }

    /// Ends it before its start, and tells nobody.
    pub fn give_up(&self) {
        self.task.end_here();
        self.gate.close_feed();
    }

    /// Starts the run; its messages carry the reference.
    pub fn start(&self, reference: Reference) {
        let Some(running) = self.running.lock().take() else {
            return;
        };
        let pool = self.pool.clone();
        let counted = runs::Counted::new(self.gate.owner, pool.clone());
        *self.gate.open.write() = Some(Open {
            reference,
            pool,
            counted,
        });
        let end: Arc<dyn RunEnd> = Arc::clone(&self.gate) as _;
        self.task.set_run(end);
        let (pool, time_limit) = (self.pool.clone(), self.time_limit);
        let run = async move {
            let (outcome, in_time) = run_within(running, &pool, time_limit).await;
            reply(outcome, in_time, pool.stats())
        };
        self.task
            .spawn_as(Label::Pool, calls::batch_entry(), Box::pin(run));
    }
}

async fn run_within(
    mut running: Running,
    pool: &Pool,
    time_limit: Option<Duration>,
) -> (Outcome<Job>, bool) {
    let Some(limit) = time_limit else {
        return (running.await, true);
    };
    match tokio::time::timeout(limit, &mut running).await {
        Ok(outcome) => (outcome, true),
        Err(_) => {
            pool.cancel();
            (running.await, false)
        }
    }
}

fn reply(outcome: Outcome<Job>, in_time: bool, stats: Stats) -> Reply {
    match outcome {
        Outcome::Finished => Ok(Box::new(Totals(stats))),
        Outcome::Cancelled if !in_time => Err(Reason::Timeout),
        Outcome::Cancelled => Err(Reason::Cancelled),
        Outcome::Failed(item, error) => {
            let failed = SavedTerm::build(|env| (&item, item_reason(&error)).encode(env));
            Err(Reason::Term(Arc::new(failed)))
        }
        Outcome::Crashed(text) => Err(Reason::Panic(text)),
    }
}

fn item_reason(error: &ItemError<Box<Reason>>) -> Reason {
    match error {
        ItemError::Failed(reason) => Reason::clone(reason),
        ItemError::Panicked(text) => Reason::Panic(text.clone()),
    }
}

/// The totals of a run as a term.
pub(crate) struct Totals(pub Stats);

impl Encoder for Totals {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let Stats {
            dispatched,
            succeeded,
            failed,
            duplicates,
            refused,
        } = self.0;
        rustler::term_map!(env, {
            atoms::dispatched() => dispatched,
            atoms::succeeded() => succeeded,
            atoms::failed() => failed,
            atoms::duplicates() => duplicates,
            atoms::refused() => refused,
        })
    }
}

impl Reference {
    fn load<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Self::Made(reference) => reference.load(env),
            Self::Handle(handle) => handle.encode(env),
        }
    }
}

impl Gate {
    /// Sends a batch of results, unless the run has ended. Called on a thread of ours.
    fn deliver(&self, batch: &[ItemResult<Job>]) {
        let open = self.open.read();
        let Some(open) = &*open else {
            return;
        };
        Sender::Thread.send(&self.owner, |env| {
            let mut results = TermList::with_capacity(env, batch.len());
            for entry in batch {
                results.push(encode_entry(env, entry));
            }
            let payload = (atoms::results(), results.to_term());
            (atoms::tokamak(), open.reference.load(env), payload).encode(env)
        });
        if let Some(key) = &self.progress {
            let stats = open.pool.stats();
            let done = stats.succeeded + stats.failed;
            // Done is what has ended, not what happens to have no work left for a moment.
            progress::report(key, done, stats.dispatched.max(done + 1));
        }
    }
}

impl Gate {
    /// Ends the worker processes, after the run's end: their manager's death is its end otherwise.
    fn close_feed(&self) {
        if let Some(feed) = &self.feed {
            feed.close();
        }
    }
}

impl RunEnd for Gate {
    fn end(&self, caller: &LocalPid, reply: Reply) {
        let open = self.open.write().take();
        let Some(Open {
            reference,
            pool,
            counted,
        }) = open
        else {
            return;
        };
        // Before the message: whoever has it finds the run in the totals.
        drop(counted);
        if let (Some(key), Ok(_)) = (&self.progress, &reply) {
            let stats = pool.stats();
            let done = stats.succeeded + stats.failed;
            progress::report(key, done, done);
        }
        pool.cancel();
        Sender::Thread.send(caller, |env| {
            let payload = match &reply {
                Ok(stats) => (atoms::finished(), stats.encode_value(env)).encode(env),
                Err(reason) => encode_error(env, reason),
            };
            (atoms::tokamak(), reference.load(env), payload).encode(env)
        });
        self.close_feed();
    }

    fn cancelled(&self) {
        let open = self.open.write().take();
        if let Some(open) = &open {
            open.pool.cancel();
        }
        match &self.feed {
            // A scheduler has no time for all the workers there may be.
            Some(feed) if on_scheduler() => {
                let feed = Arc::clone(feed);
                owners::on_janitor(move || feed.close());
            }
            _ => self.close_feed(),
        }
    }
}

fn encode_entry<'a>(env: Env<'a>, (item, result): &ItemResult<Job>) -> Term<'a> {
    let result = match result {
        Ok(value) => (atoms::ok(), value).encode(env),
        Err(error) => encode_error(env, &item_reason(error)),
    };
    (item, result).encode(env)
}

/// Takes apart what a handler gave back: `{Result, [Child]}`. `routed`: the children go to the owner
/// with the result, who says where they are run.
pub(crate) fn take_apart(term: Term, routed: bool) -> Discovery {
    let Ok((result, List(children))) = term.decode::<(Term, List<Term>)>() else {
        let text = "an operation of a pool returns {Result, [Child]}".to_owned();
        return Err(Reason::Kind("bad_return", text).into());
    };
    if routed {
        return Ok((Value::Term(SavedTerm::save(term)), Vec::new()));
    }
    let value = result.decode().map_err(|_| Reason::Cancelled)?;
    Ok((value, children.into_iter().map(Item::save).collect()))
}

/// What an operation's reply says of an item.
pub(crate) fn of_reply(env: Env, reply: &Reply, routed: bool) -> Discovery {
    match reply {
        Err(reason) => Err(reason.clone().into()),
        Ok(_) => of_end(encode_reply(env, reply), routed),
    }
}

/// What `{ok, {Result, [Child]}}` or `{error, Reason}` says of an item.
pub(crate) fn of_end(end: Term, routed: bool) -> Discovery {
    match end.decode::<(rustler::Atom, Term)>() {
        Ok((ok, value)) if ok == atoms::ok() => take_apart(value, routed),
        Ok((_, reason)) => Err(Reason::of_term(reason).into()),
        Err(_) => Err(Reason::Cancelled.into()),
    }
}
