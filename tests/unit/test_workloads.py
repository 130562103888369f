"""Veths to namespaces to containers: numbers come back at once, names must not come with them."""

from dataclasses import replace

import pytest
from eni53.inventory.workloads import PAUSE, Owner, Workloads
from eni53.model import Workload

from tests.fixtures.samples import container, task

X, Y = 4026532201, 4026532302  # inodes of namespaces
VETH, NEXT_VETH = 10, 11


@pytest.fixture
def workloads():
    """Nobody is here yet."""
    return Workloads()


def test_the_cgroup_picks_the_container(workloads):
    """Two containers of a task share its namespace; each is known by its cgroup."""
    workloads.veth_appeared(VETH, 5)
    for name, cgroup in (("web", 100), ("log", 101)):
        workloads.add(container(name, task("t", name), netns=X, nsid=5, cgroup=cgroup))
    assert workloads.of_veth(VETH, 100) == Owner(task("t", "web"), "/ecs/web", 100)
    assert workloads.of_veth(VETH, 101) == Owner(task("t", "log"), "/ecs/log", 101)


@pytest.mark.parametrize("cgroup", [None, 0, 1, 999])
def test_a_foreign_cgroup_is_still_the_namespaces_owner(workloads, cgroup):
    """Docker's own cgroup, none at all: the task is right, and no container is named."""
    workloads.veth_appeared(VETH, 5)
    for name in ("web", "log"):
        workloads.add(container(name, task("t", name), netns=X, nsid=5, cgroup=len(name) + 100))
    assert workloads.of_veth(VETH, cgroup) == Owner(task("t", ""))


@pytest.mark.parametrize("cgroup", [None, 0, 1, 999])
def test_an_only_container_needs_no_cgroup(workloads, cgroup):
    """Nobody else is in there, so it is that one."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("web", netns=X, nsid=5, cgroup=100))
    assert workloads.of_veth(VETH, cgroup) == Owner(task("web"), "/ecs/web", 100)


@pytest.mark.parametrize("holder", [task("t", PAUSE), Workload("pod", "shop", "web-1")])
@pytest.mark.parametrize("cgroup", [None, 99, 100])
def test_the_pause_container_is_never_named(workloads, holder, cgroup):
    """It holds the namespace and sends nothing: the one beside it is the only container."""
    app = replace(holder, container="app")
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("pause", holder, netns=X, nsid=5, cgroup=99))
    assert workloads.of_veth(VETH, cgroup) == Owner(replace(holder, container=""))
    workloads.add(container("app", app, netns=X, nsid=5, cgroup=100))
    assert workloads.of_veth(VETH, cgroup) == Owner(app, "/ecs/app", 100)


def test_who_is_in_there_is_looked_up_anew_when_somebody_comes_or_ends(workloads):
    """Asked for before and after: what is remembered of an owner is not what was."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("a", task("t", "a"), netns=X, nsid=5, cgroup=100))
    assert workloads.of_veth(VETH, 999) == Owner(task("t", "a"), "/ecs/a", 100)
    workloads.add(container("b", task("t", "b"), netns=X, nsid=5, cgroup=101))
    assert workloads.of_veth(VETH, 999) == Owner(task("t", ""))
    workloads.end("a")
    assert workloads.of_veth(VETH, 999) == Owner(task("t", "b"), "/ecs/b", 101)


def test_plain_containers_in_one_namespace_go_by_the_first(workloads):
    """Without a cgroup, whose namespace it is stands for those that joined it."""
    workloads.veth_appeared(VETH, 5)
    for name, cgroup in (("owner", 100), ("guest", 101)):
        plain = Workload("container", workload=name)
        workloads.add(container(name, plain, netns=X, nsid=5, cgroup=cgroup))
    guest = Workload("container", workload="guest")
    assert workloads.of_veth(VETH, 0) == Owner(Workload("container", workload="owner"))
    assert workloads.of_veth(VETH, 101) == Owner(guest, "/ecs/guest", 101)


@pytest.mark.parametrize("veth_first", [True, False])
def test_either_may_be_heard_of_first(workloads, veth_first):
    """Netlink and Docker are two clocks: the veth and its container meet in either order."""
    if veth_first:
        workloads.veth_appeared(VETH, 5)
    workloads.add(container("web", netns=X, nsid=5, cgroup=100))
    workloads.veth_appeared(VETH, 5)
    assert workloads.of_veth(VETH, 0).workload == task("web")


