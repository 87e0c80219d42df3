// SPDX-License-Identifier: Apache-2.0
//! Every interleaving of workers that push, finish, fail and sleep with adds, closes and stops from
//! outside: each item is run once, and a run ends when it should, not before, not never.
//!
//! A run that never ends is a deadlock, which loom reports.

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread::{self, JoinHandle};

use super::frontier::{CHUNK, Frontier, Worker};
use super::recruits::Recruits;

/// Item `n` discovers item `n - 1`, an item of the other kind nothing.
#[derive(Clone, Copy)]
enum Item {
    Chain(usize),
    Pair,
    Leaf,
    /// Fails and ends the run.
    Broken,
    /// Discovers two that have to be in hand at the same time.
    Couple,
    Meeting,
    /// Is not run, as if its key had been seen before.
    Seen,
}

impl Item {
    fn discovers(self) -> Vec<Item> {
        match self {
            Item::Chain(1) => vec![Item::Leaf],
            Item::Chain(n) => vec![Item::Chain(n - 1)],
            Item::Pair => vec![Item::Leaf, Item::Seen, Item::Leaf],
            Item::Couple => vec![Item::Meeting, Item::Meeting],
            Item::Leaf | Item::Broken | Item::Meeting | Item::Seen => vec![],
        }
    }
}

fn choose(items: &mut Vec<Item>) {
    items.retain(|item| !matches!(item, Item::Seen));
}

struct Run {
    frontier: Frontier<Item>,
    done: AtomicUsize,
    in_hand: AtomicUsize,
    met: Mutex<usize>,
    meeting: Condvar,
}

fn model(check: impl Fn(Arc<Run>) + Sync + Send + 'static) {
    explore(move || check(Arc::new(Run::new(Recruits::none()))));
}

fn explore(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // Enough for every known race of two threads, and the models stay within seconds.
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(check);
}

impl Run {
    fn new(recruits: Recruits) -> Self {
        Self {
            frontier: Frontier::new(recruits),
            done: AtomicUsize::new(0),
            in_hand: AtomicUsize::new(0),
            met: Mutex::new(0),
            meeting: Condvar::new(),
        }
    }

    fn add(&self, items: &[Item]) -> bool {
        self.frontier
            .admit(items.len() as u64, || items.iter().copied())
            .is_ok()
    }

    fn stop(&self) -> bool {
        let stopped = self.frontier.stop();
        if stopped {
            self.frontier.tell_stop();
        }
        stopped
    }

    /// What a hand does, without results.
    async fn work_by_hand(&self) {
        while !self.frontier.is_stopped() {
            let Some(item) = self.frontier.take() else {
                if self.frontier.is_over() {
                    break;
                }
                self.frontier.sleep().await;
                continue;
            };
            let mut found = item.discovers();
            let counted = found.len() as u64;
            self.frontier.dispatch(counted);
            choose(&mut found);
            let seen = counted - found.len() as u64;
            self.frontier.push(found);
            self.done.fetch_add(1, SeqCst);
            self.frontier.settle(1 + seen);
        }
    }

    /// What the tasks of the pool do, without results.
    async fn work(&self, chunk: usize) {
        let mut worker = Worker::new(&self.frontier, choose as fn(&mut Vec<Item>));
        worker.keep(chunk);
        while let Some(item) = worker.next().await {
            self.in_hand.fetch_add(1, SeqCst);
            self.run(item, &mut worker);
            self.done.fetch_add(1, SeqCst);
            self.in_hand.fetch_sub(1, SeqCst);
            worker.finish();
        }
        // No worker leaves a run that is not stopped while another has work that may discover more.
        assert!(self.frontier.is_stopped() || self.in_hand.load(SeqCst) == 0);
    }

    fn run(&self, item: Item, worker: &mut Worker<'_, Item, fn(&mut Vec<Item>)>) {
        match item {
            Item::Broken => {
                self.stop();
            }
            Item::Meeting => {
                worker.leave_the_rest_to_others();
                self.meet();
            }
            _ => worker.dispatch(item.discovers()),
        }
    }

    fn meet(&self) {
        let mut met = self.met.lock().unwrap();
        *met += 1;
        self.meeting.notify_all();
        while *met < 2 {
            met = self.meeting.wait(met).unwrap();
        }
    }
}

fn spawn_worker(run: &Arc<Run>) -> JoinHandle<()> {
    spawn_worker_with(run, 1)
}

