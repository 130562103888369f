"""Who is a cache, and what of its packets is its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from eni53.attribution import CACHE, DIRECT, Ladder
from eni53.caches import LATELY_S, LEAST_SERVED
from eni53.config import Config
from eni53.inventory.cgroups import CgroupTree
from eni53.inventory.workloads import Workloads
from eni53.kernel.layout import TASK_DEV
from eni53.ledger import ENDED_AFTER_S
from eni53.model import PENDING, Eni, EniUsage, Workload
from eni53.pipeline import Pipeline
from eni53.sample import Question, SenderKey

from tests.fixtures.samples import CELL, ENI, Kernel, container, task

VETH, CACHE_VETH = 10, 11
CACHE_CGROUP = 110
ASKER, OF_CACHE = 1, 2
OWN = Workload("cache", "prod", "dns:1/dns", "app")
Rows = dict[tuple[Workload, str], int]


class Node:
    """A task that asks, and one that is asked, behind a veth or in host mode."""

    def __init__(self, *, local: bool, cgroups: Path | None = None, named: bool = True) -> None:
        self.kernel, self.workloads, self.now_s = Kernel(), Workloads(), 1000.0
        self.local = local
        self.pipeline = Pipeline(Config(), self.workloads, CgroupTree(cgroups), 10**12)
        self.pipeline.add_eni(Eni("eni-a", "02:00:00:00:00:01", "ens5", "host", ENI[0]))
        self.veths = {VETH, CACHE_VETH}
        for veth, tag in ((VETH, ASKER), (CACHE_VETH, OF_CACHE)):
            self.workloads.veth_appeared(veth, veth)
            self.kernel.origin(veth, veth * 10, tag)
        self.workloads.add(container("a", netns=VETH, nsid=VETH, cgroup=VETH * 10))
        if named:
            self.appear()

    def appear(self) -> None:
        """The runtime names the cache."""
        if self.local:
            self.workloads.add(container("dns", cgroup=CACHE_CGROUP, host=True))
        else:
            self.workloads.add(
                container("dns", netns=CACHE_VETH, nsid=CACHE_VETH, cgroup=CACHE_CGROUP)
            )

    def key(
        self, asker: int = 0, cell: tuple[str, str] = CELL, *, tag: int = OF_CACHE
    ) -> SenderKey:
        """A row of what the cache sends."""
        if self.local:
            return SenderKey(*ENI, 0, 0, CACHE_CGROUP, *cell, asker)
        return SenderKey(*ENI, tag, CACHE_VETH, 0, *cell, asker)

    def send(
        self,
        packets: int,
        asker: int = 0,
        cell: tuple[str, str] = CELL,
        *,
        tag: int = OF_CACHE,
    ) -> None:
        """The cache sends."""
        self.kernel.senders[self.key(asker, cell, tag=tag)] += packets

    def look(self, after_s: float = 1.0) -> EniUsage:
        """The ENI, some seconds later."""
        self.now_s += after_s
        sample = self.kernel.sample(self.now_s)
        _, (usage,) = self.pipeline.update(sample, self.veths, since_start=False, last=False)
        return usage

    def rows(self, after_s: float = 1.0) -> Rows:
        """Packets by account; together they are all that the kernel has counted."""
        usage = self.look(after_s)
        told = sum(row.packets for row in usage.workloads) + usage.ended_packets
        assert told == usage.packets == self.kernel.total()
        return {(r.workload, r.via): r.packets for r in usage.workloads}


@pytest.fixture(params=[False, True], ids=["behind a veth", "host mode"])
def node(request: pytest.FixtureRequest) -> Node:
    """A cache of either kind."""
    return Node(local=request.param)


def test_what_it_asks_for_itself_is_its_own(node: Node) -> None:
    """In the look in which it becomes one, and from then on, whatever the class."""
    node.send(LEAST_SERVED, ASKER)
    node.send(7)
    assert node.rows() == {(task("a"), CACHE): LEAST_SERVED, (OWN, DIRECT): 7}
    node.send(5, cell=("imds", "tcp"))
    assert node.rows() == {(task("a"), CACHE): LEAST_SERVED, (OWN, DIRECT): 12}


def test_a_wrong_guess_makes_no_cache(node: Node) -> None:
    """One short of the least; and many, among far more of its own."""
    plain = (task("dns"), DIRECT)
    node.send(LEAST_SERVED - 1, ASKER)
    node.send(7)
    assert node.rows()[plain] == 7
    node.send(1, ASKER)
    node.send(9 * LEAST_SERVED)
    assert node.rows() == {
        (task("a"), CACHE): LEAST_SERVED,
        plain: 7 + 9 * LEAST_SERVED,
    }


def test_what_is_long_ago_counts_no_more(node: Node) -> None:
    """A task that asked for a thousand names, and then begins to serve: a cache. And a guess in
    each span does not add up to one.
    """
    node.send(1000)
    node.rows()
    node.rows(LATELY_S)
    node.send(LEAST_SERVED - 1, ASKER)
    node.rows(LATELY_S)
    node.send(LEAST_SERVED - 1, ASKER)
    node.send(1)
    assert node.rows()[task("dns"), DIRECT] == 1001
    node.send(1, ASKER)
    node.send(1)
    rows = node.rows()
    assert (rows[task("dns"), DIRECT], rows[OWN, DIRECT]) == (1001, 1)


def test_once_a_cache_it_stays_one(node: Node) -> None:
    """Also when its clients are gone, with their rows, and it asks for itself alone."""
    node.send(LEAST_SERVED, ASKER)
    node.rows()
    del node.kernel.senders[node.key(ASKER)]
    node.pipeline.ledger.forget_sender(node.key(ASKER))
    node.send(1000)
    usage = node.look(3 * LATELY_S)
    assert {(r.workload, r.via): r.packets for r in usage.workloads} == {
        (task("a"), CACHE): LEAST_SERVED,
        (OWN, DIRECT): 1000,
    }


def test_its_row_ends_with_it(node: Node) -> None:
    """Idle for long it stays; five minutes after the container has ended its series does."""
    node.send(LEAST_SERVED, ASKER)
    node.send(3)
    assert node.rows(1.0)[OWN, DIRECT] == 3
    assert node.rows(2 * ENDED_AFTER_S)[OWN, DIRECT] == 3
    node.workloads.end("dns")
    assert (OWN, DIRECT) not in node.rows(ENDED_AFTER_S)


def test_a_cache_without_a_name_yet(node: Node) -> None:
    """It waits for the name like anybody else."""
    node = Node(local=node.local, named=False)
    node.send(LEAST_SERVED, ASKER)
    node.send(3)
    assert node.rows()[PENDING, DIRECT] == 3
    node.appear()
    assert node.rows()[OWN, DIRECT] == 3


def test_the_next_behind_the_veths_number_is_no_cache() -> None:
    """Beside Cilium a sender is known by its veth alone, and indexes come back."""
    node = Node(local=False)
    node.send(LEAST_SERVED, ASKER, tag=0)
    node.send(3, tag=0)
    assert node.rows()[OWN, DIRECT] == 3
    for key in list(node.kernel.senders):
        del node.kernel.senders[key]
        node.pipeline.ledger.forget_sender(key)
    del node.kernel.origins[CACHE_VETH, CACHE_CGROUP]
    node.workloads.end("dns")
    node.workloads.veth_gone(CACHE_VETH)
    node.workloads.forget_veth(CACHE_VETH)
    node.look()
    node.kernel.origin(CACHE_VETH, 999, OF_CACHE)
    node.workloads.veth_appeared(CACHE_VETH, 77)
    node.workloads.add(container("next", netns=77, nsid=77, cgroup=999))
    node.send(5, tag=0)
    assert (task("next"), 5) in {(row.workload, row.packets) for row in node.look().workloads}


def test_another_login_is_not_the_cache(tmp_path: Path) -> None:
    """Sessions share a name and are senders of their own."""
    node = Node(local=True, cgroups=tmp_path)
    numbers = []
    for at in (1, 2):
        session = tmp_path / "user.slice" / f"session-{at}.scope"
        session.mkdir(parents=True)
        numbers.append(session.stat().st_ino)
    node.kernel.senders[SenderKey(*ENI, 0, 0, numbers[0], *CELL, ASKER)] = LEAST_SERVED
    for number in numbers:
        node.kernel.senders[SenderKey(*ENI, 0, 0, number, *CELL)] = 4
    rows = node.rows()
    assert rows[Workload("cache", workload="user.slice"), DIRECT] == 4
    assert rows[Workload("host", workload="user.slice"), DIRECT] == 4


def test_a_packet_without_a_socket_is_the_caches_too() -> None:
    """The last ACK of its connection has no cgroup; another container of the pod is no cache."""
    node = Node(local=False)
    side = task("dns", "side")
    node.workloads.add(container("side", side, netns=CACHE_VETH, nsid=CACHE_VETH, cgroup=111))
    node.workloads.end("side")
    node.kernel.origin(CACHE_VETH, 0, 3)
    node.kernel.origin(CACHE_VETH, 111, 4)
    node.send(LEAST_SERVED, ASKER)
    node.kernel.send(2, tag=3, ingress=CACHE_VETH, cell=("resolver", "tcp"))
    node.kernel.send(4, ingress=CACHE_VETH)
    node.kernel.send(5, tag=4, ingress=CACHE_VETH)
    rows = node.rows()
    assert rows == {(task("a"), CACHE): LEAST_SERVED, (OWN, DIRECT): 6, (side, DIRECT): 5}


def test_names_are_charged_to_the_same_account(node: Node) -> None:
    """What the cache asked for itself stands in its own row."""
    node.send(LEAST_SERVED, ASKER)
    node.send(3)
    node.now_s += 1
    sample = node.kernel.sample(node.now_s)
    asked = {node.key(): {5: 3}, node.key(ASKER): {6: LEAST_SERVED}}
    reads = {5: Question("root-hints.test", "NS"), 6: Question("wanted.test", "A")}
    sample = replace(sample, asked=asked, questions=reads)
    _, (usage,) = node.pipeline.update(sample, node.veths, since_start=False, last=False)
    names = {row.workload: [name.name for name in row.names] for row in usage.workloads}
    assert names == {OWN: ["root-hints.test"], task("a"): ["wanted.test"]}


def test_a_host_service_keeps_its_unit(tmp_path: Path) -> None:
    """dnsmasq.service; the kernel's own packets and those of nobody are never a cache's."""
    unit = tmp_path / "system.slice" / "dnsmasq.service"
    unit.mkdir(parents=True)
    number = unit.stat().st_ino
    node = Node(local=True, cgroups=tmp_path)
    row = SenderKey(*ENI, 0, 0, number, *CELL)
    node.kernel.senders[SenderKey(*ENI, 0, 0, number, *CELL, ASKER)] = LEAST_SERVED
    node.kernel.senders[row] = 4
    node.kernel.senders[SenderKey(*ENI, 0, 0, 0, *CELL, ASKER)] = LEAST_SERVED
    node.kernel.send(3)
    node.kernel.senders[SenderKey(*ENI, 0, 3, 0, *CELL, ASKER)] = LEAST_SERVED
    node.kernel.send(2, ingress=3)
    rows = node.rows()
    assert rows[Workload("cache", workload="dnsmasq.service"), DIRECT] == 4
    assert rows[Workload("host", workload="kernel"), DIRECT] == 3
    assert rows[Workload("unattributed"), DIRECT] == 2


def test_in_a_tasks_namespace_other_indexes_mean_nothing() -> None:
    """An interface there may have the number of a veth here."""
    workloads = Workloads()
    place = (TASK_DEV | 1, 0)
    workloads.add(container("dns", netns=77, cgroup=500))
    workloads.eni_appeared(place, 77)
    ladder = Ladder({}, {VETH}, workloads, CgroupTree(None))
    assert ladder.place(SenderKey(*place, 0, VETH, 0, *CELL)) is None
    assert ladder.place(SenderKey(*place, 0, 0, 500, *CELL)) == (0, 500)
