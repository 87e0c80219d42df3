// SPDX-License-Identifier: Apache-2.0
//! Transactions as a duplex operation: changes come in, and what became of them goes out.

use crate::error::StoreError;
use crate::store::{Change, Handle};
use rustler::{NifTaggedEnum, NifUnitEnum};
use tokamak::{Bytes, Inbox, Outbox};

/// `{put, Key, Value} | {delete, Key} | commit | abort`.
#[derive(NifTaggedEnum)]
enum Command {
    Put(Bytes, Bytes),
    Delete(Bytes),
    Commit,
    Abort,
}

#[derive(NifUnitEnum)]
enum Outcome {
    Committed,
    Aborted,
}

/// Collects changes until `commit` or `abort`, again and again: `{committed | aborted, Count}` for each.
#[tokamak::op(duplex)]
async fn session(
    mut input: Inbox<Command>,
    output: Outbox<(Outcome, usize)>,
    store: Handle,
) -> Result<(), StoreError> {
    let mut changes = Vec::new();
    while let Some(command) = input.recv().await {
        let outcome = match command {
            Command::Put(key, value) => {
                changes.push(Change::Put(key.to_vec(), value.to_vec()));
                continue;
            }
            Command::Delete(key) => {
                changes.push(Change::Delete(key.to_vec()));
                continue;
            }
            Command::Commit => Outcome::Committed,
            Command::Abort => Outcome::Aborted,
        };
        let changes = std::mem::take(&mut changes);
        let count = changes.len();
        if matches!(outcome, Outcome::Committed) {
            commit(&store, changes).await?;
        }
        if output.send((outcome, count)).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn commit(store: &Handle, changes: Vec<Change>) -> Result<(), StoreError> {
    let store = store.clone();
    let applied = tokio::task::spawn_blocking(move || store.apply(changes));
    applied.await.map_err(|_| StoreError::Stopping)?
}
