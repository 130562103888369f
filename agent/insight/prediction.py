"""Findings about what a cache on the node would do. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import BASIS_CLASSES, DNS_CLASSES, Finding
from .look import LEAST_PPS, EniLook

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
        yield Finding(
            "no-cache",
            "warning" if look.usage.utilization >= NEAR_LIMIT else "info",
            f"{look.label}: a cache on the node would leave {predicted:.0f} of {pps:.0f} DNS"
            " packets a second",
            eni=look.label,
            evidence={"pps": round(pps, 1), "predicted_pps": round(predicted, 1)},
            remedy="`eni53 remedy` prints a cache that fits this node: dnsmasq-ecs, unbound-ecs,"
            " unbound-awsvpc, nodelocaldns-eks or dnsmasq-host",
        )


def short_ttl(look: EniLook) -> Iterator[Finding]:
    """Names that even a cache has to ask for again after a few seconds make much of the load."""
    ttls = {
        (name.name, name.type): name.answer.ttl_s
        for name in look.usage.names
        if name.answer is not None and name.answer.ttl_s is not None
    }
    short = {
        key: pps for key, pps in look.names.items() if ttls.get(key, SHORT_TTL_S + 1) <= SHORT_TTL_S
    }
    total = sum(short.values())
    share = min(1.0, total / look.queries) if look.queries else 0.0
    if total < LEAST_PPS or share < SHORT_SHARE:
        return
    busiest = max(short, key=lambda key: short[key])
    yield Finding(
        "short-ttl",
        "info",
        f"{look.label}: {share:.0%} of the queries are for names whose answers may be kept for"
        f" {SHORT_TTL_S} s at most, as {busiest[0]} ({ttls[busiest]} s)",
        eni=look.label,
        evidence={
            "pps": round(total, 1),
            "share": round(share, 3),
            "name": busiest[0],
            "ttl_s": ttls[busiest] or 0,
        },
        remedy="if the zone is yours (service discovery, a record of your own), give it a longer"
        " TTL; each client that keeps its connections asks less",
    )


def _spared_pps(look: EniLook, classes: frozenset[str]) -> float | None:
    """Queries a second that a cache would have answered; None: not known."""
    now = look.usage.cacheable
    before = look.before.cacheable if look.before is not None else {}
    if now is None or before is None:
        return None
    risen = sum(now.get(name, 0.0) - before.get(name, 0.0) for name in classes)
    return max(0.0, risen) / look.seconds
