// SPDX-License-Identifier: Apache-2.0
//! A worker pool whose workers others drive.
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use tokamak_core::pool::{
    Begun, Discovered, Hand, Hands, ItemResult, OnError, Options, Outcome, Pool, Work,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// An item that fails.
const FAILS: u64 = 1_000_000;

/// Much more than a hand queues itself.
const COUNT: u64 = 100_000;

/// Has its results sent to the test.
struct Job {
    batches: mpsc::UnboundedSender<Vec<ItemResult<Self>>>,
}

impl Work for Job {
    type Item = u64;
    type Key = u64;
    type Output = u64;
    type Error = &'static str;
    type Waits = ();

    fn key(&self, item: &u64) -> u64 {
        *item
    }

    fn begin(&self, _: &u64) -> Begun<Discovered<Self>, ()> {
        unreachable!("hands run the items")
    }

    async fn wait(&self, _: &u64, (): ()) -> Discovered<Self> {
        unreachable!("hands run the items")
    }

    fn deliver(&self, batch: Vec<ItemResult<Self>>) {
        // A test that saw enough may be gone.
        let _ = self.batches.send(batch);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs what there is, and sleeps when there is nothing, until the run is over. Items may discover all
/// smaller ones.
fn drive(mut hand: Hand<Job>, discovers: bool) -> JoinHandle<usize> {
    thread::spawn(move || {
        let waker = Arc::new(Unpark(thread::current())).into();
        for ran in 0.. {
            let item = loop {
                match hand.poll_next(&mut Context::from_waker(&waker)) {
                    Poll::Pending => thread::park(),
                    Poll::Ready(None) => return ran,
                    Poll::Ready(Some(&item)) => break item,
                }
            };
            if item == FAILS {
                hand.discover(vec![FAILS + 1]);
                hand.finish(Err("failed"));
                continue;
            }
            let mut children: Vec<u64> = (0..if discovers { item } else { 0 }).collect();
            // Some of them before its end.
            hand.discover(children.split_off(children.len() / 2));
            hand.finish(Ok((item, children)));
        }
        unreachable!("there is no end of numbers")
    })
}

/// A run whose calls of workers are received; they end with the run.
fn driven(
    batches: mpsc::UnboundedSender<Vec<ItemResult<Job>>>,
    options: Options,
) -> (
    Pool<Job>,
    Receiver<usize>,
    Hands<Job>,
    impl Future<Output = Outcome<Job>> + Send,
) {
    let (called, calls) = channel();
    let call = move |number| {
        // A test that saw enough may be gone.
        let _ = called.send(number);
    };
    let (pool, hands, run) = Pool::driven(Job { batches }, options, call);
    (pool, calls, hands, run)
}

/// Drives the hands that are called until the run is over, and ends those that sleep then; how many items they ran, and how
/// many they were.
fn drive_called(calls: Receiver<usize>, hands: Hands<Job>, discovers: bool) -> Crew {
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let thread = thread::spawn(move || {
        let mut drivers = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            if calls.recv_timeout(Duration::from_millis(1)).is_ok() {
                drivers.push(drive(hands.hand(), discovers));
            }
        }
        hands.wake_all();
        let count = drivers.len();
        (ran(drivers), count)
    });
    Crew { over, thread }
}

/// Who drives the hands of a run.
struct Crew {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, usize)>,
}

impl Crew {
    /// After the end of the run: how many items were run.
    fn ran(self) -> usize {
        self.end().0
    }

    fn end(self) -> (usize, usize) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

fn options(workers: usize) -> Options {
    Options {
        workers: NonZeroUsize::new(workers).expect("not zero"),
        ..Options::default()
    }
}

fn ran(drivers: Vec<JoinHandle<usize>>) -> usize {
    let ran = drivers.into_iter().map(|one| one.join().expect("no panic"));
    ran.sum()
}

#[tokio::test]
async fn each_key_is_run_once_and_the_run_ends() {
    for round in 0..200 {
        let (batches, mut delivered) = mpsc::unbounded_channel();
        let (pool, calls, hands, run) = driven(batches, options(3));
        let run = tokio::spawn(run);
        let crew = drive_called(calls, hands, true);
        pool.add(vec![600, FAILS]).expect("open");
        if round % 2 == 0 {
            pool.close();
        }
        let mut results = Vec::new();
        while results.len() < 602 {
            let batch = timeout(PATIENCE, delivered.recv()).await.expect("in time");
            results.extend(batch.expect("the run goes on"));
            pool.ack(1);
        }
        pool.close();
        let outcome = timeout(PATIENCE, run).await.expect("the run ends");
        assert!(matches!(outcome, Ok(Outcome::Finished)));
        assert_eq!(crew.ran(), 602);
        let failed = results.iter().filter(|(_, result)| result.is_err());
        assert_eq!(failed.count(), 1, "and its children are not run");
        let stats = pool.stats();
        assert_eq!(
            (stats.dispatched, stats.succeeded, stats.failed),
            (602, 601, 1)
        );
    }
}

#[tokio::test]
async fn what_discovers_much_keeps_no_hand_and_is_run_to_the_end() {
    let (batches, mut delivered) = mpsc::unbounded_channel();
    let (pool, calls, hands, run) = driven(batches, options(3));
    let run = tokio::spawn(run);
    let mut first = hands.hand();
    let mut noop = Context::from_waker(Waker::noop());
    pool.add(vec![COUNT]).expect("open");
    assert_eq!(calls.try_recv(), Ok(1));
    pool.close();
    assert!(matches!(
        first.poll_next(&mut noop),
        Poll::Ready(Some(&COUNT))
    ));
    // Each twice.
    first.discover((0..COUNT).collect());
    first.finish(Ok((COUNT, (0..COUNT).collect())));
    let first = drive(first, false);
    let crew = drive_called(calls, hands, false);
    let mut results = 0;
    while let Some(batch) = timeout(PATIENCE, delivered.recv()).await.expect("in time") {
        results += batch.len();
        pool.ack(1);
        if results as u64 == COUNT + 1 {
            break;
        }
    }
    let outcome = timeout(PATIENCE, run).await.expect("the run ends");
    assert!(matches!(outcome, Ok(Outcome::Finished)));
    let (of_others, _) = crew.end();
    let of_first = first.join().expect("no panic");
    assert_eq!((of_first + of_others) as u64, COUNT);
    assert_eq!(pool.stats().duplicates, COUNT);
}

#[tokio::test]
async fn hands_wait_while_nobody_takes_their_results_and_end_with_a_cancel() {
    let (batches, mut delivered) = mpsc::unbounded_channel();
    let (pool, calls, hands, run) = driven(batches, options(2));
    let run = tokio::spawn(run);
    let crew = drive_called(calls, hands, false);
    pool.add((0..100_000).collect()).expect("open");
    let Options { window, batch, .. } = options(2);
    let mut taken = 0;
    for _ in 0..window.get() {
        let batch = timeout(PATIENCE, delivered.recv()).await.expect("in time");
        taken += batch.expect("the run goes on").len();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(delivered.try_recv().is_err(), "more than the window");
    pool.cancel();
    let outcome = timeout(PATIENCE, run).await.expect("the run ends");
    assert!(matches!(outcome, Ok(Outcome::Cancelled)));
    let ran = crew.ran();
    assert!(
        ran <= taken + 2 * batch.get() + 2,
        "{ran} were run, {taken} delivered"
    );
}

#[tokio::test]
async fn the_first_error_ends_the_run_where_errors_stop() {
    let (batches, _delivered) = mpsc::unbounded_channel();
    let options = Options {
        on_error: OnError::Stop,
        ..options(2)
    };
    let (pool, calls, hands, run) = driven(batches, options);
    let run = tokio::spawn(run);
    let crew = drive_called(calls, hands, false);
    pool.add(vec![1, 2, FAILS]).expect("open");
    let outcome = timeout(PATIENCE, run).await.expect("the run ends");
    assert!(matches!(outcome, Ok(Outcome::Failed(FAILS, _))));
    assert!(crew.ran() <= 3);
}

#[tokio::test]
async fn a_run_of_nothing_ends_when_it_is_closed_and_a_dropped_one_ends_its_hands() {
    let (batches, _delivered) = mpsc::unbounded_channel();
    let (pool, calls, hands, run) = driven(batches.clone(), options(2));
    let run = tokio::spawn(run);
    let crew = drive_called(calls, hands, false);
    pool.close();
    let outcome = timeout(PATIENCE, run).await.expect("the run ends");
    assert!(matches!(outcome, Ok(Outcome::Finished)));
    assert_eq!(crew.ran(), 0);

    let (_pool, _calls, hands, run) = driven(batches, options(2));
    let sleeper = drive(hands.hand(), false);
    drop(run);
    hands.wake_all();
    assert_eq!(sleeper.join().expect("no panic"), 0);
}

#[tokio::test]
async fn hands_are_called_one_by_one_while_there_is_work_that_nobody_takes() {
    let (batches, _delivered) = mpsc::unbounded_channel();
    let (pool, calls, hands, run) = driven(batches, options(1_000_000));
    let run = tokio::spawn(run);
    let mut noop = Context::from_waker(Waker::noop());
    let called = || calls.try_iter().collect::<Vec<_>>();
    assert_eq!(called(), [], "without work");
    pool.add((0..3).collect()).expect("open");
    pool.add((3..5).collect()).expect("open");
    assert_eq!(called(), [1], "the next one when this one has come");
    let mut working = Vec::new();
    for next in 2..=5 {
        let mut hand = hands.hand();
        assert!(hand.poll_next(&mut noop).is_ready());
        working.push(hand);
        assert_eq!(called(), [next]);
    }
    let mut last = hands.hand();
    assert!(last.poll_next(&mut noop).is_ready());
    assert_eq!(called(), [], "nothing is left");
    last.finish(Ok((0, vec![])));
    assert!(last.poll_next(&mut noop).is_pending());
    pool.add(vec![5]).expect("open");
    assert_eq!(called(), [], "one sleeps, and is woken");
    assert!(last.poll_next(&mut noop).is_ready());
    pool.add(vec![6]).expect("open");
    assert_eq!(called(), [6]);
    pool.cancel();
    let outcome = timeout(PATIENCE, run).await.expect("the run ends");
    assert!(matches!(outcome, Ok(Outcome::Cancelled)));
}

#[tokio::test]
async fn no_more_hands_are_called_than_are_allowed() {
    let (batches, _delivered) = mpsc::unbounded_channel();
    let (pool, calls, hands, _run) = driven(batches, options(2));
    let mut noop = Context::from_waker(Waker::noop());
    pool.add((0..10).collect()).expect("open");
    let mut working: Vec<_> = (0..2).map(|_| hands.hand()).collect();
    for hand in &mut working {
        assert!(hand.poll_next(&mut noop).is_ready());
    }
    pool.add((10..20).collect()).expect("open");
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), [1, 2]);
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn hands_that_wait_for_room_are_woken_when_there_is_some() {
    let (batches, mut delivered) = mpsc::unbounded_channel();
    let one = NonZeroUsize::MIN;
    let options = Options {
        batch: one,
        window: one,
        ..options(10)
    };
    let (pool, _calls, hands, run) = driven(batches, options);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    pool.add((0..10).collect()).expect("open");
    let mut working: Vec<_> = (0..10).map(|_| hands.hand()).collect();
    for hand in &mut working {
        assert!(hand.poll_next(&mut context).is_ready());
    }
    for hand in &mut working {
        hand.finish(Ok((0, vec![])));
    }
    for hand in &mut working {
        assert!(hand.poll_next(&mut context).is_pending());
    }
    let run = tokio::spawn(run);
    for received in 1..=10 {
        timeout(PATIENCE, delivered.recv()).await.expect("in time");
        // Those before this one have left room for nobody: up to two are waiting to be delivered.
        if received <= 8 {
            assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        }
        pool.ack(1);
    }
    pool.close();
    let outcome = timeout(PATIENCE, run).await.expect("the run ends");
    assert!(matches!(outcome, Ok(Outcome::Finished)));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 10);
}
