"""From samples to ENIs: trunks and their branches, ENIs of tasks that come, move and go."""

import random
import secrets
from collections import Counter

import pytest
from eni53.config import Config
from eni53.config_table import LimitSection
from eni53.inventory.cgroups import CgroupTree
from eni53.inventory.workloads import PAUSE, Workloads
from eni53.kernel.layout import TASK_DEV
from eni53.model import Branch, Eni, Workload
from eni53.pipeline import RETIRED_S, Pipeline

from tests.fixtures.samples import ENI, Kernel, container, task

SEED = secrets.randbits(32)
TRUNK, BRANCH, TASK = ENI[0], (ENI[0], 100), (TASK_DEV | 1, 0)
MAC, OTHER_MAC = "02:00:00:00:01:00", "02:00:00:00:01:01"
IDS = {MAC: "eni-0000000b", OTHER_MAC: "eni-0000000c"}
X, Y = 4026532201, 4026532302
HOST = Eni("eni-0000000a", "02:00:00:00:00:01", "ens5", "host", TRUNK)


def id_of(mac):
    """Label by a MAC."""
    return IDS.get(mac) or f"mac:{mac}"


def of_task(label="eni-0000000d", dev=TASK[0], netns=X):
    """An ENI in a task's namespace."""
    return Eni(label, "02:00:00:00:02:00", "eth0", f"net:[{netns}]", dev)


class Node:
    """A pipeline with a kernel and an inventory of its own, and a clock."""

    def __init__(self):
        self.kernel, self.workloads, self.now_s = Kernel(), Workloads(), 100.0
        self.pipeline = Pipeline(Config(), self.workloads, CgroupTree(None), 100 * 10**9)
        self.pipeline.add_eni(HOST)

    def task(self, name, netns):
        """A task that has this namespace to itself: a pause container and one more."""
        self.workloads.add(container(f"pause-{name}", task(name, PAUSE), netns=netns, cgroup=netns))
        self.workloads.add(container(f"app-{name}", task(name), netns=netns, cgroup=netns + 1))

    def update(self, after_s=1.0, **options):
        """Another sample; the ENIs."""
        self.now_s += after_s
        options = {"since_start": False, "last": False} | options
        _, enis = self.pipeline.update(self.kernel.sample(self.now_s), (), **options)
        return enis

    def rows(self, after_s=1.0):
        """Packets of each workload, by the label of its ENI."""
        return {
            usage.eni.label: {row.workload: row.packets for row in usage.workloads}
            for usage in self.update(after_s)
        }

    def branches(self, *branches):
        """These are known."""
        self.pipeline.set_branches(branches, id_of)


@pytest.fixture
def node():
    """With one ENI of the host's."""
    return Node()


def test_the_hosts_enis_come_first(node):
    """Then the tasks', each kind in order of index; a branch follows its trunk."""
    node.pipeline.add_eni(of_task(dev=1))
    node.pipeline.add_eni(Eni("eni-00000001", "02:00:00:00:00:09", "ens9", "host", 9))
    node.kernel.send(1, eni=BRANCH)
    places = [(usage.eni.ifindex, usage.eni.vlan) for usage in node.update()]
    assert places == [ENI, BRANCH, (9, 0), (1, 0)]


def test_an_eni_keeps_the_label_it_had_first(node):
    """Its id may become known later; a label is fixed for the run."""
    node.pipeline.add_eni(Eni("eni-0000000f", HOST.mac, "ens5", "host", TRUNK))
    assert [usage.eni for usage in node.update()] == [HOST]


