#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes sure that everything is there which `make build` (or, with the argument "all", any other
# target) needs. On Debian, run as root, it installs what is missing; elsewhere it names it.
set -eu

need=${1:-all}
missing=''
packages=''

# want PACKAGES PRESENT: notes that the Debian packages are wanted, unless the command succeeds.
want() {
    wanted=$1
    shift
    "$@" >/dev/null 2>&1 || packages="$packages $wanted"
}

# The Erlang applications that are not there, as Debian packages.
erlang_packages() {
    # shellcheck disable=SC2016 # the backquotes and dollars are Erlang's
    erl -noshell -eval '
        [io:format("~s ", [string:replace("erlang-" ++ atom_to_list(App), "_", "-", all)])
         || App <- [crypto, dialyzer, edoc, eunit, parsetools, proper, syntax_tools, tools, xmerl],
            code:lib_dir(App) =:= {error, bad_name}],
        halt().'
}

find_missing() {
    packages=''
    want 'gcc libc6-dev' command -v cc
    want 'erlang-base erlang-dev' command -v erl
    want rebar3 command -v rebar3
    if [ "$need" = all ]; then
        want elixir command -v mix
        # Real programs that the tests talk to; one that is absent is skipped there.
        want git command -v git
        want python3 command -v python3
        want bc command -v bc
        want sqlite3 command -v sqlite3
        want wrk command -v wrk
        want redis-server command -v redis-server
        if command -v erl >/dev/null 2>&1; then
            packages="$packages $(erlang_packages)"
        else
            packages="$packages erlang-crypto erlang-dialyzer erlang-edoc erlang-eunit"
            packages="$packages erlang-parsetools erlang-proper erlang-syntax-tools erlang-tools erlang-xmerl"
        fi
    fi
    packages=$(echo $packages)
}

# cargo is not taken from Debian: its version there is too old.
find_missing_rust() {
    missing=''
    command -v cargo >/dev/null 2>&1 || missing='cargo (https://rustup.rs)'
    if [ "$need" = all ] && [ -z "$missing" ]; then
        cargo fmt --version >/dev/null 2>&1 || missing='rustfmt (rustup component add rustfmt)'
        cargo clippy --version >/dev/null 2>&1 ||
            missing="$missing${missing:+, }clippy (rustup component add clippy)"
    fi
}

fail() {
    printf 'setup: please install %s\n' "$1" >&2
    exit 1
}

find_missing_rust
[ -z "$missing" ] || fail "$missing"

find_missing
[ -n "$packages" ] || exit 0
{ [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; } ||
    fail "what these Debian packages contain: $packages"

echo "setup: installing $packages"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
apt-get install -qq -y --no-install-recommends $packages

find_missing
[ -z "$packages" ] || fail "$packages"
