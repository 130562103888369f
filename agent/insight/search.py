"""Names that are only found by way of a search list. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import takewhile
from typing import NamedTuple

from .look import EniLook

_Key = tuple[str, str]


class Step(NamedTuple):
    """A name that was asked for in vain, on the way to another.

    Attributes:
        pps: Queries a second for it that went on to that one.
        whole: The name that was found in the end.
    """

    pps: float
    whole: str


def in_vain(look: EniLook) -> Mapping[_Key, Step]:
    """By (name, type), what went on to the next search domain of an asker's own list.

    What was asked for as it stands in the end is not in it: that is a name from outside.
    """
    asking = {row.workload for row in look.usage.workloads}
    lists = {conf.search for workload, conf in look.confs.items() if workload in asking}
    rcodes = {(n.name, n.type): n.answer.rcode for n in look.usage.names if n.answer is not None}
    found: dict[_Key, Step] = {}
    for (short, kind), domains in _by_domain(look, {d for search in lists for d in search}).items():
        as_it_stands = look.names.get((short, kind), 0.0)
        for search in lists if len(domains) > 1 else ():
            tried = [(f"{short}.{d}", kind) for d in takewhile(domains.__contains__, search)]
            while tried and rcodes.get(tried[-1]) == "NXDOMAIN":
                tried.pop()
            if not tried:
                continue
            *before, end = tried
            arrived = max(0.0, look.names[end] - as_it_stands)
            for key in before:
                # Somebody has that name: it is asked for on its own account.
                if rcodes.get(key, "NXDOMAIN") == "NXDOMAIN":
                    step = Step(min(look.names[key], arrived), end[0])
                    found[key] = max(step, found.get(key, step))
    return {key: step for key, step in found.items() if step.pps > 0}


def _by_domain(look: EniLook, domains: set[str]) -> Mapping[_Key, set[str]]:
    """The domains of *domains* that each short name (by type) was asked for with."""
    found: defaultdict[_Key, set[str]] = defaultdict(set)
    for name, kind in look.names:
        labels = name.split(".")
        for at in range(1, len(labels)):
            domain = ".".join(labels[at:])
            if domain in domains:
                found[".".join(labels[:at]), kind].add(domain)
    return found
