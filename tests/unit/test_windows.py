"""One-second windows from 100 ms slots."""

from __future__ import annotations

import pytest
from eni53.rates import Windows, WindowTracker
from eni53.sample import Slot

SLOTS = 64


class Ring:
    """The kernel's ring, fed with packets at slot numbers."""

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}

    def add(self, number: int, packets: int) -> None:
        """*packets* in slot *number*."""
        self.slots[number] = self.slots.get(number, 0) + packets

    def read(self, now: int) -> list[Slot]:
        """What a reader finds at slot *now*: the newest lap of each place."""
        newest: dict[int, int] = {}
        for number in sorted(n for n in self.slots if n <= now):
            newest[number % SLOTS] = number
        return [Slot(n, self.slots[n], self.slots[n] // 2) for n in sorted(newest.values())]


def follow(ring: Ring, *, every: int, begin: int, end: int) -> list[Windows]:
    """Read the ring every so many slots."""
    tracker = WindowTracker(begin, {0.7: 716.8}, "linklocal")
    return [tracker.update(ring.read(now), now) for now in range(begin + every, end, every)]


@pytest.mark.parametrize("every", [3, 7, 10, 13, 30, 60])
@pytest.mark.parametrize("phase", range(10))
def test_a_burst_of_300_ms_is_in_one_window(every: int, phase: int) -> None:
    """However seldom and at whatever phase the ring is read, a burst of 300 ms is whole."""
    ring = Ring()
    for offset, packets in enumerate((211, 307, 199)):
        ring.add(1000 + phase + offset, packets)
    seen = follow(ring, every=every, begin=990, end=1200)

    assert max(w.fresh_peak_pps["linklocal"] for w in seen) == 717
    assert seen[-1].peak_pps["linklocal"] == 717
    assert seen[-1].peak_pps["dns"] == 105 + 153 + 99


def test_two_bursts_a_second_apart_do_not_add_up() -> None:
    """A window is ten slots: what is eleven apart is never in one."""
    ring = Ring()
    ring.add(1000, 600)
    ring.add(1010, 500)
    assert follow(ring, every=10, begin=990, end=1040)[-1].peak_pps["linklocal"] == 600

    ring.add(1009, 7)
    assert follow(ring, every=10, begin=990, end=1040)[-1].peak_pps["linklocal"] == 607


def test_the_slot_in_progress_waits_for_its_end() -> None:
    """A slot is taken in once it is over; nothing of it is lost or counted twice."""
    ring = Ring()
    tracker = WindowTracker(1000, {}, "linklocal")
    ring.add(1000, 50)
    assert tracker.update(ring.read(1000), 1000).window_pps["linklocal"] == 0
    ring.add(1000, 50)
    assert tracker.update(ring.read(1001), 1001).window_pps["linklocal"] == 100
    assert tracker.update(ring.read(1001), 1001).window_pps["linklocal"] == 100


def test_the_window_is_the_last_ten_slots() -> None:
    """After a second of silence the window is empty, and the peak still known."""
    ring = Ring()
    ring.add(1000, 300)
    seen = follow(ring, every=1, begin=999, end=1025)
    rates = [w.window_pps["linklocal"] for w in seen]

    assert rates.count(300) == 10
    assert rates[-1] == 0
    assert seen[-1].peak_pps["linklocal"] == 300


def test_the_peak_is_forgotten_after_a_minute() -> None:
    """The peak speaks of the trailing 60 seconds."""
    ring = Ring()
    ring.add(1000, 900)
    seen = follow(ring, every=10, begin=990, end=1700)
    peaks = {990 + 10 * (i + 1): w.peak_pps["linklocal"] for i, w in enumerate(seen)}

    assert peaks[1600] == 900
    assert peaks[1630] == 0


def test_a_reader_later_than_the_ring_says_so() -> None:
    """Slots that were written over before they were read are counted as missed."""
    ring = Ring()
    for number in range(1000, 1200):
        ring.add(number, 1)
    tracker = WindowTracker(1000, {}, "linklocal")
    tracker.update(ring.read(1010), 1010)
    assert tracker.missed_slots == 0
    tracker.update(ring.read(1200), 1200)

    assert tracker.missed_slots == 1200 - SLOTS - 1010


def test_time_over_the_threshold() -> None:
    """One second at 1000 pps: the window is over 716.8 from its eighth slot to the eighth after."""
    ring = Ring()
    for number in range(1000, 1010):
        ring.add(number, 100)
    tracker = WindowTracker(990, {0.7: 716.8, 1.0: 1024.0}, "linklocal")
    for now in range(990, 1040):
        tracker.update(ring.read(now), now)

    assert tracker.over_threshold_slots == {0.7: 5, 1.0: 0}


def test_history_has_whole_seconds() -> None:
    """One value a second, oldest first, at most sixty."""
    ring = Ring()
    for second in range(100):
        ring.add(1000 + 10 * second, second + 1)
    history = follow(ring, every=10, begin=1000, end=2001)[-1].history_pps["linklocal"]

    assert history == tuple(float(n) for n in range(41, 101))


def test_nothing_is_known_from_before_the_start() -> None:
    """Slots older than the first one are somebody else's."""
    ring = Ring()
    ring.add(900, 5000)
    ring.add(1001, 3)
    assert follow(ring, every=10, begin=1000, end=1030)[-1].peak_pps["linklocal"] == 3
