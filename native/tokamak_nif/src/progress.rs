// SPDX-License-Identifier: Apache-2.0
//! Progress: reports from everywhere, limited per key, to those who subscribed.
//!
//! Each interval that somebody asked for has a channel: a limiter and its subscribers. The channel of
//! the configured interval is always there. Values that are held back are shown by the timer thread; a
//! channel without any has no timer.

use crate::atoms;
use crate::entry;
use crate::library::{services, with_services};
use parking_lot::{Mutex, RwLock};
use rustix::time::{ClockId, clock_gettime};
use rustler::sys::{ErlNifEnv, ErlNifTerm};
use rustler::{Encoder, Env, LocalPid, Resource, ResourceArc, Term};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokamak::environment::{SavedTerm, Sender, TermKey, TermView};
use tokamak::list::List;
use tokamak::owners::{self, Possession, PossessionKey};
use tokamak_core::limiter::{DEFAULT_IDLE_TIMEOUT, RateLimiter, Status, Update};
use tokamak_core::timers::{Fired, TimerSet, TimerSink, TimerThread};
use tokamak_core::word_hasher::WordHasher;

/// Timers of a channel: the one of its [`Alarm`].
const MAX_TIMERS: usize = 1;

/// Intervals from here on may be some milliseconds shorter.
const ROUGH_ENOUGH: Duration = Duration::from_millis(100);

/// CLOCK_MONOTONIC in nanoseconds.
fn now() -> u64 {
    read(ClockId::Monotonic)
}

