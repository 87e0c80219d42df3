// SPDX-License-Identifier: Apache-2.0
//! The consumer's side of an event loop: drain, poll and dispatch.
//!
//! All three take events from the one queue under one lock, in order, and encode them straight into
//! the environment of the calling process. What a poller or raw owner was told of a descriptor is
//! looked at again when it comes back, see `recheck`.

use crate::atoms;
use crate::event_loop::{EventLoop, Waiter};
use crate::parked::Parked;
use crate::payload::{self, Event, Payload, Place};
use crate::transfer;
use crate::watch::{Direction, Watch};
use rustix::event::PollFd;
use rustix::fd::{AsFd, OwnedFd};
use rustler::{Encoder, Env};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokamak::environment::{Sender, TermList};
use tokamak_core::queue::Batch;
use tokamak_core::readiness::{ComeBack, Consumer};

/// The most events one call takes when its caller names no number.
pub const DEFAULT_MAX: usize = 1024;
/// A scheduler is given back after this time at the latest.
const TIME_LIMIT: Duration = Duration::from_micros(400);
/// How many events are taken between two looks at the clock.
const CLOCK_INTERVAL: usize = 256;
/// Events that cost a process about one per cent of its time slice.
const EVENTS_PER_PERCENT: usize = 200;
/// How many descriptors are looked at again between two looks at the clock.
const RECHECK_PORTION: usize = 256;
/// A look before the sleep takes about as much of it, at most, as so many events.
const LOOK_IN_EVENTS: usize = 1000;

/// What the consumer of a loop keeps between its calls.
#[derive(Default)]
pub struct Drain {
    /// The last drain left something: what it reported is not looked at again before the end.
    unfinished: bool,
    /// Events taken out of the queue that nobody has looked at yet.
    batch: Batch<Event>,
    /// Descriptors that the consumer was told of, and that were not looked at again since.
    pub reported: VecDeque<Reported>,
    /// So many of them, from the front, it has come back for.
    returned: usize,
    /// Events for pollers, taken out of the queue by the loop's process.
    pub parked: Parked,
    /// Parked events whose callback id got a handler.
    pub overdue: VecDeque<Event>,
    /// Places of events that were dispatched, by callback id, until the loop's process gives them back.
    pub places: HashMap<u64, VecDeque<Place>>,
}

/// What a poll found.
pub enum Polled<'a> {
    Events(TermList<'a>),
    /// All that this call may take were events of ended watches: poll again.
    More,
    Busy,
    Waiting,
}

/// What a drain or dispatch found.
pub struct Drained<'a> {
    pub terms: TermList<'a>,
    pub more: bool,
}

/// Takes as many events as one call may, by count and by time. The time counts from the first look
/// at the clock: what few events cost need not be measured.
struct Allowance {
    left: usize,
    /// Taken since the last look.
    unchecked: usize,
    started: Option<Instant>,
}

impl Allowance {
    fn new(max: usize) -> Self {
        Self {
            left: max,
            unchecked: 0,
            started: None,
        }
    }

    /// How many may be taken before the next look.
    fn portion(&self) -> usize {
        self.left.min(CLOCK_INTERVAL)
    }

    fn count(&mut self, taken: usize) {
        self.left -= taken;
        self.unchecked += taken;
        if self.unchecked >= CLOCK_INTERVAL {
            self.unchecked = 0;
            self.look_at_clock();
        }
    }

    fn look_at_clock(&mut self) {
        let started = *self.started.get_or_insert_with(Instant::now);
        if started.elapsed() > TIME_LIMIT {
            self.left = 0;
        }
    }

    fn is_used_up(&self) -> bool {
        self.left == 0
    }
}

/// Accounts for the time that taking `count` events took.
fn consume_timeslice(consumer: Sender, count: usize) {
    let Sender::Process(env) = consumer else {
        return;
    };
    let percent = (count / EVENTS_PER_PERCENT + 1).min(100);
    rustler::schedule::consume_timeslice(env, percent as i32);
}

