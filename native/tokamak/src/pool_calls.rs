// SPDX-License-Identifier: Apache-2.0
//! The NIFs of worker pools, as functions for `tokamak::nif!`.

use crate::atoms;
use crate::calls::{NotMade, callable, running};
use crate::environment::{SavedTerm, Sender, TermKey};
use crate::list::List;
use crate::operation::BadArgument;
use crate::pool::{
    Feed, Handler, Item, Next, OperationHandler, Reference, Run, Totals, take_apart,
};
use crate::reply::{Reason, encode_error};
use crate::runtime::Refusal;
use crate::task::{ReplyTo, Task};
use rustler::{Atom, Encoder, Env, LocalPid, Resource, ResourceArc, Term};
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use tokamak_core::pool::{OnError, Options};
use tokamak_core::task_state::State;

/// The most results in a batch.
const BATCH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// The most workers of a run; `tokamak_pool` refuses more.
const MAX_WORKERS: usize = 1 << 24;

/// What the handle of a run refers to.
pub struct PoolResource {
    owner: LocalPid,
    run: Option<Run>,
    /// The function that gives items their keys; natively they come as `{Key, Item}`.
    key: Option<SavedTerm>,
    routed: bool,
}

#[rustler::resource_impl]
impl Resource for PoolResource {}

type Handle = ResourceArc<PoolResource>;

/// The options of a run, as `tokamak_pool` checked them.
#[derive(rustler::NifMap)]
#[rustler(decode)]
struct StartOptions<'a> {
    workers: usize,
    window: usize,
    stop_on_error: bool,
    /// 0: without bound.
    max_items: u64,
    /// Milliseconds, or -1.
    timeout: i64,
    /// `[]` or `[Key]`.
    progress: List<Term<'a>>,
    /// `[]` or `[Fun]`, for whoever adds items.
    key: List<Term<'a>>,
    routed: bool,
}

impl StartOptions<'_> {
    fn core(&self) -> Options {
        let at_least_one = |count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        Options {
            workers: at_least_one(self.workers.min(MAX_WORKERS)),
            window: at_least_one(self.window),
            batch: BATCH,
            on_error: match self.stop_on_error {
                true => OnError::Stop,
                false => OnError::Skip,
            },
            max_items: NonZeroU64::new(self.max_items),
        }
    }

    fn time_limit(&self) -> Option<Duration> {
        u64::try_from(self.timeout).ok().map(Duration::from_millis)
    }
}

/// Starts a run of an operation, or of the worker processes of `{Manager, Reference}`. Always a handle: a
/// refusal is its end. Messages carry `reference`, or the handle where that is none.
pub fn start<'a>(
    env: Env<'a>,
    handler: Term<'a>,
    options: Term<'a>,
    reference: Term<'a>,
) -> Term<'a> {
    let Ok(options) = options.decode::<StartOptions>() else {
        return atoms::badarg().encode(env);
    };
    match try_start(env, handler, &options) {
        Ok(run) => started(env, Some(run), &options, reference).encode(env),
        Err(not) => {
            let handle = started(env, None, &options, reference);
            let sent_as = if reference.is_ref() {
                reference
            } else {
                handle.encode(env)
            };
            let end = match not {
                NotMade::BadArgument(wrong) => encode_error(env, &Reason::BadArgument(wrong)),
                not => not.encode(env),
            };
            Sender::Process(env).send(&env.pid(), |env| {
                (atoms::tokamak(), sent_as, end).encode(env)
            });
            dismiss(env, handler);
            handle.encode(env)
        }
    }
}

/// A run that was refused has no feed: the manager that waits for it is told here.
fn dismiss(env: Env, handler: Term) {
    if let Ok((manager, reference)) = handler.decode::<(LocalPid, Term)>() {
        Sender::Process(env).send(&manager, |env| {
            (atoms::tokamak(), reference, atoms::over()).encode(env)
        });
    }
}

