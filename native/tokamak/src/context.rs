// SPDX-License-Identifier: Apache-2.0
//! What a running operation knows of its call.

use crate::task::Task;
use std::cell::OnceCell;
use std::sync::{Arc, OnceLock};
use tokamak_core::task_state::State;

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
pub struct Ctx {
    /// Set when the call becomes a task; an eager operation may end before it is one.
    task: Arc<OnceLock<Arc<Task>>>,
}

impl Ctx {
    fn detached() -> Self {
        Self {
            task: Arc::new(OnceLock::new()),
        }
    }

    fn task(&self) -> Option<&Arc<Task>> {
        self.task.get()
    }

    /// The number of this call, unique within the library while the VM lives; 0 during the first poll
    /// of an eager operation.
    pub fn call_id(&self) -> u64 {
        self.task().map_or(0, |task| task.key())
    }

    /// Whether nobody waits for the result any more. A blocking operation looks at it from time to
    /// time, as it cannot be aborted; a future is simply dropped.
    pub fn is_cancelled(&self) -> bool {
        self.task()
            .is_some_and(|task| task.state() != State::Running)
    }

    /// Waits until the call is cancelled: for work that an operation handed to others.
    pub async fn cancelled(&self) {
        match self.task() {
            Some(task) => task.cancelled().await,
            None => std::future::pending().await,
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
    ctx: OnceCell<Ctx>,
}

impl<'t> LazyCtx<'t> {
    /// The context of a call that is no task yet.
    pub(crate) fn detached() -> Self {
        Self {
            task: None,
            ctx: OnceCell::new(),
        }
    }

    /// The context of a task.
    pub(crate) fn of(task: &'t Arc<Task>) -> Self {
        Self {
            task: Some(task),
            ctx: OnceCell::new(),
        }
    }

    /// The call became a task.
    pub(crate) fn attach(&self, task: &Arc<Task>) {
        if let Some(ctx) = self.ctx.get() {
            // Set once: a call becomes one task.
            let _ = ctx.task.set(Arc::clone(task));
        }
    }

    /// The context.
    pub fn get(&self) -> Ctx {
        let make = || {
            let ctx = Ctx::detached();
            if let Some(task) = self.task {
                let _ = ctx.task.set(Arc::clone(task));
            }
            ctx
        };
        self.ctx.get_or_init(make).clone()
    }
}
