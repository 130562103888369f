#!/bin/sh
# Everything that eni53's demo, tests and benchmarks need, on Debian 12 or 13. Safe to run again:
# what is there already costs a second. Run by `make setup`, as root or through sudo.
set -eu
cd "$(dirname "$0")/.."

# BCC and the parts of the lab. Nothing here is started: see below.
packages="python3-bpfcc python3-venv bpftool iproute2 nftables iptables ethtool procps
systemd docker.io containerd runc containernetworking-plugins unbound dnsperf dnsmasq-base busybox-static
prometheus prometheus-alertmanager"

root=""
[ "$(id -u)" = 0 ] || root="sudo"

say() { printf 'setup: %s\n' "$*"; }

missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done

# Debian 13 has the docker command in a package of its own; Debian 12 has it in docker.io.
command -v docker >/dev/null || missing="$missing docker.io"

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || {
        echo "setup: apt-get is missing: this set-up is for Debian 12 and 13; elsewhere install:$missing" >&2
        exit 2
    }
    say "installing$missing"
    # The lab starts daemons of its own, in namespaces of its own. Those of the distribution, which
    # Debian starts on installation, would take port 53 and write iptables rules on this host.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
        $root chmod 755 "$policy"
        trap '$root rm -f "$policy"' EXIT
    fi
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of words
    install() {
        $root apt-get update -qq || return
        if ! command -v docker && apt-cache show docker-cli; then missing="$missing docker-cli"; fi
        $root apt-get install -y -qq --no-install-recommends $missing
    }
    if ! install >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "setup: apt-get failed; the whole of what it said is in $log" >&2
        exit 2
    fi
    # Not started now, nor at the next boot, when both would listen on all of this host's addresses.
    for unit in prometheus prometheus-alertmanager; do
        case " $missing " in *" $unit "*)
            command -v systemctl >/dev/null && $root systemctl disable "$unit" >>"$log" 2>&1 || true
            ;;
        esac
    done
    rm -f "$log"
fi

# The interpreter of the distribution: BCC's Python part is installed for it.
if [ ! -x .venv/bin/python ]; then
    say "making .venv"
    /usr/bin/python3 -m venv .venv
fi
stamp=.venv/.installed
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ ! -x .venv/bin/eni53 ]; then
    say "installing eni53 and its libraries into .venv"
    .venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
    touch "$stamp"
fi
say "ready: .venv/bin/eni53"
