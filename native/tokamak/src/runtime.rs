// SPDX-License-Identifier: Apache-2.0
//! The tokio runtime of this library: started and stopped with the application, again and again.
//!
//! Stopping goes in order: the intake closes, running calls get `drain_timeout` to end, the others end
//! with `{error, shutdown}`, and a thread of its own waits for tokio's shutdown. No destructor drops a
//! runtime.

use crate::task::Task;
use crate::watcher;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokamak_core::threads;
use tokio::runtime::{Builder, Handle, Runtime as TokioRuntime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a runtime is started with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that run futures.
    pub worker_threads: usize,
    /// Blocking calls that run at once.
    pub max_blocking_threads: usize,
    /// Calls that are admitted at once.
    pub max_in_flight: usize,
}

/// A running runtime.
pub struct Runtime {
    /// What it was started with.
    pub options: Options,
    /// When it was started.
    pub started: Instant,
    handle: Handle,
    tokio: Mutex<Option<TokioRuntime>>,
    /// Blocking calls that run; tokio's own queue of them is not bounded.
    pub blocking: Arc<Semaphore>,
    /// Places of calls in flight.
    places: Arc<Semaphore>,
    /// Batches that run. They take none of the places, their parts do.
    batches: Arc<Semaphore>,
    closing: AtomicBool,
    tasks: Tasks,
}

/// The slot, not the runtime: it can be started again.
static RUNTIME: ArcSwapOption<Runtime> = ArcSwapOption::const_empty();
/// Starts come one at a time.
static STARTING: Mutex<()> = Mutex::new(());

/// First polls of eager operations that took over a millisecond, by operation.
static SLOW_POLL_NAMES: Mutex<Option<HashMap<&'static str, u64>>> = Mutex::new(None);

/// As many batches as may run: more than memory holds.
const MAX_BATCHES: u32 = 1 << 28;

/// Places among the calls in flight, or among the batches; given back when dropped.
pub struct Admission {
    runtime: Arc<Runtime>,
    places: OwnedSemaphorePermit,
}

/// Why a call is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `max_in_flight` calls are running.
    Overloaded,
    /// The runtime does not run, or stops.
    Shutdown,
}

/// The running runtime.
pub fn current() -> Option<Arc<Runtime>> {
    RUNTIME.load_full()
}

/// Runs `run` with the running runtime: cheaper than [`current`], for a short time.
pub fn with_current<R>(run: impl FnOnce(Option<&Arc<Runtime>>) -> R) -> R {
    run(RUNTIME.load().as_ref())
}

/// Drops values of an author's: within the runtime, as a drop may spawn, and one by one. A panic in a drop ends
/// there, as a second one on its way would abort the VM.
pub(crate) fn discard<T>(handle: &Handle, values: impl IntoIterator<Item = T>) {
    let _inside = handle.enter();
    for value in values {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
    }
}

/// Starts the runtime, if it does not run.
///
/// # Errors
/// The operating system's, when it cannot make the threads.
pub fn start(options: Options) -> io::Result<()> {
    let _one_at_a_time = STARTING.lock();
    if current().is_none() {
        crate::owners::start_janitor()?;
        crate::stopwatch::calibrate();
        RUNTIME.store(Some(Arc::new(Runtime::new(options)?)));
    }
    Ok(())
}

/// Closes the intake and stops the runtime on a thread of its own, which calls `stopped` at the end.
/// Calls that run get `drain` to end by themselves.
pub fn stop(drain: Duration, stopped: impl FnOnce() + Send + 'static) {
    let runtime = RUNTIME.swap(None);
    let Some(runtime) = runtime else {
        // Never on the caller's thread, which is a scheduler's.
        spawn_stopper(stopped);
        return;
    };
    runtime.closing.store(true, Ordering::SeqCst);
    spawn_stopper(move || {
        runtime.stop(drain);
        stopped();
    });
}

/// Drops what runs, because the VM halts: waits up to `time` for that, and tells nobody.
pub fn halt(time: Duration) {
    let Some(runtime) = RUNTIME.swap(None) else {
        return;
    };
    runtime.closing.store(true, Ordering::SeqCst);
    let tokio = runtime.tokio.lock().take();
    if let Some(tokio) = tokio {
        tokio.shutdown_timeout(time);
    }
}

fn spawn_stopper(run: impl FnOnce() + Send + 'static) {
    let run = Arc::new(Mutex::new(Some(run)));
    let on_thread = Arc::clone(&run);
    let thread = std::thread::Builder::new().name("tokamak-stopper".to_owned());
    if thread.spawn(move || run_once(&on_thread)).is_err() {
        // Without a thread left the janitor stops the runtime: dead processes wait for so long.
        crate::owners::on_janitor(move || run_once(&run));
    }
}

fn run_once(run: &Mutex<Option<impl FnOnce()>>) {
    let run = run.lock().take();
    if let Some(run) = run {
        run();
    }
}

