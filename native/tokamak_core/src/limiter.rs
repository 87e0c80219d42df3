// SPDX-License-Identifier: Apache-2.0
//! A rate limiter for progress: per key, the first value at once, then at most one an interval, the
//! latest value never lost, completion at once.
//!
//! Pure logic: the caller brings the clock and drives it. [`report`](RateLimiter::report) says when
//! the driver has to wake up earlier than it knows, [`flush_due`](RateLimiter::flush_due) says when
//! next; with no value held back and no entry left there is no such time.
//!
//! A key's entry is in one of two states while its values are below completion:
//!
//! * quiet: nothing is held back. A report is emitted when an interval has passed since the last
//!   emission; otherwise it is held back, a flush is scheduled for the interval's end: holding;
//! * holding: reports replace the held value. The flush, or a report after the interval's end that
//!   comes before it, emits the latest value: quiet again.
//!
//! Values are emitted under the lock of the key's shard, so one key's values reach the receiver in
//! the order in which they were decided, whichever threads report and flush. The order of locks is
//! shard, then schedule.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use dashmap::{DashMap, Entry as MapEntry};
use parking_lot::Mutex;

use crate::timer_wheel::{TimerKey, TimerWheel};

/// How often a key is shown unless told otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);

/// When an entry that nobody touches is evicted unless told otherwise.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_mins(10);

/// Whether more is to come for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Below its total.
    Running,
    /// At or above its total; the key's entry is gone.
    Done,
}

/// A value that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Units finished.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// Reports of this key held back since the update before this one; all but the last of them
    /// were replaced.
    pub held_back: u64,
}

impl Update {
    /// Done once everything is: `done` at `total` or above, so also for a total of zero.
    #[must_use]
    pub const fn status(&self) -> Status {
        if self.done >= self.total {
            Status::Done
        } else {
            Status::Running
        }
    }

    /// Hundredths finished, rounded down: 100 exactly when the status is [`Status::Done`].
    #[must_use]
    pub const fn percent(&self) -> u8 {
        match self.status() {
            Status::Done => 100,
            Status::Running => (self.done as u128 * 100 / self.total as u128) as u8,
        }
    }
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the value was emitted before `report` returned.
    pub emitted: bool,
    /// The time (ns) at which the driver now has to call [`RateLimiter::flush_due`], where that is
    /// earlier than what it was told before.
    pub wake_at: Option<u64>,
}

/// What became of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// How many entries were evicted because nobody touched them.
    pub evicted: u64,
    /// The time (ns) of the next flush; `None`: not before a report asks for one.
    pub wake_at: Option<u64>,
}

/// Counters since the limiter was made, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Keys that have an entry.
    pub entries: usize,
    /// Values shown.
    pub emitted: u64,
    /// Reports held back; a key's are counted when its next value is shown.
    pub suppressed: u64,
    /// Entries that nobody touched.
    pub evicted: u64,
}

/// A key's state between its first value and its completion.
struct Entry {
    done: u64,
    total: u64,
    emitted_ns: u64,
    touched_ns: u64,
    held_back: u64,
    /// Set while a value is held back.
    flush: Option<TimerKey>,
}

enum Due<K> {
    Flush(K),
    Sweep,
}

struct Schedule<K> {
    wheel: TimerWheel<Due<K>>,
    sweep_is_set: bool,
    /// When the driver will come; `u64::MAX`: when it is told.
    told_ns: u64,
}

impl<K> Schedule<K> {
    /// Sets a timer; gives its time where the driver has to be told.
    fn set(&mut self, deadline_ns: u64, due: Due<K>) -> (TimerKey, Option<u64>) {
        let timer = self.wheel.insert(deadline_ns, due);
        let next = self
            .wheel
            .next_deadline()
            .filter(|next| *next < self.told_ns);
        self.told_ns = next.unwrap_or(self.told_ns);
        (timer, next)
    }
}

/// A rate limiter of progress values per key; see the [module](self).
pub struct RateLimiter<K, S = RandomState> {
    interval_ns: u64,
    idle_ns: u64,
    entries: DashMap<K, Entry, S>,
    schedule: Mutex<Schedule<K>>,
    emitted: AtomicU64,
    suppressed: AtomicU64,
    evicted: AtomicU64,
}

