// SPDX-License-Identifier: Apache-2.0
//! Operations as handlers of a pool: terms on the way in and out live in the worker's scratch
//! environment only.

use super::{Discovery, Item, of_end, of_reply};
use crate::bytes::Value;
use crate::calls::start_call;
use crate::context::LazyCtx;
use crate::environment::{with_scratch, with_scratch_unless};
use crate::operation::{BadArgument, Call, Eager, Entry, PollEagerly, ReplyFuture, Started};
use crate::reply::{Reason, Reply};
use crate::task::{Task, run_blocking, run_limited};
use rustler::{Encoder, Env, Term};
use std::sync::Arc;

/// An operation of one argument that returns `{Result, [Child]}`.
pub(crate) struct OperationHandler {
    pub entry: &'static Entry,
    pub task: Arc<Task>,
    /// Children are not run here, but go to the owner with the result.
    pub routed: bool,
}

/// How far an item came without waiting.
enum Begun {
    Ended(Discovery),
    Waits(ReplyFuture),
    Blocks(Box<dyn FnOnce() -> Reply + Send>),
}

impl Begun {
    /// Whether its terms took little memory.
    fn is_small(&self) -> bool {
        match self {
            Self::Ended(Ok((Value::Integer(_) | Value::Atom(_), children))) => {
                children.len() <= FEW && children.iter().all(Item::is_small)
            }
            _ => false,
        }
    }
}

/// So many children are a small list.
const FEW: usize = 16;

impl OperationHandler {
    pub async fn run(&self, item: &Item) -> Discovery {
        let is_small = |begun: &Begun| item.is_small() && begun.is_small();
        let reply = match with_scratch_unless(is_small, |env| self.begin(env, item)) {
            Begun::Ended(discovery) => return discovery,
            Begun::Waits(future) => run_limited(self.entry, future).await,
            Begun::Blocks(run) => run_blocking(self.task.runtime(), self.entry, run).await,
        };
        with_scratch(|env| of_reply(env, &reply, self.routed))
    }

    fn begin(&self, env: Env, item: &Item) -> Begun {
        let ctx = LazyCtx::of(&self.task);
        let args = [item.encode(env)];
        let call = Call {
            env,
            args: &args,
            ctx: &ctx,
            output: None,
            inbox: 0,
        };
        match (self.entry.operation.eager, &self.entry.limit) {
            (Some(eager), None) => self.poll(eager, &call),
            _ => match start_call(self.entry, &call) {
                Ok(Started::Future(future)) => Begun::Waits(future),
                Ok(Started::Blocking(run)) => Begun::Blocks(run),
                Ok(_) => Begun::Ended(Err(Reason::Cancelled)),
                Err(wrong) => Begun::Ended(Err(Reason::BadArgument(wrong))),
            },
        }
    }

    /// An eager operation that is ready leaves its result in the scratch environment. (A panic is caught
    /// by the pool.)
    fn poll(&self, eager: PollEagerly, call: &Call) -> Begun {
        let polled: Result<Eager, BadArgument> = eager(call);
        match polled {
            Ok(Eager::Ready(end)) => Begun::Ended(of_ready(end, self.routed)),
            Ok(Eager::Pending(future)) => Begun::Waits(future),
            Err(wrong) => Begun::Ended(Err(Reason::BadArgument(wrong))),
        }
    }
}

fn of_ready(end: Term, routed: bool) -> Discovery {
    of_end(end, routed)
}
