"""What a snapshot's ENIs have to say to a person, each with its evidence. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from .alerts import drops
from .culprits import Culprits
from .model import BASIS_CLASSES, EniUsage, Finding, Workload
from .text import clean

LATELY_S = 900.0
"""How long a drop is told of: names that did not resolve are still being asked about."""

_MINUTES_FROM_S = 90
_NOT_DNS = {"imds": "for the instance metadata", "ntp": "for the time service"}


class DropWatch:
    """Remembers the driver's counts of dropped link-local packets, to tell when they rose."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._risen: dict[str, deque[tuple[float, int]]] = {}
        self._began_s: float | None = None
        self.seconds = 0.0
        """How far back `lately` looks: no further than the first update."""

    def update(self, enis: Iterable[EniUsage], now_s: float) -> None:
        """Take in what the drivers say; one that falls was reset, or did not answer.

        Args:
            enis: All that are here: what is gone is not kept.
            now_s: Monotonic seconds.
        """
        here = tuple(enis)
        # Tasks come and go with ENIs of their own.
        labels = {usage.eni.label for usage in here}
        self._before = {k: n for k, n in self._before.items() if k in labels}
        self._risen = {k: n for k, n in self._risen.items() if k in labels}
        for usage in here:
            self.take(usage.eni.label, drops(usage), now_s)

    def take(self, label: str, count: int | None, now_s: float) -> None:
        """Take in what the driver says of one ENI; None: it says nothing."""
        if self._began_s is None:
            self._began_s = now_s
        self.seconds = min(LATELY_S, now_s - self._began_s)
        risen = self._risen.setdefault(label, deque())
        if count is not None:
            more = count - self._before.get(label, count)
            self._before[label] = count
            if more > 0:
                risen.append((now_s, more))
        while risen and risen[0][0] <= now_s - LATELY_S:
            risen.popleft()

    def lately(self, label: str) -> int:
        """Packets of an ENI that AWS dropped in the last `seconds`."""
        return sum(n for _, n in self._risen.get(label, ()))


def eni_findings(
    enis: Iterable[EniUsage], dropped: DropWatch, culprits: Culprits | None = None
) -> Iterator[Finding]:
    """Close to the limit, over it, growing towards it; and apart from that, what AWS dropped.

    Args:
        enis: As they are now.
        dropped: Up to now.
        culprits: Up to now; None: the rows of *enis* are of all the time that is looked at.
    """
    for usage in enis:
        yield from _limit(usage, culprits)
        yield from _drops(usage, dropped)
        yield from _growth(usage)


def resolver_unknown(addresses: Iterable[str]) -> Finding:
    """Of the resolver only *addresses* are known."""
    return Finding(
        "resolver-unknown",
        "warning",
        "The VPC's resolver address (VPC+2) is not known: queries to it count as"
        " dns_other, not against the limit",
        evidence={"resolvers": ", ".join(addresses)},
        remedy="set [resolver] addresses, or let the agent reach the instance metadata",
    )


def no_runtime() -> Finding:
    """Nobody tells which containers there are."""
    return Finding(
        "no-runtime",
        "info",
        "Neither containerd nor Docker answers: containers go by their cgroup, and"
        " ENIs of awsvpc tasks are not found",
        remedy="mount the runtime's socket and name it with --docker-socket or"
        " --containerd-socket; a host without containers needs neither",
    )


def _limit(usage: EniUsage, culprits: Culprits | None) -> Iterator[Finding]:
    if usage.state == "ok":
        return
    top = _busiest(usage) if culprits is None else culprits.of(usage.eni.label)
    peak = usage.peak_pps[usage.basis]
    # The state outlasts what it began with; that the limit was passed must be seen beside it.
    over = usage.state == "exceeded" and peak > usage.limit_pps
    evidence: dict[str, float | int | str] = {
        "peak_pps": round(peak, 1),
        "limit_pps": usage.limit_pps,
        "utilization": round(peak / usage.limit_pps, 3),
    }
    who, workload = "", None
    if top is not None:
        workload, share = name(top[0]), top[1]
        evidence |= {"top_workload": workload, "top_share": round(share, 3)}
        who = f"; {workload} sent {share:.0%} of them"
    yield Finding(
        "over-limit" if over else "near-limit",
        "critical" if usage.state in {"critical", "exceeded"} else "warning",
        f"{usage.eni.label}: {peak:.0f} of {usage.limit_pps} packets in a second{who}",
        eni=usage.eni.label,
        workload=workload,
        evidence=evidence,
        remedy=_remedy(usage),
    )


def _remedy(usage: EniUsage) -> str:
    on_basis = sorted(BASIS_CLASSES[usage.basis] & usage.classes.keys())
    counts = usage.classes
    most = max(on_basis, key=lambda c: (counts[c].pps, counts[c].packets), default="resolver")
    if most in _NOT_DNS:
        return (
            f"most of it is {_NOT_DNS[most]}, where no DNS cache helps: who asks that often must"
            " keep the answer; `eni53 top` says whose it is"
        )
    return "a cache on the node takes repeated questions off the ENI; `eni53 top` says whose"


def _drops(usage: EniUsage, dropped: DropWatch) -> Iterator[Finding]:
    count = dropped.lately(usage.eni.label)
    if count:
        yield Finding(
            "driver-drops",
            "critical",
            f"{usage.eni.label}: AWS dropped {count} packets to link-local services in the last"
            f" {_span(dropped.seconds)}, says the driver",
            eni=usage.eni.label,
            evidence={
                "linklocal_allowance_exceeded": count,
                "seconds": round(dropped.seconds),
            },
            remedy="names fail to resolve for everybody on this ENI: spread the load or cache it",
        )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < _MINUTES_FROM_S else f"{seconds / 60:.0f} minutes"


def _growth(usage: EniUsage) -> Iterator[Finding]:
    minutes = usage.minutes_to_limit
    if minutes is not None and usage.state == "ok":
        yield Finding(
            "growing",
            "info",
            f"{usage.eni.label}: at the growth of the last ten minutes the limit is reached in"
            f" {minutes:.0f} minutes",
            eni=usage.eni.label,
            evidence={"minutes": round(minutes, 1), "limit_pps": usage.limit_pps},
            remedy="look at who grows before it is reached: `eni53 top`",
        )


def _busiest(usage: EniUsage) -> tuple[Workload, float] | None:
    row = max(usage.workloads, key=lambda row: row.share, default=None)
    return (row.workload, row.share) if row is not None and row.share else None


def name(workload: Workload) -> str:
    """One word for a workload: namespace and name, or its kind when it has none."""
    parts = (workload.namespace, workload.workload)
    return "/".join(clean(part) for part in parts if part) or workload.kind
