#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What takes too long for every run of the tests: 10 GiB through one stream, in flat memory.
set -eu
cd "$(dirname "$0")/.."

rebar3 as bench compile
lib=_build/bench/lib
ERL_LIBS=$lib exec erl -noshell -pa $lib/tokamak/test/support -s tokamak_soak main -s init stop
