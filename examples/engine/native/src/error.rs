// SPDX-License-Identifier: Apache-2.0
//! What goes wrong, as callers see it: `{error, {Kind, Text}}`.

use tokamak::OperationError;

/// An error of the store. The kind is the variant's name in snake case.
#[derive(Debug, thiserror::Error, OperationError)]
pub enum StoreError {
    #[error("there is no such key")]
    NotFound,
    #[error("{0}")]
    Database(#[from] redb::Error),
    #[error("the store is stopping")]
    Stopping,
}

/// The database has an error type for each of its steps; `redb::Error` is all of them.
macro_rules! from_database {
    ($($name:ident),*) => {
        $(impl From<redb::$name> for StoreError {
            fn from(error: redb::$name) -> Self {
                Self::Database(error.into())
            }
        })*
    };
}

from_database!(
    DatabaseError,
    TransactionError,
    TableError,
    StorageError,
    CommitError
);
