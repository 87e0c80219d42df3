// SPDX-License-Identifier: Apache-2.0
//! NIFs of `tokamak_loop`.

use crate::atoms;
use crate::drain::{DEFAULT_MAX, Drained, Polled};
use crate::entry;
use crate::event_loop::{Backend, EventLoop, Kind, Options, Waiter};
use crate::fd::{term_to_direction, to_direction};
use crate::handle::{HandleType, Handled};
use crate::library;
use crate::payload::{Acknowledged, Event, Payload};
use crate::select;
use rustler::{Atom, Encoder, Env, LocalPid, Term};
use std::sync::Arc;
use std::time::Duration;
use tokamak::environment::{SavedTerm, Sender};
use tokamak_core::event_id::MAX_ID;
use tokamak_core::queue::Refused;
use tokamak_core::timers::NotStarted;

entry::nifs! { loop_drain: 3, loop_poll: 2, loop_dispatch: 1, loop_dispatched: 2, loop_give_back: 3, loop_selected: 2, loop_post: 4, timer_start: 3, timer_cancel: 2 }

/// The type of the handles of loops.
pub static HANDLES: HandleType<EventLoop> = HandleType::new();

impl Handled for EventLoop {}

fn error<'a>(env: Env<'a>, reason: Atom) -> Term<'a> {
    (atoms::error(), reason).encode(env)
}

/// Runs an operation on an open loop; otherwise `badarg` or `{error, closed}`.
fn with_loop<'a>(handle: Term<'a>, run: impl FnOnce(&Arc<EventLoop>) -> Term<'a>) -> Term<'a> {
    let env = handle.get_env();
    match HANDLES.get(handle) {
        Some(event_loop) if event_loop.is_closed_and_told() => error(env, atoms::closed()),
        Some(event_loop) => run(event_loop),
        None => atoms::badarg().encode(env),
    }
}

fn result<'a>(env: Env<'a>, result: Result<(), Atom>) -> Term<'a> {
    match result {
        Ok(()) => atoms::ok().encode(env),
        Err(reason) => error(env, reason),
    }
}

/// The callback id of an argument.
fn callback_id(term: Term) -> Option<u64> {
    term.decode::<u64>()
        .ok()
        .filter(|id| (1..=MAX_ID).contains(id))
}

#[rustler::nif]
fn loop_open<'a>(
    env: Env<'a>,
    kind: Atom,
    backend: Atom,
    max_queue: usize,
    max_timers: usize,
) -> Term<'a> {
    let kind = if kind == atoms::raw() {
        Kind::Raw
    } else {
        Kind::Supervised
    };
    let backend = if backend == atoms::select() {
        Backend::Select
    } else {
        Backend::Native
    };
    let options = Options {
        kind,
        backend,
        max_queue,
        max_timers,
    };
    let Some(services) = library::services() else {
        return error(env, atoms::shutdown());
    };
    match EventLoop::open(&services, env.pid(), options) {
        Ok(event_loop) => {
            let handle = HANDLES.make(env, Arc::clone(&event_loop));
            event_loop.bind(env, handle);
            // Last: whoever ends the loop lets go of its handle, which must be there.
            if !services.add_loop(&event_loop) {
                event_loop.close(Sender::Process(env));
                return error(env, atoms::shutdown());
            }
            (atoms::ok(), handle).encode(env)
        }
        Err(failed) => error(env, open_error(&failed)),
    }
}

fn open_error(failed: &std::io::Error) -> Atom {
    match failed.raw_os_error() {
        Some(code) => atoms::errno(rustix::io::Errno::from_raw_os_error(code)),
        None => atoms::not_supported(),
    }
}

#[rustler::nif]
fn loop_close<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_loop(handle, |event_loop| {
        if event_loop.is_raw() && event_loop.owner != env.pid() {
            return atoms::not_owner().encode(env);
        }
        if event_loop.close(Sender::Process(env)) {
            atoms::ok().encode(env)
        } else {
            error(env, atoms::closed())
        }
    })
}

/// The process of a supervised loop, the owner of a raw one.
#[rustler::nif]
fn loop_owner<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_loop(handle, |event_loop| {
        let kind = if event_loop.is_raw() {
            atoms::raw()
        } else {
            atoms::supervised()
        };
        (kind, event_loop.owner).encode(env)
    })
}

