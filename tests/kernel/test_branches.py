"""Branch ENIs from their VLAN device to their end: what the agent does when one comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import pytest
from eni53 import pipeline
from eni53.config import Config
from eni53.config_table import EniSection, ResolverSection, RuntimeSection
from eni53.eni_names import EniNames
from eni53.faults import Faults
from eni53.interfaces import Interfaces
from eni53.inventory.cgroups import CgroupTree
from eni53.inventory.links import Changes, Link, LinkEvents, LinkTable
from eni53.inventory.workloads import Workloads
from eni53.kernel import layout
from eni53.kernel.layout import TASK_DEV
from eni53.kernel.levels import Watch
from eni53.model import Branch, EniUsage
from eni53.node import Node
from eni53.pipeline import RETIRED_S, Pipeline
from eni53.tasknets import TaskNets, TaskNetsState
from eni53.threads import Threads
from eni53.wiring import Wiring

from . import frames as f
from .conftest import MakeNamespace
from .kernel import Kernel
from .netns import Namespace, inside
from .queries import CLIENT4, RESOLVER4, clear, unanswered
from .test_cached import change

ROOM = layout.SETTINGS["MAX_ENIS"]


def mac(number: int) -> str:
    """Of a branch ENI."""
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


class Agent:
    """What follows branch ENIs in the agent, put together as `Node` does, and its tick."""

    def __init__(self, kernel: Kernel, node: Namespace, path: Path) -> None:
        self.kernel, self.node, self.path = kernel, node, path
        self.faults, self.ahead_s = Faults(), 0.0
        self.workloads = Workloads()

    async def __aenter__(self) -> Agent:
        loaded, maps = self.kernel.loaded, self.kernel.maps
        self.threads = Threads()
        self.table = await self.threads.on_netlink(LinkTable)
        self.events = LinkEvents()
        self.pipeline = Pipeline(Config(), self.workloads, CgroupTree(None), time.monotonic_ns())
        self.watch = Watch(loaded, maps, (0.5, 0.7), 1024, "linklocal")
        self.wiring = await self.threads.on_netlink(
            lambda: Wiring(self.table, loaded, maps, "clsact", ["ens5"], self.path)
        )
        self.nets = await self.threads.on_netlink(lambda: TaskNets(loaded, maps, self.path))
        self.interfaces = Interfaces(
            self.threads, EniNames("", self.faults), self.workloads, self.faults,
            self._veth_appeared, lambda: None,
        )  # fmt: skip
        await self.interfaces.start(
            self.events, self.wiring, self.nets, self.pipeline, self.watch, maps
        )
        self.mac = self.table.links()[self.kernel.dev].mac.lower()
        return self

    async def _veth_appeared(self, nsid: int) -> None:
        """Nobody to ask who is in it."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.interfaces.stop()
        await self.threads.end_tasks()
        for close in (self.nets.stop, self.wiring.stop, self.table.close):
            await self.threads.on_netlink(close)
        self.watch.close()
        self.events.close()
        self.threads.end_netlink()

    def tick(self, after_s: float = 0.0) -> dict[str, EniUsage]:
        """ENIs by label, that much later than at the last tick."""
        self.ahead_s += after_s
        sample = self.kernel.maps.read()
        taken_at_ns = sample.taken_at_ns + int(self.ahead_s * 1e9)
        _, enis = self.pipeline.update(
            replace(sample, taken_at_ns=taken_at_ns), {}, since_start=False, last=False
        )
        self.interfaces.tidy(taken_at_ns / 1e9)
        return {usage.eni.label: usage for usage in enis}

    async def begin(self, vlan: int, number: int) -> None:
        """The VLAN device of a branch ENI appears: told as netlink does, for not every machine on
        which this runs has such devices (tests/guests has).
        """
        link = Link(
            5000 + vlan, f"vlan.eth.{vlan}", "vlan", mac(number), False, self.kernel.dev, None, 0,
            (), vlan,
        )  # fmt: skip
        await self._changed(Changes(appeared=(link,)))

    async def end(self, vlan: int) -> None:
        """And goes."""
        await self._changed(Changes(gone=(5000 + vlan,)))

    async def _changed(self, changes: Changes) -> None:
        await self.interfaces._rewire(lambda: self.wiring.apply(changes))

    def ask(self, vlan: int, number: int, *, rcode: int | None = None) -> None:
        """One query, and its answer."""
        name, port = f"n{number}.example.com", 41000 + number % 20000
        tags = [(f.VLAN, vlan)]
        query = f.udp(53, port, f.dns_query(name, identity=number))
        self.kernel.run("eni_egress", f.ipv4(query, f.UDP, RESOLVER4, CLIENT4, tags=tags))
        if rcode is not None:
            answer = f.udp(port, 53, f.dns_answer(name, identity=number, rcode=rcode))
            self.kernel.run("eni_ingress", f.ipv4(answer, f.UDP, CLIENT4, RESOLVER4, tags=tags))

    def entries(self) -> set[int]:
        """VLAN ids that have a place in the kernel's table; 0 is the trunk."""
        return {vlan for dev, vlan in self.kernel.maps.read().enis if dev == self.kernel.dev}


