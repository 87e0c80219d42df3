// SPDX-License-Identifier: Apache-2.0
//! The NIFs of calls, as functions: `tokamak::nif!` makes NIFs of them in the library that uses it.

use crate::atoms;
use crate::batch::Part;
use crate::bytes;
use crate::context::LazyCtx;
use crate::environment::{Envelope, SavedTerm, Sender};
use crate::gather::{self, Mode};
use crate::latency::{self, Label};
use crate::list::List;
use crate::operation::{self, BadArgument, Call, Eager, Entry, Kind, ReplyFuture, Started};
use crate::owners;
use crate::reply::{OperationError, Reason, encode_error};
use crate::runtime::{self, Admission, Refusal, Runtime};
use crate::stopwatch::Stopwatch;
use crate::submit;
use crate::table::Table;
use crate::task::{ReplyTo, Task};
use parking_lot::Mutex;
use rustler::{Atom, Encoder, Env, Resource, ResourceArc, Term};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokamak_core::task_state::State;
use tokio::sync::OwnedSemaphorePermit;

/// The most arguments an operation takes.
pub const MAX_ARITY: usize = 8;

/// A first poll that takes longer is counted.
const SLOW_POLL_NANOSECONDS: u64 = 1_000_000;

/// What the handle of a call refers to.
pub struct CallResource {
    task: Option<Arc<Task>>,
    /// An eager operation that was pending, until its caller has a reference to wait for.
    pending: Mutex<Option<(&'static Entry, ReplyFuture)>>,
    caller: rustler::LocalPid,
}

#[rustler::resource_impl]
impl Resource for CallResource {}

impl CallResource {
    fn new(env: Env, task: Option<Arc<Task>>) -> ResourceArc<Self> {
        ResourceArc::new(Self {
            task,
            pending: Mutex::new(None),
            caller: env.pid(),
        })
    }
}

impl Drop for CallResource {
    fn drop(&mut self) {
        if let (Some(task), Some(pending)) = (&self.task, self.pending.get_mut().take()) {
            runtime::discard(task.runtime().handle(), [pending]);
        }
    }
}

/// What the list of an operation's arguments should be, by how many it takes.
const ARGUMENTS: [&str; MAX_ARITY + 1] = [
    "an empty list: the operation takes no arguments",
    "a list of 1 argument, as the operation takes",
    "a list of 2 arguments, as the operation takes",
    "a list of 3 arguments, as the operation takes",
    "a list of 4 arguments, as the operation takes",
    "a list of 5 arguments, as the operation takes",
    "a list of 6 arguments, as the operation takes",
    "a list of 7 arguments, as the operation takes",
    "a list of 8 arguments, as the operation takes",
];

/// Decodes the list of a call's arguments into a buffer on the stack.
pub(crate) fn decode_args<'a, 'b>(
    list: Term<'a>,
    arity: usize,
    buffer: &'b mut [Term<'a>; MAX_ARITY],
) -> Result<&'b [Term<'a>], BadArgument> {
    let wrong = || BadArgument {
        index: 0,
        expected: ARGUMENTS.get(arity).copied().unwrap_or("a list"),
    };
    // Cell by cell: an iterator panics at the end of an improper list.
    let (mut rest, mut count) = (list, 0);
    while let Ok((head, tail)) = rest.list_get_cell() {
        *buffer.get_mut(count).ok_or_else(wrong)? = head;
        count += 1;
        rest = tail;
    }
    match count == arity && rest.is_empty_list() {
        true => Ok(&buffer[..count]),
        false => Err(wrong()),
    }
}

/// Why a call cannot be made.
pub(crate) enum NotMade {
    BadArgument(BadArgument),
    Refused(Refusal),
    Unknown(Atom),
    WrongKind(Kind),
    Closed,
}

impl From<BadArgument> for NotMade {
    fn from(wrong: BadArgument) -> Self {
        Self::BadArgument(wrong)
    }
}

