#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows where the processor time of the benches named as arguments goes, or of all: the side of tokamak alone
# (test/bench/bench_profile.erl), sampled by perf.
set -eu
cd "$(dirname "$0")/.."

command -v perf >/dev/null 2>&1 || {
    echo 'profile: please install perf (Debian: linux-perf)' >&2
    exit 1
}
rebar3 as bench compile
lib=_build/bench/lib
directory=_build/bench/profile
mkdir -p "$directory"

# vm FUNCTION ARGUMENT...: with names for the code that the VM compiles at run time.
vm() {
    function=$1
    shift
    ERL_LIBS=$lib erl +JPperf true -noshell -pa $lib/tokamak/test/support $lib/tokamak/test/bench \
        -s bench_profile "$function" -s init stop -extra "$@"
}

# shares NAME KEYS LEAST: what took at least so many percent.
shares() {
    perf report --input "$directory/$1.data" --no-children --sort "$2" --stdio 2>/dev/null |
        sed '/^#/d; /^$/d; s/ *- *- *$//' | awk -v least="$3" '$1 + 0 >= least'
}

[ $# -gt 0 ] || set -- $(vm names)
for name; do
    vm main "$name" "$directory/$name.data"
    printf '\n%s, by threads and libraries\n' "$name"
    shares "$name" comm,dso 2
    printf '%s, by functions\n' "$name"
    shares "$name" dso,symbol 2
done
