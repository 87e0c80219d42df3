// SPDX-License-Identifier: Apache-2.0
//! Owners: what belongs to a process ends with it.
//!
//! One monitor for each owning process, however much it owns (many monitors on one process get
//! slow). A `down` callback may run with locks of the dying process held: it only hands the pid to
//! the janitor, a thread of ours that does the rest.

use crate::environment::{PidKey, pid_key};
use crossbeam_queue::SegQueue;
use dashmap::DashMap;
use parking_lot::Mutex;
use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::thread::Thread;

/// Something that belongs to a process.
pub trait Possession: Send + Sync {
    /// Its owner is dead. Called on the janitor's thread, with no lock held.
    fn owner_died(&self);

    /// The library's runtime stops. Called on a thread of ours, with no lock held.
    fn library_stops(&self) {}
}

/// Names a possession among all possessions.
pub type PossessionKey = u64;

/// A key for a new possession.
pub fn next_key() -> PossessionKey {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

struct Owner {
    /// Keeps the monitor alive.
    _monitor: ResourceArc<OwnerMonitor>,
    possessions: HashMap<PossessionKey, Weak<dyn Possession>>,
}

struct OwnerMonitor;

#[rustler::resource_impl]
impl Resource for OwnerMonitor {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        JANITOR.give(Job::OwnerDied(pid_key(&pid)));
    }
}

static OWNERS: LazyLock<DashMap<PidKey, Owner>> = LazyLock::new(DashMap::new);
static JANITOR: LazyLock<Janitor> = LazyLock::new(Janitor::new);

/// Starts the janitor's thread if it does not run yet. To be called before anything is owned, and
/// not from a callback.
///
/// # Errors
/// The operating system's, when it cannot make a thread.
pub fn start_janitor() -> std::io::Result<()> {
    JANITOR.start()
}

/// Makes a possession belong to a process. `false` when that process does not live any more.
pub fn own(env: Env, pid: &LocalPid, key: PossessionKey, possession: Weak<dyn Possession>) -> bool {
    match OWNERS.entry(pid_key(pid)) {
        dashmap::Entry::Occupied(mut owner) => {
            owner.get_mut().possessions.insert(key, possession);
            true
        }
        dashmap::Entry::Vacant(place) => {
            let monitor = ResourceArc::new(OwnerMonitor);
            if monitor.monitor(Some(env), pid).is_none() {
                return false;
            }
            place.insert(Owner {
                _monitor: monitor,
                possessions: HashMap::from([(key, possession)]),
            });
            true
        }
    }
}

/// Ends a process's hold on a possession. Its monitor stays until it dies: a process that owned one
/// thing is likely to own the next.
pub fn disown(pid: &LocalPid, key: PossessionKey) {
    if let Some(mut owner) = OWNERS.get_mut(&pid_key(pid)) {
        owner.possessions.remove(&key);
    }
}

/// Processes that own or owned something and still live.
pub fn count() -> usize {
    OWNERS.len()
}

/// What the janitor is given to do.
enum Job {
    OwnerDied(PidKey),
    Run(Box<dyn FnOnce() + Send>),
}

/// Has the janitor do what must not be done on a scheduler thread.
pub fn on_janitor(run: impl FnOnce() + Send + 'static) {
    JANITOR.give(Job::Run(Box::new(run)));
}

/// Tells all possessions that the library stops.
pub fn library_stops() {
    let possessions: Vec<Weak<dyn Possession>> = OWNERS
        .iter()
        .flat_map(|owner| owner.possessions.values().cloned().collect::<Vec<_>>())
        .collect();
    for possession in possessions.iter().filter_map(Weak::upgrade) {
        possession.library_stops();
    }
}

/// Does what a `down` callback must not do.
struct Janitor {
    jobs: SegQueue<Job>,
    thread: Mutex<Option<Thread>>,
}

impl Janitor {
    fn new() -> Self {
        Self {
            jobs: SegQueue::new(),
            thread: Mutex::new(None),
        }
    }

    fn start(&'static self) -> std::io::Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let handle = std::thread::Builder::new()
                .name("tokamak-janitor".to_owned())
                .spawn(|| self.run())?;
            *thread = Some(handle.thread().clone());
        }
        Ok(())
    }

    fn give(&self, job: Job) {
        self.jobs.push(job);
        if let Some(thread) = self.thread.lock().as_ref() {
            thread.unpark();
        }
    }

    fn run(&self) {
        loop {
            while let Some(job) = self.jobs.pop() {
                // A job that fails must not keep the others from theirs.
                let job = std::panic::AssertUnwindSafe(|| match job {
                    Job::OwnerDied(pid) => self.clean_up(pid),
                    Job::Run(run) => run(),
                });
                let _ = std::panic::catch_unwind(job);
            }
            std::thread::park();
        }
    }

    fn clean_up(&self, pid: PidKey) {
        let Some((_, owner)) = OWNERS.remove(&pid) else {
            return;
        };
        let alive: Vec<Arc<dyn Possession>> = owner
            .possessions
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        for possession in alive {
            // A clean-up that fails must not keep the others from theirs.
            let clean_up = std::panic::AssertUnwindSafe(|| possession.owner_died());
            let _ = std::panic::catch_unwind(clean_up);
        }
    }
}
