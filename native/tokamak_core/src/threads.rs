// SPDX-License-Identifier: Apache-2.0
//! Threads where there may be none left: tokio panics without one, and its runtime then hangs or leaks.
//!
//! So they are asked for beforehand, by making them.

use parking_lot::Mutex;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, sleep};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Fails where the operating system cannot make so many threads now.
///
/// # Errors
/// The operating system's.
pub fn probe(count: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    let closed = gate.lock();
    let (ids, failed) = std::thread::scope(|scope| {
        let mut threads = Vec::with_capacity(count);
        let mut failed = None;
        while threads.len() < count && failed.is_none() {
            let wait = || {
                drop(gate.lock());
                id()
            };
            match Builder::new().spawn_scoped(scope, wait) {
                Ok(thread) => threads.push(thread),
                Err(error) => failed = Some(error),
            }
        }
        drop(closed);
        let ids = threads.into_iter().filter_map(|thread| thread.join().ok());
        (ids.collect::<Vec<_>>(), failed)
    });
    ids.into_iter().for_each(wait_until_gone);
    failed.map_or(Ok(()), Err)
}

/// How often it is looked for a thread that ends, and how long is slept before the next look.
const LOOKS: usize = 100;
const PAUSE: Duration = Duration::from_micros(50);

/// A thread that was joined counts for a moment longer.
fn wait_until_gone(thread: Option<String>) {
    let Some(path) = thread else {
        return;
    };
    for _ in 0..LOOKS {
        if !std::fs::exists(&path).unwrap_or(false) {
            return;
        }
        sleep(PAUSE);
    }
}

#[cfg(target_os = "linux")]
fn id() -> Option<String> {
    let id = rustix::thread::gettid().as_raw_nonzero();
    Some(format!("/proc/self/task/{id}"))
}

#[cfg(not(target_os = "linux"))]
fn id() -> Option<String> {
    None
}

/// Whether there was no thread the last time: then it is asked for one before tokio is.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Runs a closure on a thread of tokio's that may block. While others have such threads it may wait for one of
/// them; its value is `None` for one that was not started, which is an error here already.
///
/// # Errors
/// The operating system's, when it cannot make the first such thread. The closure does not run then.
pub fn spawn_blocking<R: Send + 'static>(
    run: impl FnOnce() -> R + Send + 'static,
) -> io::Result<JoinHandle<Option<R>>> {
    if FAILED.load(Ordering::Relaxed) {
        probe(1)?;
        FAILED.store(false, Ordering::Relaxed);
    }
    // Without a thread tokio panics, and keeps what it was given for its next one.
    let run = Arc::new(Mutex::new(Some(run)));
    let given = Arc::clone(&run);
    let spawn = || {
        tokio::task::spawn_blocking(move || {
            let run = given.lock().take();
            run.map(|run| run())
        })
    };
    catch_unwind(AssertUnwindSafe(spawn)).map_err(|_| {
        FAILED.store(true, Ordering::Relaxed);
        run.lock().take();
        rustix::io::Errno::AGAIN.into()
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn threads_that_can_be_made_are_no_error() {
        assert!(probe(8).is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_closure_runs_on_a_thread_that_may_block() {
        let value = spawn_blocking(|| 7).expect("a thread can be made").await;
        assert_eq!(value.expect("it does not panic"), Some(7));
    }
}
