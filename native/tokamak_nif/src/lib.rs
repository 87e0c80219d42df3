// SPDX-License-Identifier: Apache-2.0
//! The NIF library behind `src/tokamak_nif.erl`.
//!
//! A file here mirrors the Erlang module of the same name (`fd.rs`: `tokamak_fd`, `id.rs`:
//! `tokamak_id`; `loop_nifs.rs`: `tokamak_loop`); the others are their parts.

mod atoms;
mod descriptors;
mod drain;
mod entry;
mod event_loop;
mod fd;
mod foreign_poll;
mod handle;
mod handlers;
mod id;
mod library;
mod loop_nifs;
mod operations;
mod os_environment;
mod parked;
mod payload;
mod progress;
mod select;
mod stats;
mod submissions;
#[cfg(target_os = "linux")]
mod subprocess;
mod table;
mod transfer;
mod wakes;
mod watch;
mod watches;

/// Version of the interface between this library and `src/tokamak_nif.erl`.
///
/// Raise it here and in the Erlang module together, whenever a NIF is added, removed or changed.
const ABI_VERSION: u32 = 8;

/// What `src/tokamak_nif.erl` looks for in the file before it loads it, see its `load/0`.
#[used]
static ABI_MARKER: [u8; 22] = *b"tokamak_abi_version=8\0";

/// Returns the version of the interface this library was built for.
#[rustler::nif]
fn abi_version() -> u32 {
    ABI_VERSION
}

fn load(env: rustler::Env) -> bool {
    tokamak::submit::set_find_loop(submissions::find_loop);
    tokamak::progress::set_report(progress::report);
    select::HANDLES.open(env, c"tokamak_fd") && loop_nifs::HANDLES.open(env, c"tokamak_loop")
}

tokamak::nif!("tokamak_nif", load = load);