impl From<Refusal> for NotMade {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Encoder for NotMade {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Self::BadArgument(wrong) => wrong.encode(env),
            Self::Refused(refusal) => (atoms::error(), refusal_atom(*refusal)).encode(env),
            Self::Unknown(name) => encode_error(env, &Reason::UnknownOperation(*name)),
            Self::Closed => (atoms::error(), atoms::closed()).encode(env),
            Self::WrongKind(kind) => {
                (atoms::error(), (atoms::wrong_kind(), kind.atom())).encode(env)
            }
        }
    }
}

fn refusal_atom(refusal: Refusal) -> Atom {
    match refusal {
        Refusal::Overloaded => atoms::overloaded(),
        Refusal::Shutdown => atoms::shutdown(),
    }
}

pub(crate) fn running() -> Result<Arc<Runtime>, NotMade> {
    runtime::current().ok_or(NotMade::Refused(Refusal::Shutdown))
}

/// The operation of a name, if it is one that is called.
pub(crate) fn callable(name: Atom) -> Result<&'static Entry, NotMade> {
    let entry = operation::find(name).ok_or(NotMade::Unknown(name))?;
    match entry.operation.kind {
        kind @ (Kind::Stream | Kind::Duplex) => Err(NotMade::WrongKind(kind)),
        _ => Ok(entry),
    }
}

/// Gives an operation that is called its arguments.
pub(crate) fn start<'a>(
    env: Env<'a>,
    entry: &Entry,
    args: Term<'a>,
    ctx: &LazyCtx,
) -> Result<Started, BadArgument> {
    let mut buffer = [args; MAX_ARITY];
    let args = decode_args(args, entry.operation.arity, &mut buffer)?;
    start_call(
        entry,
        &Call {
            env,
            args,
            ctx,
            output: None,
            inbox: 0,
        },
    )
}

/// Has an operation decode its arguments. That is code of its author's: a panic is the call's end.
pub(crate) fn start_call(entry: &Entry, call: &Call) -> Result<Started, BadArgument> {
    let start = AssertUnwindSafe(|| (entry.operation.start)(call));
    catch_unwind(start).unwrap_or_else(|panic| {
        let reason = Reason::of_panic(panic.as_ref());
        Ok(Started::Future(Box::pin(async move { Err(reason) })))
    })
}

pub(crate) fn launch(task: &Arc<Task>, entry: &'static Entry, started: Started) {
    match started {
        Started::Future(future) => task.spawn(entry, future),
        Started::Blocking(run) => task.spawn_blocking(entry, run),
        Started::Stream(_) | Started::Duplex(..) => {}
    }
}

/// A hundredth of a timeslice, which is about a millisecond.
const PERCENT_NANOSECONDS: u64 = 10_000;

/// Has the caller's turn end earlier for the time that was taken. A scheduler frees what is large only between
/// turns.
pub fn charge(env: Env, nanoseconds: u64) {
    if nanoseconds >= PERCENT_NANOSECONDS {
        let percent = (nanoseconds / PERCENT_NANOSECONDS).min(100);
        rustler::schedule::consume_timeslice(env, percent as i32);
    }
}

