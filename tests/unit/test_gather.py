"""What several sources say of one container, in any order, comes together once."""

import itertools
import os
import random
import secrets
from collections import defaultdict
from pathlib import Path

import pytest
from eni53.gather import Gather, Place, Placer
from eni53.inventory.cgroups import CgroupTree
from eni53.inventory.netns import netns_inode
from eni53.inventory.runtime import Seen
from eni53.inventory.workloads import PAUSE, Workloads
from eni53.model import Workload

from tests.fixtures.runtimes import process
from tests.fixtures.samples import task

SEED = secrets.randbits(32)
ID, OTHER = "ab" * 32, "cd" * 32
X, Y, HOST = 4026532201, 4026532302, 4026531840
WEB = task("web")


def place(pid, netns=X, *, host=False, cgroup=None):
    """Where *pid* is."""
    nsid = None if netns is None or host else netns % 1000
    return Place(pid, netns, nsid, cgroup or ("/docker/x", pid * 10), host)


NAME = ("docker", Seen(ID, WEB), None)
PID = ("containerd", Seen(ID, None, 7), place(7))
BOTH = ("docker", Seen(ID, WEB, 7, ("172.17.0.2",)), place(7))


class Node:
    """A Gather over real Workloads, and what it says of pause containers."""

    def __init__(self):
        self.workloads = Workloads()
        self.paused, self.unpaused = [], []
        self.gather = Gather(self.workloads, self.paused.append, self.unpaused.append)

    def owner(self, veth, nsid=X % 1000):
        """Who is behind a veth that leads to namespace *nsid*."""
        self.workloads.veth_appeared(veth, nsid)
        found = self.workloads.of_veth(veth, 0)
        return found and found.workload


@pytest.fixture
def node():
    """Nobody is here yet."""
    return Node()


@pytest.mark.parametrize("said", list(itertools.permutations((NAME, PID, BOTH))))
def test_name_and_place_come_together_in_any_order(node, said):
    """Created, made by containerd, started: known from the moment on at which both are there."""
    named = placed = False
    for one in said:
        node.gather.seen(*one)
        named, placed = named or one[1].workload is not None, placed or one[2] is not None
        assert (ID in node.workloads.running) is (named and placed)
        assert (ID in node.gather.nameless) is (placed and not named)
    assert node.owner(1) == WEB
    assert node.workloads.of_address("172.17.0.2").workload == task("web", "")


@pytest.mark.parametrize("end_after", range(3))
@pytest.mark.parametrize("said", list(itertools.permutations((NAME, PID, BOTH))))
def test_a_name_after_the_end_brings_nobody_back(node, said, end_after):
    """What only names a container does not make it run; another place does."""
    for one in said[: end_after + 1]:
        node.gather.seen(*one)
    node.gather.ended(ID)
    assert node.workloads.running == node.gather.nameless == frozenset()
    node.gather.seen(*NAME)
    node.gather.named(ID, WEB)
    assert node.workloads.running == node.gather.nameless == frozenset()
    node.gather.seen("containerd", Seen(ID, None, 8), place(8, Y))
    assert (node.workloads.running, node.owner(2, Y % 1000)) == ({ID}, WEB)


def test_a_source_of_names_alone(node):
    """It names who runs, knows nobody who was not heard of, and keeps nobody alive."""
    node.gather.named(ID, WEB)
    assert (node.workloads.running, node.gather.nameless) == (frozenset(), frozenset())
    node.gather.seen(*PID)
    assert (node.workloads.running, node.gather.nameless) == (frozenset(), {ID})
    node.gather.named(ID, WEB)
    assert (node.workloads.running, node.gather.nameless) == ({ID}, frozenset())
    node.gather.listed("containerd", ())
    assert node.workloads.running == frozenset()


def test_a_better_name_wins_later(node):
    """By its cgroup while no runtime answers, and then by what the runtime calls it."""
    node.gather.seen(*PID)
    node.gather.named(ID, Workload("container", workload=ID[:12]))
    node.gather.seen(*BOTH)
    assert node.owner(1) == WEB
    assert node.workloads.is_running(Workload("container", workload=ID[:12])) is False


