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
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::thread::Thread;
use tokamak_core::task_state::State;
use tokamak_core::word_hasher::WordHasher;

/// Something that belongs to a process.
pub trait Possession: Send + Sync {
    /// Its owner is dead. Called on the janitor's thread, with no lock held.
    fn owner_died(&self);

    /// The library's runtime stops. Called on a thread of ours, with no lock held.
    fn library_stops(&self) {}

    /// Cancels it, if it is a call: where it stands then.
    fn cancel_call(&self) -> Option<State> {
        None
    }
}

/// Names a possession among all possessions.
pub type PossessionKey = u64;

/// A key for a new possession.
pub fn next_key() -> PossessionKey {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A process that owns something.
pub struct Owner {
    /// Keeps the monitor alive.
    _monitor: ResourceArc<OwnerMonitor>,
    /// `None` once the process is dead.
    possessions: Mutex<Option<Possessions>>,
}

type Possessions = HashMap<PossessionKey, Weak<dyn Possession>, BuildHasherDefault<WordHasher>>;

impl Owner {
    /// `false` when the process is dead.
    fn insert(&self, key: PossessionKey, possession: Weak<dyn Possession>) -> bool {
        match self.possessions.lock().as_mut() {
            Some(possessions) => {
                possessions.insert(key, possession);
                true
            }
            None => false,
        }
    }

    /// Ends the hold on a possession.
    pub fn release(&self, key: PossessionKey) {
        if let Some(possessions) = self.possessions.lock().as_mut() {
            possessions.remove(&key);
        }
    }

    fn get(&self, key: PossessionKey) -> Option<Arc<dyn Possession>> {
        self.possessions.lock().as_ref()?.get(&key)?.upgrade()
    }

    /// All possessions that are alive.
    fn all(&self) -> Vec<Arc<dyn Possession>> {
        let possessions = self.possessions.lock();
        let alive = possessions
            .iter()
            .flat_map(|possessions| possessions.values());
        alive.filter_map(Weak::upgrade).collect()
    }
}

struct OwnerMonitor;

#[rustler::resource_impl]
impl Resource for OwnerMonitor {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        JANITOR.give(Job::OwnerDied(pid_key(&pid)));
    }
}

type Owners = DashMap<PidKey, Arc<Owner>, BuildHasherDefault<WordHasher>>;

static OWNERS: LazyLock<Owners> = LazyLock::new(Owners::default);
static JANITOR: LazyLock<Janitor> = LazyLock::new(Janitor::new);

/// Starts the janitor's thread if it does not run yet. To be called before anything is owned, and
/// not from a callback.
///
/// # Errors
/// The operating system's, when it cannot make a thread.
pub fn start_janitor() -> std::io::Result<()> {
    JANITOR.start()
}

/// Makes a possession belong to a process. `None` when that process does not live any more.
pub fn hold(
    env: Env,
    pid: &LocalPid,
    key: PossessionKey,
    possession: Weak<dyn Possession>,
) -> Option<Arc<Owner>> {
    let owner = owner(env, pid)?;
    owner.insert(key, possession).then_some(owner)
}

/// [`hold`] without the owner: `false` when the process does not live any more.
pub fn own(env: Env, pid: &LocalPid, key: PossessionKey, possession: Weak<dyn Possession>) -> bool {
    hold(env, pid, key, possession).is_some()
}

/// The owner that a process is, monitored from its first possession on.
fn owner(env: Env, pid: &LocalPid) -> Option<Arc<Owner>> {
    if let Some(owner) = OWNERS.get(&pid_key(pid)) {
        return Some(Arc::clone(&owner));
    }
    match OWNERS.entry(pid_key(pid)) {
        dashmap::Entry::Occupied(owner) => Some(Arc::clone(owner.get())),
        dashmap::Entry::Vacant(place) => {
            let monitor = ResourceArc::new(OwnerMonitor);
            monitor.monitor(Some(env), pid)?;
            let owner = Arc::new(Owner {
                _monitor: monitor,
                possessions: Mutex::new(Some(Possessions::default())),
            });
            place.insert(Arc::clone(&owner));
            Some(owner)
        }
    }
}

/// Ends a process's hold on a possession. Its monitor stays until it dies: a process that owned one
/// thing is likely to own the next.
pub fn disown(pid: &LocalPid, key: PossessionKey) {
    if let Some(owner) = OWNERS.get(&pid_key(pid)) {
        owner.release(key);
    }
}

/// Cancels a call of a process; `None` when it has no such call any more.
pub fn cancel_call(pid: &LocalPid, key: PossessionKey) -> Option<State> {
    let owner = OWNERS.get(&pid_key(pid)).map(|owner| Arc::clone(&owner))?;
    owner.get(key)?.cancel_call()
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
    let owners: Vec<Arc<Owner>> = OWNERS.iter().map(|owner| Arc::clone(&owner)).collect();
    for possession in owners.iter().flat_map(|owner| owner.all()) {
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
        // From here on nothing can be owned by it any more.
        let possessions = owner.possessions.lock().take().unwrap_or_default();
        for possession in possessions.values().filter_map(Weak::upgrade) {
            // A clean-up that fails must not keep the others from theirs.
            let clean_up = std::panic::AssertUnwindSafe(|| possession.owner_died());
            let _ = std::panic::catch_unwind(clean_up);
        }
    }
}
