"""Findings from what is asked for. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from ..model import Finding, Workload
from .look import LEAST_PPS, EniLook
from .search import in_vain
from .who import askers, only, rates

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
        who = askers(look, lambda asked, _: asked == name)
        yield Finding(
            "hot-name",
            "info",
            f"{look.label}: {share:.0%} of the queries are for {name}",
            eni=look.label,
            workload=only(who),
            evidence={
                "name": name,
                "pps": round(pps, 1),
                "share": round(share, 3),
                "workloads": rates(who) or "unknown",
            },
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
        who = askers(look, lambda name, kind: kind == "AAAA" and (name, "A") in look.names)
        yield Finding(
            "aaaa-doubling",
            "info",
            f"{look.label}: {pairs:.0f} names a second are asked for twice, as A and as AAAA",
            eni=look.label,
            workload=only(who),
            evidence={
                "pps": round(pairs, 1),
                "share": round(share, 3),
                "workloads": rates(who) or "unknown",
            },
            remedy="where nothing is reached over IPv6: `options no-aaaa` (glibc 2.36), or the"
            " runtime's own switch, as Java's preferIPv4Stack",
        )


def search_domains(look: EniLook) -> Iterator[Finding]:
    """Names that are asked for with a search domain behind them, and need not be."""
    plain = {name for name, _ in look.names}
    suffixes = _suffixes(look)
    searched: defaultdict[str, float] = defaultdict(float)
    saved = 0.0
    for (name, kind), pps in look.names.items():
        suffix = next((s for s in suffixes if name.endswith(f".{s}")), None)
        base = _beginning(name, plain)
        if suffix is not None and base is not None:
            searched[suffix] += pps
            # Only as often as the name itself was asked for in the end: else what was looked for
            # is below the search domain, and has to be.
            saved += min(pps, look.names.get((base, kind), 0.0))
    steps = in_vain(look)
    if _is_much(saved, look):
        total = sum(searched.values())
        who = askers(
            look,
            lambda name, _: (
                any(name.endswith(f".{suffix}") for suffix in suffixes)
                and _beginning(name, plain) is not None
            ),
        )
        evidence = _searching(look, who, total, saved)
        # With ndots: 1, what is below a search domain is asked for as it stands before.
        ndots = not steps and evidence.get("ndots") not in {0, 1}
        yield Finding(
            "search-domains",
            "warning",
            f"{look.label}: {total:.0f} queries a second are names with a search domain put"
            f" behind them ({', '.join(sorted(searched))})",
            eni=look.label,
            workload=only(who),
            evidence=evidence,
            remedy="a dot at the end of names that are whole"
            + (", or ndots: 1 in the pod's dnsConfig" if ndots else "")
            + f": each name then takes one query (two with AAAA), here {saved:.0f} a second fewer",
        )
        return
    total = sum(step.pps for step in steps.values())
    if not _is_much(total, look):
        return
    key, step = max(steps.items(), key=lambda item: item[1].pps)
    who = askers(look, lambda name, kind: (name, kind) in steps)
    yield Finding(
        "search-domains",
        "warning",
        f"{look.label}: {total:.0f} queries a second only lead to the next search domain, as"
        f" {key[0]} to {step.whole}",
        eni=look.label,
        workload=only(who),
        evidence=_searching(look, who, total, total) | {"name": key[0], "found": step.whole},
        remedy=f"write the name as it is found, with a dot at its end ({step.whole}.): each then"
        f" takes one query (two with AAAA), here {total:.0f} a second fewer. Not ndots: 1, nor a"
        " dot behind the short name: it is found by the search list alone",
    )


def _searching(
    look: EniLook, who: Mapping[Workload, float], total: float, saved: float
) -> dict[str, float | int | str]:
    """Evidence: how much, and what the files of those who ask say of ndots."""
    confs = [conf for workload in who if (conf := look.confs.get(workload)) is not None]
    ndots = max((1 if conf.ndots is None else conf.ndots for conf in confs), default=None)
    return {
        "pps": round(total, 1),
        "share": round(_share(total, look), 3),
        "saved_pps": round(saved, 1),
        **({"ndots": ndots} if ndots is not None else {}),
        **({"workloads": rates(who)} if who else {}),
    }


def _suffixes(look: EniLook) -> tuple[str, ...]:
    """Search domains, the usual ones first, and of those found in resolv.conf the longest."""
    asking = {row.workload for row in look.usage.workloads}
    own = {s for w, conf in look.confs.items() if w in asking for s in conf.search}
    return (*SEARCH_SUFFIXES, *sorted(own - set(SEARCH_SUFFIXES), key=lambda s: (-len(s), s)))


def _is_much(pps: float, look: EniLook) -> bool:
    return pps >= LEAST_PPS and _share(pps, look) >= SEARCHED_SHARE


def _share(pps: float, look: EniLook) -> float:
    """Part of the ENI's queries; 0 when there were none."""
    return min(1.0, pps / look.queries) if look.queries else 0.0


def _beginning(name: str, plain: set[str]) -> str | None:
    """The longest other name that was asked for and that *name* has something behind."""
    labels = name.split(".")
    beginnings = (".".join(labels[:at]) for at in range(len(labels) - 1, 1, -1))
    return next((beginning for beginning in beginnings if beginning in plain), None)
