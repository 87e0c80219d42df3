// SPDX-License-Identifier: Apache-2.0
//! Threads where there may be none left: tokio panics without one, and its runtime then hangs or leaks.
//!
//! So they are asked for beforehand, by making them.

use parking_lot::Mutex;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Builder, Thread, sleep};
use std::time::{Duration, Instant};
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

/// Runs a future on this thread, for so long at most. Without tokio's timers, which stand still while its workers
/// are held.
pub fn block_on_within<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    let deadline = Instant::now().checked_add(time);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return None,
            Some(left) => thread::park_timeout(left),
            None => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
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

    #[test]
    fn a_future_gets_its_time() {
        let ready = std::future::ready(7);
        assert_eq!(block_on_within(Duration::ZERO, ready), Some(7));
        let never = std::future::pending::<()>();
        assert_eq!(block_on_within(Duration::from_millis(1), never), None);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        thread::spawn(move || sender.send(7));
        let received = block_on_within(Duration::from_secs(60), receiver);
        assert_eq!(received, Some(Ok(7)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_closure_runs_on_a_thread_that_may_block() {
        let value = spawn_blocking(|| 7).expect("a thread can be made").await;
        assert_eq!(value.expect("it does not panic"), Some(7));
    }
}
