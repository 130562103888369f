"""From the kernel's slots to one-second windows. Pure: no clock, no I/O.

A window is `WINDOW_SLOTS` whole slots in a row and slides by one slot, so a burst of 300 ms is
inside one whole window wherever it falls, however seldom the slots are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .model import Slot

WINDOW_SLOTS = 10  # of 100 ms each: bpf/settings.h SLOT_NS
PEAK_HORIZON_SLOTS = 600  # the trailing 60 s
HISTORY_S = 60


@dataclass(frozen=True, slots=True)
class Windows:
    """Rates of one ENI at one moment, on each basis.

    Attributes:
        window_pps: The last full second.
        peak_pps: The highest second of the trailing 60.
        fresh_peak_pps: The highest second that ended since the last update.
        history_pps: Packets of each whole second, oldest first, at most 60.
    """

    window_pps: Mapping[str, float]
    peak_pps: Mapping[str, float]
    fresh_peak_pps: Mapping[str, float]
    history_pps: Mapping[str, tuple[float, ...]]


class WindowTracker:
    """Follows the slots of one ENI.

    Args:
        first_slot: The slot in which counting began; nothing is known of any before it.
        thresholds_pps: Rates whose excess is timed, on the configured basis.
        basis: ``linklocal`` or ``dns``.
    """

    def __init__(self, first_slot: int, thresholds_pps: Mapping[float, float], basis: str) -> None:
        self._first = first_slot
        self._basis = basis
        self._thresholds = dict(thresholds_pps)
        self.over_threshold_slots = dict.fromkeys(thresholds_pps, 0)
        self._next = first_slot  # the first slot not yet taken in
        horizon = PEAK_HORIZON_SLOTS + WINDOW_SLOTS
        self._recent: dict[str, deque[int]] = {
            "linklocal": deque(maxlen=horizon),
            "dns": deque(maxlen=horizon),
        }
        self.missed_slots = 0

    def update(self, slots: Iterable[Slot], now_slot: int) -> Windows:
        """Take in every slot that has ended before *now_slot*.

        Args:
            slots: The ring as read. A slot absent from it had no packets, unless it is older than
                the ring; such slots are counted in `missed_slots` and taken as empty.
            now_slot: Number of the slot in progress when the read began.
        """
        values = {slot.number: slot for slot in slots}
        span = 64  # SLOTS of bpf/settings.h: older ones have been written over
        self.missed_slots += max(0, now_slot - span - self._next)
        fresh: dict[str, float] = {"linklocal": 0.0, "dns": 0.0}
        self._skip_silence(now_slot)
        for number in range(self._next, now_slot):
            slot = values.get(number)
            self._recent["linklocal"].append(slot.linklocal if slot else 0)
            self._recent["dns"].append(slot.dns if slot else 0)
            for basis, seen in self._recent.items():
                fresh[basis] = max(fresh[basis], float(_last_window(seen)))
            over = _last_window(self._recent[self._basis])
            for threshold, pps in self._thresholds.items():
                if over > pps:
                    self.over_threshold_slots[threshold] += 1
        self._next = max(self._next, now_slot)
        return Windows(
            window_pps={b: float(_last_window(seen)) for b, seen in self._recent.items()},
            peak_pps={b: float(_peak(seen)) for b, seen in self._recent.items()},
            fresh_peak_pps=fresh,
            history_pps={b: _history(seen) for b, seen in self._recent.items()},
        )

    def _skip_silence(self, now_slot: int) -> None:
        """After a long sleep nothing older than the horizon matters; do not loop over it."""
        oldest = now_slot - PEAK_HORIZON_SLOTS - WINDOW_SLOTS
        self._next = max(self._next, oldest)


def _last_window(seen: deque[int]) -> int:
    length = len(seen)
    return sum(seen[i] for i in range(max(0, length - WINDOW_SLOTS), length))


def _peak(seen: deque[int]) -> int:
    values = list(seen)
    # A window that began just before the horizon and ends within it counts.
    window = sum(values[:WINDOW_SLOTS])
    peak = window
    for leaving, entering in zip(values, values[WINDOW_SLOTS:], strict=False):
        window += entering - leaving
        peak = max(peak, window)
    return peak


def _history(seen: deque[int]) -> tuple[float, ...]:
    """Whole seconds counted back from the newest slot."""
    values = list(seen)
    seconds = [
        float(sum(values[end - WINDOW_SLOTS : end]))
        for end in range(len(values), WINDOW_SLOTS - 1, -WINDOW_SLOTS)
    ]
    return tuple(reversed(seconds[:HISTORY_S]))
