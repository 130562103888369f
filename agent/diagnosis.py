"""Why the load is there: from two snapshots, some seconds apart, to findings. Pure.

A finding needs evidence: each has a least share and a least rate, below which it is not made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from .model import EniUsage, Finding, Snapshot

LEAST_PPS = 20.0
"""Below it no pattern of queries is worth a person's time."""

HOT_SHARE = 0.5
DOUBLED_SHARE = 0.25
SEARCHED_SHARE = 0.25
UNANSWERED_SHARE = 0.05
OTHERS_SHARE = 0.3
SEARCH_SUFFIXES = ("cluster.local", "compute.internal", "ec2.internal")
"""What resolv.conf's search list appends on EKS and EC2."""

_Names = Mapping[tuple[str, str], float]


def findings(first: Snapshot | None, last: Snapshot) -> Iterator[Finding]:
    """What *last* says by itself, and what happened since *first*; None: since counting began."""
    yield from last.findings
    before = {usage.eni.label: usage for usage in first.enis} if first is not None else {}
    seconds = last.time_s - first.time_s if first is not None else last.window_s
    if seconds <= 0:
        return
    for usage in last.enis:
        earlier = before.get(usage.eni.label)
        if first is not None and earlier is None:
            continue  # it has appeared meanwhile: nothing is known of before
        names = _rates(earlier, usage, seconds)
        queries = _class_pps(earlier, usage, ("resolver", "dns_other"), seconds)
        yield from _hot_name(usage, names, queries)
        yield from _doubled(usage, names, queries)
        yield from _searched(usage, names, queries)
        yield from _unanswered(usage, earlier, seconds)
        yield from _others(usage, earlier, seconds)
    yield from _idle_neighbours(last)


def _rates(before: EniUsage | None, now: EniUsage, seconds: float) -> dict[tuple[str, str], float]:
    """Queries a second by (name, type), of the names that a snapshot tells.

    A name that the first snapshot did not tell counts from its own beginning only if it is rarer
    than it would have to be to be told: that is not known, so its rate of the moment is taken.
    """
    known = {(n.name, n.type): n.packets for n in before.names} if before is not None else {}
    found = {}
    for name in now.names:
        key = (name.name, name.type)
        if before is None:
            found[key] = name.packets / seconds
        elif key in known:
            found[key] = max(0, name.packets - known[key]) / seconds
        else:
            found[key] = name.pps
    return found


def _class_pps(
    before: EniUsage | None, now: EniUsage, classes: tuple[str, ...], seconds: float
) -> float:
    total = sum(now.classes[c].packets for c in classes if c in now.classes)
    if before is not None:
        total -= sum(before.classes[c].packets for c in classes if c in before.classes)
    return max(0, total) / seconds


def _hot_name(usage: EniUsage, names: _Names, queries: float) -> Iterator[Finding]:
    by_name: defaultdict[str, float] = defaultdict(float)
    for (name, _), pps in names.items():
        by_name[name] += pps
    name, pps = max(by_name.items(), key=lambda item: item[1], default=("", 0.0))
    if pps >= LEAST_PPS and queries and pps / queries >= HOT_SHARE:
        yield Finding(
            "hot-name",
            "info",
            f"{usage.eni.label}: {min(1.0, pps / queries):.0%} of the queries are for {name}",
            eni=usage.eni.label,
            evidence={
                "name": name,
                "pps": round(pps, 1),
                "share": round(min(1.0, pps / queries), 3),
            },
            remedy="whoever asks could keep the answer, or its connections: a cache on the node"
            " would answer all but one a TTL (`eni53 remedy`)",
        )


