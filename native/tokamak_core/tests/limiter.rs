// SPDX-License-Identifier: Apache-2.0
//! The rate limiter under a simulated clock, then under real threads.
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokamak_core::limiter::{
    DEFAULT_IDLE_TIMEOUT, DEFAULT_INTERVAL, RateLimiter, Report, Status, Update,
};
use tokamak_core::timer_wheel::TICK_SHIFT;

const MS: u64 = 1_000_000;
const INTERVAL: u64 = 100 * MS;
const IDLE: u64 = 600_000 * MS;
/// How much later than asked a wheel's timer may come due.
const TICK: u64 = 1 << TICK_SHIFT;

/// A limiter, its clock, and a driver that wakes when it was told to.
struct Simulation {
    limiter: RateLimiter<String>,
    now: u64,
    wake_at: Option<u64>,
    wakes: usize,
    shown: Vec<(u64, String, Update)>,
}

impl Simulation {
    fn new() -> Self {
        Self {
            limiter: RateLimiter::new(DEFAULT_INTERVAL, DEFAULT_IDLE_TIMEOUT, 0),
            now: 0,
            wake_at: None,
            wakes: 0,
            shown: Vec::new(),
        }
    }

    fn report(&mut self, key: &str, done: u64, total: u64) -> Report {
        let Self {
            limiter,
            now,
            shown,
            ..
        } = self;
        let report = limiter.report(key, done, total, *now, |key, update| {
            shown.push((*now, key.to_owned(), update));
        });
        if let Some(wake_at) = report.wake_at {
            assert!(self.wake_at.is_none_or(|known| wake_at < known));
            self.wake_at = Some(wake_at);
        }
        report
    }

    /// Lets time pass; the driver wakes `lateness` after the times it was told.
    fn pass(&mut self, by_ns: u64, lateness: u64) {
        let end = self.now + by_ns;
        while let Some(wake_at) = self.wake_at.filter(|at| at.saturating_add(lateness) <= end) {
            self.now = self.now.max(wake_at + lateness);
            self.flush();
        }
        self.now = end;
    }

    fn flush(&mut self) {
        let Self {
            limiter,
            now,
            shown,
            ..
        } = self;
        let flush = limiter.flush_due(*now, |key, update| {
            shown.push((*now, key.clone(), update));
        });
        self.wake_at = flush.wake_at;
        self.wakes += 1;
    }

    fn values(&self) -> Vec<u64> {
        self.shown
            .iter()
            .map(|(_, _, update)| update.done)
            .collect()
    }
}

#[test]
fn the_first_value_is_shown_at_once() {
    let mut simulation = Simulation::new();
    assert!(simulation.report("key", 1, 10).emitted);
    assert_eq!(simulation.values(), [1]);
}

#[test]
fn the_latest_value_is_shown_at_the_end_of_the_interval() {
    let mut simulation = Simulation::new();
    simulation.report("key", 1, 100);
    simulation.pass(30 * MS, 0);
    for done in 2..50 {
        assert!(!simulation.report("key", done, 100).emitted);
    }
    simulation.pass(70 * MS - 1, 0);
    assert_eq!(simulation.values(), [1]);
    simulation.pass(1 + TICK, 0);
    assert_eq!(simulation.values(), [1, 49]);
    assert_eq!(simulation.shown[1].2.held_back, 48);
    assert_eq!(simulation.limiter.stats().suppressed, 48);
}

#[test]
fn a_value_after_a_quiet_interval_is_shown_at_once() {
    let mut simulation = Simulation::new();
    simulation.report("key", 1, 10);
    simulation.pass(INTERVAL, 0);
    assert!(simulation.report("key", 2, 10).emitted);
}

#[test]
fn a_report_after_the_interval_takes_the_place_of_a_late_flush() {
    let mut simulation = Simulation::new();
    simulation.report("key", 1, 10);
    simulation.report("key", 2, 10);
    simulation.now += 2 * INTERVAL;
    assert!(simulation.report("key", 3, 10).emitted);
    simulation.flush();
    assert_eq!(simulation.values(), [1, 3]);
}

#[test]
fn completion_is_shown_at_once_and_frees_the_entry() {
    let mut simulation = Simulation::new();
    simulation.report("key", 1, 10);
    simulation.report("key", 9, 10);
    assert!(simulation.report("key", 10, 10).emitted);
    assert_eq!(simulation.limiter.stats().entries, 0);
    simulation.pass(2 * INTERVAL, 0);
    assert_eq!(simulation.values(), [1, 10]);
    assert_eq!(simulation.shown[1].2.status(), Status::Done);
}

