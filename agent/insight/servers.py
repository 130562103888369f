"""Findings from which server is asked, and whether it is any good. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import name
from ..model import EniUsage, Finding, ServerAsked, Snapshot
from .look import EniLook
from .who import whose

LEAST_FALLBACKS = 3
FALLBACK_SHARE = 0.8
"""Not all of them: of the last seconds' queries nobody knows yet."""

LEAST_LOST = 3
LOST_SHARE = 0.4
"""Of packets: who sends a query again has sent two, of one that is lost."""
OTHER_SHARE = 0.3


def dead_first_nameserver(last: Snapshot) -> Iterator[Finding]:
    """A server that is asked first, and then another one nearly every time."""
    for asked in last.servers:
        if not _is_dead(asked):
            continue
        who = name(asked.workload)
        yield Finding(
            "dead-first-nameserver",
            "warning",
            f"{who} waits {asked.waited_s:.1f} s on each name for {asked.server}, which does not"
            " answer, and then asks its next server",
            workload=who,
            evidence={
                "server": asked.server,
                "queries": asked.queries,
                "fallbacks": asked.fallbacks,
                "waited_seconds": round(asked.waited_s, 2),
            },
            remedy=f"take {asked.server} out of its resolv.conf (dnsServers of the task, dnsConfig"
            " of the pod, `docker run --dns`), or start the cache that should be there; the finding"
            " goes some minutes after the last such query",
        )


def cache_unreachable(look: EniLook) -> Iterator[Finding]:
    """Queries to a server that is no resolver leave by an ENI of a pod's or a task's own, in vain.

    Of a server on the node itself nothing may leave by an ENI: then it cannot be reached. What is
    lost is one number for all servers: it is theirs if it is more than the resolver was asked for,
    or if who asks them was seen to wait for one in vain.
    """
    usage, before = look.usage, look.before
    if not (usage.eni.vlan or usage.eni.netns != "host") or usage.unanswered is None:
        return
    if before is not None and before.unanswered is None:
        return
    other = look.class_pps(("dns_other",)) * look.seconds
    lost = usage.unanswered - ((before.unanswered or 0) if before is not None else 0)
    # Over the limit AWS drops queries to the resolver, and those are lost as well.
    if usage.state != "ok" or lost < LEAST_LOST or not other or not look.queries:
        return
    could_be_told = other * look.told_s / look.seconds
    if lost / could_be_told < LOST_SHARE or other / (look.queries * look.seconds) < OTHER_SHARE:
        return
    asking = _who_ask_others(usage, before)
    resolver = look.class_pps(("resolver",)) * look.seconds
    dead = sorted({a.server for a in look.servers if name(a.workload) in asking and _is_dead(a)})
    if lost <= resolver * look.told_s / look.seconds and not dead:
        return
    pods = any(row.workload.kind == "pod" for row in usage.workloads)
    yield Finding(
        "cache-unreachable",
        "critical",
        f"{look.label}: queries to a DNS server other than the VPC's resolver leave by this ENI"
        " and are not answered",
        eni=look.label,
        workload=asking[0] if asking else None,
        evidence={
            "dns_other": round(other),
            "resolver": round(resolver),
            "unanswered": lost,
            **({"servers": whose(dead)} if dead else {}),
            "workloads": whose(asking) or "unknown",
        },
        remedy="a pod with security groups in strict mode reaches no NodeLocal DNSCache"
        " (169.254.20.10): set POD_SECURITY_GROUP_ENFORCING_MODE=standard on aws-node and"
        " recreate its pods, or give them the cluster's DNS in dnsConfig"
        if pods
        else "an awsvpc task reaches no cache of its host: take that server out of dnsServers, or"
        " run one in the task (`eni53 remedy unbound-awsvpc`)",
    )


def _is_dead(asked: ServerAsked) -> bool:
    """Whether nearly each query to it was asked of another one in the end."""
    share = asked.fallbacks / asked.queries if asked.queries else 0.0
    return asked.fallbacks >= LEAST_FALLBACKS and share >= FALLBACK_SHARE


def _who_ask_others(usage: EniUsage, before: EniUsage | None) -> list[str]:
    """Names of the workloads that asked other servers, the busiest first."""
    risen: dict[str, int] = {}
    for sign, rows in ((1, usage.workloads), (-1, before.workloads if before is not None else ())):
        for row in rows:
            who, counted = name(row.workload), row.classes.get("dns_other")
            risen[who] = risen.get(who, 0) + sign * (counted.packets if counted else 0)
    return sorted((w for w, n in risen.items() if n > 0), key=lambda w: (-risen[w], w))
