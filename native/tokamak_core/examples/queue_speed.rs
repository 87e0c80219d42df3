// SPDX-License-Identifier: Apache-2.0
//! Items a second through the event queue alone, from producers on threads of their own to one
//! consumer that sleeps until its wake: `cargo run --release --example queue_speed`.
use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokamak_core::queue::{Batch, EventQueue, Wake};

const ITEMS: u64 = 4_000_000;
const LIMIT: usize = 65_536;
/// As many as a drain takes before it releases them.
const DRAIN: usize = 1024;

/// An item of the size of an event.
type Item = [u64; 5];

fn main() {
    for producers in [1, 2, 4] {
        for work in [0, 150] {
            let mut rates: Vec<f64> = (0..7).map(|_| run(producers, work)).collect();
            rates.sort_by(f64::total_cmp);
            println!(
                "{producers} producer(s), {work:2} turns of work an item: {:5.1} M/s (min {:.1}, max {:.1})",
                rates[3], rates[0], rates[6]
            );
        }
    }
}

fn run(producers: u64, work: u64) -> f64 {
    let queue = Arc::new(EventQueue::<Item>::new(LIMIT));
    let consumer = thread::current();
    let started = Instant::now();
    let threads: Vec<_> = (0..producers)
        .map(|producer| {
            let (queue, consumer) = (Arc::clone(&queue), consumer.clone());
            thread::spawn(move || {
                for i in 0..ITEMS / producers {
                    let pushed =
                        queue.push_timeout([i, producer, 0, 0, 0], Duration::from_secs(60));
                    if pushed == Ok(Wake::Send) {
                        consumer.unpark();
                    }
                }
            })
        })
        .collect();
    let mut batch = Batch::default();
    let mut taken = 0;
    while taken < ITEMS {
        thread::park();
        taken += drain(&queue, &mut batch, work);
    }
    let elapsed = started.elapsed();
    for thread in threads {
        thread.join().expect("the producer ended");
    }
    ITEMS as f64 / elapsed.as_secs_f64() / 1e6
}

fn drain(queue: &EventQueue<Item>, batch: &mut Batch<Item>, work: u64) -> u64 {
    let mut taken = 0;
    loop {
        let mut popped = 0;
        while popped < DRAIN
            && let Some(item) = queue.pop(batch)
        {
            (0..work).for_each(|turn| {
                black_box(item[0] + turn);
            });
            black_box(item);
            popped += 1;
        }
        queue.release(popped);
        taken += popped as u64;
        if popped < DRAIN && !queue.rearm(batch) {
            return taken;
        }
    }
}
