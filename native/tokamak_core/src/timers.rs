// SPDX-License-Identifier: Apache-2.0
//! Timers: a wheel for each event loop and one thread that advances the wheels that are due.
//!
//! The thread sleeps until the earliest deadline of all wheels, and for ever when there is none. The
//! order of locks is wheel, then agenda.

use crate::timer_wheel::{MAX_TIMERS, TimerKey, TimerWheel};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Bits of a timer reference that hold the wheel's key; the rest tells uses of a key apart.
const KEY_BITS: u32 = MAX_TIMERS.trailing_zeros();
/// Bits of the part that tells uses apart: 2^35 timers pass before a reference could come again.
const SEQUENCE_BITS: u32 = 35;

/// The time of a visit that is not wanted.
const NEVER: u64 = u64::MAX;

/// One counter for the timers of all sets, so that no two sets ever give the same reference.
static SEQUENCE: AtomicU64 = AtomicU64::new(1);

/// A monotonic clock in nanoseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that reads 0 now.
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Nanoseconds since the clock was made (CLOCK_MONOTONIC).
    pub fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// A timer: set in a wheel, or fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The callback id it was started for.
    pub callback_id: u64,
    /// The reference that starting it gave.
    pub reference: u64,
}

/// Where a set's fired timers go. Called on the timer thread, with no lock held.
pub trait TimerSink: Send + Sync {
    /// Takes timers that fired, in the order of their deadlines.
    fn fired(&self, timers: &[Fired]);
}

struct Wheel {
    timers: TimerWheel<Fired>,
    /// When the timer thread will come by itself, or [`NEVER`].
    visit: u64,
}

/// The timers of one event loop.
pub struct TimerSet {
    wheel: Mutex<Wheel>,
    limit: usize,
    closed: AtomicBool,
    sink: Weak<dyn TimerSink>,
    thread: Arc<TimerThread>,
    this: Weak<TimerSet>,
}

/// Why a timer was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// The set holds as many timers as it may.
    Overloaded,
    /// The set is closed.
    Closed,
}

impl TimerSet {
    /// A set of at most `limit` timers (capped at [`MAX_TIMERS`]) whose fired timers go to `sink`.
    pub fn new(thread: &Arc<TimerThread>, limit: usize, sink: Weak<dyn TimerSink>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            wheel: Mutex::new(Wheel {
                timers: TimerWheel::new(thread.clock.now()),
                visit: NEVER,
            }),
            limit: limit.min(MAX_TIMERS),
            closed: AtomicBool::new(false),
            sink,
            thread: Arc::clone(thread),
            this: this.clone(),
        })
    }

    /// Starts a timer that fires `delay` from now, never earlier, and returns its reference.
    ///
    /// # Errors
    /// [`NotStarted`], when the set is full or closed.
    pub fn start(&self, delay: Duration, callback_id: u64) -> Result<u64, NotStarted> {
        let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        let deadline = self.thread.clock.now().saturating_add(delay);
        let mut wheel = self.wheel.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(NotStarted::Closed);
        }
        if wheel.timers.len() >= self.limit {
            return Err(NotStarted::Overloaded);
        }
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed) & ((1 << SEQUENCE_BITS) - 1);
        let key = wheel.timers.insert_with(deadline, |key| Fired {
            callback_id,
            reference: reference(sequence, key),
        });
        let next = wheel.next_visit();
        if next < wheel.visit {
            self.agree(&mut wheel, next);
        }
        Ok(reference(sequence, key))
    }

    /// Cancels a timer: the time that was left, or `None` when it fired, was cancelled or never
    /// was. After `Some`, its event does not come.
    pub fn cancel(&self, timer_reference: u64) -> Option<Duration> {
        let key = key_of(timer_reference);
        let mut wheel = self.wheel.lock();
        match wheel.timers.get(key) {
            Some((timer, _)) if timer.reference == timer_reference => {}
            _ => return None,
        }
        let (_, deadline) = wheel.timers.remove(key)?;
        drop(wheel);
        let left = deadline.saturating_sub(self.thread.clock.now());
        Some(Duration::from_nanos(left))
    }

    /// Timers that are set.
    pub fn len(&self) -> usize {
        self.wheel.lock().timers.len()
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all timers and starts no more.
    pub fn close(&self) {
        let mut wheel = self.wheel.lock();
        self.closed.store(true, Ordering::Relaxed);
        wheel.timers = TimerWheel::new(self.thread.clock.now());
        self.agree(&mut wheel, NEVER);
    }

    /// Fires what is due at `now` and has the thread come again for the next.
    fn advance(&self, now: u64, fired: &mut Vec<Fired>) {
        let mut wheel = self.wheel.lock();
        wheel.timers.advance(now, fired);
        let next = wheel.next_visit();
        self.agree(&mut wheel, next);
        drop(wheel);
        if !fired.is_empty()
            && let Some(sink) = self.sink.upgrade()
        {
            sink.fired(fired);
        }
        fired.clear();
    }

    /// Puts the one visit that the thread owes to this set at another time. Under the lock of the
    /// wheel, so that the visits that two threads agree on do not both stay in the agenda.
    fn agree(&self, wheel: &mut Wheel, at: u64) {
        let before = mem::replace(&mut wheel.visit, at);
        if (before, at) != (NEVER, NEVER) {
            self.thread.move_visit(&self.this, before, at);
        }
    }
}

