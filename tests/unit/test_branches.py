"""Branch ENIs that go: when they are over, what is shown until then, and what is left of them."""

from dataclasses import replace

import pytest
from eni53.branches import SILENT_S, Branches
from eni53.model import Branch
from eni53.pipeline import RETIRED_S
from eni53.questions import Questions

from tests.fixtures.samples import CELL, Kernel, container, ladder, task

from .test_pipeline import BRANCH, HOST, IDS, MAC, OTHER_MAC, TRUNK, Node, X

ONE, OTHER = Branch(TRUNK, 100, MAC), Branch(TRUNK, 100, OTHER_MAC)
STRANGER = f"{HOST.label}/vlan100"


@pytest.fixture
def branches():
    """None yet."""
    return Branches(RETIRED_S)


@pytest.fixture
def node():
    """With one ENI of the host's, a trunk."""
    return Node()


def labels(node, after_s=1.0):
    """Of all branch ENIs that are shown."""
    return [usage.eni.label for usage in node.update(after_s) if usage.eni.vlan]


def tick(node, after_s=1.0):
    """As `Node.tick` does: sample, then removal of what is over, in the kernel too."""
    shown = labels(node, after_s)
    ended = node.pipeline.take_ended_branches(node.now_s)
    for place in ended:
        node.kernel.overflow.pop(place, None)
    return shown, ended


class TestWhenOneIsOver:
    """Places on trunks, without anything behind them."""

    def test_one_that_is_there_is_never_over(self, branches):
        """However silent."""
        branches.declare([ONE])
        for now_s in (0.0, 10 * SILENT_S):
            branches.update({BRANCH: 3}, now_s)
            assert branches.take_over(now_s) == ()
        assert branches.here == {BRANCH: ONE}

    def test_one_that_went_is_over_after_its_time(self, branches):
        """Once; then nothing is known of it."""
        branches.declare([ONE])
        branches.update({BRANCH: 3}, 0.0)
        assert branches.declare([]) == ()
        assert (branches.here, branches.at(BRANCH)) == ({}, ONE)
        branches.update({BRANCH: 3}, 30.0)
        assert branches.take_over(RETIRED_S - 0.1) == ()
        assert branches.take_over(RETIRED_S) == (BRANCH,)
        assert branches.take_over(RETIRED_S) == ()
        assert branches.at(BRANCH) is None

    def test_one_that_still_sends_is_not_over(self, branches):
        """Its device may have moved to where nobody looks."""
        branches.declare([ONE])
        branches.update({}, 0.0)
        branches.declare([])
        for number in range(1, 10):
            branches.update({BRANCH: number}, number * 50.0)
            assert branches.take_over(number * 50.0) == ()
        branches.update({BRANCH: 9}, 500.0)
        assert branches.take_over(450.0 + RETIRED_S) == (BRANCH,)

    def test_one_that_came_and_went_between_two_looks_has_its_time_too(self, branches):
        """From the look after that."""
        branches.declare([ONE])
        branches.declare([])
        assert branches.take_over(1000.0) == ()
        branches.update({}, 1000.0)
        assert branches.take_over(1000.0 + RETIRED_S - 0.1) == ()
        assert branches.take_over(1000.0 + RETIRED_S) == (BRANCH,)

    def test_one_that_comes_back_is_the_same(self, branches):
        """And has its time again when it goes once more."""
        branches.declare([ONE])
        branches.update({}, 0.0)
        branches.declare([])
        branches.update({}, 50.0)
        assert branches.declare([ONE]) == ()
        branches.update({}, 55.0)
        branches.declare([])
        assert branches.take_over(RETIRED_S) == ()
        assert branches.take_over(55.0 + RETIRED_S) == (BRANCH,)

    @pytest.mark.parametrize("went", [False, True])
    def test_another_mac_is_another_one(self, branches, went):
        """Whether or not the first was seen to go; the one beside it is not touched."""
        beside = Branch(TRUNK, 101, MAC)
        branches.declare([ONE, beside])
        branches.update({BRANCH: 3, (TRUNK, 101): 3}, 0.0)
        if went:
            branches.declare([beside])
        assert branches.declare([OTHER, beside]) == (BRANCH,)
        assert branches.declare([OTHER, beside]) == ()
        assert branches.here == {BRANCH: OTHER, (TRUNK, 101): beside}

    def test_one_that_nobody_declared_is_over_when_it_is_silent_for_long(self, branches):
        """Each packet gives it its time again."""
        branches.update({BRANCH: 1}, 0.0)
        branches.update({BRANCH: 2}, SILENT_S - 1)
        assert branches.take_over(SILENT_S) == ()
        branches.update({BRANCH: 2}, 2 * SILENT_S)
        assert branches.take_over(2 * SILENT_S - 2) == ()
        assert branches.take_over(2 * SILENT_S - 1) == (BRANCH,)

    def test_one_that_is_declared_later_ends_as_declared(self, branches):
        """It is no stranger any more."""
        branches.update({BRANCH: 1}, 0.0)
        assert branches.declare([ONE]) == ()
        branches.update({BRANCH: 1}, 1.0)
        branches.declare([])
        assert branches.take_over(1.0 + RETIRED_S) == (BRANCH,)

    def test_a_trunk_that_is_gone_takes_all_of_its_own(self, branches):
        """And nothing of another's."""
        there = Branch(TRUNK + 1, 100, MAC)
        branches.declare([ONE, there])
        branches.update({(TRUNK, 7): 1}, 0.0)
        branches.forget_trunk(TRUNK)
        assert branches.here == {(TRUNK + 1, 100): there}
        assert branches.take_over(1e9) == ()


