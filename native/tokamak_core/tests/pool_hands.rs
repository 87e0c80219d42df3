// SPDX-License-Identifier: Apache-2.0
//! A worker pool whose workers others drive.
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use tokamak_core::pool::{
    Begun, Discovered, Hand, ItemResult, OnError, Options, Outcome, Pool, Work,
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
        let (pool, hands, run) = Pool::driven(Job { batches }, options(3));
        let run = tokio::spawn(run);
        let drivers = hands.into_iter().map(|hand| drive(hand, true)).collect();
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
        assert_eq!(ran(drivers), 602);
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
    let (pool, mut hands, run) = Pool::driven(Job { batches }, options(2));
    let run = tokio::spawn(run);
    let mut first = hands.pop().expect("a hand");
    let mut noop = Context::from_waker(Waker::noop());
    pool.add(vec![COUNT]).expect("open");
    pool.close();
    assert!(matches!(
        first.poll_next(&mut noop),
        Poll::Ready(Some(&COUNT))
    ));
    // Each twice.
    first.discover((0..COUNT).collect());
    first.finish(Ok((COUNT, (0..COUNT).collect())));
    hands.push(first);
    let drivers = hands.into_iter().map(|hand| drive(hand, false)).collect();
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
    assert_eq!(ran(drivers) as u64, COUNT);
    assert_eq!(pool.stats().duplicates, COUNT);
}

#[tokio::test]
async fn hands_wait_while_nobody_takes_their_results_and_end_with_a_cancel() {
    let (batches, mut delivered) = mpsc::unbounded_channel();
    let (pool, hands, run) = Pool::driven(Job { batches }, options(2));
    let run = tokio::spawn(run);
    let drivers: Vec<_> = hands.into_iter().map(|hand| drive(hand, false)).collect();
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
    let ran = ran(drivers);
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
    let (pool, hands, run) = Pool::driven(Job { batches }, options);
    let run = tokio::spawn(run);
    let drivers = hands.into_iter().map(|hand| drive(hand, false)).collect();
    pool.add(vec![1, 2, FAILS]).expect("open");
    let outcome = timeout(PATIENCE, run).await.expect("the run ends");
    assert!(matches!(outcome, Ok(Outcome::Failed(FAILS, _))));
    assert!(ran(drivers) <= 3);
}

#[tokio::test]
async fn a_run_of_nothing_ends_when_it_is_closed_and_a_dropped_one_ends_its_hands() {
    let (batches, _delivered) = mpsc::unbounded_channel();
    let (pool, hands, run) = Pool::driven(
        Job {
            batches: batches.clone(),
        },
        options(2),
    );
    let run = tokio::spawn(run);
    let drivers = hands.into_iter().map(|hand| drive(hand, false)).collect();
    pool.close();
    let outcome = timeout(PATIENCE, run).await.expect("the run ends");
    assert!(matches!(outcome, Ok(Outcome::Finished)));
    assert_eq!(ran(drivers), 0);

    let (_pool, hands, run) = Pool::driven(Job { batches }, options(2));
    let drivers = hands.into_iter().map(|hand| drive(hand, false)).collect();
    drop(run);
    assert_eq!(ran(drivers), 0);
}
