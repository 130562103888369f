"""Servers that workloads fall back from: whose, of late, and bounded; and what is found in that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eni53.diagnosis import findings
from eni53.errors import SourceError
from eni53.fallbacks import MOST, SPAN_S, Fallbacks
from eni53.inventory.workloads import Workloads
from eni53.model import ServerAsked, Snapshot, Workload
from eni53.sample import FallbackKey
from eni53.snapshot_json import dumps, from_json, loads, to_json

from tests.fixtures import snapshots
from tests.fixtures.hostile import HOSTILE_NAMES
from tests.fixtures.samples import Kernel, container, ladder, task

VETH, DEAD, SECOND_NS = 10, "172.17.0.1", 1_000_000_000
KEY = FallbackKey(VETH, 0, 100, DEAD)
Counts = dict[FallbackKey, tuple[int, int, int]]


class World:
    """A kernel's counts, an inventory, and a clock."""

    def __init__(self) -> None:
        self.fallbacks, self.workloads, self.now_s = Fallbacks(), Workloads(), 0.0

    def task(self, name: str, veth: int = VETH, cgroup: int = 100) -> None:
        """A task behind a veth."""
        self.workloads.veth_appeared(veth, veth)
        self.workloads.add(container(name, netns=veth, nsid=veth, cgroup=cgroup))

    def update(self, counts: Counts, after_s: float = 1.0) -> tuple[FallbackKey, ...]:
        """Look again some seconds later; what may be forgotten."""
        self.now_s += after_s
        sample = replace(Kernel().sample(self.now_s), fallbacks=counts)
        return self.fallbacks.update(sample, ladder(Kernel(), self.workloads), self.now_s)


def test_the_workload_behind_the_veth_is_named() -> None:
    """With the mean wait; both sockets of one workload are one row."""
    world = World()
    world.task("shop")
    other = replace(KEY, cgroup_id=0)
    world.update({KEY: (5, 4, 20 * SECOND_NS), other: (3, 1, 5 * SECOND_NS)})
    assert world.fallbacks.servers == (ServerAsked(task("shop"), DEAD, 8, 5, 5.0),)


def test_nobody_is_named_who_is_not_known_yet() -> None:
    """The row waits for the name, and loses nothing by that."""
    world = World()
    world.workloads.veth_appeared(VETH, VETH)
    world.update({KEY: (4, 4, 4 * SECOND_NS)})
    assert world.fallbacks.servers == ()
    world.task("shop")
    world.update({KEY: (5, 5, 5 * SECOND_NS)})
    assert [row.fallbacks for row in world.fallbacks.servers] == [5]


def test_a_process_of_the_host_at_an_eni() -> None:
    """The kernel's own socket, say, where no cgroup is known."""
    world = World()
    world.update({FallbackKey(2, 0, 0, DEAD): (3, 3, 3 * SECOND_NS)})
    assert [row.workload for row in world.fallbacks.servers] == [
        Workload("host", workload="kernel")
    ]


def test_servers_without_a_fallback_are_no_news() -> None:
    """Every pod asks the cluster's DNS."""
    world = World()
    world.task("shop")
    world.update({KEY: (1000, 0, 0)})
    assert world.fallbacks.servers == ()


def test_what_is_over_is_forgotten() -> None:
    """After one to two spans; and the kernel may forget what nobody asks any more."""
    world = World()
    world.task("shop")
    dead: Counts = {KEY: (9, 9, 9 * SECOND_NS)}
    assert world.update(dead) == ()
    assert world.update(dead, SPAN_S) == ()
    assert len(world.fallbacks.servers) == 1
    assert world.update(dead, SPAN_S) == (KEY,)
    world.update({})
    assert world.fallbacks.servers == ()


