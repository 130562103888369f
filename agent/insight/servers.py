"""Findings from which server is asked, and whether it is any good. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import name
from ..model import Finding, Snapshot

LEAST_FALLBACKS = 3
FALLBACK_SHARE = 0.8
"""Not all of them: of the last seconds' queries nobody knows yet."""


def dead_first_nameserver(last: Snapshot) -> Iterator[Finding]:
    """A server that is asked first, and then another one nearly every time."""
    for asked in last.servers:
        share = asked.fallbacks / asked.queries if asked.queries else 0.0
        if asked.fallbacks < LEAST_FALLBACKS or share < FALLBACK_SHARE:
            continue
        who = name(asked.workload)
        yield Finding(
            "dead-first-nameserver",
            "warning",
            f"{who} waits {asked.waited_s:.1f} s on each name for {asked.server}, which does not"
            " answer, and then asks another server",
            workload=who,
            evidence={
                "server": asked.server,
                "queries": asked.queries,
                "fallbacks": asked.fallbacks,
                "waited_seconds": round(asked.waited_s, 2),
            },
            remedy=f"take {asked.server} out of its resolv.conf (dnsServers of the task, dnsConfig"
            " of the pod, --dns), or start the cache that should be there",
        )
