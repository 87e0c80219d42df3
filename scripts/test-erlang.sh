#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the Erlang tests. Each module that failed is run once more, alone: what fails again counts. What failed
# is printed at the end, too, as it is lost between the rest otherwise; all of it is in _build/eunit.log.
set -euo pipefail
cd "$(dirname "$0")/.."

log=_build/eunit.log
mkdir -p _build
# As many descriptors as the tests want, or as there may be: the VM takes its limit from here.
ulimit -S -n 32768 2>/dev/null || ulimit -S -n "$(ulimit -H -n)"
# Tests have operations panic: where they did is of no use to anybody.
export RUST_BACKTRACE=${TOKAMAK_TEST_BACKTRACE:-0}

eunit() {
    rebar3 eunit "$@" 2>&1 | tee "$log"
}

# The modules of which the log does not say that all their tests passed: a test that takes too long can end the run.
modules_to_repeat() {
    awk '
        match($0, /^ *module '"'"'[a-z0-9_]+'"'"'/) { module = $2; gsub(/'"'"'/, "", module); failed = 0 }
        /\*(failed|timed out|skipped|unexpected)|^ *\*\*\* / { failed = 1 }
        /^ *\[done in / && !failed { passed[module] = 1 }
        END { for (module in passed) print module }' "$log" | sort >"$log.passed"
    find test -name '*_tests.erl' -exec basename {} .erl \; | sort | comm -23 - "$log.passed"
}

# Each failure with what follows of it.
failures() {
    grep -n -B 1 -A 25 -E '\*(failed|timed out|unexpected)|^ *\*\*\* ' "$log" || tail -n 40 "$log"
}

if eunit; then exit 0; fi
modules=$(modules_to_repeat)
first=$(failures)
again=''
for module in $modules; do
    echo "test-erlang: once more, alone: $module"
    eunit --module="$module" || again="$again $module"
done
printf 'test-erlang: failures:\n%s\n' "$first"
if [ -n "$modules" ] && [ -z "$again" ]; then
    printf 'test-erlang: passed alone: %s\n' "$(echo $modules)"
else
    printf 'test-erlang: FAILED:%s\n' "${again:- see above}"
    exit 1
fi
