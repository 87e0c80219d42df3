#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What takes too long for every run of the tests: minutes of abuse, after which everything is back to the start, and
# 10 GiB through one stream, in flat memory. usage: soak.sh [minutes]
set -eu
cd "$(dirname "$0")/.."

minutes=${1:-${TOKAMAK_SOAK_MINUTES:-10}}
ulimit -S -n 32768 2>/dev/null || ulimit -S -n "$(ulimit -H -n)"
rebar3 as bench compile
lib=_build/bench/lib
ERL_LIBS=$lib exec erl -noshell -pa $lib/tokamak/test/support \
    -run tokamak_soak main "$minutes" -s init stop