/// Polls an eager operation once, here; `None` when it has to start in the runtime: it is not eager, or its bound is
/// reached.
fn poll_eagerly<'a>(
    env: Env<'a>,
    runtime: &Runtime,
    entry: &Entry,
    args: Term<'a>,
    ctx: &LazyCtx,
) -> Result<Option<Eager<'a>>, BadArgument> {
    let Some(eager) = entry.operation.eager else {
        return Ok(None);
    };
    let permit = match entry.limit.as_ref().map(Arc::clone) {
        Some(limit) => match limit.try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => return Ok(None),
        },
        None => None,
    };
    let mut buffer = [args; MAX_ARITY];
    let args = decode_args(args, entry.operation.arity, &mut buffer)?;
    let call = Call {
        env,
        args,
        ctx,
        output: None,
        inbox: 0,
    };
    let _entered = runtime.handle().enter();
    let watch = Stopwatch::start();
    let polled = catch_unwind(AssertUnwindSafe(|| eager(&call)));
    let nanoseconds = watch.nanoseconds();
    if nanoseconds > SLOW_POLL_NANOSECONDS {
        runtime::count_slow_poll(entry.operation.name);
    }
    charge(env, nanoseconds);
    if latency::is_eager_picked(&watch) && matches!(polled, Ok(Ok(Eager::Ready(_)))) {
        latency::eager_ended(nanoseconds);
    }
    match polled {
        Ok(polled) => polled.map(|polled| Some(keep_permit(polled, permit))),
        Err(panic) => {
            let reason = Reason::of_panic(panic.as_ref());
            Ok(Some(Eager::Ready(encode_error(env, &reason))))
        }
    }
}

/// Has what is pending keep its place within its operation's bound until it ends.
fn keep_permit(polled: Eager, permit: Option<OwnedSemaphorePermit>) -> Eager {
    match (polled, permit) {
        (Eager::Pending(future), Some(permit)) => Eager::Pending(Box::pin(async move {
            let _permit = permit;
            future.await
        })),
        (polled, _) => polled,
    }
}

/// Takes in what is pending; what is refused ends here.
fn admit_pending(
    runtime: &Arc<Runtime>,
    future: ReplyFuture,
) -> Result<(Admission, ReplyFuture), Refusal> {
    match runtime.admit(1) {
        Ok(admission) => Ok((admission, future)),
        Err(refusal) => {
            runtime::discard(runtime.handle(), [future]);
            Err(refusal)
        }
    }
}

/// `{ok, Value} | {error, Reason}` of an eager operation that is ready, `{pending, Handle}` of one that
/// is not, `use_reference` for one that has to start in the runtime: see [`call_with`].
pub fn call<'a>(env: Env<'a>, name: Atom, args: Term<'a>) -> Term<'a> {
    try_call(env, name, args).unwrap_or_else(|not| not.encode(env))
}

fn try_call<'a>(env: Env<'a>, name: Atom, args: Term<'a>) -> Result<Term<'a>, NotMade> {
    let entry = callable(name)?;
    if entry.operation.kind != Kind::Eager {
        return Ok(atoms::use_reference().encode(env));
    }
    runtime::with_current(|runtime| match runtime {
        Some(runtime) => call_eagerly(env, runtime, entry, args),
        None => Err(NotMade::Refused(Refusal::Shutdown)),
    })
}

fn call_eagerly<'a>(
    env: Env<'a>,
    runtime: &Arc<Runtime>,
    entry: &'static Entry,
    args: Term<'a>,
) -> Result<Term<'a>, NotMade> {
    let ctx = LazyCtx::detached();
    match poll_eagerly(env, runtime, entry, args, &ctx)? {
        Some(Eager::Ready(end)) => Ok(end),
        Some(Eager::Pending(future)) => {
            let (admission, future) = admit_pending(runtime, future)?;
            let task = Task::new(env, env.pid(), true, admission, ReplyTo::Nobody);
            ctx.attach(&task);
            let handle = CallResource::new(env, Some(task));
            *handle.pending.lock() = Some((entry, future));
            Ok((atoms::pending(), handle).encode(env))
        }
        None => Ok(atoms::use_reference().encode(env)),
    }
}

/// Lets a pending eager operation go on, with its end under `reference`.
pub fn resume<'a>(env: Env<'a>, handle: Term<'a>, reference: Term<'a>) -> Term<'a> {
    let Ok(handle) = handle.decode::<ResourceArc<CallResource>>() else {
        return atoms::badarg().encode(env);
    };
    let pending = match reference.is_ref() {
        true => handle.pending.lock().take(),
        false => None,
    };
    if let (Some(task), Some((entry, future))) = (&handle.task, pending) {
        task.set_reference(env, reference);
        task.spawn_polled(entry, future);
    }
    atoms::ok().encode(env)
}

