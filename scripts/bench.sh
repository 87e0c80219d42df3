#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the benchmarks named as arguments, or all: tokamak_bench:main() in test/bench, which finds the
# names in init:get_plain_arguments().
set -eu
cd "$(dirname "$0")/.."

# 10,000 pipes; where the limit stays lower, the benches take as many as it allows.
ulimit -n 32768 2>/dev/null || ulimit -n "$(ulimit -H -n)" || true

rebar3 as bench compile
lib=_build/bench/lib
ERL_LIBS=$lib exec erl -noshell -pa $lib/tokamak/test/support $lib/tokamak/test/bench \
    -s tokamak_bench main -s init stop -extra "$@"
