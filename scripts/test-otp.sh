#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the Erlang tests on several OTPs, all with the same native libraries, which are built here: on the
# OTP of this system ("host"), and on those of other releases of Debian, in folders made with debootstrap.
#
#   scripts/test-otp.sh [host | RELEASE]...      by default: host trixie sid
#
# The folders stay in TOKAMAK_OTP_DIR (_build/otp) for the next time; remove one to have it made anew.
# Making and using them takes root and the right to mount; the mirror is that of this system's apt.
# Ends with 0 if all tests passed, with 1 if one failed twice, with 2 if none did but an OTP was not there.
set -eu
cd "$(dirname "$0")/.."
base=${TOKAMAK_OTP_DIR:-_build/otp}

# The OTP, and what the tests use. What these only recommend is not needed.
packages='elixir erlang-base erlang-crypto erlang-dev erlang-edoc erlang-eunit erlang-parsetools erlang-proper
    erlang-syntax-tools erlang-tools erlang-xmerl bc git iproute2 python3 redis-server sqlite3
    systemd-standalone-sysusers wrk'

# Debian's mirror in the configuration of apt, whatever its format.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Label: Debian' 'Component: main' |
        head -n 1
}

# Whether folders can be made; else `why' says why not.
can_make() {
    why='it takes root' && [ "$(id -u)" = 0 ] || return 1
    why='this system has no apt-get' && command -v apt-get >/dev/null || return 1
    why='this system has no unshare' && command -v unshare >/dev/null || return 1
    why='namespaces are not allowed here' && unshare --mount --pid --net --fork true 2>/dev/null || return 1
    if [ -z "$(mirror)" ] || ! command -v debootstrap >/dev/null; then
        why='debootstrap cannot be installed'
        { apt-get update -qq && apt-get install -qq -y --no-install-recommends debootstrap; } >&2 || return 1
    fi
    why='the configuration of apt names no mirror of Debian' && [ -n "$(mirror)" ]
}

# in_folder FOLDER NAMESPACES COMMAND...: runs a command with the folder as its root. In namespaces of its
# own: however it ends, nothing that it mounted or started stays.
in_folder() {
    # shellcheck disable=SC2086 # options
    unshare --mount --pid --fork --kill-child $2 sh -c '
        folder=$1
        shift 2
        mount -t proc proc "$folder/proc"
        mount --rbind /dev "$folder/dev"
        # Not with exec: the shell is process 1 there, and reaps what others leave behind.
        chroot "$folder" "$@" || exit 1' sh "$@"
}

# Makes the folder of a release, unless it is there with the packages that are wanted.
make_folder() {
    [ "$(cat "$2/.packages" 2>/dev/null)" != "$packages" ] || return 0
    can_make || return 1
    echo "test-otp: making $2, see $2.log"
    why="debootstrap failed, see $2.log" && bootstrap "$1" "$2.new" >"$2.log" 2>&1 || return 1
    why="apt-get failed, see $2.log" && install "$2.new" >>"$2.log" 2>&1 || return 1
    printf '%s\n' "$packages" >"$2.new/.packages"
    rm -rf "$2"
    mv "$2.new" "$2"
}

bootstrap() {
    rm -rf "$2"
    mkdir -p "$2"
    eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
    # shellcheck disable=SC2154 # set by eval
    # With a limit: a mirror out of reach may answer nothing at all.
    http_proxy=${http_proxy:-} https_proxy=${https_proxy:-} timeout --signal=KILL 300 \
        unshare --mount --pid --fork --kill-child debootstrap --variant=minbase "$1" "$2" "$(mirror)"
}

# With the settings by which apt reaches the mirror from here.
install() {
    apt-config dump Acquire | grep -E '^Acquire::(https?|Check)' >"$1/etc/apt/apt.conf.d/00host" || true
    in_folder "$1" '' apt-get update -qq &&
        # shellcheck disable=SC2086 # a list of packages
        in_folder "$1" '' env DEBIAN_FRONTEND=noninteractive LC_ALL=C \
            apt-get install -qq -y --no-install-recommends $packages &&
        in_folder "$1" '' apt-get clean
}

# copy_into FOLDER: the project as it is now, with its native libraries, and nothing else that was built.
copy_into() {
    rm -rf "$1/tokamak"
    mkdir -p "$1/tokamak/_build"
    tar -cf - --exclude-vcs --exclude=_build --exclude=target . | tar -xf - -C "$1/tokamak"
    cp -R _build/native "$1/tokamak/_build/native"
}

# With as many descriptors as the tests want, or as there may be. A module that failed is run once more, alone:
# what fails again counts.
suite='ulimit -S -n 32768 2>/dev/null || ulimit -S -n "$(ulimit -H -n)"
    mkdir -p _build/suite && erlc -o _build/suite test/support/tokamak_suite.erl || exit
    run="erl -noinput -pa _build/suite -s tokamak_suite"
    $run main && exit
    [ -s _build/suite/failed ] || exit 1
    status=0
    for module in $(cat _build/suite/failed); do
        echo "test-otp: once more, alone: $module"
        $run alone "$module" || status=1
    done
    exit $status'

test_host() {
    copy_into "$base/host"
    (cd "$base/host/tokamak" && sh -c "$suite")
}

test_release() {
    copy_into "$base/$1"
    # With a network of its own: neither ports nor names of nodes meet those of others.
    printf '127.0.0.1 localhost %s\n' "$(uname -n)" >"$base/$1/etc/hosts"
    in_folder "$base/$1" --net env -i "CI=${CI:-}" HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        sh -c "ip link set lo up; cd /tokamak; $suite"
}

# test_otp NAME: adds its line to the summary.
test_otp() {
    if [ "$1" != host ] && ! make_folder "$1" "$base/$1"; then
        add_line "$1: not run: $why"
        [ "$status" = 1 ] || status=2
        return
    fi
    echo "test-otp: $1"
    if [ "$1" = host ]; then test_host; else test_release "$1"; fi || status=1
    add_line "$1: $(cat "$base/$1/tokamak/_build/suite/summary" 2>/dev/null || echo 'the run broke off')"
}

add_line() {
    summary="$summary$1
"
}

status=0
summary=''
scripts/build-native.sh
scripts/build-native.sh bench
mkdir -p "$base"
for otp in ${*:-host trixie sid}; do
    test_otp "$otp"
done
printf '%s' "$summary"
exit "$status"
