#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the demonstration: tokamak_demo:main() in examples/demo.
set -eu
cd "$(dirname "$0")/.."

rebar3 compile
mkdir -p _build/demo
ERL_LIBS=_build/default/lib erlc -o _build/demo examples/demo/*.erl
ERL_LIBS=_build/default/lib exec erl -noshell -pa _build/demo -s tokamak_demo main -s init stop \
    -extra "$@"