fn started<'a>(
    env: Env<'a>,
    run: Option<Run>,
    options: &StartOptions,
    reference: Term<'a>,
) -> Handle {
    let handle = ResourceArc::new(PoolResource {
        owner: env.pid(),
        run,
        key: options.key.0.first().map(|key| SavedTerm::save(*key)),
        routed: options.routed,
    });
    if let Some(run) = &handle.run {
        run.start(match reference.is_ref() {
            true => Reference::Made(SavedTerm::save(reference)),
            false => Reference::Handle(handle.clone()),
        });
    }
    handle
}

fn try_start(env: Env, handler: Term, options: &StartOptions) -> Result<Run, NotMade> {
    let entry = match handler.decode::<Atom>() {
        Ok(name) => Some(callable(name)?),
        Err(_) => None,
    };
    if entry.is_some_and(|entry| entry.operation.arity != 1) {
        let expected = "an operation of one argument";
        return Err(BadArgument { index: 0, expected }.into());
    }
    let wrong = BadArgument {
        index: 0,
        expected: "an operation or worker processes",
    };
    let admission = running()?.admit(1)?;
    let task = Task::new(env, env.pid(), true, admission, ReplyTo::Nobody);
    let core = options.core();
    let mut manager = None;
    let handler = match entry {
        Some(entry) => {
            let (task, routed) = (Arc::clone(&task), options.routed);
            let handler = OperationHandler {
                entry,
                task,
                routed,
            };
            Handler::Operation(handler)
        }
        None => {
            let Ok((pid, reference)) = handler.decode::<(LocalPid, Term)>() else {
                task.end_here();
                return Err(wrong.into());
            };
            let reference = SavedTerm::save(reference);
            let feed = Arc::new(Feed::new(pid, reference, core.workers.get()));
            manager = Some(pid);
            Handler::Workers(feed)
        }
    };
    let progress = options.progress.0.first().map(|key| TermKey::save(*key));
    let mut run = Run::new(
        task,
        env.pid(),
        handler,
        core,
        options.time_limit(),
        progress,
    );
    if let Some(manager) = manager
        && !run.depends_on(env, &manager)
    {
        run.give_up();
        return Err(NotMade::Refused(Refusal::Shutdown));
    }
    Ok(run)
}

fn decode(handle: Term) -> Option<Handle> {
    handle.decode().ok()
}

impl PoolResource {
    /// Items of a proper list.
    fn items(&self, list: Term) -> Option<Vec<Item>> {
        let List(terms): List<Term> = list.decode().ok()?;
        let save = |term| match self.key.is_some() {
            true => Item::save_keyed(term),
            false => Some(Item::save(term)),
        };
        terms.into_iter().map(save).collect()
    }
}

/// Adds items: `ok | closed`.
pub fn add<'a>(env: Env<'a>, handle: Term<'a>, items: Term<'a>) -> Term<'a> {
    let Some(handle) = decode(handle) else {
        return atoms::badarg().encode(env);
    };
    let Some(items) = handle.items(items) else {
        return atoms::badarg().encode(env);
    };
    let added = match &handle.run {
        Some(run) if run.task.state() == State::Running => {
            Feed::telling(env, || run.pool.add(items)).is_ok()
        }
        _ => false,
    };
    match added {
        true => atoms::ok(),
        false => atoms::closed(),
    }
    .encode(env)
}

/// The function that gives items their keys: `[Fun]`, or `[]`.
pub fn key<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    match decode(handle) {
        Some(handle) => {
            let key: Vec<Term> = handle.key.iter().map(|key| key.load(env)).collect();
            key.encode(env)
        }
        None => atoms::badarg().encode(env),
    }
}

/// No more items come.
pub fn close<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    let Some(handle) = decode(handle) else {
        return atoms::badarg().encode(env);
    };
    if let Some(run) = &handle.run {
        run.pool.close();
    }
    atoms::ok().encode(env)
}

