// SPDX-License-Identifier: Apache-2.0
//! Event loops: where a loop's sources push, and how its consumer is woken.
//!
//! A loop has one queue and one consumer at a time. Who that is: the owner of a raw loop; the process
//! that polls a supervised one; or the loop's own process, from the first registered handler on,
//! which then hands the events of registered ids to their handlers and parks the rest for pollers.
//! The consumer's side is in `drain.rs`, handlers are in `handlers.rs`.

use crate::atoms;
use crate::descriptors::Descriptors;
use crate::drain::Drain;
use crate::fd::Fd;
use crate::foreign_poll::WaitingThread;
use crate::handlers::Handlers;
use crate::library::Services;
use crate::payload::{Event, Payload};
use crate::stats;
use crate::submissions::Ties;
use crate::wakes::Wakes;
use crate::watch::{Direction, Watch};
use crate::watches::{Before, Watches};
use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustler::{Atom, Encoder, LocalPid, Term};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokamak::environment::{SavedTerm, Sender};
use tokamak::owners::{self, Possession, PossessionKey};
use tokamak::watcher;
use tokamak_core::busy_poll::BusyPoll;
use tokamak_core::event::EventType;
use tokamak_core::queue::{Batch, EventQueue, Refused, Wake};
use tokamak_core::readiness::Consumer;
use tokamak_core::timers::{Fired, NotStarted, TimerSet, TimerSink};

/// Loops that are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The number of loops that are open.
pub fn count() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// Who consumes a loop's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its owner: any process, which is sent `ready` and drains.
    Raw,
    /// Pollers and handlers; the owner is the loop's own process.
    Supervised,
}

/// How a loop learns that a descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Native,
    Select,
}

/// What a loop is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub kind: Kind,
    pub backend: Backend,
    pub max_queue: usize,
    pub max_timers: usize,
}

/// Who waits in poll.
pub enum Waiter {
    /// A process, for a message under its reference.
    Process(LocalPid, SavedTerm),
    /// A thread that the VM does not know.
    Thread(Arc<WaitingThread>),
}

/// Counts an event that was refused.
#[cold]
#[inline(never)]
fn counted(refused: Refused<Event>) -> Refused<Event> {
    if let Refused::Overloaded(_) = refused {
        watcher::events_refused(1);
    }
    refused
}

/// An event loop.
pub struct EventLoop {
    pub this: Weak<EventLoop>,
    pub options: Options,
    pub owner: LocalPid,
    key: PossessionKey,
    /// The term that stands for the loop in messages. It keeps the loop's resource alive, so it is
    /// dropped at the end.
    handle: Mutex<Option<SavedTerm>>,
    pub queue: EventQueue<Event>,
    pub drain: Mutex<Drain>,
    pub waiter: Mutex<Option<Waiter>>,
    pub handlers: Handlers,
    pub timers: Arc<TimerSet>,
    pub descriptors: Descriptors,
    pub watches: Mutex<Watches>,
    pub ties: Ties,
    next_watch: AtomicU64,
    coalesced: AtomicU64,
    closed: AtomicBool,
    pub wakes: Wakes,
    /// Whether its consumer looks a moment longer before it sleeps.
    pub busy_poll: BusyPoll,
    /// Whether its counters are among those of the loops that ended.
    pub is_counted: AtomicBool,
}

impl EventLoop {
    /// Opens a loop of `owner`.
    ///
    /// # Errors
    /// The operating system's, when no descriptor is left.
    pub fn open(
        services: &Services,
        owner: LocalPid,
        options: Options,
    ) -> std::io::Result<Arc<Self>> {
        let mut failed = None;
        let event_loop = Arc::new_cyclic(|this: &Weak<Self>| {
            let sink: Weak<Self> = this.clone();
            let descriptors = Descriptors::open(services, options.backend, this.clone());
            Self {
                this: this.clone(),
                options,
                owner,
                key: owners::next_key(),
                handle: Mutex::new(None),
                queue: EventQueue::new(options.max_queue),
                drain: Mutex::new(Drain::default()),
                waiter: Mutex::new(None),
                handlers: Handlers::default(),
                timers: TimerSet::new(&services.timers, options.max_timers, sink),
                descriptors: descriptors.unwrap_or_else(|error| {
                    failed = Some(error);
                    Descriptors::none()
                }),
                watches: Mutex::default(),
                ties: Ties::default(),
                next_watch: AtomicU64::new(1),
                coalesced: AtomicU64::new(0),
                closed: AtomicBool::new(false),
                wakes: Wakes::default(),
                busy_poll: BusyPoll::new(services.busy_poll),
                is_counted: AtomicBool::new(false),
            }
        });
        match failed {
            Some(error) => Err(error),
            None => {
                OPEN.fetch_add(1, Ordering::Relaxed);
                Ok(event_loop)
            }
        }
    }

