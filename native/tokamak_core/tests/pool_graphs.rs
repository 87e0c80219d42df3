// SPDX-License-Identifier: Apache-2.0
//! The worker pool on 10,000 random graphs, compared with a plain sequential traversal, under random
//! errors, panics, waits, stops and cancels.
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use proptest::prelude::*;
use tokamak_core::pool::{
    Begun, Discovered, ItemError, ItemResult, OnError, Options, Outcome, Pool, Work,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const CASES: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Succeed,
    SucceedLater,
    Fail,
    Panic,
}

#[derive(Clone, Debug)]
struct Node {
    behaviour: Behaviour,
    discovers: Vec<usize>,
}

#[derive(Debug)]
struct Graph {
    nodes: Vec<Node>,
    runs: Vec<AtomicU32>,
}

struct Job {
    graph: Arc<Graph>,
    batches: mpsc::UnboundedSender<Vec<ItemResult<Self>>>,
}

impl Work for Job {
    type Item = usize;
    type Key = usize;
    type Output = usize;
    type Error = usize;
    type Waits = ();

    fn key(&self, item: &usize) -> usize {
        *item
    }

    fn begin(&self, item: &usize) -> Begun<Discovered<Self>, ()> {
        self.graph.runs[*item].fetch_add(1, SeqCst);
        let node = &self.graph.nodes[*item];
        match node.behaviour {
            Behaviour::Succeed => Begun::Ended(Ok((*item, node.discovers.clone()))),
            Behaviour::SucceedLater => Begun::Waits(()),
            Behaviour::Fail => Begun::Ended(Err(*item)),
            // Not panic!: its hook would print ten thousand times.
            Behaviour::Panic => std::panic::resume_unwind(Box::new("panicked")),
        }
    }

    async fn wait(&self, item: &usize, (): ()) -> Discovered<Self> {
        tokio::task::yield_now().await;
        Ok((*item, self.graph.nodes[*item].discovers.clone()))
    }

    fn deliver(&self, batch: Vec<ItemResult<Self>>) {
        self.batches.send(batch).expect("the test waits");
    }
}

#[derive(Clone, Debug)]
struct Case {
    nodes: Vec<Node>,
    seeds: Vec<Vec<usize>>,
    options: Options,
    cancel_after_batches: Option<usize>,
}

fn node(size: usize) -> impl Strategy<Value = Node> {
    let behaviour = prop_oneof![
        12 => Just(Behaviour::Succeed),
        4 => Just(Behaviour::SucceedLater),
        1 => Just(Behaviour::Fail),
        1 => Just(Behaviour::Panic),
    ];
    let discovers = prop::collection::vec(0..size, 0..5);
    (behaviour, discovers).prop_map(|(behaviour, discovers)| Node {
        behaviour,
        discovers,
    })
}

fn options() -> impl Strategy<Value = Options> {
    let on_error = prop_oneof![3 => Just(OnError::Skip), 1 => Just(OnError::Stop)];
    let size = |n| NonZeroUsize::new(n).expect("not zero");
    (1_usize..6, 1_usize..4, 1_usize..6, on_error).prop_map(
        move |(workers, window, batch, on_error)| Options {
            workers: size(workers),
            window: size(window),
            batch: size(batch),
            on_error,
            max_items: None,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    (1_usize..40).prop_flat_map(|size| {
        let nodes = prop::collection::vec(node(size), size);
        let seeds = prop::collection::vec(prop::collection::vec(0..size, 0..4), 0..3);
        let cancel = prop::option::weighted(0.2, 0_usize..10);
        (nodes, seeds, options(), cancel).prop_map(
            |(nodes, seeds, options, cancel_after_batches)| Case {
                nodes,
                seeds,
                options,
                cancel_after_batches,
            },
        )
    })
}

/// What a sequential traversal runs.
fn reachable(case: &Case) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut left: Vec<usize> = case.seeds.concat();
    while let Some(item) = left.pop() {
        let node = &case.nodes[item];
        let succeeds = matches!(node.behaviour, Behaviour::Succeed | Behaviour::SucceedLater);
        if seen.insert(item) && succeeds {
            left.extend(&node.discovers);
        }
    }
    seen
}

type Results = BTreeMap<usize, Result<usize, ItemError<usize>>>;

async fn run(case: &Case, graph: &Arc<Graph>) -> (Results, Outcome<Job>) {
    let (sender, mut batches) = mpsc::unbounded_channel();
    let job = Job {
        graph: Arc::clone(graph),
        batches: sender,
    };
    let (pool, run) = Pool::new(job, case.options);
    let mut run = tokio::spawn(run);
    for seeds in &case.seeds {
        // An error may have stopped the run already.
        let _ = pool.add(seeds.clone());
    }
    pool.close();
    let mut results = Results::new();
    let mut take = |batch: Vec<ItemResult<Job>>| {
        for (item, result) in batch {
            assert!(
                results.insert(item, result).is_none(),
                "{item} was delivered twice"
            );
        }
    };
    let mut open_batches = 0;
    let outcome = loop {
        if case.cancel_after_batches == Some(open_batches) {
            pool.cancel();
        }
        tokio::select! {
            Some(batch) = batches.recv() => {
                take(batch);
                open_batches += 1;
                pool.ack(1);
            }
            outcome = &mut run => break outcome.expect("no panic"),
        }
    };
    while let Ok(batch) = batches.try_recv() {
        take(batch);
    }
    (results, outcome)
}

fn check(runtime: &Runtime, case: &Case) -> Result<(), TestCaseError> {
    let runs = case.nodes.iter().map(|_| AtomicU32::new(0)).collect();
    let graph = Arc::new(Graph {
        nodes: case.nodes.clone(),
        runs,
    });
    let ended = runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(30), run(case, &graph)).await });
    let Ok((results, outcome)) = ended else {
        return Err(TestCaseError::fail("the run hangs"));
    };
    let expected = reachable(case);
    let broken = |item: &usize| {
        matches!(
            case.nodes[*item].behaviour,
            Behaviour::Fail | Behaviour::Panic
        )
    };
    for (item, result) in &results {
        prop_assert!(expected.contains(item));
        match case.nodes[*item].behaviour {
            Behaviour::Fail => prop_assert_eq!(result, &Err(ItemError::Failed(*item))),
            Behaviour::Panic => {
                prop_assert_eq!(result, &Err(ItemError::Panicked("panicked".into())))
            }
            _ => prop_assert_eq!(result, &Ok(*item)),
        }
    }
    for (item, runs) in graph.runs.iter().enumerate() {
        prop_assert!(runs.load(SeqCst) <= u32::from(expected.contains(&item)));
    }
    match outcome {
        Outcome::Finished => {
            let delivered: BTreeSet<usize> = results.keys().copied().collect();
            prop_assert_eq!(&delivered, &expected);
            let stops = case.options.on_error == OnError::Stop;
            prop_assert!(!stops || !expected.iter().any(broken));
        }
        Outcome::Cancelled => prop_assert!(case.cancel_after_batches.is_some()),
        Outcome::Failed(item, _) => {
            prop_assert!(case.options.on_error == OnError::Stop);
            prop_assert!(expected.contains(&item) && broken(&item));
        }
        Outcome::Crashed(text) => return Err(TestCaseError::fail(text)),
    }
    Ok(())
}

#[test]
fn every_key_of_a_random_graph_is_run_exactly_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    proptest!(ProptestConfig::with_cases(CASES), |(case in case())| {
        check(&runtime, &case)?;
    });
}
