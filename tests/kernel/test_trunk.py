"""VLAN tags: they are branch ENIs on a trunk, and nothing at all on any other ENI."""

from __future__ import annotations

import socket
from collections import Counter

import pytest
from eni53.kernel import layout
from eni53.kernel.attach import ENI_HOOKS, TASK_HOOKS
from eni53.kernel.layout import TASK_DEV

from . import frames as f
from .conftest import MakeAttacher
from .kernel import Kernel
from .netns import Namespace, Pair, inside, until

MODES = pytest.mark.parametrize("mode", ["tcx", "clsact"])
ROOM = layout.SETTINGS["MAX_ENIS"]
_ANSWER = f.udp(40000, 53, f.dns_answer())
_NOBODYS = 4242


def tagged(*vlans: int, kind: int = f.VLAN) -> bytes:
    """A query under these tags, the outermost first."""
    return f.ipv4(f.udp(), f.UDP, "10.0.0.2", tags=[(kind, vlan) for vlan in vlans])


def start(kernel: Kernel, *, trunk: bool) -> None:
    """The ENI alone, as a trunk or not; `Kernel.forget` leaves it one."""
    kernel.forget()
    kernel.maps.remove_eni(kernel.dev)
    kernel.maps.add_eni(kernel.dev, trunk=trunk)


def by_vlan(kernel: Kernel) -> dict[int, int]:
    """Packets of the ENI by VLAN."""
    found = Counter[int]()
    for key, packets in kernel.maps.read().senders.items():
        assert key.dev == kernel.dev
        found[key.vlan] += packets
    return dict(found)


def branches(kernel: Kernel) -> set[int]:
    """VLANs that are ENIs of their own on this ENI; 0 is itself."""
    return {vlan for dev, vlan in kernel.maps.read().enis if dev == kernel.dev}


def rise(kernel: Kernel, before: dict[str, int]) -> dict[str, int]:
    """What was noted since."""
    return {
        name: n - before[name] for name, n in kernel.maps.read().stats.items() if n > before[name]
    }


@pytest.mark.parametrize("kind", [f.VLAN, f.QINQ])
def test_a_tag_on_no_trunk_makes_no_eni(bench: Kernel, kind: int) -> None:
    """All 4095 ids from a raw socket: counted as the ENI's own, and noted; no entry is made."""
    start(bench, trunk=False)
    before = bench.maps.read().stats
    for vlan in range(1 << 12):
        bench.run("eni_egress", tagged(vlan, kind=kind))
    sample = bench.maps.read()
    assert {0: 1 << 12} == by_vlan(bench)
    assert {(bench.dev, 0)} == set(sample.enis)
    assert {"vlan_unknown": (1 << 12) - 1} == rise(bench, before), "id 0 is no tag"
    assert 1 << 12 == sum(slot.dns for slot in sample.enis[bench.dev, 0].slots)


def test_a_trunk_makes_branches(bench: Kernel) -> None:
    """Declared when it is known already: from then on a tag is an ENI, and what was, stays."""
    start(bench, trunk=False)
    before = bench.maps.read().stats
    frames = [tagged(), tagged(11), tagged(12, 13), tagged(0, 14)]
    for frame in frames:
        bench.run("eni_egress", frame)
    assert {0: 4} == by_vlan(bench)
    bench.maps.add_eni(bench.dev, trunk=True)
    for frame in (*frames, tagged(11)):
        bench.run("eni_egress", frame)
    assert {0: 5, 11: 2, 12: 1, 14: 1} == by_vlan(bench)
    assert {0, 11, 12, 14} == branches(bench)
    assert {"vlan_unknown": 3} == rise(bench, before)
    bench.maps.add_eni(bench.dev)  # found once more, by a look that does not know better
    bench.run("eni_egress", tagged(15))
    assert {0, 11, 12, 14, 15} == branches(bench)


def test_a_trunk_that_is_gone_is_forgotten(bench: Kernel) -> None:
    """Its index is the next one's: that is no trunk, and has no branches."""
    start(bench, trunk=True)
    for vlan in (0, 11, 12):
        bench.run("eni_egress", tagged(vlan))
    assert {0, 11, 12} == branches(bench)
    bench.maps.remove_eni(bench.dev)
    assert set() == branches(bench)
    bench.run("eni_egress", tagged(11))
    assert set() == branches(bench), "a trunk nobody declared"
    before = bench.maps.read().stats
    bench.maps.add_eni(bench.dev)
    bench.run("eni_egress", tagged(13))
    assert {0} == branches(bench)
    assert {"vlan_unknown": 1} == rise(bench, before)


