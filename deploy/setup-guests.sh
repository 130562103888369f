#!/bin/sh
# What `make test-kernels` needs beyond deploy/setup-debian.sh: an emulator, and the tools that make
# its disks. Debian 12 or 13 on amd64. Safe to run again; called by the make targets.
set -eu

packages="qemu-system-x86 e2fsprogs kmod busybox-static"

root=""
[ "$(id -u)" = 0 ] || root="sudo"

missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || {
    echo "setup: apt-get is missing: the guests are for Debian 12 and 13; elsewhere install:$missing" >&2
    exit 2
}
echo "setup: installing$missing"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# Without its recommendations the emulator is a tenth of what it would be: no display, no firmware.
# shellcheck disable=SC2086 # a list of words
install() {
    $root apt-get update -qq &&
        $root apt-get install -y -qq --no-install-recommends $missing
}
if ! install >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: apt-get failed; the whole of what it said is in $log" >&2
    exit 2
fi
rm -f "$log"
