"""Findings from who asks by way of a cache on the node, and who does not. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..findings import name
from ..model import DNS_CLASSES, Finding, Workload, WorkloadUsage
from .look import LEAST_PPS, EniLook

BYPASS_SHARE = 0.2
LEAST_SERVED = 20
"""Packets for others before anybody is called a cache: a single one may be a wrong guess."""

_NO_CLIENT = frozenset({"other", "unattributed", "cache"})  # nobody in particular, or it itself
_KERNEL = Workload("host", workload="kernel")


def cache_bypassed(looks: Sequence[EniLook]) -> Iterator[Finding]:
    """The node has a cache, and a workload that can reach it asks the resolver all the same."""
    rows = [(look, row) for look in looks for row in look.usage.workloads if is_caches(row)]
    caches = sorted({name(row.workload) for _, row in rows if row.workload.kind == "cache"})
    in_use = any(look.row_pps(row, DNS_CLASSES) > 0 for look, row in rows)
    served = sum(row.packets for _, row in rows)
    if not in_use or not (caches or served >= LEAST_SERVED):
        return
    far = serves_others(row for _, row in rows)
    cache = ", ".join(caches) or "not named"
    # From an ENI of a task's or pod's own, no address of the host is reached by way of the host.
    for look in (one for one in looks if one.usage.eni.netns == "host" and not one.usage.eni.vlan):
        direct: defaultdict[Workload, float] = defaultdict(float)
        for row in look.usage.workloads:
            kind = row.workload.kind
            if row.via == "direct" and kind not in _NO_CLIENT and (far or kind == "host"):
                direct[replace(row.workload, container="")] += look.row_pps(row, ("resolver",))
        direct.pop(_KERNEL, None)
        for workload, pps in sorted(direct.items(), key=lambda item: (-item[1], item[0])):
            share = min(1.0, pps / look.queries) if look.queries else 0.0
            if pps >= LEAST_PPS and share >= BYPASS_SHARE:
                who = name(workload)
                yield Finding(
                    "cache-bypassed",
                    "warning",
                    f"{look.label}: {who} sends {pps:.0f} queries a second straight to the"
                    f" resolver, past the cache on this node ({cache})",
                    eni=look.label,
                    workload=who,
                    evidence={"pps": round(pps, 1), "share": round(share, 3), "cache": cache},
                    remedy="let its resolv.conf name the cache: `dns` in Docker's daemon.json,"
                    " dnsServers of the task definition, dnsPolicy or dnsConfig of the pod",
                )


def is_caches(row: WorkloadUsage) -> bool:
    """Whether a cache of this node sent it, for somebody or on its own account."""
    return row.via == "cache" or row.workload.kind == "cache"


def serves_others(rows: Iterable[WorkloadUsage]) -> bool:
    """Whether a cache has asked for a container, a pod or another node.

    One that has not may listen on loopback alone, as systemd-resolved does at 127.0.0.53: nobody
    but a process of the host can ask that.
    """
    served = (row.packets for row in rows if row.via == "cache" and row.workload.kind != "host")
    return sum(served) >= LEAST_SERVED
