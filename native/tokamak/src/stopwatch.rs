// SPDX-License-Identifier: Apache-2.0
//! Measures times of a few nanoseconds' work without costing more than the work.
//!
//! CLOCK_MONOTONIC takes some twenty nanoseconds a look, the processor's own counter a few. quanta
//! calibrates it, which takes a while: that is done once, beside everything else.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static CLOCK: OnceLock<quanta::Clock> = OnceLock::new();

/// Has the counter calibrated, on a thread of its own.
pub fn calibrate() {
    if CLOCK.get().is_none() {
        let thread = std::thread::Builder::new().name("tokamak-clock".to_owned());
        // Without a thread left, CLOCK_MONOTONIC does.
        let _ = thread.spawn(|| CLOCK.get_or_init(quanta::Clock::new));
    }
}

/// A time that runs.
pub enum Stopwatch {
    /// By the processor's counter.
    Counter(&'static quanta::Clock, u64),
    /// By CLOCK_MONOTONIC.
    Monotonic(Instant),
}

impl Stopwatch {
    /// Starts it.
    pub fn start() -> Self {
        match CLOCK.get() {
            Some(clock) => Self::Counter(clock, clock.raw()),
            None => Self::Monotonic(Instant::now()),
        }
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        match self {
            Self::Counter(clock, start) => clock.delta(*start, clock.raw()),
            Self::Monotonic(start) => start.elapsed(),
        }
    }
}