def test_a_list_ends_what_only_that_source_knew(node):
    """Another runtime's containers are not its business; both must be silent about a shared one."""
    node.gather.seen(*BOTH)
    node.gather.seen("containerd", Seen(ID, None, 7), place(7))
    node.gather.seen("containerd", Seen(OTHER, task("pod"), 8), place(8, Y))
    node.gather.listed("docker", ())
    assert node.workloads.running == {ID, OTHER}
    node.gather.listed("containerd", ((Seen(OTHER, None, 8), place(8, Y)),))
    assert node.workloads.running == {OTHER}
    node.gather.listed("docker", ())
    assert node.workloads.running == {OTHER}


def test_an_end_is_an_end_whoever_tells(node):
    """Once, twice, by the other one, and of somebody nobody has heard of."""
    node.gather.seen(*PID)
    node.gather.seen(*BOTH)
    for _ in range(2):
        node.gather.ended(ID)
        node.gather.ended(OTHER)
        assert node.workloads.running == frozenset()


def test_an_id_that_comes_back_with_another_pid(node):
    """Restarted, nobody told of the end: its old veth keeps the old life, its new one the new."""
    node.gather.seen(*BOTH)
    assert node.owner(1) == WEB
    node.workloads.veth_gone(1)
    node.gather.seen("docker", Seen(ID, task("web", "again"), 9), place(9, Y))
    assert node.owner(2, Y % 1000) == task("web", "again")
    assert node.workloads.of_veth(1, 0).workload == WEB
    assert node.workloads.of_cgroup(90).workload == task("web", "again")
    node.gather.ended(ID)
    assert node.workloads.running == frozenset()


def test_a_process_that_has_gone_does_not_move_its_container(node):
    """The same pid looked up a moment later has no namespace any more: it is where it was."""
    node.gather.seen(*BOTH)
    node.gather.seen("containerd", Seen(ID, None, 7), place(7, None))
    assert node.owner(1) == WEB


def test_a_container_whose_namespace_nobody_knows_is_still_known(node):
    """It was gone before it was looked at: by its cgroup it is found all the same."""
    node.gather.seen("docker", Seen(ID, WEB, 7), place(7, None))
    assert node.workloads.of_cgroup(70).workload == WEB
    node.gather.seen(*BOTH)
    assert node.owner(1) == WEB


class TestPause:
    """Containers that hold the namespace of an ECS task, and so its ENI."""

    HOLDER = task("t", PAUSE)

    def test_it_is_told_of_with_its_end(self, node):
        """The pid when it is there; once the namespace when it ends, however often it does."""
        node.gather.seen("docker", Seen(ID, self.HOLDER, 7, (), True), place(7))
        assert (node.paused, node.unpaused) == ([7], [])
        for source in ("docker", "containerd"):
            node.gather.ended(ID)
            node.gather.listed(source, ())
        assert (node.paused, node.unpaused) == ([7], [X])

    def test_what_makes_it_one_may_be_known_later(self, node):
        """containerd tells of a pid, and Docker that it is a pause container."""
        node.gather.seen("containerd", Seen(ID, None, 7), place(7))
        assert node.paused == []
        node.gather.seen("docker", Seen(ID, self.HOLDER, pause=True), None)
        assert node.paused == [7]
        node.gather.listed("containerd", ())
        assert node.unpaused == [X]

    def test_it_stays_one_when_another_source_does_not_say_so(self, node):
        """containerd knows no labels of Docker's."""
        node.gather.seen("docker", Seen(ID, self.HOLDER, pause=True), None)
        node.gather.seen("containerd", Seen(ID, None, 7), place(7))
        assert node.paused == [7]

    def test_its_next_life_is_another_namespace(self, node):
        """After its end it may start again."""
        node.gather.seen("docker", Seen(ID, self.HOLDER, 7, (), True), place(7))
        node.gather.ended(ID)
        node.gather.seen("containerd", Seen(ID, None, 8), place(8, Y))
        node.gather.ended(ID)
        assert (node.paused, node.unpaused) == ([7, 8], [X, Y])

    def test_one_that_never_had_a_place_ends_without_a_word(self, node):
        """Created, and removed again."""
        node.gather.seen("docker", Seen(ID, self.HOLDER, pause=True), None)
        node.gather.ended(ID)
        assert (node.paused, node.unpaused) == ([], [])

    def test_on_the_hosts_network_it_holds_nothing(self, node):
        """Anybody may call his container so: the agent's own namespace is not a task's."""
        node.gather.seen("docker", Seen(ID, self.HOLDER, 7, (), True), place(7, HOST, host=True))
        assert node.paused == []


