"""Names of all seconds of a look: none is lost because the last second did not have it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eni53 import names_seen
from eni53.diagnosis import findings
from eni53.insight.look import EniLook
from eni53.model import Count, NameRate, Snapshot, Workload, WorkloadUsage
from eni53.names_seen import NamesSeen

from tests.unit.test_diagnosis import usage

WEB = Workload("pod", "shop", "web-1", "app")
HOT = ("hot.example.com", "A")


def told(slot: int, queries: int, *names: NameRate) -> Snapshot:
    """The ENI, and one workload that asks for all of it, with these names."""
    one = usage({}, resolver=queries)
    row = WorkloadUsage(
        WEB, "direct", queries, 0.0, 1.0, {"resolver": Count(queries, 0.0)}, names=names
    )
    return Snapshot("node", 0.0, 1.0, (replace(one, names=names, workloads=(row,)),), slot=slot)


def hot(pps: float, packets: int) -> NameRate:
    """What is told of the name."""
    return NameRate(*HOT, pps, packets)


def look(first: Snapshot, *later: Snapshot) -> tuple[EniLook, dict[str, str | None]]:
    """Over all of them, five seconds; findings with whose they are."""
    seen = NamesSeen(first)
    for snapshot in later[:-1]:
        seen.add(snapshot)
    begin, end = seen.of_look(later[-1])
    found = {finding.code: finding.workload for finding in findings(begin, end)}
    return EniLook.between(begin.enis[0], end.enis[0], 5.0), found


@pytest.mark.parametrize("before", [0, 4000])
@pytest.mark.parametrize("first", [True, False], ids=["known", "new"])
def test_a_name_that_is_silent_in_the_last_second_counts(before: int, first: bool) -> None:
    """Four hundred every other second, since before the look or not: 160 a second of 5."""
    names = (hot(400.0, before),) if first else ()
    seconds = [told(110, 400, hot(400.0, before + 400)), told(120, 400),
               told(130, 800, hot(400.0, before + 800)), told(150, 800)]  # fmt: skip
    of, found = look(told(100, 0, *names), *seconds)

    assert of.names == {HOT: pytest.approx(160.0)}
    assert [dict(rates) for _, rates in of.names_by_workload()] == [{HOT: pytest.approx(160.0)}]
    assert found == {"hot-name": "shop/web-1/app"}


def test_what_was_asked_for_before_the_look_does_not_count() -> None:
    """Of a name that is told late, all but what it was asked for in that second."""
    of, found = look(told(100, 0), told(120, 900, hot(10.0, 50_010)), told(150, 1000))

    assert of.names == {HOT: pytest.approx(2.0)}
    assert found == {}


def test_the_last_second_is_told_as_it_is() -> None:
    """With its own rates, once each, and nothing of what was only there at the begin."""
    other = NameRate("other.example.com", "A", 7.0, 70)
    seen = NamesSeen(told(100, 0, hot(400.0, 400)))
    begin, end = seen.of_look(told(150, 500, other))

    assert end.enis[0].names == (other, hot(0.0, 400))
    assert begin.enis[0].names == (hot(400.0, 400), replace(other, packets=63, pps=0.0))


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look of an hour at somebody who asks for new names each second; the rarest go."""
    monkeypatch.setattr(names_seen, "MOST_OF_ENI", 20)
    monkeypatch.setattr(names_seen, "MOST_OF_WORKLOAD", 10)
    seen = NamesSeen(told(100, 0))
    seen.add(told(101, 40, hot(30.0, 30)))
    for at in range(100):
        rare = [NameRate(f"h{at}-{n}.example.com", "A", 1.0, 1) for n in range(10)]
        seen.add(told(102 + at, 40, *rare))
    _, end = seen.of_look(told(300, 1040))

    assert [len(end.enis[0].names), len(end.enis[0].workloads[0].names)] == [20, 10]
    assert HOT in {(n.name, n.type) for n in end.enis[0].names}


def test_an_eni_or_a_row_that_comes_or_goes() -> None:
    """What has no begin, or no end, is left as it is told."""
    here, gone = told(100, 0, hot(1.0, 1)), replace(told(150, 0), enis=())
    assert NamesSeen(here).of_look(gone) == (here, gone)
    here = replace(here, slot=150)
    assert NamesSeen(gone).of_look(here) == (gone, here)
