"""What workloads sent at their veths: rises, waits for names, ends, and is bounded."""

import pytest
from eni53.inventory.workloads import Workloads
from eni53.ledger import ENDED_AFTER_S, GRACE_S
from eni53.model import OTHER, UNATTRIBUTED
from eni53.sent import SentLedger

from tests.fixtures.samples import Kernel, container, task

VETH = 10


class World:
    """Origins, an inventory and a clock that tests move."""

    def __init__(self, max_workloads=200):
        self.kernel, self.workloads = Kernel(), Workloads()
        self.ledger, self.now_s = SentLedger(max_workloads), 0.0

    def task(self, name, veth):
        """A task behind a veth."""
        self.workloads.veth_appeared(veth, veth)
        self.workloads.add(container(name, netns=veth, nsid=veth))

    def update(self, after_s=1.0):
        """Look again some seconds later."""
        self.now_s += after_s
        self.ledger.update(dict(self.kernel.origins), self.workloads, self.now_s)
        return dict(self.ledger.sent)


@pytest.fixture
def world():
    """An empty one."""
    return World()


def test_increases_are_charged_by_class(world):
    """Both origins of a veth, each class on its own."""
    world.task("a", VETH)
    world.kernel.sent(VETH, 100, resolver=5)
    world.kernel.sent(VETH, 0, resolver=1, imds=2)
    world.update()
    world.kernel.sent(VETH, 100, resolver=7, ntp=1)
    expected = {(task("a"), "resolver"): 8, (task("a"), "imds"): 2, (task("a"), "ntp"): 1}
    assert world.update() == expected
    assert world.update() == expected


def test_an_unknown_sender_waits_and_is_then_nobodys(world):
    """A name that comes in time gets all of it; one that comes late only what is sent later."""
    world.kernel.sent(VETH, 100, resolver=5)
    world.kernel.sent(VETH + 1, 100, resolver=3)
    assert world.update() == {}
    world.task("a", VETH)
    assert world.update(GRACE_S - 0.1) == {(task("a"), "resolver"): 5}
    assert world.update(0.1)[UNATTRIBUTED, "resolver"] == 3
    world.task("b", VETH + 1)
    world.kernel.sent(VETH + 1, 100, resolver=4)
    assert world.update()[task("b"), "resolver"] == 1


def test_an_origin_that_began_again_is_not_a_fall(world):
    """Removed and made anew between two looks, or with a look between: the sum only rises."""
    world.task("a", VETH)
    world.kernel.sent(VETH, 100, resolver=5, ntp=2)
    world.update()
    world.kernel.sent(VETH, 100, resolver=1)
    assert world.update() == {(task("a"), "resolver"): 6, (task("a"), "ntp"): 2}
    world.kernel.origins.clear()
    world.update()
    world.kernel.sent(VETH, 100, resolver=3)
    assert world.update()[task("a"), "resolver"] == 9


def test_series_end_with_their_workload(world):
    """Five minutes after the last packet of one that is gone; the living stay."""
    world.task("a", VETH)
    world.task("b", VETH + 1)
    world.kernel.sent(VETH, 1, resolver=1)
    world.kernel.sent(VETH + 1, 1, resolver=1)
    world.update()
    world.workloads.end("a")
    assert len(world.update(ENDED_AFTER_S - 0.1)) == 2
    assert world.update(0.1) == {(task("b"), "resolver"): 1}


def test_names_are_bounded():
    """Beyond max_workloads later ones are other; what ends makes room."""
    world = World(max_workloads=2)
    for number in range(4):
        world.task(f"t{number}", VETH + number)
        world.kernel.sent(VETH + number, 1, resolver=1)
    expected = {(task("t0"), "resolver"): 1, (task("t1"), "resolver"): 1, (OTHER, "resolver"): 2}
    assert world.update() == expected
    world.workloads.end("t0")
    world.update(ENDED_AFTER_S)
    world.kernel.sent(VETH + 3, 1, resolver=3)
    assert world.update()[task("t3"), "resolver"] == 2