class TestMany:
    """However many there are."""

    def test_ten_thousand_that_came_and_went(self, node):
        """Their names are kept for a restart, the last few thousand of them."""
        for n in range(10_000):
            node.gather.seen("docker", Seen(str(n), task(str(n)), n + 1), place(n + 1, X))
            node.gather.ended(str(n))
        assert len(node.gather._known) <= 1024
        node.gather.seen("containerd", Seen("9999", None, 5), place(5, Y))
        assert node.owner(1, Y % 1000) == task("9999")

    def test_ten_thousand_that_never_started(self, node):
        """`docker create` in a loop: the one that runs is not forgotten for it."""
        node.gather.seen(*BOTH)
        for n in range(10_000):
            node.gather.seen("docker", Seen(str(n), task(str(n))), None)
        assert len(node.gather._known) <= 1024
        assert node.workloads.running == {ID}
        node.gather.ended(ID)
        assert node.workloads.running == frozenset()

    def test_ten_thousand_that_run(self, node):
        """None of them is forgotten, and all can end."""
        found = tuple(
            (Seen(str(n), task(str(n)), n + 1), place(n + 1, X + n)) for n in range(10_000)
        )
        node.gather.listed("docker", found)
        assert len(node.workloads.running) == 10_000
        node.gather.listed("docker", ())
        assert node.workloads.running == frozenset()
        node.gather.seen(*NAME)
        assert len(node.gather._known) <= 1024


