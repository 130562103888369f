"""The ladder, rung by rung."""

import pytest
from eni53.attribution import KERNEL, NOBODY, Rung, Verdict
from eni53.inventory.workloads import Owner, Workloads
from eni53.model import SenderKey, Workload

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