impl Runtime {
    fn new(options: Options) -> io::Result<Self> {
        threads::probe(options.worker_threads)?;
        let tokio = Builder::new_multi_thread()
            .worker_threads(options.worker_threads)
            // One more than we ever ask for, so that our own semaphore is the bound.
            .max_blocking_threads(options.max_blocking_threads + 1)
            .thread_name("tokamak-worker")
            .enable_all()
            .build()?;
        Ok(Self {
            options,
            started: Instant::now(),
            handle: tokio.handle().clone(),
            tokio: Mutex::new(Some(tokio)),
            blocking: Arc::new(Semaphore::new(options.max_blocking_threads)),
            places: Arc::new(Semaphore::new(options.max_in_flight)),
            batches: Arc::new(Semaphore::new(MAX_BATCHES as usize)),
            closing: AtomicBool::new(false),
            tasks: Tasks::default(),
        })
    }

    /// Whether this is the running runtime: after a stop, and maybe another start, it is not.
    pub fn is_current(&self) -> bool {
        with_current(|current| {
            current.is_some_and(|current| std::ptr::eq(Arc::as_ptr(current), self))
        })
    }

    /// tokio's handle.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Takes `count` calls in; counts them as refused if there are no places.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(self: &Arc<Self>, count: u32) -> Result<Admission, Refusal> {
        let admitted = self.try_admit(count);
        match &admitted {
            Ok(_) => watcher::active(),
            Err(Refusal::Overloaded) => watcher::calls_refused(count),
            Err(Refusal::Shutdown) => {}
        }
        admitted
    }

    /// Takes `count` calls in, if there are places.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn try_admit(self: &Arc<Self>, count: u32) -> Result<Admission, Refusal> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(Refusal::Shutdown);
        }
        match Arc::clone(&self.places).try_acquire_many_owned(count) {
            Ok(places) => Ok(self.admission(places)),
            Err(_) => Err(Refusal::Overloaded),
        }
    }

    /// Takes in a batch of calls, whose parts take the places.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit_batch(self: &Arc<Self>) -> Result<Admission, Refusal> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(Refusal::Shutdown);
        }
        let batch = Arc::clone(&self.batches).try_acquire_owned();
        watcher::active();
        match batch {
            Ok(batch) => Ok(self.admission(batch)),
            Err(_) => Err(Refusal::Overloaded),
        }
    }

    /// Takes a call in, waiting for a place.
    pub async fn admit_later(self: &Arc<Self>) -> Option<Admission> {
        let places = Arc::clone(&self.places).acquire_owned().await.ok()?;
        Some(self.admission(places))
    }

    fn admission(self: &Arc<Self>, places: OwnedSemaphorePermit) -> Admission {
        Admission {
            runtime: Arc::clone(self),
            places,
        }
    }

    /// Calls that are running.
    pub fn in_flight(&self) -> usize {
        self.options
            .max_in_flight
            .saturating_sub(self.places.available_permits())
    }

    /// The calls that a shutdown has to end.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn stop(&self, drain: Duration) {
        self.wait_until_idle(drain);
        crate::owners::library_stops();
        for task in self.tasks.all() {
            task.shut_down();
        }
        let tokio = self.tokio.lock().take();
        if let Some(tokio) = tokio {
            // A blocking call that is still running keeps its thread; nobody waits for it.
            tokio.shutdown_timeout(Duration::from_millis(100));
        }
    }

    fn wait_until_idle(&self, drain: Duration) {
        let all = u32::try_from(self.options.max_in_flight).unwrap_or(u32::MAX);
        let idle = async {
            // First the batches: parts of theirs that come later would wait behind whoever takes all places.
            let _ = self.batches.acquire_many(MAX_BATCHES).await;
            let _ = self.places.acquire_many(all).await;
        };
        // Too late is as good as idle: the rest is ended.
        let _ = threads::block_on_within(drain, idle);
    }
}

impl Admission {
    /// The runtime that took the call in.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Takes one place of these out; `None` when none is left.
    pub fn split_one(&mut self) -> Option<Self> {
        let places = self.places.split(1)?;
        Some(self.runtime.admission(places))
    }
}

/// Calls that belong to no process, in shards so that callers and workers seldom meet.
pub struct Tasks {
    shards: [Mutex<HashMap<u64, Weak<Task>>>; 16],
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::new())),
        }
    }
}

impl Tasks {
    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, Weak<Task>>> {
        &self.shards[key as usize % self.shards.len()]
    }

    /// Remembers a call.
    pub fn insert(&self, key: u64, task: Weak<Task>) {
        self.shard(key).lock().insert(key, task);
    }

    /// Forgets a call.
    pub fn remove(&self, key: u64) {
        self.shard(key).lock().remove(&key);
    }

    fn all(&self) -> Vec<Arc<Task>> {
        let alive = |shard: &Mutex<HashMap<u64, Weak<Task>>>| -> Vec<Arc<Task>> {
            shard.lock().values().filter_map(Weak::upgrade).collect()
        };
        self.shards.iter().flat_map(alive).collect()
    }
}

/// Counts a first poll of an eager operation that held its scheduler for over a millisecond.
pub fn count_slow_poll(name: &'static str) {
    let mut names = SLOW_POLL_NAMES.lock();
    *names.get_or_insert_default().entry(name).or_default() += 1;
}

/// Slow first polls by operation.
pub fn slow_polls() -> Vec<(&'static str, u64)> {
    let names = SLOW_POLL_NAMES.lock();
    names
        .as_ref()
        .map(|names| names.iter().map(|(name, count)| (*name, *count)).collect())
        .unwrap_or_default()
}
