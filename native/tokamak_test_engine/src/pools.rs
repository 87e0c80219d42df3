// SPDX-License-Identifier: Apache-2.0
//! Graphs from arithmetic, for the tests and benchmarks of pools. `test/support/pool_graphs.erl` has the same
//! in Erlang.

use rustler::NifTuple;
use std::time::Duration;
use tokamak::{Ctx, Path};

/// Items of the synthetic graphs.
const ITEMS: u64 = 1_000_000;

fn existing(children: impl Iterator<Item = u64>) -> Vec<u64> {
    children.filter(|child| *child < ITEMS).collect()
}

/// Each item leads to the next.
#[tokamak::op(eager)]
async fn chain(item: u64) -> (u64, Vec<u64>) {
    (item * 2, existing(std::iter::once(item + 1)))
}

/// The first item leads to all others.
#[tokamak::op(eager)]
async fn star(item: u64) -> (u64, Vec<u64>) {
    let children = if item == 0 {
        existing(1..ITEMS)
    } else {
        Vec::new()
    };
    (item * 2, children)
}

/// Each item leads to four.
#[tokamak::op(eager)]
async fn tree(item: u64) -> (u64, Vec<u64>) {
    (item * 2, existing(4 * item + 1..=4 * item + 4))
}

/// Each item is discovered ten times over.
#[tokamak::op(eager)]
async fn dense(item: u64) -> (u64, Vec<u64>) {
    (
        item * 2,
        (1..=10).map(|n| (item * 10 + n) % ITEMS).collect(),
    )
}

/// A text, by its length, leads to itself without its first and without its last character. None has a `!`.
#[tokamak::op(eager)]
async fn shorten(text: String) -> Result<(usize, Vec<String>), String> {
    if text.contains('!') {
        return Err(text);
    }
    let mut shorter = Vec::new();
    if let (Some((_, rest)), Some((last, _))) =
        (text.split_at_checked(1), text.char_indices().next_back())
    {
        shorter.extend([rest.to_owned(), text[..last].to_owned()]);
    }
    Ok((text.len(), shorter))
}

/// A number leads to the one as far from the other end.
#[tokamak::op(eager)]
async fn mirror(number: u64) -> (u64, Vec<u64>) {
    (u64::MAX - number, vec![u64::MAX - number])
}

/// A path, by the number of its bytes, leads to where it lies.
#[tokamak::op(eager)]
async fn parent(path: Path) -> (usize, Vec<Path>) {
    let parent = path.0.parent().map(|parent| Path(parent.to_owned()));
    (path.0.as_os_str().len(), parent.into_iter().collect())
}

/// A node of a random graph: what it discovers and whether it fails follow from its numbers.
#[derive(Clone, Copy, NifTuple)]
struct Node {
    seed: u64,
    size: u64,
    /// Of a thousand nodes so many fail.
    failing: u64,
    number: u64,
}

impl Node {
    fn random(self, salt: u64) -> u64 {
        let mixed =
            (self.seed ^ (self.number << 20) ^ (salt << 50)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 32)
    }

    fn discover(self) -> Result<(u64, Vec<Self>), String> {
        let kind = self.random(0) % 1000;
        if kind < self.failing {
            assert!(kind.is_multiple_of(2), "an odd one");
            return Err("an even one".to_owned());
        }
        let children = (1..=self.random(1) % 5).map(|nth| Self {
            number: self.random(nth + 1) % self.size,
            ..self
        });
        Ok((self.number, children.collect()))
    }
}

/// A node that is ready at once.
#[tokamak::op(eager)]
async fn random_graph(node: Node) -> Result<(u64, Vec<Node>), String> {
    node.discover()
}

/// A node that waits now and then.
#[tokamak::op]
async fn slow_random_graph(node: Node) -> Result<(u64, Vec<Node>), String> {
    if node.random(9).is_multiple_of(8) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    node.discover()
}

/// A node on a thread that may block.
#[tokamak::op(blocking)]
fn blocking_random_graph(node: Node) -> Result<(u64, Vec<Node>), String> {
    node.discover()
}

/// Leads on for ever.
#[tokamak::op]
async fn endless(item: u64) -> (u64, Vec<u64>) {
    tokio::task::yield_now().await;
    (item, vec![item + 1, item + 2])
}

/// Never ends, and leads nowhere.
#[tokamak::op]
async fn hangs(_item: u64) -> (u64, Vec<u64>) {
    std::future::pending().await
}

/// Reports its progress step by step, as fast as it can.
#[tokamak::op(blocking)]
fn report_progress(ctx: Ctx, steps: u64) -> bool {
    (1..=steps).all(|step| ctx.progress(step, steps))
}
