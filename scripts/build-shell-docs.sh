#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds what h(tokamak) shows in the Erlang shell, and `h :tokamak` in iex, into doc/chunks beside the ebin
# that has the modules. rebar3 runs it after it has compiled, as it runs build-native.sh before.
#
#   scripts/build-shell-docs.sh [DIRECTORY]      of the compiled application; by default where rebar3 puts it
#
# Nothing depends on it: if it fails, a line says so, and the build goes on.
set -u
cd "$(dirname "$0")/.." || exit 0

# The VM of rebar3, whatever else is on the path; flags of its user, such as a node name, are not for a second one.
root=${ERLANG_ROOT_DIR:-}
PATH=${root:+$root/bin:}$PATH
unset ERL_AFLAGS ERL_FLAGS ERL_ZFLAGS
# It differs once edoc was installed, or with another OTP.
edoc=$(echo "$root"/lib/edoc-*)

# up_to_date DIRECTORY: nothing that was read, or compiled, is newer than the stamp.
up_to_date() {
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$edoc" ] &&
        [ -z "$(find src include scripts/build-shell-docs.* "$1"/ebin/*.beam -newer "$stamp" | head -n 1)" ]
}

# write DIRECTORY: the stamp as it will be is older than what is read for the documentation.
write() {
    mkdir -p "$1/chunks" && rm -f "$1"/chunks/*.chunk && echo "$edoc" >"$stamp.new" &&
        escript scripts/build-shell-docs.escript "$1"
}

# The stamp is left also when there is no documentation: it is tried again when something has changed.
build() {
    stamp=$1/doc/chunks/.built
    if [ -f "$1/ebin/tokamak.beam" ] && ! up_to_date "$1"; then
        if ! write "$1/doc" >/dev/null 2>&1; then
            rm -f "$1"/doc/chunks/*.chunk
            echo 'tokamak: no documentation in the shell, as edoc is missing or failed (all else is there)'
        fi
        mv -f "$stamp.new" "$stamp" 2>/dev/null
    fi
}

# rebar3 does not say where it compiles to: for mix, as a dependency, as a checkout, as the project itself.
if [ $# = 0 ]; then
    builds=${REBAR_BUILD_DIR:-_build/default}
    set -- "${REBAR_BARE_COMPILER_OUTPUT_DIR:-.}" . "$builds/checkouts/tokamak" "$builds/lib/tokamak"
fi
for application; do
    build "$application"
done
exit 0
