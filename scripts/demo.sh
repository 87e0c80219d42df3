#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a demonstration.
#
#   scripts/demo.sh [PATH]   indexes a directory tree, by default that of the installed Erlang
#   scripts/demo.sh loop     descriptors, timers and posts through one event loop
set -eu
here=$PWD
cd "$(dirname "$0")/.."

demo=index
if [ "${1:-}" = loop ]; then
    demo=loop
    shift
fi

rebar3 compile
mkdir -p "_build/demo/$demo"
ERL_LIBS=_build/default/lib erlc -o "_build/demo/$demo" examples/$demo/*.erl

if [ "$demo" = loop ]; then
    # With -noinput the VM itself leaves standard input alone.
    sh examples/loop/feed.sh |
        ERL_LIBS=_build/default/lib erl -noinput -pa _build/demo/loop -s tokamak_loop_demo main -s init stop
    exit
fi

# A bar is for a terminal, lines are for everything else.
display=lines
[ ! -t 1 ] || display=bar
case ${1:-} in
    '' | /*) path=${1:-} ;;
    *) path=$here/$1 ;;
esac
ERL_LIBS=_build/default/lib exec erl -noinput +fnu -pa _build/demo/index -s tokamak_index main -s init stop \
    -extra "$display" ${path:+"$path"}
