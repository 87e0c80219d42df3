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

/// Runs the workers; ends when the last one is gone.
pub(super) fn supervise<W: Work>(
    shared: Arc<Shared<W>>,
) -> impl Future<Output = Outcome<W>> + Send {
    let guard = StopOnDrop(shared);
    async move {
        let shared = &guard.0;
        let mut workers = JoinSet::new();
        for _ in 0..shared.options.workers.get() {
            workers.spawn(worker::work(Arc::clone(shared)));
        }
        supervise_tasks(shared, workers).await
    }
}

/// Runs the task that delivers what hands do.
pub(super) fn supervise_delivery<W: Work>(
    shared: Arc<Shared<W>>,
    delivery: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = Outcome<W>> + Send {
    let guard = StopOnDrop(shared);
    async move {
        let mut tasks = JoinSet::new();
        tasks.spawn(delivery);
        supervise_tasks(&guard.0, tasks).await
    }
}

async fn supervise_tasks<W: Work>(shared: &Arc<Shared<W>>, mut workers: JoinSet<()>) -> Outcome<W> {
    let mut crash = None;
    loop {
        tokio::select! {
            () = shared.stopped.notified() => workers.abort_all(),
            joined = workers.join_next() => match joined {
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
