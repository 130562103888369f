"""Slots to windows: a burst is seen whole, whenever and however seldom the slots are read."""

import random

import pytest
from eni53.kernel import layout
from eni53.rates import PEAK_HORIZON_SLOTS, RING_SLOTS, WINDOW_SLOTS, WindowTracker
from eni53.sample import Slot

FIRST = 1000
THRESHOLDS = {0.7: 716.8, 0.9: 921.6, 1.0: 1024.0}


class Ring:
    """The kernel's ring: a slot is written over by the one that comes a whole ring later."""

    def __init__(self):
        self._slots = {}

    def count(self, number, packets, dns=None):
        """Packets in one slot."""
        place = number % RING_SLOTS
        before = self._slots.get(place)
        kept = before if before and before.number == number else Slot(number, 0, 0)
        dns = packets if dns is None else dns
        self._slots[place] = Slot(number, kept.linklocal + packets, kept.dns + dns)

    def read(self):
        """What a reader finds."""
        return tuple(sorted(self._slots.values(), key=lambda slot: slot.number))


def tracker(basis="linklocal", first=FIRST):
    """A tracker that has seen nothing."""
    return WindowTracker(first, THRESHOLDS, basis)


def test_sizes_are_those_of_the_kernel():
    """Ten slots make a second and the ring is as long as bpf/settings.h says."""
    assert layout.SLOT_NS * WINDOW_SLOTS == 10**9
    assert layout.SLOT_NS * PEAK_HORIZON_SLOTS == 60 * 10**9
    assert layout.SLOTS == RING_SLOTS


@pytest.mark.parametrize("every", [3, 7, 10, 13, 25, 47, 60])
def test_a_burst_is_seen_whole_at_every_phase(every):
    """300 ms with N packets are a peak of N, read every 0.3 to 6 s, wherever the burst falls."""
    for phase in range(every + WINDOW_SLOTS):
        ring, windows = Ring(), tracker()
        begin = FIRST + 20 + phase
        highest = 0.0
        for now in range(FIRST, FIRST + 200):
            if begin <= now < begin + 3:
                ring.count(now, 500)
            if (now - FIRST) % every == 0:
                seen = windows.update(ring.read(), now)
                highest = max(highest, seen.fresh_peak_pps["linklocal"])
        assert seen.peak_pps == {"linklocal": 1500.0, "dns": 1500.0}
        assert highest == 1500.0
        assert windows.missed_slots == 0


def test_random_traffic_gives_the_same_windows_however_it_is_read():
    """Peak, history and time over a threshold do not depend on when the slots are read."""
    rng = random.Random(53)
    for _ in range(5):
        traffic = [rng.choice((0, 0, 30, 90, 200)) for _ in range(400)]
        sums = [sum(traffic[max(0, end - 10) : end]) for end in range(1, 401)]
        ring, windows, now = Ring(), tracker(), 0
        while now < 400:
            step = min(rng.randint(1, RING_SLOTS - 2), 400 - now)
            for number in range(now, now + step):
                ring.count(FIRST + number, traffic[number])
            fresh = sums[now : now + step]
            now += step
            seen = windows.update(ring.read(), FIRST + now)
            assert seen.fresh_peak_pps["linklocal"] == max(fresh)
        assert seen.peak_pps["linklocal"] == max(sums)
        assert seen.window_pps["linklocal"] == sums[-1]
        assert seen.history_pps["linklocal"] == tuple(float(n) for n in sums[9::10])
        expected = {t: sum(n > pps for n in sums) for t, pps in THRESHOLDS.items()}
        assert windows.over_threshold_slots == expected


def test_the_slot_in_progress_waits_for_its_end():
    """Half a slot is no window: it is taken when the next one has begun."""
    ring, windows = Ring(), tracker()
    ring.count(FIRST, 100)
    assert windows.update(ring.read(), FIRST).peak_pps["linklocal"] == 0.0
    ring.count(FIRST, 50)
    assert windows.update(ring.read(), FIRST + 1).peak_pps["linklocal"] == 150.0


