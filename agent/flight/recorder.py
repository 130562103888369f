"""Remembers the last ten minutes of every ENI, and cuts a stretch out of them. No clock, no I/O."""

from __future__ import annotations

from .. import __version__
from ..model import STATES, EniUsage, Snapshot
from ..rates import RING_SLOTS
from .recording import SLOT_S, RecordedEni, Recording
from .rings import KEPT_SLOTS, EniRing, Names

MAX_ENIS = 64
"""ENIs remembered; beyond it the one that has been silent for longest makes room."""

_LEAST_APART = 5
# Snapshots out of turn come ten a second while a level is crossed: one in half a second is enough,
# but for the one in which an ENI got worse.


class Recorder:
    """Fed with every snapshot that tells its slot; an ENI's first packet makes room for it."""

    def __init__(self) -> None:
        self._names = Names()
        self._rings: dict[str, EniRing] = {}
        self._first_seen: dict[str, int] = {}
        self._unbroken = 0
        self._slot: int | None = None
        self._second = 0
        self._heights: dict[str, int] = {}
        self._time_s = 0.0
        self._node = ""

    @property
    def slot(self) -> int | None:
        """The slot in progress when the last snapshot was taken; None before the first."""
        return self._slot

    def update(self, snapshot: Snapshot) -> None:
        """Take one snapshot in; one that is not newer than the last is passed over."""
        now = snapshot.slot
        if now is None or (self._slot is not None and now <= self._slot):
            return
        before = now if self._slot is None else self._slot
        # The kernel's ring goes back so far: what was not read by then is not known.
        reach = now - RING_SLOTS + 1
        if self._slot is None or before < reach:
            self._unbroken = max(before, reach)
        worse = any(_height(u) > self._heights.get(u.eni.label, 0) for u in snapshot.enis)
        self._heights = {usage.eni.label: _height(usage) for usage in snapshot.enis}
        second = self._slot is None or worse or now - self._second >= _LEAST_APART
        self._first_seen = {
            u.eni.label: self._first_seen.get(u.eni.label, before) for u in snapshot.enis
        }
        for usage in snapshot.enis:
            label = usage.eni.label
            if not usage.packets:
                continue
            ring = self._rings.get(label)
            if ring is None:
                ring = self._add(label, max(self._first_seen[label], self._unbroken))
            ring.take_slots(usage.slots, reach, now)
            if second:
                ring.take_second(usage, now)
        for label in [k for k, ring in self._rings.items() if ring.heard_of < now - KEPT_SLOTS]:
            self._drop(label)
        self._second = now if second else self._second
        self._slot, self._time_s, self._node = now, snapshot.time_s, snapshot.node

    def cut(
        self,
        first: int,
        end: int,
        reason: str = "requested",
        eni: str | None = None,
        moment: int | None = None,
    ) -> Recording:
        """What is known of the slots from *first* to *end*, the busiest ENI first.

        Args:
            first: Number of the first slot.
            end: Number of the slot after the last.
            reason: One of `recording.REASONS`.
            eni: Label of the ENI it is made for.
            moment: Number of the slot it is made for.
        """
        cut = []
        for ring in self._rings.values():
            identity = ring.identity
            if identity is None or ring.heard_of < first:
                continue
            cut.append(
                RecordedEni(
                    identity.eni,
                    identity.limit_pps,
                    identity.basis,
                    ring.slots(first, end, dns=False),
                    ring.slots(first, end, dns=True),
                    tuple(ring.seconds(first, end)),
                )
            )
        cut.sort(key=lambda one: (-sum(n or 0 for n in one.counted), one.eni.label))
        now = self._slot if self._slot is not None else first
        return Recording(
            node=self._node,
            agent=__version__,
            reason=reason,
            eni=eni,
            begin_s=self._time_s - (now - first) * SLOT_S,
            moment=None if moment is None else moment - first,
            slots=end - first,
            enis=tuple(cut),
        )

    def _add(self, label: str, since: int) -> EniRing:
        if len(self._rings) >= MAX_ENIS:
            self._drop(min(self._rings, key=lambda known: self._rings[known].sent_at))
        ring = self._rings[label] = EniRing(self._names, since)
        return ring

    def _drop(self, label: str) -> None:
        self._rings.pop(label).drop_before(2**63)
        if label in self._first_seen and self._slot is not None:
            self._first_seen[label] = self._slot  # should it be back: what it sent is not known


def _height(usage: EniUsage) -> int:
    return STATES.index(usage.state)
