"""From a recording back to the snapshots it was made of, as far as it holds them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..alerts import LINKLOCAL_DROPS
from ..findings import DropWatch, eni_findings
from ..model import CLASSES, COUNTED_CLASSES, OTHER, Count, EniUsage, Slot, Snapshot, WorkloadUsage
from ..rates import HISTORY_S, PEAK_HORIZON_SLOTS, RING_SLOTS, WINDOW_SLOTS
from .recording import SLOT_S, RecordedEni, Recording, Second

_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class _Track:
    """One ENI's second-long windows: the one that ends before slot n at place n, or `_UNKNOWN`."""

    one: RecordedEni
    windows: Mapping[str, Sequence[int]]

    def known_at(self, moment: int) -> bool:
        """Whether the second before *moment* is known on both bases."""
        return all(windows[moment] != _UNKNOWN for windows in self.windows.values())


def snapshots(recording: Recording) -> tuple[Snapshot, ...]:
    """Every snapshot of it, in order of time.

    What a recording does not hold is not made up: workloads beyond the busiest five are one row,
    ``other``, and an ENI is left out of a snapshot whose second holds a slot that is not known.
    """
    moments = sorted({second.at for one in recording.enis for second in one.seconds})
    tracks = [
        _Track(one, {"linklocal": _windows(one.linklocal), "dns": _windows(one.dns)})
        for one in recording.enis
    ]
    dropped, found = DropWatch(), []
    places = dict.fromkeys(range(len(tracks)), -1)
    for moment in moments:
        enis = []
        for number, track in enumerate(tracks):
            seconds = track.one.seconds
            while places[number] + 1 < len(seconds) and seconds[places[number] + 1].at <= moment:
                places[number] += 1
            if places[number] >= 0 and track.known_at(moment):
                enis.append(_usage(track, seconds[places[number]], moment))
        if enis:
            dropped.update(enis)
            found.append(
                Snapshot(
                    node=recording.node,
                    time_s=recording.begin_s + moment * SLOT_S,
                    window_s=1.0,
                    enis=tuple(enis),
                    findings=tuple(eni_findings(enis, dropped)),
                    slot=moment,
                )
            )
    return tuple(found)


def worst(recording: Recording, frames: Sequence[Snapshot]) -> int:
    """Index of the snapshot whose last second was the fullest, of the ENI it was made for."""

    def height(frame: Snapshot) -> float:
        usages = [u for u in frame.enis if recording.eni in {None, u.eni.label}] or frame.enis
        return max(u.window_pps[u.basis] / u.limit_pps for u in usages)

    return max(range(len(frames)), key=lambda at: height(frames[at]))


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
        workloads=tuple(_rows(second)),
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


def _rows(second: Second) -> Iterator[WorkloadUsage]:
    for row in second.top:
        yield WorkloadUsage(row.workload, row.via, row.packets, row.pps, row.share, {})
    packets = sum(count.packets for count in second.classes.values())
    rest = packets - sum(row.packets for row in second.top)
    if rest > 0:
        pps = sum(count.pps for count in second.classes.values()) - sum(r.pps for r in second.top)
        share = 1.0 - sum(row.share for row in second.top) if pps > 0 else 0.0
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
