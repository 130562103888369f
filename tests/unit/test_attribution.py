"""The ladder, rung by rung."""

from dataclasses import replace

import pytest
from eni53.attribution import CACHE, KERNEL, NOBODY, Rung, Verdict
from eni53.inventory.workloads import PAUSE, Owner, Workloads
from eni53.model import Workload
from eni53.sample import Remote, SenderKey

from tests.fixtures.samples import Kernel, container, ladder, task

VETH, OTHER_VETH, BRIDGE = 10, 11, 3
ID = "ab" * 32


def sender(**changes):
    """A forwarded or local sender of DNS over UDP on ENI 2."""
    values = {"origin": 0, "ingress": 0, "cgroup_id": 0} | changes
    return SenderKey(2, 0, packet_class="resolver", protocol="udp", **values)


@pytest.fixture
def world():
    """Two tasks behind two veths, each with a tag."""
    workloads, kernel = Workloads(), Kernel()
    for name, veth, cgroup, tag in (("a", VETH, 100, 7), ("b", OTHER_VETH, 200, 8)):
        workloads.veth_appeared(veth, veth)
        workloads.add(container(name, netns=veth, nsid=veth, cgroup=cgroup,
                                addresses=(f"10.0.0.{veth}",)))  # fmt: skip
        kernel.origin(veth, cgroup, tag)
    return workloads, kernel


VETHS = {VETH, OTHER_VETH}
A = Owner(task("a"), "/ecs/a", 100)
B = Owner(task("b"), "/ecs/b", 200)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (sender(origin=7, ingress=VETH), Verdict(A, Rung.TAG)),
        (sender(origin=7, ingress=BRIDGE), Verdict(A, Rung.TAG)),
        (sender(ingress=VETH), Verdict(A, Rung.VETH, tag_lost=True)),
        (sender(origin=999, ingress=VETH), Verdict(A, Rung.VETH, tag_lost=True)),
        (sender(origin=8, ingress=VETH), Verdict(A, Rung.VETH, tag_lost=True)),
        (sender(ingress=BRIDGE), Verdict(NOBODY, Rung.NOWHERE)),
        (sender(origin=999, ingress=BRIDGE), Verdict(NOBODY, Rung.NOWHERE)),
        (sender(), Verdict(Owner(KERNEL), Rung.LOCAL)),
        (sender(cgroup_id=100), Verdict(A, Rung.LOCAL)),
        (sender(cgroup_id=12345), Verdict(None, Rung.LOCAL)),
        (sender(origin=7), Verdict(Owner(KERNEL), Rung.LOCAL)),
    ],
    ids=["a: tag, routed", "a: tag, bridged", "b: veth", "b: unknown tag", "b: contradicting tag",
         "e: bridge", "e: foreign tag", "c: cgroup 0", "c: host mode", "c: not yet known",
         "c: a tag means nothing on a local packet"],
)  # fmt: skip
def test_each_rung(world, key, expected):
    """What the kernel saw, and whom that charges."""
    workloads, kernel = world
    assert ladder(kernel, workloads, VETHS).judge(key) == expected


def test_a_veth_without_a_name_is_asked_about_again(world):
    """Its container is about to be announced: None, on either rung, and not somebody else."""
    workloads, kernel = world
    workloads.veth_appeared(12, 12)
    kernel.origin(12, 300, 9)
    seen = ladder(kernel, workloads, {*VETHS, 12})
    assert seen.judge(sender(origin=9, ingress=12)) == Verdict(None, Rung.TAG)
    assert seen.judge(sender(ingress=12)) == Verdict(None, Rung.VETH, tag_lost=True)


@pytest.mark.parametrize("tag", [0, 7, 8])
def test_a_veth_that_is_gone_still_answers_for_its_last_packets(world, tag):
    """They are reported a second after the task ended; another's tag on them changes nothing."""
    workloads, kernel = world
    workloads.end("a")
    workloads.veth_gone(VETH)
    verdict = ladder(kernel, workloads, {OTHER_VETH}).judge(sender(origin=tag, ingress=VETH))
    assert verdict.owner == A


def test_a_cgroup_below_the_containers_own_is_the_containers(tmp_path):
    """An init system inside a host-mode container makes cgroups of its own."""
    below = tmp_path / "docker" / ID / "init.scope"
    below.mkdir(parents=True)
    workloads = Workloads()
    seen = ladder(Kernel(), workloads, cgroups=tmp_path)
    key = sender(cgroup_id=below.stat().st_ino)
    assert seen.judge(key).owner is None
    workloads.add(container(ID, task("host-mode"), host=True))
    assert seen.judge(key).owner.workload == task("host-mode")


def test_a_host_service_goes_by_its_unit(tmp_path):
    """No runtime needs to be asked about it."""
    unit = tmp_path / "system.slice" / "chronyd.service"
    unit.mkdir(parents=True)
    number = unit.stat().st_ino
    expected = Owner(Workload("host", workload="chronyd.service"),
                     "/system.slice/chronyd.service", number)  # fmt: skip
    seen = ladder(Kernel(), Workloads(), cgroups=tmp_path)
    assert seen.judge(sender(cgroup_id=number)).owner == expected