impl Drop for TimerSet {
    /// A visit that stayed in the agenda would keep the memory of the set until its time.
    fn drop(&mut self) {
        self.close();
    }
}

impl Wheel {
    /// When the timers that are set now need the thread.
    fn next_visit(&self) -> u64 {
        self.timers.next_deadline().unwrap_or(NEVER)
    }
}

/// The reference of a timer: tells its key, and the use of the key.
fn reference(sequence: u64, key: TimerKey) -> u64 {
    (sequence << KEY_BITS) | u64::from(key.index())
}

fn key_of(reference: u64) -> TimerKey {
    TimerKey::from_index((reference & ((1 << KEY_BITS) - 1)) as u32)
}

/// When a set is visited, and the set's address, which tells sets visited at the same time apart.
type VisitKey = (u64, usize);

struct Agenda {
    /// At most one of each set.
    visits: BTreeMap<VisitKey, Weak<TimerSet>>,
    /// Until when the thread sleeps; 0 while it is at work.
    sleeps_until: u64,
    stopped: bool,
}

/// The thread that advances the wheels of all sets, until it is stopped.
pub struct TimerThread {
    clock: Clock,
    agenda: Mutex<Agenda>,
    changed: Condvar,
}

impl TimerThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system's, when it cannot make a thread.
    pub fn start(name: &str) -> std::io::Result<Arc<Self>> {
        let this = Arc::new(Self {
            clock: Clock::new(),
            agenda: Mutex::new(Agenda {
                visits: BTreeMap::new(),
                sleeps_until: 0,
                stopped: false,
            }),
            changed: Condvar::new(),
        });
        let thread = Arc::clone(&this);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || thread.run())?;
        Ok(this)
    }

    /// Ends the thread; sets that still hold timers do not fire them.
    pub fn stop(&self) {
        self.agenda.lock().stopped = true;
        self.changed.notify_one();
    }

    fn move_visit(&self, set: &Weak<TimerSet>, from: u64, to: u64) {
        let address = set.as_ptr().addr();
        let mut agenda = self.agenda.lock();
        agenda.visits.remove(&(from, address));
        if to != NEVER {
            agenda.visits.insert((to, address), set.clone());
        }
        let wake = to < agenda.sleeps_until;
        drop(agenda);
        if wake {
            self.changed.notify_one();
        }
    }

    fn run(&self) {
        let mut fired = Vec::new();
        while let Some(set) = self.wait_for_due() {
            if let Some(set) = set.upgrade() {
                set.advance(self.clock.now(), &mut fired);
            }
        }
    }

    /// Waits for the next visit that is due; `None` when the thread has to end.
    fn wait_for_due(&self) -> Option<Weak<TimerSet>> {
        let mut agenda = self.agenda.lock();
        loop {
            if agenda.stopped {
                return None;
            }
            let Some(next) = agenda.visits.first_entry() else {
                agenda.sleeps_until = NEVER;
                self.changed.wait(&mut agenda);
                continue;
            };
            let at = next.key().0;
            let now = self.clock.now();
            if at <= now {
                let set = next.remove();
                agenda.sleeps_until = 0;
                return Some(set);
            }
            agenda.sleeps_until = at;
            let left = Duration::from_nanos(at - now);
            self.changed.wait_for(&mut agenda, left);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Channel(Mutex<mpsc::Sender<(Fired, Instant)>>);

    impl TimerSink for Channel {
        fn fired(&self, timers: &[Fired]) {
            let now = Instant::now();
            let sender = self.0.lock();
            for timer in timers {
                sender.send((*timer, now)).expect("the test listens");
            }
        }
    }

    type Fires = mpsc::Receiver<(Fired, Instant)>;

    fn set(limit: usize) -> (Arc<TimerSet>, Fires, Arc<Channel>) {
        let (sender, receiver) = mpsc::channel();
        let channel = Arc::new(Channel(Mutex::new(sender)));
        let sink: Weak<Channel> = Arc::downgrade(&channel);
        let thread = TimerThread::start("timers").expect("a thread can be made");
        (TimerSet::new(&thread, limit, sink), receiver, channel)
    }

    #[test]
    fn a_timer_fires_once_and_not_early() {
        let (set, fires, _channel) = set(10);
        let start = Instant::now();
        let timer = set.start(Duration::from_millis(5), 7).expect("not full");
        let (fired, at) = fires
            .recv_timeout(Duration::from_secs(10))
            .expect("it fires");
        assert_eq!((fired.callback_id, fired.reference), (7, timer));
        assert!(at - start >= Duration::from_millis(5));
        assert_eq!(set.cancel(timer), None);
        assert!(set.is_empty());
    }

    #[test]
    fn an_earlier_timer_wakes_the_thread_that_sleeps_for_a_later_one() {
        let (set, fires, _channel) = set(10);
        let late = set.start(Duration::from_secs(3600), 1).expect("not full");
        let early = set.start(Duration::from_millis(1), 2).expect("not full");
        let (fired, _) = fires
            .recv_timeout(Duration::from_secs(10))
            .expect("the early one fires");
        assert_eq!(fired.reference, early);
        let left = set.cancel(late).expect("the late one is still set");
        assert!(left > Duration::from_secs(3500) && left < Duration::from_secs(3600));
    }

    #[test]
    fn a_cancelled_timer_does_not_fire_and_its_reference_does_not_stand_for_the_next() {
        let (set, fires, _channel) = set(10);
        let first = set.start(Duration::from_secs(60), 1).expect("not full");
        assert!(set.cancel(first).is_some());
        let second = set.start(Duration::from_millis(1), 2).expect("not full");
        assert_eq!(set.cancel(first), None);
        let (fired, _) = fires
            .recv_timeout(Duration::from_secs(10))
            .expect("the second fires");
        assert_eq!(fired.reference, second);
        assert!(fires.try_recv().is_err());
    }

    #[test]
    fn a_full_set_refuses_and_a_closed_one_too() {
        let (set, _fires, _channel) = set(1);
        assert!(set.start(Duration::from_secs(60), 1).is_ok());
        assert_eq!(set.start(Duration::ZERO, 1), Err(NotStarted::Overloaded));
        set.close();
        assert_eq!(set.start(Duration::ZERO, 1), Err(NotStarted::Closed));
    }

    fn visits(set: &TimerSet) -> usize {
        set.thread.agenda.lock().visits.len()
    }

    #[test]
    fn a_set_that_is_closed_or_gone_leaves_nothing_in_the_agenda() {
        let (set, _fires, channel) = set(1);
        let sink: Weak<Channel> = Arc::downgrade(&channel);
        let day = Duration::from_secs(86_400);
        for number in 0..1000 {
            let short_lived = TimerSet::new(&set.thread, 1, sink.clone());
            assert!(short_lived.start(day, number).is_ok());
            assert_eq!(visits(&set), 1);
            if number % 2 == 0 {
                short_lived.close();
                assert_eq!(visits(&set), 0);
            }
        }
        assert_eq!(visits(&set), 0);
    }

    #[test]
    fn a_set_has_one_visit_in_the_agenda_however_many_timers_it_had() {
        let (set, fires, _channel) = set(1000);
        for hours in (1..=100).rev() {
            let delay = Duration::from_secs(hours * 3600);
            assert!(set.start(delay, hours).is_ok());
        }
        for round in 0..100 {
            assert!(set.start(Duration::from_micros(100), round).is_ok());
            let fired = fires.recv_timeout(Duration::from_secs(10));
            assert_eq!(fired.expect("it fires").0.callback_id, round);
        }
        assert_eq!(set.len(), 100);
        assert_eq!(visits(&set), 1);
    }

    #[test]
    fn two_sets_of_one_thread_fire_their_own_timers() {
        let (first, first_fires, _first_channel) = set(10);
        let (sender, second_fires) = mpsc::channel();
        let channel = Arc::new(Channel(Mutex::new(sender)));
        let sink: Weak<Channel> = Arc::downgrade(&channel);
        let second = TimerSet::new(&first.thread, 10, sink);
        let b = second.start(Duration::from_millis(2), 2).expect("not full");
        let a = first.start(Duration::from_millis(1), 1).expect("not full");
        assert_eq!(first.cancel(b), None, "a reference belongs to one set");
        let wait = Duration::from_secs(10);
        assert_eq!(
            first_fires.recv_timeout(wait).expect("fires").0.reference,
            a
        );
        assert_eq!(
            second_fires.recv_timeout(wait).expect("fires").0.reference,
            b
        );
    }
}
