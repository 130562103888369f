"""What a person asked to see, and which rows that leaves in which order. Nothing is drawn here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ..model import EniUsage, WorkloadUsage

SORT_KEYS = ("pps", "share", "packets", "name", "kind")
"""In the order in which the key ``s`` walks through them."""

NAMELESS_KINDS = frozenset({"unattributed", "other"})
"""Kinds that stand for nobody in particular."""


@dataclass(frozen=True, slots=True)
class ViewState:
    """What to show of a snapshot, and how; a new one for every key pressed.

    Attributes:
        sort: One of `SORT_KEYS`: numbers fall, names rise.
        reverse: The other way round.
        filter: Only workloads that contain this, in any case; empty for all.
        selected: Label of the chosen ENI; None for the hottest.
        drilled: The chosen ENI has the screen for itself.
        paused: The screen stands still; only said here, done by who feeds it.
        ascii_only: Draw with ASCII, for terminals and pipes that carry no more.
        source: Where snapshots come from, in a word or two; empty to leave it out.
        played: Where in a recording this is; empty when it is now.
    """

    sort: str = "pps"
    reverse: bool = False
    filter: str = ""
    selected: str | None = None
    drilled: bool = False
    paused: bool = False
    ascii_only: bool = False
    source: str = ""
    played: str = ""


def next_sort(view: ViewState, step: int = 1) -> ViewState:
    """*view* sorted by the key *step* places further on, falling or rising as that key does."""
    at = SORT_KEYS.index(view.sort) + step
    return replace(view, sort=SORT_KEYS[at % len(SORT_KEYS)], reverse=False)


def by_heat(enis: Iterable[EniUsage]) -> list[EniUsage]:
    """*enis*, nearest to their limit first; unknown last; equals by label, so rows stand still."""
    return sorted(enis, key=lambda usage: (-_known(usage.utilization), usage.eni.label))


def focus(enis: Iterable[EniUsage], view: ViewState) -> EniUsage | None:
    """The chosen ENI, else the hottest; None when there is none, or a drilled-in one is gone."""
    ordered = by_heat(enis)
    for usage in ordered:
        if usage.eni.label == view.selected:
            return usage
    return None if view.drilled or not ordered else ordered[0]


def select(enis: Iterable[EniUsage], view: ViewState, step: int) -> ViewState:
    """*view* with the ENI chosen that is *step* places below, going round at the ends."""
    labels = [usage.eni.label for usage in by_heat(enis)]
    if not labels:
        return view
    now = labels.index(view.selected) if view.selected in labels else 0
    return replace(view, selected=labels[(now + step) % len(labels)])


def rows(workloads: Iterable[WorkloadUsage], view: ViewState) -> list[WorkloadUsage]:
    """The workloads that *view* wants, in its order."""
    key = _ORDERS[view.sort]
    found = [usage for usage in workloads if matches(usage, view.filter)]
    found.sort(key=lambda usage: (_name(usage), usage.via))
    return sorted(found, key=key, reverse=view.reverse)


def matches(usage: WorkloadUsage, needle: str) -> bool:
    """Whether *usage* has *needle* in its kind, names, via or a class it sent, in any case."""
    wanted = needle.strip().casefold()
    owner = usage.workload
    texts = (owner.kind, owner.namespace, owner.workload, owner.container, usage.via)
    return any(wanted in text.casefold() for text in (*texts, *usage.classes))


def _known(number: float) -> float:
    return -1.0 if math.isnan(number) else number


def _name(usage: WorkloadUsage) -> tuple[bool, str, str, str]:
    owner = usage.workload
    return (
        owner.kind in NAMELESS_KINDS,
        owner.workload.casefold(),
        owner.container.casefold(),
        owner.namespace.casefold(),
    )


_ORDERS: dict[str, Callable[[WorkloadUsage], Any]] = {
    "pps": lambda usage: -_known(usage.pps),
    "share": lambda usage: -_known(usage.share),
    "packets": lambda usage: -usage.packets,
    "name": _name,
    "kind": lambda usage: usage.workload.kind,
}