Scenario = Callable[[Agent], Awaitable[None]]
Play = Callable[[Scenario], None]


@pytest.fixture
def play(kernel: Kernel, make_namespace: MakeNamespace, tmp_path: Path) -> Iterator[Play]:
    """Has an agent on a node whose ENI is a trunk as soon as it has a VLAN device."""
    node = make_namespace("node")
    node.ip("link", "add", "ens5", "type", "veth", "peer", "name", "away")
    before = kernel.dev
    kernel.forget()
    kernel.maps.remove_eni(kernel.dev)
    kernel.dev = node.ifindex("ens5")
    clear(kernel)
    change(kernel, lambda *_: (0,) * 8)  # another test's branch of that id asked for these names

    async def run(scenario: Scenario) -> None:
        async with Agent(kernel, node, tmp_path) as agent:
            await scenario(agent)

    with inside(node.name):
        yield lambda scenario: asyncio.run(run(scenario))
    kernel.maps.remove_eni(kernel.dev)
    kernel.dev = before
    kernel.forget()


def test_the_next_one_of_a_vlan_id_inherits_nothing(play: Play) -> None:
    """Whether the first was seen to go or not: answers, latency, windows and all begin at 0."""

    async def scenario(agent: Agent) -> None:
        await agent.begin(100, 1)
        for number in range(50):
            agent.ask(100, number)
            agent.ask(100, number, rcode=2 if number < 30 else None)
        agent.kernel.maps.add_eni(agent.kernel.dev, 555)
        agent.ask(555, 7000, rcode=0)
        first = agent.tick()[f"mac:{mac(1)}"]
        assert first.packets == 100
        assert first.counters is not None
        assert (first.counters.responses, first.retransmitted) == ({2: 30}, 50)
        assert unanswered(agent.kernel, 100) == 20
        await agent.end(100)
        kept = agent.tick(20.0)[f"mac:{mac(1)}"]
        assert (kept.packets, kept.retransmitted, kept.unanswered) == (100, 50, 20)
        for number in (2, 3):  # 3 comes in 2's place without a word
            await agent.begin(100, number)
            for _ in range(3):
                await agent.interfaces._tasks_changed(TaskNetsState())
            assert 100 in agent.entries()
            agent.ask(100, 9000 + number, rcode=0)
            await agent.interfaces._tasks_changed(TaskNetsState())
            shown = agent.tick()
            assert f"mac:{mac(number - 1)}" not in shown
            usage = shown[f"mac:{mac(number)}"]
            assert usage.counters is not None
            assert (usage.packets, usage.counters.responses) == (1, {0: 1})
            assert (usage.retransmitted, usage.unanswered, usage.truncated) == (0, 0, 0)
            assert sum(usage.counters.response_buckets) == 1
            assert sum(slot.dns for slot in usage.counters.slots) == 1
        assert shown["mac:" + agent.mac + "/vlan555"].packets == 1, "another's is not touched"

    play(scenario)


