#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the crate and puts the library where the module kv_engine loads it from.
set -eu
cd "$(dirname "$0")/native"

library=$(cargo build --release --message-format json-render-diagnostics |
    sed -n 's/.*"name":"kv_engine".*"filenames":\["\([^"]*\)".*/\1/p')

# A running VM may have the old file mapped: a new one takes its place.
mkdir -p ../priv
cp "$library" ../priv/kv_engine.so.new
mv -f ../priv/kv_engine.so.new ../priv/kv_engine.so
