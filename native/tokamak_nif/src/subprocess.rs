// SPDX-License-Identifier: Apache-2.0
//! The NIFs of `tokamak_subprocess`.
//!
//! | part | is |
//! |---|---|
//! | `spawner` | the helper program of this VM, and the thread that listens to it |
//! | `child` | a subprocess: state, delivery, end |
//! | `output`, `pipe` | what it tells; its pipes |
//! | `consumer`, `waiter` | who gets that, and how much; who waits for one message |
//! | `request`, `signals` | decoding |

mod child;
mod consumer;
mod output;
mod pipe;
mod request;
mod signals;
mod spawner;
mod waiter;

use crate::atoms;
use crate::fd::{binaries, slices};
use crate::library;
use crate::loop_nifs;
pub use child::Subprocess;
use child::{Taken, Written};
use consumer::Consumer;
pub use consumer::Permit;
use output::Failure;
pub use output::encode_chunk;
use rustler::{Atom, Binary, Encoder, Env, Resource, ResourceArc, Term};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};
use tokamak::environment::{SavedTerm, Sender};
use tokamak::{calls, owners, runtime};
use tokamak_core::busy_poll::BusyPoll;
use tokamak_core::event_id::MAX_ID;
use waiter::Waiter;

/// What a handle refers to.
pub struct SubprocessResource(Arc<Subprocess>);

#[rustler::resource_impl]
impl Resource for SubprocessResource {}

impl Drop for SubprocessResource {
    fn drop(&mut self) {
        if !self.0.is_over() {
            // A destructor may run anywhere, and with locks of ours held.
            let subprocess = Arc::clone(&self.0);
            owners::on_janitor(move || subprocess.handle_gone());
        }
    }
}

/// The application starts: subprocesses may be started.
pub fn open() {
    spawner::open();
}

/// Subprocesses whose end was not taken.
pub fn count() -> usize {
    child::count()
}

fn error<'a>(env: Env<'a>, reason: Atom) -> Term<'a> {
    (atoms::error(), reason).encode(env)
}

fn closed(env: Env) -> Term {
    error(env, atoms::closed())
}

fn failed(env: Env, failure: Failure) -> Term {
    error(env, failure.atom(env))
}

/// Runs an operation of any process; otherwise `badarg`.
fn with_any<'a>(handle: Term<'a>, run: impl FnOnce(&Subprocess) -> Term<'a>) -> Term<'a> {
    match handle.decode::<ResourceArc<SubprocessResource>>() {
        Ok(resource) => run(&resource.0),
        Err(_) => atoms::badarg().encode(handle.get_env()),
    }
}

/// What takes time is charged to the caller, as the bytes of large transfers are moved here.
fn charged<T>(env: Env, run: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = run();
    calls::charge(env, started.elapsed().as_nanos() as u64);
    result
}

/// Runs an operation of the owner; otherwise `badarg` or `not_owner`.
fn with_own<'a>(handle: Term<'a>, run: impl FnOnce(&Subprocess) -> Term<'a>) -> Term<'a> {
    let env = handle.get_env();
    with_any(handle, |subprocess| {
        if subprocess.owner == env.pid() {
            run(subprocess)
        } else {
            atoms::not_owner().encode(env)
        }
    })
}

/// `P | {error, Reason} | badarg`; after P, `{tokamak, Reference, started | {error, Reason}}` comes.
/// `target`: `undefined`, or `{Loop, CallbackId}`.
#[rustler::nif]
fn subprocess_start<'a>(
    env: Env<'a>,
    program: Binary<'a>,
    request: Term<'a>,
    target: Term<'a>,
    reference: Term<'a>,
) -> Term<'a> {
    let Some(runtime) = runtime::current() else {
        return error(env, atoms::shutdown());
    };
    let id = spawner::next_id();
    let (Some((request, environment)), Some(starter)) = (
        request::decode(request, id),
        Waiter::calling(env, reference),
    ) else {
        return atoms::badarg().encode(env);
    };
    let consumer = match consumer_of(target) {
        Ok(consumer) => consumer,
        Err(reason) if reason == atoms::closed() => return closed(env),
        Err(badarg) => return badarg.encode(env),
    };
    let program = || std::path::PathBuf::from(std::ffi::OsStr::from_bytes(program.as_slice()));
    let spawner = match spawner::current(program) {
        Ok(spawner) => spawner,
        Err(failure) => return failed(env, failure),
    };
    let home = (Arc::clone(&spawner), runtime.handle().clone());
    let kill_timeout = request.kill_timeout;
    let limit = library::services().map_or(Duration::ZERO, |services| services.busy_poll);
    let busy_poll = BusyPoll::new(limit);
    let subprocess = Subprocess::new(
        id,
        env.pid(),
        kill_timeout,
        consumer,
        starter,
        home,
        busy_poll,
    );
    subprocess.bind(env);
    spawner.add(&subprocess);
    if let Err(failure) = spawner.start_child(request, environment.as_deref()) {
        spawner.remove(id);
        if subprocess.withdraw(env) {
            return failed(env, failure);
        }
    } else if !runtime.is_current() {
        // It stopped meanwhile and may have missed this one.
        if subprocess.withdraw(env) {
            return error(env, atoms::shutdown());
        }
    } else {
        subprocess.tie_to_loop();
    }
    ResourceArc::new(SubprocessResource(subprocess)).encode(env)
}

