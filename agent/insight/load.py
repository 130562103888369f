"""Findings from what the load is made of, and where it goes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import DNS_CLASSES, LINKLOCAL_CLASSES, Finding, Snapshot
from .look import LEAST_PPS, EniLook

OTHERS_SHARE = 0.3
TCP_SHARE = 0.3
LOOKUP_PACKETS = 5.5
"""To the server, of a lookup by TCP with a connection of its own."""
MOSTLY = 0.8


def other_services(look: EniLook) -> Iterator[Finding]:
    """Metadata or time take a large part of what the limit counts."""
    if look.usage.basis != "linklocal":
        return
    total = look.class_pps(LINKLOCAL_CLASSES)
    for name, helps in (
        ("imds", "credentials and metadata can be kept by whoever asks: an SDK that asks for each"
                 " request has lost its cache"),
        ("ntp", "one time daemon a node is enough"),
    ):  # fmt: skip
        pps = look.class_pps((name,))
        if pps >= LEAST_PPS and total and pps / total >= OTHERS_SHARE:
            yield Finding(
                f"{name}-load",
                "warning",
                f"{look.label}: {pps / total:.0%} of what the limit counts goes to {name},"
                " and not to the resolver",
                eni=look.label,
                evidence={"pps": round(pps, 1), "share": round(pps / total, 3)},
                remedy=helps,
            )


def tcp_overhead(look: EniLook) -> Iterator[Finding]:
    """Queries by TCP: a connection takes several packets where a datagram is one."""
    tcp = look.protocol_pps(DNS_CLASSES, "tcp")
    if tcp >= LEAST_PPS and look.queries and tcp / look.queries >= TCP_SHARE:
        share = min(1.0, tcp / look.queries)
        truncated = look.risen(lambda usage: usage.truncated)
        counted = {} if truncated is None else {"truncated": truncated}
        told = "" if truncated is None else f"; {truncated} answers came truncated"
        yield Finding(
            "tcp-overhead",
            "warning",
            f"{look.label}: {share:.0%} of the packets to port 53 are TCP{told}",
            eni=look.label,
            evidence={"tcp_pps": round(tcp, 1), "share": round(share, 3), **counted},
            remedy="a lookup by TCP takes five or six packets to the server, by UDP one: "
            + _why_tcp(truncated, tcp * look.seconds / LOOKUP_PACKETS),
        )


def _why_tcp(truncated: int | None, lookups: float) -> str:
    """What helps, by how many of the *lookups* over TCP came after an answer that was cut short."""
    own = "keep the connection, take use-vc or force_tcp off"
    cut = (
        "let the client and the cache ask with EDNS (1232 bytes) and give shorter answers, for what"
        " comes truncated is asked for again"
    )
    if truncated is None:
        return f"{own}; or, where answers come truncated, {cut}"
    if truncated >= lookups * MOSTLY:
        return cut
    return own if truncated < lookups * (1 - MOSTLY) else f"{own}; and {cut}"


def uneven_enis(last: Snapshot) -> Iterator[Finding]:
    """One ENI near its limit beside another that has nearly nothing to do."""
    # One that is not used at all is kept for pods to come, or a trunk.
    here = [
        usage
        for usage in last.enis
        if usage.eni.netns == "host" and not usage.eni.vlan and usage.utilization > 0
    ]
    if len(here) < 2:
        return
    hot = max(here, key=lambda usage: usage.utilization)
    idle = min(here, key=lambda usage: usage.utilization)
    if hot.utilization >= 0.5 and idle.utilization < 0.1:
        yield Finding(
            "uneven-enis",
            "info",
            f"{hot.eni.label} is at {hot.utilization:.0%} of its limit, {idle.eni.label} at"
            f" {idle.utilization:.0%}",
            eni=hot.eni.label,
            evidence={"hot": round(hot.utilization, 3), "idle": round(idle.utilization, 3)},
            remedy="each ENI has a limit of its own: on EKS, queries to VPC+2 leave by the pod's"
            " ENI, those to 169.254.169.253 all by the first one",
        )
