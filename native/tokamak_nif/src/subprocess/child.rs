// SPDX-License-Identifier: Apache-2.0
//! A subprocess: its pipes, its consumer, its end.
//!
//! Whoever looks for the next item holds `state`, so items keep their order, and once a call that ends the
//! messages has returned none is sent any more. Whoever finds the pipes empty leaves a waker with them, which has
//! the runtime go on; without demand the output stays in the pipe and the child waits. An owner whose child
//! answers at once looks a moment longer itself, see `tokamak_core/busy_poll.rs`.

use super::consumer::Consumer;
use super::output::{Failure, Item, Outputs, Stream};
use super::pipe::Pipe;
use super::spawner::Spawner;
use super::waiter::Waiter;
use crate::atoms;
use crate::submissions::Tie;
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;
use rustler::{Encoder, Env, LocalPid};
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use tokamak::environment::Sender;
use tokamak::owners::{self, Possession, PossessionKey};
use tokamak_core::busy_poll::{BusyPoll, Looks};
use tokamak_spawner::client::Pipes;
use tokamak_spawner::protocol::{ExitStatus, Request};
use tokio::runtime::Handle;

/// How many items are delivered before others of the runtime get their turn.
const BATCH: usize = 16;

/// Subprocesses whose end was not taken.
static OPEN: AtomicUsize = AtomicUsize::new(0);

static STARTED: AtomicU64 = AtomicU64::new(0);
static WRITTEN: AtomicU64 = AtomicU64::new(0);
static OUTPUT: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// Looks in vain, and those that found something.
static LOOKS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// How often owners looked a moment longer for what their children tell.
pub fn looks() -> Looks {
    let [in_vain, found] = LOOKS.each_ref().map(|n| n.load(Ordering::Relaxed));
    Looks::new(found, in_vain)
}

/// Subprocesses that were started since the library was loaded, and what went through.
pub fn totals() -> (u64, Counters) {
    let [stdout, stderr] = OUTPUT.each_ref().map(|n| n.load(Ordering::Relaxed));
    let written = WRITTEN.load(Ordering::Relaxed);
    let counters = Counters {
        written,
        stdout,
        stderr,
    };
    (STARTED.load(Ordering::Relaxed), counters)
}

/// The number of subprocesses whose end was not taken.
pub fn count() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// A subprocess of a process.
pub struct Subprocess {
    pub this: Weak<Subprocess>,
    pub id: u64,
    pub owner: LocalPid,
    pub kill_timeout: u32,
    pub key: PossessionKey,
    spawner: Arc<Spawner>,
    runtime: Handle,
    over: AtomicBool,
    /// Whether the runtime is about to go on with it.
    is_scheduled: AtomicBool,
    /// Whether `recv` looks a moment longer.
    pub busy_poll: BusyPoll,
    /// What waits for the pipes.
    waker: Waker,
    state: Mutex<State>,
}

/// What changes. `over` is true once the end was taken, or nobody wants it any more.
pub struct State {
    /// Until the end: a loop is told of a child whose handle is gone.
    this: Option<Arc<Subprocess>>,
    pub consumer: Consumer,
    starter: Option<Waiter>,
    pid: Option<u32>,
    input: Option<Pipe>,
    writers: Vec<Waiter>,
    outputs: Outputs,
    failure: Option<Failure>,
    /// What ties it to its loop.
    tie: Option<u64>,
    pub counters: Counters,
}

/// What went through.
#[derive(Clone, Copy, Default)]
pub struct Counters {
    pub written: u64,
    pub stdout: u64,
    pub stderr: u64,
}

/// What a write did.
pub enum Written {
    Bytes(usize),
    Full,
    Closed,
    Failed(Errno),
}

/// Whether a process may wait for the next item.
pub enum Taken {
    Item(Item),
    Waiting,
    Active,
    NotSupported,
    Closed,
}