/// Starts an operation whose end comes under `reference`: its key, for a cancel.
pub fn call_with<'a>(env: Env<'a>, name: Atom, args: Term<'a>, reference: Term<'a>) -> Term<'a> {
    if !reference.is_ref() {
        return atoms::badarg().encode(env);
    }
    try_call_with(env, name, args, reference).unwrap_or_else(|not| not.encode(env))
}

fn try_call_with<'a>(
    env: Env<'a>,
    name: Atom,
    args: Term<'a>,
    reference: Term<'a>,
) -> Result<Term<'a>, NotMade> {
    let entry = callable(name)?;
    let admission = running()?.admit(1)?;
    let reply_to = ReplyTo::Caller(Envelope::new(reference));
    let task = Task::new(env, env.pid(), true, admission, reply_to);
    match start(env, entry, args, &LazyCtx::of(&task)) {
        Ok(started) => {
            let key = task.key();
            launch(&task, entry, started);
            Ok(key.encode(env))
        }
        Err(wrong) => {
            task.end_here();
            Err(wrong.into())
        }
    }
}

/// Starts an operation whose end comes under the handle that is returned. Always a handle, but for wrong
/// arguments: a refusal is its end.
pub fn call_async<'a>(env: Env<'a>, name: Atom, args: Term<'a>) -> Term<'a> {
    match try_call_async(env, name, args) {
        Ok(handle) => handle.encode(env),
        Err(NotMade::BadArgument(wrong)) => wrong.encode(env),
        Err(not) => {
            let handle = CallResource::new(env, None);
            Sender::Process(env).send(&env.pid(), |env| {
                (atoms::tokamak(), handle.encode(env), not.encode(env)).encode(env)
            });
            handle.encode(env)
        }
    }
}

fn try_call_async<'a>(
    env: Env<'a>,
    name: Atom,
    args: Term<'a>,
) -> Result<ResourceArc<CallResource>, NotMade> {
    let entry = callable(name)?;
    let runtime = running()?;
    if let Some(handle) = async_eagerly(env, &runtime, entry, args)? {
        return Ok(handle);
    }
    let task = Task::new(env, env.pid(), true, runtime.admit(1)?, ReplyTo::Nobody);
    match start(env, entry, args, &LazyCtx::of(&task)) {
        Ok(started) => {
            let handle = CallResource::new(env, Some(Arc::clone(&task)));
            task.set_reference(env, handle.encode(env));
            launch(&task, entry, started);
            Ok(handle)
        }
        Err(wrong) => {
            task.end_here();
            Err(wrong.into())
        }
    }
}

fn async_eagerly<'a>(
    env: Env<'a>,
    runtime: &Arc<Runtime>,
    entry: &'static Entry,
    args: Term<'a>,
) -> Result<Option<ResourceArc<CallResource>>, NotMade> {
    let ctx = LazyCtx::detached();
    match poll_eagerly(env, runtime, entry, args, &ctx)? {
        Some(Eager::Pending(future)) => {
            let (admission, future) = admit_pending(runtime, future)?;
            let task = Task::new(env, env.pid(), true, admission, ReplyTo::Nobody);
            ctx.attach(&task);
            let handle = CallResource::new(env, Some(Arc::clone(&task)));
            task.set_reference(env, handle.encode(env));
            task.spawn_polled(entry, future);
            Ok(Some(handle))
        }
        Some(Eager::Ready(end)) => {
            let handle = CallResource::new(env, None);
            Sender::Process(env).send(&env.pid(), |env| {
                (atoms::tokamak(), handle.encode(env), end.in_env(env)).encode(env)
            });
            Ok(Some(handle))
        }
        None => Ok(None),
    }
}

