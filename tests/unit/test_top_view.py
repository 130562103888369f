"""What sorting, filtering and choosing leave on the screen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eni53.model import OTHER, Workload, WorkloadUsage
from eni53.top.view import SORT_KEYS, ViewState, by_heat, focus, matches, next_sort, rows, select

from tests.fixtures import snapshots
from tests.fixtures.snapshots import usage

LITTLE = replace(usage(Workload("pod", "ns", "beta", "app"), 100, resolver=1.0), packets=900)
MUCH = usage(Workload("host", "", "Alpha.service"), 100, imds=50.0)
CACHED = usage(Workload("ecs_task", "prod", "gamma:1/x"), 100, via="cache", ntp=20.0)
REST = usage(OTHER, 100, resolver=3.0)
ALL = (LITTLE, MUCH, CACHED, REST)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("pps", [MUCH, CACHED, REST, LITTLE]),
        ("share", [MUCH, CACHED, REST, LITTLE]),
        ("packets", [MUCH, CACHED, LITTLE, REST]),
        ("name", [MUCH, LITTLE, CACHED, REST]),
        ("kind", [CACHED, MUCH, REST, LITTLE]),
    ],
)
def test_numbers_fall_and_names_rise(sort: str, expected: list[WorkloadUsage]) -> None:
    """Each key has the direction one wants first; nobody in particular comes last by name."""
    assert expected == rows(ALL, ViewState(sort=sort))


@pytest.mark.parametrize("sort", SORT_KEYS)
def test_reverse_turns_every_order_round(sort: str) -> None:
    """``r`` after any key gives the same rows from the other end."""
    there = rows(ALL, ViewState(sort=sort))
    back = rows(ALL, ViewState(sort=sort, reverse=True))

    assert there == back[::-1]


def test_equal_rows_stand_still() -> None:
    """Rows of one rate must not jump from tick to tick as the agent lists them differently."""
    calm = tuple(usage(Workload("host", "", name), 10, resolver=1.0) for name in "cab")

    assert rows(calm, ViewState()) == rows(calm[::-1], ViewState())


def test_rates_not_known_come_last() -> None:
    """Not-a-number compares with nothing and would scatter the known rows."""
    blind = replace(MUCH, pps=float("nan"))

    assert [CACHED, REST, LITTLE, blind] == rows((blind, LITTLE, CACHED, REST), ViewState())


@pytest.mark.parametrize(
    ("needle", "expected"),
    [
        ("", [LITTLE, MUCH, CACHED, REST]),
        ("  ALPHA ", [MUCH]),
        ("PROD", [CACHED]),
        ("app", [LITTLE]),
        ("pod", [LITTLE]),
        ("CACHE", [CACHED]),
        ("imds", [MUCH]),
        ("nobody", []),
    ],
)
def test_filter_looks_everywhere_in_any_case(needle: str, expected: list[WorkloadUsage]) -> None:
    """Kind, namespace, workload, container, via and class are all ways to find a workload."""
    assert expected == [u for u in ALL if matches(u, needle)]


def test_sort_keys_go_round_both_ways() -> None:
    """``s`` five times is where one began, and ``S`` undoes ``s``."""
    view = ViewState()
    for _ in SORT_KEYS:
        view = next_sort(view)

    assert ViewState() == view
    assert ViewState() == next_sort(next_sort(view), -1)


def test_the_hottest_eni_has_the_focus_until_one_is_chosen() -> None:
    """Opening the top shows the ENI that is in trouble."""
    enis = snapshots.three_enis().enis
    hot, warm, calm = by_heat(enis)

    assert hot == focus(enis, ViewState())
    assert warm == focus(enis, select(enis, ViewState(), 1))
    assert calm == focus(enis, select(enis, ViewState(), -1))


def test_an_eni_that_went_away_gives_the_focus_back() -> None:
    """A choice of yesterday's ENI must neither crash nor hide today's hottest."""
    enis = snapshots.three_enis().enis
    gone = ViewState(selected="eni-gone")

    assert by_heat(enis)[0] == focus(enis, gone)
    assert focus(enis, replace(gone, drilled=True)) is None
    assert by_heat(enis)[1].eni.label == select(enis, gone, 1).selected
    assert gone == select((), gone, 1)