/// # Errors
/// `closed` or `badarg`.
fn consumer_of(target: Term) -> Result<Consumer, Atom> {
    if target.is_atom() {
        return Ok(Consumer::Passive(None));
    }
    let (event_loop, callback_id): (Term, Term) = target.decode().map_err(|_| atoms::badarg())?;
    let event_loop = loop_nifs::HANDLES.get(event_loop).ok_or(atoms::badarg())?;
    if event_loop.is_closed() {
        return Err(atoms::closed());
    }
    match callback_id.decode::<u64>() {
        Ok(callback_id) if (1..=MAX_ID).contains(&callback_id) => Ok(Consumer::Loop {
            event_loop: event_loop.this.clone(),
            callback_id,
            pending: Arc::new(AtomicUsize::new(0)),
        }),
        _ => Err(atoms::badarg()),
    }
}

/// `{ok, {stdout | stderr, Bin}} | {exit, Status} | {error, Reason} | waiting`; after `waiting`, one of the
/// others comes as `{tokamak, Reference, Result}`, if there is a reference.
#[rustler::nif]
fn subprocess_recv<'a>(env: Env<'a>, handle: Term<'a>, reference: Term<'a>) -> Term<'a> {
    with_own(handle, |subprocess| {
        let taken = charged(env, || subprocess.take(Waiter::calling(env, reference)));
        match taken {
            Taken::Item(item) => item.encode_result(env),
            Taken::Waiting => atoms::waiting().encode(env),
            Taken::Active => error(env, atoms::active()),
            Taken::NotSupported => error(env, atoms::not_supported()),
            Taken::Closed => closed(env),
        }
    })
}

/// The owner waits no more for an item. `false`: it is on its way.
#[rustler::nif]
fn subprocess_stop_waiting<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_own(handle, |subprocess| {
        let mut state = subprocess.lock();
        let waited = match &mut state.consumer {
            Consumer::Passive(waiter) => waiter.take().is_some(),
            _ => false,
        };
        waited.encode(env)
    })
}

/// Adds to the credit of messages; 0 ends it.
#[rustler::nif]
fn subprocess_active<'a>(env: Env<'a>, handle: Term<'a>, more: u64, once: bool) -> Term<'a> {
    with_own(handle, |subprocess| {
        let mut state = subprocess.lock();
        if subprocess.is_over() {
            return closed(env);
        }
        let before = match &state.consumer {
            Consumer::Passive(_) => 0,
            Consumer::Active { credit, .. } => *credit,
            Consumer::Loop { .. } => return error(env, atoms::not_supported()),
        };
        let credit = match (more, once) {
            (0, _) => 0,
            (_, true) => 1,
            (more, false) => before.saturating_add(more),
        };
        let replaced = std::mem::replace(
            &mut state.consumer,
            match (credit, handle.decode()) {
                (0, _) | (_, Err(_)) => Consumer::Passive(None),
                (credit, Ok(handle)) => Consumer::Active { handle, credit },
            },
        );
        // What is there already needs no other thread.
        charged(env, || {
            subprocess.advance(&mut state, Sender::Process(env));
        });
        drop(state);
        drop(replaced);
        atoms::ok().encode(env)
    })
}

/// `{ok, Written} | full | {error, Reason}`; with a reference, `{tokamak, Reference, ready}` comes after
/// `full`.
#[rustler::nif]
fn subprocess_write<'a>(
    env: Env<'a>,
    handle: Term<'a>,
    data: Term<'a>,
    reference: Term<'a>,
) -> Term<'a> {
    with_any(handle, |subprocess| {
        let Some(binaries) = binaries(data) else {
            return atoms::badarg().encode(env);
        };
        let (slices, _) = slices(&binaries);
        let waiter = Waiter::calling(env, reference);
        match charged(env, || subprocess.write(env, &slices, waiter)) {
            Written::Bytes(count) => (atoms::ok(), count).encode(env),
            Written::Full => atoms::full().encode(env),
            Written::Closed => closed(env),
            Written::Failed(errno) => failed(env, Failure::Errno(errno.raw_os_error())),
        }
    })
}

