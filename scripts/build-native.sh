#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the native crates and installs what they give. rebar3 runs it before it compiles, whether
# the library is the project itself, a dependency, a checkout, or is built by mix.
#
#   scripts/build-native.sh          what is shipped             -> priv/
#   scripts/build-native.sh bench    what only tests use  -> _build/native/
#   scripts/build-native.sh report   what draws the benches' report -> _build/native/
#
# cargo decides where it builds: target/ in this directory unless CARGO_TARGET_DIR or a cargo
# configuration says otherwise. So a dependency keeps everything inside its own directory, and all
# rebar3 profiles and cargo itself share one set of compiled crates.
set -eu

# Also because cargo looks for .cargo/config.toml in the working directory only.
cd "$(dirname "$0")/.."

fail() {
    printf 'tokamak: %s\n' "$1" >&2
    exit 1
}

# Prints the path of the artefact of crate $1, as cargo reports it: this holds for every target
# directory and every target triple.
build() {
    "$cargo" build --release --package "$1" --message-format json-render-diagnostics >"$messages" ||
        fail "cargo could not build $1 (see above)"
    sed -n '/"reason":"compiler-artifact"/s/.*"target":{[^}]*"name":"'"$1"'".*"filenames":\["\([^"]*\)".*/\1/p' \
        "$messages" | tail -n 1
}

# A running VM may have the old file mapped, and writing into that file would crash it. A new file
# under a temporary name, renamed, leaves the old one to those who use it.
install_file() {
    if ! cmp -s "$1" "$2"; then
        mkdir -p "$(dirname "$2")"
        temporary=$2.$$
        cp "$1" "$temporary"
        mv -f "$temporary" "$2"
    fi
}

# build_and_install CRATE DESTINATION
build_and_install() {
    artefact=$(build "$1")
    [ -f "$artefact" ] || fail "cargo built $1 but did not say where"
    install_file "$artefact" "$2"
}

# For the tests: the C table is used from C, too, which shows that its header is right; and a clock that jumps.
build_c() {
    erlang=$(erl -noshell -eval 'io:format("~ts/usr/include", [code:root_dir()]), halt().')
    artefact=_build/native/$1.so
    mkdir -p _build/native
    # The VM has the functions of erl_nif.h; on macOS the linker has to be told.
    case $(uname) in
        Darwin) undefined='-undefined dynamic_lookup' ;;
        *) undefined='' ;;
    esac
    temporary=$artefact.$$
    # shellcheck disable=SC2086 # nothing, or two words
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror -pthread -fPIC -shared $undefined -Iinclude "-I$erlang" \
        "test/support/$1.c" -o "$temporary" || fail "cc could not build $1 (see above)"
    mv -f "$temporary" "$artefact"
}

cargo=${CARGO:-cargo}
if ! command -v "$cargo" >/dev/null 2>&1; then
    cargo=${CARGO_HOME:-$HOME/.cargo}/bin/cargo
    [ -x "$cargo" ] ||
        fail 'cargo is missing. Install Rust (https://rustup.rs, or your system'\''s packages) and put cargo on the PATH.'
fi

messages=$(mktemp)
temporary=$messages
trap 'rm -f "$messages" "$temporary"' EXIT

# The VM wants the ending .so on macOS too.
case ${1:-shipped} in
    shipped)
        build_and_install tokamak_nif priv/tokamak_nif.so
        build_and_install tokamak_spawner priv/tokamak_spawner
        ;;
    bench)
        build_and_install tokamak_bench_nif _build/native/tokamak_bench_nif.so
        build_and_install tokamak_test_engine _build/native/tokamak_test_engine.so
        build_and_install tokamak_test_nif _build/native/tokamak_test_nif.so
        build_c table_user
        build_c clock_jump
        build_c epoll_full
        ;;
    report)
        build_and_install tokamak_bench_report _build/native/tokamak_bench_report
        ;;
    *)
        fail "usage: $0 [shipped | bench | report]"
        ;;
esac