/// Runs an operation that nobody waits for.
pub fn cast<'a>(env: Env<'a>, name: Atom, args: Term<'a>) -> Term<'a> {
    match try_cast(env, name, args) {
        Ok(()) => atoms::ok().encode(env),
        Err(not) => not.encode(env),
    }
}

fn try_cast<'a>(env: Env<'a>, name: Atom, args: Term<'a>) -> Result<(), NotMade> {
    let entry = callable(name)?;
    let admission = running()?.admit(1)?;
    let task = Task::new(env, env.pid(), false, admission, ReplyTo::Nobody);
    match start(env, entry, args, &LazyCtx::of(&task)) {
        Ok(started) => {
            launch(&task, entry, started);
            Ok(())
        }
        Err(wrong) => {
            task.end_here();
            Err(wrong.into())
        }
    }
}

/// Where a call stands: `running | sending | sent | cancelled`, or `not_owner`.
pub fn state<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_call(env, handle, |task| task.state())
}

/// Where a call stands whose caller is about to wait for it. While it runs, its end comes under `reference` from now
/// on: one that was made where it is waited for spares the caller a look through its mailbox.
pub fn await_under<'a>(env: Env<'a>, handle: Term<'a>, reference: Term<'a>) -> Term<'a> {
    if !reference.is_ref() {
        return atoms::badarg().encode(env);
    }
    with_call(env, handle, |task| task.redirect(reference))
}

/// Cancels a call, by its handle or its key; where it stands then.
pub fn cancel<'a>(env: Env<'a>, call: Term<'a>) -> Term<'a> {
    match call.decode::<u64>() {
        // A call that is not known any more has sent its end.
        Ok(key) => encode_state(
            env,
            owners::cancel_call(&env.pid(), key).unwrap_or(State::Sent),
        ),
        Err(_) => with_call(env, call, |task| task.cancel()),
    }
}

fn with_call<'a>(env: Env<'a>, handle: Term<'a>, ask: impl FnOnce(&Task) -> State) -> Term<'a> {
    let Ok(handle) = handle.decode::<ResourceArc<CallResource>>() else {
        return atoms::badarg().encode(env);
    };
    if handle.caller != env.pid() {
        return atoms::not_owner().encode(env);
    }
    // A call without a task had its end sent by the NIF call that made it.
    encode_state(env, handle.task.as_deref().map_or(State::Sent, ask))
}

fn encode_state(env: Env, state: State) -> Term {
    match state {
        State::Running => atoms::running(),
        State::Sending => atoms::sending(),
        State::Sent => atoms::sent(),
        State::Cancelled => atoms::cancelled(),
    }
    .encode(env)
}

/// Runs calls side by side: their end comes under `reference`. Nothing starts before all arguments are
/// good; wrong ones are `{badarg, CallIndex, ArgumentIndex, Expected}`.
pub fn gather<'a>(
    env: Env<'a>,
    calls: Term<'a>,
    max_concurrency: usize,
    mode: Atom,
    reference: Term<'a>,
) -> Term<'a> {
    let (Ok(List(calls)), Some(mode), true) = (
        calls.decode::<List<(Atom, Term<'a>)>>(),
        Mode::from_atom(mode),
        reference.is_ref(),
    ) else {
        return atoms::badarg().encode(env);
    };
    // Its parts take the places; it takes none itself, so it waits instead of being refused.
    let admitted = running().and_then(|runtime| Ok((runtime.admit_batch()?, runtime)));
    let (admission, runtime) = match admitted {
        Ok(admitted) => admitted,
        Err(not) => return not.encode(env),
    };
    let reply_to = ReplyTo::Caller(Envelope::new(reference));
    let task = Task::new(env, env.pid(), true, admission, reply_to);
    let mut parts = Vec::with_capacity(calls.len());
    for (index, (name, args)) in calls.into_iter().enumerate() {
        let part = callable(name)
            .and_then(|entry| Ok((entry, start(env, entry, args, &LazyCtx::of_part(&task))?)))
            .or_else(|not| failed_part(not, name, index));
        match part {
            Ok(part) => parts.push(part),
            Err((index, wrong)) => {
                task.end_here();
                return (atoms::badarg(), index, wrong.index, wrong.expected).encode(env);
            }
        }
    }
    latency::count_parts(parts.len());
    let gathered = gather::gather(runtime, parts, max_concurrency, mode);
    task.spawn_as(Label::Gather, batch_entry(), Box::pin(gathered));
    task.key().encode(env)
}

