// SPDX-License-Identifier: Apache-2.0
//! A key-value store as an engine of tokamak: an embedded database (redb), with operations of every kind.

mod broken;
mod error;
mod operations;
mod session;
mod store;

tokamak::nif!("kv_engine");
