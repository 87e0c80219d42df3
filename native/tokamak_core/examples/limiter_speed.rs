// SPDX-License-Identifier: Apache-2.0
//! Time per suppressed report: `cargo run --release --example limiter_speed`.
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokamak_core::limiter::{DEFAULT_IDLE_TIMEOUT, RateLimiter};

const REPORTS: u64 = 5_000_000;

type Limiter = RateLimiter<Arc<[u8]>>;

fn main() {
    for keys in [1, 100, 10_000] {
        for threads in [1, 2] {
            let limiter = Limiter::new(Duration::from_secs(3_600), DEFAULT_IDLE_TIMEOUT, 0);
            let started = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| storm(&limiter, keys));
                }
            });
            let time = started.elapsed().as_nanos() as u64 / REPORTS;
            println!("{keys:6} keys, {threads} threads: {time:4} ns a report and thread");
        }
    }
}

fn storm(limiter: &Limiter, keys: usize) {
    let keys: Vec<Vec<u8>> = (0..keys)
        .map(|key| format!("progress-{key:08}").into_bytes())
        .collect();
    for report in 0..REPORTS {
        let key = &keys[report as usize % keys.len()];
        let report = limiter.report(key.as_slice(), report, u64::MAX, 1, |_, _| ());
        black_box(report);
    }
}
