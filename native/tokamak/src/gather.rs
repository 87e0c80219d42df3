// SPDX-License-Identifier: Apache-2.0
//! Many calls as one: a future that runs them side by side and gathers their replies.

use crate::atoms;
use crate::batch::{Batch, Part};
use crate::reply::{Reason, Reply, encode_reply};
use crate::runtime::{self, Admission, Runtime};
use parking_lot::Mutex;
use rustler::{Encoder, Env, Term};
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};

/// When a gather ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With the first failure, which cancels the rest.
    FailFast,
    /// When all calls have ended.
    Settle,
}

/// What the parts share with the gather.
struct Shared {
    state: Mutex<Replies>,
    ended: Notify,
}

struct Replies {
    by_index: ByIndex,
    left: usize,
    /// The first failure, by time.
    failed: Option<usize>,
}

/// The replies that came so far.
struct ByIndex {
    replies: Vec<Option<Reply>>,
    runtime: Arc<Runtime>,
}

impl ByIndex {
    fn take(&mut self) -> Self {
        Self {
            replies: std::mem::take(&mut self.replies),
            runtime: Arc::clone(&self.runtime),
        }
    }
}

impl Drop for ByIndex {
    fn drop(&mut self) {
        runtime::discard(self.runtime.handle(), self.replies.drain(..));
    }
}

/// Runs the parts, at most `max_concurrency` at once, each with a place among the calls in flight.
pub async fn gather(
    runtime: Arc<Runtime>,
    parts: Vec<Part>,
    max_concurrency: usize,
    mode: Mode,
) -> Reply {
    let count = parts.len();
    let shared = Arc::new(Shared {
        state: Mutex::new(Replies {
            by_index: ByIndex {
                replies: std::iter::repeat_with(|| None).take(count).collect(),
                runtime: Arc::clone(&runtime),
            },
            left: count,
            failed: None,
        }),
        ended: Notify::new(),
    });
    let mut batch = Batch::new(Arc::clone(&runtime));
    let slots = Arc::new(Semaphore::new(max_concurrency.min(Semaphore::MAX_PERMITS)));
    for (index, part) in parts.into_iter().enumerate() {
        let slot = match max_concurrency < count {
            true => Arc::clone(&slots).acquire_owned().await.ok(),
            false => None,
        };
        let Some(admission) = place(&runtime).await else {
            return Err(Reason::Shutdown);
        };
        if mode == Mode::FailFast && shared.state.lock().failed.is_some() {
            break;
        }
        let shared = Arc::clone(&shared);
        batch.run(part, (admission, slot), move |reply| {
            shared.part_ended(index, reply, mode);
        });
        batch.breathe().await;
    }
    shared.wait(mode).await;
    // The rest is aborted with the batch; none of its replies counts any more.
    let mut state = shared.state.lock();
    let replies = state.by_index.take();
    let failed = state.failed;
    drop(state);
    finish(replies, failed, mode)
}

async fn place(runtime: &Arc<Runtime>) -> Option<Admission> {
    match runtime.try_admit(1) {
        Ok(admission) => Some(admission),
        Err(_) => runtime.admit_later().await,
    }
}

impl Shared {
    fn part_ended(&self, index: usize, reply: Reply, mode: Mode) {
        let mut state = self.state.lock();
        let Some(place) = state.by_index.replies.get_mut(index) else {
            return;
        };
        let failed = reply.is_err();
        *place = Some(reply);
        state.left -= 1;
        if failed && state.failed.is_none() {
            state.failed = Some(index);
        }
        let ended = state.left == 0 || (failed && mode == Mode::FailFast);
        drop(state);
        if ended {
            self.ended.notify_one();
        }
    }

    async fn wait(&self, mode: Mode) {
        loop {
            let ended = self.ended.notified();
            {
                let state = self.state.lock();
                if state.left == 0 || (mode == Mode::FailFast && state.failed.is_some()) {
                    return;
                }
            }
            ended.await;
        }
    }
}

fn finish(mut by_index: ByIndex, failed: Option<usize>, mode: Mode) -> Reply {
    if let (Mode::FailFast, Some(index)) = (mode, failed) {
        let reason = match by_index.replies.get_mut(index).and_then(Option::take) {
            Some(Err(reason)) => reason,
            _ => Reason::Cancelled,
        };
        return Err(Reason::At(index + 1, Box::new(reason)));
    }
    Ok(Box::new(Gathered { by_index, mode }))
}

/// The replies of a gather, in the order of its calls.
struct Gathered {
    by_index: ByIndex,
    mode: Mode,
}

impl Encoder for Gathered {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let encode = |reply: &Reply| match (self.mode, reply) {
            (Mode::FailFast, Ok(value)) => value.encode_value(env),
            _ => encode_reply(env, reply),
        };
        let terms: Vec<Term> = self.by_index.replies.iter().flatten().map(encode).collect();
        terms.encode(env)
    }
}

impl Mode {
    /// The mode that an atom names.
    pub fn from_atom(atom: rustler::Atom) -> Option<Self> {
        if atom == atoms::fail_fast() {
            Some(Self::FailFast)
        } else if atom == atoms::settle() {
            Some(Self::Settle)
        } else {
            None
        }
    }
}
