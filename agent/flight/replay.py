"""From a recording back to the snapshots it was made of, as far as it holds them. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..alerts import LINKLOCAL_DROPS
from ..culprits import Culprits
from ..findings import DropWatch, eni_findings
from ..model import (
    BASIS_CLASSES,
    CLASSES,
    COUNTED_CLASSES,
    OTHER,
    Count,
    EniUsage,
    Snapshot,
    Workload,
    WorkloadUsage,
)
from ..rates import HISTORY_S, PEAK_HORIZON_SLOTS, RING_SLOTS, SLOT_S, WINDOW_SLOTS
from ..sample import Slot
from .recording import RecordedEni, Recording, Second

_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class _Track:
    """One ENI over the recording.

    Attributes:
        windows: Second-long ones: that which ends before slot n at place n, or `_UNKNOWN`.
        looks: Slot of each of its seconds.
    """

    one: RecordedEni
    windows: Mapping[str, Sequence[int]]
    looks: Sequence[int]

    def known_at(self, moment: int) -> bool:
        """Whether the second before *moment* is known on both bases."""
        seen = bool(self.looks) and self.looks[0] <= moment
        return seen and all(windows[moment] != _UNKNOWN for windows in self.windows.values())


class Frames:
    """Every snapshot of a recording in order of time, each made when it is asked for.

    All of them at once are hundreds of MiB where ENIs are many. What a recording does not hold is
    not made up: workloads beyond the busiest five are one row, ``other``, and an ENI is left out
    of a snapshot whose second holds a slot that is not known.

    Attributes:
        times_s: Wall clock of each, seconds since the epoch.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._tracks = tuple(map(_track, recording.enis))
        moments = sorted({second.at for one in recording.enis for second in one.seconds})
        self._moments = [m for m in moments if any(track.known_at(m) for track in self._tracks)]
        self.times_s = tuple(recording.begin_s + moment * SLOT_S for moment in self._moments)

    def __len__(self) -> int:
        return len(self._moments)

    def frame(self, at: int) -> Snapshot:
        """The one of number *at*."""
        moment, dropped, culprits, enis = self._moments[at], DropWatch(), Culprits(), []
        for track in self._known_at(moment):
            look = bisect_right(track.looks, moment) - 1
            enis.append(_usage(track, track.one.seconds[look], moment))
            for second in track.one.seconds[: look + 1]:
                dropped.take(track.one.eni.label, second.dropped, second.at * SLOT_S)
                culprits.take(track.one.eni.label, second.at, *_shares(second, track.one.basis))
        return Snapshot(
            node=self._recording.node,
            time_s=self.times_s[at],
            window_s=1.0,
            enis=tuple(enis),
            findings=tuple(eni_findings(enis, dropped, culprits)),
            slot=moment,
        )

    def worst(self) -> int:
        """Number of the one whose last second was the fullest, of the ENI it was made for."""
        wanted = self._recording.eni

        def height(at: int) -> tuple[bool, float]:
            moment = self._moments[at]
            known = self._known_at(moment)
            ours = [track for track in known if wanted in {None, track.one.eni.label}]
            return bool(ours), max(
                track.windows[track.one.basis][moment] / track.one.limit_pps
                for track in ours or known
            )

        return max(range(len(self)), key=height)

    def _known_at(self, moment: int) -> list[_Track]:
        return [track for track in self._tracks if track.known_at(moment)]


def _track(one: RecordedEni) -> _Track:
    windows = {"linklocal": _windows(one.linklocal), "dns": _windows(one.dns)}
    return _Track(one, windows, [second.at for second in one.seconds])


def _usage(track: _Track, second: Second, moment: int) -> EniUsage:
    one, first = track.one, max(0, moment - RING_SLOTS + 1)
    peaks = {
        basis: float(max(windows[max(0, moment - PEAK_HORIZON_SLOTS) : moment + 1]))
        for basis, windows in track.windows.items()
    }
    return EniUsage(
        eni=one.eni,
        limit_pps=one.limit_pps,
        basis=one.basis,
        packets=sum(count.packets for count in second.classes.values()),
        window_pps={basis: float(windows[moment]) for basis, windows in track.windows.items()},
        peak_pps=peaks,
        utilization=peaks[one.basis] / one.limit_pps,
        state=second.state,
        classes={
            name: second.classes.get(name, Count(0, 0.0))
            for name in COUNTED_CLASSES
            if name in CLASSES or name in second.classes
        },
        protocols={},
        workloads=tuple(_rows(second, one.basis)),
        history_pps=_history(track.windows[one.basis], moment),
        allowances=None if second.dropped is None else {LINKLOCAL_DROPS: second.dropped},
        slots=tuple(
            Slot(number, linklocal, dns)
            for number, (linklocal, dns) in enumerate(
                zip(one.linklocal[first:moment], one.dns[first:moment], strict=True), first
            )
            if linklocal is not None and dns is not None and (linklocal or dns)
        ),
    )


def _shares(second: Second, basis: str) -> tuple[float, list[tuple[Workload, float]]]:
    """Packets a second on the basis, and the part of each; a row of several is nobody's."""
    pps = sum(second.classes[name].pps for name in BASIS_CLASSES[basis] & second.classes.keys())
    return pps, [(row.workload, row.share) for row in second.top if row.workload != OTHER]


def _rows(second: Second, basis: str) -> Iterator[WorkloadUsage]:
    top = [row for row in second.top if row.workload != OTHER]
    for row in top:
        yield WorkloadUsage(row.workload, row.via, row.packets, row.pps, row.share, {})
    packets = sum(count.packets for count in second.classes.values())
    rest = packets - sum(row.packets for row in top)
    if rest > 0:
        pps = sum(count.pps for count in second.classes.values()) - sum(row.pps for row in top)
        on_basis = sum(second.classes[c].pps for c in BASIS_CLASSES[basis] & set(second.classes))
        share = 1.0 - sum(row.share for row in top) if pps > 0 and on_basis else 0.0
        yield WorkloadUsage(
            OTHER, "direct", rest, max(0.0, round(pps, 3)), max(0.0, round(share, 6)), {}
        )


def _windows(slots: Sequence[int | None]) -> list[int]:
    """The sum of the ten slots before each, and before the end; `_UNKNOWN` where one is unknown."""
    windows, total, holes = [], 0, WINDOW_SLOTS
    for at in range(len(slots) + 1):
        windows.append(_UNKNOWN if holes else total)
        if at < len(slots):
            total += slots[at] or 0
            holes += slots[at] is None
            left = at - WINDOW_SLOTS
            # Before the first slot nothing is known: ten holes, one of which each slot closes.
            total -= (slots[left] or 0) if left >= 0 else 0
            holes -= slots[left] is None if left >= 0 else 1
    return windows


def _history(windows: Sequence[int], moment: int) -> tuple[float, ...]:
    """Whole seconds back from slot *moment*, oldest first, as far as they are known."""
    found: list[float] = []
    for end in range(moment, -1, -WINDOW_SLOTS):
        if windows[end] == _UNKNOWN or len(found) == HISTORY_S:
            break
        found.append(float(windows[end]))
    return tuple(reversed(found))
