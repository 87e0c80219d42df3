// SPDX-License-Identifier: Apache-2.0
//! The worker pool on small jobs that show one rule each.
use std::future::pending;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokamak_core::pool::{
    Begun, Closed, Discovered, ItemError, ItemResult, OnError, Options, Outcome, Pool, Stats, Work,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a test's items do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    /// Discovers `Count` of all smaller numbers.
    Count(u64),
    Number(u64),
    Fail(u64),
    Panic,
    PanicBeforeTheFuture,
    Hang,
    /// Waits until as many items are in hand.
    Together(usize),
}

type Batch = Vec<ItemResult<Job>>;

struct Job {
    batches: mpsc::UnboundedSender<Batch>,
    in_hand: Arc<AtomicUsize>,
    last_finished: Arc<Mutex<Option<Instant>>>,
}

impl Work for Job {
    type Item = Item;
    type Key = String;
    type Output = u64;
    type Error = u64;
    type Waits = ();

    fn key(&self, item: &Item) -> String {
        format!("{item:?}")
    }

    fn begin(&self, item: &Item) -> Begun<Discovered<Self>, ()> {
        assert_ne!(*item, Item::PanicBeforeTheFuture, "too early");
        // Some end at once, most in a future.
        if let Item::Number(n) = *item
            && n % 2 == 0
        {
            self.note_end();
            return Begun::Ended(Ok((n, Vec::new())));
        }
        Begun::Waits(())
    }

    async fn wait(&self, item: &Item, (): ()) -> Discovered<Self> {
        let result = self.run_item(*item).await;
        self.note_end();
        result
    }

    fn deliver(&self, batch: Batch) {
        // A test that saw enough may be gone.
        let _ = self.batches.send(batch);
    }
}

impl Job {
    fn note_end(&self) {
        *self.last_finished.lock().expect("no panic") = Some(Instant::now());
    }

    async fn run_item(&self, item: Item) -> Discovered<Self> {
        match item {
            Item::Number(n) => Ok((n, Vec::new())),
            Item::Count(n) => Ok((n, (0..n).map(Item::Count).collect())),
            Item::Fail(reason) => Err(reason),
            Item::Panic => panic!("in the {}", "handler"),
            Item::Hang => pending().await,
            Item::Together(others) => {
                self.in_hand.fetch_add(1, SeqCst);
                while self.in_hand.load(SeqCst) < others {
                    tokio::task::yield_now().await;
                }
                Ok((0, Vec::new()))
            }
            Item::PanicBeforeTheFuture => unreachable!(),
        }
    }
}

struct Run {
    pool: Pool<Job>,
    outcome: JoinHandle<Outcome<Job>>,
    batches: mpsc::UnboundedReceiver<Batch>,
    last_finished: Arc<Mutex<Option<Instant>>>,
}

fn options(workers: usize) -> Options {
    Options {
        workers: size(workers),
        ..Options::default()
    }
}

fn size(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("not zero")
}

fn start(options: Options, items: Vec<Item>) -> Run {
    let (sender, batches) = mpsc::unbounded_channel();
    let last_finished = Arc::default();
    let job = Job {
        batches: sender,
        in_hand: Arc::default(),
        last_finished: Arc::clone(&last_finished),
    };
    let (pool, run) = Pool::new(job, options);
    pool.add(items).expect("open");
    Run {
        pool,
        outcome: tokio::spawn(run),
        batches,
        last_finished,
    }
}

impl Run {
    /// All results in order of delivery, and the end.
    async fn finish(mut self) -> (Vec<ItemResult<Job>>, Outcome<Job>, Stats) {
        self.pool.close();
        let mut results = Vec::new();
        let mut outcome = self.outcome;
        let outcome = timeout(PATIENCE, async {
            loop {
                tokio::select! {
                    Some(batch) = self.batches.recv() => {
                        results.extend(batch);
                        self.pool.ack(1);
                    }
                    outcome = &mut outcome => break outcome.expect("the run does not panic"),
                }
            }
        });
        let outcome = outcome.await.expect("the run ends");
        while let Ok(batch) = self.batches.try_recv() {
            results.extend(batch);
        }
        (results, outcome, self.pool.stats())
    }
}