impl Subprocess {
    /// A subprocess that is about to be started; `starter` is told how that went.
    pub fn new(
        id: u64,
        owner: LocalPid,
        kill_timeout: u32,
        consumer: Consumer,
        starter: Waiter,
        (spawner, runtime): (Arc<Spawner>, Handle),
        busy_poll: BusyPoll,
    ) -> Arc<Self> {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            id,
            owner,
            kill_timeout,
            key: owners::next_key(),
            spawner,
            runtime,
            over: AtomicBool::new(false),
            is_scheduled: AtomicBool::new(false),
            busy_poll,
            waker: Waker::from(Arc::new(Readable(this.clone()))),
            state: Mutex::new(State {
                this: None,
                consumer,
                starter: Some(starter),
                pid: None,
                input: None,
                writers: Vec::new(),
                outputs: Outputs::default(),
                failure: None,
                tie: None,
                counters: Counters::default(),
            }),
        })
    }

    /// Makes it belong to its owner, whose call this is.
    pub fn bind(&self, env: Env) {
        let possession: Weak<Self> = self.this.clone();
        owners::own(env, &self.owner, self.key, possession);
    }

    /// Has it stopped when its loop ends.
    pub fn tie_to_loop(&self) {
        let mut state = self.lock();
        if !self.is_over()
            && let Consumer::Loop { event_loop, .. } = &state.consumer
            && let Some(event_loop) = event_loop.upgrade()
        {
            let key = event_loop.ties.insert(Tie::Subprocess(self.this.clone()));
            state.tie = Some(key);
            drop(state);
            event_loop.end_ties_if_closed();
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Something of it still runs.
    pub fn is_alive(&self) -> bool {
        self.spawner.knows(self.id)
    }

    /// The child runs. Called on the spawner's thread, as the next two.
    pub fn started(self: &Arc<Self>, pid: u32, pipes: Pipes) {
        let mut state = self.lock();
        if self.is_over() {
            // Its stop follows the start on its way to the spawner.
            return;
        }
        STARTED.fetch_add(1, Ordering::Relaxed);
        state.this = Some(Arc::clone(self));
        state.pid = Some(pid);
        state.input = pipes.stdin.map(Pipe::writer);
        state.outputs.open(
            pipes.stdout.map(Pipe::reader),
            pipes.stderr.map(Pipe::reader),
        );
        if let Some(starter) = state.starter.take() {
            starter.send(Sender::Thread, |env| atoms::started().encode(env));
        }
        self.advance(&mut state, Sender::Thread);
    }

    /// The child exited; its output may still have to be read.
    pub fn exited(&self, status: ExitStatus) {
        let mut state = self.lock();
        state.pid = None;
        state.outputs.exited(status);
        self.advance(&mut state, Sender::Thread);
    }

    /// It did not start, or nothing is known of it any more.
    pub fn fail(&self, failure: Failure) {
        let mut state = self.lock();
        if self.is_over() || state.outputs.has_exited() {
            return;
        }
        if let Some(starter) = state.starter.take() {
            starter.send(Sender::Thread, |env| {
                (atoms::error(), failure.atom(env)).encode(env)
            });
            self.end(&mut state);
            return;
        }
        state.pid = None;
        state.failure = Some(failure);
        state.outputs.close();
        self.close_input(&mut state, Sender::Thread);
        self.advance(&mut state, Sender::Thread);
    }

    /// Delivers while there is something, and demand for it.
    pub fn advance(&self, state: &mut State, sender: Sender) {
        let mut left = BATCH;
        while left > 0 {
            if self.is_over() || !state.consumer.wants() {
                return;
            }
            match self.poll_item(state) {
                Poll::Ready(item) => {
                    left -= 1;
                    // A scheduler has others to run.
                    if item.is_large() && matches!(sender, Sender::Process(_)) {
                        left = 0;
                    }
                    self.deliver(state, item, sender);
                }
                Poll::Pending => return,
            }
        }
        self.go_on();
    }

    /// Has the runtime deliver, on a thread of its own.
    pub fn go_on(&self) {
        if self.is_scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.this.clone();
        self.runtime.spawn(async move {
            if let Some(this) = this.upgrade() {
                this.is_scheduled.store(false, Ordering::Release);
                this.advance(&mut this.lock(), Sender::Thread);
            }
        });
    }

    /// The next item; the last one ends the subprocess.
    fn poll_item(&self, state: &mut State) -> Poll<Item> {
        let item = match state.failure.take() {
            Some(failure) => Item::Failed(failure),
            None => {
                let mut cx = Context::from_waker(&self.waker);
                std::task::ready!(state.outputs.poll_take(&mut cx, &self.runtime))
            }
        };
        Poll::Ready(self.taken(state, item))
    }

    fn taken(&self, state: &mut State, item: Item) -> Item {
        state.counters.add(&item);
        if item.is_last() {
            self.end(state);
        }
        item
    }

    /// Looks a moment longer for an item. The lock is free between two looks: others write, and the exit comes by
    /// another thread.
    fn look(&self) -> Option<Item> {
        let mut found = None;
        let is_found = self.busy_poll.look(|| {
            found = self.item_now();
            found.is_some()
        });
        LOOKS[usize::from(is_found)].fetch_add(1, Ordering::Relaxed);
        found
    }

    /// An item for a `recv`, if there is one now.
    fn item_now(&self) -> Option<Item> {
        let mut state = self.lock();
        if self.is_over() {
            return None;
        }
        let failure = state.failure.take().map(Item::Failed);
        let item = failure.or_else(|| state.outputs.take_now())?;
        Some(self.taken(&mut state, item))
    }

    fn deliver(&self, state: &mut State, item: Item, sender: Sender) {
        if !state.consumer.deliver(self, item, sender) {
            self.abandon_locked(state);
        }
        if self.is_over() {
            state.consumer.let_go();
        }
    }

    /// Takes the next item for the owner; with a waiter, that is sent it when it comes.
    pub fn take(&self, waiter: Option<Waiter>) -> Taken {
        let mut state = self.lock();
        if self.is_over() {
            return Taken::Closed;
        }
        match state.consumer {
            Consumer::Passive(_) => state.consumer = Consumer::Passive(None),
            Consumer::Active { .. } => return Taken::Active,
            Consumer::Loop { .. } => return Taken::NotSupported,
        }
        if waiter.is_some() && self.busy_poll.pays() {
            state.outputs.unwatch();
            drop(state);
            if let Some(item) = self.look() {
                return Taken::Item(item);
            }
            state = self.lock();
            if self.is_over() {
                return Taken::Closed;
            }
        }
        match self.poll_item(&mut state) {
            Poll::Ready(item) => Taken::Item(item),
            Poll::Pending => {
                if waiter.is_some() {
                    self.busy_poll.falls_asleep();
                }
                state.consumer = Consumer::Passive(waiter);
                Taken::Waiting
            }
        }
    }

    /// Writes what fits; with a waiter, that is told when there may be room.
    pub fn write(&self, env: Env, buffers: &[IoSlice], waiter: Option<Waiter>) -> Written {
        let mut state = self.lock();
        let waker = Waker::from(Arc::new(Writable(self.this.clone())));
        let mut cx = Context::from_waker(&waker);
        let Some(input) = state.input.as_mut() else {
            return Written::Closed;
        };
        match input.poll_write(&mut cx, &self.runtime, buffers) {
            Poll::Ready(Ok(count)) => {
                state.counters.written += count as u64;
                WRITTEN.fetch_add(count as u64, Ordering::Relaxed);
                Written::Bytes(count)
            }
            Poll::Ready(Err(Errno::CANCELED)) => Written::Closed,
            Poll::Ready(Err(errno)) => Written::Failed(errno),
            Poll::Pending => {
                state.add_writer(env, waiter);
                Written::Full
            }
        }
    }

    /// A writer waits no more. `false`: its message is on its way.
    pub fn stop_writing(&self, pid: LocalPid) -> bool {
        let mut state = self.lock();
        let before = state.writers.len();
        state.writers.retain(|waiter| waiter.pid != pid);
        state.writers.len() < before
    }

    /// Ends the child's input. `false`: it has none, or had ended.
    pub fn end_input(&self, sender: Sender) -> bool {
        let mut state = self.lock();
        let was_open = state.input.is_some();
        self.close_input(&mut state, sender);
        was_open
    }

    fn close_input(&self, state: &mut State, sender: Sender) {
        state.input = None;
        state.wake_writers(sender);
    }

    /// The process id, while the child runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().pid
    }

    /// Sends the child a signal.
    ///
    /// # Errors
    /// [`Failure`], when there is no spawner.
    pub fn signal(&self, signal: i32) -> Result<(), Failure> {
        self.spawner.send(Request::Signal {
            id: self.id,
            signal,
            group: false,
        })
    }

    /// Ends the child and its descendants: TERM, then KILL.
    ///
    /// # Errors
    /// [`Failure`], when there is no spawner.
    pub fn stop(&self) -> Result<(), Failure> {
        self.spawner.send(Request::Stop {
            id: self.id,
            kill_timeout: self.kill_timeout,
        })
    }

    /// Nobody wants anything of it any more: it is stopped, and nothing more is delivered.
    pub fn abandon(&self) {
        let mut state = self.lock();
        self.abandon_locked(&mut state);
    }

    /// The application stops while this is started, in the call of its owner. `true`: its starter was not
    /// told and will not be. `false`: it was told, so that what it was told is followed by an end.
    pub fn withdraw(&self, env: Env) -> bool {
        let mut state = self.lock();
        let untold = state.starter.take().is_some();
        if untold {
            self.abandon_locked(&mut state);
        } else if !self.is_over() {
            // Without a spawner there is no child.
            let _ = self.stop();
            state.pid = None;
            state.failure = Some(Failure::Shutdown);
            state.outputs.close();
            state.input = None;
            self.advance(&mut state, Sender::Process(env));
        }
        untold
    }

    fn abandon_locked(&self, state: &mut State) {
        if self.is_alive() {
            // Without a spawner there is no child.
            let _ = self.stop();
        }
        self.end(state);
        state.consumer.let_go();
    }

    /// The last handle is gone: without demand nothing can be asked of it any more.
    pub fn handle_gone(&self) {
        let mut state = self.lock();
        if !self.is_over() && matches!(state.consumer, Consumer::Passive(_)) {
            self.abandon_locked(&mut state);
        }
    }

    /// The end was taken, or is wanted by nobody: what it holds is given back. Its descendants stay known to
    /// their owner until the last one ended.
    fn end(&self, state: &mut State) {
        if self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        OPEN.fetch_sub(1, Ordering::Relaxed);
        state.pid = None;
        state.outputs.close();
        state.input = None;
        // It ended before it was known whether the child runs: its loop ended.
        if let Some(starter) = state.starter.take() {
            starter.send_anywhere(|env| (atoms::error(), atoms::closed()).encode(env));
        }
        state.wake_writers_anywhere();
        if let (Some(tie), Consumer::Loop { event_loop, .. }) = (state.tie.take(), &state.consumer)
            && let Some(event_loop) = event_loop.upgrade()
        {
            event_loop.ties.remove(tie);
        }
        // Whoever called this has another reference.
        state.this = None;
    }
}

