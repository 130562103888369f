"""The names of one look at an agent, of each of its seconds: a snapshot has those of the last tick.

Pure. Bounded, for there may be others each second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .model import NameRate, Snapshot
from .top_names import MOST_NAMES

MOST_OF_ENI = 2 * MOST_NAMES
MOST_OF_WORKLOAD = 50

_Place = tuple[object, ...]
_Key = tuple[str, str]
_Seen = dict[_Key, tuple[NameRate, NameRate]]
"""By name and type: as it was when the look began, and as it was told last."""


class NamesSeen:
    """Gathers names from snapshot to snapshot.

    Args:
        first: The one that the look begins with.
    """

    def __init__(self, first: Snapshot) -> None:
        self._first = first
        self._seen: dict[_Place, _Seen] = {
            place: {_key(name): (name, name) for name in names} for place, names in _places(first)
        }

    def add(self, snapshot: Snapshot) -> None:
        """Of a later moment."""
        for place, names in _places(snapshot):
            seen = self._seen.setdefault(place, {})
            for name in names:
                begin, _ = seen.get(_key(name), (_before(name, snapshot.window_s), name))
                seen[_key(name)] = (begin, name)
            most = MOST_OF_ENI if len(place) == 1 else MOST_OF_WORKLOAD
            if len(seen) > most:
                kept = sorted(seen.items(), key=lambda item: _risen(*item[1]), reverse=True)
                self._seen[place] = dict(kept[:most])

    def of_look(self, last: Snapshot) -> tuple[Snapshot, Snapshot]:
        """The first snapshot and *last*, each with all names that were told in between."""
        self.add(last)
        return self._with_all(self._first, 0), self._with_all(last, 1)

    def _with_all(self, snapshot: Snapshot, end: int) -> Snapshot:
        told = {place: self._all(place, names, end) for place, names in _places(snapshot)}
        enis = (
            replace(
                usage,
                names=told[(usage.eni.label,)],
                workloads=tuple(
                    replace(row, names=told[usage.eni.label, row.workload, row.via])
                    for row in usage.workloads
                ),
            )
            for usage in snapshot.enis
        )
        return replace(snapshot, enis=tuple(enis))

    def _all(self, place: _Place, names: Sequence[NameRate], end: int) -> tuple[NameRate, ...]:
        told = set(map(_key, names))
        seen = self._seen.get(place, {})
        silent = (replace(ends[end], pps=0.0) for key, ends in seen.items() if key not in told)
        return (*names, *silent)


def _places(snapshot: Snapshot) -> Iterator[tuple[_Place, Sequence[NameRate]]]:
    """Each ENI, each of its rows, and what names it has."""
    for usage in snapshot.enis:
        yield (usage.eni.label,), usage.names
        for row in usage.workloads:
            yield (usage.eni.label, row.workload, row.via), row.names


def _key(name: NameRate) -> _Key:
    return name.name, name.type


def _before(name: NameRate, window_s: float) -> NameRate:
    """*name* before the window that told it first: what it has more is of this window."""
    return replace(name, packets=max(0, name.packets - round(name.pps * window_s)))


def _risen(begin: NameRate, end: NameRate) -> int:
    return end.packets - begin.packets