def test_the_next_one_has_a_limit_of_its_own(play: Play) -> None:
    """Its entry is made anew by us, and not by its first packet, which would know of none."""

    async def scenario(agent: Agent) -> None:
        agent.kernel.maps.add_eni(agent.kernel.dev, trunk=True)
        agent.ask(100, 1)
        await agent.begin(100, 1)
        await agent.begin(100, 2)
        words = dict(agent.kernel.maps._rows("enis"))
        assert words[agent.kernel.dev, 100][0] not in {0, words[agent.kernel.dev, 0][0]}

    play(scenario)


def test_one_that_ended_leaves_its_place(play: Play) -> None:
    """Shown for a minute with what it had, then gone there too; what still sends is met again."""

    async def scenario(agent: Agent) -> None:
        await agent.begin(100, 1)
        await agent.begin(101, 2)
        for vlan in (100, 101):
            agent.ask(vlan, vlan)
        agent.tick()
        assert unanswered(agent.kernel, 100) == 1
        await agent.end(100)
        assert agent.tick(RETIRED_S - 1)[f"mac:{mac(1)}"].packets == 1
        assert agent.entries() == {0, 100, 101}
        agent.tick(2.0)
        agent.ask(100, 200)  # before anybody has looked
        shown = agent.tick()
        stranger = shown["mac:" + agent.mac + "/vlan100"]
        assert (stranger.packets, stranger.unanswered) == (1, 0)
        assert f"mac:{mac(1)}" not in shown
        assert shown[f"mac:{mac(2)}"].packets == 1
        await agent.begin(100, 3)  # it keeps the name it has, and is over with its device
        await agent.end(100)
        agent.tick(1.0)
        agent.tick(RETIRED_S + 1)
        assert agent.entries() == {0, 101}

    play(scenario)


def test_one_that_came_as_the_last_one_was_removed(play: Play) -> None:
    """The netlink thread found its entry there still; the event loop makes it once more."""

    async def scenario(agent: Agent) -> None:
        await agent.begin(100, 1)
        agent.tick()
        await agent.end(100)
        agent.tick(1.0)
        branch = Branch(agent.kernel.dev, 100, mac(1))
        await agent.threads.on_netlink(lambda: agent.wiring.add_branch(branch))
        agent.tick(RETIRED_S + 1)
        assert agent.entries() == {0}
        agent.interfaces._task_nets = TaskNetsState(branches=(branch,))
        agent.interfaces._set_branches()
        assert agent.entries() == {0, 100}

    play(scenario)


def test_more_one_after_the_other_than_there_is_room_for(play: Play) -> None:
    """None lacks a place of its own, and the trunk is charged with none of them."""

    async def scenario(agent: Agent) -> None:
        before = agent.kernel.maps.read().stats
        for number in range(1, ROOM + 45):
            await agent.begin(number, number)
            agent.ask(number, number, rcode=0)
            shown = agent.tick(RETIRED_S / 2)
            assert shown[f"mac:{mac(number)}"].packets == 1
            await agent.end(number)
        places = dict(agent.kernel.maps._rows("enis"))
        assert places[agent.kernel.dev, number][0] != 0, "limits of their own do not run out either"
        assert max(len(shown), len(agent.entries())) <= 6
        assert shown["mac:" + agent.mac].packets == 0
        stats = agent.kernel.maps.read().stats
        assert (stats["eni_full"], stats["vlan_unknown"]) == (
            before["eni_full"], before["vlan_unknown"],
        )  # fmt: skip
        assert not agent.faults.errors

    play(scenario)


