// SPDX-License-Identifier: Apache-2.0
//! What all loops share, from the application's start to its stop.

use crate::atoms;
use crate::event_loop::EventLoop;
use crate::fd::Fd;
use crate::progress::Progress;
use parking_lot::{Mutex, RwLock};
use rustler::{Encoder, Env, LocalPid, Term};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokamak::OperationError;
use tokamak::environment::Sender;
use tokamak::owners;
use tokamak::reply::encode_error;
#[cfg(target_os = "linux")]
use tokamak_core::reactor::Reactor;
use tokamak_core::timers::TimerThread;

/// The threads that serve all loops.
pub struct Services {
    pub timers: Arc<TimerThread>,
    #[cfg(target_os = "linux")]
    pub reactor: Arc<Reactor>,
    /// Reports on their way to subscribers.
    pub progress: Arc<Progress>,
    /// How long a consumer looks at most before it sleeps.
    pub busy_poll: Duration,
    /// The Erlang process that closes selected descriptors of dead owners.
    reaper: Mutex<LocalPid>,
    /// Loops to close when the application stops; `None` once it has.
    loops: Mutex<Option<HashMap<usize, Weak<EventLoop>>>>,
}

/// The slot, not the services: they can be started again.
static SERVICES: RwLock<Option<Arc<Services>>> = RwLock::new(None);

/// The running services; `None` while the application is stopped.
pub fn services() -> Option<Arc<Services>> {
    SERVICES.read().clone()
}

/// Calls a function with the running services, if they run: a little cheaper than [`services`]. They do
/// not stop meanwhile, so it has to be short.
pub fn with_services(run: impl FnOnce(&Services)) {
    if let Some(services) = &*SERVICES.read() {
        run(services);
    }
}

impl Services {
    fn start(
        reaper: LocalPid,
        progress_interval: Duration,
        busy_poll: Duration,
    ) -> std::io::Result<Self> {
        owners::start_janitor()?;
        let timers = TimerThread::start("tokamak-timers")?;
        #[cfg(target_os = "linux")]
        let reactor = Reactor::start("tokamak-reactor").inspect_err(|_| timers.stop())?;
        Ok(Self {
            progress: Progress::new(&timers, progress_interval, log_evicted),
            timers,
            busy_poll,
            #[cfg(target_os = "linux")]
            reactor,
            reaper: Mutex::new(reaper),
            loops: Mutex::new(Some(HashMap::new())),
        })
    }

    /// Remembers a loop, and forgets those that are gone. `false`: the services have stopped.
    pub fn add_loop(&self, event_loop: &Arc<EventLoop>) -> bool {
        let mut loops = self.loops.lock();
        let Some(loops) = loops.as_mut() else {
            return false;
        };
        loops.insert(Arc::as_ptr(event_loop) as usize, Arc::downgrade(event_loop));
        if loops.len().is_power_of_two() {
            loops.retain(|_, known| known.strong_count() > 0);
        }
        true
    }

    /// The loops that there are, and perhaps some that were closed.
    pub fn loops(&self) -> Vec<Arc<EventLoop>> {
        let loops = self.loops.lock();
        let known = loops.iter().flat_map(HashMap::values);
        known.filter_map(Weak::upgrade).collect()
    }

    fn stop(&self, env: Env) {
        let loops = self.loops.lock().take();
        let loops = loops.into_iter().flat_map(HashMap::into_values);
        for event_loop in loops.filter_map(|known| known.upgrade()) {
            event_loop.close_and_tell_owner(Sender::Process(env));
        }
        self.progress.stop();
        self.timers.stop();
        #[cfg(target_os = "linux")]
        self.reactor.stop();
    }
}

/// Selected descriptors of dead owners. Not in a mailbox: none is lost while the application stops, and
/// those of processes that die while it is stopped wait for its next start.
static ORPHANS: Mutex<Vec<Arc<Fd>>> = Mutex::new(Vec::new());

/// How many descriptors one call closes.
const REAPED_AT_ONCE: usize = 100;

/// Has a selected descriptor closed on a scheduler thread. Called on the janitor's thread.
pub fn reap(fd: Arc<Fd>) {
    let is_first = {
        let mut orphans = ORPHANS.lock();
        orphans.push(fd);
        orphans.len() == 1
    };
    if is_first && let Some(services) = services() {
        let reaper = *services.reaper.lock();
        Sender::Thread.send(&reaper, |env| atoms::reap().encode(env));
    }
}

/// Has the reaper log how many idle progress keys were forgotten. Called on the timer thread.
fn log_evicted(count: u64) {
    if let Some(services) = services() {
        let reaper = *services.reaper.lock();
        Sender::Thread.send(&reaper, |env| (atoms::evicted(), count).encode(env));
    }
}

/// Closes some descriptors of dead owners; `more` when there are others. For the reaper process.
#[rustler::nif]
fn fd_reap<'a>(env: Env<'a>) -> Term<'a> {
    let (some, is_more) = {
        let mut orphans = ORPHANS.lock();
        let rest = orphans.len().saturating_sub(REAPED_AT_ONCE);
        (orphans.split_off(rest), rest > 0)
    };
    for fd in some {
        fd.close(env);
    }
    let answer = if is_more { atoms::more() } else { atoms::ok() };
    answer.encode(env)
}

/// Starts the services for the application: with an interval in milliseconds, and what a consumer looks
/// before it sleeps in microseconds. Its reaper calls this, also when it is started anew.
#[rustler::nif]
fn start<'a>(env: Env<'a>, progress_interval: u64, busy_poll: u64) -> Term<'a> {
    let mut slot = SERVICES.write();
    if let Some(services) = slot.as_ref() {
        *services.reaper.lock() = env.pid();
        return atoms::ok().encode(env);
    }
    let progress_interval = Duration::from_millis(progress_interval);
    let busy_poll = Duration::from_micros(busy_poll);
    match Services::start(env.pid(), progress_interval, busy_poll) {
        Ok(services) => {
            *slot = Some(Arc::new(services));
            #[cfg(target_os = "linux")]
            crate::subprocess::open();
            atoms::ok().encode(env)
        }
        Err(error) => encode_error(env, &error.reason()),
    }
}

/// Closes all loops and ends the services.
#[rustler::nif]
fn stop<'a>(env: Env<'a>) -> Term<'a> {
    let services = SERVICES.write().take();
    if let Some(services) = services {
        services.stop(env);
    }
    atoms::ok().encode(env)
}

#[cfg(target_os = "linux")]
fn subprocesses() -> usize {
    crate::subprocess::count()
}

#[cfg(not(target_os = "linux"))]
fn subprocesses() -> usize {
    0
}

/// Counts what the library holds.
#[rustler::nif]
fn counts<'a>(env: Env<'a>) -> Term<'a> {
    rustler::term_map!(env, {
        atoms::loops() => crate::event_loop::count(),
        atoms::fds() => crate::fd::count(),
        atoms::owners() => owners::count(),
        atoms::subprocesses() => subprocesses(),
    })
}