impl EventLoop {
    /// The owner of a raw loop takes up to `max` events. One that polls comes back by each call: it finds
    /// nothing only where nothing is ready.
    pub fn drain<'a>(&self, env: Env<'a>, max: usize, polls: bool) -> Drained<'a> {
        self.wakes.arrived();
        let mut state = self.drain.lock();
        let mut unfinished = std::mem::replace(&mut state.unfinished, true);
        let mut allowance = Allowance::new(max);
        if !unfinished {
            state.returned = state.reported.len();
        }
        self.recheck(
            Sender::Process(env),
            &mut state,
            &mut allowance,
            Consumer::Reader,
        );
        self.descriptors.collect(self);
        let mut terms = self.term_list(env, max);
        let mut looked = false;
        let more = loop {
            self.take(
                env,
                &mut state,
                &mut allowance,
                Consumer::Reader,
                &mut terms,
            );
            if allowance.is_used_up() {
                break true;
            }
            if polls && terms.is_empty() && state.returned == 0 && std::mem::take(&mut unfinished) {
                state.returned = state.reported.len();
            }
            if state.returned > 0 {
                self.recheck(
                    Sender::Process(env),
                    &mut state,
                    &mut allowance,
                    Consumer::Reader,
                );
                continue;
            }
            if terms.is_empty() && self.looks_longer(Sender::Process(env), &mut state, &mut looked)
            {
                continue;
            }
            if !self.queue.rearm(&mut state.batch) {
                break false;
            }
        };
        state.unfinished = more;
        drop(state);
        if !more {
            self.falls_asleep();
        }
        consume_timeslice(Sender::Process(env), terms.len());
        Drained { terms, more }
    }

    /// A process or a thread polls, for terms of `env`; with a waiter, it waits if there is nothing.
    pub fn poll<'a>(&self, env: Env<'a>, poller: Sender, mut waiter: Option<Waiter>) -> Polled<'a> {
        self.wakes.arrived();
        let mut state = self.drain.lock();
        // Under the lock: of two that poll at once, the second finds the first one waiting.
        if self.is_polled_by_other(env, poller) {
            return Polled::Busy;
        }
        let mut allowance = Allowance::new(DEFAULT_MAX);
        state.returned = state.reported.len();
        self.recheck(poller, &mut state, &mut allowance, Consumer::Poller);
        let dispatching = self.handlers.are_any();
        let mut terms = self.term_list(env, DEFAULT_MAX);
        let mut looked = false;
        loop {
            self.take_parked(env, &mut state, &mut allowance, &mut terms);
            if !dispatching {
                self.descriptors.collect(self);
                self.take(
                    env,
                    &mut state,
                    &mut allowance,
                    Consumer::Poller,
                    &mut terms,
                );
            }
            if state.returned > 0 && !allowance.is_used_up() {
                self.recheck(poller, &mut state, &mut allowance, Consumer::Poller);
                continue;
            }
            if !terms.is_empty() {
                drop(state);
                consume_timeslice(poller, terms.len());
                return Polled::Events(terms);
            }
            if allowance.is_used_up() {
                return Polled::More;
            }
            if waiter.is_some()
                && !dispatching
                && self.looks_longer(poller, &mut state, &mut looked)
            {
                continue;
            }
            let Some(waiting) = waiter.take() else {
                return Polled::Events(terms);
            };
            *self.waiter.lock() = Some(waiting);
            // With handlers, the loop's process owns the flag and wakes us for what it parks.
            if dispatching || !self.queue.rearm(&mut state.batch) {
                break;
            }
            waiter = self.waiter.lock().take();
            if waiter.is_none() {
                // Somebody took it to wake us: that is on its way.
                return Polled::Waiting;
            }
        }
        drop(state);
        self.falls_asleep();
        consume_timeslice(poller, 0);
        if self.is_closed() {
            // The close may have come before the waiter was there to be told.
            self.wake_waiter(poller, atoms::closed());
        }
        Polled::Waiting
    }

    /// A consumer that found nothing looks a moment longer, once in a call, where that pays; see
    /// [`tokamak_core::busy_poll`]. Returns whether there is something now.
    fn looks_longer(&self, consumer: Sender, state: &mut Drain, looked: &mut bool) -> bool {
        if std::mem::replace(looked, true)
            || !self.busy_poll.pays()
            || !self.descriptors.can_be_looked_at()
        {
            return false;
        }
        consume_timeslice(consumer, LOOK_IN_EVENTS);
        self.busy_poll.look(|| {
            self.descriptors.collect(self);
            self.queue.front(&mut state.batch).is_some()
        })
    }

    /// The consumer goes to sleep: it has to be woken.
    fn falls_asleep(&self) {
        // Others never look, so how long they sleep need not be known.
        if self.descriptors.can_be_looked_at() {
            self.busy_poll.falls_asleep();
        }
        self.descriptors.sleep();
    }

    /// The poller gives up waiting. `false`: its wake is on its way.
    pub fn stop_waiting(&self, env: Env) -> bool {
        let mut waiter = self.waiter.lock();
        match waiter.as_ref() {
            Some(Waiter::Process(pid, _)) if *pid == env.pid() => {
                *waiter = None;
                true
            }
            _ => false,
        }
    }

    /// What `poller` itself, or a process that died, left there is cleared.
    fn is_polled_by_other(&self, env: Env, poller: Sender) -> bool {
        let mut waiter = self.waiter.lock();
        let is_other = match (waiter.as_ref(), poller) {
            (Some(Waiter::Process(pid, _)), Sender::Process(env)) if *pid == env.pid() => false,
            // A thread may ask this, too: what its environment belongs to does not matter.
            (Some(Waiter::Process(pid, _)), _) => pid.is_alive(env),
            (other, _) => other.is_some(),
        };
        if !is_other {
            *waiter = None;
        }
        is_other
    }

    /// The loop's process takes events: those with a handler as `{Pid, Message}`, while the others
    /// are parked for pollers.
    pub fn dispatch<'a>(&self, env: Env<'a>) -> Drained<'a> {
        self.wakes.arrived();
        let mut state = self.drain.lock();
        let mut terms = self.term_list(env, DEFAULT_MAX);
        if !self.handlers.are_any() {
            return Drained { terms, more: false };
        }
        self.descriptors.collect(self);
        let mut allowance = Allowance::new(DEFAULT_MAX);
        let parked_before = state.parked.len();
        let more = loop {
            while !allowance.is_used_up()
                && let Some(event) = self.next(&mut state)
            {
                allowance.count(1);
                self.route(env, &mut state, event, &mut terms);
            }
            if allowance.is_used_up() {
                break true;
            }
            if !self.queue.rearm(&mut state.batch) {
                break false;
            }
        };
        let parked = state.parked.len() > parked_before;
        drop(state);
        if !more {
            self.descriptors.sleep();
        }
        if parked {
            self.wake_waiter(Sender::Process(env), atoms::ready());
        }
        consume_timeslice(Sender::Process(env), terms.len());
        Drained { terms, more }
    }

    fn next(&self, state: &mut Drain) -> Option<Event> {
        let overdue = state.overdue.pop_front();
        overdue.or_else(|| self.queue.pop(&mut state.batch))
    }

    /// Gives an event to its handler, or parks it.
    fn route<'a>(&self, env: Env<'a>, state: &mut Drain, event: Event, terms: &mut TermList<'a>) {
        let callback_id = payload::current_callback_id(&event);
        if !self.handlers.contains(callback_id) {
            state.parked.push_back(event);
            return;
        }
        let Some(id) = payload::taken(&event, Consumer::Reader) else {
            return self.queue.release(1);
        };
        match self.handlers.message(env, id, event) {
            Ok((message, place)) => {
                terms.push(message);
                if let Some(place) = place {
                    state.places.entry(id).or_default().push_back(place);
                }
            }
            // A descriptor got another callback id just now, which has no handler.
            Err(event) if payload::put_back(&event) => state.parked.push_back(event),
            Err(_) => self.queue.release(1),
        }
    }

    /// Takes events out of the queue.
    fn take<'a>(
        &self,
        env: Env<'a>,
        state: &mut Drain,
        allowance: &mut Allowance,
        consumer: Consumer,
        terms: &mut TermList<'a>,
    ) {
        let mut taken = 0;
        while !allowance.is_used_up()
            && let Some(events) = self.queue.front(&mut state.batch)
        {
            let count = events.len().min(allowance.portion());
            let events = events.drain(..count);
            taken += deliver(env, events, &mut state.reported, allowance, consumer, terms);
        }
        self.queue.release(taken);
    }

    /// Takes events that the loop's process parked.
    fn take_parked<'a>(
        &self,
        env: Env<'a>,
        state: &mut Drain,
        allowance: &mut Allowance,
        terms: &mut TermList<'a>,
    ) {
        let mut taken = 0;
        while !allowance.is_used_up() && !state.parked.is_empty() {
            let Drain {
                parked, reported, ..
            } = &mut *state;
            let events = parked.drain().take(allowance.portion());
            taken += deliver(env, events, reported, allowance, Consumer::Poller, terms);
        }
        self.queue.release(taken);
    }

    /// Room for what a call will probably take.
    fn term_list<'a>(&self, env: Env<'a>, max: usize) -> TermList<'a> {
        let waiting = usize::try_from(self.queue.len()).unwrap_or(usize::MAX);
        TermList::with_capacity(env, waiting.min(max).min(DEFAULT_MAX))
    }

    /// The consumer came back: of what it was told of, a portion is reported again if it is still ready,
    /// and armed if not. One poll(2) without waiting asks for all of it that may be ready.
    fn recheck(
        &self,
        sender: Sender,
        state: &mut Drain,
        allowance: &mut Allowance,
        consumer: Consumer,
    ) {
        let count = state.returned.min(RECHECK_PORTION);
        state.returned -= count;
        let mut unsure = Vec::new();
        for (watch, direction) in state.reported.drain(..count) {
            let came_back = watch.with(direction, |state| {
                state.unlist();
                state.come_back_of(consumer)
            });
            match came_back {
                ComeBack::Nothing => {}
                ComeBack::Arm => watch.arm(sender, direction),
                ComeBack::Check => unsure.push((watch, direction)),
            }
        }
        if unsure.is_empty() {
            return;
        }
        for ((watch, direction), ready) in ask(unsure) {
            if !watch.with(direction, |state| state.checked(ready)) {
                watch.arm(sender, direction);
                continue;
            }
            let event = watch.event(direction);
            if !self.handlers.are_any() {
                // This is the consumer's own call: it needs no wake.
                let _ = self.queue.push_admitted(event);
            } else if self.handlers.contains(event.callback_id) {
                // The watch got another callback id meanwhile.
                self.push_readiness(sender, event);
            } else {
                self.queue.admit(1);
                state.parked.push_back(event);
            }
        }
        if state.returned > 0 {
            allowance.look_at_clock();
        }
    }
}