class TestBranches:
    """VLANs of a trunk."""

    def test_one_is_known_by_its_first_packet(self, node):
        """Named by its MAC; not shown before it has sent anything."""
        node.branches(Branch(TRUNK, 100, MAC))
        node.kernel.overflow[BRANCH] = {}  # the kernel side was told of it: for its limit
        assert [usage.eni.label for usage in node.update()] == [HOST.label]
        node.kernel.send(3, eni=BRANCH)
        branch = node.update()[1]
        assert branch.eni == Eni(IDS[MAC], MAC, "ens5", "host", TRUNK, 100)
        assert (branch.packets, branch.limit_pps) == (3, 1024)

    def test_its_limit_is_known_before_it_is_met(self, node):
        """For the kernel side to wake us at it; what is shown has the same."""
        label, late = IDS[MAC], "mac:02:00:00:00:07:77"
        node.pipeline = Pipeline(
            Config(limit=LimitSection(per_eni={label: 40, late: 50})),
            node.workloads, CgroupTree(None), 100 * 10**9,
        )  # fmt: skip
        node.pipeline.add_eni(HOST)
        node.pipeline.add_eni(of_task(late))
        node.branches(Branch(TRUNK, 100, MAC))
        expected = {ENI: 1024, TASK: 50, BRANCH: 40}
        assert node.pipeline.limits == expected
        node.kernel.send(3, eni=BRANCH)
        shown = {(usage.eni.ifindex, usage.eni.vlan): usage.limit_pps for usage in node.update()}
        assert shown == node.pipeline.limits == expected

    def test_one_that_nobody_knows_goes_by_its_vlan(self, node):
        """And keeps that name when it becomes known."""
        node.kernel.send(3, eni=BRANCH)
        assert node.rows()["eni-0000000a/vlan100"] == {Workload("host", workload="kernel"): 3}
        node.branches(Branch(TRUNK, 100, MAC))
        assert node.update()[1].eni.label == "eni-0000000a/vlan100"

    def test_vlans_of_what_is_no_trunk_of_ours_are_not_met(self, node):
        """The device is not followed (any more)."""
        node.branches(Branch(77, 100, MAC))
        node.kernel.send(3, eni=(77, 100))
        assert [usage.eni.label for usage in node.update()] == [HOST.label]

    def test_a_vlan_that_becomes_anothers_begins_at_nothing(self, node):
        """The next branch ENI in the same place is not charged with what the last one sent."""
        node.branches(Branch(TRUNK, 100, MAC))
        node.kernel.send(3, eni=BRANCH)
        node.update()
        node.branches(Branch(TRUNK, 100, MAC))
        assert node.update()[1].packets == 3
        node.kernel.send(5, eni=BRANCH)
        node.branches(Branch(TRUNK, 100, OTHER_MAC))
        node.kernel.send(7, eni=BRANCH)
        (_, branch) = node.update()
        assert (branch.eni.label, branch.packets) == (IDS[OTHER_MAC], 12)

    def test_a_tasks_branch_is_the_tasks(self, node):
        """Whatever cgroup its packets come from: dockerd's, none, that of its app."""
        node.task("a", X)
        node.branches(Branch(TRUNK, 100, MAC, X))
        for cgroup, packets in ((0, 1), (999, 2), (X + 1, 4)):
            node.kernel.send(packets, cgroup=cgroup, eni=BRANCH)
        assert node.rows()[IDS[MAC]] == {task("a"): 7}

    def test_the_next_task_on_a_vlan_is_another(self, node):
        """Also when the branch ENI is the same one."""
        node.task("a", X)
        node.branches(Branch(TRUNK, 100, MAC, X))
        node.kernel.send(1, eni=BRANCH)
        node.rows()
        for name in ("pause-a", "app-a"):
            node.workloads.end(name)
        node.kernel.send(2, eni=BRANCH)
        assert node.rows()[IDS[MAC]] == {task("a"): 3}
        node.task("b", Y)
        node.branches(Branch(TRUNK, 100, MAC, Y))
        node.kernel.send(4, eni=BRANCH)
        assert node.rows()[IDS[MAC]] == {task("a"): 3, task("b"): 4}

    def test_a_branch_of_the_agents_own_namespace_is_nobodys_alone(self, node):
        """A pod's VLAN device is in the host's: its packets come by its veth, with its tag."""
        node.task("a", X)
        node.workloads.veth_appeared(10, 1)
        node.workloads.add(container("pod", task("pod"), netns=Y, nsid=1))
        node.branches(Branch(TRUNK, 100, MAC))
        node.kernel.send(4, ingress=10, eni=BRANCH)
        assert node.rows()[IDS[MAC]] == {task("pod"): 4}

    def test_a_trunk_that_is_gone_takes_its_branches_along(self, node):
        """They were on it."""
        node.branches(Branch(TRUNK, 100, MAC))
        node.kernel.send(3, eni=BRANCH)
        node.update()
        node.pipeline.remove_eni(TRUNK)
        assert node.update() == ()
        assert node.pipeline.devices == frozenset()

    @pytest.mark.parametrize("mac", [MAC, HOST.mac])
    def test_no_two_go_by_one_name(self, node, monkeypatch, mac):
        """A task may give its device any MAC, its trunk's or a neighbour's: two series in one."""
        monkeypatch.setitem(IDS, HOST.mac, HOST.label)
        node.branches(Branch(TRUNK, 100, MAC), Branch(TRUNK, 101, mac))
        for vlan in (100, 101):
            node.kernel.send(vlan, eni=(TRUNK, vlan))
        enis = node.update()
        labels = [usage.eni.label for usage in enis]
        assert len(set(labels)) == len(labels) == 3
        assert labels[:2] == [HOST.label, IDS[MAC]]
        assert [usage.packets for usage in enis] == [0, 100, 101]