/// Gives back the credit of batches.
pub fn acknowledge<'a>(env: Env<'a>, handle: Term<'a>, batches: usize) -> Term<'a> {
    let Some(handle) = decode(handle) else {
        return atoms::badarg().encode(env);
    };
    if handle.owner != env.pid() {
        return atoms::not_owner().encode(env);
    }
    if let Some(run) = &handle.run {
        run.pool.ack(batches);
    }
    atoms::ok().encode(env)
}

/// Ends the run; where it stands then.
pub fn cancel<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    let Some(handle) = decode(handle) else {
        return atoms::badarg().encode(env);
    };
    if handle.owner != env.pid() {
        return atoms::not_owner().encode(env);
    }
    let state = handle
        .run
        .as_ref()
        .map_or(State::Sent, |run| run.task.cancel());
    match state {
        State::Running => atoms::running(),
        State::Sending => atoms::sending(),
        State::Sent => atoms::sent(),
        State::Cancelled => atoms::cancelled(),
    }
    .encode(env)
}

/// The totals so far.
pub fn stats<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    match decode(handle) {
        Some(handle) => match &handle.run {
            Some(run) => Totals(run.pool.stats()).encode(env),
            None => Totals(tokamak_core::pool::Stats::default()).encode(env),
        },
        None => atoms::badarg().encode(env),
    }
}

/// A worker process gives back what became of its item and takes the next: `{item, Item} | waiting |
/// over`. `end` is `none`, `{ok, {Result, [Child]}}` or `{error, Reason}`.
pub fn step<'a>(env: Env<'a>, handle: Term<'a>, worker: u64, end: Term<'a>) -> Term<'a> {
    let Some(handle) = decode(handle) else {
        return atoms::badarg().encode(env);
    };
    let Some(feed) = handle.run.as_ref().and_then(|run| run.feed.as_ref()) else {
        return atoms::over().encode(env);
    };
    let end = match end.decode::<(Atom, Term)>() {
        Ok((ok, value)) if ok == atoms::ok() => Some(handle.ended(value)),
        Ok((_, reason)) => Some(Err(Reason::of_term(reason).into())),
        Err(_) => None,
    };
    match feed.step(env, worker, end) {
        Next::Item(item) => (atoms::item(), item).encode(env),
        Next::Waiting => atoms::waiting().encode(env),
        Next::Over => atoms::over().encode(env),
    }
}

impl PoolResource {
    fn ended(&self, value: Term) -> crate::pool::Discovery {
        if self.key.is_none() || self.routed {
            return take_apart(value, self.routed);
        }
        let (result, children): (Term, Term) = value.decode().map_err(|_| Reason::Cancelled)?;
        let children = self.items(children).ok_or(Reason::Cancelled)?;
        Ok((result.decode().map_err(|_| Reason::Cancelled)?, children))
    }
}

/// More children of the item that a worker process has in hand.
pub fn discover<'a>(env: Env<'a>, handle: Term<'a>, worker: u64, items: Term<'a>) -> Term<'a> {
    let found = decode(handle).and_then(|handle| Some((handle.items(items)?, handle)));
    let Some((items, handle)) = found else {
        return atoms::badarg().encode(env);
    };
    if let Some(feed) = handle.run.as_ref().and_then(|run| run.feed.as_ref()) {
        feed.discover(worker, items);
    }
    atoms::ok().encode(env)
}

/// A worker process died: what it had in hand fails for this reason.
pub fn lost<'a>(env: Env<'a>, handle: Term<'a>, worker: u64, reason: Term<'a>) -> Term<'a> {
    let Some(handle) = decode(handle) else {
        return atoms::badarg().encode(env);
    };
    if let Some(feed) = handle.run.as_ref().and_then(|run| run.feed.as_ref()) {
        feed.lost(env, worker, Reason::of_term(reason));
    }
    atoms::ok().encode(env)
}
