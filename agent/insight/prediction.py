"""Findings about what a cache on the node would do. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import name
from ..model import BASIS_CLASSES, DNS_CLASSES, Finding, Workload
from .caches import is_caches, serves_others
from .look import LEAST_PPS, EniLook
from .who import askers, only, rates, senders

NO_CACHE_PPS = 50.0
NO_CACHE_PART = 0.5
NEAR_LIMIT = 0.5
SHORT_TTL_S = 5
SHORT_SHARE = 0.25


def no_cache(look: EniLook) -> Iterator[Finding]:
    """The queries to the resolver, where a cache on the node would halve them."""
    classes = DNS_CLASSES & BASIS_CLASSES[look.usage.basis]
    pps, spared = look.class_pps(classes), _spared_pps(look, classes)
    if spared is None or pps < NO_CACHE_PPS:
        return
    predicted = max(0.0, pps - spared)
    if predicted <= pps * NO_CACHE_PART:
        who = senders(look, classes)
        cache, helps = _cache_here(look, classes) or (
            "a cache on the node",
            _cache_for(look, next(iter(who), None)),
        )
        yield Finding(
            "no-cache",
            "warning" if pps >= look.usage.limit_pps * NEAR_LIMIT else "info",
            f"{look.label}: {cache} would leave {predicted:.0f} of {pps:.0f} DNS packets a second",
            eni=look.label,
            workload=only(who),
            evidence={
                "pps": round(pps, 1),
                "predicted_pps": round(predicted, 1),
                "limit_pps": look.usage.limit_pps,
                "workloads": rates(who) or "unknown",
            },
            remedy=helps,
        )


def short_ttl(look: EniLook) -> Iterator[Finding]:
    """Names that even a cache has to ask for again after a few seconds make much of the load."""
    ttls = {
        (asked.name, asked.type): asked.answer.ttl_s
        for asked in look.usage.names
        if asked.answer is not None and asked.answer.ttl_s is not None
    }
    short = {
        key: pps for key, pps in look.names.items() if ttls.get(key, SHORT_TTL_S + 1) <= SHORT_TTL_S
    }
    total = sum(short.values())
    share = min(1.0, total / look.queries) if look.queries else 0.0
    if total < LEAST_PPS or share < SHORT_SHARE:
        return
    busiest = max(short, key=lambda key: short[key])
    who = askers(look, lambda asked, kind: (asked, kind) in short)
    yield Finding(
        "short-ttl",
        "info",
        f"{look.label}: {share:.0%} of the queries are for names whose answers may be kept for"
        f" {SHORT_TTL_S} s at most, as {busiest[0]} ({ttls[busiest]} s)",
        eni=look.label,
        workload=only(who),
        evidence={
            "pps": round(total, 1),
            "share": round(share, 3),
            "name": busiest[0],
            "ttl_s": ttls[busiest] or 0,
            "workloads": rates(who) or "unknown",
        },
        remedy="if the zone is yours (service discovery, a record of your own), give it a longer"
        " TTL; each client that keeps its connections asks less",
    )


def _cache_here(look: EniLook, classes: frozenset[str]) -> tuple[str, str] | None:
    """Which cache would do it and what helps, where there is one that containers ask already."""
    rows = [row for row in look.usage.workloads if is_caches(row)]
    asked = sum(look.row_pps(row, classes) for row in rows)
    if not asked or not serves_others(rows):
        return None
    names = sorted({name(row.workload) for row in rows if row.workload.kind == "cache"})
    told = ", ".join(names) or "not named"
    if asked < look.class_pps(classes) - asked:
        return (
            f"the cache on this node ({told}), if all asked it,",
            "let those who go past it name it in their resolv.conf: `dns` in Docker's daemon.json,"
            " dnsServers of the task definition, dnsPolicy or dnsConfig of the pod",
        )
    return (
        f"a cache that keeps all it may, which the one on this node ({told}) does not,",
        "see how many names it has room for, and the longest TTL that it allows",
    )


def _cache_for(look: EniLook, busiest: Workload | None) -> str:
    """Which of the remedies fits who asks most."""
    kind = busiest.kind if busiest is not None else ""
    if kind == "pod":
        return "`eni53 remedy nodelocaldns-eks` prints a DaemonSet that answers on each node"
    if kind == "ecs_task" and look.usage.eni.netns != "host":
        return "`eni53 remedy unbound-awsvpc` prints a cache that runs within the task"
    if kind in {"ecs_task", "container"}:
        return "`eni53 remedy dnsmasq-ecs` (or unbound-ecs) prints a daemon service for the bridge"
    if kind == "host":
        return "`eni53 remedy dnsmasq-host` prints a cache behind systemd-resolved"
    return "`eni53 remedy` prints a cache that fits: for ECS, EKS or a host"


def _spared_pps(look: EniLook, classes: frozenset[str]) -> float | None:
    """Queries a second that a cache would have answered; None: not known."""
    now = look.usage.cacheable
    before = look.before.cacheable if look.before is not None else {}
    if now is None or before is None:
        return None
    risen = sum(now.get(name, 0.0) - before.get(name, 0.0) for name in classes)
    return max(0.0, risen) / look.seconds
