// SPDX-License-Identifier: Apache-2.0
//! Duplex operations.

use crate::counters::Guard;
use crate::failures::Failure;
use std::sync::Arc;
use tokamak::{Bytes, Inbox, Outbox};

/// Gives the sum of what was pushed so far, after each push.
#[tokamak::op(duplex)]
async fn sums(mut input: Inbox<i64>, output: Outbox<i64>, start: i64) {
    let mut sum = start;
    while let Some(number) = input.recv().await {
        sum += number;
        if output.send(sum).await.is_err() {
            return;
        }
    }
}

/// Gives the length of each list that was pushed.
#[tokamak::op(duplex)]
async fn lengths_of_pushed(mut input: Inbox<Vec<u8>>, output: Outbox<usize>) {
    while let Some(list) = input.recv().await {
        if output.send(list.len()).await.is_err() {
            return;
        }
    }
}

/// Never takes anything; counted while it lives.
#[tokamak::op(duplex)]
async fn takes_nothing(key: u64, _input: Inbox<i64>, _output: Outbox<i64>) {
    let _guard = Guard::new(key);
    std::future::pending().await
}

/// Takes so many items, gives none, and ends.
#[tokamak::op(duplex)]
async fn takes(mut input: Inbox<i64>, _output: Outbox<i64>, count: u64) -> Result<(), Failure> {
    for _ in 0..count {
        input.recv().await;
    }
    Ok(())
}

/// Takes one item and fails.
#[tokamak::op(duplex)]
async fn takes_one_and_fails(mut input: Inbox<i64>, output: Outbox<i64>) -> Result<(), Failure> {
    let item = input.recv().await.unwrap_or(0);
    let _ = output.send(item).await;
    Err(Failure::Exhausted)
}

/// Takes one item and panics.
#[tokamak::op(duplex)]
async fn takes_one_and_panics(mut input: Inbox<String>, _output: Outbox<i64>) {
    let text = input.recv().await.unwrap_or_default();
    panic!("{text}");
}

/// Has many tasks send until nobody takes any more, each counted; ends when it is given something.
#[tokamak::op(duplex)]
async fn many_send(key: u64, senders: u64, mut input: Inbox<i64>, output: Outbox<u64>) {
    let output = Arc::new(output);
    for sender in 0..senders {
        let output = Arc::clone(&output);
        tokio::spawn(async move {
            let _guard = Guard::new(key);
            while output.send(sender).await.is_ok() {}
        });
    }
    input.recv().await;
}

/// Gives back what it was given.
#[tokamak::op(duplex)]
async fn mirrors(mut input: Inbox<Bytes>, output: Outbox<Bytes>) {
    while let Some(bytes) = input.recv().await {
        if output.send(bytes).await.is_err() {
            return;
        }
    }
}
