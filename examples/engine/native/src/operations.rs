// SPDX-License-Identifier: Apache-2.0
//! The operations: what Erlang calls.

use crate::error::StoreError;
use crate::store::{Change, Handle, Store};
use futures_core::Stream;
use futures_util::stream;
use rustler::ResourceArc;
use tokamak::{Bytes, Path};
use tokio::sync::mpsc;

/// How many pairs a scan reads ahead of its stream.
const READ_AHEAD: usize = 64;

/// Opens a store, or makes one.
#[tokamak::op(blocking, limit = 4)]
fn open(path: Path) -> Result<Handle, StoreError> {
    Ok(ResourceArc::new(Store::open(&path.0)?))
}

/// The value of a key. Eager: what is cached is there without a message; only the rest is read from disk,
/// by a thread that may block.
#[tokamak::op(eager)]
async fn get(store: Handle, key: Bytes) -> Result<Bytes, StoreError> {
    match store.cached(&key) {
        Some(value) => Ok(value.into()),
        None => read(store, key).await,
    }
}

async fn read(store: Handle, key: Bytes) -> Result<Bytes, StoreError> {
    let value = tokio::task::spawn_blocking(move || store.read(&key));
    // The thread pool of a runtime that stops takes nothing more.
    Ok(value.await.map_err(|_| StoreError::Stopping)??.into())
}

/// Sets the value of a key. The database has one writer at a time, so more threads would only wait.
#[tokamak::op(blocking, limit = 1)]
fn put(store: Handle, key: Bytes, value: Bytes) -> Result<(), StoreError> {
    store.apply(vec![Change::Put(key.to_vec(), value.to_vec())])
}

/// Removes a key.
#[tokamak::op(blocking, limit = 1)]
fn delete(store: Handle, key: Bytes) -> Result<(), StoreError> {
    store.apply(vec![Change::Delete(key.to_vec())])
}

/// Waits until there is such a key: its value.
#[tokamak::op]
async fn wait_for(store: Handle, key: Bytes) -> Result<Bytes, StoreError> {
    loop {
        // Announced before the look, so that no change falls in between.
        let changed = store.changed.notified();
        match read(store.clone(), key.clone()).await {
            Err(StoreError::NotFound) => changed.await,
            result => return result,
        }
    }
}

type Pair = (Bytes, Bytes);

/// The pairs whose keys begin with a prefix, in the order of their keys. They are read no faster than
/// they are taken, and no more once the stream is closed.
#[tokamak::op(stream)]
fn scan(store: Handle, prefix: Bytes) -> impl Stream<Item = Result<Pair, StoreError>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let read = move || {
        let last = store.scan(&prefix, |key, value| {
            let pair = (Bytes::from(key), Bytes::from(value));
            sender.blocking_send(Ok(pair)).is_ok()
        });
        if let Err(error) = last {
            // Nobody listens any more: nobody wants to know.
            let _ = sender.blocking_send(Err(error));
        }
    };
    stream::unfold((receiver, Some(read)), |(mut receiver, read)| async move {
        if let Some(read) = read {
            tokio::task::spawn_blocking(read);
        }
        let pair = receiver.recv().await?;
        Some((pair, (receiver, None)))
    })
}