def test_a_server_that_came_back_is_none() -> None:
    """Its old fallbacks leave with their span, though it is asked as ever."""
    world = World()
    world.task("shop")
    world.update({KEY: (9, 9, 9 * SECOND_NS)})
    for queries in range(10, 14):
        world.update({KEY: (queries, 9, 9 * SECOND_NS)}, SPAN_S)
    assert world.fallbacks.servers == ()


def test_a_row_that_the_kernel_began_anew() -> None:
    """It is a table with eviction: what is there counts, and nothing is negative."""
    world = World()
    world.task("shop")
    world.update({KEY: (90, 90, 90 * SECOND_NS)})
    world.update({KEY: (91, 91, 91 * SECOND_NS)}, SPAN_S)
    world.update({KEY: (92, 92, 92 * SECOND_NS)}, SPAN_S)
    world.update({KEY: (2, 2, 3 * SECOND_NS)})
    (row,) = world.fallbacks.servers
    assert (row.queries, row.fallbacks, row.waited_s) == (2, 2, 1.5)


def test_one_that_asks_a_thousand_servers_fills_no_page() -> None:
    """The worst are told."""
    world = World()
    world.task("shop")
    world.update({replace(KEY, server=f"10.1.{n >> 8}.{n & 255}"): (n, n, 1) for n in range(1000)})
    assert [row.fallbacks for row in world.fallbacks.servers] == list(range(999, 999 - MOST, -1))


def snapshot(queries: int, fallbacks: int, workload: Workload | None = None) -> Snapshot:
    """One workload that asks a server other than the resolver."""
    asked = ServerAsked(workload or task("shop"), DEAD, queries, fallbacks, 5.004)
    return Snapshot("node", 1010.0, 1.0, (), servers=(asked,))


def codes(last: Snapshot) -> list[str]:
    """Of the findings, alone and beside an earlier look: they are the same."""
    found = [finding.code for finding in findings(None, last)]
    assert found == [f.code for f in findings(replace(last, time_s=1000.0), last)]
    return found


def test_a_dead_first_nameserver_is_told_with_its_numbers() -> None:
    """Who waits, for whom, how long."""
    (finding,) = findings(None, snapshot(5, 4))
    assert (finding.code, finding.severity) == ("dead-first-nameserver", "warning")
    assert finding.workload == "prod/shop:1/shop"
    assert finding.evidence == {
        "server": DEAD, "queries": 5, "fallbacks": 4, "waited_seconds": 5.0,
    }  # fmt: skip
    assert DEAD in finding.remedy


@pytest.mark.parametrize(("queries", "fallbacks"), [(1000, 10), (10, 7), (2, 2), (0, 0)])
def test_a_server_that_mostly_answers_is_none(queries: int, fallbacks: int) -> None:
    """A lost packet now and then; or too few to say."""
    assert codes(snapshot(queries, fallbacks)) == []
    assert codes(snapshot(10, 9)) == ["dead-first-nameserver"]


def test_it_goes_through_json_and_comes_back_clean() -> None:
    """Not trusted: who reads it may be told anything."""
    one = snapshot(5, 4)
    assert from_json(to_json(one)).servers == (replace(one.servers[0], waited_s=5.004),)
    old = to_json(one)
    del old["servers"]
    assert from_json(old).servers == ()
    for text in HOSTILE_NAMES:
        wild = to_json(one)
        wild["servers"][0] |= {"workload": text, "server": text}
        (found,) = findings(None, from_json(wild))
        assert found.summary.isprintable()
        assert str(found.evidence["server"]).isprintable()
    for key, value in (("queries", -1), ("fallbacks", "9"), ("waited_seconds", None)):
        wild = to_json(one)
        wild["servers"][0][key] = value
        with pytest.raises(SourceError, match=r"servers\[0\]"):
            from_json(wild)


def test_a_busy_snapshot_keeps_its_servers() -> None:
    """Beside everything else there is in one."""
    one = replace(snapshots.near_limit(), servers=snapshot(5, 4).servers)
    assert loads(dumps(one)).servers == one.servers
