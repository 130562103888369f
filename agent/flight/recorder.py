"""Remembers the last ten minutes of every ENI, and cuts a stretch out of them. No clock, no I/O."""

from __future__ import annotations

from dataclasses import replace

from .. import __version__
from ..model import STATES, EniUsage, Snapshot
from ..rates import RING_SLOTS, SLOT_S
from .recording import RecordedEni, Recording
from .rings import KEPT_SLOTS, EniRing, Names

MAX_ENIS = 64
"""ENIs remembered; beyond it the one that has been silent for longest makes room."""

_LATEST_SLOT = 2**63
_WHOLE_SLOTS = RING_SLOTS - 2
# The slot in progress takes the place of one of the kernel's ring, and the next may take another:
# an ENI is read some milliseconds after the moment that the snapshot speaks of.

_LEAST_APART = 5
# Snapshots out of turn come ten a second while a level is crossed: one in half a second is enough,
# but for the one in which an ENI got worse.


class Recorder:
    """Fed with every snapshot that tells its slot; an ENI's first packet makes room for it."""

    def __init__(self) -> None:
        self._names = Names()
        self._rings: dict[str, EniRing] = {}
        self._first_seen: dict[str, int] = {}
        self._silent: set[str] = set()
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
        if now is None or now >= _LATEST_SLOT or (self._slot is not None and now <= self._slot):
            return
        before = now if self._slot is None else self._slot
        enis = {usage.eni.label: usage for usage in snapshot.enis}
        worse = any(_height(usage) > self._heights.get(k, 0) for k, usage in enis.items())
        self._heights = {label: _height(usage) for label, usage in enis.items()}
        second = self._slot is None or worse or now - self._second >= _LEAST_APART
        self._first_seen = {label: self._first_seen.get(label, before) for label in enis}
        # Those that are remembered first: only then is it known which of them is silent.
        for label in sorted(enis, key=lambda label: label not in self._rings):
            usage = enis[label]
            ring = self._rings.get(label) or self._added(usage, before)
            if ring is None:
                continue
            # The kernel's ring goes back so far, and not to before the ENI was there (again): what
            # was not read by then is not known.
            known_from = max(now - _WHOLE_SLOTS, self._first_seen[label])
            if usage.packets < ring.packets and self._first_seen[label] < before:
                known_from = now  # it went and came back since the last look
            ring.take_slots(usage.slots, known_from, now)
            ring.packets = usage.packets
            second = second or ring.identity is None
        for label in (enis.keys() & self._rings.keys()) if second else ():
            self._rings[label].take_second(enis[label], now)
        self._silent = {label for label, usage in enis.items() if not usage.packets}
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
        most: int | None = None,
    ) -> Recording:
        """What is known of the slots from *first* to *end*, the busiest ENI first.

        Args:
            first: Number of the first slot.
            end: Number of the slot after the last.
            reason: One of `recording.REASONS`.
            eni: Label of the ENI it is made for.
            moment: Number of the slot it is made for.
            most: ENIs at most, the busiest and the one it is made for; None for all.
        """
        cut = []
        for ring in self._rings.values():
            identity = ring.identity
            if identity is None or ring.heard_of < first:
                continue
            one = RecordedEni(
                identity.eni,
                identity.limit_pps,
                identity.basis,
                ring.slots(first, end, dns=False),
                ring.slots(first, end, dns=True),
                (),
            )
            cut.append((one, ring))
        cut.sort(key=lambda pair: (-sum(n or 0 for n in pair[0].counted), pair[0].eni.label))
        # The seconds are the larger part, by far: made only for those that are kept.
        kept = [
            replace(one, seconds=tuple(ring.seconds(first, end)))
            for at, (one, ring) in enumerate(cut)
            if most is None or at < most or one.eni.label == eni
        ]
        now = self._slot if self._slot is not None else first
        return Recording(
            node=self._node,
            agent=__version__,
            reason=reason,
            eni=eni,
            # An agent that is asked may say anything of its slots; a file has a time.
            begin_s=max(0.0, self._time_s - (now - first) * SLOT_S),
            moment=None if moment is None else moment - first,
            slots=end - first,
            enis=tuple(kept),
        )

    def _added(self, usage: EniUsage, before: int) -> EniRing | None:
        """A ring for what has sent something, if it has sent later than another that has one."""
        label = usage.eni.label
        if not usage.packets:
            return None
        if len(self._rings) >= MAX_ENIS:
            quietest = min(self._rings, key=lambda known: self._rings[known].sent_at)
            sent_at = max((slot.number for slot in usage.slots), default=0)
            if sent_at <= self._rings[quietest].sent_at:
                return None
            self._drop(quietest)
        ring = self._rings[label] = EniRing(self._names, self._first_seen[label])
        if label in self._silent:  # until then it had sent nothing at all
            ring.take_slots((), ring.sent_at, before)
        return ring

    def _drop(self, label: str) -> None:
        self._rings.pop(label).drop_before(2**63)
        if label in self._first_seen and self._slot is not None:
            self._first_seen[label] = self._slot  # should it be back: what it sent is not known


def _height(usage: EniUsage) -> int:
    return STATES.index(usage.state)
