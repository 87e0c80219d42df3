// SPDX-License-Identifier: Apache-2.0
//! The NIF library behind `src/tokamak_nif.erl`.

/// Version of the interface between this library and `src/tokamak_nif.erl`.
///
/// Raise it here and in the Erlang module together, whenever a NIF is added, removed or changed.
const ABI_VERSION: u32 = 1;

/// What `src/tokamak_nif.erl` looks for in the file before it loads it, see its `load/0`.
#[used]
static ABI_MARKER: [u8; 22] = *b"tokamak_abi_version=1\0";

/// Returns the version of the interface this library was built for.
#[rustler::nif]
fn abi_version() -> u32 {
    ABI_VERSION
}

rustler::init!("tokamak_nif");