fn numbers(range: std::ops::Range<u64>) -> Vec<Item> {
    range.map(Item::Number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_is_run_once_however_often_it_is_discovered() {
    let run = start(
        options(4),
        vec![Item::Count(50), Item::Count(50), Item::Count(3)],
    );
    let (results, outcome, stats) = run.finish().await;
    assert!(matches!(outcome, Outcome::Finished));
    let mut values: Vec<u64> = results
        .iter()
        .map(|(_, result)| *result.as_ref().expect("ok"))
        .collect();
    values.sort_unstable();
    assert_eq!(values, (0..=50).collect::<Vec<u64>>());
    let discovered: u64 = (0..=50).sum::<u64>() + 3;
    let expected = Stats {
        dispatched: 51,
        succeeded: 51,
        duplicates: discovered - 51,
        ..Stats::default()
    };
    assert_eq!(stats, expected);
}

#[tokio::test]
async fn a_run_without_items_finishes_when_it_is_closed() {
    let (results, outcome, stats) = start(options(3), Vec::new()).finish().await;
    assert!(matches!(outcome, Outcome::Finished));
    assert!(results.is_empty());
    assert_eq!(stats, Stats::default());
}

#[tokio::test]
async fn an_open_run_takes_items_until_it_is_closed() {
    let mut run = start(options(2), Vec::new());
    for n in 0..100 {
        run.pool.add(numbers(n..n + 1)).expect("open");
        let batch = timeout(PATIENCE, run.batches.recv())
            .await
            .expect("in time")
            .expect("a batch");
        assert_eq!(batch.len(), 1);
        run.pool.ack(1);
    }
    run.pool.close();
    assert_eq!(run.pool.add(numbers(0..1)), Err(Closed));
    let (_, outcome, stats) = run.finish().await;
    assert!(matches!(outcome, Outcome::Finished));
    assert_eq!(stats.succeeded, 100);
}

#[tokio::test]
async fn results_do_not_wait_for_an_item_that_takes_long() {
    let mut run = start(options(1), vec![Item::Number(1), Item::Hang]);
    let batch = timeout(PATIENCE, run.batches.recv())
        .await
        .expect("in time")
        .expect("a batch");
    assert_eq!(batch, [(Item::Number(1), Ok(1))]);
    run.pool.cancel();
    assert!(matches!(run.finish().await.1, Outcome::Cancelled));
}

#[tokio::test]
async fn errors_and_panics_are_results_of_their_items() {
    let items = vec![
        Item::Fail(7),
        Item::Panic,
        Item::PanicBeforeTheFuture,
        Item::Number(1),
    ];
    let (mut results, outcome, stats) = start(options(1), items).finish().await;
    assert!(matches!(outcome, Outcome::Finished));
    results.sort_by_key(|(item, _)| format!("{item:?}"));
    let texts: Vec<String> = results
        .iter()
        .map(|(_, result)| format!("{result:?}"))
        .collect();
    assert_eq!(texts[0], "Err(Failed(7))");
    assert_eq!(texts[1], "Ok(1)");
    assert_eq!(texts[2], "Err(Panicked(\"in the handler\"))");
    assert!(texts[3].contains("too early"), "{}", texts[3]);
    assert_eq!((stats.succeeded, stats.failed), (1, 3));
}

#[tokio::test]
async fn the_first_error_ends_the_run_where_errors_stop() {
    let options = Options {
        on_error: OnError::Stop,
        ..options(2)
    };
    let (_, outcome, _) = start(options, vec![Item::Hang, Item::Fail(7)])
        .finish()
        .await;
    assert!(matches!(
        outcome,
        Outcome::Failed(Item::Fail(7), ItemError::Failed(7))
    ));
}

#[tokio::test]
async fn a_panic_ends_the_run_where_errors_stop() {
    let options = Options {
        on_error: OnError::Stop,
        ..options(2)
    };
    let (_, outcome, _) = start(options, vec![Item::Panic]).finish().await;
    assert!(matches!(
        outcome,
        Outcome::Failed(Item::Panic, ItemError::Panicked(_))
    ));
}

/// Its key or its consumer panics, and item 0 discovers item 1.
struct Broken {
    key_panics: bool,
}

impl Work for Broken {
    type Item = u64;
    type Key = u64;
    type Output = ();
    type Error = ();
    type Waits = ();

    fn key(&self, item: &u64) -> u64 {
        assert!(!self.key_panics || *item == 0, "no key");
        *item
    }

    fn begin(&self, item: &u64) -> Begun<Discovered<Self>, ()> {
        Begun::Ended(Ok(((), (item + 1..2).collect())))
    }

    async fn wait(&self, _: &u64, (): ()) -> Discovered<Self> {
        unreachable!("no item waits")
    }

    fn deliver(&self, _: Vec<ItemResult<Self>>) {
        assert!(self.key_panics, "no consumer");
    }
}

#[tokio::test]
async fn work_that_panics_outside_its_handler_ends_the_run_and_hangs_nobody() {
    for (key_panics, says) in [(true, "no key"), (false, "no consumer")] {
        let (pool, run) = Pool::new(Broken { key_panics }, options(3));
        pool.add(vec![0]).expect("open");
        pool.close();
        let outcome = timeout(PATIENCE, run).await.expect("the run ends");
        assert!(matches!(outcome, Outcome::Crashed(text) if text.contains(says)));
    }
}

#[tokio::test]
async fn no_more_than_the_greatest_number_of_items_is_run() {
    let options = Options {
        max_items: NonZeroU64::new(10),
        ..options(2)
    };
    let (results, outcome, stats) = start(options, vec![Item::Count(100)]).finish().await;
    assert!(matches!(outcome, Outcome::Finished));
    assert_eq!(results.len(), 10);
    assert_eq!((stats.dispatched, stats.succeeded), (10, 10));
    assert_eq!(stats.refused, 91);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_items_are_in_hand_as_there_are_workers() {
    let together = vec![Item::Together(8)];
    let run = start(options(8), together);
    // Keys differ, needs do not.
    for others in 1..8 {
        run.pool.add(vec![Item::Together(others)]).expect("open");
    }
    let (results, outcome, _) = run.finish().await;
    assert!(matches!(outcome, Outcome::Finished));
    assert_eq!(results.len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_batches_are_delivered_than_the_window_allows() {
    let options = Options {
        window: size(3),
        batch: size(10),
        ..options(2)
    };
    let mut run = start(options, numbers(0..1_000));
    let mut delivered = 0;
    for acknowledged in 0..20 {
        while delivered < acknowledged + 3 {
            timeout(PATIENCE, run.batches.recv())
                .await
                .expect("in time")
                .expect("a batch");
            delivered += 1;
        }
        assert!(run.batches.try_recv().is_err());
        run.pool.ack(1);
    }
    let (results, outcome, stats) = run.finish_after(delivered - 20).await;
    assert!(matches!(outcome, Outcome::Finished));
    assert_eq!(stats.succeeded, 1_000);
    assert!(results < 1_000);
}

impl Run {
    async fn finish_after(self, open_batches: usize) -> (usize, Outcome<Job>, Stats) {
        self.pool.ack(open_batches);
        let (results, outcome, stats) = self.finish().await;
        (results.len(), outcome, stats)
    }
}

#[tokio::test]
async fn acknowledging_more_than_was_delivered_does_not_widen_the_window() {
    let options = Options {
        window: size(1),
        batch: size(1),
        ..options(1)
    };
    let mut run = start(options, Vec::new());
    run.pool.ack(1_000);
    run.pool.add(numbers(0..10)).expect("open");
    timeout(PATIENCE, run.batches.recv())
        .await
        .expect("in time")
        .expect("a batch");
    tokio::task::yield_now().await;
    assert!(run.batches.try_recv().is_err());
    run.pool.cancel();
}

#[tokio::test]
async fn a_cancel_ends_items_in_hand_and_comes_once() {
    let run = start(options(4), vec![Item::Hang]);
    run.pool.cancel();
    run.pool.cancel();
    assert_eq!(run.pool.add(numbers(0..1)), Err(Closed));
    let (results, outcome, _) = run.finish().await;
    assert!(matches!(outcome, Outcome::Cancelled));
    assert!(results.is_empty());
}

#[tokio::test]
async fn a_cancel_ends_a_run_whose_consumer_does_not_acknowledge() {
    let options = Options {
        window: size(1),
        batch: size(1),
        ..options(4)
    };
    let mut run = start(options, numbers(0..100));
    timeout(PATIENCE, run.batches.recv())
        .await
        .expect("in time")
        .expect("a batch");
    run.pool.cancel();
    let outcome = timeout(PATIENCE, run.outcome)
        .await
        .expect("the run ends")
        .expect("no panic");
    assert!(matches!(outcome, Outcome::Cancelled));
}

#[tokio::test]
async fn a_run_that_is_dropped_takes_no_more_items() {
    let (sender, _batches) = mpsc::unbounded_channel();
    let job = Job {
        batches: sender,
        in_hand: Arc::default(),
        last_finished: Arc::default(),
    };
    let (pool, run) = Pool::new(job, options(2));
    drop(run);
    assert_eq!(pool.add(numbers(0..1)), Err(Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_within_ten_milliseconds_of_its_last_item() {
    let mut delays: Vec<Duration> = Vec::new();
    for n in 0..50 {
        let run = start(options(4), vec![Item::Count(n)]);
        let last_finished = Arc::clone(&run.last_finished);
        let (_, outcome, _) = run.finish().await;
        assert!(matches!(outcome, Outcome::Finished));
        let finished = last_finished
            .lock()
            .expect("no panic")
            .expect("an item was run");
        delays.push(finished.elapsed());
    }
    delays.sort_unstable();
    // The median: a machine that runs other tests too may stall any single run.
    assert!(delays[25] < Duration::from_millis(10), "{delays:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn workers_without_work_do_not_wake() {
    fn switches() -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
        let mut found = Vec::new();
        for task in tasks.flatten() {
            let path = task.path();
            let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            if name.trim() == "idle-pool" {
                let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
                found.extend(
                    status
                        .lines()
                        .filter(|line| line.contains("ctxt"))
                        .map(str::to_owned),
                );
            }
        }
        found
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("idle-pool")
        .enable_time()
        .build()
        .expect("a runtime");
    let run = runtime.block_on(async {
        let mut run = start(options(64), numbers(0..1_000));
        let mut results = 0;
        while results < 1_000 {
            results += run.batches.recv().await.expect("a batch").len();
            run.pool.ack(1);
        }
        run
    });
    // The last worker may be about to sleep.
    let mut before = switches();
    let deadline = Instant::now() + PATIENCE;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let after = switches();
        assert!(!after.is_empty());
        if before == after {
            break;
        }
        assert!(Instant::now() < deadline, "{before:?} {after:?}");
        before = after;
    }
    assert!(matches!(
        runtime.block_on(run.finish()).1,
        Outcome::Finished
    ));
}
