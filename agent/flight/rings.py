"""The memory of one ENI: ten minutes of slots, and of seconds with their busiest workloads.

Packed, for an agent keeps it for every ENI at all times: 24 KiB of slots, and some 150 bytes for
each second that has something to say.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..alerts import drops
from ..model import COUNTED_CLASSES, STATES, Count, Eni, EniUsage, Workload
from ..rates import RING_SLOTS
from ..sample import Slot
from .recording import Second, Top

KEPT_SLOTS = 6000 + RING_SLOTS
"""Ten minutes, and what a reader of all ten may be late by."""
TOP = 5
_MOST = 0xFFFE
_UNKNOWN = 0xFFFF
# An agent that is asked for its snapshot may be anybody: what it says must fit into a frame.
_MOST_PACKETS = 2**64 - 1
_MOST_PPS = 2.0**63
_HEAD = struct.Struct("<QBqBB")  # slot, state, driver's count or -1, classes, rows
_CLASS = struct.Struct("<BQf")  # class, packets, pps
_ROW = struct.Struct("<HQff")  # name, packets, pps, share


@dataclass(slots=True)
class _Held:
    key: tuple[Workload, str]
    times: int = 0


class Names:
    """Small numbers for workloads, for as long as somebody holds one."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Workload, str], int] = {}
        self._held: dict[int, _Held] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def hold(self, workload: Workload, via: str) -> int | None:
        """Its number, held once more; None when there is no number left."""
        key = (workload, via)
        number = self._numbers.get(key)
        if number is None:
            if not self._free and len(self._numbers) > _MOST:
                return None
            number = self._free.pop() if self._free else len(self._numbers)
            self._numbers[key] = number
            self._held[number] = _Held(key)
        self._held[number].times += 1
        return number

    def release(self, number: int) -> None:
        """Hold it once less; one that nobody holds is forgotten."""
        held = self._held[number]
        held.times -= 1
        if not held.times:
            del self._held[number]
            del self._numbers[held.key]
            self._free.append(number)

    def named(self, number: int) -> tuple[Workload, str]:
        """What *number* stands for."""
        return self._held[number].key


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change of an ENI."""

    eni: Eni
    limit_pps: int
    basis: str


class EniRing:
    """One ENI's last ten minutes.

    Args:
        names: Shared by all ENIs.
        since: The first slot that is known: none of its packets were missed from there on.

    Attributes:
        identity: As the last snapshot had it; None before the first.
        heard_of: Slot of that snapshot.
        sent_at: The last slot that holds a packet.
        packets: Since the agent attached, as the last snapshot had it.
    """

    def __init__(self, names: Names, since: int) -> None:
        self._names = names
        self._linklocal = array("H", bytes(2 * KEPT_SLOTS))
        self._dns = array("H", bytes(2 * KEPT_SLOTS))
        self._frames: deque[bytes] = deque()
        self._since = since
        self._next = since
        self.identity: Identity | None = None
        self.heard_of = since
        self.sent_at = since
        self.packets = 0

    def take_slots(self, slots: Iterable[Slot], known_from: int, now: int) -> None:
        """The slots before *now*; what lies before *known_from* and was not seen is unknown."""
        first = max(self._next, now - KEPT_SLOTS)
        for number in range(first, now):
            nothing = 0 if number >= known_from else _UNKNOWN
            self._linklocal[number % KEPT_SLOTS] = self._dns[number % KEPT_SLOTS] = nothing
        for slot in slots:
            if first <= slot.number < now:
                at = slot.number % KEPT_SLOTS
                self._linklocal[at] = _fitting(slot.linklocal)
                self._dns[at] = _fitting(slot.dns)
                self.sent_at = max(self.sent_at, slot.number)
        self._next = max(self._next, now)

    def take_second(self, usage: EniUsage, now: int) -> None:
        """What the snapshot of slot *now* says besides."""
        self.identity = Identity(usage.eni, usage.limit_pps, usage.basis)
        self.heard_of = now
        self._frames.append(self._packed(usage, now))
        self.drop_before(now - KEPT_SLOTS)

    def drop_before(self, number: int) -> None:
        """Forget the seconds before slot *number*, and whose names only they held."""
        while self._frames and _HEAD.unpack_from(self._frames[0])[0] < number:
            for name, *_ in _rows(self._frames.popleft()):
                self._names.release(name)

    def slots(self, first: int, end: int, *, dns: bool) -> tuple[int | None, ...]:
        """Packets in each slot from *first* to *end*; None where that is not known."""
        ring = self._dns if dns else self._linklocal
        oldest = max(self._since, self._next - KEPT_SLOTS)
        return tuple(
            None
            if not oldest <= number < self._next or ring[number % KEPT_SLOTS] == _UNKNOWN
            else ring[number % KEPT_SLOTS]
            for number in range(first, end)
        )

    def seconds(self, first: int, end: int) -> Iterator[Second]:
        """What was taken from slot *first* to *end*, the latter too."""
        for frame in self._frames:
            number, state, dropped, _, _ = _HEAD.unpack_from(frame)
            if first <= number <= end:
                yield Second(
                    at=number - first,
                    state=STATES[state],
                    dropped=None if dropped < 0 else dropped,
                    classes={
                        COUNTED_CLASSES[c]: Count(packets, round(pps, 3))
                        for c, packets, pps in _classes(frame)
                    },
                    top=tuple(
                        Top(*self._names.named(name), packets, round(pps, 3), round(share, 6))
                        for name, packets, pps, share in _rows(frame)
                    ),
                )

    def _packed(self, usage: EniUsage, now: int) -> bytes:
        dropped = drops(usage)
        classes = [
            _CLASS.pack(
                COUNTED_CLASSES.index(name),
                min(count.packets, _MOST_PACKETS),
                min(count.pps, _MOST_PPS),
            )
            for name, count in usage.classes.items()
            if count.packets and name in COUNTED_CLASSES
        ]
        rows = []
        for row in [row for row in usage.workloads if row.pps][:TOP]:
            name = self._names.hold(row.workload, row.via)
            if name is not None:
                packets, pps = min(row.packets, _MOST_PACKETS), min(row.pps, _MOST_PPS)
                rows.append(_ROW.pack(name, packets, pps, min(row.share, 1.0)))
        head = _HEAD.pack(
            now,
            STATES.index(usage.state),
            -1 if dropped is None else dropped & 0x7FFFFFFFFFFFFFFF,
            len(classes),
            len(rows),
        )
        return b"".join([head, *classes, *rows])


def _fitting(packets: int) -> int:
    # Less than nothing: read while two processors opened the slot at the same instant.
    return _UNKNOWN if packets < 0 else min(packets, _MOST)


def _classes(frame: bytes) -> Iterator[tuple[int, int, float]]:
    count = _HEAD.unpack_from(frame)[3]
    end = _HEAD.size + count * _CLASS.size
    return _CLASS.iter_unpack(frame[_HEAD.size : end])


def _rows(frame: bytes) -> Iterator[tuple[int, int, float, float]]:
    count = _HEAD.unpack_from(frame)[3]
    return _ROW.iter_unpack(frame[_HEAD.size + count * _CLASS.size :])
