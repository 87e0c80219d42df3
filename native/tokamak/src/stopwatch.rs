// SPDX-License-Identifier: Apache-2.0
//! Measures times of a few nanoseconds' work without costing more than the work.
//!
//! CLOCK_MONOTONIC takes some twenty nanoseconds a look, the processor's own counter a few. quanta
//! calibrates it, which takes a while: that is done once, beside everything else.

use std::sync::OnceLock;
use std::time::Instant;

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

    /// What the processor's counter showed at the start: as good as chance. All ones where it was not looked at.
    pub fn start_ticks(&self) -> u64 {
        match self {
            Self::Counter(_, start) => *start,
            Self::Monotonic(_) => u64::MAX,
        }
    }

    /// The nanoseconds since the start.
    pub fn nanoseconds(&self) -> u64 {
        match self {
            Self::Counter(clock, start) => clock.delta_as_nanos(*start, clock.raw()),
            Self::Monotonic(start) => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

/// What the processor's counter shows; 0 while it is not calibrated, in the first moments after the start.
pub fn ticks() -> u64 {
    CLOCK.get().map_or(0, quanta::Clock::raw)
}

/// The nanoseconds since the counter showed so many ticks, on whatever processor.
pub fn nanoseconds_since(ticks: u64) -> u64 {
    CLOCK
        .get()
        .map_or(0, |clock| clock.delta_as_nanos(ticks, clock.raw()))
}
