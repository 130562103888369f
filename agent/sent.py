"""What workloads sent at their veths, by workload: minus the ENI's count, it was answered here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from .inventory.workloads import Workloads
from .ledger import ENDED_AFTER_S, GRACE_S
from .model import OTHER, UNATTRIBUTED, Workload
from .sample import Origin


class SentLedger:
    """Charges the origins' own counters to workloads. No I/O.

    Args:
        max_workloads: Named workloads kept apart; later ones are summed as ``other``.
    """

    def __init__(self, max_workloads: int) -> None:
        self._max = max_workloads
        self._seen: dict[tuple[int, int], Mapping[str, int]] = {}
        self._waiting_since_s: dict[tuple[int, int], float] = {}
        self._active_at_s: dict[Workload, float] = {}
        self.sent: defaultdict[tuple[Workload, str], int] = defaultdict(int)

    def update(
        self, origins: Mapping[tuple[int, int], Origin], workloads: Workloads, now_s: float
    ) -> None:
        """Charge every increase; one without an owner waits, and then nobody answers for it."""
        for place, origin in origins.items():
            before = self._seen.get(place, {})
            if origin.sent == before:
                continue
            owner = workloads.of_veth(origin.ifindex, origin.cgroup_id)
            if owner is None:
                since_s = self._waiting_since_s.setdefault(place, now_s)
                if now_s - since_s < GRACE_S:
                    continue
            self._waiting_since_s.pop(place, None)
            self._seen[place] = origin.sent
            if any(origin.sent.get(c, 0) < count for c, count in before.items()):
                before = {}  # it was removed and began again
            workload = self._admit(owner.workload if owner is not None else UNATTRIBUTED, now_s)
            for packet_class, count in origin.sent.items():
                self.sent[workload, packet_class] += count - before.get(packet_class, 0)
        for table in (self._seen, self._waiting_since_s):
            for gone in table.keys() - origins.keys():
                del table[gone]
        self._end_series(workloads, now_s)

    def _admit(self, workload: Workload, now_s: float) -> Workload:
        if workload == UNATTRIBUTED:
            return workload
        if workload not in self._active_at_s and len(self._active_at_s) >= self._max:
            return OTHER
        self._active_at_s[workload] = now_s
        return workload

    def _end_series(self, workloads: Workloads, now_s: float) -> None:
        for workload, active_at_s in list(self._active_at_s.items()):
            if now_s - active_at_s >= ENDED_AFTER_S and not workloads.is_running(workload):
                del self._active_at_s[workload]
                for key in [key for key in self.sent if key[0] == workload]:
                    del self.sent[key]