/// The same clock, some milliseconds late, for a fifth of the price.
fn now_roughly() -> u64 {
    #[cfg(target_os = "linux")]
    return read(ClockId::MonotonicCoarse);
    #[cfg(not(target_os = "linux"))]
    return now();
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Since the start of the machine: positive, and in 64 bits for centuries.
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

type Limiter = RateLimiter<TermKey, BuildHasherDefault<WordHasher>>;

/// All channels.
pub struct Progress {
    timers: Arc<TimerThread>,
    /// The channel of the configured interval.
    main: Arc<Channel>,
    /// Channels of other intervals, in milliseconds.
    others: RwLock<HashMap<u64, Arc<Channel>>>,
    /// There is one. Most have none, and a report looks here before it takes the lock.
    has_others: AtomicBool,
    /// Entries that were evicted: the process that logs is told.
    log: fn(u64),
}

/// An interval, and who wants to know what passes its limiter.
struct Channel {
    interval: Duration,
    limiter: Limiter,
    subscribers: RwLock<Subscribers>,
    alarm: Alarm,
    progress: Weak<Progress>,
}

/// The one timer that drives a limiter, set for the earliest of the times it was asked for.
struct Alarm {
    timers: Arc<TimerSet>,
    set: Mutex<Option<SetAlarm>>,
}

struct SetAlarm {
    /// In nanoseconds of [`now`].
    at: u64,
    reference: u64,
}

#[derive(Default)]
struct Subscribers {
    to_all: HashMap<PossessionKey, Arc<Subscriber>>,
    by_key:
        HashMap<TermKey, HashMap<PossessionKey, Arc<Subscriber>>, BuildHasherDefault<WordHasher>>,
}

struct Subscriber {
    pid: LocalPid,
    reference: SavedTerm,
}

/// What the reference of a subscription refers to. It lives as long as it stands in its channel.
pub struct SubscriptionResource {
    pid: LocalPid,
    subscription: OnceLock<Arc<Subscription>>,
}

#[rustler::resource_impl]
impl Resource for SubscriptionResource {}

/// Where a subscription stands, for its end.
struct Subscription {
    id: PossessionKey,
    key: Option<TermKey>,
    interval: u64,
    progress: Weak<Progress>,
}

impl Possession for Subscription {
    fn owner_died(&self) {
        self.end();
    }
}

impl Subscription {
    /// Once this has returned nothing is sent to the subscriber.
    fn end(&self) {
        if let Some(progress) = self.progress.upgrade() {
            progress.unsubscribe(self);
        }
    }
}

impl Alarm {
    fn new(timers: Arc<TimerSet>) -> Self {
        Self {
            timers,
            set: Mutex::new(None),
        }
    }

    /// Goes off at `at`, or earlier: a report and a flush that run at once may ask in either order.
    fn ring_at(&self, at: u64, now: u64) {
        let mut set = self.set.lock();
        if set.as_ref().is_some_and(|set| set.at <= at) {
            return;
        }
        if let Some(later) = set.take() {
            self.timers.cancel(later.reference);
        }
        let delay = Duration::from_nanos(at.saturating_sub(now));
        // Refused only by a set that is closed: there it needs no alarm any more.
        let started = self.timers.start(delay, 0).ok();
        *set = started.map(|reference| SetAlarm { at, reference });
    }

    /// To be called before what is due is looked for: a report that comes meanwhile sets it again.
    fn rang(&self, timers: &[Fired]) {
        let mut set = self.set.lock();
        set.take_if(|set| timers.iter().any(|timer| timer.reference == set.reference));
    }

    fn close(&self) {
        self.timers.close();
    }
}

impl Subscribers {
    fn remove(&mut self, id: PossessionKey, key: &TermKey) -> Option<Arc<Subscriber>> {
        let of_key = self.by_key.get_mut(key)?;
        let removed = of_key.remove(&id);
        if of_key.is_empty() {
            self.by_key.remove(key);
        }
        removed
    }

    fn is_empty(&self) -> bool {
        self.to_all.is_empty() && self.by_key.is_empty()
    }

    fn len(&self) -> usize {
        self.to_all.len() + self.by_key.values().map(HashMap::len).sum::<usize>()
    }
}

impl Progress {
    /// Channels whose timers are the thread's.
    pub fn new(timers: &Arc<TimerThread>, interval: Duration, log: fn(u64)) -> Arc<Self> {
        Arc::new_cyclic(|progress| Self {
            timers: Arc::clone(timers),
            main: Channel::new(timers, interval, progress.clone()),
            others: RwLock::new(HashMap::new()),
            has_others: AtomicBool::new(false),
            log,
        })
    }

    /// Takes a report.
    pub fn report(&self, sender: Sender, key: Term, done: u64, total: u64) {
        // Whoever subscribed before this report has stored it before.
        let has_others = self.has_others.load(Ordering::Acquire);
        let now = match !has_others && self.main.interval >= ROUGH_ENOUGH {
            true => now_roughly(),
            false => now(),
        };
        TermView::with(key, |key| {
            self.main.report(sender, key, done, total, now);
            if has_others {
                for channel in self.others.read().values() {
                    channel.report(sender, key, done, total, now);
                }
            }
        });
    }

    fn subscribe(self: &Arc<Self>, subscription: &Subscription, subscriber: Subscriber) {
        let Subscription {
            id, key, interval, ..
        } = subscription;
        if *interval == 0 {
            self.main.subscribe(*id, key.clone(), subscriber);
            return;
        }
        let mut others = self.others.write();
        let make = || {
            let duration = Duration::from_millis(*interval);
            Channel::new(&self.timers, duration, Arc::downgrade(self))
        };
        let channel = others.entry(*interval).or_insert_with(make);
        channel.subscribe(*id, key.clone(), subscriber);
        self.has_others.store(true, Ordering::Release);
    }

    /// A channel that nobody listens to any more goes, unless it is the main one.
    fn unsubscribe(&self, subscription: &Subscription) {
        let Subscription {
            id, key, interval, ..
        } = subscription;
        if *interval == 0 {
            self.main.unsubscribe(*id, key.as_ref());
            return;
        }
        let mut others = self.others.write();
        let is_left = others
            .get(interval)
            .is_some_and(|channel| channel.unsubscribe(*id, key.as_ref()));
        if is_left && let Some(channel) = others.remove(interval) {
            channel.alarm.close();
            self.has_others.store(!others.is_empty(), Ordering::Release);
        }
    }

    /// Counters of the main channel; entries and subscribers of all.
    fn stats(&self) -> (usize, u64, u64, u64, usize) {
        let main = self.main.limiter.stats();
        let others = self.others.read();
        let subscribers = |channel: &Arc<Channel>| channel.subscribers.read().len();
        let count = subscribers(&self.main) + others.values().map(subscribers).sum::<usize>();
        (
            main.entries,
            main.emitted,
            main.suppressed,
            main.evicted,
            count,
        )
    }

    /// Ends all timers and subscriptions.
    pub fn stop(&self) {
        self.main.stop();
        for (_, channel) in self.others.write().drain() {
            channel.stop();
        }
    }
}

impl Channel {
    fn new(timers: &Arc<TimerThread>, interval: Duration, progress: Weak<Progress>) -> Arc<Self> {
        Arc::new_cyclic(|channel: &Weak<Self>| Self {
            interval,
            limiter: RateLimiter::with_hasher(
                interval,
                DEFAULT_IDLE_TIMEOUT,
                now(),
                BuildHasherDefault::default(),
            ),
            subscribers: RwLock::default(),
            alarm: Alarm::new(TimerSet::new(timers, MAX_TIMERS, channel.clone())),
            progress,
        })
    }

    #[inline]
    fn report(&self, sender: Sender, key: &TermView, done: u64, total: u64, now: u64) {
        let emit = |key: &TermView, update| self.emit(sender, key, update);
        let report = self.limiter.report(key, done, total, now, emit);
        if let Some(at) = report.wake_at {
            self.alarm.ring_at(at, now);
        }
    }

    /// Sends an update to all whom it concerns. The lock keeps it from one who unsubscribes.
    fn emit(&self, sender: Sender, key: &TermView, update: Update) {
        let subscribers = self.subscribers.read();
        let of_key = subscribers.by_key.get(key);
        for subscriber in subscribers
            .to_all
            .values()
            .chain(of_key.into_iter().flat_map(HashMap::values))
        {
            sender.send(&subscriber.pid, |env| {
                let payload = (atoms::progress(), key.load(env), encode(env, update));
                (atoms::tokamak(), subscriber.reference.load(env), payload).encode(env)
            });
        }
    }

    fn subscribe(&self, id: PossessionKey, key: Option<TermKey>, subscriber: Subscriber) {
        let subscriber = Arc::new(subscriber);
        let mut subscribers = self.subscribers.write();
        match key {
            Some(key) => subscribers
                .by_key
                .entry(key)
                .or_default()
                .insert(id, subscriber),
            None => subscribers.to_all.insert(id, subscriber),
        };
    }

    /// Ends a subscription. `true`: it was the last one.
    fn unsubscribe(&self, id: PossessionKey, key: Option<&TermKey>) -> bool {
        let mut subscribers = self.subscribers.write();
        let removed = match key {
            None => subscribers.to_all.remove(&id),
            Some(key) => subscribers.remove(id, key),
        };
        let is_left = subscribers.is_empty();
        drop(subscribers);
        // It may hold the last reference to its resource: not under the lock.
        drop(removed);
        is_left
    }

    fn stop(&self) {
        self.alarm.close();
        let subscribers = std::mem::take(&mut *self.subscribers.write());
        drop(subscribers);
    }
}

impl TimerSink for Channel {
    fn fired(&self, timers: &[Fired]) {
        self.alarm.rang(timers);
        let Some(progress) = self.progress.upgrade() else {
            return;
        };
        let emit = |key: &TermKey, update| self.emit(Sender::Thread, key.view(), update);
        let flush = self.limiter.flush_due(now(), emit);
        if let Some(at) = flush.wake_at {
            self.alarm.ring_at(at, now());
        }
        if flush.evicted > 0 {
            (progress.log)(flush.evicted);
        }
    }
}

fn encode(env: Env, update: Update) -> Term {
    let status = match update.status() {
        Status::Running => atoms::running(),
        Status::Done => atoms::done(),
    };
    rustler::term_map!(env, {
        atoms::done() => update.done,
        atoms::total() => update.total,
        atoms::percent() => update.percent(),
        atoms::status() => status,
    })
}

entry::nifs! { progress_report: 3 }

/// Reports the progress of a key: `ok | badarg`.
fn progress_report<'a>(env: Env<'a>, [key, done, total]: [Term<'a>; 3]) -> Term<'a> {
    let (Ok(done), Ok(total)) = (done.decode::<u64>(), total.decode::<u64>()) else {
        return atoms::badarg().encode(env);
    };
    with_services(|services| {
        services
            .progress
            .report(Sender::Process(env), key, done, total);
    });
    atoms::ok().encode(env)
}

/// Subscribes to a key (`[Key]`) or to all (`[]`), once every so many milliseconds (0: as configured).
#[rustler::nif]
fn progress_subscribe<'a>(env: Env<'a>, List(key): List<Term<'a>>, interval: u64) -> Term<'a> {
    let Some(services) = services() else {
        return (atoms::error(), atoms::shutdown()).encode(env);
    };
    let resource = ResourceArc::new(SubscriptionResource {
        pid: env.pid(),
        subscription: OnceLock::new(),
    });
    let subscription = Arc::new(Subscription {
        id: owners::next_key(),
        key: key.first().map(|key| TermKey::save(*key)),
        interval,
        progress: Arc::downgrade(&services.progress),
    });
    let possession: Weak<Subscription> = Arc::downgrade(&subscription);
    // The subscriber lives, as this is its call.
    owners::own(env, &env.pid(), subscription.id, possession);
    let subscriber = Subscriber {
        pid: env.pid(),
        reference: SavedTerm::save(resource.encode(env)),
    };
    services.progress.subscribe(&subscription, subscriber);
    // Just made: it is empty.
    let _ = resource.subscription.set(subscription);
    resource.encode(env)
}

/// Ends a subscription: `ok | not_owner | badarg`.
#[rustler::nif]
fn progress_unsubscribe<'a>(env: Env<'a>, reference: Term<'a>) -> Term<'a> {
    let Ok(resource) = reference.decode::<ResourceArc<SubscriptionResource>>() else {
        return atoms::badarg().encode(env);
    };
    if resource.pid != env.pid() {
        return atoms::not_owner().encode(env);
    }
    if let Some(subscription) = resource.subscription.get() {
        owners::disown(&resource.pid, subscription.id);
        subscription.end();
    }
    atoms::ok().encode(env)
}

/// Counters.
#[rustler::nif]
fn progress_stats<'a>(env: Env<'a>) -> Term<'a> {
    let (keys, shown, held_back, evicted, subscribers) = services()
        .map(|services| services.progress.stats())
        .unwrap_or_default();
    rustler::term_map!(env, {
        atoms::keys() => keys,
        atoms::shown() => shown,
        atoms::held_back() => held_back,
        atoms::evicted() => evicted,
        atoms::subscribers() => subscribers,
    })
}

/// A report of an operation of this library.
pub fn report(key: Term, done: u64, total: u64) {
    with_services(|services| services.progress.report(Sender::Thread, key, done, total));
}

/// A report of another library, through the C table.
pub unsafe extern "C" fn report_from_table(
    env: *mut ErlNifEnv,
    key: ErlNifTerm,
    done: u64,
    total: u64,
) {
    let lifetime = ();
    let report = || {
        // SAFETY: the caller passes an environment that is its own, and a term of it.
        let key = unsafe { Term::new(Env::new(&lifetime, env), key) };
        report(key, done, total);
    };
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(report));
}
