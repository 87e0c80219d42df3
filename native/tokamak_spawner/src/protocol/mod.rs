// SPDX-License-Identifier: Apache-2.0
//! The messages between the VM and its spawner, as bytes.
//!
//! | from the VM | means |
//! |---|---|
//! | [`Request::Start`] | start a child; answered by `Started` or `StartFailed` |
//! | [`Request::Signal`] | send a signal to the child or its process group |
//! | [`Request::Stop`] | end the child and all its descendants: TERM, then KILL |
//! | [`Request::Release`] | report nothing more about this child |
//! | [`Request::Environment`] | keep this environment for the starts to come |
//!
//! | from the spawner | means |
//! |---|---|
//! | [`Reply::Hello`] | the first message: version, and how to know the descendants |
//! | [`Reply::Started`] | the child runs; its pipes travel with this message |
//! | [`Reply::StartFailed`] | no child was made, or an environment could not be read; the last message about the id |
//! | [`Reply::Exited`] | the exact exit of the child, once |
//! | [`Reply::Gone`] | the last descendant ended; the last message about the id |
//!
//! The order for one id is `Started`, `Exited`, `Gone`, where `Exited` with `all_gone` stands for the
//! last two. Integers are little-endian; a byte string is its length as u32 and its bytes. Both sides
//! come from one build, so a version that differs ends the connection.

mod reply;
mod request;
mod wire;

pub use reply::{ExitStatus, Reply, Streams};
pub use request::{Base, EnvironmentChange, HEAD, Input, Output, Request, StartRequest, Subject};
pub use wire::Malformed;

/// The version of these messages. Raise it with every change to their bytes.
pub const VERSION: u32 = 3;

/// The longest request in bytes. Linux itself allows 6 MiB of arguments and environment at most.
pub const MAX_REQUEST: usize = 8 * 1024 * 1024;
