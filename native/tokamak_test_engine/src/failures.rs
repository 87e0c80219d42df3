// SPDX-License-Identifier: Apache-2.0
//! Calls that fail, in every way there is.

use crate::counters::Guard;
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use rustler::{Decoder, Encoder, Env, NifResult, Term};
use tokamak::OperationError;

#[derive(Debug, thiserror::Error, OperationError)]
pub enum Failure {
    #[error("there is no {0}")]
    NotFound(String),
    #[error("it holds {limit} at most")]
    LimitReached { limit: u32 },
    #[error("no more")]
    Exhausted,
}

/// Fails with one of its errors.
#[tokamak::op]
async fn fails(which: u32) -> Result<u32, Failure> {
    match which {
        0 => Ok(0),
        1 => Err(Failure::NotFound("key".to_owned())),
        2 => Err(Failure::LimitReached { limit: 7 }),
        _ => Err(Failure::Exhausted),
    }
}

/// Succeeds with nothing.
#[tokamak::op]
async fn succeeds() -> Result<(), Failure> {
    Ok(())
}

/// Succeeds with nothing, eagerly.
#[tokamak::op(eager)]
async fn succeeds_eagerly() -> std::result::Result<(), Failure> {
    Ok(())
}

/// Fails eagerly.
#[tokamak::op(eager)]
async fn fails_eagerly() -> Result<(), Failure> {
    Err(Failure::Exhausted)
}

/// Fails with a text.
#[tokamak::op]
async fn fails_with_text(text: String) -> Result<(), String> {
    Err(text)
}

/// Fails as the operating system does.
#[tokamak::op(blocking)]
fn fails_with_io() -> std::io::Result<Vec<u8>> {
    std::fs::read("/there is no such file")
}

/// Panics in the runtime.
#[tokamak::op]
async fn panics(text: String) {
    tokio::task::yield_now().await;
    panic!("{text}");
}

/// Panics on the calling scheduler.
#[tokamak::op(eager)]
async fn panics_eagerly(text: String) {
    panic!("{text}");
}

/// Panics on a thread that may block.
#[tokamak::op(blocking)]
fn panics_blocking(text: String) {
    panic!("{text}");
}

/// Panics with something that is no text.
#[tokamak::op]
async fn panics_strangely() {
    std::panic::panic_any(42);
}

/// Panics when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// Panics when it is cancelled.
#[tokamak::op]
async fn panics_when_cancelled() {
    let _panics = PanicsOnDrop;
    std::future::pending::<()>().await;
}

impl Encoder for PanicsOnDrop {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        1.encode(env)
    }
}

/// A result that is sent, and panics when it is dropped then.
#[tokamak::op]
async fn panics_when_sent() -> PanicsOnDrop {
    PanicsOnDrop
}

/// Items that panic when they are dropped.
#[tokamak::op(stream)]
fn items_that_panic_on_drop() -> impl Stream<Item = PanicsOnDrop> {
    stream::repeat_with(|| PanicsOnDrop)
}

/// Leaves its clean-up to a task, as a drop cannot wait; counted until that ran.
struct SpawnsOnDrop(Option<Guard>);

impl Drop for SpawnsOnDrop {
    fn drop(&mut self) {
        let guard = self.0.take();
        tokio::spawn(async move { drop(guard) });
    }
}

impl Encoder for SpawnsOnDrop {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        1.encode(env)
    }
}

/// Items that spawn when they are dropped.
#[tokamak::op(stream)]
fn items_that_spawn_on_drop(key: u64) -> impl Stream<Item = SpawnsOnDrop> {
    stream::repeat(key).map(|key| SpawnsOnDrop(Some(Guard::new(key))))
}

/// Spawns when it is cancelled.
#[tokamak::op(eager)]
async fn spawns_when_cancelled(key: u64) {
    let _spawns = SpawnsOnDrop(Some(Guard::new(key)));
    std::future::pending::<()>().await;
}

/// An argument whose decoder panics.
struct PanicsAsArgument;

impl<'a> Decoder<'a> for PanicsAsArgument {
    fn decode(_: Term<'a>) -> NifResult<Self> {
        panic!("in the decoder");
    }
}

#[tokamak::op]
async fn panics_in_argument(_argument: PanicsAsArgument) {}

#[tokamak::op(eager)]
async fn panics_in_argument_eagerly(_argument: PanicsAsArgument) {}

/// A result that cannot be encoded.
pub struct Unencodable;

impl Encoder for Unencodable {
    fn encode<'a>(&self, _: Env<'a>) -> Term<'a> {
        panic!("in the encoder");
    }
}

#[tokamak::op]
async fn unencodable() -> Unencodable {
    Unencodable
}

#[tokamak::op(eager)]
async fn unencodable_eagerly() -> Unencodable {
    Unencodable
}

#[tokamak::op(blocking)]
fn unencodable_blocking() -> Unencodable {
    Unencodable
}
