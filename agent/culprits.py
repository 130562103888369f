"""Who sent most in the busiest second of the last minute: a burst is over when it is told. Pure."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from .model import BASIS_CLASSES, EniUsage, Workload
from .rates import PEAK_HORIZON_SLOTS, WINDOW_SLOTS

_KEPT = 5  # of a look; as many as a recording keeps


@dataclass(frozen=True, slots=True)
class _Look:
    """Packets on the basis between two looks."""

    begin: int
    end: int
    packets: float
    busiest: tuple[tuple[Workload, float], ...]


class Culprits:
    """Remembers, ENI by ENI, who sent in each look of the last minute.

    The state of an ENI outlasts the second that made it, and shares are those of the last look: of
    a burst they would name whoever sends a little all the time.
    """

    def __init__(self) -> None:
        self._looks: dict[str, deque[_Look]] = {}

    def update(self, enis: Iterable[EniUsage], slot: int) -> None:
        """Take in a look that ends in *slot*; what is gone is forgotten."""
        here = tuple(enis)
        labels = {usage.eni.label for usage in here}
        self._looks = {label: looks for label, looks in self._looks.items() if label in labels}
        for usage in here:
            pps = sum(usage.classes[c].pps for c in BASIS_CLASSES[usage.basis] & set(usage.classes))
            rows = [(row.workload, row.share) for row in usage.workloads]
            self.take(usage.eni.label, slot, pps, rows)

    def take(
        self, label: str, slot: int, pps: float, shares: Iterable[tuple[Workload, float]]
    ) -> None:
        """Take in one ENI's look: its packets a second on the basis since the look before."""
        looks = self._looks.setdefault(label, deque())
        # What the first look covers is not known: its rate tells as much of it as of a second.
        begin = looks[-1].end if looks else slot - WINDOW_SLOTS
        packets = pps * (slot - begin) / WINDOW_SLOTS
        rows = heapq.nlargest(_KEPT, shares, key=lambda row: row[1])
        looks.append(
            _Look(begin, slot, packets, tuple((who, packets * part) for who, part in rows))
        )
        while looks[0].end < slot - PEAK_HORIZON_SLOTS - WINDOW_SLOTS:
            looks.popleft()

    def of(self, label: str) -> tuple[Workload, float] | None:
        """(who sent most, share) in the busiest second of an ENI; None when nobody is known."""
        looks = list(self._looks.get(label, ()))
        second: list[_Look] = []
        most_pps, first = 0.0, 0
        for at, last in enumerate(looks):
            while looks[first].end <= last.end - WINDOW_SLOTS:
                first += 1
            # A look that took longer than a second holds more packets than one second of it.
            lasted = max(WINDOW_SLOTS, last.end - looks[first].begin)
            pps = sum(look.packets for look in looks[first : at + 1]) * WINDOW_SLOTS / lasted
            if pps > most_pps:
                most_pps, second = pps, looks[first : at + 1]
        who: dict[Workload, float] = {}
        for look in second:
            for workload, packets in look.busiest:
                who[workload] = who.get(workload, 0.0) + packets
        if not any(who.values()):
            return None
        workload = max(who, key=lambda each: who[each])
        return workload, who[workload] / sum(look.packets for look in second)