def _doubled(usage: EniUsage, names: _Names, queries: float) -> Iterator[Finding]:
    pairs = sum(min(pps, names.get((name, "AAAA"), 0.0)) for (name, kind), pps in names.items()
                if kind == "A")  # fmt: skip
    if pairs >= LEAST_PPS and queries and pairs / queries >= DOUBLED_SHARE:
        yield Finding(
            "aaaa-doubling",
            "info",
            f"{usage.eni.label}: {pairs:.0f} names a second are asked for twice, as A and as AAAA",
            eni=usage.eni.label,
            evidence={"pps": round(pairs, 1), "share": round(min(1.0, pairs / queries), 3)},
            remedy="where nothing is reached over IPv6: `options no-aaaa` (glibc 2.36), or the"
            " runtime's own switch, as Java's preferIPv4Stack",
        )


def _searched(usage: EniUsage, names: _Names, queries: float) -> Iterator[Finding]:
    plain = {name for name, _ in names}
    searched: defaultdict[str, float] = defaultdict(float)
    for (name, _), pps in names.items():
        for suffix in SEARCH_SUFFIXES:
            if name.endswith(f".{suffix}") and _begins_with_another(name, plain):
                searched[suffix] += pps
    total = sum(searched.values())
    if total >= LEAST_PPS and queries and total / queries >= SEARCHED_SHARE:
        yield Finding(
            "search-domains",
            "warning",
            f"{usage.eni.label}: {total:.0f} queries a second are names with a search domain put"
            f" behind them ({', '.join(sorted(searched))})",
            eni=usage.eni.label,
            evidence={"pps": round(total, 1), "share": round(min(1.0, total / queries), 3)},
            remedy="a dot at the end of names that are whole, or ndots: 1 in the pod's dnsConfig:"
            " each name then takes one query (two with AAAA)",
        )


def _begins_with_another(name: str, plain: set[str]) -> bool:
    """Whether *name* is another name that was asked for, with something behind it."""
    labels = name.split(".")
    return any(".".join(labels[:at]) in plain for at in range(2, len(labels)))


def _unanswered(usage: EniUsage, before: EniUsage | None, seconds: float) -> Iterator[Finding]:
    if usage.unanswered is None or (before is not None and before.unanswered is None):
        return
    lost = usage.unanswered - ((before.unanswered or 0) if before is not None else 0)
    queries = _class_pps(before, usage, ("resolver", "dns_other"), seconds) * seconds
    if lost / seconds >= 1 and queries and lost / queries >= UNANSWERED_SHARE:
        yield Finding(
            "unanswered",
            "warning",
            f"{usage.eni.label}: {lost} queries had no answer within two seconds",
            eni=usage.eni.label,
            evidence={"unanswered": lost, "share": round(min(1.0, lost / queries), 3)},
            remedy="over the limit AWS drops them; below it, the server that was asked is dead or"
            " out of reach: who waits for it waits five seconds on each name",
        )


def _others(usage: EniUsage, before: EniUsage | None, seconds: float) -> Iterator[Finding]:
    if usage.basis != "linklocal":
        return
    counted = ("resolver", "imds", "ntp", "linklocal_other")
    total = _class_pps(before, usage, counted, seconds)
    for name, helps in (
        ("imds", "credentials and metadata can be kept by whoever asks: an SDK that asks for each"
                 " request has lost its cache"),
        ("ntp", "one time daemon a node is enough"),
    ):  # fmt: skip
        pps = _class_pps(before, usage, (name,), seconds)
        if pps >= LEAST_PPS and total and pps / total >= OTHERS_SHARE:
            yield Finding(
                f"{name}-load",
                "warning",
                f"{usage.eni.label}: {pps / total:.0%} of what the limit counts goes to {name},"
                " and not to the resolver",
                eni=usage.eni.label,
                evidence={"pps": round(pps, 1), "share": round(pps / total, 3)},
                remedy=helps,
            )


def _idle_neighbours(last: Snapshot) -> Iterator[Finding]:
    """One ENI near its limit beside another that has nearly nothing to do."""
    here = [usage for usage in last.enis if usage.eni.netns == "host" and not usage.eni.vlan]
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
