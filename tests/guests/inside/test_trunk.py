"""Branch ENIs with the kernel's own VLAN devices, as on a node with ENI trunking."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from eni53.kernel.attach import ENI_HOOKS, WORKLOAD_HOOKS

from tests.kernel import frames as f
from tests.kernel.conftest import MakeAttacher, MakeNamespace
from tests.kernel.kernel import Kernel
from tests.kernel.netns import until

from .trunk import RESOLVER4, RESOLVER6, Trunk, send, send_from, stream


def counted(kernel: Kernel) -> dict[tuple[int, str], int]:
    """Packets by VLAN and protocol: the sum over all senders on the one ENI there is."""
    result = Counter[tuple[int, str]]()
    for key, packets in kernel.maps.read().senders.items():
        assert key.dev == kernel.dev
        result[key.vlan, key.protocol] += packets
    return dict(result)


def in_windows(kernel: Kernel) -> dict[int, int]:
    """Packets in the window slots, by VLAN."""
    enis = kernel.maps.read().enis
    sums = {vlan: sum(slot.dns for slot in eni.slots) for (_, vlan), eni in enis.items()}
    return {vlan: packets for vlan, packets in sums.items() if packets}


def test_packets_of_a_branch_are_counted_on_its_trunk(
    wired: Kernel, trunk: Trunk, make_attacher: MakeAttacher, mode: str
) -> None:
    """UDP and TCP, both families: under the VLAN, to the packet, and never under the trunk."""
    make_attacher(mode).attach(trunk.pair.eni, "eni", ENI_HOOKS)
    trunk.branch(7)
    trunk.lead(7)
    send(trunk.pair.node, 1203, RESOLVER4)
    send(trunk.pair.node, 807, RESOLVER6)
    stream(trunk.pair.node, trunk.pair.vpc, RESOLVER4, 300_000)
    stream(trunk.pair.node, trunk.pair.vpc, RESOLVER6, 200_000)
    assert until(lambda: sum(counted(wired).values()) == trunk.arrived(7))
    seen = counted(wired)
    assert {(7, "udp"), (7, "tcp")} == set(seen)
    assert 1203 + 807 == seen[7, "udp"]
    assert 1203 + 807 + 500_000 / 1500 < trunk.arrived(7)
    assert {7: trunk.arrived(7)} == in_windows(wired)
    assert trunk.tags_in_metadata() >= trunk.arrived(7)


def test_a_tag_in_the_frame_is_the_same(
    wired: Kernel, trunk: Trunk, make_attacher: MakeAttacher, mode: str
) -> None:
    """No reordering and no offload: the tag is part of the frame at the hook, and counts alike."""
    make_attacher(mode).attach(trunk.pair.eni, "eni", ENI_HOOKS)
    trunk.without_offload()
    trunk.branch(7, reorder=False)
    trunk.lead(7)
    send(trunk.pair.node, 503, RESOLVER4)
    send(trunk.pair.node, 301, RESOLVER6)
    stream(trunk.pair.node, trunk.pair.vpc, RESOLVER4, 100_000)
    assert until(lambda: sum(counted(wired).values()) == trunk.arrived(7))
    seen = counted(wired)
    assert {(7, "udp"), (7, "tcp")} == set(seen)
    assert 503 + 301 == seen[7, "udp"]
    assert trunk.tags_in_metadata() == 0, "else this proves nothing new"


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "no offload"])
def test_branches_and_trunk_are_told_apart(
    wired: Kernel, trunk: Trunk, make_attacher: MakeAttacher, mode: str, offload: bool
) -> None:
    """Two branches and untagged packets, in turns: each has its own and nothing of the others."""
    if not offload:
        trunk.without_offload()
    make_attacher(mode).attach(trunk.pair.eni, "eni", ENI_HOOKS)
    for vlan in (7, 8):
        trunk.branch(vlan)
    for _ in range(10):
        send(trunk.pair.node, 11, "10.8.7.2")
        send(trunk.pair.node, 13, "2001:db8:8::2")
        send(trunk.pair.node, 17, "10.0.0.2")
    assert until(lambda: trunk.arrived(7) == 110 and trunk.arrived(8) == 130)
    assert trunk.pair.counted("udp4") == 110 + 170
    assert {(0, "udp"): 170, (7, "udp"): 110, (8, "udp"): 130} == counted(wired)
    assert {0: 170, 7: 110, 8: 130} == in_windows(wired)


def test_answers_are_the_branchs(
    wired: Kernel, trunk: Trunk, make_attacher: MakeAttacher, mode: str
) -> None:
    """What comes back tagged is an answer to the branch, of known latency, and not the trunk's."""
    make_attacher(mode).attach(trunk.pair.eni, "eni", ENI_HOOKS)
    trunk.branch(7)
    with trunk.pair.node.socket() as client, trunk.pair.vpc.socket() as resolver:
        client.bind(("10.8.7.1", 40053))
        resolver.bind(("10.8.7.2", 53))
        client.sendto(f.dns_query(identity=77), ("10.8.7.2", 53))
        resolver.sendto(f.dns_answer(rcode=3, identity=77), ("10.8.7.1", 40053))
        client.settimeout(5)
        assert client.recv(512)
    enis = wired.maps.read().enis
    assert {3: 1} == enis[trunk.pair.eni, 7].responses
    assert {} == enis[trunk.pair.eni, 0].responses
    assert 1 == sum(enis[trunk.pair.eni, 7].response_buckets)


