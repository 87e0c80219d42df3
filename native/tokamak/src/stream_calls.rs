// SPDX-License-Identifier: Apache-2.0
//! The NIFs of streams, as functions for `tokamak::nif!`.

use crate::atoms;
use crate::calls::{MAX_ARITY, NotMade, decode_args, running, start_call};
use crate::context::LazyCtx;
use crate::environment::SavedTerm;
use crate::operation::{self, Call, ReplyStream, Started};
use crate::reply::{Reply, encode_error, encode_value};
use crate::stream::{Buffer, InputPort, Next, OutputPort, Pushed, Waiter};
use crate::task::{ReplyTo, Task};
use futures_util::StreamExt;
use rustler::{Atom, Encoder, Env, LocalPid, Resource, ResourceArc, Term};
use std::sync::Arc;

/// What the handle of a stream refers to.
pub struct StreamResource {
    buffer: Arc<Buffer>,
    task: Arc<Task>,
    input: Option<Arc<dyn InputPort>>,
    owner: LocalPid,
}

#[rustler::resource_impl]
impl Resource for StreamResource {}

/// Opens a stream or a duplex operation: its handle.
pub fn open<'a>(
    env: Env<'a>,
    kind: Atom,
    name: Atom,
    args: Term<'a>,
    window: usize,
    inbox: usize,
) -> Term<'a> {
    match try_open(env, kind, name, args, window.max(1), inbox.max(1)) {
        Ok(handle) => (atoms::ok(), handle).encode(env),
        Err(not) => not.encode(env),
    }
}

fn try_open<'a>(
    env: Env<'a>,
    kind: Atom,
    name: Atom,
    args: Term<'a>,
    window: usize,
    inbox: usize,
) -> Result<ResourceArc<StreamResource>, NotMade> {
    let entry = operation::find(name).ok_or(NotMade::Unknown(name))?;
    if entry.operation.kind.atom() != kind {
        return Err(NotMade::WrongKind(entry.operation.kind));
    }
    let runtime = running()?;
    let admission = runtime.admit(1)?;
    let buffer = Buffer::new(window, runtime.handle().clone());
    let reply_to = ReplyTo::Stream(Arc::clone(&buffer));
    let task = Task::new(env, env.pid(), true, admission, reply_to);
    let mut buffered = [args; MAX_ARITY];
    let args = decode_args(args, entry.operation.arity, &mut buffered);
    // A function that makes a stream may spawn, and make timers.
    let inside = runtime.handle().enter();
    let started = args.and_then(|args| {
        let output = OutputPort::new(Arc::clone(&buffer));
        let call = Call {
            env,
            args,
            ctx: &LazyCtx::of(&task),
            output: Some(&output),
            inbox,
        };
        start_call(entry, &call)
    });
    drop(inside);
    let started = started.inspect_err(|_| task.end_here())?;
    let mut input = None;
    match started {
        Started::Stream(stream) => {
            let run = drive(stream, Arc::clone(&buffer));
            task.spawn(entry, Box::pin(run));
        }
        Started::Duplex(future, port) => {
            input = Some(port);
            task.spawn(entry, future);
        }
        Started::Future(future) => task.spawn(entry, future),
        Started::Blocking(run) => task.spawn_blocking(entry, run),
    }
    Ok(ResourceArc::new(StreamResource {
        buffer,
        task,
        input,
        owner: env.pid(),
    }))
}

/// Moves a stream's items into its buffer; an error is the last one.
async fn drive(mut stream: ReplyStream, buffer: Arc<Buffer>) -> Reply {
    while buffer.has_room().await {
        match stream.next().await {
            Some(item) => {
                buffer.put(item?).await;
            }
            None => break,
        }
    }
    Ok(Box::new(atoms::done()))
}

fn waiter(env: Env, reference: Term) -> Option<Waiter> {
    reference.is_ref().then(|| Waiter {
        pid: env.pid(),
        reference: SavedTerm::save(reference),
    })
}

fn with_stream<'a>(
    env: Env<'a>,
    handle: Term<'a>,
    run: impl FnOnce(&StreamResource) -> Term<'a>,
) -> Term<'a> {
    match handle.decode::<ResourceArc<StreamResource>>() {
        Ok(stream) if stream.owner != env.pid() => atoms::not_owner().encode(env),
        Ok(stream) => run(&stream),
        Err(_) => atoms::badarg().encode(env),
    }
}

/// `{ok, Item} | done | {error, Reason} | waiting`; with a reference, `{tokamak, Reference, ready}` comes
/// after `waiting`.
pub fn next<'a>(env: Env<'a>, handle: Term<'a>, reference: Term<'a>) -> Term<'a> {
    with_stream(env, handle, |stream| {
        match stream.buffer.next(waiter(env, reference)) {
            Next::Item(item) => {
                let encoded = encode_value(env, item.as_ref());
                stream.buffer.discard(item);
                match encoded {
                    Ok(item) => (atoms::ok(), item).encode(env),
                    Err(reason) => {
                        stream.end();
                        encode_error(env, &reason)
                    }
                }
            }
            Next::Done => atoms::done().encode(env),
            Next::Failed(reason) => encode_error(env, &reason),
            Next::Closed => (atoms::error(), atoms::closed()).encode(env),
            Next::Waiting => atoms::waiting().encode(env),
        }
    })
}

/// `ok | woken | full | {error, closed}`; with a reference, `{tokamak, Reference, ready}` comes after `full`, and
/// after `woken`, which is `ok` otherwise.
pub fn push<'a>(env: Env<'a>, handle: Term<'a>, item: Term<'a>, reference: Term<'a>) -> Term<'a> {
    with_stream(env, handle, |stream| {
        let Some(input) = &stream.input else {
            return (atoms::error(), (atoms::wrong_kind(), atoms::stream())).encode(env);
        };
        if stream.buffer.is_over() {
            return (atoms::error(), atoms::closed()).encode(env);
        }
        match input.push(item, waiter(env, reference)) {
            Ok(Pushed::Done) => atoms::ok().encode(env),
            Ok(Pushed::Woken) => atoms::woken().encode(env),
            Ok(Pushed::Full) => atoms::full().encode(env),
            Ok(Pushed::Closed) => (atoms::error(), atoms::closed()).encode(env),
            Err(wrong) => wrong.encode(env),
        }
    })
}

/// Ends the wait for an item (`next`) or for room (`push`). `false`: the message is on its way.
pub fn stop_waiting<'a>(env: Env<'a>, handle: Term<'a>, for_what: Atom) -> Term<'a> {
    with_stream(env, handle, |stream| {
        let stopped = if for_what == atoms::push() {
            stream
                .input
                .as_ref()
                .is_none_or(|input| input.stop_waiting())
        } else {
            stream.buffer.stop_waiting()
        };
        stopped.encode(env)
    })
}

/// Ends a stream for its consumer: the producer is cancelled.
pub fn close<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_stream(env, handle, |stream| {
        stream.end();
        atoms::ok().encode(env)
    })
}

impl StreamResource {
    fn end(&self) {
        self.buffer.close();
        self.task.cancel();
    }
}
