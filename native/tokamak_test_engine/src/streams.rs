// SPDX-License-Identifier: Apache-2.0
//! Streams, with their items counted as they are produced.

use crate::counters::{Guard, increment};
use crate::failures::{Failure, Unencodable};
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use tokamak::{Bytes, StreamHub};

/// The numbers from 1, without end; each is counted when it is produced.
#[tokamak::op(stream)]
fn numbers(key: u64) -> impl Stream<Item = u64> {
    stream::iter(1..).inspect(move |_| increment(key))
}

/// Never has an item; counted while it lives.
#[tokamak::op(stream)]
fn silence(key: u64) -> impl Stream<Item = u64> {
    let guard = Guard::new(key);
    stream::unfold(guard, |guard| async move {
        std::future::pending::<()>().await;
        Some((0, guard))
    })
}

/// So many binaries of so many bytes, each its own.
#[tokamak::op(stream)]
fn binaries(count: u64, size: usize) -> impl Stream<Item = Bytes> {
    stream::iter(0..count).map(move |index| Bytes::from(vec![index as u8; size]))
}

/// The numbers from 1 to each of these, merged; the last handle of the hub goes when all are in.
#[tokamak::op(stream)]
fn merged(counts: Vec<u64>) -> impl Stream<Item = u64> {
    let (hub, merged) = StreamHub::new();
    tokio::spawn(async move {
        for count in counts {
            tokio::task::yield_now().await;
            if hub.add(stream::iter(1..=count)).is_err() {
                break;
            }
        }
    });
    merged
}

/// So many numbers, then an error.
#[tokamak::op(stream)]
fn fails_after(count: u64) -> impl Stream<Item = Result<u64, Failure>> {
    stream::iter(1..=count)
        .map(Ok)
        .chain(stream::iter([Err(Failure::Exhausted), Ok(0)]))
}

/// So many numbers, then a panic.
#[tokamak::op(stream)]
fn panics_after(count: u64) -> impl Stream<Item = u64> {
    stream::iter(1..).inspect(move |number| assert!(*number <= count, "after {count}"))
}

/// Panics before it is a stream.
#[tokamak::op(stream)]
fn panics_at_open(text: String) -> impl Stream<Item = u64> {
    assert!(text.is_empty(), "{text}");
    stream::empty()
}

/// An item that cannot be encoded.
#[tokamak::op(stream)]
fn unencodable_items() -> impl Stream<Item = Unencodable> {
    stream::iter([Unencodable, Unencodable])
}