class TestTasks:
    """ENIs in tasks' own namespaces."""

    def test_all_its_packets_are_the_tasks(self, node):
        """And they have an account and a window of their own."""
        node.task("a", X)
        node.pipeline.add_eni(of_task())
        node.workloads.eni_appeared(TASK, X)
        node.kernel.send(5, eni=TASK)
        node.kernel.send(2, cgroup=999, eni=TASK)
        assert node.rows() == {HOST.label: {}, "eni-0000000d": {task("a"): 7}}

    def test_one_that_is_gone_is_shown_until_it_was_scraped(self, node):
        """Its last packets count; then nothing of it is left."""
        node.task("a", X)
        node.pipeline.add_eni(of_task())
        node.workloads.eni_appeared(TASK, X)
        node.kernel.send(5, eni=TASK)
        node.update()
        node.pipeline.retire_eni(TASK[0], node.now_s)
        node.kernel.send(2, eni=TASK)
        assert node.rows()["eni-0000000d"] == {task("a"): 7}
        node.pipeline.retire_eni(TASK[0], node.now_s + 50)  # told once more: no longer for that
        assert node.pipeline.take_retired(node.now_s + RETIRED_S - 1.1) == ()
        assert node.pipeline.devices == {TRUNK, TASK[0]}
        assert node.pipeline.take_retired(node.now_s + RETIRED_S - 1) == (TASK[0],)
        assert node.pipeline.take_retired(node.now_s + RETIRED_S) == ()
        assert node.rows() == {HOST.label: {}}
        assert node.workloads.of_eni(TASK, 0) is None

    def test_what_is_there_does_not_retire(self, node):
        """Only what was told to be gone, and no neighbour."""
        node.pipeline.add_eni(of_task())
        node.pipeline.add_eni(of_task("eni-0000000e", TASK_DEV | 2, Y))
        node.pipeline.retire_eni(TASK[0], 0.0)
        assert node.pipeline.take_retired(1e9) == (TASK[0],)
        assert node.pipeline.devices == {TRUNK, TASK_DEV | 2}

    @pytest.mark.parametrize("retired", [False, True])
    def test_one_that_moves_to_the_next_task_is_one_eni(self, node, retired):
        """The same label in another place: the old place is given up at once."""
        node.pipeline.add_eni(of_task())
        if retired:
            node.pipeline.retire_eni(TASK[0], node.now_s)
        node.pipeline.add_eni(of_task(dev=TASK_DEV | 2, netns=Y))
        assert [usage.eni.label for usage in node.update()] == [HOST.label, "eni-0000000d"]
        assert node.pipeline.take_retired(node.now_s) == (TASK[0],)
        assert node.pipeline.take_retired(node.now_s + 999) == ()

    def test_what_is_followed_is_never_given_up(self, node):
        """Out to the task and back again between two ticks: the place it is in now stays."""
        node.pipeline.add_eni(of_task())
        back = Eni("eni-0000000d", "02:00:00:00:02:00", "ens6", "host", 6)
        node.pipeline.add_eni(back)
        node.pipeline.add_eni(of_task())
        given_up = node.pipeline.take_retired(node.now_s)
        assert given_up == (6,)
        assert not node.pipeline.devices & set(given_up)

    def test_a_name_does_not_take_a_trunk_down(self, node):
        """A task's ENI that calls itself like a branch: the trunk and all its branches stay."""
        node.branches(Branch(TRUNK, 100, MAC))
        node.kernel.send(3, eni=BRANCH)
        node.update()
        node.pipeline.add_eni(of_task(IDS[MAC]))
        assert TRUNK not in node.pipeline.take_retired(node.now_s)
        assert TRUNK in node.pipeline.devices