def test_nobody_is_behind_a_veth_nobody_claims(workloads):
    """An unknown veth, and one whose container is not known yet, have no owner."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("web", netns=X, nsid=6))
    assert workloads.of_veth(VETH, 0) is None
    assert workloads.of_veth(NEXT_VETH, 0) is None


def test_a_veth_is_known_as_one_until_forgotten(workloads):
    """Also when nobody ever said who was behind it: a tag of another's is not believed on it."""
    assert workloads.knows_veth(VETH) is False
    workloads.veth_appeared(VETH, 5)
    workloads.veth_gone(VETH)
    assert workloads.knows_veth(VETH) is True
    workloads.forget_veth(VETH)
    assert workloads.knows_veth(VETH) is False


def test_what_has_ended_keeps_its_name_until_reported(workloads):
    """Container and veth are gone, its last packets are not: they are its own until forgotten."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("web", netns=X, nsid=5, cgroup=100))
    workloads.end("web")
    workloads.veth_gone(VETH)
    assert workloads.of_veth(VETH, 100) == Owner(task("web"), "/ecs/web", 100)
    assert workloads.of_cgroup(100) == Owner(task("web"), "/ecs/web", 100)
    workloads.forget_veth(VETH)
    assert workloads.of_veth(VETH, None) is None


def test_a_veth_that_is_there_is_not_forgotten(workloads):
    """Only one that is gone can have been reported to the last packet."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("web", netns=X, nsid=5))
    workloads.forget_veth(VETH)
    assert workloads.of_veth(VETH, 0).workload == task("web")


def test_a_reused_number_does_not_move_old_packets(workloads):
    """The next namespace gets the same number and inode; each veth keeps its own owner."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("old", netns=X, nsid=5, cgroup=100))
    workloads.end("old")
    workloads.veth_gone(VETH)
    workloads.veth_appeared(NEXT_VETH, 5)
    workloads.add(container("new", netns=X, nsid=5, cgroup=200))
    assert workloads.of_veth(VETH, 0).workload == task("old")
    assert workloads.of_veth(NEXT_VETH, 0).workload == task("new")
    workloads.end("new")
    workloads.veth_gone(NEXT_VETH)
    assert workloads.of_veth(VETH, 0).workload == task("old")
    assert workloads.of_veth(NEXT_VETH, 0).workload == task("new")


@pytest.mark.parametrize("ended", [False, True])
def test_a_new_veth_is_not_the_dead_ones(workloads, ended):
    """The number of a namespace that lost its veth names nobody until the newcomer is known.

    Docker may tell of the death late.
    """
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("old", netns=X, nsid=5))
    workloads.veth_gone(VETH)
    workloads.veth_appeared(NEXT_VETH, 5)
    if ended:
        workloads.end("old")
    assert workloads.of_veth(NEXT_VETH, 0) is None
    workloads.add(container("new", netns=Y, nsid=5))
    assert workloads.of_veth(NEXT_VETH, 0).workload == task("new")
    assert workloads.of_veth(VETH, 0).workload == task("old")


def test_an_inode_reused_before_the_death_is_told(workloads):
    """The next task is in a namespace of the same inode while the dead one still "runs"."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("old", netns=X, nsid=5))
    workloads.veth_gone(VETH)
    workloads.veth_appeared(NEXT_VETH, 5)
    workloads.add(container("new", netns=X, nsid=5))
    for _ in range(2):
        assert workloads.of_veth(VETH, 0).workload == task("old")
        assert workloads.of_veth(NEXT_VETH, 0).workload == task("new")
        workloads.end("old")


def test_an_inode_reused_before_the_veth_is_gone(workloads):
    """Docker told of the death, and netlink has not: the newcomer is not in the dead one's."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("old", netns=X, nsid=5))
    workloads.end("old")
    workloads.veth_appeared(NEXT_VETH, 6)
    workloads.add(container("new", netns=X, nsid=6))
    assert workloads.of_veth(VETH, 0).workload == task("old")
    assert workloads.of_veth(NEXT_VETH, 0).workload == task("new")


def test_many_lives_of_one_inode_stay_apart(workloads):
    """Ten tasks one after the other in the same numbers: no packet goes to an earlier one."""
    for life in range(10):
        workloads.veth_appeared(VETH + life, 5)
        workloads.add(container(f"t{life}", netns=X, nsid=5, cgroup=100 + life))
        workloads.end(f"t{life}")
        workloads.veth_gone(VETH + life)
    seen = [workloads.of_veth(VETH + life, 0).workload for life in range(10)]
    assert seen == [task(f"t{life}") for life in range(10)]


def test_a_second_network_is_the_same_containers(workloads):
    """A running container gets another veth without starting again."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("web", netns=X, nsid=5))
    workloads.veth_appeared(NEXT_VETH, 5)
    assert workloads.of_veth(NEXT_VETH, 0).workload == task("web")