impl State {
    pub fn is_running(&self) -> bool {
        self.pid.is_some()
    }

    pub fn has_exited(&self) -> bool {
        self.outputs.has_exited()
    }

    /// Those that died while they waited are looked for whenever there are twice as many.
    fn add_writer(&mut self, env: Env, waiter: Option<Waiter>) {
        if self.writers.len().is_power_of_two() {
            self.writers.retain(|writer| writer.pid.is_alive(env));
        }
        self.writers.extend(waiter);
    }

    fn wake_writers(&mut self, sender: Sender) {
        for waiter in self.writers.drain(..) {
            waiter.send(sender, |env| atoms::ready().encode(env));
        }
    }

    fn wake_writers_anywhere(&mut self) {
        for waiter in self.writers.drain(..) {
            waiter.send_anywhere(|env| atoms::ready().encode(env));
        }
    }
}

impl Counters {
    fn add(&mut self, item: &Item) {
        let Item::Output(stream, chunk) = item else {
            return;
        };
        let length = chunk.len() as u64;
        OUTPUT[*stream as usize].fetch_add(length, Ordering::Relaxed);
        match stream {
            Stream::Stdout => self.stdout += length,
            Stream::Stderr => self.stderr += length,
        }
    }
}

/// There is something to read, or it ended.
struct Readable(Weak<Subprocess>);

