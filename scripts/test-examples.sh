#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the example projects as their users would, and runs their tests: one takes the library as a git
# dependency of rebar3, one as a path dependency of mix, one is an engine that is used from both; and the
# guide to writing engines is followed in a fresh directory; a release is made, unpacked and run.
# Arguments: which of them, of rebar3_app, mix_app, engine and release (after rebar3_app), and guide.
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
    rebar3_with_snapshot eunit
    [ ! -e _build/native ] || fail "the baselines were built for a dependency"
    documented _build/default
    cd "$root"
}

test_mix_app() {
    cd examples/mix_app
    mix format --check-formatted
    mix deps.get
    mix test
    documented _build/test
    cd "$root"
}

# Where the shells look for it.
documented() {
    [ -s "$1/lib/tokamak/doc/chunks/tokamak.chunk" ] || fail "no documentation for the shells in $1"
}

# An engine that takes the dependency as rebar3_app has built it: a second build would prove nothing new.
test_engine() {
    cd examples/engine
    rm -rf _build/default/lib/tokamak rebar.lock
    mkdir -p _build/default/lib
    ln -s "$work/rebar3_app/_build/default/lib/tokamak" _build/default/lib/tokamak
    cargo fmt --manifest-path native/Cargo.toml --check
    rebar3_with_snapshot eunit
    cd mix_app
    TOKAMAK_PATH=$work/rebar3_app/_build/default/lib/tokamak
    export TOKAMAK_PATH
    mix format --check-formatted
    mix deps.get
    CARGO_TARGET_DIR=$work/target mix test
    cd "$root"
}

# Outside of this repository: cargo would make the new crate a member of its workspace.
test_guide() {
    guide=$(mktemp -d)
    trap 'rm -rf "$guide"' EXIT
    CARGO_TARGET_DIR=$work/target scripts/follow-guide.sh "$guide" "file://$work/tokamak"
}

# A release of OTP's own tools, unpacked where nothing else is, in both modes.
test_release() {
    release=$work/release
    rm -rf "$release"
    mkdir -p "$release/made" "$release/unpacked"
    erlc -o "$release/made" examples/release/release_example.erl
    ERL_LIBS=$work/rebar3_app/_build/default/lib erl -noinput -pa "$release/made" \
        -run release_example make "$release/made" -s init stop
    tar -xzf "$release/made/release_example.tar.gz" -C "$release/unpacked"
    rm -rf "$release/made"
    for mode in interactive embedded; do
        run_release "$mode" | tee "$release/output"
        grep -q "^release_example: $release/unpacked/lib/tokamak-.*/priv, $mode mode$" "$release/output" ||
            fail "the release did not run in $mode mode"
    done
}

# As bin/erl of an installed release does it. -noinput: it ends by itself.
run_release() (
    cd "$release/unpacked"
    ROOTDIR=$PWD BINDIR=$(echo "$PWD"/erts-*/bin) EMU=beam PROGNAME=erl
    export ROOTDIR BINDIR EMU PROGNAME
    "$BINDIR/erlexec" -noinput -boot "$PWD/releases/1/start" -mode "$1" -s release_example main
)

# One target directory for all runs: the crates of others are compiled only once.
rebar3_with_snapshot() {
    TOKAMAK_REPOSITORY=$work/tokamak CARGO_TARGET_DIR=$work/target rebar3 "$@"
}

fail() {
    printf 'test-examples: %s\n' "$1" >&2
    exit 1
}

# GIT_DIR and its like are set in git hooks, and would point all git commands at this repository.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

# Without these mix offers to download a rebar3 of its own, and warns about Latin-1 names.
MIX_REBAR3=$(command -v rebar3)
export MIX_REBAR3 MIX_ENV=test ELIXIR_ERL_OPTIONS='+fnu'

snapshot
for example in ${*:-rebar3_app mix_app engine release guide}; do
    "test_$example"
done