#[test]
fn a_key_that_starts_with_its_completion_leaves_no_entry_and_no_timer() {
    let mut simulation = Simulation::new();
    let report = simulation.report("key", 10, 10);
    assert_eq!(
        report,
        Report {
            emitted: true,
            wake_at: None
        }
    );
    assert_eq!(simulation.limiter.stats().entries, 0);
}

#[test]
fn nothing_held_back_means_no_wake_before_the_eviction() {
    let mut simulation = Simulation::new();
    simulation.report("key", 1, 10);
    simulation.pass(INTERVAL, 0);
    simulation.report("key", 2, 10);
    simulation.pass(IDLE - INTERVAL - 1, 0);
    assert_eq!(simulation.wakes, 0);
}

#[test]
fn an_idle_entry_is_evicted_and_the_driver_then_sleeps_for_ever() {
    let mut simulation = Simulation::new();
    for key in 0..100 {
        simulation.report(&key.to_string(), 1, 10);
        simulation.pass(MS, 0);
    }
    simulation.pass(IDLE - 101 * MS, 0);
    assert_eq!(simulation.limiter.stats().entries, 100);
    simulation.pass(IDLE / 10 + 200 * MS, 0);
    let stats = simulation.limiter.stats();
    assert_eq!((stats.entries, stats.evicted), (0, 100));
    assert_eq!(simulation.wake_at, None);
    assert!(simulation.wakes <= 2, "{}", simulation.wakes);
}

#[test]
fn an_entry_that_is_touched_stays() {
    let mut simulation = Simulation::new();
    for done in 0..30 {
        simulation.report("key", done, 100);
        simulation.pass(IDLE / 3, 0);
    }
    assert_eq!(simulation.limiter.stats().entries, 1);
    assert_eq!(simulation.limiter.stats().evicted, 0);
}

#[test]
fn many_keys_share_one_timer() {
    let mut simulation = Simulation::new();
    for done in [1, 2] {
        for key in 0..1_000 {
            simulation.report(&key.to_string(), done, 10);
        }
    }
    simulation.pass(INTERVAL + TICK, 0);
    assert_eq!(simulation.wakes, 1);
    assert_eq!(simulation.shown.len(), 2_000);
}

#[test]
fn one_hundred_percent_means_done_and_done_means_one_hundred_percent() {
    for (done, total, percent) in [
        (0, 1, 0),
        (999, 1_000, 99),
        (u64::MAX - 1, u64::MAX, 99),
        (1, 1, 100),
        (5, 1, 100),
        (0, 0, 100),
    ] {
        let update = Update {
            done,
            total,
            held_back: 0,
        };
        assert_eq!(update.percent(), percent);
        assert_eq!(update.status() == Status::Done, percent == 100);
    }
}

#[derive(Clone, Debug)]
struct Step {
    key: u8,
    done: u64,
    then_pass_ns: u64,
    lateness: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let pass = prop_oneof![
        6 => 0..10 * MS,
        2 => 0..3 * INTERVAL,
        1 => 0..2 * IDLE,
    ];
    let lateness = prop_oneof![3 => Just(0), 1 => 0..2 * INTERVAL];
    (0..4_u8, 0..=50_u64, pass, lateness).prop_map(|(key, done, then_pass_ns, lateness)| Step {
        key,
        done,
        then_pass_ns,
        lateness,
    })
}

proptest! {
    #[test]
    fn every_life_of_a_key_is_shown_at_the_limited_rate_and_to_its_last_value(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        const TOTAL: u64 = 50;
        let mut simulation = Simulation::new();
        let mut last = HashMap::new();
        for step in steps {
            let key = step.key.to_string();
            simulation.report(&key, step.done, TOTAL);
            last.insert(key, step.done);
            simulation.pass(step.then_pass_ns, step.lateness);
        }
        simulation.pass(2 * INTERVAL, 0);

        for (key, done) in &last {
            let shown: Vec<_> = simulation.shown.iter().filter(|(_, of, _)| of == key).collect();
            prop_assert_eq!(shown.last().map(|(_, _, update)| update.done), Some(*done));
            for life in shown.split_inclusive(|(_, _, update)| update.status() == Status::Done) {
                let running: Vec<u64> = life
                    .iter()
                    .filter(|(_, _, update)| update.status() == Status::Running)
                    .map(|(at, _, _)| *at)
                    .collect();
                prop_assert!(running.windows(2).all(|pair| pair[1] - pair[0] >= INTERVAL));
            }
        }
        let stats = simulation.limiter.stats();
        prop_assert_eq!(stats.emitted as usize, simulation.shown.len());
        let open = last.values().filter(|done| **done < TOTAL).count();
        prop_assert!(stats.entries <= open);

        simulation.pass(3 * IDLE, 0);
        prop_assert_eq!(simulation.limiter.stats().entries, 0);
        prop_assert_eq!(simulation.wake_at, None);
    }
}

