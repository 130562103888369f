"""Network namespaces for one test: made with unique names, removed whatever happens."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import netns

_serial = itertools.count()


def run(*command: str, stdin: str | None = None) -> str:
    """Run to the end; its standard output, or an error with what it complained of."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


def until(truth: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether *truth* comes about in time."""
    deadline = time.monotonic() + seconds
    while not truth():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Put this thread into a namespace; sockets made meanwhile stay in it."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.setns(name)
        yield
    finally:
        netns.setns(before)
        os.close(before)


def cgroup_root() -> Path:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise AssertionError("cgroup v2 is not mounted")


def own_cgroup() -> int:
    """The id under which the kernel sees packets of this process."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return (cgroup_root() / line[3:].lstrip("/")).stat().st_ino
    raise AssertionError("this process is in no cgroup of version 2")


class Namespace:
    """One network namespace with loopback up and IPv6 without duplicate address detection."""

    def __init__(self, label: str) -> None:
        self.name = f"eni53t-{os.getpid()}-{next(_serial)}-{label}"
        run("ip", "netns", "add", self.name)
        try:
            self.enter("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
            self.enter("sysctl", "-qw", "net.ipv6.conf.default.accept_ra=0")
            self.ip("link", "set", "lo", "up")
        except BaseException:
            self.remove()
            raise

    def enter(self, *command: str, stdin: str | None = None) -> str:
        """Run a command in it."""
        return run("nsenter", f"--net=/run/netns/{self.name}", *command, stdin=stdin)

    def ip(self, *arguments: str) -> str:
        """``ip`` in it."""
        return run("ip", "-n", self.name, *arguments)

    def tc(self, *arguments: str) -> str:
        """``tc`` in it."""
        return run("tc", "-n", self.name, *arguments)

    def ifindex(self, interface: str) -> int:
        """Index of an interface."""
        with inside(self.name):
            return socket.if_nametoindex(interface)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """A socket that lives in it."""
        with inside(self.name):
            return socket.socket(family, kind)

    def traces(self, interface: str) -> str:
        """What ``tc`` shows of qdiscs and filters on an interface, beyond the default qdisc."""
        lines = self.tc("qdisc", "show", "dev", interface).splitlines()
        for direction in ("ingress", "egress"):
            lines += self.tc("filter", "show", "dev", interface, direction).splitlines()
        return "\n".join(line for line in lines if "noqueue" not in line)

    def remove(self) -> None:
        """Remove it, and with it everything in it."""
        if Path("/run/netns", self.name).exists():
            run("ip", "netns", "del", self.name)


@dataclass(frozen=True, slots=True)
class Pair:
    """A node and its VPC: ``eni`` here, ``vpc`` there, with addresses 10.0.0.1 and 10.0.0.2.

    Attributes:
        node: Where the ENI is.
        vpc: Where the packets go; it counts them with nftables and drops UDP.
        eni: Index of the ENI's interface.
    """

    node: Namespace
    vpc: Namespace
    eni: int

    def counted(self, name: str) -> int:
        """What the VPC's counter of that name says: udp4, udp6, tcp4 or tcp6."""
        line = self.vpc.enter("nft", "list", "counter", "inet", "vpc", name)
        return int(line.split("packets", 1)[1].split()[0])


_COUNTERS = """
table inet vpc {
  counter udp4 { }
  counter udp6 { }
  counter tcp4 { }
  counter tcp6 { }
  chain arrivals {
    type filter hook prerouting priority raw;
    meta nfproto ipv4 udp dport 53 counter name udp4 drop
    meta nfproto ipv6 udp dport 53 counter name udp6 drop
    meta nfproto ipv4 tcp dport 53 counter name tcp4
    meta nfproto ipv6 tcp dport 53 counter name tcp6
  }
}
"""


def make_pair(node: Namespace, vpc: Namespace) -> Pair:
    """Join two namespaces by a veth whose packets are cut to size before the wire."""
    node.ip("link", "add", "eni", "type", "veth", "peer", "name", "vpc", "netns", vpc.name)
    for place, interface, host in ((node, "eni", 1), (vpc, "vpc", 2)):
        place.ip("addr", "add", f"10.0.0.{host}/24", "dev", interface)
        place.ip("addr", "add", f"2001:db8::{51 + host:d}/64", "dev", interface, "nodad")
        place.ip("link", "set", interface, "up")
    # Of a burst before the first answer of a neighbour the kernel drops most, counted or not.
    mac = vpc.ip("-br", "link", "show", "vpc").split()[2]
    for address in ("10.0.0.2", "2001:db8::53"):
        node.ip("neigh", "replace", address, "lladdr", mac, "dev", "eni", "nud", "permanent")
    # Without the offloads a GSO packet is one skb at our hook and many packets on the wire.
    off = ("tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation")
    node.enter("ethtool", "-K", "eni", *(word for name in off for word in (name, "off")))
    vpc.enter("nft", "-f", "-", stdin=_COUNTERS)
    return Pair(node, vpc, node.ifindex("eni"))
