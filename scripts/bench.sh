#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the benchmarks named as arguments, or all: tokamak_bench:main() in test/bench, which finds the
# names in init:get_plain_arguments(). Then writes the report on what they measured to bench-report/.
set -eu
cd "$(dirname "$0")/.."

# 10,000 pipes; where the limit stays lower, the benches take as many as it allows.
ulimit -n 32768 2>/dev/null || ulimit -n "$(ulimit -H -n)" || true

# Before anything is measured: what cannot be built ends the run here, and compilers take no time from it.
scripts/build-native.sh report
rebar3 as bench compile
# A baseline of the pool takes a process an item.
lib=_build/bench/lib
ERL_LIBS=$lib erl +P 2000000 -noshell -pa $lib/tokamak/test/support $lib/tokamak/test/bench \
    -s tokamak_bench main -s init stop -extra "$@"

results=_build/bench/results.json
previous=''
for argument; do
    if [ "$previous" = --output ]; then results=$argument; fi
    previous=$argument
done
_build/native/tokamak_bench_report "$results" bench-report
echo 'Report: bench-report/index.html; the table to quote: bench-report/table.md'