/// Encodes events for their consumer; those of descriptors only if their watch still stands. Returns how
/// many it took.
fn deliver<'a>(
    env: Env<'a>,
    events: impl Iterator<Item = Event>,
    reported: &mut VecDeque<Reported>,
    allowance: &mut Allowance,
    consumer: Consumer,
    terms: &mut TermList<'a>,
) -> usize {
    let mut count = 0;
    for event in events {
        count += 1;
        let kind = event.kind;
        let (id, data) = match event.payload {
            Payload::Readiness {
                watch,
                direction,
                generation,
            } => {
                let Some((id, is_new)) = watch.take_listed(direction, generation, consumer) else {
                    continue;
                };
                if is_new {
                    reported.push_back((watch, direction));
                }
                (id, atoms::undefined().encode(env))
            }
            payload => (event.callback_id, payload.into_term(env)),
        };
        terms.push((id, atoms::event_type(kind), data).encode(env));
    }
    allowance.count(count);
    count
}

type Reported = (Arc<Watch>, Direction);

/// Asks the kernel which of these are ready now.
fn ask(unsure: Vec<Reported>) -> Vec<(Reported, bool)> {
    let files: Vec<Option<Arc<OwnedFd>>> = unsure
        .iter()
        .map(|(watch, _)| watch.fd.upgrade().and_then(|fd| fd.file()))
        .collect();
    let mut fds: Vec<PollFd> = files
        .iter()
        .zip(&unsure)
        .filter_map(|(file, (_, direction))| {
            let file = file.as_ref()?.as_fd();
            Some(PollFd::from_borrowed_fd(file, direction.poll_flags()))
        })
        .collect();
    let failed = transfer::poll_now(&mut fds).is_err();
    let mut answers = fds.iter().map(|fd| failed || !fd.revents().is_empty());
    let ready: Vec<bool> = files
        .iter()
        .map(|file| file.is_some() && answers.next().unwrap_or(false))
        .collect();
    unsure.into_iter().zip(ready).collect()
}
