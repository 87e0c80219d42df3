// SPDX-License-Identifier: Apache-2.0
//! Busy polling: whether a consumer that found nothing looks a moment longer before it sleeps.
//!
//! Who sleeps has to be woken, by one thread that wakes another: some ten microseconds each, where the peer
//! may answer within five. Who looks takes its scheduler meanwhile. So a consumer looks only while nearly all
//! of its latest sleeps were short, for a bounded time, and more rarely the more often that was in vain.
//!
//! The kernel does the same for its sockets (`net.core.busy_poll`, see its documentation of
//! `/proc/sys/net`, which recommends 50 to 100 µs).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The fewest short sleeps after which a consumer looks.
const FEWEST_SLEEPS: u32 = 16;
/// The most that are asked of one that looked in vain: twice as many each time.
const MOST_SLEEPS: u32 = 4096;
/// A sleep counts as short up to so many times as long as a look: to wake the peer, and the thread that ends
/// the sleep, took up to thirty microseconds each where processors sleep deeply.
const SHORT_SLEEP: u32 = 4;

/// What one consumer knows of its sleeps. One thread at a time looks and falls asleep, any may wake it.
#[derive(Debug)]
pub struct BusyPoll {
    limit: Duration,
    created: Instant,
    /// Nanoseconds after `created`; 0: it is awake.
    asleep_since: AtomicU64,
    /// Short ones; a long one halves them.
    short_sleeps: AtomicU32,
    /// How many there have to be.
    needed: AtomicU32,
    found: AtomicU64,
    in_vain: AtomicU64,
}

/// Counters of a [`BusyPoll`] since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// How often the consumer looked a moment longer.
    pub all: u64,
    /// How often it found nothing.
    pub in_vain: u64,
}

impl Looks {
    /// From the two that are counted, so that neither difference ever falls.
    pub fn new(found: u64, in_vain: u64) -> Self {
        Self {
            all: found + in_vain,
            in_vain,
        }
    }
}