def test_a_workloads_tag_survives_the_vlan_device(
    wired: Kernel,
    trunk: Trunk,
    make_namespace: MakeNamespace,
    make_attacher: MakeAttacher,
    mode: str,
) -> None:
    """A pod with a branch ENI of its own, as EKS wires it: routed from its veth out of the VLAN."""
    node, pod = trunk.pair.node, make_namespace("pod")
    attacher = make_attacher(mode)
    attacher.attach(trunk.pair.eni, "eni", ENI_HOOKS)
    node.ip("link", "add", "vlan7", "type", "veth", "peer", "eth0", "netns", pod.name)
    node.ip("addr", "add", "10.9.1.1/24", "dev", "vlan7")
    pod.ip("addr", "add", "10.9.1.2/24", "dev", "eth0")
    node.ip("link", "set", "vlan7", "up")
    pod.ip("link", "set", "eth0", "up")
    pod.ip("route", "add", "default", "via", "10.9.1.1")
    veth = node.ifindex("vlan7")
    attacher.attach(veth, "vlan7", WORKLOAD_HOOKS)
    wired.maps.free_tags([7777])
    trunk.branch(7)
    # A table of its own, chosen by the veth: so does the VPC CNI.
    node.ip("route", "add", "default", "via", "10.8.7.2", "dev", "vlan.eth.7", "table", "107")
    node.ip("rule", "add", "iif", "vlan7", "lookup", "107", "pref", "10")
    trunk.pair.vpc.ip("route", "add", "10.9.1.0/24", "via", "10.8.7.1")
    node.enter("sysctl", "-qw", "net.ipv4.ip_forward=1")
    send(pod, 211, RESOLVER4)
    assert until(lambda: trunk.arrived(7) == 211)
    sample = wired.maps.read()
    (origin,) = sample.origins.values()
    assert (veth, {"resolver": 211}) == (origin.ifindex, origin.sent)
    assert origin.tag
    rows = {(k.vlan, k.ingress, k.origin): n for k, n in sample.senders.items()}
    assert {(7, veth, origin.tag): 211} == rows


def test_a_sender_behind_a_vlan_device_in_its_own_namespace(
    wired: Kernel,
    trunk: Trunk,
    make_namespace: MakeNamespace,
    make_attacher: MakeAttacher,
    cgroup: Path,
    mode: str,
) -> None:
    """A task with a branch ENI of its own, as ECS wires it: the trunk sees its cgroup."""
    task = make_namespace("task")
    make_attacher(mode).attach(trunk.pair.eni, "eni", ENI_HOOKS)
    trunk.branch(7, task=task)
    trunk.lead(7, task)
    send_from(task, cgroup, 307, RESOLVER4)
    assert until(lambda: trunk.arrived(7) == 307)
    rows = {
        (key.vlan, key.ingress, key.origin, key.cgroup_id): packets
        for key, packets in wired.maps.read().senders.items()
    }
    assert {(7, 0, 0, cgroup.stat().st_ino): 307} == rows
