#!/bin/sh
# Debian packages of csrc/apt-packages.txt: tells which are missing, or installs them.
#
#   csrc/apt.sh missing build make    prints the names, one a line
#   csrc/apt.sh install build make    installs them; asks nothing of the network if none is missing
#
# Where there is no dpkg nothing is known to be missing: the compiler will tell.
set -eu
list=$(dirname "$0")/apt-packages.txt
action=$1
shift

missing() {
    command -v dpkg-query >/dev/null || return 0
    for set in "$@"; do
        awk -v set="$set" '$1 == set { print $2 }' "$list"
    done | while read -r name; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null || true)
        [ "$status" = installed ] || echo "$name"
    done
}

case $action in
missing)
    missing "$@"
    ;;
install)
    names=$(missing "$@" | tr '\n' ' ')
    [ -n "$names" ] || exit 0
    as_root=
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "dkv needs Debian packages; as root, run: apt-get install -y $names" >&2
            exit 1
        fi
        as_root=sudo
    fi
    echo "installing Debian packages: $names"
    export DEBIAN_FRONTEND=noninteractive
    $as_root apt-get update -q
    $as_root apt-get install -y -q --no-install-recommends $names
    ;;
*)
    echo "usage: $0 missing|install SET..." >&2
    exit 2
    ;;
esac
