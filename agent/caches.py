"""Who on this node is a cache: a sender that asked upstream for somebody. No clock, no I/O.

Nobody says who is one; the kernel's guess for each packet (bpf/asks.h) does. A cache's own packets
(prefetching, health checks, retries) are then a row of their own, for they are no doing of the unit
or pod that it happens to run in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .attribution import CACHE, Caches, Ladder, Place
from .model import DNS_CLASSES, Workload
from .sample import Sample, SenderKey

LEAST_SERVED = 20
"""A process of the host that wants a name in the same half second as a client of a real cache is
taken for that cache, once for each such name. That alone must not make it one: see LEAST_SHARE."""

LEAST_SHARE = 0.1
"""Of what it sends to port 53. Who wants a name by chance when others do sends far more of its own;
a cache that iterates or prefetches a lot still sends one packet in ten for a client."""

LATELY_S = 300.0
"""Over which both are looked at: who becomes a cache late is found all the same."""

_MOST = 1024


class CacheWatch:
    """Remembers who is a cache. Once one, a sender stays one: a series must not flip to and fro."""

    def __init__(self) -> None:
        self._before: dict[Place, tuple[int, int]] = {}  # (served, sent) when this look began
        self._began_s: float | None = None
        self._known: dict[Place, Workload | None] = {}

    def update(self, sample: Sample, ladder: Ladder, now_s: float) -> Caches:
        """Take one sample in.

        Args:
            sample: The counters.
            ladder: Over the inventory as it is now; it need not know of any caches.
            now_s: Monotonic seconds.
        """
        self._forget(sample)
        counts = _counts(sample, ladder)
        for place, (served, sent) in counts.items():
            served_before, sent_before = self._before.get(place, (0, 0))
            # Rows of clients that are gone are removed: then it looks as if less had been served.
            lately = served - served_before
            if lately >= LEAST_SERVED and lately >= LEAST_SHARE * (sent - sent_before):
                self._known.setdefault(place, None)
        if self._began_s is None:
            self._began_s = now_s
        elif now_s - self._began_s >= LATELY_S:
            self._before, self._began_s = counts, now_s
        unnamed = {place for place, workload in self._known.items() if workload is None}
        for key in sample.senders if unnamed else ():
            known = ladder.place(key)
            owner = ladder.judge_sender(key).owner if known in unnamed else None
            if known is not None and owner is not None:
                self._known[known] = owner.workload
        named = frozenset(workload for workload in self._known.values() if workload is not None)
        return Caches(frozenset(self._known), named)

    def behind(self, cache: Workload) -> frozenset[Workload]:
        """Who they are whose own packets are in the row of *cache*: pods, tasks, services."""
        named = (workload for workload in self._known.values() if workload is not None)
        return frozenset(w for w in named if replace(w, kind=CACHE) == cache)

    def _forget(self, sample: Sample) -> None:
        """A veth's number may be another's later. A cgroup's is not: those stay, if few."""
        if not self._known:
            return
        veths = {ifindex for ifindex, _ in sample.origins}
        veths.update(key.ingress for key in sample.senders)
        for place in [place for place in self._known if place[0] and place[0] not in veths]:
            del self._known[place]
        for place in list(self._known)[: max(0, len(self._known) - _MOST)]:
            del self._known[place]


def _counts(sample: Sample, ladder: Ladder) -> dict[Place, tuple[int, int]]:
    """(packets for others, all packets) to port 53 of every sender that has sent for somebody."""
    serving = {place for key in sample.senders if key.asker and (place := ladder.place(key))}
    counts = dict.fromkeys(serving, (0, 0))
    for key, place in _to_port_53(sample, ladder) if serving else ():
        if place in counts:
            served, sent = counts[place]
            packets = sample.senders[key]
            counts[place] = (served + (packets if key.asker else 0), sent + packets)
    return counts


def _to_port_53(sample: Sample, ladder: Ladder) -> Iterator[tuple[SenderKey, Place]]:
    for key in sample.senders:
        if key.packet_class in DNS_CLASSES and (place := ladder.place(key)) is not None:
            yield key, place
