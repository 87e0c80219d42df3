// SPDX-License-Identifier: Apache-2.0
//! Calls that wait, in every way there is.

use crate::counters::Guard;
use futures_util::FutureExt;
use std::time::Duration;
use tokamak::table::Data;
use tokamak::{Ctx, Path, Value};

/// Never ends; counted while it lives.
#[tokamak::op]
async fn never(key: u64) {
    let _guard = Guard::new(key);
    std::future::pending().await
}

/// An eager one that never ends.
#[tokamak::op(eager)]
async fn never_eagerly(key: u64) {
    let _guard = Guard::new(key);
    std::future::pending().await
}

/// Gives its value back after so many microseconds; 0: at its first poll.
#[tokamak::op(eager)]
async fn later(value: Value, microseconds: u64) -> Value {
    pause(microseconds).await;
    value
}

/// The same, not eager.
#[tokamak::op]
async fn later_in_runtime(value: Value, microseconds: u64) -> Value {
    pause(microseconds).await;
    value
}

async fn pause(microseconds: u64) {
    if microseconds > 0 {
        tokio::time::sleep(Duration::from_micros(microseconds)).await;
    }
}

/// Goes back to the runtime so often before it ends.
#[tokamak::op]
async fn yields(times: u64) -> u64 {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
    times
}

/// Goes back to the runtime so often, with an eager first poll.
#[tokamak::op(eager)]
async fn yields_eagerly(times: u64) -> u64 {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
    times
}

/// An eager operation that does what it must not: holds its scheduler.
#[tokamak::op(eager)]
async fn holds_scheduler(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// At most two at once.
#[tokamak::op(limit = 2)]
async fn two_at_once(key: u64, milliseconds: u64) {
    let _guard = Guard::new(key);
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// At most two at once, the first polls among them.
#[tokamak::op(eager, limit = 2)]
async fn two_at_once_eagerly(key: u64, milliseconds: u64) {
    let _guard = Guard::new(key);
    pause(milliseconds * 1000).await;
}

/// Waits for what the one before it holds.
#[tokamak::op(eager, limit = 1)]
async fn locks_eagerly(microseconds: u64) {
    static LOCK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _locked = LOCK.lock().await;
    pause(microseconds).await;
}

/// Blocks its thread so long.
#[tokamak::op(blocking)]
fn block(key: u64, milliseconds: u64) {
    let _guard = Guard::new(key);
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Holds its worker for so many milliseconds, as no operation should.
#[tokamak::op]
async fn hog(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Blocks one thread, at most.
#[tokamak::op(blocking, limit = 1)]
fn block_one(key: u64, milliseconds: u64) {
    let _guard = Guard::new(key);
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Blocks until nobody wants its result any more: a blocking call has to look for itself.
#[tokamak::op(blocking)]
fn block_until_cancelled(ctx: Ctx, key: u64) {
    let _guard = Guard::new(key);
    while !ctx.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Hands its work to a task of its own, which ends when the call is cancelled.
#[tokamak::op]
async fn delegates(ctx: Ctx, key: u64) {
    let guard = Guard::new(key);
    tokio::spawn(async move {
        ctx.cancelled().await;
        drop(guard);
    });
    std::future::pending().await
}

/// Hands work to a task of its own, which ends with the call, and has begun to wait for that before the call goes on.
fn hand_over(ctx: Ctx, key: u64) {
    let guard = Guard::new(key);
    let mut waits = Box::pin(async move {
        ctx.cancelled().await;
        drop(guard);
    });
    let _ = (&mut waits).now_or_never();
    tokio::spawn(waits);
}

/// Ends while the work that it handed over waits for that.
#[tokamak::op]
async fn hands_over(ctx: Ctx, key: u64) {
    hand_over(ctx, key);
}

/// The same at its first poll, or never.
#[tokamak::op(eager)]
async fn hands_over_eagerly(ctx: Ctx, key: u64, ends: bool) {
    hand_over(ctx, key);
    if !ends {
        std::future::pending::<()>().await;
    }
}

/// The number of the call.
#[tokamak::op]
async fn call_id(ctx: Ctx) -> u64 {
    ctx.call_id()
}

/// The number of the call that an item of a pool is.
#[tokamak::op]
async fn call_id_of_item(ctx: Ctx, _item: u64) -> (u64, Vec<u64>) {
    (ctx.call_id(), Vec::new())
}

/// Tells the loop it was submitted to so many times, then ends; whether all was taken.
#[tokamak::op]
async fn tells(ctx: Ctx, times: i64) -> bool {
    (1..=times).all(|time| ctx.event(Data::Integer(time)))
}

/// Removes a file when it is dropped.
struct RemovedOnDrop(std::path::PathBuf);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Never ends; there is a file as long as it runs.
#[tokamak::op]
async fn holds_file(path: Path) -> std::io::Result<()> {
    let Path(path) = path;
    std::fs::write(&path, b"")?;
    let _file = RemovedOnDrop(path);
    std::future::pending().await
}
