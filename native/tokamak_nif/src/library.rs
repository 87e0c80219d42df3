// SPDX-License-Identifier: Apache-2.0
//! What all loops share, from the application's start to its stop.

use crate::atoms;
use crate::event_loop::EventLoop;
use crate::fd::Fd;
use crate::select;
use parking_lot::{Mutex, RwLock};
use rustler::{Encoder, Env, LocalPid, Term};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokamak::environment::Sender;
use tokamak::owners;
#[cfg(target_os = "linux")]
use tokamak_core::reactor::Reactor;
use tokamak_core::timers::TimerThread;

/// The threads that serve all loops.
pub struct Services {
    pub timers: Arc<TimerThread>,
    #[cfg(target_os = "linux")]
    pub reactor: Arc<Reactor>,
    /// The Erlang process that closes selected descriptors of dead owners.
    reaper: Mutex<LocalPid>,
    /// Loops to close when the application stops.
    loops: Mutex<HashMap<usize, Weak<EventLoop>>>,
}

/// The slot, not the services: they can be started again.
static SERVICES: RwLock<Option<Arc<Services>>> = RwLock::new(None);

/// The running services; `None` while the application is stopped.
pub fn services() -> Option<Arc<Services>> {
    SERVICES.read().clone()
}

impl Services {
    fn start(reaper: LocalPid) -> std::io::Result<Self> {
        owners::start_janitor()?;
        Ok(Self {
            timers: TimerThread::start("tokamak-timers")?,
            #[cfg(target_os = "linux")]
            reactor: Reactor::start("tokamak-reactor")?,
            reaper: Mutex::new(reaper),
            loops: Mutex::new(HashMap::new()),
        })
    }

    /// Remembers a loop, and forgets those that are gone.
    pub fn add_loop(&self, event_loop: &Arc<EventLoop>) {
        let mut loops = self.loops.lock();
        loops.insert(Arc::as_ptr(event_loop) as usize, Arc::downgrade(event_loop));
        if loops.len().is_power_of_two() {
            loops.retain(|_, known| known.strong_count() > 0);
        }
    }

    fn stop(&self, env: Env) {
        let loops = std::mem::take(&mut *self.loops.lock());
        for event_loop in loops.into_values().filter_map(|known| known.upgrade()) {
            event_loop.wake_raw_owner(Sender::Process(env));
            event_loop.close(Sender::Process(env));
        }
        self.timers.stop();
        #[cfg(target_os = "linux")]
        self.reactor.stop();
    }
}

/// Has a selected descriptor closed on a scheduler thread. Called on the janitor's thread.
pub fn reap(fd: &Fd) {
    if let Some(services) = services() {
        let reaper = *services.reaper.lock();
        Sender::Thread.send(&reaper, |env| match select::selected_handle(env, fd) {
            Some(handle) => (atoms::select(), handle).encode(env),
            None => atoms::closed().encode(env),
        });
    }
}

/// Starts the services for the application. Its reaper calls this, also when it is started anew.
#[rustler::nif]
fn start<'a>(env: Env<'a>) -> Term<'a> {
    let mut slot = SERVICES.write();
    if let Some(services) = slot.as_ref() {
        *services.reaper.lock() = env.pid();
        return atoms::ok().encode(env);
    }
    match Services::start(env.pid()) {
        Ok(services) => {
            *slot = Some(Arc::new(services));
            atoms::ok().encode(env)
        }
        Err(error) => (atoms::error(), error.to_string()).encode(env),
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
