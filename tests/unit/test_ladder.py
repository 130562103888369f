"""Who is charged: the ladder over an inventory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from eni53.attribution import KERNEL, NOBODY, Ladder, Rung
from eni53.inventory.cgroups import CgroupTree
from eni53.inventory.workloads import PAUSE, Container, Workloads
from eni53.kernel.layout import LOOPBACK
from eni53.model import Workload
from eni53.sample import Origin, SenderKey

BRIDGE, VETH_A, VETH_B = 3, 11, 12


def key(origin: int = 0, ingress: int = 0, cgroup_id: int = 0) -> SenderKey:
    """A row of the kernel's count."""
    return SenderKey(2, 0, origin, ingress, cgroup_id, "resolver", "udp")


def container(name: str, netns: int, cgroup_id: int, **changes: object) -> Container:
    """A container of a task of its own, in namespace *netns*, known as netns // 10."""
    facts: dict[str, object] = {
        "id": name * 3,
        "workload": Workload("ecs_task", "prod", f"{name}:1/t", name),
        "netns": netns,
        "netns_id": netns // 10,
        "cgroup_id": cgroup_id,
        "cgroup": f"/ecs/{name}",
    }
    return Container(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.fixture
def workloads() -> Workloads:
    """Task a behind VETH_A (namespace 100), task b behind VETH_B (namespace 200)."""
    known = Workloads()
    known.veth_appeared(VETH_A, 10)
    known.veth_appeared(VETH_B, 20)
    known.add(container("a", 100, 1001))
    known.add(container("b", 200, 2001))
    return known


def ladder(workloads: Workloads, *origins: Origin, root: Path | None = None) -> Ladder:
    """The ladder over them."""
    return Ladder({o.tag: o for o in origins}, {VETH_A, VETH_B}, workloads, CgroupTree(root))


def name(found: Ladder, row: SenderKey) -> tuple[str, str] | None:
    """(workload, container) of the verdict."""
    owner = found.judge(row).owner
    return None if owner is None else (owner.workload.workload, owner.workload.container)


def test_a_tag_names_the_task_whatever_way_the_packet_took(workloads: Workloads) -> None:
    """Rung (a): routed from the veth, or across a bridge."""
    found = ladder(workloads, Origin(VETH_A, 1001, 7, {}))
    assert name(found, key(7, VETH_A)) == ("a:1/t", "a")
    assert name(found, key(7, BRIDGE)) == ("a:1/t", "a")
    assert found.judge(key(7, BRIDGE)).rung is Rung.TAG


def test_a_tag_that_contradicts_the_veth_is_not_believed(workloads: Workloads) -> None:
    """Another program may use the same field; the veth cannot be forged."""
    found = ladder(workloads, Origin(VETH_A, 1001, 7, {}))
    verdict = found.judge(key(7, VETH_B))

    assert name(found, key(7, VETH_B)) == ("b:1/t", "b")
    assert (verdict.rung, verdict.tag_lost) == (Rung.VETH, True)


def test_an_unknown_tag_falls_to_the_veth(workloads: Workloads) -> None:
    """Rung (b): the veth names the task; the packet lost its tag."""
    found = ladder(workloads)
    assert name(found, key(9, VETH_A)) == ("a:1/t", "a")
    assert found.judge(key(0, VETH_A)).tag_lost
    assert not ladder(workloads, Origin(VETH_A, 1001, 7, {})).judge(key(7, VETH_A)).tag_lost


def test_no_tag_across_a_bridge_is_nobodys(workloads: Workloads) -> None:
    """Rung (e): when in doubt, unattributed."""
    verdict = ladder(workloads).judge(key(0, BRIDGE))
    assert (verdict.owner, verdict.rung) == (NOBODY, Rung.NOWHERE)


@pytest.mark.parametrize("foreign", [0, 1, 999, 2001])
def test_a_foreign_cgroup_is_still_the_namespaces(workloads: Workloads, foreign: int) -> None:
    """No socket, dockerd's, unknown, or another task's cgroup: the namespace decides."""
    found = ladder(workloads, Origin(VETH_A, foreign, 7, {}))
    assert name(found, key(7, BRIDGE)) == ("a:1/t", "a")


def test_containers_of_one_namespace(workloads: Workloads) -> None:
    """The cgroup picks the container; without it the container is empty, not wrong."""
    side = Workload("ecs_task", "prod", "a:1/t", "side")
    workloads.add(container("c", 100, 1002, workload=side))
    found = ladder(
        workloads,
        Origin(VETH_A, 1001, 7, {}),
        Origin(VETH_A, 1002, 8, {}),
        Origin(VETH_A, 0, 9, {}),
    )
    assert name(found, key(7, BRIDGE)) == ("a:1/t", "a")
    assert name(found, key(8, BRIDGE)) == ("a:1/t", "side")
    assert name(found, key(9, BRIDGE)) == ("a:1/t", "")


def test_the_pause_container_is_not_the_one_who_asks(workloads: Workloads) -> None:
    """A pause container holds the namespace and sends nothing: the only other one is meant."""
    pause = Workload("ecs_task", "prod", "a:1/t", PAUSE)
    workloads.add(container("p", 100, 1003, workload=pause))
    found = ladder(workloads, Origin(VETH_A, 0, 7, {}))
    assert name(found, key(7, BRIDGE)) == ("a:1/t", "a")


def test_local_senders(workloads: Workloads, tmp_path: Path) -> None:
    """Rung (c): the kernel, a host-mode container, a unit, a plain path, and one not known yet."""
    unit = tmp_path / "system.slice/chronyd.service"
    plain = tmp_path / "user.slice/shell"
    orphan = tmp_path / f"docker/{'ab' * 32}"
    for directory in (unit, plain, orphan):
        directory.mkdir(parents=True)
    workloads.add(container("h", 1, 3001, host_network=True, netns_id=None))
    found = ladder(workloads, root=tmp_path)

    assert found.judge(key()).owner is not None
    assert found.judge(key()).owner.workload == KERNEL  # type: ignore[union-attr]
    assert name(found, key(cgroup_id=3001)) == ("h:1/t", "h")
    assert name(found, key(cgroup_id=unit.stat().st_ino)) == ("chronyd.service", "")
    assert name(found, key(cgroup_id=plain.stat().st_ino)) == ("/user.slice/shell", "")
    assert name(found, key(cgroup_id=orphan.stat().st_ino)) is None
    settled = found.settle(key(cgroup_id=orphan.stat().st_ino)).workload
    assert settled == Workload("container", workload="ab" * 6)


def test_a_tag_on_a_packet_from_this_host_means_nothing(workloads: Workloads) -> None:
    """Nothing of ours tags local packets; the cgroup speaks."""
    found = ladder(workloads, Origin(VETH_A, 1001, 7, {}))
    assert found.judge(key(7, 0)).owner.workload == KERNEL  # type: ignore[union-attr]


def test_who_has_ended_keeps_its_name(workloads: Workloads) -> None:
    """Its packets may not have been reported yet; also when its veth is gone."""
    found = ladder(workloads, Origin(VETH_A, 1001, 7, {}))
    workloads.end("aaa")
    workloads.veth_gone(VETH_A)
    assert name(found, key(7, BRIDGE)) == ("a:1/t", "a")
    workloads.forget_veth(VETH_A)
    assert name(found, key(7, BRIDGE)) == ("a:1/t", "a")  # its cgroup is never another's


def test_a_namespace_number_that_comes_back(workloads: Workloads) -> None:
    """The kernel gives the number of a namespace that is gone to the next one; the old veth's
    packets stay with the old task, and the new veth's go to the new one.
    """
    workloads.end("aaa")
    workloads.veth_gone(VETH_A)
    workloads.veth_appeared(15, 10)
    workloads.add(container("n", 300, 4001, netns_id=10))
    found = Ladder(
        {7: Origin(VETH_A, 1001, 7, {}), 8: Origin(15, 4001, 8, {})},
        {VETH_B, 15},
        workloads,
        CgroupTree(None),
    )
    assert name(found, key(7, BRIDGE)) == ("a:1/t", "a")
    assert name(found, key(8, BRIDGE)) == ("n:1/t", "n")


def test_a_namespace_number_that_comes_back_before_the_runtime_speaks(
    workloads: Workloads,
) -> None:
    """A new veth with an old number while the old container still counts as running: nobody's
    until the runtime says whose, and never the old one's.
    """
    workloads.veth_gone(VETH_A)
    workloads.veth_appeared(15, 10)
    found = Ladder({8: Origin(15, 4001, 8, {})}, {15}, workloads, CgroupTree(None))
    assert name(found, key(8, BRIDGE)) is None
    workloads.end("aaa")
    workloads.add(container("n", 300, 4001, netns_id=10))
    assert name(found, key(8, BRIDGE)) == ("n:1/t", "n")


def test_a_container_that_is_started_again(workloads: Workloads) -> None:
    """The same id in a new namespace: the old veth's packets keep their name."""
    workloads.end("aaa")
    workloads.veth_gone(VETH_A)
    workloads.veth_appeared(16, 40)
    workloads.add(container("a", 400, 1001, netns_id=40))
    found = ladder(workloads, Origin(VETH_A, 1001, 7, {}), Origin(16, 1001, 8, {}))
    assert name(found, key(8, BRIDGE)) == ("a:1/t", "a")
    assert name(found, key(7, BRIDGE)) == ("a:1/t", "a")


def test_behind_a_cache_the_asker_is_charged(workloads: Workloads) -> None:
    """The cache's own sender does not matter; an asker that is gone leaves the packet to it."""
    found = ladder(workloads, Origin(VETH_A, 1001, 7, {}), Origin(VETH_B, 2001, 8, {}))
    verdict = found.judge(replace(key(8, VETH_B), asker=7))
    assert verdict.owner is not None
    assert (verdict.owner.workload.workload, verdict.via) == ("a:1/t", "cache")
    assert verdict.rung is Rung.ASKER
    gone = found.judge(replace(key(8, VETH_B), asker=99))
    assert gone.owner is not None
    assert (gone.owner.workload.workload, gone.via) == ("b:1/t", "direct")


def test_who_asked_on_loopback_goes_by_its_cgroup(workloads: Workloads, tmp_path: Path) -> None:
    """A unit, a container in host mode, one that is yet to be named; never who is behind a veth."""
    unit = tmp_path / "system.slice" / "shipper.service"
    scope = tmp_path / "docker" / ("ab" * 32)
    for place in (unit, scope):
        place.mkdir(parents=True)
    shipper, unnamed = unit.stat().st_ino, scope.stat().st_ino
    workloads.add(replace(container("h", 1, 5001), host_network=True))
    origins = {
        tag: Origin(LOOPBACK, cgroup, tag, {})
        for tag, cgroup in ((7, shipper), (8, 5001), (9, unnamed))
    }
    found = Ladder(origins, {VETH_A, VETH_B}, workloads, CgroupTree(tmp_path))
    sent = replace(key(0, 0), cgroup_id=999)
    verdict = found.judge(replace(sent, asker=7))
    assert verdict.owner is not None
    assert verdict.owner.workload == Workload("host", workload="shipper.service")
    assert (verdict.via, verdict.rung) == ("cache", Rung.ASKER)
    assert name(found, replace(sent, asker=8)) == ("h:1/t", "h")
    late = replace(sent, asker=9)
    assert found.judge(late).owner is None
    assert found.settle(late).workload == Workload("container", workload="ab" * 6)
    service = tmp_path / "system.slice" / "late.service"
    service.mkdir()
    origins[10] = Origin(LOOPBACK, service.stat().st_ino, 10, {})
    settled = Ladder(origins, set(), workloads, CgroupTree(tmp_path))
    assert settled.settle(replace(sent, asker=10)).workload.workload == "late.service"


def test_an_asker_without_a_name_yet_is_waited_for(workloads: Workloads) -> None:
    """It is neither the cache's nor nobody's; settled, it is not the cache's either."""
    workloads.veth_appeared(13, 30)
    found = ladder(workloads, Origin(13, 3001, 9, {}), Origin(VETH_B, 2001, 8, {}))
    row = replace(key(8, VETH_B), asker=9)
    assert found.judge(row).owner is None
    assert found.settle(row) == NOBODY
