"""Rates of one look: of names that come and go, and of what is told late."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eni53.diagnosis import findings
from eni53.insight.look import EniLook
from eni53.model import Count, EniUsage, NameRate, Snapshot, Workload, WorkloadUsage

from tests.unit.test_diagnosis import usage

WEB, JOB = Workload("pod", "shop", "web-1", "app"), Workload("pod", "shop", "job-1", "app")
TASK = Workload("ecs_task", "prod", "web:1/1", "app")
SPREAD = {(f"host-{at}.example.com", "A"): 500 for at in range(10)}
SECONDS = 5.0


def grown(before: EniUsage, *names: NameRate, by: int) -> EniUsage:
    """It after *by* more queries to the resolver, told with these names besides its own."""
    resolver = before.classes["resolver"]
    more = {**before.classes, "resolver": replace(resolver, packets=resolver.packets + by)}
    told = tuple(replace(name, packets=name.packets + 50, pps=10.0) for name in before.names)
    return replace(before, packets=before.packets + by, classes=more, names=(*names, *told))


def codes(first: EniUsage, last: EniUsage) -> set[str]:
    """Of five seconds between two looks."""
    looks = (Snapshot("node", 1000.0, 1.0, (first,)), Snapshot("node", 1005.0, 1.0, (last,)))
    return {finding.code for finding in findings(*looks)}


@pytest.mark.parametrize("pps", [60.0, 600.0], ids=["second", "tenth"])
def test_a_burst_of_the_last_tick_is_not_the_rate_of_the_look(pps: float) -> None:
    """Sixty of 560 queries, for a name that was not told before: 12 a second, not all there are."""
    first = usage(SPREAD)
    burst = NameRate("cron.example.com", "A", pps, 60)
    last = grown(first, burst, by=560)

    rates = EniLook.between(first, last, SECONDS).names
    assert rates["cron.example.com", "A"] == pytest.approx(12)
    assert rates["host-1.example.com", "A"] == pytest.approx(10)
    assert codes(first, last) == set()


def test_a_name_that_is_new_and_hot_is_found() -> None:
    """It goes on from where it began."""
    first = usage(SPREAD)
    last = grown(first, NameRate("new.example.com", "A", 400.0, 2000), by=2500)

    assert EniLook.between(first, last, SECONDS).names["new.example.com", "A"] == 400.0
    assert codes(first, last) == {"hot-name"}


@pytest.mark.parametrize("known", [False, True], ids=["new row", "old row"])
def test_nor_is_it_the_rate_of_who_asked(known: bool) -> None:
    """Whether the workload was there before or not; one counted from the begin is as it was."""
    row = WorkloadUsage(WEB, "direct", 60, 600.0, 1.0, {"resolver": Count(60, 600.0)})
    asked = replace(row, names=(NameRate("cron.example.com", "A", 600.0, 60),))
    first = replace(usage(SPREAD), workloads=(row,) if known else (replace(row, workload=JOB),))
    last = replace(first, workloads=(asked,))

    (who, rates), *_ = EniLook.between(first, last, SECONDS).names_by_workload()
    assert (who, dict(rates)) == (WEB, {("cron.example.com", "A"): 12.0})
    (_, alone), *_ = EniLook.between(None, last, SECONDS).names_by_workload()
    assert dict(alone) == {("cron.example.com", "A"): 12.0}


@pytest.mark.parametrize(("seconds", "told_s"), [(10.0, 7.25), (5.0, 2.25), (3.0, 1.0), (0.5, 0.5)])
def test_what_is_lost_is_told_late_of_a_count_that_began_with_nothing(
    seconds: float, told_s: float
) -> None:
    """Between two looks what is late at the end came in at the begin."""
    one = usage(SPREAD)

    assert EniLook.between(None, one, seconds).told_s == told_s
    assert EniLook.between(one, one, seconds).told_s == seconds


def alone(one: EniUsage) -> dict[str, float | int | str | None]:
    """Shares by code of a count of five seconds."""
    found = findings(None, Snapshot("node", 1005.0, SECONDS, (one,)))
    return {finding.code: finding.evidence.get("share") for finding in found}


@pytest.mark.parametrize(
    ("told", "share"), [(15, 0.067), (23, 0.102), (30, 0.133), (500, 1.0), (10, None)]
)
def test_the_share_is_of_those_queries_that_could_be_told(told: int, share: float | None) -> None:
    """A tenth of a hundred a second is lost, or a twentieth; the last three seconds say nothing."""
    one = usage({(f"host-{at}.example.com", "A"): 5 for at in range(100)}, unanswered=told)

    assert alone(one) == ({} if share is None else {"unanswered": share})


def test_one_lost_a_second_is_of_those_seconds_too() -> None:
    """Twelve to a dead server, of which three were told in time."""
    assert alone(usage({}, resolver=12, unanswered=3)) == {"unanswered": 0.556}
    assert alone(usage({}, resolver=12, unanswered=2)) == {}


@pytest.mark.parametrize(("told", "found"), [(95, True), (225, True), (85, False)])
def test_a_server_that_answers_nothing_is_found_in_five_seconds(told: int, found: bool) -> None:
    """Of a task's own ENI: 500 queries, told of those of the first seconds alone."""
    row = WorkloadUsage(TASK, "direct", 500, 100.0, 1.0, {"dns_other": Count(500, 100.0)})
    one = replace(usage({}, dns_other=500, unanswered=told), workloads=(row,))
    one = replace(one, eni=replace(one.eni, netns="net:[1]"))

    assert ("cache-unreachable" in alone(one)) is found
