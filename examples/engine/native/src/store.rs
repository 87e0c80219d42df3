// SPDX-License-Identifier: Apache-2.0
//! The store itself. Knows nothing of Erlang but that it is a resource, so that a term can stand for it.

use crate::error::StoreError;
use redb::{Database, ReadableDatabase, TableDefinition};
use rustler::{Resource, ResourceArc};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("pairs");

/// A change of one key.
pub enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

/// A database with what was read from it lately.
pub struct Store {
    database: Database,
    cache: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    /// Tells those who wait for a key.
    pub changed: Notify,
}

#[rustler::resource_impl]
impl Resource for Store {}

/// What callers hold: opened once, closed when the last reference to it is gone.
pub type Handle = ResourceArc<Store>;

impl Store {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::create(path)?;
        let write = database.begin_write()?;
        write.open_table(TABLE)?;
        write.commit()?;
        Ok(Self {
            database,
            cache: Mutex::default(),
            changed: Notify::new(),
        })
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Vec<u8>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn cached(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache().get(key).cloned()
    }

    pub fn read(&self, key: &[u8]) -> Result<Vec<u8>, StoreError> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let value = table.get(key)?.ok_or(StoreError::NotFound)?;
        let value = value.value().to_vec();
        self.cache().insert(key.to_vec(), value.clone());
        Ok(value)
    }

    /// All changes, or none.
    pub fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            for change in &changes {
                match change {
                    Change::Put(key, value) => table.insert(&key[..], &value[..])?,
                    Change::Delete(key) => table.remove(&key[..])?,
                };
            }
        }
        write.commit()?;
        let mut cache = self.cache();
        for change in changes {
            match change {
                Change::Put(key, value) => cache.insert(key, value),
                Change::Delete(key) => cache.remove(&key),
            };
        }
        drop(cache);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Calls `take` with each pair whose key begins with `prefix`, in order, until it says no.
    pub fn scan(
        &self,
        prefix: &[u8],
        mut take: impl FnMut(Vec<u8>, Vec<u8>) -> bool,
    ) -> Result<(), StoreError> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        for pair in table.range(prefix..)? {
            let (key, value) = pair?;
            if !key.value().starts_with(prefix) {
                break;
            }
            if !take(key.value().to_vec(), value.value().to_vec()) {
                break;
            }
        }
        Ok(())
    }
}