impl<K: Hash + Eq + Clone> RateLimiter<K> {
    /// A limiter that shows a key once per `interval` and evicts entries that nobody touched for
    /// `idle_timeout` (up to a tenth later). `now_ns` is the caller's monotonic clock.
    #[must_use]
    pub fn new(interval: Duration, idle_timeout: Duration, now_ns: u64) -> Self {
        Self::with_hasher(interval, idle_timeout, now_ns, RandomState::new())
    }
}

impl<K: Hash + Eq + Clone, S: BuildHasher + Clone> RateLimiter<K, S> {
    /// Like [`new`](RateLimiter::new), with a hasher of the caller's choice.
    #[must_use]
    pub fn with_hasher(interval: Duration, idle_timeout: Duration, now_ns: u64, hasher: S) -> Self {
        Self {
            interval_ns: nanoseconds(interval),
            idle_ns: nanoseconds(idle_timeout),
            entries: DashMap::with_hasher(hasher),
            schedule: Mutex::new(Schedule {
                wheel: TimerWheel::new(now_ns),
                sweep_is_set: false,
                told_ns: u64::MAX,
            }),
            emitted: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// Takes a new value for a key at `now_ns`; calls `emit` at most once, before it returns.
    ///
    /// `emit` runs under a lock: it must be short and must not call this limiter. Clocks that differ
    /// a little between threads do no harm.
    pub fn report<Q>(
        &self,
        key: &Q,
        done: u64,
        total: u64,
        now_ns: u64,
        emit: impl FnOnce(&Q, Update),
    ) -> Report
    where
        Q: Hash + Eq + ToOwned + ?Sized,
        K: Borrow<Q> + From<Q::Owned>,
    {
        let complete = done >= total;
        if !complete && let Some(mut entry) = self.entries.get_mut(key) {
            return self.report_running(key, &mut entry, (done, total), now_ns, emit);
        }
        match self.entries.entry(K::from(key.to_owned())) {
            MapEntry::Occupied(mut entry) if !complete => {
                self.report_running(key, entry.get_mut(), (done, total), now_ns, emit)
            }
            MapEntry::Occupied(mut entry) => {
                self.cancel_flush(key, entry.get_mut());
                self.emit(key, entry.get_mut(), (done, total), now_ns, emit);
                entry.remove();
                Report {
                    emitted: true,
                    wake_at: None,
                }
            }
            MapEntry::Vacant(place) => {
                let mut entry = Entry::new(now_ns);
                self.emit(key, &mut entry, (done, total), now_ns, emit);
                let wake_at = if complete {
                    None
                } else {
                    place.insert(entry);
                    self.schedule_sweep(now_ns)
                };
                Report {
                    emitted: true,
                    wake_at,
                }
            }
        }
    }

    /// Emits every value whose interval has ended by `now_ns`, and evicts entries that nobody touches.
    /// To be called at the times that `report` and this function tell; any other time is harmless.
    ///
    /// `emit` runs under a lock: it must be short and must not call this limiter.
    pub fn flush_due(&self, now_ns: u64, mut emit: impl FnMut(&K, Update)) -> Flush {
        let mut due = Vec::new();
        self.schedule.lock().wheel.advance(now_ns, &mut due);
        let mut evicted = 0;
        for item in due {
            match item {
                Due::Flush(key) => self.flush(&key, now_ns, &mut emit),
                Due::Sweep => evicted += self.sweep(now_ns),
            }
        }
        let mut schedule = self.schedule.lock();
        let wake_at = schedule.wheel.next_deadline();
        schedule.told_ns = wake_at.unwrap_or(u64::MAX);
        Flush { evicted, wake_at }
    }

    /// Counters and size.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            entries: self.entries.len(),
            emitted: self.emitted.load(Relaxed),
            suppressed: self.suppressed.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
        }
    }

