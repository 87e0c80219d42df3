// SPDX-License-Identifier: Apache-2.0
//! The task that owns a run's workers and knows how it ended.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Outcome, Shared, Work, worker};
use crate::{panic, threads};

/// Stops the run when its future is dropped before the end.
struct StopOnDrop<W: Work>(Arc<Shared<W>>);

impl<W: Work> Drop for StopOnDrop<W> {
    fn drop(&mut self) {
        self.0.stop(Outcome::Cancelled);
    }
}

/// Runs the tasks that `spawn` makes; ends when the last one is gone.
pub(super) fn supervise<W: Work>(
    shared: Arc<Shared<W>>,
    spawn: impl FnOnce(&Arc<Shared<W>>, &mut JoinSet<()>) + Send,
) -> impl Future<Output = Outcome<W>> + Send {
    let guard = StopOnDrop(shared);
    async move {
        let mut tasks = JoinSet::new();
        spawn(&guard.0, &mut tasks);
        supervise_tasks(&guard.0, tasks).await
    }
}

/// As many workers as the options want.
pub(super) fn spawn_workers<W: Work>(shared: &Arc<Shared<W>>, tasks: &mut JoinSet<()>) {
    for _ in 0..shared.options.workers.get() {
        tasks.spawn(worker::work(Arc::clone(shared)));
    }
}

async fn supervise_tasks<W: Work>(shared: &Arc<Shared<W>>, mut tasks: JoinSet<()>) -> Outcome<W> {
    let mut crash = None;
    loop {
        tokio::select! {
            () = shared.stopped.notified() => tasks.abort_all(),
            joined = tasks.join_next() => match joined {
                None => break,
                Some(Err(error)) if error.is_panic() => {
                    crash = Some(panic::text(&*error.into_panic()));
                    shared.stop(Outcome::Cancelled);
                }
                Some(_) => {}
            },
        }
    }
    release_memory(Arc::clone(shared));
    if let Some(text) = crash {
        return Outcome::Crashed(text);
    }
    match shared.failure.lock().take() {
        Some(outcome) => outcome,
        None => Outcome::Finished,
    }
}

/// Handles may live on for long, and their last one may go on a thread that must not block.
fn release_memory<W: Work>(shared: Arc<Shared<W>>) {
    let release = |shared: &Shared<W>| {
        shared.frontier.clear();
        shared.discovery.forget();
    };
    let here = Arc::clone(&shared);
    // Without a thread left it has to be done here.
    if threads::spawn_blocking(move || release(&shared)).is_err() {
        release(&here);
    }
}