    /// Ties the loop to its owner and to the term that stands for it.
    pub fn bind(self: &Arc<Self>, env: rustler::Env, handle: Term) {
        *self.handle.lock() = Some(SavedTerm::save(handle));
        let possession: Weak<Self> = Arc::downgrade(self);
        // The owner lives, as this is its call.
        owners::own(env, &self.owner, self.key, possession);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether it is closed, for a process that then expects nothing more of it: its owner has been told.
    pub fn is_closed_and_told(&self) -> bool {
        let closed = self.is_closed();
        if closed {
            drop(self.handle.lock());
        }
        closed
    }

    pub fn is_raw(&self) -> bool {
        self.options.kind == Kind::Raw
    }

    /// Whether a descriptor's source tells only changes.
    pub fn is_edge_triggered(&self) -> bool {
        self.options.backend == Backend::Native
    }

    /// The term that stands for the loop, while it is open.
    pub fn term<'a>(&self, env: rustler::Env<'a>) -> Option<Term<'a>> {
        let handle = self.handle.lock();
        handle.as_ref().map(|handle| handle.load(env))
    }

    /// How many descriptors are watched, for each direction.
    pub fn watched(&self) -> [usize; 2] {
        self.watches.lock().counts()
    }

    /// The process that enif_select tells, where that backend is used.
    pub fn selecting_process(&self) -> Option<LocalPid> {
        self.descriptors.selecting_process()
    }

    pub fn count_coalesced(&self) {
        self.coalesced.fetch_add(1, Ordering::Relaxed);
    }

    pub fn coalesced(&self) -> u64 {
        self.coalesced.load(Ordering::Relaxed)
    }

    /// Pushes an event from anywhere, up to the loop's bound.
    ///
    /// # Errors
    /// [`Refused`] with the event, when the queue is full or the loop closed.
    pub fn post(&self, sender: Sender, event: Event) -> Result<(), Refused<Event>> {
        let wake = self.queue.try_push(event).map_err(counted)?;
        self.after_push(sender, wake);
        Ok(())
    }

    /// Pushes an event from a native thread, waiting up to `timeout` for room.
    ///
    /// # Errors
    /// [`Refused`] with the event, when there was no room in time, or the loop closed.
    pub fn post_timeout(&self, event: Event, timeout: Duration) -> Result<(), Refused<Event>> {
        let pushed = self.queue.push_timeout(event, timeout);
        let wake = pushed.map_err(counted)?;
        self.after_push(Sender::Thread, wake);
        Ok(())
    }

    /// Pushes a descriptor's event: at most one is pending for each direction.
    pub fn push_readiness(&self, sender: Sender, event: Event) {
        if let Ok(wake) = self.queue.push_admitted(event) {
            self.after_push(sender, wake);
        }
    }

    /// Sends the consumer its wake if one is due.
    pub fn after_push(&self, sender: Sender, wake: Wake) {
        if wake == Wake::Send {
            self.wake(sender);
        }
    }

    /// Wakes whoever consumes. A supervised loop that nobody polls needs no wake: the next poll
    /// looks for itself.
    pub fn wake(&self, sender: Sender) {
        if self.is_raw() || self.handlers.are_any() {
            self.wake_owner(sender);
        } else {
            self.wake_waiter(sender, atoms::ready());
        }
    }

    pub fn wake_owner(&self, sender: Sender) {
        // Held while it is sent: the end takes the handle away, and nothing comes after it.
        let handle = self.handle.lock();
        if let Some(handle) = &*handle {
            self.send_ready(sender, handle);
        }
    }

    fn send_ready(&self, sender: Sender, handle: &SavedTerm) {
        self.sending_wake();
        sender.send(&self.owner, |env| {
            (atoms::tokamak(), handle.load(env), atoms::ready()).encode(env)
        });
    }

    fn sending_wake(&self) {
        self.wakes.sending();
        self.busy_poll.is_woken();
    }

    /// Ends the wait of a poller, if one waits.
    pub fn wake_waiter(&self, sender: Sender, why: Atom) {
        let waiter = self.waiter.lock().take();
        let Some(waiter) = waiter else {
            return;
        };
        self.sending_wake();
        match waiter {
            Waiter::Process(pid, reference) => {
                sender.send(&pid, |env| {
                    (atoms::tokamak(), reference.load(env), why).encode(env)
                });
            }
            Waiter::Thread(thread) => thread.wake(),
        }
    }

    /// Starts a timer.
    ///
    /// # Errors
    /// [`NotStarted`], when there are too many, or as many events wait as may, or the loop is closed.
    pub fn start_timer(&self, delay: Duration, callback_id: u64) -> Result<u64, NotStarted> {
        // Timers that fired are let into the queue whatever its bound: a loop that nobody consumes must
        // not be given more.
        let started = match self.queue.is_full() {
            true => Err(NotStarted::Overloaded),
            false => self.timers.start(delay, callback_id),
        };
        if started == Err(NotStarted::Overloaded) {
            watcher::events_refused(1);
        }
        started
    }

    /// Watches a direction of a descriptor for a callback id.
    ///
    /// # Errors
    /// The atom that says why not.
    pub fn watch(
        self: &Arc<Self>,
        sender: Sender,
        fd: &Arc<Fd>,
        direction: Direction,
        callback_id: u64,
    ) -> Result<(), Atom> {
        if !fd.is_pollable() {
            return Err(atoms::not_pollable());
        }
        let mut place = fd.watch.lock();
        let file = fd.file().ok_or(atoms::closed())?;
        let watch = self.watch_of(fd, place.as_ref())?;
        let before = watch.interest();
        // Before the kernel may tell of it: a consumer that does not know the token drops the edge,
        // and it comes once.
        let Before {
            fresh,
            renamed,
            has_event,
        } = self.watches.lock().watch(&watch, direction, callback_id);
        if fresh && let Err(errno) = self.descriptors.change(&file, &watch, before) {
            self.watches.lock().unwatch(&watch, direction);
            return Err(crate::descriptors::reason(errno));
        }
        *place = Some(Arc::clone(&watch));
        drop(place);
        if self.is_closed() {
            // It closed meanwhile and may have missed this watch.
            self.watches.lock().end(&watch);
            return Err(atoms::closed());
        }
        if fresh {
            watch.arm(sender, direction);
        }
        if renamed || has_event {
            self.unpark(sender, &watch, direction);
        }
        if renamed {
            // Whoever was told of it under the old id, or would have been, need not be the one that the
            // new id is for. Who took the event since has been told under the new id.
            watch.come_back_of(sender, direction, Consumer::Former);
            if self.handlers.contains(callback_id) {
                // Between the change and the unparking, a poller may have taken it.
                watch.come_back_of(sender, direction, Consumer::Poller);
            }
        }
        Ok(())
    }

    /// The watch a descriptor has in this loop, or a new one.
    fn watch_of(
        self: &Arc<Self>,
        fd: &Arc<Fd>,
        current: Option<&Arc<Watch>>,
    ) -> Result<Arc<Watch>, Atom> {
        if self.is_closed() {
            return Err(atoms::closed());
        }
        if let Some(watch) = current
            && let Some(other) = watch.event_loop.upgrade()
            && !other.is_closed()
        {
            if Arc::ptr_eq(self, &other) {
                return Ok(Arc::clone(watch));
            }
            if watch.interest() != [false; 2] {
                return Err(atoms::busy());
            }
        }
        let token = self.next_watch.fetch_add(1, Ordering::Relaxed);
        Ok(Watch::new(token, Arc::downgrade(fd), self.this.clone()))
    }

    /// Ends the watch of a direction.
    ///
    /// # Errors
    /// The atom that says why not.
    pub fn unwatch(
        self: &Arc<Self>,
        sender: Sender,
        fd: &Arc<Fd>,
        direction: Direction,
    ) -> Result<(), Atom> {
        if self.is_closed() {
            return Err(atoms::closed());
        }
        let mut place = fd.watch.lock();
        let file = fd.file().ok_or(atoms::closed())?;
        let watch = match place.as_ref() {
            Some(watch) if watch.event_loop.ptr_eq(&self.this) => Arc::clone(watch),
            _ => return Err(atoms::not_watched()),
        };
        let before = watch.interest();
        if !self.watches.lock().unwatch(&watch, direction) {
            return Err(atoms::not_watched());
        }
        // Fails only for a descriptor that the set does not have.
        let _ = self.descriptors.change(&file, &watch, before);
        // The next watch takes over the event that waits.
        if watch.interest() == [false; 2] && !watch.has_event() {
            *place = None;
        }
        // While the place is held: afterwards the descriptor may be selected for another loop.
        if let Sender::Process(env) = sender {
            fd.selection.cancel(env, &file, direction);
        }
        Ok(())
    }

    /// Ends a watch whose descriptor is being closed.
    pub fn end_watch(&self, watch: &Watch, file: &OwnedFd) {
        self.watches.lock().end(watch);
        self.descriptors.remove(file);
    }

    /// Ends the loop: nothing comes in any more, pollers and handlers are told, what it holds is
    /// given back. `false` when it had ended before.
    pub fn close(&self, sender: Sender) -> bool {
        self.end(sender, false)
    }

    /// The same, not by the owner's will: that of a raw loop is told.
    pub fn close_and_tell_owner(&self, sender: Sender) {
        self.end(sender, true);
    }

    fn end(&self, sender: Sender, tell_owner: bool) -> bool {
        if !self.mark_closed(sender, tell_owner) {
            return false;
        }
        OPEN.fetch_sub(1, Ordering::Relaxed);
        self.queue.close();
        self.timers.close();
        self.wake_waiter(sender, atoms::closed());
        self.handlers.close(sender);
        self.ties.end();
        self.end_watches(sender);
        owners::disown(&self.owner, self.key);
        let handle = self.handle.lock().take();
        if let Some(process) = self.selecting_process() {
            owners::disown(&process, self.key);
            self.tell_closed(sender, &process, handle.as_ref());
        }
        self.descriptors.close();
        let dropped = std::mem::take(&mut *self.drain.lock());
        drop((handle, dropped));
        let mut batch = Batch::default();
        while let Some(event) = self.queue.pop(&mut batch) {
            drop(event);
            self.queue.release(1);
        }
        stats::loop_ended(self);
        true
    }

    /// `false` when it was closed before; then its owner has been told.
    fn mark_closed(&self, sender: Sender, tell_owner: bool) -> bool {
        // Held until the owner is told: whoever destroys the loop meanwhile gets nothing afterwards.
        let handle = self.handle.lock();
        if self.closed.swap(true, Ordering::AcqRel) {
            return false;
        }
        if let (true, true, Some(handle)) = (tell_owner, self.is_raw(), &*handle) {
            // Not before it is closed: the owner drains once, and finds it so.
            self.send_ready(sender, handle);
        }
        true
    }

    /// The process that selects for a raw loop does nothing else: it ends with the loop.
    fn tell_closed(&self, sender: Sender, process: &LocalPid, handle: Option<&SavedTerm>) {
        if let (true, Some(handle)) = (self.is_raw(), handle) {
            sender.send(process, |env| {
                (atoms::tokamak(), handle.load(env), atoms::closed()).encode(env)
            });
        }
    }

    /// Names the process that enif_select tells; the loop ends with it, too.
    pub fn select_here(self: &Arc<Self>, env: rustler::Env) {
        let process = env.pid();
        let possession: Weak<Self> = Arc::downgrade(self);
        owners::own(env, &process, self.key, possession);
        self.descriptors.set_selecting_process(process);
    }

    fn end_watches(&self, sender: Sender) {
        let watches = std::mem::take(&mut *self.watches.lock());
        for watch in watches.into_watches() {
            watch.end();
            let Some(fd) = watch.fd.upgrade() else {
                continue;
            };
            let mut place = fd.watch.lock();
            // It may be another loop's by now.
            if !place
                .as_ref()
                .is_some_and(|of_fd| Arc::ptr_eq(of_fd, &watch))
            {
                continue;
            }
            *place = None;
            if let (Sender::Process(env), Some(file)) = (sender, fd.file()) {
                for direction in Direction::BOTH {
                    fd.selection.cancel(env, &file, direction);
                }
            }
        }
    }
}

impl TimerSink for EventLoop {
    fn fired(&self, timers: &[Fired]) {
        let events = timers.iter().map(|timer| Event {
            callback_id: timer.callback_id,
            kind: EventType::Timer,
            payload: Payload::Timer(timer.reference),
        });
        if let Ok(wake) = self.queue.push_many_admitted(events) {
            self.after_push(Sender::Thread, wake);
        }
    }
}

impl Possession for EventLoop {
    fn owner_died(&self) {
        // Where it was the selecting process that died.
        self.close_and_tell_owner(Sender::Thread);
    }
}