    /// The path of a suppressed report: one lookup under the shard's lock, plain stores.
    #[inline]
    fn report_running<Q>(
        &self,
        key: &Q,
        entry: &mut Entry,
        value: (u64, u64),
        now_ns: u64,
        emit: impl FnOnce(&Q, Update),
    ) -> Report
    where
        Q: Hash + Eq + ToOwned + ?Sized,
        K: Borrow<Q> + From<Q::Owned>,
    {
        if now_ns.saturating_sub(entry.emitted_ns) >= self.interval_ns {
            self.cancel_flush(key, entry);
            self.emit(key, entry, value, now_ns, emit);
            return Report {
                emitted: true,
                wake_at: None,
            };
        }
        (entry.done, entry.total) = value;
        entry.touched_ns = now_ns;
        entry.held_back += 1;
        let wake_at = match entry.flush {
            Some(_) => None,
            None => self.schedule_flush(K::from(key.to_owned()), entry),
        };
        Report {
            emitted: false,
            wake_at,
        }
    }

    fn emit<Q: ?Sized>(
        &self,
        key: &Q,
        entry: &mut Entry,
        (done, total): (u64, u64),
        now_ns: u64,
        emit: impl FnOnce(&Q, Update),
    ) {
        let held_back = mem::take(&mut entry.held_back);
        entry.emitted_ns = now_ns;
        entry.touched_ns = now_ns;
        self.emitted.fetch_add(1, Relaxed);
        self.suppressed.fetch_add(held_back, Relaxed);
        emit(
            key,
            Update {
                done,
                total,
                held_back,
            },
        );
    }

    fn flush(&self, key: &K, now_ns: u64, emit: impl FnOnce(&K, Update)) {
        let Some(mut entry) = self.entries.get_mut(key) else {
            return;
        };
        // The flush that came due may have been for a value that a report emitted meanwhile.
        let interval_is_over = now_ns.saturating_sub(entry.emitted_ns) >= self.interval_ns;
        if interval_is_over && entry.flush.take().is_some() {
            let value = (entry.done, entry.total);
            self.emit(key, &mut entry, value, now_ns, emit);
        }
    }

    fn schedule_flush(&self, key: K, entry: &mut Entry) -> Option<u64> {
        let end = entry.emitted_ns.saturating_add(self.interval_ns);
        let (timer, wake_at) = self.schedule.lock().set(end, Due::Flush(key));
        entry.flush = Some(timer);
        wake_at
    }

    fn cancel_flush<Q: Eq + ?Sized>(&self, key: &Q, entry: &mut Entry)
    where
        K: Borrow<Q>,
    {
        let Some(timer) = entry.flush.take() else {
            return;
        };
        let wheel = &mut self.schedule.lock().wheel;
        // A flush that just came due is out of the wheel, and its timer's key may be another's.
        if matches!(wheel.get(timer), Some((Due::Flush(owner), _)) if owner.borrow() == key) {
            wheel.remove(timer);
        }
    }

    /// One timer for the idle entries of all keys.
    fn schedule_sweep(&self, now_ns: u64) -> Option<u64> {
        let mut schedule = self.schedule.lock();
        if mem::replace(&mut schedule.sweep_is_set, true) {
            return None;
        }
        schedule
            .set(now_ns.saturating_add(self.idle_ns), Due::Sweep)
            .1
    }

    fn sweep(&self, now_ns: u64) -> u64 {
        self.schedule.lock().sweep_is_set = false;
        let mut evicted = 0;
        let mut oldest_ns = None::<u64>;
        self.entries.retain(|_, entry| {
            let held = entry.flush.is_some();
            if !held && now_ns.saturating_sub(entry.touched_ns) >= self.idle_ns {
                evicted += 1;
                return false;
            }
            oldest_ns =
                Some(oldest_ns.map_or(entry.touched_ns, |oldest| oldest.min(entry.touched_ns)));
            true
        });
        self.evicted.fetch_add(evicted, Relaxed);
        if let Some(oldest_ns) = oldest_ns {
            // Not for each entry a sweep of its own.
            self.schedule_sweep(oldest_ns.max(now_ns.saturating_sub(self.idle_ns / 10 * 9)));
        }
        evicted
    }
}

impl Entry {
    const fn new(now_ns: u64) -> Self {
        Self {
            done: 0,
            total: 0,
            emitted_ns: now_ns,
            touched_ns: now_ns,
            held_back: 0,
            flush: None,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