/// A driver thread as a user of the limiter would write it, and what it showed.
struct Driver {
    limiter: RateLimiter<u64>,
    clock: Instant,
    wake_at: Mutex<Option<u64>>,
    changed: Condvar,
    stopped: AtomicBool,
    shown: Mutex<HashMap<u64, Vec<(u64, Update)>>>,
}

impl Driver {
    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    fn show(&self, key: u64, update: Update) {
        let at = self.now();
        self.shown
            .lock()
            .expect("lock")
            .entry(key)
            .or_default()
            .push((at, update));
    }

    fn report(&self, key: u64, done: u64, total: u64) {
        let report = self
            .limiter
            .report(&key, done, total, self.now(), |key, update| {
                self.show(*key, update);
            });
        if let Some(at) = report.wake_at {
            let mut wake_at = self.wake_at.lock().expect("lock");
            *wake_at = Some(wake_at.map_or(at, |known| known.min(at)));
            self.changed.notify_one();
        }
    }

    fn run(&self) {
        let mut wake_at = self.wake_at.lock().expect("lock");
        while !self.stopped.load(SeqCst) {
            let wait = wake_at.map_or(Duration::MAX, |at| {
                Duration::from_nanos(at.saturating_sub(self.now()))
            });
            if wait.is_zero() {
                *wake_at = None;
                drop(wake_at);
                let flush = self
                    .limiter
                    .flush_due(self.now(), |key, update| self.show(*key, update));
                wake_at = self.wake_at.lock().expect("lock");
                *wake_at = wake_at.into_iter().chain(flush.wake_at).min();
            } else {
                // Condvar has no wait without end that takes a timeout too.
                wake_at = self
                    .changed
                    .wait_timeout(wake_at, wait.min(Duration::from_secs(60)))
                    .expect("lock")
                    .0;
            }
        }
    }

    fn stop(&self) {
        let _wake_at = self.wake_at.lock().expect("lock");
        self.stopped.store(true, SeqCst);
        self.changed.notify_one();
    }

    fn last_shown(&self, key: u64) -> Option<u64> {
        let shown = self.shown.lock().expect("lock");
        shown
            .get(&key)
            .and_then(|values| values.last())
            .map(|(_, update)| update.done)
    }
}

#[test]
fn a_storm_from_sixteen_threads_keeps_to_the_rate_and_shows_the_last_value() {
    const KEYS: u64 = 20;
    const TOTAL: u64 = u64::MAX;
    let driver = Driver {
        limiter: RateLimiter::new(DEFAULT_INTERVAL, DEFAULT_IDLE_TIMEOUT, 0),
        clock: Instant::now(),
        wake_at: Mutex::new(None),
        changed: Condvar::new(),
        stopped: AtomicBool::new(false),
        shown: Mutex::default(),
    };
    let reports = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| driver.run());
        let storm: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    while driver.now() < 500 * MS {
                        let n = reports.fetch_add(1, SeqCst);
                        driver.report(n % KEYS, n, TOTAL);
                    }
                })
            })
            .collect();
        for thread in storm {
            thread.join().expect("no panic");
        }
        for key in 0..KEYS {
            driver.report(key, TOTAL - 1, TOTAL);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while (0..KEYS).any(|key| driver.last_shown(key) != Some(TOTAL - 1)) {
            assert!(Instant::now() < deadline, "the last value was lost");
            std::thread::yield_now();
        }
        for key in 0..KEYS {
            driver.report(key, TOTAL, TOTAL);
        }
        driver.stop();
        running.join().expect("no panic");
    });
    assert_eq!(driver.limiter.stats().entries, 0);
    let shown = driver.shown.into_inner().expect("lock");
    for values in shown.values() {
        // The first, one per interval of the storm and of the wait after it, and the completion.
        let lasted = values.last().expect("shown").0;
        assert!(
            values.len() as u64 <= lasted / INTERVAL + 2,
            "{} in {lasted} ns",
            values.len()
        );
        assert_eq!(
            values.last().map(|(_, update)| update.status()),
            Some(Status::Done)
        );
    }
}
