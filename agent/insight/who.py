"""Workloads in the words of a finding."""

from __future__ import annotations

from collections.abc import Iterable

from ..model import Workload
from ..text import clean

SHOWN = 5


def full_name(workload: Workload) -> str:
    """Namespace, name and container, as far as there are; else its kind."""
    parts = (workload.namespace, workload.workload, workload.container)
    return "/".join(clean(part) for part in parts if part) or workload.kind


def whose(names: Iterable[str]) -> str:
    """The first few of *names*, and how many more there are."""
    told = list(names)
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return ", ".join(told[:SHOWN]) + more