impl Wake for Readable {
    fn wake(self: Arc<Self>) {
        if let Some(subprocess) = self.0.upgrade() {
            subprocess.go_on();
        }
    }
}

/// Wakes the writers of a subprocess. Called on a thread of the runtime.
struct Writable(Weak<Subprocess>);

impl Wake for Writable {
    fn wake(self: Arc<Self>) {
        if let Some(subprocess) = self.0.upgrade() {
            subprocess.lock().wake_writers_anywhere();
        }
    }
}

impl Possession for Subprocess {
    /// A loop that it tells is told to the end, too, with what the child wrote: descendants that have the pipes are
    /// stopped.
    fn owner_died(&self) {
        let mut state = self.lock();
        if !matches!(state.consumer, Consumer::Loop { .. }) || state.this.is_none() {
            return self.abandon_locked(&mut state);
        }
        // Without a spawner there is no child.
        let _ = self.stop();
    }

    fn library_stops(&self) {
        self.fail(Failure::Shutdown);
        // One that exited may still wait for output that this runtime would read.
        let mut state = self.lock();
        if !self.is_over() && state.has_exited() {
            state.failure = Some(Failure::Shutdown);
            state.outputs.close();
            self.close_input(&mut state, Sender::Thread);
            self.advance(&mut state, Sender::Thread);
        }
    }
}

impl Drop for Subprocess {
    fn drop(&mut self) {
        owners::disown(&self.owner, self.key);
        if !self.is_over() {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