def test_a_trunk_is_one_interface(bench: Kernel) -> None:
    """Neither the interface beside it nor a task's ENI is a trunk because this one is."""
    start(bench, trunk=True)
    beside = 1  # the loopback device: the only other one here that frames can be run on
    for dev in (beside, TASK_DEV, TASK_DEV | bench.dev):
        bench.maps.add_eni(dev)
    before = bench.maps.read().stats
    bench.run("eni_egress", tagged(11), ifindex=beside)
    bench.run("task_egress", tagged(11))
    assert {"vlan_unknown": 2} == rise(bench, before)
    assert {(beside, 0), (TASK_DEV, 0)} == {
        (key.dev, key.vlan) for key in bench.maps.read().senders
    }
    bench.maps.add_eni(TASK_DEV, trunk=True)
    bench.run("task_egress", tagged(11))
    assert (TASK_DEV, 11) in bench.maps.read().enis
    bench.forget()


def test_a_source_on_no_trunk_has_no_vlan(bench: Kernel) -> None:
    """The rows by source address go with the ENI that was charged."""
    start(bench, trunk=False)

    def sources() -> set[int]:
        found = bench.maps.read().sources
        return {vlan for dev, vlan, address, *_ in found if (dev, address) == (bench.dev, source)}

    source = "198.51.100.77"
    frame = f.ipv4(f.udp(), f.UDP, "10.0.0.2", source, tags=[(f.VLAN, 21)])
    bench.run("eni_egress", frame, ingress_ifindex=_NOBODYS)
    assert {0} == sources()
    bench.maps.add_eni(bench.dev, trunk=True)
    bench.run("eni_egress", frame, ingress_ifindex=_NOBODYS)
    assert {0, 21} == sources()


def test_more_branches_than_there_is_room_for(bench: Kernel) -> None:
    """The last ones are counted with their trunk and noted: nothing is lost."""
    start(bench, trunk=True)
    before = bench.maps.read().stats
    sent = ROOM + 40
    for vlan in range(1, sent + 1):
        bench.run("eni_egress", tagged(vlan))
    found = by_vlan(bench)
    assert ROOM == len(branches(bench))
    assert {"eni_full": 41} == rise(bench, before)
    assert (41, sent) == (found[0], sum(found.values()))


def test_an_answer_under_an_unknown_tag_makes_no_eni(bench: Kernel) -> None:
    """Only what is sent makes a branch known; a stranger's answers must not."""
    for trunk in (False, True):
        start(bench, trunk=trunk)
        bench.run("eni_ingress", f.ipv4(_ANSWER, f.UDP, "10.0.0.1", tags=[(f.VLAN, 31)]))
        assert {0} == branches(bench)


def bridge(node: Namespace) -> None:
    """Frames put into p0 leave by the ENI, with their outer tag in the metadata."""
    node.ip("link", "add", "v0", "type", "veth", "peer", "name", "p0")
    node.ip("link", "add", "br0", "type", "bridge")
    for name in ("v0", "eni"):
        node.ip("link", "set", name, "master", "br0")
    for name in ("p0", "v0", "br0"):
        node.ip("link", "set", name, "up")


@MODES
def test_real_frames_under_a_tag(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, mode: str
) -> None:
    """Tags in the metadata, as a received or a VLAN device's frame has them: no trunk, a trunk."""
    start(wired, trunk=False)
    make_attacher(mode).attach(pair.eni, "eni", ENI_HOOKS)
    bridge(pair.node)
    before = wired.maps.read().stats
    # IPv6: a bridge that filters refuses an IPv4 header without its checksum.
    frames = [
        f.ipv6(f.udp(), f.UDP, "fd00:ec2::253", tags=[(f.VLAN, vlan) for vlan in vlans])
        for vlans in ([], [11], [12, 13])
    ]

    def pass_on(expected: int) -> None:
        with inside(pair.node.name), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("p0", 0))
            for frame in frames:
                raw.send(frame)
        assert until(lambda: sum(wired.maps.read().senders.values()) == expected)

    pass_on(3)
    assert {0: 3} == by_vlan(wired)
    assert {0} == branches(wired)
    assert {"vlan_unknown": 2} == rise(wired, before)
    wired.maps.add_eni(pair.eni, trunk=True)
    pass_on(6)
    assert {0: 4, 11: 1, 12: 1} == by_vlan(wired)
    assert {0, 11, 12} == branches(wired)
    wired.maps.remove_eni(pair.eni)
    wired.maps.add_eni(pair.eni)
    pass_on(9)
    assert {0: 7, 11: 1, 12: 1} == by_vlan(wired)
    assert {0} == branches(wired)


def test_a_raw_socket_in_a_task_makes_no_eni(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher
) -> None:
    """A task's ENI is never a trunk, whatever the task writes on its frames."""
    dev = TASK_DEV | 5
    wired.maps.add_eni(dev)
    make_attacher("clsact", class_id=5).attach(pair.eni, "eni", TASK_HOOKS)
    before = wired.maps.read().stats
    with inside(pair.node.name), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eni", 0))
        for vlan in range(1, 301):
            raw.send(tagged(vlan))
    assert {"vlan_unknown": 300} == rise(wired, before)
    sample = wired.maps.read()
    assert {(dev, 0): 300} == {(key.dev, key.vlan): n for key, n in sample.senders.items()}
    assert {(pair.eni, 0), (dev, 0)} == set(sample.enis)
