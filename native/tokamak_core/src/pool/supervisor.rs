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

/// Runs workers, as many as the options want; ends when the last one is gone.
pub(super) fn supervise<W: Work>(
    shared: Arc<Shared<W>>,
) -> impl Future<Output = Outcome<W>> + Send {
    let guard = StopOnDrop(shared);
    async move {
        let mut tasks = JoinSet::new();
        for _ in 0..guard.0.options.workers.get() {
            tasks.spawn(worker::work(Arc::clone(&guard.0)));
        }
        supervise_tasks(&guard.0, tasks).await
    }
}

/// Runs the one task of workers that others drive, without a task of tokio's for it.
pub(super) fn supervise_driven<W: Work>(
    shared: Arc<Shared<W>>,
    task: impl Future<Output = ()> + Send,
) -> impl Future<Output = Outcome<W>> + Send {
    let guard = StopOnDrop(shared);
    async move {
        let shared = &guard.0;
        let crash = tokio::select! {
            ran = panic::catch_future(task) => ran.err(),
            () = shared.stopped.notified() => None,
        };
        if crash.is_some() {
            shared.stop(Outcome::Cancelled);
        }
        outcome(shared, crash)
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
    outcome(shared, crash)
}

/// How a run ended whose tasks are gone.
fn outcome<W: Work>(shared: &Arc<Shared<W>>, crash: Option<String>) -> Outcome<W> {
    release_memory(Arc::clone(shared));
    if let Some(text) = crash {
        return Outcome::Crashed(text);
    }
    match shared.failure.lock().take() {
        Some(outcome) => outcome,
        None => Outcome::Finished,
    }
}

/// So few items are dropped faster than a thread is woken for it.
const FEW: u64 = 1024;

/// Handles may live on for long, and their last one may go on a thread that must not block.
fn release_memory<W: Work>(shared: Arc<Shared<W>>) {
    let release = |shared: &Shared<W>| {
        shared.frontier.clear();
        shared.discovery.forget();
    };
    if shared.discovery.stats().dispatched <= FEW {
        return release(&shared);
    }
    let here = Arc::clone(&shared);
    // Without a thread left it has to be done here.
    if threads::spawn_blocking(move || release(&shared)).is_err() {
        release(&here);
    }
}
