// SPDX-License-Identifier: Apache-2.0
//! Time per timer of the wheel alone, insert and expiry together:
//! `cargo run --release --example timer_wheel_speed`.
use std::hint::black_box;
use std::time::Instant;

use tokamak_core::timer_wheel::TimerWheel;

const TIMERS: usize = 200_000;
const ROUNDS: usize = 20;
const MS: u64 = 1_000_000;

/// A value of the size of a loop's timer.
type Value = (u64, u64, u64);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn main() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    pipelined("same 5 ms delay", || 5 * MS);
    pipelined("random delays to 100 ms", || random.below(100 * MS));
    pipelined("random delays to 2 s", || random.below(2_000 * MS));
    cancelled(&mut random);
}

/// Starts all timers over `TIMERS` * 100 ns of wheel time, advancing every 50 µs as a busy owner
/// would, then lets the rest expire.
fn pipelined(name: &str, mut delay: impl FnMut() -> u64) {
    let mut wheel = TimerWheel::<Value>::new(0);
    let mut expired = Vec::with_capacity(TIMERS);
    let mut now = 0;
    let mut best = (u64::MAX, u64::MAX);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut fired = 0;
        for id in 0..TIMERS {
            now += 100;
            wheel.insert(now + delay(), (id as u64, now, 0));
            if id % 512 == 0 {
                wheel.advance(now, &mut expired);
                fired += expired.len();
                expired.clear();
            }
        }
        let inserted = started.elapsed();
        while let Some(deadline) = wheel.next_deadline() {
            now = now.max(deadline);
            wheel.advance(now, &mut expired);
            fired += expired.len();
            black_box(&mut expired).clear();
        }
        assert_eq!(fired, TIMERS);
        let per_timer = |time: std::time::Duration| time.as_nanos() as u64 / TIMERS as u64;
        best = best.min((per_timer(started.elapsed()), per_timer(inserted)));
    }
    println!(
        "{name:30} {:4} ns a timer (insert phase {} ns)",
        best.0, best.1
    );
}

fn cancelled(random: &mut Random) {
    let mut wheel = TimerWheel::<Value>::new(0);
    let mut keys = Vec::with_capacity(TIMERS);
    let mut best = u64::MAX;
    for _ in 0..ROUNDS {
        keys.clear();
        let started = Instant::now();
        for id in 0..TIMERS {
            keys.push(wheel.insert(random.below(5_000 * MS), (id as u64, 0, 0)));
        }
        for key in keys.drain(..) {
            black_box(wheel.remove(key));
        }
        best = best.min(started.elapsed().as_nanos() as u64 / TIMERS as u64);
    }
    println!("{:30} {best:4} ns a timer", "random to 5 s, all cancelled");
}
