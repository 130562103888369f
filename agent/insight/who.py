"""Workloads in the words of a finding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from ..model import Workload
from ..text import clean
from .look import EniLook

SHOWN = 5


def full_name(workload: Workload) -> str:
    """Namespace, name and container, as far as there are; else its kind."""
    parts = (workload.namespace, workload.workload, workload.container)
    return "/".join(clean(part) for part in parts if part) or workload.kind


def only(workloads: Collection[Workload]) -> str | None:
    """Its full name, when there is but one."""
    return full_name(next(iter(workloads))) if len(workloads) == 1 else None


def whose(names: Iterable[str]) -> str:
    """The first few of *names*, and how many more there are."""
    told = list(names)
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return ", ".join(told[:SHOWN]) + more


def askers(look: EniLook, wanted: Callable[[str, str], bool]) -> dict[Workload, float]:
    """Who asks for names that are *wanted* (by name and type), and how often a second.

    The busiest first; of each only the names that it asks for most are known.
    """
    found: defaultdict[Workload, float] = defaultdict(float)
    for workload, names in look.names_by_workload():
        for (name, kind), pps in names.items():
            if pps and wanted(name, kind):
                found[workload] += pps
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def senders(look: EniLook, classes: Iterable[str]) -> dict[Workload, float]:
    """Who sends packets of *classes* by this ENI, and how many a second; the busiest first."""
    found: defaultdict[Workload, float] = defaultdict(float)
    wanted = tuple(classes)
    for row in look.usage.workloads:
        found[row.workload] += look.row_pps(row, wanted)
    named = {w: pps for w, pps in found.items() if pps > 0}
    return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))


def rates(found: Mapping[Workload, float]) -> str:
    """The first few of them, each with its rate."""
    return whose(f"{full_name(workload)} {pps:.0f}" for workload, pps in found.items())
