"""Why the load is there: from two snapshots, some seconds apart, to findings. Pure.

A finding needs evidence: each has a least share and a least rate, below which it is not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from .insight.answers import answered_elsewhere, retry_storm, unanswered
from .insight.caches import cache_bypassed
from .insight.conntrack import conntrack_drops, conntrack_full, conntrack_insert_failed
from .insight.load import other_services, tcp_overhead, uneven_enis
from .insight.look import EniLook, seconds_between
from .insight.names import aaaa_doubling, hot_name, search_domains
from .insight.prediction import no_cache, short_ttl
from .insight.resolv import cache_not_first, loopback_resolver, no_fallback
from .insight.servers import cache_unreachable, dead_first_nameserver
from .model import Finding, Snapshot

OF_ENI: tuple[Callable[[EniLook], Iterator[Finding]], ...] = (
    no_cache,
    hot_name,
    short_ttl,
    aaaa_doubling,
    search_domains,
    unanswered,
    retry_storm,
    answered_elsewhere,
    other_services,
    tcp_overhead,
    cache_unreachable,
)
"""What is looked for at each ENI."""

OF_ENIS: tuple[Callable[[Sequence[EniLook]], Iterator[Finding]], ...] = (cache_bypassed,)
"""What is looked for at all of them together."""

OF_NODE: tuple[Callable[[Snapshot], Iterator[Finding]], ...] = (
    uneven_enis,
    dead_first_nameserver,
    loopback_resolver,
    no_fallback,
)
"""What is looked for in the last snapshot as a whole."""

OF_LOOKS: tuple[Callable[[Snapshot | None, Snapshot, float], Iterator[Finding]], ...] = (
    cache_not_first,
    conntrack_full,
    conntrack_drops,
    conntrack_insert_failed,
)
"""What is looked for in both snapshots as a whole; the first is None where counting began."""


def of_snapshot(last: Snapshot) -> Iterator[Finding]:
    """What *last* says by itself as a whole, besides what is in it already."""
    for find in OF_NODE:
        yield from find(last)


def findings(first: Snapshot | None, last: Snapshot) -> Iterator[Finding]:
    """What *last* says by itself, and what happened since *first*; None: since counting began."""
    yield from last.findings
    before = {usage.eni.label: usage for usage in first.enis} if first is not None else {}
    seconds = seconds_between(first, last)
    if seconds <= 0:
        return
    looks = []
    dropped = {found.eni for found in last.findings if found.code == "driver-drops"}
    for usage in last.enis:
        earlier = before.get(usage.eni.label)
        if first is not None and earlier is None:
            continue  # it has appeared meanwhile: nothing is known of before
        look = EniLook.between(earlier, usage, seconds, last.resolv_confs)
        looks.append(replace(look, servers=last.servers, dropped=usage.eni.label in dropped))
        for find in OF_ENI:
            yield from find(looks[-1])
    for find_in_enis in OF_ENIS:
        yield from find_in_enis(looks)
    told = {(f.code, f.summary) for f in last.findings}
    yield from (f for f in of_snapshot(last) if (f.code, f.summary) not in told)
    for find_in_both in OF_LOOKS:
        yield from find_in_both(first, last, seconds)
