"""Names: charged like packets, ranked, and bounded."""

from __future__ import annotations

from dataclasses import replace

from eni53.inventory.workloads import Workloads
from eni53.ledger import GRACE_S
from eni53.model import NameRate, Workload
from eni53.questions import TOP_OF_ENI, TOP_OF_WORKLOAD, Questions
from eni53.sample import Question, Sample, SenderKey

from tests.fixtures.samples import ENI, Kernel, container, counters, ladder, task

VETH_A, VETH_B = 11, 12


def known() -> Workloads:
    """Task a behind one veth, task b behind another."""
    workloads = Workloads()
    for veth, name, nsid in ((VETH_A, "a", 10), (VETH_B, "b", 20)):
        workloads.veth_appeared(veth, nsid)
        workloads.add(container(name, netns=nsid * 10, nsid=nsid, cgroup=nsid * 100))
    return workloads


def sample(*asked: tuple[int, str, int]) -> Sample:
    """(veth, name, queries) since the last look, of type A."""
    keys: dict[SenderKey, dict[int, int]] = {}
    for veth, name, queries in asked:
        sender = SenderKey(*ENI, 0, veth, 0, "resolver", "udp")
        keys.setdefault(sender, {})[hash(name)] = queries
    questions = {hash(name): Question(name, "A") for _, name, _ in asked}
    return Sample(0, {}, {}, {ENI: counters()}, {}, {}, asked=keys, questions=questions)


def told(rates: tuple[NameRate, ...]) -> list[tuple[str, float, int]]:
    """(name, pps, packets)."""
    return [(rate.name, rate.pps, rate.packets) for rate in rates]


A, B = (task("a"), "direct"), (task("b"), "direct")


def test_a_name_is_charged_to_who_asks_and_summed_for_the_eni() -> None:
    """Two tasks that want the same name: rates over the window, packets since known."""
    questions, found = Questions(100), ladder(Kernel(), known())
    questions.update(sample((VETH_A, "x", 6), (VETH_B, "x", 2), (VETH_B, "y", 4)), found, 0.0)
    questions.update(sample((VETH_A, "x", 8), (VETH_B, "y", 2)), found, 2.0)

    assert told(questions.of_account(ENI, A, 2.0, since_start=False)) == [("x", 4.0, 14)]
    assert told(questions.of_account(ENI, B, 2.0, since_start=False)) == [("y", 1.0, 6)]
    assert told(questions.of_eni(ENI, 2.0, since_start=False)) == [("x", 4.0, 16), ("y", 1.0, 6)]
    assert told(questions.of_account(ENI, B, 2.0, since_start=True)) == [
        ("y", 3.0, 6),
        ("x", 1.0, 2),
    ]
    assert questions.of_eni((9, 0), 1.0, since_start=True) == ()


def test_who_has_no_name_yet_is_waited_for_and_loses_nothing() -> None:
    """The container is told a second late; then all it asked for is its own."""
    questions, workloads = Questions(100), Workloads()
    workloads.veth_appeared(VETH_A, 10)
    questions.update(sample((VETH_A, "x", 5)), ladder(Kernel(), workloads), 0.0)
    assert questions.of_eni(ENI, 1.0, since_start=False) == ()
    workloads.add(container("a", netns=100, nsid=10, cgroup=1000))
    questions.update(sample((VETH_A, "x", 1)), ladder(Kernel(), workloads), 1.0)

    assert told(questions.of_account(ENI, A, 1.0, since_start=False)) == [("x", 6.0, 6)]


def test_who_stays_without_a_name_is_nobody() -> None:
    """After the grace, or at a one-shot's end, it is settled: unattributed."""
    workloads = Workloads()
    workloads.veth_appeared(VETH_A, 10)
    nobody = (Workload("unattributed"), "direct")
    for last in (False, True):
        questions = Questions(100)
        found = ladder(Kernel(), workloads)
        if not last:
            asked = sample((VETH_A, "x", 5))
            questions.update(asked, found, 0.0)
            questions.update(replace(asked, asked={}), found, GRACE_S)
        else:
            questions.update(sample((VETH_A, "x", 5)), found, 0.0, 0.0)
        assert told(questions.of_account(ENI, nobody, 1.0, since_start=True)) == [("x", 5.0, 5)]


