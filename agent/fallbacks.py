"""Servers that workloads ask first and then leave for another one. No clock, no I/O.

The kernel follows a few queries a second of each sender, so its numbers are a sample: what they say
is the share that another server was asked again. Of late only, for a server that was dead yesterday
is none today.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

from .attribution import Ladder
from .model import ServerAsked, Workload
from .sample import FallbackKey, Sample, SenderKey

SPAN_S = 150.0
"""What is told covers one to two of these."""
MOST = 64

_Counts = tuple[int, int, int]
_NONE: _Counts = (0, 0, 0)


class Fallbacks:
    """Remembers how the kernel's counts stood at the begin of this span, and of the one before.

    Attributes:
        servers: What there is to tell, the most fallbacks first; at most `MOST`.
    """

    def __init__(self) -> None:
        self._older: dict[FallbackKey, _Counts] = {}
        self._newer: dict[FallbackKey, _Counts] = {}
        self._turned_at_s: float | None = None
        self.servers: tuple[ServerAsked, ...] = ()

    def update(self, sample: Sample, ladder: Ladder, now_s: float) -> tuple[FallbackKey, ...]:
        """Take one sample in; returns what nobody has asked for so long that it may be forgotten.

        Args:
            sample: The counters.
            ladder: Over the inventory as it is now.
            now_s: Monotonic seconds.
        """
        found: defaultdict[tuple[Workload, str], _Counts] = defaultdict(lambda: _NONE)
        for key, counts in sample.fallbacks.items():
            recent = self._since(counts, self._older.get(key, _NONE))
            owner = _owner(key, ladder) if recent[1] else None
            if owner is not None:
                place = (owner, key.server)
                found[place] = tuple(map(sum, zip(found[place], recent, strict=True)))  # type: ignore[assignment]
        worst = heapq.nsmallest(MOST, found.items(), key=lambda item: (-item[1][1], item[0]))
        self.servers = tuple(
            ServerAsked(workload, server, queries, fallbacks, waited_ns / fallbacks / 1e9)
            for (workload, server), (queries, fallbacks, waited_ns) in worst
        )
        return self._turn(sample, now_s)

    def _turn(self, sample: Sample, now_s: float) -> tuple[FallbackKey, ...]:
        """Begin another span when it is time."""
        if self._turned_at_s is None:
            self._turned_at_s = now_s
        if now_s - self._turned_at_s < SPAN_S:
            return ()
        self._turned_at_s = now_s
        idle = tuple(k for k, counts in sample.fallbacks.items() if self._newer.get(k) == counts)
        self._older = self._newer
        self._newer = dict(sample.fallbacks)
        for key in idle:
            self._older.pop(key, None)
            self._newer.pop(key, None)
        return idle

    @staticmethod
    def _since(now: _Counts, before: _Counts) -> _Counts:
        if now[0] < before[0] or now[1] < before[1]:
            return now  # the kernel had forgotten it, and it began again
        return (now[0] - before[0], now[1] - before[1], max(0, now[2] - before[2]))


def _owner(key: FallbackKey, ladder: Ladder) -> Workload | None:
    """Whose socket it is; None while that is not known."""
    if not key.vlan and ladder.workloads.knows_veth(key.dev):
        owner = ladder.workloads.of_veth(key.dev, key.cgroup_id)
    else:
        sender = SenderKey(key.dev, key.vlan, 0, 0, key.cgroup_id, "dns_other", "udp")
        owner = ladder.judge(sender).owner
    return owner.workload if owner is not None else None