def test_what_it_had_is_shown_until_it_is_over(node):
    """Then nothing of it is left: not its ENI, nor its accounts, its limit, or whose it was."""
    node.task("a", X)
    node.branches(replace(ONE, netns=X))
    node.kernel.send(5, eni=BRANCH)
    tick(node)
    node.branches()
    node.kernel.send(2, eni=BRANCH)
    assert node.rows() == {HOST.label: {}, IDS[MAC]: {task("a"): 7}}
    assert tick(node, RETIRED_S - 1) == ([IDS[MAC]], ())
    assert tick(node) == ([IDS[MAC]], (BRANCH,))
    assert tick(node) == ([], ())
    assert node.pipeline.limits.keys() == {(TRUNK, 0)}
    assert BRANCH not in node.pipeline.ledger.rows
    assert node.workloads.of_eni(BRANCH, 0) is None
    assert node.pipeline.devices == {TRUNK}


def test_what_ends_takes_no_other_down(node):
    """Neither its trunk nor the branch beside it, which are silent for as long."""
    beside = Branch(TRUNK, 101, OTHER_MAC)
    node.branches(ONE, beside)
    for vlan in (0, 100, 101):
        node.kernel.send(3, eni=(TRUNK, vlan))
    tick(node)
    node.branches(beside)
    assert tick(node, 10 * SILENT_S)[1] == (BRANCH,)
    assert [(u.eni.label, u.packets) for u in node.update()] == [
        (HOST.label, 3), (IDS[OTHER_MAC], 3),
    ]  # fmt: skip
    assert node.pipeline.take_retired(node.now_s) == ()


def test_one_that_lived_between_two_looks_has_its_name(node):
    """A job of half a second: its packets are read when its device is gone already."""
    node.branches(ONE)
    node.branches()
    node.kernel.send(3, eni=BRANCH)
    assert node.rows()[IDS[MAC]]
    assert tick(node, RETIRED_S)[1] == (BRANCH,)


def test_one_that_never_sent_anything_ends_too(node):
    """Nobody has seen it, but its entry in the kernel's table is one of few."""
    node.task("a", X)
    node.branches(replace(ONE, netns=X))
    tick(node)
    node.branches()
    assert tick(node, RETIRED_S) == ([], (BRANCH,))
    assert node.workloads.of_eni(BRANCH, 0) is None


