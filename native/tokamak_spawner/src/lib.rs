// SPDX-License-Identifier: Apache-2.0
//! What the VM and its spawner share: the [`protocol`] they speak, the [`packet`]s it travels in, the
//! [`lineage`] by which a child's descendants are known, and the [`client`] that the VM uses.
//!
//! The spawner itself is the program of the same name (`main.rs` and `server/`). A process inside the
//! VM cannot own children: the BEAM ignores SIGCHLD, so the kernel throws exit statuses away.
//!
//! Linux only: elsewhere this crate is empty and its program refuses to run.
#![cfg(target_os = "linux")]

pub mod client;
pub mod errno;
pub mod lineage;
pub mod packet;
pub mod processes;
pub mod protocol;
