"""Findings from what is asked for. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ..model import Finding
from .look import LEAST_PPS, EniLook

HOT_SHARE = 0.5
DOUBLED_SHARE = 0.25
SEARCHED_SHARE = 0.25
SEARCH_SUFFIXES = ("cluster.local", "compute.internal", "ec2.internal")
"""What resolv.conf's search list appends on EKS and EC2."""


def hot_name(look: EniLook) -> Iterator[Finding]:
    """One name, of whatever types, makes most of the load."""
    by_name: defaultdict[str, float] = defaultdict(float)
    for (name, _), pps in look.names.items():
        by_name[name] += pps
    name, pps = max(by_name.items(), key=lambda item: item[1], default=("", 0.0))
    share = _share(pps, look)
    if pps >= LEAST_PPS and share >= HOT_SHARE:
        yield Finding(
            "hot-name",
            "info",
            f"{look.label}: {share:.0%} of the queries are for {name}",
            eni=look.label,
            evidence={"name": name, "pps": round(pps, 1), "share": round(share, 3)},
            remedy="whoever asks could keep the answer, or its connections: a cache on the node"
            " would answer all but one a TTL (`eni53 remedy`)",
        )


def aaaa_doubling(look: EniLook) -> Iterator[Finding]:
    """Names are asked for as A and as AAAA."""
    pairs = sum(
        min(pps, look.names.get((name, "AAAA"), 0.0))
        for (name, kind), pps in look.names.items()
        if kind == "A"
    )
    share = _share(pairs, look)
    if pairs >= LEAST_PPS and share >= DOUBLED_SHARE:
        yield Finding(
            "aaaa-doubling",
            "info",
            f"{look.label}: {pairs:.0f} names a second are asked for twice, as A and as AAAA",
            eni=look.label,
            evidence={"pps": round(pairs, 1), "share": round(share, 3)},
            remedy="where nothing is reached over IPv6: `options no-aaaa` (glibc 2.36), or the"
            " runtime's own switch, as Java's preferIPv4Stack",
        )


def search_domains(look: EniLook) -> Iterator[Finding]:
    """Names that another name is the beginning of, with a search domain behind it."""
    plain = {name for name, _ in look.names}
    searched: defaultdict[str, float] = defaultdict(float)
    for (name, _), pps in look.names.items():
        for suffix in SEARCH_SUFFIXES:
            if name.endswith(f".{suffix}") and _begins_with_another(name, plain):
                searched[suffix] += pps
    total = sum(searched.values())
    share = _share(total, look)
    if total >= LEAST_PPS and share >= SEARCHED_SHARE:
        yield Finding(
            "search-domains",
            "warning",
            f"{look.label}: {total:.0f} queries a second are names with a search domain put"
            f" behind them ({', '.join(sorted(searched))})",
            eni=look.label,
            evidence={"pps": round(total, 1), "share": round(share, 3)},
            remedy="a dot at the end of names that are whole, or ndots: 1 in the pod's dnsConfig:"
            " each name then takes one query (two with AAAA)",
        )


def _share(pps: float, look: EniLook) -> float:
    """Part of the ENI's queries; 0 when there were none."""
    return min(1.0, pps / look.queries) if look.queries else 0.0


def _begins_with_another(name: str, plain: set[str]) -> bool:
    """Whether *name* is another name that was asked for, with something behind it."""
    labels = name.split(".")
    return any(".".join(labels[:at]) in plain for at in range(2, len(labels)))
