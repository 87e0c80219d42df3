// SPDX-License-Identifier: Apache-2.0
//! Items a second of the worker pool on synthetic graphs, next to a single thread and to threads
//! that share a queue behind a mutex: `cargo run --release --example pool_speed [rounds]`.
use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Instant;

use tokamak_core::pool::{Discovered, ItemResult, Options, Outcome, Pool, Work};

const ITEMS: u64 = 1_000_000;

/// The items that an item discovers, from arithmetic alone.
#[derive(Clone, Copy)]
enum Shape {
    Chain,
    Star,
    Tree,
    Dense,
}

impl Shape {
    fn children(self, item: u64) -> Vec<u64> {
        let existing = |child: &u64| *child < ITEMS;
        match self {
            Shape::Chain => Some(item + 1).into_iter().filter(existing).collect(),
            Shape::Star if item == 0 => (1..ITEMS).collect(),
            Shape::Star => Vec::new(),
            Shape::Tree => (4 * item + 1..=4 * item + 4).filter(existing).collect(),
            // Each item is discovered ten times over.
            Shape::Dense => (1..=10).map(|n| (item * 10 + n) % ITEMS).collect(),
        }
    }
}

struct Graph {
    shape: Shape,
    results: Arc<AtomicU64>,
    acknowledgements: mpsc::Sender<bool>,
}

impl Work for Graph {
    type Item = u64;
    type Key = u64;
    type Output = u64;
    type Error = Infallible;

    fn key(&self, item: &u64) -> u64 {
        *item
    }

    async fn run(&self, item: &u64) -> Discovered<Self> {
        Ok((item * 2, self.shape.children(*item)))
    }

    fn deliver(&self, batch: Vec<ItemResult<Self>>) {
        self.results.fetch_add(batch.len() as u64, Relaxed);
        let _ = self.acknowledgements.send(true);
    }
}

fn pool(shape: Shape, workers: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    let (acknowledgements, delivered) = mpsc::channel();
    let end = acknowledgements.clone();
    let results = Arc::new(AtomicU64::new(0));
    let graph = Graph {
        shape,
        results: Arc::clone(&results),
        acknowledgements,
    };
    let workers = NonZeroUsize::new(workers).expect("workers");
    let options = Options {
        workers,
        ..Options::default()
    };
    let (pool, run) = Pool::new(graph, options);
    pool.add(vec![0]).expect("open");
    pool.close();
    let run = runtime.spawn(run);
    let outcome = std::thread::scope(|scope| {
        let pool = &pool;
        scope.spawn(move || {
            let batches = delivered.iter().take_while(|more| *more);
            batches.for_each(|_| pool.ack(1));
        });
        let outcome = runtime.block_on(run).expect("no panic");
        end.send(false).expect("the consumer waits");
        outcome
    });
    assert!(matches!(outcome, Outcome::Finished));
    assert_eq!(results.load(Relaxed), ITEMS);
}

fn single_thread(shape: Shape) {
    let mut seen = HashSet::from([0]);
    let mut queue = VecDeque::from([0]);
    let mut batch = Vec::new();
    let mut results = 0;
    while let Some(item) = queue.pop_front() {
        queue.extend(
            shape
                .children(item)
                .into_iter()
                .filter(|child| seen.insert(*child)),
        );
        batch.push((item, item * 2));
        if batch.len() == 256 {
            results += std::mem::take(&mut batch).len() as u64;
        }
    }
    assert_eq!(results + batch.len() as u64, ITEMS);
}

#[derive(Default)]
struct Guarded {
    queue: VecDeque<u64>,
    seen: HashSet<u64>,
    outstanding: u64,
}

fn mutex_guarded(shape: Shape, threads: usize) {
    let guarded = Mutex::new(Guarded {
        queue: VecDeque::from([0]),
        seen: HashSet::from([0]),
        outstanding: 1,
    });
    let changed = Condvar::new();
    let results = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| guarded_worker(shape, &guarded, &changed, &results));
        }
    });
    assert_eq!(results.into_inner(), ITEMS);
}

fn guarded_worker(shape: Shape, guarded: &Mutex<Guarded>, changed: &Condvar, results: &AtomicU64) {
    let mut batch = Vec::new();
    let mut state = guarded.lock().expect("no panic");
    while state.outstanding > 0 {
        let Some(item) = state.queue.pop_front() else {
            state = changed.wait(state).expect("no panic");
            continue;
        };
        drop(state);
        let children = shape.children(item);
        batch.push((item, item * 2));
        if batch.len() == 256 {
            results.fetch_add(std::mem::take(&mut batch).len() as u64, Relaxed);
        }
        state = guarded.lock().expect("no panic");
        for child in children {
            if state.seen.insert(child) {
                state.queue.push_back(child);
                state.outstanding += 1;
                changed.notify_one();
            }
        }
        state.outstanding -= 1;
        if state.outstanding == 0 {
            changed.notify_all();
        }
    }
    results.fetch_add(batch.len() as u64, Relaxed);
}

fn measure(name: &str, rounds: u32, run: impl Fn()) {
    let mut rates: Vec<f64> = (0..rounds)
        .map(|_| {
            let started = Instant::now();
            run();
            ITEMS as f64 / started.elapsed().as_secs_f64() / 1e6
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    let (least, most) = (rates[0], rates[rates.len() - 1]);
    println!(
        "  {name:24} {:5.2} M items/s ({least:.2} to {most:.2})",
        rates[rates.len() / 2]
    );
}

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(5);
    let shapes = [
        ("chain", Shape::Chain),
        ("star", Shape::Star),
        ("tree, 4 children", Shape::Tree),
        ("dense, 90 % duplicates", Shape::Dense),
    ];
    for (name, shape) in shapes {
        println!("{name}");
        measure("single thread", rounds, || single_thread(shape));
        measure("mutex, 2 threads", rounds, || mutex_guarded(shape, 2));
        for workers in [1, 2, 8, 64] {
            measure(&format!("pool, {workers} workers"), rounds, || {
                pool(shape, workers)
            });
        }
    }
}