@pytest.mark.parametrize("went", [False, True])
def test_the_next_one_of_a_vlan_begins_at_nothing(node, went):
    """Under its own label, at once; the first one's counts are not seen to fall before that."""
    node.branches(ONE)
    node.kernel.send(3, eni=BRANCH)
    node.kernel.overflow[BRANCH] = {CELL: 7}
    assert node.update()[1].packets == 10
    if went:
        node.branches()
        assert (shown := node.update()[1]).packets == 10
        assert shown.eni.label == IDS[MAC]
    assert node.pipeline.set_branches([OTHER], str.upper) == (BRANCH,)
    node.kernel.overflow[BRANCH] = {CELL: 9}  # it began anew in the kernel, and has more already
    (_, shown) = node.update()
    assert (shown.eni.label, shown.packets) == (OTHER_MAC.upper(), 9)
    node.pipeline.set_branches([OTHER], str.upper)
    assert node.update()[1].packets == 9


def test_a_crossing_of_the_one_before_is_not_the_next_ones(node):
    """Told a moment before the VLAN id became another's."""
    node.branches(ONE)
    node.kernel.send(3, eni=BRANCH)
    node.update()
    node.pipeline.crossed(BRANCH, 5000)
    node.branches(OTHER)
    assert [usage.state for usage in node.update()] == ["ok", "ok"]


def test_the_next_one_is_not_named_after_a_stranger(node):
    """A branch met by its packets, then declared, keeps its name; the one after it has its own."""
    node.kernel.send(3, eni=BRANCH)
    node.update()
    node.branches(ONE)
    assert labels(node) == [STRANGER]
    node.branches()
    node.branches(OTHER)
    node.kernel.send(1, eni=BRANCH)
    assert labels(node) == [IDS[OTHER_MAC]]


def test_a_stranger_ends_and_begins_again(node):
    """Nobody says that it went; what it sends afterwards counts from there."""
    node.kernel.send(3, eni=BRANCH)
    assert tick(node) == ([STRANGER], ())
    assert tick(node, SILENT_S - 1) == ([STRANGER], ())
    node.kernel.send(3, eni=BRANCH)
    assert tick(node) == ([STRANGER], ())
    assert tick(node, SILENT_S) == ([STRANGER], (BRANCH,))
    assert tick(node) == ([], ())
    node.kernel.send(2, eni=BRANCH)
    assert [(u.eni.label, u.packets) for u in node.update()][1:] == [(STRANGER, 2)]


def test_a_trunk_that_is_gone_has_no_branch_that_ends(node):
    """Its index may be another trunk's, with the same VLAN id on it."""
    node.branches(ONE)
    node.kernel.send(3, eni=BRANCH)
    tick(node)
    node.pipeline.remove_eni(TRUNK)
    assert node.pipeline.limits == {}
    node.branches()
    tick(node)
    assert tick(node, 10 * SILENT_S) == ([], ())


def test_three_hundred_one_after_the_other(node):
    """As many as there were and no more than there are: nothing of the others is kept."""
    for number in range(1, 301):
        branch = Branch(TRUNK, number, f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}")
        node.branches(branch)
        node.kernel.send(number, eni=(TRUNK, number))
        node.kernel.send(1)
        shown = {u.eni.label: u.packets for u in node.update(RETIRED_S / 3)}
        assert shown[f"mac:{branch.mac}"] == number
        assert shown[HOST.label] == number, "the trunk's own are its own"
        assert len(shown) <= 6
        for place in node.pipeline.take_ended_branches(node.now_s):
            del node.kernel.overflow[place]
    assert len(node.kernel.overflow) <= 6


def test_who_waits_for_a_name_is_not_the_next_ones():
    """What was asked for through an ENI that ended is not charged in its place."""
    kernel, questions, workloads = Kernel(), Questions(50), Node().workloads
    workloads.veth_appeared(10, 1)
    key = kernel.send(5, ingress=10, eni=BRANCH)
    sample = replace(kernel.sample(), asked={key: {1: 5}})
    questions.update(sample, ladder(kernel, workloads), 0.0)
    questions.forget_eni(BRANCH)
    workloads.add(container("next", netns=X, nsid=1))
    questions.update(replace(sample, asked={}), ladder(kernel, workloads), 1.0)
    assert questions.kept == 0