fn loop_drain<'a>(env: Env<'a>, [handle, max, polls]: [Term<'a>; 3]) -> Term<'a> {
    let (Ok(max), Ok(polls)) = (max.decode::<usize>(), polls.decode::<bool>()) else {
        return atoms::badarg().encode(env);
    };
    with_loop(handle, |event_loop| {
        if !event_loop.is_raw() {
            return error(env, atoms::not_supported());
        }
        if event_loop.owner != env.pid() {
            return atoms::not_owner().encode(env);
        }
        let max = if max == 0 { DEFAULT_MAX } else { max };
        let drained = event_loop.drain(env, max, polls);
        // A stop that began meanwhile may have taken what was there.
        if drained.terms.is_empty() && event_loop.is_closed_and_told() {
            return error(env, atoms::closed());
        }
        encode_drained(env, drained)
    })
}

fn encode_drained<'a>(env: Env<'a>, drained: Drained<'a>) -> Term<'a> {
    let tag = if drained.more {
        atoms::more()
    } else {
        atoms::empty()
    };
    (tag, drained.terms.to_term()).encode(env)
}

/// `Reference` is `undefined`, or what to wait for.
fn loop_poll<'a>(env: Env<'a>, [handle, reference]: [Term<'a>; 2]) -> Term<'a> {
    with_loop(handle, |event_loop| {
        if event_loop.is_raw() {
            // The owner waits for `ready`, see tokamak_loop.
            return atoms::raw().encode(env);
        }
        let waiter = reference
            .is_ref()
            .then(|| Waiter::Process(env.pid(), SavedTerm::save(reference)));
        match event_loop.poll(env, Sender::Process(env), waiter) {
            Polled::Events(events) => events.to_term(),
            Polled::More => atoms::more().encode(env),
            Polled::Busy => error(env, atoms::busy()),
            Polled::Waiting => atoms::waiting().encode(env),
        }
    })
}

#[rustler::nif]
fn loop_stop_waiting<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    match HANDLES.get(handle) {
        Some(event_loop) => event_loop.stop_waiting(env).encode(env),
        None => atoms::badarg().encode(env),
    }
}

fn loop_dispatch<'a>(env: Env<'a>, [handle]: [Term<'a>; 1]) -> Term<'a> {
    with_loop(handle, |event_loop| {
        if event_loop.owner != env.pid() {
            return atoms::not_owner().encode(env);
        }
        encode_drained(env, event_loop.dispatch(env))
    })
}

/// The loop's process sent `count` events to their handlers.
fn loop_dispatched<'a>(env: Env<'a>, [handle, count]: [Term<'a>; 2]) -> Term<'a> {
    let Ok(count) = count.decode::<usize>() else {
        return atoms::badarg().encode(env);
    };
    with_loop(handle, |event_loop| {
        if event_loop.owner != env.pid() {
            return atoms::not_owner().encode(env);
        }
        event_loop
            .queue
            .release(count.min(event_loop.queue.len() as usize));
        atoms::ok().encode(env)
    })
}

/// The loop's process gives back the first `count` places that events of an id have in their sources' windows.
fn loop_give_back<'a>(env: Env<'a>, [handle, id, count]: [Term<'a>; 3]) -> Term<'a> {
    let (Some(id), Ok(count)) = (callback_id(id), count.decode::<usize>()) else {
        return atoms::badarg().encode(env);
    };
    with_loop(handle, |event_loop| {
        if event_loop.owner != env.pid() {
            return atoms::not_owner().encode(env);
        }
        event_loop.give_back_places(env, id, count);
        atoms::ok().encode(env)
    })
}

#[rustler::nif]
fn loop_register<'a>(
    env: Env<'a>,
    handle: Term<'a>,
    id: Term<'a>,
    pid: LocalPid,
    reference: Term<'a>,
) -> Term<'a> {
    with_loop(handle, |event_loop| match callback_id(id) {
        Some(id) if reference.is_ref() && event_loop.owner == env.pid() => {
            event_loop.add_handler(env, id, pid, reference);
            atoms::ok().encode(env)
        }
        _ => atoms::badarg().encode(env),
    })
}

#[rustler::nif]
fn loop_unregister<'a>(env: Env<'a>, handle: Term<'a>, id: Term<'a>) -> Term<'a> {
    with_loop(handle, |event_loop| match callback_id(id) {
        Some(id) if event_loop.owner == env.pid() => {
            event_loop.remove_handler(env, id);
            atoms::ok().encode(env)
        }
        _ => atoms::badarg().encode(env),
    })
}

#[rustler::nif]
fn loop_watch<'a>(
    env: Env<'a>,
    handle: Term<'a>,
    fd: Term<'a>,
    direction: Atom,
    id: Term<'a>,
) -> Term<'a> {
    let (Some(fd), Some(direction), Some(id)) = (
        select::decode_handle(fd),
        to_direction(direction),
        callback_id(id),
    ) else {
        return atoms::badarg().encode(env);
    };
    with_loop(handle, |event_loop| {
        result(
            env,
            event_loop.watch(Sender::Process(env), fd, direction, id),
        )
    })
}

#[rustler::nif]
fn loop_unwatch<'a>(env: Env<'a>, handle: Term<'a>, fd: Term<'a>, direction: Atom) -> Term<'a> {
    let (Some(fd), Some(direction)) = (select::decode_handle(fd), to_direction(direction)) else {
        return atoms::badarg().encode(env);
    };
    with_loop(handle, |event_loop| {
        result(env, event_loop.unwatch(Sender::Process(env), fd, direction))
    })
}

/// The calling process is the one that enif_select tells.
#[rustler::nif]
fn loop_select_here<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_loop(handle, |event_loop| {
        event_loop.select_here(env);
        atoms::ok().encode(env)
    })
}

