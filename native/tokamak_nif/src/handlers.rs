// SPDX-License-Identifier: Apache-2.0
//! Handlers: processes that get the events of one callback id as messages.
//!
//! The loop's own process registers, dispatches and notices dead handlers; this is the table that
//! routing looks at, and that tells every handler `closed` however the loop ends.

use crate::atoms;
use crate::event_loop::EventLoop;
use crate::payload::{Event, Place};
use crate::watch::{Direction, Watch};
use parking_lot::RwLock;
use rustler::{Encoder, Env, LocalPid, Term};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokamak::environment::{SavedTerm, Sender};
use tokamak_core::readiness::Consumer;

struct Handler {
    pid: LocalPid,
    reference: SavedTerm,
}

/// The handlers of an event loop, by callback id.
#[derive(Default)]
pub struct Handlers {
    by_id: RwLock<HashMap<u64, Handler>>,
    count: AtomicUsize,
}

impl Handlers {
    /// Whether there is any: then the loop's process consumes the queue.
    pub fn are_any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub fn contains(&self, id: u64) -> bool {
        self.by_id.read().contains_key(&id)
    }

    /// Registers a handler; the one that it replaces comes back, to be told.
    fn insert(&self, id: u64, pid: LocalPid, reference: Term) -> Option<Handler> {
        let handler = Handler {
            pid,
            reference: SavedTerm::save(reference),
        };
        let mut by_id = self.by_id.write();
        let replaced = by_id.insert(id, handler);
        self.count.store(by_id.len(), Ordering::SeqCst);
        replaced
    }

    /// Unregisters; `false` where there was none.
    fn remove(&self, id: u64) -> bool {
        let mut by_id = self.by_id.write();
        let removed = by_id.remove(&id).is_some();
        self.count.store(by_id.len(), Ordering::SeqCst);
        removed
    }

    /// `{Pid, Id, {tokamak, Ref, {event, Id, Type, Data}}}`, for the loop's process to send; with `windowed` as
    /// a fourth element, and the place, where the event has one in a window.
    ///
    /// # Errors
    /// The event, when the id has no handler.
    pub fn message<'a>(
        &self,
        env: Env<'a>,
        id: u64,
        event: Event,
    ) -> Result<(Term<'a>, Option<Place>), Event> {
        let by_id = self.by_id.read();
        let Some(handler) = by_id.get(&id) else {
            return Err(event);
        };
        let reference = handler.reference.load(env);
        let pid = handler.pid;
        drop(by_id);
        let kind = atoms::event_type(event.kind);
        let (data, place) = event.payload.into_term_and_place(env);
        let payload = (atoms::event(), id, kind, data);
        let message = (atoms::tokamak(), reference, payload);
        let dispatched = match place {
            Some(_) => (pid, id, message, atoms::windowed()).encode(env),
            None => (pid, id, message).encode(env),
        };
        Ok((dispatched, place))
    }

    /// Tells every handler that the loop has ended.
    pub fn close(&self, sender: Sender) {
        let handlers = std::mem::take(&mut *self.by_id.write());
        self.count.store(0, Ordering::SeqCst);
        for handler in handlers.into_values() {
            handler.tell_closed(sender);
        }
    }
}

impl Handler {
    fn tell_closed(&self, sender: Sender) {
        sender.send(&self.pid, |env| {
            (atoms::tokamak(), self.reference.load(env), atoms::closed()).encode(env)
        });
    }
}

impl EventLoop {
    /// Registers a handler, for the loop's process: from here on it consumes the queue. Parked
    /// events of the id are the handler's.
    pub fn add_handler(&self, env: Env, id: u64, pid: LocalPid, reference: Term) {
        let mut state = self.drain.lock();
        let replaced = self.handlers.insert(id, pid, reference);
        // What is watched for the id from here on finds its handler by itself.
        let watched = self.watches.lock().watched_for(id);
        let parked = state.parked.take_of(id, &watched);
        state.overdue.extend(parked);
        drop(state);
        if let Some(replaced) = replaced {
            replaced.tell_closed(Sender::Process(env));
        }
        // What another consumer was told of, and is still ready, the handler has to be told anew.
        for (watch, direction) in watched {
            watch.come_back(Sender::Process(env), direction);
        }
    }

    /// A direction got another callback id: the event of it that is parked is the handler's of that id, if
    /// there is one.
    pub fn unpark(&self, sender: Sender, watch: &Watch, direction: Direction) {
        if !self.handlers.are_any() {
            return;
        }
        let mut state = self.drain.lock();
        let id = watch.with(direction, |state| state.callback_id());
        if !self.handlers.contains(id) {
            return;
        }
        let parked = state.parked.take_of_watch(watch, direction);
        let is_any = !parked.is_empty();
        state.overdue.extend(parked);
        drop(state);
        if is_any {
            self.after_push(sender, self.queue.notify());
        }
    }

    /// Unregisters a handler, for the loop's process. A poller that waits consumes again when it was
    /// the last one, and looks at the descriptors that it left.
    pub fn remove_handler(&self, env: Env, id: u64) {
        let mut state = self.drain.lock();
        let removed = self.handlers.remove(id);
        let was_last = removed && !self.handlers.are_any();
        if was_last {
            // Otherwise the dispatch that is due parks what is this id's, and the rest is other handlers'.
            let overdue = std::mem::take(&mut state.overdue);
            state.parked.extend(overdue);
        }
        let places = state.places.remove(&id).unwrap_or_default();
        drop(state);
        give_back(env, places);
        if removed && (self.hand_over_descriptors(id) || was_last) {
            self.wake_waiter(Sender::Process(env), atoms::ready());
        }
    }

    /// The first `count` places that events of an id have in the windows of their sources are given back.
    pub fn give_back_places(&self, env: Env, id: u64, count: usize) {
        let mut state = self.drain.lock();
        let Some(places) = state.places.get_mut(&id) else {
            return;
        };
        let count = count.min(places.len());
        let first: Vec<Place> = places.drain(..count).collect();
        drop(state);
        give_back(env, first);
    }

    /// Descriptors that the handler was told of, and did not come back for, are the pollers' now; whether there
    /// are any.
    fn hand_over_descriptors(&self, id: u64) -> bool {
        let watched = self.watches.lock().watched_for(id);
        if watched.is_empty() {
            return false;
        }
        let mut any = false;
        let mut state = self.drain.lock();
        for (watch, direction) in watched {
            let (handed_over, is_new) = watch.with(direction, |state| {
                let handed_over = state.hand_over(Consumer::Poller);
                (handed_over, handed_over && state.list())
            });
            any |= handed_over;
            if is_new {
                state.reported.push_back((watch, direction));
            }
        }
        any
    }
}

fn give_back(env: Env, places: impl IntoIterator<Item = Place>) {
    for place in places {
        place.give_back(Sender::Process(env));
    }
}