class TestAsker:
    """A cache sent it, and somebody else had asked."""

    REMOTES = {0x8001: Remote("10.0.9.9", 0), 0x8002: Remote("fd00::9", 0)}  # noqa: RUF012

    @pytest.mark.parametrize(
        "how",
        [
            {"origin": 7, "ingress": VETH},
            {"ingress": VETH},
            {"ingress": BRIDGE},
            {"cgroup_id": 100},
            {"cgroup_id": 12345},
            {},
        ],
        ids=str,
    )
    def test_a_known_one_is_charged_whoever_sent(self, world, how):
        """By tag, veth or cgroup, known or not: the cache is only in between."""
        workloads, kernel = world
        seen = replace(ladder(kernel, workloads, VETHS), remotes=self.REMOTES)
        for asker, remote in self.REMOTES.items():
            expected = Verdict(Owner(Workload("remote", workload=remote.address)), Rung.ASKER,
                               via=CACHE)  # fmt: skip
            assert seen.judge(sender(asker=asker, **how)) == expected

    @pytest.mark.parametrize("asker", [0, 0x8003, 99])
    def test_one_that_is_not_known_changes_nothing(self, world, asker):
        """None at all, one that was forgotten, a tag that was given up: the sender's."""
        workloads, kernel = world
        seen = replace(ladder(kernel, workloads, VETHS), remotes=self.REMOTES)
        key = sender(origin=7, ingress=VETH, asker=asker)
        assert seen.judge(key) == Verdict(A, Rung.TAG)


class TestTaskEni:
    """An ENI, or a branch on a trunk, that is one task's alone."""

    TASK = Owner(task("t", ""))

    @pytest.fixture
    def seen(self, world):
        """A task of two containers with the branch 100 on the trunk, and two on the host's net."""
        workloads, kernel = world
        for name, cgroup in ((PAUSE, 300), ("web", 301), ("log", 302)):
            workloads.add(container(name, task("t", name), netns=77, cgroup=cgroup))
        workloads.add(container("agent", cgroup=400, host=True))
        workloads.eni_appeared((2, 100), 77)
        return ladder(kernel, workloads, VETHS)

    @staticmethod
    def sender(**changes):
        """One of that branch."""
        return replace(sender(**changes), vlan=100)

    @pytest.mark.parametrize(
        ("cgroup", "owner"),
        [
            (301, Owner(task("t", "web"), "/ecs/web", 301)),
            (0, TASK),
            (300, TASK),
            (999, TASK),
            (100, TASK),
            (400, Owner(task("agent"), "/ecs/agent", 400)),
        ],
        ids=["its container", "no socket", "its pause container", "unknown", "another task's",
             "a container on the host's network"],
    )  # fmt: skip
    def test_by_cgroup(self, seen, cgroup, owner):
        """Only who is on the host's network can put a frame on the trunk by himself."""
        assert seen.judge(self.sender(cgroup_id=cgroup)) == Verdict(owner, Rung.ENI)

    @pytest.mark.parametrize("how", [{"origin": 7, "ingress": VETH}, {"ingress": BRIDGE}, {}])
    def test_however_it_came(self, seen, how):
        """A namespace of its own has other interfaces: their indexes mean nothing here."""
        assert seen.judge(self.sender(**how)) == Verdict(self.TASK, Rung.ENI)

    def test_a_client_of_its_cache_comes_first(self, seen):
        """Also where the ENI is the cache's alone."""
        seen = replace(seen, remotes={0x8001: Remote("10.0.9.9", 0)})
        assert seen.judge(self.sender(asker=0x8001)).rung is Rung.ASKER

    def test_the_trunk_itself_and_other_vlans_are_not_the_tasks(self, seen):
        """A place is a device and a VLAN id."""
        assert seen.judge(sender(cgroup_id=400)).rung is Rung.LOCAL
        assert seen.judge(replace(self.sender(cgroup_id=301), vlan=101)).rung is Rung.LOCAL
        assert seen.judge(replace(self.sender(), dev=3)) == Verdict(Owner(KERNEL), Rung.LOCAL)


class TestSettle:
    """What is said of a sender that nobody has named for too long."""

    @pytest.fixture
    def tree(self, tmp_path):
        """A container's cgroup and dockerd's own."""
        for path in (f"docker/{ID}", "system.slice/docker.service"):
            (tmp_path / path).mkdir(parents=True)
        return tmp_path

    def test_a_container_goes_by_its_short_id(self, tree):
        """As `docker ps` shows it, be it in host mode or behind a veth."""
        number = (tree / "docker" / ID).stat().st_ino
        kernel = Kernel()
        kernel.origin(VETH, number, 7)
        seen = ladder(kernel, Workloads(), {VETH}, tree)
        expected = Owner(Workload("container", workload=ID[:12]), f"/docker/{ID}", number)
        assert seen.settle(sender(cgroup_id=number)) == expected
        assert seen.settle(sender(origin=7, ingress=VETH)) == expected

    def test_a_service_of_the_host_is_not_behind_a_veth(self, tree):
        """Docker's resolver asks for a container from dockerd's cgroup: that is not dockerd's."""
        number = (tree / "system.slice/docker.service").stat().st_ino
        kernel = Kernel()
        kernel.origin(VETH, number, 7)
        seen = ladder(kernel, Workloads(), {VETH}, tree)
        assert seen.settle(sender(origin=7, ingress=VETH)) == NOBODY

    def test_a_contradicting_tag_is_not_believed_here_either(self, tree):
        """What `judge` did not believe does not name anybody five seconds later."""
        number = (tree / "docker" / ID).stat().st_ino
        kernel = Kernel()
        kernel.origin(OTHER_VETH, number, 8)
        seen = ladder(kernel, Workloads(), VETHS, tree)
        assert seen.settle(sender(origin=8, ingress=VETH)) == NOBODY

    def test_without_a_cgroup_it_is_nobody(self, tree):
        """Unknown, gone, or the root of the tree: honest is better than wrong."""
        seen = ladder(Kernel(), Workloads(), cgroups=tree)
        assert seen.settle(sender(cgroup_id=1 << 60)) == NOBODY
        assert seen.settle(sender(ingress=VETH)) == NOBODY
        assert seen.settle(sender(cgroup_id=tree.stat().st_ino)) == NOBODY