/// One that queues what it discovered by the chunk.
fn spawn_keeping_worker(run: &Arc<Run>) -> JoinHandle<()> {
    spawn_worker_with(run, CHUNK)
}

fn spawn_worker_with(run: &Arc<Run>, chunk: usize) -> JoinHandle<()> {
    let run = Arc::clone(run);
    thread::spawn(move || block_on(run.work(chunk)))
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn loom_two_workers_run_what_an_item_discovers_and_both_end() {
    model(|run| {
        assert!(run.add(&[Item::Pair]));
        run.frontier.close();
        join([spawn_worker(&run), spawn_worker(&run)]);
        assert_eq!(run.done.load(SeqCst), 3);
        assert!(!run.frontier.is_stopped());
    });
}

#[test]
fn loom_a_sleeping_worker_sees_the_end_of_a_chain_that_another_runs() {
    model(|run| {
        assert!(run.add(&[Item::Chain(2)]));
        run.frontier.close();
        join([spawn_worker(&run), spawn_worker(&run)]);
        assert_eq!(run.done.load(SeqCst), 3);
    });
}

#[test]
fn loom_an_item_from_outside_wakes_a_worker_and_the_close_ends_it() {
    model(|run| {
        let worker = spawn_worker(&run);
        assert!(run.add(&[Item::Chain(1)]));
        run.frontier.close();
        join([worker]);
        assert_eq!(run.done.load(SeqCst), 2);
    });
}

#[test]
fn loom_two_workers_share_items_that_come_from_outside() {
    model(|run| {
        let workers = [spawn_worker(&run), spawn_worker(&run)];
        assert!(run.add(&[Item::Leaf, Item::Leaf]));
        run.frontier.close();
        join(workers);
        assert_eq!(run.done.load(SeqCst), 2);
    });
}

#[test]
fn loom_work_that_is_left_over_wakes_the_other_worker() {
    model(|run| {
        assert!(run.add(&[Item::Couple]));
        run.frontier.close();
        join([spawn_worker(&run), spawn_worker(&run)]);
        assert_eq!(run.done.load(SeqCst), 3);
    });
}

#[test]
fn loom_an_add_that_races_with_a_close_is_run_or_refused() {
    model(|run| {
        let worker = spawn_worker(&run);
        let closer = {
            let run = Arc::clone(&run);
            thread::spawn(move || run.frontier.close())
        };
        let added = run.add(&[Item::Leaf]);
        join([closer, worker]);
        assert_eq!(run.done.load(SeqCst), usize::from(added));
    });
}

#[test]
fn loom_an_add_of_nothing_new_ends_a_run_that_was_closed_meanwhile() {
    model(|run| {
        let worker = spawn_worker(&run);
        let closer = {
            let run = Arc::clone(&run);
            thread::spawn(move || run.frontier.close())
        };
        let _ = run.frontier.admit(2, std::iter::empty);
        join([closer, worker]);
        assert_eq!(run.done.load(SeqCst), 0);
    });
}

#[test]
fn loom_a_stop_from_outside_ends_all_workers_and_ends_the_run_once() {
    model(|run| {
        assert!(run.add(&[Item::Chain(1)]));
        run.frontier.close();
        let workers = [spawn_worker(&run), spawn_worker(&run)];
        let stopped = run.stop();
        assert!(!run.stop());
        join(workers);
        assert_eq!(stopped, run.frontier.is_stopped());
        assert!(stopped || run.done.load(SeqCst) == 2);
        assert!(!run.add(&[Item::Leaf]));
    });
}

#[test]
fn loom_an_error_ends_workers_that_sleep_in_an_open_run() {
    model(|run| {
        assert!(run.add(&[Item::Broken]));
        join([spawn_worker(&run), spawn_worker(&run)]);
        assert!(run.frontier.is_stopped());
        assert_eq!(run.done.load(SeqCst), 1);
    });
}

#[test]
fn loom_an_error_wins_or_loses_against_the_end_of_the_run() {
    model(|run| {
        assert!(run.add(&[Item::Leaf, Item::Broken]));
        run.frontier.close();
        join([spawn_worker(&run), spawn_worker(&run)]);
        assert!(run.frontier.is_stopped());
    });
}

#[test]
fn loom_workers_that_keep_items_run_each_once_and_both_end() {
    model(|run| {
        assert!(run.add(&[Item::Pair]));
        run.frontier.close();
        join([spawn_keeping_worker(&run), spawn_keeping_worker(&run)]);
        assert_eq!(run.done.load(SeqCst), 3);
    });
}

#[test]
fn loom_a_chain_that_is_kept_ends_for_a_worker_that_sleeps() {
    model(|run| {
        assert!(run.add(&[Item::Chain(2)]));
        run.frontier.close();
        join([spawn_keeping_worker(&run), spawn_worker(&run)]);
        assert_eq!(run.done.load(SeqCst), 3);
    });
}

#[test]
fn loom_what_a_worker_keeps_is_left_to_others_before_it_waits() {
    model(|run| {
        assert!(run.add(&[Item::Couple]));
        run.frontier.close();
        join([spawn_keeping_worker(&run), spawn_keeping_worker(&run)]);
        assert_eq!(run.done.load(SeqCst), 3);
    });
}

#[test]
fn loom_a_stop_ends_workers_that_keep_items() {
    model(|run| {
        assert!(run.add(&[Item::Pair]));
        run.frontier.close();
        let workers = [spawn_keeping_worker(&run), spawn_keeping_worker(&run)];
        let stopped = run.stop();
        join(workers);
        assert!(stopped || run.done.load(SeqCst) == 3);
    });
}

/// One that keeps nothing, and is not a task.
fn spawn_hand(run: &Arc<Run>) -> JoinHandle<()> {
    let run = Arc::clone(run);
    thread::spawn(move || block_on(run.work_by_hand()))
}

#[test]
fn loom_two_hands_run_what_an_item_discovers_and_both_end() {
    model(|run| {
        assert!(run.add(&[Item::Pair]));
        run.frontier.close();
        join([spawn_hand(&run), spawn_hand(&run)]);
        assert_eq!(run.done.load(SeqCst), 3);
    });
}

#[test]
fn loom_a_hand_that_sleeps_sees_a_chain_from_outside_and_the_end() {
    model(|run| {
        let hands = [spawn_hand(&run), spawn_hand(&run)];
        assert!(run.add(&[Item::Chain(1)]));
        run.frontier.close();
        join(hands);
        assert_eq!(run.done.load(SeqCst), 2);
    });
}

#[test]
fn loom_a_stop_ends_hands_that_sleep() {
    model(|run| {
        assert!(run.add(&[Item::Leaf]));
        let hands = [spawn_hand(&run), spawn_hand(&run)];
        assert!(run.stop());
        join(hands);
    });
}

/// How many hands were called; more than there are: nobody is waited for any more.
#[derive(Clone)]
struct Calls(Arc<(Mutex<usize>, Condvar)>);

impl Calls {
    fn set(&self, number: usize) {
        let (called, changed) = &*self.0;
        let mut called = called.lock().unwrap();
        *called = number.max(*called);
        changed.notify_all();
    }

    /// Waits until hand `number` is called. `false`: it is not any more.
    fn wait(&self, number: usize) -> bool {
        let (called, changed) = &*self.0;
        let mut called = called.lock().unwrap();
        while *called < number {
            called = changed.wait(called).unwrap();
        }
        *called < usize::MAX
    }
}

fn model_of_called(hands: usize, check: impl Fn(&Arc<Run>) -> usize + Sync + Send + 'static) {
    explore(move || {
        let calls = Calls(Arc::new((Mutex::new(0), Condvar::new())));
        let to_call = calls.clone();
        let recruits = Recruits::new(hands, Box::new(move |number| to_call.set(number)));
        let run = Arc::new(Run::new(recruits));
        let hands = (1..=hands).map(|number| {
            let (run, calls) = (Arc::clone(&run), calls.clone());
            thread::spawn(move || {
                if calls.wait(number) {
                    run.frontier.arrive();
                    block_on(run.work_by_hand());
                }
            })
        });
        let hands: Vec<_> = hands.collect();
        let expected = check(&run);
        block_on(run.frontier.over());
        run.frontier.wake_all();
        calls.set(usize::MAX);
        join(hands);
        assert_eq!(run.done.load(SeqCst), expected);
    });
}

#[test]
fn loom_hands_that_are_called_miss_no_item() {
    model_of_called(1, |run| {
        assert!(run.add(&[Item::Leaf]));
        assert!(run.add(&[Item::Leaf]));
        run.frontier.close();
        2
    });
}

#[test]
fn loom_a_hand_that_is_called_calls_the_next_for_what_is_left() {
    model_of_called(2, |run| {
        assert!(run.add(&[Item::Leaf, Item::Leaf]));
        run.frontier.close();
        2
    });
}
