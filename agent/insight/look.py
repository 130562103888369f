"""One ENI over the time that findings speak of. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..model import (
    DNS_CLASSES,
    EniUsage,
    NameRate,
    ResolvConf,
    ServerAsked,
    Snapshot,
    Workload,
    WorkloadUsage,
)
from ..rates import SLOT_S

LEAST_PPS = 20.0
"""Below it no pattern of queries is worth a person's time."""
TOLD_LATE_S = 2.75
"""In the mean, after a query, it is told unanswered: after 2.2 to 3.3 s, by the kernel's spans."""


def seconds_between(first: Snapshot | None, last: Snapshot) -> float:
    """How long the look was; *first* is None where *last* covers all of it.

    By the slots, which a monotonic clock numbers: the time of day may be set meanwhile.
    """
    if first is None:
        return last.window_s
    if first.slot is None or last.slot is None:
        return last.time_s - first.time_s
    return (last.slot - first.slot) * SLOT_S


@dataclass(frozen=True, slots=True)
class EniLook:
    """What an ENI did between two snapshots.

    Attributes:
        usage: It at the end.
        before: It at the begin; None: counting began with nothing.
        seconds: Between the two; above 0.
        names: Queries a second by (name, type), of the names that the last snapshot tells.
        queries: Packets a second to port 53.
        confs: What workloads' resolv.conf files say, as far as known.
        servers: As in `model.Snapshot`.
        dropped: Whether the driver says that AWS dropped packets of it lately.
    """

    usage: EniUsage
    before: EniUsage | None
    seconds: float
    names: Mapping[tuple[str, str], float]
    queries: float
    confs: Mapping[Workload, ResolvConf] = field(default_factory=dict)
    servers: tuple[ServerAsked, ...] = ()
    dropped: bool = False

    @classmethod
    def between(
        cls,
        before: EniUsage | None,
        usage: EniUsage,
        seconds: float,
        confs: Mapping[Workload, ResolvConf] | None = None,
    ) -> EniLook:
        """The look from *before* to *usage*, *seconds* later."""
        look = cls(usage, before, seconds, _name_rates(before, usage, seconds), 0.0)
        return cls(usage, before, seconds, look.names, look.class_pps(DNS_CLASSES), confs or {})

    def names_by_workload(self) -> Iterator[tuple[Workload, Mapping[tuple[str, str], float]]]:
        """As `names`, of each row: those that each asked for most."""
        earlier = self.before.workloads if self.before is not None else ()
        before = {(row.workload, row.via): row for row in earlier}
        for row in self.usage.workloads:
            rates = _name_rates(before.get((row.workload, row.via)), row, self.seconds)
            if self.before is not None and (row.workload, row.via) not in before:
                rates = {(n.name, n.type): _of_the_moment(n, self.seconds) for n in row.names}
            yield row.workload, rates

    @property
    def label(self) -> str:
        """Of the ENI."""
        return self.usage.eni.label

    def class_pps(self, classes: Iterable[str]) -> float:
        """Packets a second of *classes* together."""
        wanted = tuple(classes)
        return max(0, _packets(self.usage, wanted) - _packets(self.before, wanted)) / self.seconds

    def risen(self, counter: Callable[[EniUsage], int | None]) -> int | None:
        """By how much a counter of the ENI rose; None: it is not known at one of the ends."""
        now = counter(self.usage)
        before = counter(self.before) if self.before is not None else 0
        return None if now is None or before is None else max(0, now - before)

    @property
    def told_s(self) -> float:
        """Seconds whose unanswered queries the look has: all, or until shortly before its end.

        Between two looks at an agent as many come in at the begin, from before, as are not told at
        the end. Where counting began with nothing none come in; a second is the least, for what a
        shorter one has of them is chance.
        """
        if self.before is not None:
            return self.seconds
        return min(self.seconds, max(1.0, self.seconds - TOLD_LATE_S))

    def protocol_pps(self, classes: Iterable[str], protocol: str) -> float:
        """Packets a second of *classes* by one protocol; 0 where protocols are not told."""
        before = self.before.protocols if self.before is not None else {}
        risen = (
            self.usage.protocols.get((name, protocol), 0) - before.get((name, protocol), 0)
            for name in classes
        )
        return max(0, sum(risen)) / self.seconds

    def row_pps(self, row: WorkloadUsage, classes: Iterable[str]) -> float:
        """Packets a second of *classes* in one of the ENI's rows; a new row began with nothing."""
        packets = _of_row(row, wanted := tuple(classes))
        for old in self.before.workloads if self.before is not None else ():
            if (old.workload, old.via) == (row.workload, row.via):
                packets -= _of_row(old, wanted)
        return max(0, packets) / self.seconds


def _of_row(row: WorkloadUsage, classes: tuple[str, ...]) -> int:
    return sum(row.classes[name].packets for name in classes if name in row.classes)


def _packets(usage: EniUsage | None, classes: tuple[str, ...]) -> int:
    if usage is None:
        return 0
    return sum(usage.classes[name].packets for name in classes if name in usage.classes)


def _name_rates(
    before: EniUsage | WorkloadUsage | None, now: EniUsage | WorkloadUsage, seconds: float
) -> dict[tuple[str, str], float]:
    """Queries a second by (name, type).

    A name that the first snapshot did not tell counts from its own beginning only if it is rarer
    than it would have to be to be told: that is not known, so its rate of the moment is taken, or
    what all of its queries ever are in the time of the look.
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
            found[key] = _of_the_moment(name, seconds)
    return found


def _of_the_moment(name: NameRate, seconds: float) -> float:
    """Its rate in the last tick, which may be a tenth of a second long; but not above what it was.

    Sixty queries in such a tick are six hundred a second, and twelve in a look of five.
    """
    return min(name.pps, name.packets / seconds)
