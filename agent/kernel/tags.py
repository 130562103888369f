"""When an origin tag, and the rows counted under it, may be given up.

A tag that comes back too early would charge one workload with another's packets: some may still be
in a queue with the old tag on them. So its veth must be gone, and nothing may have moved for
`QUIET_S`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable

from ..sample import Origin, Sample, SenderKey
from . import layout
from .maps import Maps

QUIET_S = 5.0
_SWEEP_EVERY_S = 10.0
_ENDED_CGROUP_QUIET_S = 300.0

Settled = Callable[[SenderKey], bool]


class TagPool:
    """Keeps free tags in circulation and the kernel's tables free of what has ended.

    Args:
        maps: Where tags and rows live.
        forgotten: Told of every row of the count that was removed.
        cgroup_exists: Whether a local sender's cgroup is still there.
    """

    def __init__(
        self,
        maps: Maps,
        forgotten: Callable[[SenderKey], None],
        cgroup_exists: Callable[[int], bool],
    ) -> None:
        self._maps = maps
        self._forgotten = forgotten
        self._cgroup_exists = cgroup_exists
        self._still: dict[Hashable, tuple[int, float]] = {}
        self._swept_at_s = 0.0
        self._were_veths: set[int] = set()
        maps.free_tags(range(1, layout.SETTINGS["ORIGIN_IDS"] + 1))

    def collect(
        self,
        sample: Sample,
        veths: Collection[int],
        enis: Collection[int],
        settled: Settled,
        now_s: float,
    ) -> set[int]:
        """Give up what has ended; returns the indexes of veths of which nothing is left.

        Args:
            sample: The counters as last read.
            veths: Indexes of the veths that exist.
            enis: Indexes of the ENIs that exist.
            settled: Whether everything a row has counted is charged to somebody for good.
            now_s: Monotonic seconds.
        """
        self._were_veths.update(veths)
        sweep = now_s - self._swept_at_s >= _SWEEP_EVERY_S
        # Whoever asked by way of lo: there till its cgroup is gone, which takes a look at the tree.
        dead = [
            origin
            for origin in sample.origins.values()
            if (origin.ifindex not in veths if origin.ifindex != layout.LOOPBACK else
                sweep and not self._cgroup_exists(origin.cgroup_id))
        ]  # fmt: skip
        kept = self._collect_origins(sample, dead, settled, now_s) if dead else set()
        if sweep:
            self._swept_at_s = now_s
            self._collect_senders(sample, veths, enis, settled, now_s)
        return {origin.ifindex for origin in dead} - kept

    def _collect_origins(
        self, sample: Sample, dead: list[Origin], settled: Settled, now_s: float
    ) -> set[int]:
        """Release what is quiet; returns the veths that still have an origin."""
        rows: dict[int, list[SenderKey]] = defaultdict(list)
        for key in sample.senders:
            rows[key.origin].append(key)
            if key.asker and not key.asker & layout.REMOTE_BIT and key.asker != key.origin:
                rows[key.asker].append(key)
        kept = set()
        for origin in dead:
            keys = rows[origin.tag] if origin.tag else []
            moved = sum(origin.sent.values()) + sum(sample.senders[key] for key in keys)
            place = (origin.ifindex, origin.cgroup_id)
            if self._quiet_for(place, moved, now_s) < QUIET_S or not all(map(settled, keys)):
                kept.add(origin.ifindex)
                continue
            # In this order: once the tag is free, a new origin may carry it at once.
            self._maps.forget_origin(*place)
            for key in keys:
                self._forget(key)
            if origin.tag:
                self._maps.free_tags([origin.tag])
            self._still.pop(place, None)
        return kept

    def _collect_senders(
        self,
        sample: Sample,
        veths: Collection[int],
        enis: Collection[int],
        settled: Settled,
        now_s: float,
    ) -> None:
        """Rows of an ENI that is gone; without a tag: of a veth or a local cgroup that is."""
        for key, count in sample.senders.items():
            branch_gone = key.vlan and (key.dev, key.vlan) not in sample.enis
            eni_gone = branch_gone or key.dev not in enis
            if (key.origin or key.asker) and not eni_gone:
                continue
            quiet_s = self._quiet_for(key, count, now_s)
            if quiet_s < (QUIET_S if eni_gone else _ENDED_CGROUP_QUIET_S) or not settled(key):
                continue
            sender_gone = (
                key.ingress in self._were_veths and key.ingress not in veths
                if key.ingress
                else bool(key.cgroup_id) and not self._cgroup_exists(key.cgroup_id)
            )
            if eni_gone or sender_gone:
                self._forget(key)
                self._still.pop(key, None)
        # Only rows ask which they were; each container brings another.
        self._were_veths &= {*veths, *(key.ingress for key in sample.senders)}

    def _quiet_for(self, what: Hashable, count: int, now_s: float) -> float:
        before, since_s = self._still.get(what, (-1, now_s))
        if before != count:
            since_s = now_s
            self._still[what] = (count, now_s)
        return now_s - since_s

    def _forget(self, key: SenderKey) -> None:
        self._maps.forget_sender(key)
        self._forgotten(key)
