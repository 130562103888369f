"""One ENI of a snapshot: its parts add up, and rates speak of the window asked for."""

from dataclasses import replace

import pytest
from eni53.assemble import EniView, eni_usage
from eni53.inventory.workloads import Workloads
from eni53.ledger import ENDED_AFTER_S, Ledger
from eni53.model import CLASSES, UNATTRIBUTED, Count, Eni
from eni53.questions import Questions
from eni53.rates import Windows

from tests.fixtures.samples import ENI, Kernel, container, ladder, task

VIEW = EniView(
    eni=Eni("eni-0a1b2c3d", "02:00:00:00:00:01", "ens5", "host", *ENI),
    limit_pps=1024,
    basis="linklocal",
    windows=Windows(
        window_pps={"linklocal": 10.0, "dns": 20.0},
        peak_pps={"linklocal": 512.0, "dns": 900.0},
        fresh_peak_pps={"linklocal": 0.0, "dns": 0.0},
        history_pps={"linklocal": (1.0, 2.0), "dns": (3.0,)},
    ),
    state="warning",
    over_threshold_s={0.7: 1.5},
    counters=None,
)


@pytest.fixture
def ledger():
    """30 packets of a two seconds ago, then 8 of it, 2 to elsewhere, and 10 of nobody."""
    kernel, workloads = Kernel(), Workloads()
    workloads.veth_appeared(10, 10)
    workloads.add(container("a", netns=10, nsid=10, cgroup=100))
    kernel.origin(10, 100, 7)
    result = Ledger(200, workloads.is_running)
    kernel.send(30, tag=7, ingress=10)
    result.update(kernel.sample(1.0), ladder(kernel, workloads, {10}), 1.0)
    kernel.send(8, tag=7, ingress=10)
    kernel.send(2, tag=7, ingress=10, cell=("dns_other", "tcp"))
    kernel.send(10, ingress=3)
    result.update(kernel.sample(3.0), ladder(kernel, workloads, {10}), 3.0)
    return result


def test_rates_cover_the_window(ledger):
    """Packets are since attach, pps since the last update."""
    usage = eni_usage(VIEW, ledger, Questions(100), 2.0, since_start=False)
    assert usage.packets == 50
    assert {c: n for c, n in usage.classes.items() if n.packets} == {
        "resolver": Count(48, 9.0),
        "dns_other": Count(2, 1.0),
    }
    assert set(usage.classes) == set(CLASSES)
    assert usage.protocols == {("resolver", "udp"): 48, ("dns_other", "tcp"): 2}
    rows = {row.workload: (row.packets, row.pps) for row in usage.workloads}
    assert rows == {task("a"): (40, 5.0), UNATTRIBUTED: (10, 5.0)}


def test_a_one_shots_rates_are_over_all_of_it(ledger):
    """`top --once` speaks of the whole measurement."""
    usage = eni_usage(VIEW, ledger, Questions(100), 5.0, since_start=True)
    assert {row.workload: row.pps for row in usage.workloads} == {task("a"): 8.0, UNATTRIBUTED: 2.0}
    assert usage.classes["resolver"] == Count(48, 9.6)


@pytest.mark.parametrize(
    ("basis", "shares"),
    [("linklocal", {task("a"): 8 / 18, UNATTRIBUTED: 10 / 18}),
     ("dns", {task("a"): 0.5, UNATTRIBUTED: 0.5})],
)  # fmt: skip
def test_shares_are_of_the_basis(ledger, basis, shares):
    """What does not count against the limit is no part of the share; shares add up to one."""
    usage = eni_usage(replace(VIEW, basis=basis), ledger, Questions(100), 2.0, since_start=False)
    assert {row.workload: row.share for row in usage.workloads} == shares
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_silent_window_has_no_shares():
    """Nothing divided by nothing is nothing, not an error."""
    empty = Ledger(200, lambda _: True)
    usage = eni_usage(VIEW, empty, Questions(100), 1.0, since_start=False)
    assert (usage.packets, usage.workloads) == (0, ())
    kernel = Kernel()
    kernel.send(5, ingress=3)
    for at_s in (1.0, 2.0):
        empty.update(kernel.sample(at_s), ladder(kernel, Workloads()), at_s)
    (row,) = eni_usage(VIEW, empty, Questions(100), 1.0, since_start=False).workloads
    assert (row.packets, row.pps, row.share) == (5, 0.0, 0.0)


def test_the_windows_on_the_basis_make_utilization(ledger):
    """Peak divided by limit; both bases are shown."""
    usage = eni_usage(VIEW, ledger, Questions(100), 2.0, since_start=False)
    assert usage.utilization == 0.5
    assert usage.peak_pps == {"linklocal": 512.0, "dns": 900.0}
    assert usage.history_pps == (1.0, 2.0)
    assert (usage.state, usage.over_threshold_s) == ("warning", {0.7: 1.5})


def test_a_cgroup_is_shown_when_there_is_exactly_one(ledger):
    """Two cgroups in one row would make either a guess."""
    usage = eni_usage(VIEW, ledger, Questions(100), 2.0, since_start=False)
    row = next(row for row in usage.workloads if row.workload == task("a"))
    assert (row.cgroup, row.cgroup_id) == ("/ecs/a", 100)
    ledger.rows[ENI][task("a"), "direct"].cgroups.add(("/ecs/b", 101))
    usage = eni_usage(VIEW, ledger, Questions(100), 2.0, since_start=False)
    row = next(row for row in usage.workloads if row.workload == task("a"))
    assert (row.cgroup, row.cgroup_id) == (None, None)


def test_the_busiest_is_first():
    """By rate, then by packets, then by name."""
    ledger, kernel, workloads = Ledger(200, lambda _: True), Kernel(), Workloads()
    for number, packets in enumerate((5, 9, 9)):
        workloads.veth_appeared(10 + number, number)
        workloads.add(container(f"t{number}", netns=number + 1, nsid=number))
        kernel.send(packets, ingress=10 + number)
    ledger.update(kernel.sample(), ladder(kernel, workloads, {10, 11, 12}), 0.0)
    rows = eni_usage(VIEW, ledger, Questions(100), 1.0, since_start=False).workloads
    assert [row.workload for row in rows] == [task("t1"), task("t2"), task("t0")]


def test_what_has_ended_is_still_part_of_the_eni():
    """Rows and ended packets add up to the total."""
    ledger, kernel, workloads = Ledger(200, lambda _: False), Kernel(), Workloads()
    workloads.veth_appeared(10, 1)
    workloads.add(container("a", netns=1, nsid=1))
    kernel.send(4, ingress=10)
    ledger.update(kernel.sample(), ladder(kernel, workloads, {10}), 0.0)
    ledger.update(kernel.sample(), ladder(kernel, workloads, {10}), ENDED_AFTER_S)
    usage = eni_usage(VIEW, ledger, Questions(100), 1.0, since_start=False)
    assert (usage.packets, usage.ended_packets, usage.workloads) == (4, 4, ())