/// Whether the arguments of a call are good, without starting it: a call that fails by what it names has
/// none that are wrong.
pub fn check<'a>(env: Env<'a>, name: Atom, args: Term<'a>) -> Term<'a> {
    let wrong = callable(name).and_then(|entry| {
        start(env, entry, args, &LazyCtx::detached())?;
        Ok(())
    });
    match wrong {
        Err(NotMade::BadArgument(wrong)) => wrong.encode(env),
        _ => atoms::ok().encode(env),
    }
}

/// A part that fails by what it names, not by its arguments, is a failure of the gather's.
fn failed_part(not: NotMade, name: Atom, index: usize) -> Result<Part, (usize, BadArgument)> {
    let reason = match not {
        NotMade::BadArgument(wrong) => return Err((index + 1, wrong)),
        NotMade::Unknown(_) => Reason::UnknownOperation(name),
        NotMade::WrongKind(kind) => Reason::WrongKind(kind),
        NotMade::Refused(_) | NotMade::Closed => Reason::Shutdown,
    };
    let failed: ReplyFuture = Box::pin(async move { Err(reason) });
    Ok((batch_entry(), Started::Future(failed)))
}

/// What a batch of calls, and a pool's run, runs as: it has no bound of its own.
pub(crate) fn batch_entry() -> &'static Entry {
    static OPERATION: operation::Operation = operation::Operation {
        name: "batch",
        arity: 0,
        kind: Kind::Async,
        limit: 0,
        start: |_| {
            Err(BadArgument {
                index: 0,
                expected: "nothing",
            })
        },
        eager: None,
        discover: None,
    };
    static ENTRY: Entry = Entry {
        operation: &OPERATION,
        limit: None,
    };
    &ENTRY
}

/// `[{Name, Arity, Kind}]`.
pub fn operations(env: Env) -> Term {
    let list: Vec<Term> = operation::all()
        .filter_map(|entry| {
            let operation = entry.operation;
            let name = Atom::from_str(env, operation.name).ok()?;
            Some((name, operation.arity, operation.kind.atom()).encode(env))
        })
        .collect();
    list.encode(env)
}

/// Starts the runtime. The term is the base library's, for its table; the base library itself has none.
pub fn start_runtime<'a>(
    env: Env<'a>,
    worker_threads: usize,
    max_blocking_threads: usize,
    max_in_flight: usize,
    table: Term<'a>,
) -> Term<'a> {
    if let Some(table) = Table::fetch(env, table) {
        submit::set_table(table);
    }
    let options = runtime::Options {
        worker_threads,
        max_blocking_threads,
        max_in_flight,
    };
    bytes::anchor();
    match runtime::start(options) {
        Ok(()) => atoms::ok().encode(env),
        Err(failed) => encode_error(env, &failed.reason()),
    }
}

/// Stops the runtime; `{tokamak, Reference, stopped}` comes when it has.
pub fn stop_runtime<'a>(env: Env<'a>, drain_milliseconds: u64, reference: Term<'a>) -> Term<'a> {
    let (pid, reference) = (env.pid(), SavedTerm::save(reference));
    runtime::stop(Duration::from_millis(drain_milliseconds), move || {
        Sender::Thread.send(&pid, |env| {
            (atoms::tokamak(), reference.load(env), atoms::stopped()).encode(env)
        });
    });
    atoms::ok().encode(env)
}