class World:
    """Containers that live and restart, and two runtimes that tell of it, each at its own pace."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.node = Node()
        self.lives = {}  # id: (pid, netns) while it runs
        self.netns_of = {}  # pid: netns, of all that ever lived
        self.told = defaultdict(list)  # per runtime, what it has yet to tell
        self.watched = set()
        self.node.paused = self.node.unpaused = None
        self.node.gather = Gather(self.node.workloads, self.watch, self.watched.discard)

    def watch(self, pid):
        """As TaskNets does."""
        if self.place(pid).netns is not None:
            self.watched.add(self.place(pid).netns)

    def place(self, pid):
        """Where it is now; nowhere once it is dead."""
        alive = pid in {life[0] for life in self.lives.values()}
        return place(pid, self.netns_of[pid] if alive else None)

    @staticmethod
    def seen(container_id, source, pid=None):
        """As each of them knows it."""
        pause = container_id.startswith("pause")
        if source == "containerd":
            return Seen(container_id, None, pid)
        return Seen(container_id, task(container_id, PAUSE if pause else "app"), pid, (), pause)

    def happen(self):
        """Something happens to some container."""
        container_id = self.rng.choice(["pause1", "pause2", "a", "b", "c"])
        if container_id in self.lives:
            pid, _ = self.lives.pop(container_id)
            for source in ("docker", "containerd"):
                self.told[source] += [("end", container_id, pid)] * self.rng.choice((1, 2))
            return
        pid = len(self.netns_of) + 1
        free = set(range(X, X + 9)) - {netns for _, netns in self.lives.values()} - self.watched
        self.netns_of[pid] = min(free)
        self.lives[container_id] = (pid, self.netns_of[pid])
        if self.rng.random() < 0.7:
            self.told["docker"].append(("create", container_id, None))
        self.told["containerd"].append(("start", container_id, pid))
        self.told["docker"].append(("start", container_id, pid))

    def tell(self, source):
        """A runtime says the next thing it has to say."""
        if not self.told[source]:
            return
        what, container_id, pid = self.told[source].pop(0)
        if what == "end":
            self.node.gather.ended(container_id)
        elif pid is None:
            self.node.gather.seen(source, self.seen(container_id, source), None)
        elif source == "containerd" or self.lives.get(container_id, (0,))[0] == pid:
            self.node.gather.seen(source, self.seen(container_id, source, pid), self.place(pid))

    def list(self, source):
        """A runtime says everything, and what it had to say is old."""
        self.told[source].clear()
        found = tuple(
            (self.seen(i, source, pid), self.place(pid)) for i, (pid, _) in self.lives.items()
        )
        self.node.gather.listed(source, found)


@pytest.mark.parametrize("number", range(40))
def test_any_order_of_things_ends_in_the_truth(number):
    """Events late, doubled, and lists in between: once all was told, all is as it is."""
    print("seed", SEED, number)
    world = World(f"{SEED}-{number}")
    for _ in range(200):
        source = world.rng.choice(("docker", "containerd"))
        world.rng.choices(
            (world.happen, lambda s=source: world.tell(s), lambda s=source: world.list(s)),
            (3, 10, 0.3),
        )[0]()
        assert not world.node.gather.nameless & world.node.workloads.running
        for netns in world.watched - {netns for _, netns in world.lives.values()}:
            if world.rng.random() < 0.05:  # a minute later somebody looks (`TaskNets.check`)
                world.watched.discard(netns)
                break
    for source in ("docker", "containerd", "docker"):
        world.list(source)
    assert world.node.workloads.running == world.lives.keys()
    for veth, (container_id, (_, netns)) in enumerate(world.lives.items()):
        assert world.node.owner(1000 + veth, netns % 1000).workload == f"{container_id}:1/" + (
            container_id
        )
    pauses = {netns for i, (_, netns) in world.lives.items() if i.startswith("pause")}
    assert pauses <= world.watched


def descriptors():
    """How many are open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class TestPlacer:
    """Places of real processes."""

    @pytest.fixture
    def asked(self):
        """Descriptors whose number was asked for, with what they were."""
        return []

    @pytest.fixture
    def placer(self, tmp_path, asked):
        """Over a tree with one container in it."""
        (tmp_path / "docker" / ID).mkdir(parents=True)

        def nsid_of(fd):
            asked.append((fd, os.fstat(fd).st_ino))
            return 12

        return Placer(CgroupTree(tmp_path), nsid_of)

    def test_one_of_the_agents_own_namespace(self, placer, asked):
        """Host mode: it has no number, and nobody is asked for one."""
        found = placer.place(OTHER, os.getpid())
        assert found == Place(os.getpid(), netns_inode(os.getpid()), None, None, True)
        assert asked == []

    def test_one_of_another_namespace(self, placer, asked, tmp_path):
        """Its number is asked for while it is held, and it is held no longer."""
        before = descriptors()
        with process(netns=True) as child:
            inode = netns_inode(child.pid)
            path = f"/docker/{ID}"
            cgroup = (path, (tmp_path / path[1:]).stat().st_ino)
            assert placer.place(ID, child.pid) == Place(child.pid, inode, 12, cgroup, False)
        assert [number for _, number in asked] == [inode]
        assert descriptors() == before

    def test_one_that_is_gone_is_found_by_its_cgroup(self, placer, asked):
        """No namespace, and not the host's."""
        with process() as child:
            pass
        found = placer.place(ID, child.pid)
        assert (found.netns, found.netns_id, found.host_network) == (None, None, False)
        assert found.cgroup[0] == f"/docker/{ID}"
        assert placer.place(OTHER, child.pid).cgroup is None
        assert asked == []
