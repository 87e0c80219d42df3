#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# AddressSanitizer over the parts that run without a VM: the core, and the spawner's library with its protocol tests.
# Needs a nightly toolchain, and says so where there is none.
set -eu
cd "$(dirname "$0")/.."

if ! rustc +nightly --version >/dev/null 2>&1; then
    echo 'AddressSanitizer did not run: there is no nightly toolchain.'
    exit 0
fi
# The sanitizer wants a target that is named, so that build scripts and macros go without it.
target=$(rustc +nightly --version --verbose | sed -n 's/^host: //p')
export RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=address"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/asan"
cargo +nightly test --target "$target" --package tokamak_core --lib --test limiter --test timer_wheel --test pool
cargo +nightly test --target "$target" --package tokamak_spawner --lib --test protocol