def test_an_index_reused_starts_without_an_owner(workloads):
    """The same index with another namespace behind it is another veth."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("web", netns=X, nsid=5))
    workloads.veth_appeared(VETH, 6)
    assert workloads.of_veth(VETH, 0) is None


def test_a_veth_renumbered_by_name_is_another(workloads):
    """Veths are known by index: the name may be the same as that of the one before."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("old", netns=X, nsid=5))
    workloads.end("old")
    workloads.veth_gone(VETH)
    workloads.veth_appeared(NEXT_VETH, 6)
    workloads.add(container("new", netns=Y, nsid=6))
    assert [workloads.of_veth(v, 0).workload for v in (VETH, NEXT_VETH)] == [
        task("old"), task("new"),
    ]  # fmt: skip


def test_a_container_that_ended_is_not_its_neighbour(workloads):
    """An init container's last packets are its own, though only the app still runs."""
    workloads.veth_appeared(VETH, 5)
    for name, cgroup in ((PAUSE, 99), ("init", 100), ("app", 101)):
        workloads.add(container(name, task("t", name), netns=X, nsid=5, cgroup=cgroup))
    workloads.end("init")
    assert workloads.of_veth(VETH, 100).workload == task("t", "init")
    assert workloads.of_veth(VETH, 0).workload == task("t", "app")


def test_a_restart_nobody_told_of_is_a_new_life(workloads):
    """The same container id in another namespace: the old veth keeps to the old life."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("web", task("web", "one"), netns=X, nsid=5))
    workloads.veth_gone(VETH)
    workloads.veth_appeared(NEXT_VETH, 6)
    workloads.add(container("web", task("web", "two"), netns=Y, nsid=6))
    assert workloads.of_veth(VETH, 0).workload == task("web", "one")
    assert workloads.of_veth(NEXT_VETH, 0).workload == task("web", "two")
    assert workloads.running == {"web"}


def test_a_namespace_left_by_a_restart_is_nobodys_home(workloads):
    """Its inode may be the next container's: the old veth still leads to the old life alone."""
    workloads.veth_appeared(VETH, 5)
    workloads.add(container("web", task("web", "one"), netns=X, nsid=5))
    workloads.add(container("web", task("web", "two"), netns=Y, nsid=6))
    workloads.add(container("next", netns=X, nsid=7))
    assert workloads.of_veth(VETH, 0).workload == task("web", "one")


def test_listed_twice_is_one(workloads):
    """A new list after a lost connection repeats what is known; one end ends it."""
    for _ in range(2):
        workloads.add(container("web", netns=X, nsid=5))
    assert workloads.is_running(task("web", "")) is True
    workloads.end("web")
    workloads.end("web")
    assert workloads.is_running(task("web", "")) is False
    assert workloads.running == frozenset()


def test_a_workload_runs_while_one_of_its_containers_does(workloads):
    """Equal names, or other containers of the task: the series lives on."""
    workloads.add(container("a", task("t", "web")))
    workloads.add(container("b", task("t", "web")))
    workloads.add(container("c", task("t", "log")))
    for ended, expected in (("a", True), ("b", True), ("c", False)):
        workloads.end(ended)
        assert workloads.is_running(task("t", "web")) is expected


def test_the_hosts_namespace_is_nobodys(workloads):
    """A host-mode container is known by its cgroup, and no veth leads to it."""
    workloads.veth_appeared(VETH, 0)
    workloads.add(container("agent", netns=X, nsid=0, cgroup=100, host=True))
    assert workloads.of_veth(VETH, 100) is None
    assert workloads.of_cgroup(100).workload == task("agent")


