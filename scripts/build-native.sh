#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
set -eu
cd "$(dirname "$0")/.."
cargo build --release -p tokamak_nif
cp "${CARGO_TARGET_DIR:-target}/release/libtokamak_nif.so" priv/tokamak_nif.so.new
mv priv/tokamak_nif.so.new priv/tokamak_nif.so