/// The calling process waits no more to write. `false`: its message is on its way.
#[rustler::nif]
fn subprocess_stop_writing<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_any(handle, |subprocess| {
        subprocess.stop_writing(env.pid()).encode(env)
    })
}

#[rustler::nif]
fn subprocess_close_stdin<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_any(handle, |subprocess| {
        match subprocess.end_input(Sender::Process(env)) {
            true => atoms::ok().encode(env),
            false => closed(env),
        }
    })
}

/// A signal by its number, or by its name.
#[rustler::nif]
fn subprocess_signal<'a>(env: Env<'a>, handle: Term<'a>, signal: Term<'a>) -> Term<'a> {
    let Some(signal) = signals::decode(signal) else {
        return atoms::badarg().encode(env);
    };
    with_any(handle, |subprocess| match subprocess.pid() {
        Some(_) => result(env, subprocess.signal(signal)),
        None => closed(env),
    })
}

#[rustler::nif]
fn subprocess_is_signal(signal: Term) -> bool {
    signals::decode(signal).is_some()
}

#[rustler::nif]
fn subprocess_stop<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_own(handle, |subprocess| {
        if subprocess.is_alive() {
            result(env, subprocess.stop())
        } else if subprocess.is_over() {
            closed(env)
        } else {
            atoms::ok().encode(env)
        }
    })
}

/// Stops it and gives everything back: its end will not be taken.
#[rustler::nif]
fn subprocess_abandon<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_own(handle, |subprocess| {
        subprocess.abandon();
        atoms::ok().encode(env)
    })
}

fn result(env: Env, result: Result<(), Failure>) -> Term {
    match result {
        Ok(()) => atoms::ok().encode(env),
        Err(failure) => failed(env, failure),
    }
}

#[rustler::nif]
fn subprocess_os_pid<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_any(handle, |subprocess| match subprocess.pid() {
        Some(pid) => (atoms::ok(), pid).encode(env),
        None => closed(env),
    })
}

#[rustler::nif]
fn subprocess_info<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_any(handle, |subprocess| match subprocess.is_over() {
        true => closed(env),
        false => info(env, subprocess),
    })
}

fn info<'a>(env: Env<'a>, subprocess: &Subprocess) -> Term<'a> {
    let state = subprocess.lock();
    let phase = match (state.is_running(), state.has_exited()) {
        (_, true) => atoms::exited(),
        (true, _) => atoms::running(),
        _ => atoms::closed(),
    };
    let credit = match &state.consumer {
        Consumer::Active { credit, .. } => *credit,
        _ => 0,
    };
    let looks = subprocess.busy_poll.looks();
    rustler::term_map!(env, {
        atoms::state() => phase,
        atoms::owner() => subprocess.owner,
        atoms::credit() => credit,
        atoms::written() => state.counters.written,
        atoms::stdout() => state.counters.stdout,
        atoms::stderr() => state.counters.stderr,
        atoms::busy_polls() => looks.all,
        atoms::busy_polls_in_vain() => looks.in_vain,
    })
}

/// What is known of each subprocess whose end was not taken.
#[rustler::nif(schedule = "DirtyCpu")]
fn subprocess_list<'a>(env: Env<'a>) -> Vec<Term<'a>> {
    let children = spawner::children();
    let open = children.iter().filter(|child| !child.is_over());
    open.map(|child| info(env, child)).collect()
}

/// The counters of all subprocesses.
#[rustler::nif]
fn subprocess_totals<'a>(env: Env<'a>) -> Term<'a> {
    let (started, counters) = child::totals();
    let looks = child::looks();
    rustler::term_map!(env, {
        atoms::started() => started,
        atoms::written() => counters.written,
        atoms::stdout() => counters.stdout,
        atoms::stderr() => counters.stderr,
        atoms::busy_polls() => looks.all,
        atoms::busy_polls_in_vain() => looks.in_vain,
    })
}

/// Ends the spawner and all children; `{tokamak, Reference, stopped}` comes then.
#[rustler::nif]
fn subprocess_stop_all<'a>(env: Env<'a>, reference: Term<'a>) -> Term<'a> {
    let (pid, reference) = (env.pid(), SavedTerm::save(reference));
    let running = spawner::stop(move || {
        tokamak::environment::send_anywhere(pid, move |env| {
            (atoms::tokamak(), reference.load(env), atoms::stopped()).encode(env)
        });
    });
    running.encode(env)
}

/// `{ok, OsPid, Children} | {error, closed}`: the spawner, and how many of its children have descendants.
#[rustler::nif]
fn subprocess_spawner<'a>(env: Env<'a>) -> Term<'a> {
    match spawner::pid() {
        Some(pid) => (atoms::ok(), pid, spawner::count()).encode(env),
        None => closed(env),
    }
}
