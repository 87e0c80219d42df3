// SPDX-License-Identifier: Apache-2.0
//! Calls whose results are events of a loop.

use crate::environment::on_scheduler;
use crate::owners;
use crate::reply::{Reason, Reply};
use crate::table::{Data, LoopReference, Table, TablePort};
use crate::task::Task;
use parking_lot::Mutex;
use rustler::Term;
use std::sync::{Arc, OnceLock, Weak};
use tokio::sync::Notify;

/// A loop as submitted calls see it: the base library's own, or through the C table.
pub trait LoopPort: Send + Sync {
    /// Reserves places for results.
    ///
    /// # Errors
    /// Why not.
    fn reserve(&self, count: usize) -> Result<(), NoPlace>;

    /// Gives reserved places back.
    fn unreserve(&self, count: usize);

    /// Ties a call to the loop: it is cancelled when the loop ends.
    fn tie(&self, task: Weak<Task>) -> u64;

    /// Unties a call that ended.
    fn untie(&self, tie: u64);

    /// Pushes results into their reserved places. Called on a thread of ours.
    fn push_replies(&self, replies: Vec<(u64, Reply)>);

    /// Pushes an event of type `user`; `false` when it was refused. Called on a thread of ours.
    fn push_event(&self, callback_id: u64, data: Data) -> bool;
}

/// Why a loop has no place for a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The loop's bound is reached.
    Overloaded,
    /// The loop is closed.
    Closed,
}

/// Finds the loop that a term stands for.
pub type FindLoop = fn(Term) -> Option<Arc<dyn LoopPort>>;

static FIND_LOOP: OnceLock<FindLoop> = OnceLock::new();
static TABLE: OnceLock<&'static Table> = OnceLock::new();

/// Says how loops are found; for the base library, whose own they are.
pub fn set_find_loop(find: FindLoop) {
    // The load of a library comes once.
    let _ = FIND_LOOP.set(find);
}

/// Gives a library the base library's table, through which it finds loops.
pub fn set_table(table: &'static Table) {
    // The base library is never unloaded: the table stays what it was.
    let _ = TABLE.set(table);
}

/// The base library's table, in another library whose runtime was started.
pub fn table() -> Option<&'static Table> {
    TABLE.get().copied()
}

/// The loop that a term stands for.
pub fn find_loop(term: Term) -> Option<Arc<dyn LoopPort>> {
    if let Some(find) = FIND_LOOP.get() {
        return find(term);
    }
    let reference = LoopReference::retain(TABLE.get()?, term)?;
    Some(Arc::new(TablePort(reference)))
}

/// Where the results of calls go that were submitted together.
#[derive(Clone)]
pub struct LoopSink {
    port: Arc<dyn LoopPort>,
    tie: u64,
    /// Of a call that was submitted alone: for events of its own.
    callback_id: Option<u64>,
}

impl LoopSink {
    /// A sink of calls with reserved places in a loop, which cancels their task when it ends.
    pub fn new(port: Arc<dyn LoopPort>, task: Weak<Task>, callback_id: Option<u64>) -> Self {
        let tie = port.tie(task);
        Self {
            port,
            tie,
            callback_id,
        }
    }

    /// The id of the call's events, where it was submitted alone.
    pub fn callback_id(&self) -> Option<u64> {
        self.callback_id
    }

    /// The task ended.
    pub fn untie(&self) {
        self.port.untie(self.tie);
    }

    /// An event of the call.
    pub fn event(&self, data: Data) -> bool {
        self.callback_id
            .is_some_and(|id| self.port.push_event(id, data))
    }
}

/// The results of calls that were submitted together, on their way to the loop. They are collected while
/// the worker is busy with more of them: a push has its price, whatever it carries.
struct Results {
    port: Arc<dyn LoopPort>,
    collected: Mutex<Collected>,
    came: Notify,
}

struct Collected {
    replies: Vec<(u64, Reply)>,
    /// Whether somebody pushes what is collected. Otherwise each result is pushed as it comes.
    is_pushed: bool,
}

impl Results {
    fn add(&self, callback_id: u64, reply: Reply) {
        let mut collected = self.collected.lock();
        if collected.is_pushed {
            let is_first = collected.replies.is_empty();
            collected.replies.push((callback_id, reply));
            drop(collected);
            if is_first {
                self.came.notify_one();
            }
        } else {
            drop(collected);
            push(&self.port, vec![(callback_id, reply)]);
        }
    }
}

/// Pushes results from any thread.
fn push(port: &Arc<dyn LoopPort>, replies: Vec<(u64, Reply)>) {
    if replies.is_empty() {
        return;
    }
    if on_scheduler() {
        let port = Arc::clone(port);
        owners::on_janitor(move || port.push_replies(replies));
    } else {
        port.push_replies(replies);
    }
}

/// Pushes the results that its places get. Dropped, it leaves that to the places.
pub struct Pusher {
    results: Arc<Results>,
    left: usize,
}

impl Pusher {
    /// One for `count` reserved places.
    pub fn new(port: Arc<dyn LoopPort>, count: usize) -> Self {
        let collected = Collected {
            replies: Vec::new(),
            is_pushed: true,
        };
        let results = Results {
            port,
            collected: Mutex::new(collected),
            came: Notify::new(),
        };
        Self {
            results: Arc::new(results),
            left: count,
        }
    }

    /// A place.
    pub fn place(&self, callback_id: u64) -> Place {
        Place {
            results: Arc::clone(&self.results),
            callback_id,
            used: false,
        }
    }

    /// Pushes what there is.
    pub fn push(&mut self) {
        let replies = std::mem::take(&mut self.results.collected.lock().replies);
        self.left -= replies.len();
        push(&self.results.port, replies);
    }

    /// Pushes results until all places have had theirs.
    pub async fn push_all(mut self) {
        self.push();
        while self.left > 0 {
            self.results.came.notified().await;
            // Whoever is about to end on this worker ends first.
            tokio::task::yield_now().await;
            self.push();
        }
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.results.collected.lock().is_pushed = false;
        self.push();
    }
}

/// The place of one result. Dropped without one, the call was ended by a shutdown or with its loop.
pub struct Place {
    results: Arc<Results>,
    callback_id: u64,
    used: bool,
}

impl Place {
    /// Has the result pushed.
    pub fn fill(mut self, reply: Reply) {
        self.used = true;
        self.results.add(self.callback_id, reply);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.used {
            self.results.add(self.callback_id, Err(Reason::Shutdown));
        }
    }
}
