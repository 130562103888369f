"""Real packets through real devices: what a test run cannot show."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from eni53.kernel.attach import ENI_HOOKS, WORKLOAD_HOOKS

from . import frames as f
from .conftest import MakeAttacher, MakeNamespace
from .kernel import Kernel, expected, outcome
from .netns import Pair, cgroup_root, inside, until
from .test_sweeps import REPRESENTATIVES

_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_VNET = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM, _GSO_TCP4, _GSO_UDP = 1, 1, 5
MODES = pytest.mark.parametrize("mode", ["tcx", "clsact"])


def raw_socket(pair: Pair, *, with_header: bool = False) -> socket.socket:
    """Sends whole frames out of the ENI; with_header: each behind a virtio header."""
    with inside(pair.node.name):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        if with_header:
            raw.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        raw.bind(("eni", 0))
    return raw


def test_frames_cut_short_on_the_wire(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher
) -> None:
    """A raw socket may send headers cut anywhere: each is judged as the oracle does."""
    make_attacher("auto").attach(pair.eni, "eni", ENI_HOOKS[1:])
    with raw_socket(pair) as raw:
        for name, frame in REPRESENTATIVES.items():
            wired.forget()
            before = wired.maps.read().stats
            cut = [frame[:length] for length in range(14, len(frame) + 1)]
            for one in cut:
                raw.send(one)
            seen = outcome("eni_egress", before, wired.maps.read())
            assert (name, dict(expected("eni_egress", cut))) == (name, dict(seen))


@pytest.mark.parametrize("name", ["udp", "tcp with options", "chain", "tagged chain"])
def test_headers_outside_the_linear_data(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, name: str
) -> None:
    """Headers hidden in page fragments, as only a raw socket does, are pulled in and counted."""
    for place, interface in ((pair.node, "eni"), (pair.vpc, "vpc")):
        place.ip("link", "set", interface, "mtu", "9000")
    frame = REPRESENTATIVES[name].ljust(8000, b"\0")
    make_attacher("auto").attach(pair.eni, "eni", ENI_HOOKS[1:])
    with raw_socket(pair, with_header=True) as raw:
        for linear in range(110):
            wired.forget()
            before = wired.maps.read().stats
            raw.send(_VNET.pack(0, 0, linear, 0, 0, 0) + frame)
            seen = outcome("eni_egress", before, wired.maps.read())
            assert (linear, dict(expected("eni_egress", [frame]))) == (linear, dict(seen))


@pytest.mark.parametrize("protocol", ["tcp4", "udp4"])
def test_segments_that_nobody_has_counted(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, protocol: str
) -> None:
    """GSO from a raw socket arrives with 0 segments: the wire then carries what we say it does."""
    for place, interface in ((pair.node, "eni"), (pair.vpc, "vpc")):
        place.ip("link", "set", interface, "mtu", "9000")
    payload = bytes(2800)
    if protocol == "tcp4":
        body, number, kind, checksum = f.tcp(payload=payload), f.TCP, _GSO_TCP4, 16
    else:
        body, number, kind, checksum = f.udp(payload=payload), f.UDP, _GSO_UDP, 6
    frame = _mac(pair) + f.ipv4(body, number, "10.0.0.2", "10.0.0.1")[6:]
    make_attacher("auto").attach(pair.eni, "eni", ENI_HOOKS[1:])
    headers, total = len(frame) - len(payload), 0
    with raw_socket(pair, with_header=True) as raw:
        for size in (1400, 1399, 1000, 700, 2000, 2799):
            raw.send(_VNET.pack(_NEEDS_CHECKSUM, kind, headers, size, 34, checksum) + frame)
            total += -(-len(payload) // size)
            assert until(lambda: pair.counted(protocol) >= total), size  # noqa: B023
            assert (size, total) == (size, pair.counted(protocol))
            assert (size, [total]) == (size, list(wired.maps.read().senders.values()))


def _mac(pair: Pair) -> bytes:
    """Hardware address of the VPC's end."""
    words = pair.vpc.ip("-br", "link", "show", "vpc").split()
    return bytes.fromhex(words[2].replace(":", ""))


