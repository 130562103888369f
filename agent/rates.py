"""From the kernel's slots to one-second windows. Pure: no clock, no I/O.

A window is `WINDOW_SLOTS` whole slots in a row and slides by one slot, so a burst of 300 ms is
inside one whole window wherever it falls, however seldom the slots are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .sample import Slot

SLOT_S = 0.1  # bpf/settings.h SLOT_NS
WINDOW_SLOTS = 10
RING_SLOTS = 64  # bpf/settings.h SLOTS
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


class _Series:
    """Slots of one basis, and the window that ends with each of the trailing 60 s."""

    def __init__(self) -> None:
        self._slots: deque[int] = deque(maxlen=WINDOW_SLOTS)
        # A window that began just before the horizon and ends within it counts.
        self._windows: deque[int] = deque(maxlen=PEAK_HORIZON_SLOTS + 1)
        self._taken = 0
        self.window = 0

    def take(self, packets: int) -> None:
        """The next slot."""
        if len(self._slots) == WINDOW_SLOTS:
            self.window -= self._slots[0]
        self._slots.append(packets)
        self.window += packets
        self._windows.append(self.window)
        self._taken += 1

    @property
    def peak(self) -> float:
        """The highest window of the trailing 60 s."""
        return float(max(self._windows, default=0))

    @property
    def history(self) -> tuple[float, ...]:
        """Whole seconds counted back from the newest slot, the oldest first."""
        whole = min(len(self._windows), self._taken - WINDOW_SLOTS + 1)
        newest_first = list(self._windows)[::-1][: max(0, whole) : WINDOW_SLOTS]
        return tuple(map(float, newest_first[HISTORY_S - 1 :: -1]))


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
        self._series = {"linklocal": _Series(), "dns": _Series()}
        self.missed_slots = 0

    def update(self, slots: Iterable[Slot], now_slot: int) -> Windows:
        """Take in every slot that has ended before *now_slot*.

        Args:
            slots: The ring as read. A slot absent from it had no packets, unless a later one stands
                in its place; such slots are counted in `missed_slots` and taken as empty.
            now_slot: Number of the slot in progress when the read began.
        """
        self._skip_silence(now_slot)
        values = {slot.number: slot for slot in slots if slot.number >= self._next}
        in_place = {number % RING_SLOTS: number for number in values}
        fresh: dict[str, float] = {"linklocal": 0.0, "dns": 0.0}
        for number in range(self._next, now_slot):
            slot = values.get(number)
            self.missed_slots += in_place.get(number % RING_SLOTS, 0) > number
            self._series["linklocal"].take(slot.linklocal if slot else 0)
            self._series["dns"].take(slot.dns if slot else 0)
            for basis, series in self._series.items():
                fresh[basis] = max(fresh[basis], float(series.window))
            over = self._series[self._basis].window
            for threshold, pps in self._thresholds.items():
                if over > pps:
                    self.over_threshold_slots[threshold] += 1
        self._next = max(self._next, now_slot)
        return Windows(
            window_pps={b: float(series.window) for b, series in self._series.items()},
            peak_pps={b: series.peak for b, series in self._series.items()},
            fresh_peak_pps=fresh,
            history_pps={b: series.history for b, series in self._series.items()},
        )

    def _skip_silence(self, now_slot: int) -> None:
        """After a long sleep nothing older than the horizon matters; do not loop over it."""
        oldest = now_slot - PEAK_HORIZON_SLOTS - WINDOW_SLOTS
        self._next = max(self._next, oldest)
