#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the example projects as their users would, and runs their tests. One takes the library as a
# git dependency of rebar3, the other as a path dependency of mix.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
work=$root/_build/examples

# The work tree as a git repository: with what is not committed yet, without what git ignores.
snapshot() {
    mkdir -p "$work/tokamak"
    find "$work/tokamak" -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} +
    git ls-files -z --cached --others --exclude-standard | while_there | tar -cf - --null -T - |
        tar -xf - -C "$work/tokamak"
    cd "$work/tokamak"
    [ -d .git ] || git init -q -b main
    git add -A
    git diff --cached --quiet ||
        git -c user.name=examples -c user.email=examples@localhost commit -q -m snapshot
    cd "$root"
}

# git lists files that were deleted but not yet removed from its index, too.
while_there() {
    xargs -0 sh -c 'for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' sh
}

commit() {
    git -C "$1" rev-parse HEAD 2>/dev/null || echo none
}

test_rebar3_app() {
    mkdir -p "$work/rebar3_app"
    rm -rf "$work/rebar3_app/src" "$work/rebar3_app/test" "$work/rebar3_app/rebar.lock"
    cp -R examples/rebar3_app/. "$work/rebar3_app/"
    cd "$work/rebar3_app"
    # rebar3 keeps a dependency that it has, even when its branch has gone on.
    [ "$(commit _build/default/lib/tokamak)" = "$(commit "$work/tokamak")" ] || rm -rf _build
    # One target directory for all runs: the crates of others are compiled only once.
    TOKAMAK_REPOSITORY=$work/tokamak CARGO_TARGET_DIR=$work/target rebar3 eunit
    [ ! -e _build/native ] || fail "the baselines were built for a dependency"
    cd "$root"
}

test_mix_app() {
    cd examples/mix_app
    # Without these mix offers to download a rebar3 of its own, and warns about Latin-1 names.
    MIX_REBAR3=$(command -v rebar3)
    export MIX_REBAR3 MIX_ENV=test ELIXIR_ERL_OPTIONS='+fnu'
    mix format --check-formatted
    mix deps.get
    mix test
    cd "$root"
}

fail() {
    printf 'test-examples: %s\n' "$1" >&2
    exit 1
}

# GIT_DIR and its like are set in git hooks, and would point all git commands at this repository.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

snapshot
test_rebar3_app
test_mix_app