impl BusyPoll {
    /// Of a consumer that looks up to `limit` longer; never, if that is zero.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            created: Instant::now(),
            asleep_since: AtomicU64::new(0),
            short_sleeps: AtomicU32::new(0),
            needed: AtomicU32::new(FEWEST_SLEEPS),
            found: AtomicU64::new(0),
            in_vain: AtomicU64::new(0),
        }
    }

    /// Whether a look is worth its time, as far as one can tell.
    pub fn pays(&self) -> bool {
        self.short_sleeps.load(Ordering::Relaxed) >= self.needed.load(Ordering::Relaxed)
    }

    /// Asks again and again until there is something, or the time is over. Returns whether there was.
    /// Between two questions others may have the processor: who writes to a pipe or a socket brings its
    /// reader to its own.
    pub fn look(&self, mut found: impl FnMut() -> bool) -> bool {
        let started = Instant::now();
        let is_found = loop {
            if found() {
                break true;
            }
            if started.elapsed() >= self.limit {
                break false;
            }
            std::thread::yield_now();
        };
        self.looked(is_found);
        is_found
    }

    /// The consumer falls asleep.
    pub fn falls_asleep(&self) {
        if !self.limit.is_zero() {
            self.asleep_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// The consumer is being woken, by any thread.
    pub fn is_woken(&self) {
        let since = self.asleep_since.swap(0, Ordering::Relaxed);
        if since != 0 {
            self.slept(Duration::from_nanos(self.now().saturating_sub(since)));
        }
    }

    /// What was counted since it was made.
    pub fn looks(&self) -> Looks {
        Looks::new(
            self.found.load(Ordering::Relaxed),
            self.in_vain.load(Ordering::Relaxed),
        )
    }

    fn now(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_nanos()).map_or(u64::MAX, |now| now.max(1))
    }

    fn slept(&self, time: Duration) {
        let before = self.short_sleeps.load(Ordering::Relaxed);
        let after = match time <= self.limit * SHORT_SLEEP {
            true => (before + 1).min(MOST_SLEEPS),
            false => before / 2,
        };
        self.short_sleeps.store(after, Ordering::Relaxed);
    }

    fn looked(&self, found: bool) {
        let needed = self.needed.load(Ordering::Relaxed);
        let needed = match found {
            true => {
                self.found.fetch_add(1, Ordering::Relaxed);
                needed / 2
            }
            false => {
                self.in_vain.fetch_add(1, Ordering::Relaxed);
                self.short_sleeps.store(0, Ordering::Relaxed);
                needed * 2
            }
        };
        self.needed
            .store(needed.clamp(FEWEST_SLEEPS, MOST_SLEEPS), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);
    const SHORT: Duration = Duration::from_micros(199);
    const LONG: Duration = Duration::from_micros(201);

    fn sleep(busy_poll: &BusyPoll, times: u32, time: Duration) {
        for _ in 0..times {
            busy_poll.slept(time);
        }
    }

    /// How many short sleeps it takes until a look pays.
    fn sleeps_until_it_pays(busy_poll: &BusyPoll) -> u32 {
        let mut count = 0;
        while !busy_poll.pays() {
            busy_poll.slept(SHORT);
            count += 1;
        }
        count
    }

    #[test]
    fn it_pays_after_some_short_sleeps() {
        let busy_poll = BusyPoll::new(LIMIT);
        assert!(!busy_poll.pays());
        sleep(&busy_poll, FEWEST_SLEEPS - 1, SHORT);
        assert!(!busy_poll.pays());
        sleep(&busy_poll, 1, SHORT);
        assert!(busy_poll.pays());
    }

    #[test]
    fn a_long_sleep_takes_half_of_the_trust() {
        let busy_poll = BusyPoll::new(LIMIT);
        sleep(&busy_poll, FEWEST_SLEEPS, SHORT);
        sleep(&busy_poll, 1, LONG);
        assert_eq!(FEWEST_SLEEPS / 2, sleeps_until_it_pays(&busy_poll));
    }

    #[test]
    fn it_never_pays_where_sleeps_are_short_and_long_in_turn() {
        let busy_poll = BusyPoll::new(LIMIT);
        for _ in 0..1000 {
            sleep(&busy_poll, FEWEST_SLEEPS / 2, SHORT);
            assert!(!busy_poll.pays());
            sleep(&busy_poll, 1, LONG);
        }
    }

    #[test]
    fn what_was_in_vain_is_tried_more_and_more_rarely() {
        let busy_poll = BusyPoll::new(LIMIT);
        let mut expected = FEWEST_SLEEPS;
        for _ in 0..20 {
            assert_eq!(expected, sleeps_until_it_pays(&busy_poll));
            busy_poll.looked(false);
            expected = (expected * 2).min(MOST_SLEEPS);
        }
        assert_eq!(MOST_SLEEPS, expected);
    }

    #[test]
    fn what_finds_something_goes_on_and_is_soon_trusted_again() {
        let busy_poll = BusyPoll::new(LIMIT);
        for _ in 0..3 {
            sleeps_until_it_pays(&busy_poll);
            busy_poll.looked(false);
        }
        sleeps_until_it_pays(&busy_poll);
        for _ in 0..3 {
            busy_poll.looked(true);
            assert!(busy_poll.pays());
        }
        busy_poll.looked(false);
        assert_eq!(2 * FEWEST_SLEEPS, sleeps_until_it_pays(&busy_poll));
        assert_eq!(Looks { all: 7, in_vain: 4 }, busy_poll.looks());
    }

    #[test]
    fn a_look_ends_with_what_it_finds_or_with_its_time() {
        let busy_poll = BusyPoll::new(LIMIT);
        let mut left = 3;
        assert!(busy_poll.look(|| {
            left -= 1;
            left == 0
        }));
        let started = Instant::now();
        assert!(!busy_poll.look(|| false));
        assert!(started.elapsed() >= LIMIT);
        assert_eq!(Looks { all: 2, in_vain: 1 }, busy_poll.looks());
    }

    #[test]
    fn sleeps_are_measured_from_falling_asleep_to_the_first_wake() {
        let busy_poll = BusyPoll::new(Duration::from_secs(1000));
        for _ in 0..FEWEST_SLEEPS {
            busy_poll.falls_asleep();
            busy_poll.is_woken();
            busy_poll.is_woken();
        }
        assert!(busy_poll.pays());
        assert_eq!(
            FEWEST_SLEEPS,
            busy_poll.short_sleeps.load(Ordering::Relaxed)
        );
    }

    #[test]
    fn without_a_limit_it_never_pays() {
        let busy_poll = BusyPoll::new(Duration::ZERO);
        for _ in 0..2 * FEWEST_SLEEPS {
            busy_poll.falls_asleep();
            busy_poll.is_woken();
        }
        assert!(!busy_poll.pays());
    }
}