@pytest.mark.parametrize("number", range(6))
def test_whatever_comes_and_goes_names_are_one_and_sums_hold(number):
    """ENIs move, branches change owner, tasks end: no label twice, every ENI adds up."""
    print("seed", SEED, number)
    rng, node = random.Random(f"{SEED}-{number}"), Node()
    for step in range(150):
        netns = X + 10 * rng.randrange(3)
        match rng.randrange(7):
            case 0:
                node.task(f"t{step}", netns)
            case 1:
                node.branches(*(
                    Branch(TRUNK, vlan, rng.choice((MAC, OTHER_MAC)), rng.choice((None, netns)))
                    for vlan in (100, 101) if rng.random() < 0.7
                ))  # fmt: skip
            case 2:
                dev = TASK_DEV | rng.randrange(1, 4)
                node.pipeline.add_eni(of_task(f"eni-000000a{rng.randrange(3)}", dev, netns))
                node.workloads.eni_appeared((dev, 0), netns)
            case 3:
                node.pipeline.retire_eni(TASK_DEV | rng.randrange(1, 4), node.now_s)
            case 4:
                node.workloads.end(rng.choice([*node.workloads.running, "x"]))
            case _:
                places = [(TASK_DEV | n, 0) for n in (1, 2, 3)] + [ENI, BRANCH, (TRUNK, 101)]
                node.kernel.send(rng.randrange(9), cgroup=rng.choice((0, netns + 1, 999)),
                                 ingress=rng.choice((0, 3)), eni=rng.choice(places))  # fmt: skip
        for dev in node.pipeline.take_retired(node.now_s):
            for place in [p for p in node.kernel.overflow if p[0] == dev]:
                del node.kernel.overflow[place]
        for place in node.pipeline.take_ended_branches(node.now_s):
            node.kernel.overflow.pop(place, None)
        for usage in (enis := node.update(rng.choice((1.0, 1.0, 20.0, 301.0)))):
            parts = sum(row.packets for row in usage.workloads) + usage.ended_packets
            assert parts == usage.packets == sum(usage.protocols.values())
        assert max(Counter(usage.eni.label for usage in enis).values()) == 1


def test_a_crossing_does_not_wait_for_its_window_to_be_whole(node):
    """The kernel says that the window in progress holds so much already: that is the state now."""
    assert [usage.state for usage in node.update()] == ["ok"]
    node.pipeline.crossed(ENI, 1025)
    node.pipeline.crossed(ENI, 717)  # an older one, told in the same moment
    (usage,) = node.update(0.1)
    assert (usage.state, usage.peak_pps["linklocal"]) == ("exceeded", 1025.0)
    assert usage.utilization == pytest.approx(1025 / 1024)


def test_a_crossing_of_an_eni_that_is_gone_is_nobody_elses(node):
    """A number is given again: whoever gets it has not crossed anything."""
    node.pipeline.crossed(TASK, 5000)
    node.update()
    node.pipeline.add_eni(of_task())
    assert {usage.eni.label: usage.state for usage in node.update()} == {
        "eni-0000000a": "ok", "eni-0000000d": "ok",
    }  # fmt: skip
