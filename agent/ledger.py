"""Who has sent how much: sums that only rise and always add up to the ENI's total.

The kernel counts by sender; this charges each increase to a workload and keeps it there. An
increase whose owner is still being looked up waits as `PENDING`; after `GRACE_S` it is settled for
good. No clock, no I/O.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from .attribution import DIRECT, NOBODY, Ladder, Rung
from .inventory.workloads import Owner
from .model import OTHER, PENDING, UNATTRIBUTED, Workload
from .sample import Sample, SenderKey

GRACE_S = 5.0
"""How long packets wait for their owner's name: a container's start event may come late."""

ENDED_AFTER_S = 300.0
"""How long the series of a workload that is gone stays: Prometheus must see its last value."""

EniId = tuple[int, int]
Cell = tuple[str, str]  # (class, protocol)
Account = tuple[Workload, str]  # (workload, via)

_SEVERAL = 2
_REMOTE_PART = 4  # of the names kept apart, clients of other nodes have at most this part

_PENDING_ACCOUNT = (PENDING, DIRECT)
_NEVER_END = frozenset({OTHER, UNATTRIBUTED, PENDING})


_Credit = dict[tuple[EniId, Cell], list[tuple[Owner, int]]]


def _cells() -> defaultdict[Cell, int]:
    return defaultdict(int)


def _increase(before: int, now: int) -> int:
    """By how much a counter of the kernel rose; one that fell was removed and began again."""
    return now - before if now >= before else now


@dataclass(slots=True)
class Row:
    """What one workload has sent through one ENI.

    Attributes:
        packets: Since attach, by (class, protocol).
        recent: Increase at the last update, by (class, protocol).
        cgroups: (path, id) pairs it was sent from; no more than two are kept.
        active_at_s: When it last sent.
    """

    packets: defaultdict[Cell, int] = field(default_factory=_cells)
    recent: defaultdict[Cell, int] = field(default_factory=_cells)
    cgroups: set[tuple[str | None, int | None]] = field(default_factory=set)
    active_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    packets: int
    since_s: float


class Ledger:
    """The accounts of all ENIs of one node.

    Args:
        max_workloads: Named workloads kept apart; later ones are summed as ``other``.
        alive: Whether a workload may still send; a dead one's series end after `ENDED_AFTER_S`.
    """

    def __init__(self, max_workloads: int, alive: Callable[[Workload], bool]) -> None:
        self._max = max_workloads
        self._alive = alive
        self._seen: dict[SenderKey, int] = {}
        self._seen_overflow: dict[tuple[EniId, Cell], int] = {}
        self._seen_sources: dict[tuple[int, int, str, str, str], int] = {}
        self._waiting: dict[SenderKey, _Waiting] = {}
        self._credit: _Credit = {}
        self._old_credit: _Credit = {}
        self._named: set[Workload] = set()
        self.rows: dict[EniId, dict[Account, Row]] = {}
        self.ended: dict[EniId, defaultdict[Cell, int]] = {}
        self.tag_lost = 0

    def totals(self, eni: EniId) -> dict[Cell, int]:
        """Packets of an ENI since attach by (class, protocol): the sum of all its accounts."""
        result = _cells()
        for row in self.rows.get(eni, {}).values():
            for cell, packets in row.packets.items():
                result[cell] += packets
        for cell, packets in self.ended.get(eni, {}).items():
            result[cell] += packets
        return result

    def recent(self, eni: EniId) -> dict[Cell, int]:
        """The increase of `totals` at the last update."""
        result = _cells()
        for row in self.rows.get(eni, {}).values():
            for cell, packets in row.recent.items():
                result[cell] += packets
        return result

    def forget_eni(self, eni: EniId) -> None:
        """An interface is gone: its accounts end.

        What was seen of the kernel's rows stays until those are removed there (`forget_sender`);
        otherwise they would be charged once more.
        """
        self.rows.pop(eni, None)
        self.ended.pop(eni, None)
        for key in [k for k in self._waiting if (k.dev, k.vlan) == eni]:
            del self._waiting[key]
        self._count_names()

    def begin_anew(self, eni: EniId) -> None:
        """The kernel's own counters of an ENI are another's, and begin at 0; its rows go on."""
        for place in [place for place in self._seen_overflow if place[0] == eni]:
            del self._seen_overflow[place]

    def forget_sender(self, key: SenderKey) -> None:
        """A row of the kernel's count was removed there; should it come back, it starts at 0."""
        self._seen.pop(key, None)

    def settled(self, key: SenderKey) -> bool:
        """Whether everything *key* has sent is charged to somebody for good."""
        return key not in self._waiting

    def update(
        self, sample: Sample, ladder: Ladder, now_s: float, grace_s: float = GRACE_S
    ) -> None:
        """Charge every increase since the last sample.

        Args:
            sample: The counters.
            ladder: Over the inventory as it is now.
            now_s: Monotonic seconds.
            grace_s: How long an increase may wait for its owner's name; 0 for the last update.
        """
        for accounts in self.rows.values():
            accounts.pop(_PENDING_ACCOUNT, None)
            for row in accounts.values():
                row.recent.clear()
        self._take_sources(sample, ladder)
        for key, count in sample.senders.items():
            delta = _increase(self._seen.get(key, 0), count)
            self._seen[key] = count
            # Senders are read before ENIs: one whose ENI is not there is left over from before.
            if (delta or key in self._waiting) and (key.dev, key.vlan) in sample.enis:
                self._take_sender(key, delta, ladder, now_s, grace_s)
        self._take_overflow(sample, now_s)
        self._end_rows(now_s)

    def _take_sender(
        self, key: SenderKey, delta: int, ladder: Ladder, now_s: float, grace_s: float
    ) -> None:
        eni, cell = (key.dev, key.vlan), (key.packet_class, key.protocol)
        waiting = self._waiting.pop(key, None)
        packets = delta + (waiting.packets if waiting else 0)
        verdict = ladder.judge(key)
        if verdict.tag_lost:
            self.tag_lost += delta
        owner = verdict.owner
        if owner is None:
            since_s = waiting.since_s if waiting else now_s
            if now_s - since_s < grace_s:
                self._waiting[key] = _Waiting(packets, since_s)
                self._charge(eni, Owner(PENDING), cell, packets, delta, now_s)
                return
            owner = ladder.settle(key)
        if verdict.rung is Rung.NOWHERE:
            spent = self._spend_credit(eni, cell, delta, now_s)
            packets, delta = packets - spent, delta - spent
        self._charge(eni, owner, cell, packets, delta, now_s, verdict.via)

    def _charge(
        self,
        eni: EniId,
        owner: Owner,
        cell: Cell,
        packets: int,
        recent: int,
        now_s: float,
        via: str = DIRECT,
    ) -> None:
        if not packets:
            return
        accounts = self.rows.setdefault(eni, {})
        account = (self._admit(owner.workload), via)
        row = accounts.get(account)
        if row is None:
            row = accounts[account] = Row()
        row.packets[cell] += packets
        row.recent[cell] += recent
        row.active_at_s = now_s
        # A second one says as much as all that will ever be: a unit's sessions are each a cgroup.
        if account[0] == owner.workload and len(row.cgroups) < _SEVERAL:
            row.cgroups.add((owner.cgroup, owner.cgroup_id))

    def _admit(self, workload: Workload) -> Workload:
        """*workload* itself while there is room for its name, else ``other``."""
        if workload in _NEVER_END:
            return workload
        if workload not in self._named:
            if len(self._named) >= self._max:
                return OTHER
            # Anybody on the network can be a remote client, under any number of addresses: they
            # must not take the room of the tasks and pods of this node.
            remotes = sum(named.kind == "remote" for named in self._named)
            if workload.kind == "remote" and remotes >= max(1, self._max // _REMOTE_PART):
                return OTHER
            self._named.add(workload)
        return workload

    def _take_sources(self, sample: Sample, ladder: Ladder) -> None:
        """Rung (d): what known addresses have sent without a tag, to be spent on rung (e).

        Sources are read after senders, so credit may be ahead by what was sent in between: what
        is left of it stays for one more update. No longer: it would pay for somebody else.
        """
        self._old_credit, self._credit = self._credit, {}
        for source, count in sample.sources.items():
            delta = _increase(self._seen_sources.get(source, 0), count)
            dev, vlan, address, packet_class, protocol = source
            owner = ladder.workloads.of_address(address) if delta else None
            self._seen_sources[source] = count
            if owner is not None:
                place = ((dev, vlan), (packet_class, protocol))
                self._credit.setdefault(place, []).append((owner, delta))
        for gone in self._seen_sources.keys() - sample.sources.keys():
            del self._seen_sources[gone]

    def _spend_credit(self, eni: EniId, cell: Cell, packets: int, now_s: float) -> int:
        """Charge what credit covers, the older first; returns how many packets it covered."""
        left = packets
        for credits in (self._old_credit, self._credit):
            entries = credits.get((eni, cell), [])
            while left and entries:
                owner, credit = entries.pop()
                spent = min(left, credit)
                left -= spent
                if credit > spent:
                    entries.append((owner, credit - spent))
                self._charge(eni, owner, cell, spent, spent, now_s)
        return packets - left

    def _take_overflow(self, sample: Sample, now_s: float) -> None:
        for eni, counters in sample.enis.items():
            for cell, count in counters.overflow.items():
                delta = _increase(self._seen_overflow.get((eni, cell), 0), count)
                self._seen_overflow[eni, cell] = count
                self._charge(eni, NOBODY, cell, delta, delta, now_s)
        for gone in [place for place in self._seen_overflow if place[0] not in sample.enis]:
            del self._seen_overflow[gone]

    def _count_names(self) -> None:
        self._named = {w for accounts in self.rows.values() for w, _ in accounts} - _NEVER_END

    def _end_rows(self, now_s: float) -> None:
        for eni, accounts in self.rows.items():
            for account, row in list(accounts.items()):
                workload = account[0]
                if now_s - row.active_at_s < ENDED_AFTER_S or workload in _NEVER_END:
                    continue
                if not self._alive(workload):
                    ended = self.ended.setdefault(eni, _cells())
                    for cell, packets in row.packets.items():
                        ended[cell] += packets
                    del accounts[account]
                    self._count_names()
