"""Two thousand cgroups behind one veth: each its own tag, each counted at the ENI as itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from eni53.kernel.attach import ENI_HOOKS, WORKLOAD_HOOKS
from eni53.kernel.tags import TagPool

from .conftest import MakeAttacher, MakeNamespace
from .kernel import Kernel
from .netns import Pair, cgroup_root, inside, until

CGROUPS = 2000
# A socket belongs to the cgroup its process was in when it was made.
_WALK = """
import socket, sys
from pathlib import Path
for number, place in enumerate(sorted(Path(sys.argv[1]).iterdir())):
    if place.is_dir():
        (place / "cgroup.procs").write_text("0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(int(place.name) % 3 + 1):
                sender.sendto(b"x", ("10.0.0.2", 53))
(Path(sys.argv[1]) / "cgroup.procs").write_text("0")
"""


@pytest.fixture
def wired(pair: Pair) -> Iterator[Kernel]:
    """Programs of their own, since tags are put into circulation here."""
    kernel = Kernel.load()
    kernel.dev = pair.eni
    kernel.forget()
    with inside(pair.node.name):
        yield kernel
    kernel.loaded.close()


@pytest.fixture
def cgroups() -> Iterator[dict[int, int]]:
    """That many cgroups: id to how many packets each sends."""
    top = cgroup_root() / f"eni53t-{os.getpid()}"
    top.mkdir()
    made = [top / f"{number:05d}" for number in range(CGROUPS)]
    for place in made:
        place.mkdir()
    try:
        yield {place.stat().st_ino: int(place.name) % 3 + 1 for place in made}
    finally:
        for place in made:
            place.rmdir()
        assert until(lambda: _removed(top))


def _removed(place: Path) -> bool:
    try:
        place.rmdir()
    except OSError:  # the last process is still on its way out
        return False
    return True


def test_each_cgroup_is_counted_as_itself(
    wired: Kernel,
    pair: Pair,
    make_attacher: MakeAttacher,
    make_namespace: MakeNamespace,
    cgroups: dict[int, int],
) -> None:
    """Sent at the veth and counted at the ENI agree for each of them, to the packet."""
    node, pod = pair.node, make_namespace("pod")
    node.ip("link", "add", "v0", "type", "veth", "peer", "name", "p0", "netns", pod.name)
    for place, name, host in ((node, "v0", 1), (pod, "p0", 2)):
        place.ip("addr", "add", f"10.1.0.{host}/24", "dev", name)
        place.ip("link", "set", name, "up")
    pod.ip("route", "add", "default", "via", "10.1.0.1")
    node.enter("sysctl", "-qw", "net.ipv4.ip_forward=1")
    attacher = make_attacher("auto")
    attacher.attach(node.ifindex("v0"), "v0", WORKLOAD_HOOKS)
    attacher.attach(pair.eni, "eni", ENI_HOOKS)
    TagPool(wired.maps, lambda _: None, lambda _: True)

    top = next(cgroup_root().glob(f"eni53t-{os.getpid()}"))
    pod.enter(sys.executable, "-I", "-c", _WALK, str(top))

    total = sum(cgroups.values())
    assert until(lambda: pair.counted("udp4") >= total), pair.counted("udp4")
    sample = wired.maps.read()
    at_veth = {o.cgroup_id: sum(o.sent.values()) for o in sample.origins.values()}
    owner = {origin.tag: origin.cgroup_id for origin in sample.origins.values()}
    at_eni = {owner[key.origin]: count for key, count in sample.senders.items()}
    assert pair.counted("udp4") == total
    assert at_veth == cgroups
    assert at_eni == cgroups
    assert 0 not in owner