def test_each_tick_of_a_node_tidies_up(
    make_namespace: MakeNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole agent, which asks nobody here; a minute is a fifth of a second."""
    monkeypatch.setattr(pipeline, "RETIRED_S", 0.2)
    space = make_namespace("whole")
    space.ip("link", "add", "ens5", "type", "veth", "peer", "name", "away")
    nobody = str(tmp_path / "none.sock")
    config = Config(
        eni=EniSection(interfaces=("ens5",)),
        resolver=ResolverSection(addresses=(RESOLVER4,)),
        runtime=RuntimeSection(nobody, nobody, "", "", ""),
        runtime_dir=tmp_path,
    )

    async def live(node: Node) -> None:
        trunk = space.ifindex("ens5")
        await node.start()
        try:
            branch = Branch(trunk, 100, mac(1))
            await node._interfaces._tasks_changed(TaskNetsState(branches=(branch,)))
            node.tick()
            assert (trunk, 100) in node._maps.read().enis
            await node._interfaces._tasks_changed(TaskNetsState())
            await asyncio.sleep(0.3)
            node.tick()
            assert node._maps.read().enis.keys() == {(trunk, 0)}
        finally:
            await node.stop()

    with inside(space.name):
        asyncio.run(live(Node(config)))


def test_a_branch_for_which_there_is_no_room(play: Play) -> None:
    """It costs itself alone: it is said once, and tasks and links are followed as ever."""

    async def scenario(agent: Agent) -> None:
        await agent.begin(100, 1)
        for vlan in range(200, 200 + ROOM - len(agent.kernel.maps.read().enis)):
            agent.kernel.maps.add_eni(agent.kernel.dev, vlan)
        assert len(agent.kernel.maps.read().enis) == ROOM
        await agent.begin(101, 2)
        task = Branch(agent.kernel.dev, 102, mac(3), netns=77)
        for _ in range(3):
            await agent.interfaces._tasks_changed(TaskNetsState(branches=(task,)))
        assert agent.faults.errors == {("attach", "refused"): 2}, "one for each, and once"
        assert not {101, 102} & agent.entries()
        assert agent.pipeline.limits.keys() == {
            (agent.kernel.dev, vlan) for vlan in (0, 100, 101, 102)
        }
        agent.kernel.maps.remove_branch(agent.kernel.dev, 200)
        await agent.interfaces._tasks_changed(TaskNetsState(branches=(task,)))
        assert len(agent.entries() & {101, 102}) == 1, "there is room for one"
        assert agent.faults.errors == {("attach", "refused"): 2}

    play(scenario)


def test_an_eni_for_which_there_is_no_room(play: Play, kernel: Kernel) -> None:
    """It is no ENI of ours yet, and is tried again at the next look."""

    async def scenario(agent: Agent) -> None:
        index, wiring = agent.kernel.dev, agent.wiring
        await agent.threads.on_netlink(lambda: wiring._attacher.detach(index))
        await agent.threads.on_netlink(lambda: wiring._gone(index))
        for vlan in range(ROOM):
            agent.kernel.maps.add_eni(TASK_DEV, vlan)
        full = await agent.threads.on_netlink(wiring.resync)
        assert (dict(full.enis), set(full.failed)) == ({}, {"ens5"})
        agent.kernel.maps.remove_eni(TASK_DEV)
        after = await agent.threads.on_netlink(wiring.resync)
        assert (set(after.enis), dict(after.failed)) == ({index}, {})

    play(scenario)


def test_what_has_no_room_takes_nobodys_limit(bench: Kernel) -> None:
    """Strangers' packets have filled the table: whoever does find room has a limit of its own."""
    bench.forget()
    for vlan in range(1, ROOM):
        bench.run("eni_egress", f.ipv4(f.udp(), f.UDP, RESOLVER4, tags=[(f.VLAN, vlan)]))
    for vlan in range(ROOM, 3 * ROOM):
        with pytest.raises(OSError, match="too long"):
            bench.maps.add_eni(bench.dev, vlan)
    for vlan in (1, 2, 3):
        bench.maps.remove_branch(bench.dev, vlan)
    for vlan in (4001, 4002, 4003):
        bench.maps.add_eni(bench.dev, vlan)
    words = dict(bench.maps._rows("enis"))
    limits = {words[bench.dev, vlan][0] for vlan in (0, 4001, 4002, 4003)}
    assert len(limits - {0}) == 4, "each its own, and none the default"
    bench.forget()