def test_the_peak_is_forgotten_after_a_minute():
    """A burst is the peak while a window that held it ended within 60 s, and then it is not."""
    ring, windows = Ring(), tracker()
    ring.count(FIRST, 900)
    last = FIRST + WINDOW_SLOTS + PEAK_HORIZON_SLOTS
    peaks = {}
    for now in range(FIRST + 1, last + 20):
        peaks[now] = windows.update(ring.read(), now).peak_pps["linklocal"]
    assert peaks[FIRST + PEAK_HORIZON_SLOTS] == 900.0
    assert peaks[last] == 900.0
    assert peaks[last + 1] == 0.0


def test_each_basis_has_its_own_windows():
    """Link-local and port 53 are counted apart, and the configured one is held to thresholds."""
    ring, by_dns = Ring(), tracker("dns")
    ring.count(FIRST, 10, dns=2000)
    seen = by_dns.update(ring.read(), FIRST + 1)
    assert seen.peak_pps == {"linklocal": 10.0, "dns": 2000.0}
    assert by_dns.over_threshold_slots == {0.7: 1, 0.9: 1, 1.0: 1}


def test_time_over_a_threshold_is_the_windows_not_the_bursts():
    """A burst of one slot keeps the sliding second over the mark for one second."""
    ring, windows = Ring(), tracker()
    ring.count(FIRST + 15, 1000)
    windows.update(ring.read(), FIRST + 60)
    assert windows.over_threshold_slots == {0.7: 10, 0.9: 10, 1.0: 0}


def test_exactly_the_threshold_is_not_over_it():
    """1024 packets a second are allowed."""
    ring, windows = Ring(), tracker()
    ring.count(FIRST, 1024)
    windows.update(ring.read(), FIRST + 5)
    assert windows.over_threshold_slots[1.0] == 0


def test_a_reader_who_comes_too_late_knows_what_was_lost():
    """Slots written over before they were read are counted, one by one."""
    ring, windows = Ring(), tracker()
    for number in range(FIRST, FIRST + 100):
        ring.count(number, 1)
    windows.update(ring.read(), FIRST + 100)
    assert windows.missed_slots == 100 - RING_SLOTS


def test_the_slot_just_behind_the_ring_may_be_gone_too():
    """The slot in progress has taken the place of the one a whole ring before it."""
    ring, windows = Ring(), tracker()
    ring.count(FIRST, 700)
    ring.count(FIRST + RING_SLOTS, 1)
    windows.update(ring.read(), FIRST + RING_SLOTS)
    assert windows.missed_slots == 1


def test_silence_is_not_a_loss():
    """After a long pause without packets nothing was written over, so nothing was missed."""
    ring, windows = Ring(), tracker()
    ring.count(FIRST, 800)
    late = FIRST + 10 * PEAK_HORIZON_SLOTS
    seen = windows.update(ring.read(), late)
    assert windows.missed_slots == 0
    assert seen.peak_pps["linklocal"] == 0.0
    ring.count(late, 300)
    assert windows.update(ring.read(), late + 1).window_pps["linklocal"] == 300.0


def test_two_looks_in_one_slot_change_nothing():
    """A second look at once finds no fresh window, and keeps the rest."""
    ring, windows = Ring(), tracker()
    ring.count(FIRST, 400)
    first = windows.update(ring.read(), FIRST + 1)
    again = windows.update(ring.read(), FIRST + 1)
    assert again.fresh_peak_pps["linklocal"] == 0.0
    assert (again.peak_pps, again.window_pps) == (first.peak_pps, first.window_pps)


def test_history_is_a_minute_of_whole_seconds():
    """At most 60 values, the oldest first; a second that is not yet whole is not shown."""
    ring, windows = Ring(), tracker()
    seen = None
    for second in range(70):
        for slot in range(10):
            ring.count(FIRST + second * 10 + slot, second)
        seen = windows.update(ring.read(), FIRST + second * 10 + 10)
    assert seen.history_pps["linklocal"] == tuple(10.0 * second for second in range(10, 70))
    young = tracker()
    assert young.update((), FIRST + 9).history_pps["linklocal"] == ()
    assert young.update((), FIRST + 10).history_pps["linklocal"] == (0.0,)


def test_counting_that_begins_later_knows_nothing_of_before():
    """Slots from before the first one are not taken in: they were another agent's."""
    ring, windows = Ring(), tracker(first=FIRST + 5)
    ring.count(FIRST + 4, 999)
    ring.count(FIRST + 5, 1)
    assert windows.update(ring.read(), FIRST + 6).peak_pps["linklocal"] == 1.0
