"""Cgroup ids on a node that has version 1 alone, as Amazon Linux 2 has by default.

Every process is in the root of the version 2 that nobody has mounted: that has id 1, always. So a
container cannot be told from its cgroup; its veth names it all the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from eni53.kernel.attach import ENI_HOOKS, WORKLOAD_HOOKS

from tests.guests.inside.trunk import send_from
from tests.kernel.conftest import MakeAttacher, MakeNamespace
from tests.kernel.kernel import Kernel
from tests.kernel.netns import Pair, until

_ROOT = 1


def make_cgroup(controller: str, name: str) -> Path:
    """A cgroup of version 1."""
    place = Path("/sys/fs/cgroup", controller, name)
    place.mkdir(exist_ok=True)
    return place


def test_version_2_is_not_mounted() -> None:
    """Else nothing here is shown."""
    assert "cgroup2" not in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize("controller", ["memory", "net_cls,net_prio"])
def test_a_container_is_known_by_its_veth(
    wired: Kernel,
    pair: Pair,
    make_namespace: MakeNamespace,
    make_attacher: MakeAttacher,
    controller: str,
) -> None:
    """Two cgroups in one container, one of them with a class id: one origin, with id 1."""
    task = make_namespace("task")
    pair.node.ip("link", "add", "v1", "type", "veth", "peer", "eth0", "netns", task.name)
    pair.node.ip("addr", "add", "10.9.1.1/24", "dev", "v1")
    task.ip("addr", "add", "10.9.1.2/24", "dev", "eth0")
    pair.node.ip("link", "set", "v1", "up")
    task.ip("link", "set", "eth0", "up")
    task.ip("route", "add", "default", "via", "10.9.1.1")
    pair.node.enter("sysctl", "-qw", "net.ipv4.ip_forward=1")
    attacher = make_attacher("auto")
    attacher.attach(pair.eni, "eni", ENI_HOOKS)
    veth = pair.node.ifindex("v1")
    attacher.attach(veth, "v1", WORKLOAD_HOOKS)
    wired.maps.free_tags([901, 902])
    one, two = (make_cgroup(controller, name) for name in ("one", "two"))
    if "net_cls" in controller:
        (two / "net_cls.classid").write_text("0x100001")
    send_from(task, one, 101, "10.0.0.2")
    send_from(task, two, 103, "10.0.0.2")
    assert until(lambda: pair.counted("udp4") == 204)
    sample = wired.maps.read()
    sent = {place: origin.sent for place, origin in sample.origins.items()}
    assert {(veth, _ROOT): {"resolver": 204}} == sent
    (origin,) = sample.origins.values()
    rows = {(key.ingress, key.origin): n for key, n in sample.senders.items()}
    assert {(veth, origin.tag): 204} == rows


@pytest.mark.parametrize("controller", ["memory", "net_cls,net_prio"])
def test_a_sender_on_the_node_is_the_root(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, controller: str
) -> None:
    """Whatever cgroup of version 1 it is in."""
    make_attacher("auto").attach(pair.eni, "eni", ENI_HOOKS)
    cgroup = make_cgroup(controller, "host")
    send_from(pair.node, cgroup, 107, "10.0.0.2")
    assert until(lambda: pair.counted("udp4") == 107)
    rows = {(k.ingress, k.origin, k.cgroup_id): n for k, n in wired.maps.read().senders.items()}
    assert {(0, 0, _ROOT): 107} == rows
