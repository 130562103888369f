"""Sums what a counter hears, and gives it the shape in which the kernel's maps come. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from ..kernel.layout import SLOTS
from ..model import BASIS_CLASSES
from ..rates import WINDOW_SLOTS
from ..sample import EniCounters, Sample, SenderKey, Slot
from .heard import Heard


class Tally:
    """The counts of one interface.

    Args:
        dev: Its index.
        parts: Where warning and critical begin, as parts of the limit.
        limit_pps: Its limit.
        basis: ``linklocal`` or ``dns``.
    """

    def __init__(self, dev: int, parts: tuple[float, float], limit_pps: int, basis: str) -> None:
        self._dev = dev
        self._parts = parts
        self._limit_pps = limit_pps
        self._basis = basis
        self._senders: defaultdict[SenderKey, int] = defaultdict(int)
        self._slots: dict[int, dict[str, int]] = {}
        self._open = 0  # the first slot that no sample has shown as over
        self._told: dict[int, int] = {}

    def add(self, heard: Iterable[Heard]) -> None:
        """Take in what was heard."""
        for one in heard:
            key = SenderKey(self._dev, 0, 0, 0, 0, one.packet_class, one.protocol)
            self._senders[key] += one.packets
            # One that is late goes into the next slot rather than into none.
            slot = self._slots.setdefault(
                max(one.slot, self._open), dict.fromkeys(BASIS_CLASSES, 0)
            )
            for basis, classes in BASIS_CLASSES.items():
                if one.packet_class in classes:
                    slot[basis] += one.packets

    def crossed(self, now_slot: int) -> int:
        """Packets in the window in progress if it has reached a level; else 0.

        At most once a second for each level, as from the kernel.
        """
        window = range(now_slot - WINDOW_SLOTS + 1, now_slot + 1)
        packets = sum(self._slots[n][self._basis] for n in window if n in self._slots)
        used = packets / self._limit_pps
        level = sum(used >= part for part in self._parts) + (packets > self._limit_pps)
        if not level or now_slot < self._told.get(level, -WINDOW_SLOTS) + WINDOW_SLOTS:
            return 0
        self._told[level] = now_slot
        return packets

    def sample(self, taken_at_ns: int, now_slot: int, stats: Mapping[str, int]) -> Sample:
        """Everything as of now; slots before *now_slot* take no more packets."""
        self._open = max(self._open, now_slot)
        for number in [n for n in self._slots if n <= now_slot - SLOTS]:
            del self._slots[number]
        counters = EniCounters(
            slots=tuple(
                Slot(number, sums["linklocal"], sums["dns"])
                for number, sums in sorted(self._slots.items())
            ),
            overflow={},
            responses={},
            response_buckets=(),
            response_sum_s=0.0,
        )
        return Sample(
            taken_at_ns=taken_at_ns,
            senders=dict(self._senders),
            origins={},
            enis={(self._dev, 0): counters},
            sources={},
            stats=dict(stats),
        )
