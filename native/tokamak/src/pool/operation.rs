// SPDX-License-Identifier: Apache-2.0
//! Operations as handlers of a pool: terms on the way in and out live in the worker's scratch
//! environment only.

use super::{Discovery, Item, of_end, of_reply};
use crate::bytes::Value;
use crate::calls::start_call;
use crate::context::LazyCtx;
use crate::discovery::{Plain, PollDiscovery, Polled};
use crate::environment::{with_scratch, with_scratch_unless};
use crate::operation::{BadArgument, Call, Eager, Entry, PollEagerly, ReplyFuture, Started};
use crate::reply::{Reason, Reply};
use crate::task::{Task, run_blocking, run_limited};
use rustler::{Encoder, Env};
use std::sync::Arc;
use tokamak_core::pool;

/// An operation of one argument that returns `{Result, [Child]}`.
pub(crate) struct OperationHandler {
    pub entry: &'static Entry,
    pub task: Arc<Task>,
    /// Children are not run here, but go to the owner with the result.
    pub routed: bool,
}

type Begun = pool::Begun<Discovery, Waits>;

/// What an item waits for.
pub(crate) enum Waits {
    Future(ReplyFuture),
    Blocking(Box<dyn FnOnce() -> Reply + Send>),
}

/// Whether its terms took little memory.
fn is_small(begun: &Begun) -> bool {
    match begun {
        Begun::Ended(Ok((Value::Integer(_) | Value::Atom(_), children))) => {
            children.len() <= FEW && children.iter().all(Item::is_small)
        }
        _ => false,
    }
}

/// So many children are a small list.
const FEW: usize = 16;

impl OperationHandler {
    /// Starts an item's call.
    pub fn begin(&self, item: &Item) -> Begun {
        let is_small = |begun: &Begun| item.is_small() && is_small(begun);
        with_scratch_unless(is_small, |env| self.begin_in(env, item))
    }

    /// Waits for an item's call.
    pub async fn wait(&self, waits: Waits) -> Discovery {
        let reply = match waits {
            Waits::Future(future) => run_limited(self.entry, future).await,
            Waits::Blocking(run) => run_blocking(self.task.runtime(), self.entry, run).await,
        };
        with_scratch(|env| of_reply(env, &reply, self.routed))
    }

    fn begin_in(&self, env: Env, item: &Item) -> Begun {
        let ctx = LazyCtx::of_part(&self.task);
        let args = [item.encode(env)];
        let call = Call {
            env,
            args: &args,
            ctx: &ctx,
            output: None,
            inbox: 0,
        };
        let operation = self.entry.operation;
        match (operation.eager, operation.discover) {
            _ if self.entry.limit.is_some() => self.start(&call),
            (_, Some(discover)) if !self.routed => self.discover(discover, &call),
            (Some(eager), _) => self.poll(eager, &call),
            _ => self.start(&call),
        }
    }

    fn start(&self, call: &Call) -> Begun {
        match start_call(self.entry, call) {
            Ok(Started::Future(future)) => Begun::Waits(Waits::Future(future)),
            Ok(Started::Blocking(run)) => Begun::Waits(Waits::Blocking(run)),
            Ok(_) => Begun::Ended(Err(Reason::Cancelled.into())),
            Err(wrong) => wrong_argument(wrong),
        }
    }

    /// An eager operation whose result may need no terms. (A panic is caught by the pool.)
    fn discover(&self, discover: PollDiscovery, call: &Call) -> Begun {
        match discover(call) {
            Ok(Polled::Plain(Plain { value, children })) => Begun::Ended(Ok((value, children))),
            Ok(Polled::Eager(polled)) => self.end(polled),
            Err(wrong) => wrong_argument(wrong),
        }
    }

    /// Any eager operation.
    fn poll(&self, eager: PollEagerly, call: &Call) -> Begun {
        match eager(call) {
            Ok(polled) => self.end(polled),
            Err(wrong) => wrong_argument(wrong),
        }
    }

    /// One that is ready left its result in the scratch environment.
    fn end(&self, polled: Eager) -> Begun {
        match polled {
            Eager::Ready(end) => Begun::Ended(of_end(end, self.routed)),
            Eager::Pending(future) => Begun::Waits(Waits::Future(future)),
        }
    }
}

fn wrong_argument(wrong: BadArgument) -> Begun {
    Begun::Ended(Err(Reason::BadArgument(wrong).into()))
}
