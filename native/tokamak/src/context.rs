// SPDX-License-Identifier: Apache-2.0
//! What a running operation knows of its call.

use crate::owners;
use crate::task::Task;
use std::cell::OnceCell;
use std::sync::{Arc, OnceLock};
use tokamak_core::task_state::State;
use tokio::sync::Notify;

/// The context of a call: an operation takes it as its first argument if it wants it.
///
/// ```no_run
/// use tokamak::table::Data;
/// use tokamak::{Ctx, Path};
///
/// /// The sizes of files. Nobody can abort a thread, so it looks whether it is still wanted.
/// #[tokamak::op(blocking)]
/// fn sizes(ctx: Ctx, paths: Vec<Path>) -> std::io::Result<Vec<u64>> {
///     let mut sizes = Vec::new();
///     for path in &paths {
///         if ctx.is_cancelled() {
///             break;
///         }
///         sizes.push(std::fs::metadata(&path.0)?.len());
///         ctx.progress(sizes.len() as u64, paths.len() as u64);
///     }
///     Ok(sizes)
/// }
///
/// /// Submitted to a loop, it tells that it has begun; what it hands over ends with the call.
/// #[tokamak::op]
/// async fn ticks(ctx: Ctx) -> u64 {
///     ctx.event(Data::Bytes(b"begun"));
///     let id = ctx.call_id();
///     ctx.cancelled().await;
///     id
/// }
/// ```
#[derive(Clone)]
pub struct Ctx(Arc<Link>);

/// What leads from a context to its task.
struct Link {
    /// Set when the call becomes a task, and when an eager one ends without.
    task: OnceLock<Option<Arc<Task>>>,
    settled: Notify,
    /// Of a part of a task: its own.
    number: Option<u64>,
}

impl Link {
    fn settle(&self, task: Option<Arc<Task>>) {
        // Set once: a call becomes one task.
        let _ = self.task.set(task);
        self.settled.notify_waiters();
    }
}

impl Ctx {
    fn new(task: OnceLock<Option<Arc<Task>>>, number: Option<u64>) -> Self {
        Self(Arc::new(Link {
            task,
            settled: Notify::new(),
            number,
        }))
    }

    fn task(&self) -> Option<&Arc<Task>> {
        self.0.task.get()?.as_ref()
    }

    /// The number of this call, unique within the library while the VM lives; 0 during the first poll
    /// of an eager operation. Each call of a gather or of a submission has its own, and each item of a pool.
    pub fn call_id(&self) -> u64 {
        let of_task = || self.task().map_or(0, |task| task.key());
        self.0.number.unwrap_or_else(of_task)
    }

    /// Whether nobody waits for the result any more. A blocking operation looks at it from time to
    /// time, as it cannot be aborted; a future is simply dropped.
    pub fn is_cancelled(&self) -> bool {
        match self.0.task.get() {
            Some(Some(task)) => task.state() != State::Running,
            Some(None) => true,
            None => false,
        }
    }

    /// Waits until the call is cancelled or has ended: for work that an operation handed to others.
    pub async fn cancelled(&self) {
        let settled = self.0.settled.notified();
        if self.0.task.get().is_none() {
            settled.await;
        }
        if let Some(task) = self.task() {
            task.over().await;
        }
    }

    /// Tells how far the call is, to those who subscribed to it with `tokamak_progress`: at any rate, as
    /// they are sent an update an interval. The key is the call's reference, or its callback id when it
    /// was submitted to a loop by itself. Units are the operation's own; done is `done >= total`.
    ///
    /// `false`: the call has no reference (a cast, a stream, an item of a pool, a first poll), or has
    /// ended.
    pub fn progress(&self, done: u64, total: u64) -> bool {
        self.task()
            .is_some_and(|task| task.report_progress(done, total))
    }

    /// Tells the loop that the call was submitted to: an event of the call's callback id, of type
    /// `user`. `false`: the call was not submitted to a loop, or the loop is full or closed.
    pub fn event(&self, data: crate::table::Data) -> bool {
        self.task().is_some_and(|task| task.event(data))
    }
}

/// A context that is made only for the operations that ask for one.
pub struct LazyCtx<'t> {
    task: Option<&'t Arc<Task>>,
    is_part: bool,
    ctx: OnceCell<Ctx>,
}

impl<'t> LazyCtx<'t> {
    /// The context of a call that is no task yet.
    pub(crate) fn detached() -> Self {
        Self {
            task: None,
            is_part: false,
            ctx: OnceCell::new(),
        }
    }

    /// The context of a task.
    pub(crate) fn of(task: &'t Arc<Task>) -> Self {
        Self {
            task: Some(task),
            is_part: false,
            ctx: OnceCell::new(),
        }
    }

    /// The context of one of the calls that a task runs.
    pub(crate) fn of_part(task: &'t Arc<Task>) -> Self {
        Self {
            task: Some(task),
            is_part: true,
            ctx: OnceCell::new(),
        }
    }

    /// The call became a task.
    pub(crate) fn attach(&self, task: &Arc<Task>) {
        if let Some(ctx) = self.ctx.get() {
            ctx.0.settle(Some(Arc::clone(task)));
        }
    }

    /// The context.
    pub fn get(&self) -> Ctx {
        let make = || {
            let task = self.task.map(|task| Some(Arc::clone(task)));
            let number = self.is_part.then(owners::next_key);
            Ctx::new(task.map_or_else(OnceLock::new, OnceLock::from), number)
        };
        self.ctx.get_or_init(make).clone()
    }
}

impl Drop for LazyCtx<'_> {
    /// A call that is no task by now has ended.
    fn drop(&mut self) {
        if let Some(ctx) = self.ctx.get()
            && ctx.0.task.get().is_none()
        {
            ctx.0.settle(None);
        }
    }
}
