// SPDX-License-Identifier: Apache-2.0
//! When to look at all processes of the system, so that it costs a small share of the time.

use std::time::{Duration, Instant};

/// A look takes at most one part in this many of the time,
const SHARE: u32 = 20;
/// unless that delayed the next by more than this.
const LONGEST_DISTANCE: Duration = Duration::from_millis(250);
/// From a KILL to a look whether it worked: at first, and after many that did not.
const SHORTEST_RETRY: Duration = Duration::from_millis(10);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Schedule {
    due: Option<Instant>,
    not_before: Instant,
    retry: Duration,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: None,
            not_before: now,
            retry: SHORTEST_RETRY,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Asks for a look at this time, or as soon after it as may be.
    pub(super) fn at(&mut self, time: Instant) {
        let time = time.max(self.not_before);
        self.due = Some(self.due.map_or(time, |due| due.min(time)));
    }

    /// Asks for a look because the first KILL is sent now.
    pub(super) fn at_first_kill(&mut self, now: Instant) {
        self.retry = SHORTEST_RETRY;
        self.at(now);
    }

    /// Asks for a look because a KILL was sent, once more.
    pub(super) fn at_retry(&mut self, now: Instant) {
        self.at(now + self.retry);
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
    }

    /// Whether to look now; if so, the request is met.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// Notes what a look cost.
    pub(super) fn looked(&mut self, from: Instant, to: Instant) {
        let cost = to.saturating_duration_since(from);
        self.not_before = to + (cost * SHARE).min(LONGEST_DISTANCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn many_requests_are_met_by_one_look_at_the_earliest_time() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.at(now + 9 * MS);
        schedule.at(now + 5 * MS);
        schedule.at(now + 7 * MS);
        assert!(!schedule.take_due(now + 4 * MS));
        assert!(schedule.take_due(now + 5 * MS));
        assert!(!schedule.take_due(now + 9 * MS));
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn a_dear_look_delays_the_next_but_not_for_long() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.looked(now - MS, now);
        schedule.at(now);
        assert_eq!(schedule.due(), Some(now + 20 * MS));
        schedule.looked(now - 1000 * MS, now);
        schedule.at(now + 100 * MS);
        assert_eq!(
            schedule.due(),
            Some(now + 20 * MS),
            "an earlier request stands"
        );
        assert!(schedule.take_due(now + 20 * MS));
        schedule.at(now);
        assert_eq!(schedule.due(), Some(now + 250 * MS));
    }

    #[test]
    fn what_does_not_die_is_looked_at_less_and_less_often() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        let mut delays = Vec::new();
        for _ in 0..9 {
            schedule.at_retry(now);
            delays.push(schedule.due().unwrap() - now);
            assert!(schedule.take_due(now + LONGEST_RETRY));
        }
        assert_eq!(delays[..3], [10 * MS, 20 * MS, 40 * MS]);
        assert_eq!(delays[8], LONGEST_RETRY);
        schedule.at_first_kill(now);
        assert_eq!(schedule.due(), Some(now));
    }
}
