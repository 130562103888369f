"""What workloads sent at their veths, by workload: minus the ENI's count, it was answered here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from .inventory.workloads import Workloads
from .ledger import GRACE_S
from .model import UNATTRIBUTED, Origin, Workload


class SentLedger:
    """Charges the origins' own counters to workloads. No I/O."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], Mapping[str, int]] = {}
        self._waiting_since_s: dict[tuple[int, int], float] = {}
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
            workload = owner.workload if owner is not None else UNATTRIBUTED
            for packet_class, count in origin.sent.items():
                self.sent[workload, packet_class] += count - before.get(packet_class, 0)
        for gone in self._seen.keys() - origins.keys():
            del self._seen[gone]

    def forget(self, workload: Workload) -> None:
        """The series of a workload end with it."""
        for key in [key for key in self.sent if key[0] == workload]:
            del self.sent[key]