/// A `{select, Fd, undefined, ready_input | ready_output}` came.
fn loop_selected<'a>(env: Env<'a>, [fd, direction]: [Term<'a>; 2]) -> Term<'a> {
    let (Some(fd), Some(direction)) = (select::decode_handle(fd), term_to_direction(direction))
    else {
        return atoms::badarg().encode(env);
    };
    let watch = fd.watch.lock().clone();
    // One that comes to the process of another loop belongs to a watch that has ended.
    if let Some(watch) = watch
        && let Some(event_loop) = watch.event_loop.upgrade()
        && event_loop.selecting_process() == Some(env.pid())
    {
        let certain = fd.selection.message_came(direction);
        watch.selected(Sender::Process(env), direction, certain);
    }
    atoms::ok().encode(env)
}

/// Pushes an event that its source bounds. With a reference, `{tokamak, Reference, taken}` comes when its
/// consumer takes it.
#[rustler::nif]
fn loop_deliver<'a>(
    env: Env<'a>,
    handle: Term<'a>,
    id: Term<'a>,
    kind: Atom,
    data: Term<'a>,
    reference: Term<'a>,
) -> Term<'a> {
    let (Some(callback_id), Some(kind)) = (callback_id(id), atoms::to_event_type(kind)) else {
        return atoms::badarg().encode(env);
    };
    with_loop(handle, |event_loop| {
        let payload = match reference.is_ref() {
            true => Payload::Acknowledged(Box::new(Acknowledged::new(data, env.pid(), reference))),
            false => Payload::from_term(data),
        };
        let event = Event {
            callback_id,
            kind,
            payload,
        };
        match event_loop.queue.push_admitted(event) {
            Ok(wake) => {
                event_loop.after_push(Sender::Process(env), wake);
                atoms::ok().encode(env)
            }
            Err(_) => error(env, atoms::closed()),
        }
    })
}

fn loop_post<'a>(env: Env<'a>, [handle, id, kind, data]: [Term<'a>; 4]) -> Term<'a> {
    let kind = kind.decode().ok().and_then(atoms::to_event_type);
    let (Some(callback_id), Some(kind)) = (callback_id(id), kind) else {
        return atoms::badarg().encode(env);
    };
    with_loop(handle, |event_loop| {
        let payload = Payload::from_term(data);
        let event = Event {
            callback_id,
            kind,
            payload,
        };
        match event_loop.post(Sender::Process(env), event) {
            Ok(()) => atoms::ok().encode(env),
            Err(Refused::Overloaded(_)) => error(env, atoms::overloaded()),
            Err(Refused::Closed(_)) => error(env, atoms::closed()),
        }
    })
}

fn timer_start<'a>(env: Env<'a>, [handle, milliseconds, id]: [Term<'a>; 3]) -> Term<'a> {
    let (Ok(milliseconds), Some(id)) = (milliseconds.decode::<u64>(), callback_id(id)) else {
        return atoms::badarg().encode(env);
    };
    with_loop(handle, |event_loop| {
        match event_loop.start_timer(Duration::from_millis(milliseconds), id) {
            Ok(reference) => reference.encode(env),
            Err(NotStarted::Overloaded) => error(env, atoms::overloaded()),
            Err(NotStarted::Closed) => error(env, atoms::closed()),
        }
    })
}

fn timer_cancel<'a>(env: Env<'a>, [handle, reference]: [Term<'a>; 2]) -> Term<'a> {
    let Ok(reference) = reference.decode::<u64>() else {
        return atoms::badarg().encode(env);
    };
    with_loop(handle, |event_loop| {
        match event_loop.timers.cancel(reference) {
            Some(left) => u64::try_from(left.as_nanos().div_ceil(1_000_000))
                .unwrap_or(u64::MAX)
                .encode(env),
            None => false.encode(env),
        }
    })
}

#[rustler::nif]
fn loop_info<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_loop(handle, |event_loop| {
        let options = event_loop.options;
        let metrics = event_loop.queue.metrics();
        let looks = event_loop.busy_poll.looks();
        let native = options.backend == Backend::Native;
        let [readers, writers] = event_loop.watched();
        rustler::term_map!(env, {
            atoms::kind() => if event_loop.is_raw() { atoms::raw() } else { atoms::supervised() },
            atoms::backend() => if native { atoms::native() } else { atoms::select() },
            atoms::owner() => event_loop.owner,
            atoms::max_queue() => options.max_queue,
            atoms::max_timers() => options.max_timers,
            atoms::queued() => event_loop.queue.len(),
            atoms::timers() => event_loop.timers.len(),
            atoms::readers() => readers,
            atoms::writers() => writers,
            atoms::handlers() => event_loop.handlers.len(),
            atoms::pushed() => metrics.pushed,
            atoms::drained() => metrics.drained,
            atoms::wakes() => metrics.wakes,
            atoms::coalesced() => event_loop.coalesced(),
            atoms::busy_polls() => looks.all,
            atoms::busy_polls_in_vain() => looks.in_vain,
            atoms::refused() => metrics.refused,
            atoms::high_water_mark() => metrics.high_water_mark,
        })
    })
}
