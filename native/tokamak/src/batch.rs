// SPDX-License-Identifier: Apache-2.0
//! Many calls that were started together, and run side by side.
//!
//! A part is first polled by the batch itself, which runs on a worker: one that is ready then costs no
//! task of its own. That is done for a short time only, so that parts that compute go to the other workers.

use crate::operation::{Entry, Started};
use crate::reply::{Reason, Reply};
use crate::runtime::Runtime;
use crate::task::{run_blocking, run_limited};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// How long the batch polls parts itself before it gives the others tasks of their own.
const OWN_POLLS: Duration = Duration::from_micros(200);
/// How many polls there are between two looks at the clock.
const CLOCK_INTERVAL: usize = 16;

/// A call that has its arguments.
pub type Part = (&'static Entry, Started);

/// Runs parts; ends those that still run when it is dropped.
pub struct Batch {
    runtime: Arc<Runtime>,
    running: Vec<AbortHandle>,
    since: Instant,
    polls: usize,
    polls_itself: bool,
}

impl Batch {
    /// A batch of no parts.
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Self {
            runtime,
            running: Vec::new(),
            since: Instant::now(),
            polls: 0,
            polls_itself: true,
        }
    }

    /// Runs a part: `ended` gets its reply, on this or another worker. What `held` holds is given back
    /// before that.
    pub fn run<H>(
        &mut self,
        (entry, started): Part,
        held: H,
        ended: impl FnOnce(Reply) + Send + 'static,
    ) where
        H: Send + 'static,
    {
        let mut future: Pin<Box<dyn Future<Output = Reply> + Send>> = match started {
            Started::Future(future) if entry.limit.is_none() => future,
            Started::Future(future) => Box::pin(run_limited(entry, future)),
            Started::Blocking(run) => {
                let runtime = Arc::clone(&self.runtime);
                Box::pin(async move { run_blocking(&runtime, entry, run).await })
            }
            Started::Stream(_) | Started::Duplex(..) => {
                Box::pin(async { Err(Reason::Text("not a call".to_owned())) })
            }
        };
        if self.may_poll()
            && let Some(reply) = poll_once(&mut future)
        {
            drop(held);
            ended(reply);
            return;
        }
        let part = tokio::spawn(async move {
            let reply = run_caught(future).await;
            drop(held);
            ended(reply);
        });
        self.running.push(part.abort_handle());
    }

    fn may_poll(&mut self) -> bool {
        self.polls += 1;
        if self.polls_itself && self.polls.is_multiple_of(CLOCK_INTERVAL) {
            self.polls_itself = self.since.elapsed() < OWN_POLLS;
        }
        self.polls_itself
    }

    /// Whether the time of own polls is over.
    pub fn is_out_of_breath(&self) -> bool {
        !self.polls_itself
    }

    /// Lets the worker do other things, and starts a new time of own polls.
    pub async fn breathe(&mut self) {
        if self.is_out_of_breath() {
            tokio::task::yield_now().await;
            self.since = Instant::now();
            self.polls_itself = true;
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for part in &self.running {
            part.abort();
        }
    }
}

/// Polls a future with a waker that does not count: whoever goes on with it polls it again.
fn poll_once(future: &mut Pin<Box<dyn Future<Output = Reply> + Send>>) -> Option<Reply> {
    let mut context = Context::from_waker(Waker::noop());
    let poll = AssertUnwindSafe(|| future.as_mut().poll(&mut context));
    match catch_unwind(poll) {
        Ok(Poll::Ready(reply)) => Some(reply),
        Ok(Poll::Pending) => None,
        Err(panic) => Some(Err(Reason::of_panic(panic.as_ref()))),
    }
}

async fn run_caught(future: Pin<Box<dyn Future<Output = Reply> + Send>>) -> Reply {
    use futures_util::FutureExt;
    AssertUnwindSafe(future)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(Reason::of_panic(panic.as_ref())))
}
