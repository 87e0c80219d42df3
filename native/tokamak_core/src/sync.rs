// SPDX-License-Identifier: Apache-2.0
//! The synchronisation primitives of the algorithms that loom checks: loom's under `--cfg loom`,
//! the standard library's otherwise.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