@MODES
def test_a_branch_eni_rides_on_its_trunk(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, mode: str
) -> None:
    """A tag that the kernel took out of the frame still names the branch: the outer one of two.

    Each device that receives takes one out; a bridge carries the frame on to the ENI.
    """
    make_attacher(mode).attach(pair.eni, "eni", ENI_HOOKS[1:])
    node = pair.node
    node.ip("link", "add", "v0", "type", "veth", "peer", "name", "p0")
    node.ip("link", "add", "br0", "type", "bridge")
    for name in ("v0", "eni"):
        node.ip("link", "set", name, "master", "br0")
    for name in ("p0", "v0", "br0"):
        node.ip("link", "set", name, "up")
    outer, inner, priority = (f.QINQ, 12), (f.VLAN, 11), (f.VLAN, 0xE000)
    for tags in ([], [inner], [outer, inner], [priority, inner], [priority]):
        frame = f.ipv6(f.udp(), f.UDP, "fd00:ec2::253", tags=tags)
        with inside(node.name), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("p0", 0))
            raw.send(frame)
    assert until(lambda: sum(wired.maps.read().senders.values()) == 5)
    found = Counter[int]()
    for key, packets in wired.maps.read().senders.items():
        found[key.vlan] += packets
    assert {0: 2, 11: 2, 12: 1} == dict(found)


_SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[1])):
    sender.sendto(b"question", ("10.0.0.2", 53))
"""


@pytest.fixture
def cgroups() -> Iterator[list[Path]]:
    """Two cgroups to send from."""
    places = [cgroup_root() / f"eni53t-{os.getpid()}-{number}" for number in range(2)]
    for place in places:
        place.mkdir()
    yield places
    for place in places:
        assert until(lambda place=place: not (place / "cgroup.procs").read_text())
        place.rmdir()


@MODES
def test_a_tag_travels_from_the_veth_to_the_eni(
    wired: Kernel,
    pair: Pair,
    make_namespace: MakeNamespace,
    make_attacher: MakeAttacher,
    cgroups: list[Path],
    mode: str,
) -> None:
    """Two tasks, two cgroups in each, forwarded: every packet at the ENI names its sender."""
    pair.node.enter("sysctl", "-qw", "net.ipv4.ip_forward=1")
    attacher = make_attacher(mode)
    attacher.attach(pair.eni, "eni", ENI_HOOKS)
    wired.maps.free_tags([31, 32, 33, 34])
    sent: dict[tuple[int, int], int] = {}
    for number in (1, 2):
        task = make_namespace(f"task{number}")
        pair.node.ip(
            "link", "add", f"v{number}", "type", "veth", "peer", "eth0", "netns", task.name
        )
        pair.node.ip("addr", "add", f"10.9.{number}.1/24", "dev", f"v{number}")
        task.ip("addr", "add", f"10.9.{number}.2/24", "dev", "eth0")
        pair.node.ip("link", "set", f"v{number}", "up")
        task.ip("link", "set", "eth0", "up")
        task.ip("route", "add", "default", "via", f"10.9.{number}.1")
        veth = pair.node.ifindex(f"v{number}")
        attacher.attach(veth, f"v{number}", WORKLOAD_HOOKS)
        for cgroup in cgroups:
            packets = 20 + 3 * len(sent)
            command = f'echo $$ > {cgroup}/cgroup.procs && exec python3 -c "$0" {packets}'
            enter = ["nsenter", f"--net=/run/netns/{task.name}", "sh", "-c", command, _SEND]
            subprocess.run(enter, check=True)
            sent[veth, cgroup.stat().st_ino] = packets
    total = sum(sent.values())
    assert until(lambda: pair.counted("udp4") == total)

    sample = wired.maps.read()
    assert sent == {place: o.sent["resolver"] for place, o in sample.origins.items()}
    assert {31, 32, 33, 34} == {origin.tag for origin in sample.origins.values()}
    named = {
        (key.ingress, origin.cgroup_id): packets
        for key, packets in sample.senders.items()
        for origin in sample.origins.values()
        if origin.tag == key.origin
    }
    assert sent == named


def test_no_tag_is_written_where_another_dataplane_has_its_own(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher
) -> None:
    """With write_tags off the origin is counted, and tc_index left alone."""
    wired.maps.free_tags([41])
    wired.maps.set_resolvers(["10.0.0.2"], write_tags=False)
    try:
        attacher = make_attacher("auto", where=pair.vpc)
        with inside(pair.vpc.name):
            attacher.attach(pair.vpc.ifindex("vpc"), "vpc", WORKLOAD_HOOKS)
        with pair.node.socket() as sender:
            sender.sendto(b"question", ("10.0.0.2", 53))
        assert until(lambda: bool(wired.maps.read().origins))
    finally:
        wired.__post_init__()
    (origin,) = wired.maps.read().origins.values()
    assert {"resolver": 1} == origin.sent
