#!/bin/sh
# The steps of the image, run by the Dockerfile and, as they stand, by tests/e2e/test_image.py.
#   install.sh base           BCC and its interpreter, from Debian: what runs
#   install.sh build-tools    what makes the venv: stays in the first stage
#   install.sh venv SOURCE    eni53 from the checkout SOURCE into /opt/eni53, without the dev extra
set -eu

export DEBIAN_FRONTEND=noninteractive

apt_install() {
    apt-get update -qq
    apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "$@"
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
}

case "${1:-}" in
base)
    # No kernel headers: the programs need none (docs/decisions/0001-own-header-tree.md).
    apt_install python3-bpfcc
    ;;
build-tools)
    apt_install python3-venv
    ;;
venv)
    # By Debian's own interpreter: BCC's Python part is installed for no other.
    /usr/bin/python3 -m venv /opt/eni53
    /opt/eni53/bin/pip install --quiet --no-cache-dir --disable-pip-version-check "$2"
    # Nothing is ever installed into a running image.
    /opt/eni53/bin/pip uninstall --quiet --yes setuptools pip
    ;;
*)
    echo "install.sh: unknown step '${1:-}': base, build-tools or venv" >&2
    exit 2
    ;;
esac
