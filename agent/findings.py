"""What a snapshot's ENIs have to say to a person, each with its evidence. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .alerts import drops
from .model import EniUsage, Finding, Workload, WorkloadUsage
from .text import clean


class DropWatch:
    """Remembers the driver's counts of dropped link-local packets, to tell when they rose."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self.since_start: dict[str, int] = {}

    def update(self, enis: Iterable[EniUsage]) -> None:
        """Take in what the drivers say; one that falls was reset, or did not answer."""
        here = tuple(enis)
        # Tasks come and go with ENIs of their own: what is gone is not kept.
        labels = {usage.eni.label for usage in here}
        self._before = {k: n for k, n in self._before.items() if k in labels}
        self.since_start = {k: n for k, n in self.since_start.items() if k in labels}
        for usage in here:
            count = drops(usage)
            if count is None:
                continue
            label = usage.eni.label
            before = self._before.get(label, count)
            self._before[label] = count
            risen = self.since_start.get(label, 0) + max(0, count - before)
            self.since_start[label] = risen


def eni_findings(enis: Iterable[EniUsage], dropped: DropWatch) -> Iterator[Finding]:
    """Close to the limit, over it, growing towards it; and apart from that, what AWS dropped."""
    for usage in enis:
        yield from _limit(usage)
        yield from _drops(usage, dropped.since_start.get(usage.eni.label, 0))
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


def _limit(usage: EniUsage) -> Iterator[Finding]:
    if usage.state == "ok":
        return
    top = _busiest(usage)
    peak = usage.peak_pps[usage.basis]
    # The state outlasts what it began with; that the limit was passed must be seen beside it.
    over = usage.state == "exceeded" and peak > usage.limit_pps
    evidence: dict[str, float | int | str] = {
        "peak_pps": round(peak, 1),
        "limit_pps": usage.limit_pps,
        "utilization": round(peak / usage.limit_pps, 3),
    }
    if top is not None:
        evidence |= {"top_workload": name(top.workload), "top_share": round(top.share, 3)}
    who = f"; {name(top.workload)} sends {top.share:.0%}" if top is not None else ""
    yield Finding(
        "over-limit" if over else "near-limit",
        "critical" if usage.state in {"critical", "exceeded"} else "warning",
        f"{usage.eni.label}: {peak:.0f} of {usage.limit_pps} packets in a second{who}",
        eni=usage.eni.label,
        workload=name(top.workload) if top is not None else None,
        evidence=evidence,
        remedy="a cache on the node takes repeated questions off the ENI; `eni53 top` says whose",
    )


def _drops(usage: EniUsage, count: int) -> Iterator[Finding]:
    if count:
        yield Finding(
            "driver-drops",
            "critical",
            f"{usage.eni.label}: AWS dropped {count} packets to link-local services since the agent"
            " started, says the driver",
            eni=usage.eni.label,
            evidence={"linklocal_allowance_exceeded": count},
            remedy="names fail to resolve for everybody on this ENI: spread the load or cache it",
        )


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


def _busiest(usage: EniUsage) -> WorkloadUsage | None:
    return max(usage.workloads, key=lambda row: row.share, default=None)


def name(workload: Workload) -> str:
    """One word for a workload: namespace and name, or its kind when it has none."""
    parts = (workload.namespace, workload.workload)
    return "/".join(clean(part) for part in parts if part) or workload.kind