def test_the_busiest_come_first_and_only_so_many() -> None:
    """Five of a workload, ten of an ENI; equals by name."""
    questions, found = Questions(100), ladder(Kernel(), known())
    asked = [(VETH_A, f"n{at:02}", 20 - at) for at in range(20)]
    questions.update(sample(*asked), found, 0.0)
    names = [f"n{at:02}" for at in range(20)]

    ours = questions.of_account(ENI, A, 1.0, since_start=False)
    assert [rate.name for rate in ours] == names[:TOP_OF_WORKLOAD]
    everybodys = questions.of_eni(ENI, 1.0, since_start=False)
    assert [rate.name for rate in everybodys] == names[:TOP_OF_ENI]


def test_no_more_names_are_kept_than_allowed() -> None:
    """The idle go first; what is asked for now stays, with all its queries."""
    questions, found = Questions(50), ladder(Kernel(), known())
    for second in range(300):
        churn = [(VETH_A, f"s{second}-{at}", 1) for at in range(20)]
        questions.update(sample((VETH_B, "steady", 7), *churn), found, float(second))
        everything = questions.of_account(ENI, A, 1.0, since_start=True)
        assert len(everything) <= TOP_OF_WORKLOAD
    [steady] = questions.of_account(ENI, B, 1.0, since_start=False)

    assert steady.packets == 300 * 7
    assert questions.kept <= 50


def test_of_names_as_old_the_rarest_give_way_and_no_more_than_must() -> None:
    """Eight are kept of two looks: all of the second, and the busiest of the first."""
    questions, found = Questions(8), ladder(Kernel(), known())
    questions.update(sample(*[(VETH_A, f"old{n}", n) for n in range(1, 7)]), found, 0.0)
    questions.update(sample(*[(VETH_B, f"new{n}", 1) for n in range(5)]), found, 1.0)
    olds = questions.of_account(ENI, A, 1.0, since_start=True)
    # What is shown reads by the latest sample's questions: count by the hashes instead.
    everything = questions.of_eni(ENI, 1.0, since_start=True)
    questions.update(sample(*[(VETH_A, f"old{n}", 1) for n in range(1, 7)]), found, 1.5)

    assert questions.kept == 8
    assert (len(olds), len(everything)) == (0, 5), "the first look's are not in these questions"
    assert told(questions.of_account(ENI, A, 1.0, since_start=False))[:3] == [
        ("old6", 1.0, 7),
        ("old5", 1.0, 6),
        ("old4", 1.0, 5),
    ]


def test_an_eni_that_is_gone_leaves_nothing() -> None:
    """Its room is free again."""
    questions, found = Questions(50), ladder(Kernel(), known())
    questions.update(sample((VETH_A, "x", 1), (VETH_B, "y", 1)), found, 0.0)
    questions.forget_eni(ENI)

    assert questions.of_eni(ENI, 1.0, since_start=True) == ()
    assert questions.kept == 0


def test_a_name_not_told_yet_is_left_out_and_not_lost() -> None:
    """Its queries are counted, and shown once it can be read."""
    questions, found = Questions(50), ladder(Kernel(), known())
    first = sample((VETH_A, "x", 3))
    untold = replace(first, questions={})
    questions.update(untold, found, 0.0)
    assert questions.of_eni(ENI, 1.0, since_start=True) == ()
    questions.update(sample((VETH_A, "x", 1)), found, 1.0)

    assert told(questions.of_eni(ENI, 1.0, since_start=True)) == [("x", 4.0, 4)]


def test_who_waits_for_a_name_on_an_eni_that_goes_is_forgotten_with_it() -> None:
    """Nothing is kept for an ENI that is not there: its number may be the next one's."""
    questions, workloads = Questions(50), Workloads()
    workloads.veth_appeared(VETH_A, 10)
    asked = sample((VETH_A, "x", 5))
    questions.update(asked, ladder(Kernel(), workloads), 0.0)
    questions.forget_eni(ENI)
    gone = replace(asked, enis={})
    questions.update(gone, ladder(Kernel(), workloads), 1.0)
    questions.update(replace(gone, asked={}), ladder(Kernel(), workloads), GRACE_S + 1)

    assert questions.kept == 0