def test_addresses_name_whole_workloads(workloads):
    """An address is a task's, not a container's; one that two have is nobody's."""
    workloads.add(container("a", task("t", "web"), addresses=("10.0.0.9",)))
    workloads.add(container("b", task("t", "log"), addresses=("10.0.0.9",)))
    workloads.add(container("c", addresses=("10.0.0.7",)))
    workloads.add(container("d", addresses=("10.0.0.7",)))
    assert workloads.of_address("10.0.0.9") == Owner(task("t", ""))
    assert workloads.of_address("10.0.0.7") is None
    assert workloads.of_address("10.0.0.1") is None
    workloads.end("d")
    assert workloads.of_address("10.0.0.7") == Owner(task("c", ""))


class TestEniOfATask:
    """An ENI belongs to whoever lives in its namespace when it is told of."""

    PLACE = (0x80000001, 0)

    @pytest.fixture
    def known(self, workloads):
        """A pause container, to which the ENI has come, and no other container yet."""
        workloads.add(container("pause", task("t", PAUSE), netns=X, cgroup=99))
        workloads.eni_appeared(self.PLACE, X)
        return workloads

    def test_containers_that_come_after_it_are_in_it(self, known):
        """The ECS agent starts them when the ENI is there."""
        assert known.of_eni(self.PLACE, 0) == Owner(task("t", ""))
        known.add(container("web", task("t", "web"), netns=X, cgroup=100))
        assert known.of_eni(self.PLACE, 0) == Owner(task("t", "web"), "/ecs/web", 100)
        known.add(container("log", task("t", "log"), netns=X, cgroup=101))
        assert known.of_eni(self.PLACE, 101).workload == task("t", "log")
        assert known.of_eni(self.PLACE, 0) == Owner(task("t", ""))

    def test_another_place_is_nobodys(self, known):
        """Of the same device, or of another; and a namespace in which nobody lives."""
        known.eni_appeared((2, 100), Y)
        for place in ((0x80000001, 7), (0x80000002, 0), (2, 100)):
            assert known.of_eni(place, 99) is None

    def test_it_is_the_tasks_to_the_last_packet(self, known):
        """All containers have ended, and the inode is somebody else's already."""
        known.add(container("web", task("t", "web"), netns=X, cgroup=100))
        for name in ("web", "pause"):
            known.end(name)
        known.add(container("next", netns=X, cgroup=200))
        assert known.of_eni(self.PLACE, 100).workload == task("t", "web")
        assert known.of_eni(self.PLACE, 200).workload == task("t", "web")
        known.eni_gone(self.PLACE)
        known.eni_gone(self.PLACE)
        assert known.of_eni(self.PLACE, 100) is None

    def test_it_is_the_next_ones_when_it_is_told_again(self, known):
        """A VLAN id is given to another branch."""
        known.add(container("next", netns=Y, cgroup=200))
        known.eni_appeared(self.PLACE, Y)
        assert known.of_eni(self.PLACE, 0).workload == task("next")

    def test_a_namespace_that_nobody_knows_takes_nothing_away(self, known):
        """Told again after its containers have ended: the last packets stay the task's."""
        known.end("pause")
        known.eni_appeared(self.PLACE, X)
        assert known.of_eni(self.PLACE, 0) == Owner(task("t", ""))

    @pytest.mark.parametrize("ended", [False, True])
    def test_who_is_on_the_hosts_network_is_himself(self, known, ended):
        """He can put a frame with any VLAN id on a trunk; also his last ones are his."""
        known.add(container("agent", netns=Y, cgroup=400, host=True))
        if ended:
            known.end("agent")
        assert known.of_eni(self.PLACE, 400) == Owner(task("agent"), "/ecs/agent", 400)

    def test_who_is_in_another_namespace_is_not_believed(self, known):
        """His cgroup on this ENI is that of a socket that was handed over: it is the task's."""
        known.add(container("other", netns=Y, cgroup=500))
        assert known.of_eni(self.PLACE, 500) == Owner(task("t", ""))


def test_memory_is_bounded_however_many_come_and_go(workloads):
    """A node that starts a container a second for months holds the last few thousand."""
    for number in range(10_000):
        workloads.veth_appeared(number, 5)
        workloads.add(container(str(number), netns=X, nsid=5, cgroup=number + 1))
        workloads.end(str(number))
        workloads.veth_gone(number)
    held = [len(v) for v in vars(workloads).values()]
    assert max(held) <= 1024
    assert workloads.of_veth(9_999, 0).workload == task("9999")
