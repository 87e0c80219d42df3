#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the demonstration: tokamak_demo:main() in examples/demo, with a pipe as its standard input.
set -eu
cd "$(dirname "$0")/.."

rebar3 compile
mkdir -p _build/demo
ERL_LIBS=_build/default/lib erlc -o _build/demo examples/demo/*.erl
# With -noinput the VM itself leaves standard input alone.
sh examples/demo/feed.sh |
    ERL_LIBS=_build/default/lib erl -noinput -pa _build/demo -s tokamak_demo main -s init stop -extra "$@"
