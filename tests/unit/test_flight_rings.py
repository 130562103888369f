"""The packed memory of one ENI, and the numbers that stand for names in it."""

import random

import pytest
from eni53.alerts import LINKLOCAL_DROPS
from eni53.flight.rings import KEPT_SLOTS, TOP, EniRing, Names
from eni53.model import CLASSES, STATES, Count, Workload
from eni53.sample import Slot

from tests.fixtures.flights import BEGIN, Wire, row

MOST_NAMES = 65_535


def workload(number):
    """One of many."""
    return Workload("pod", "shop", f"web-{number}", "web")


def usage(**changes):
    """An ENI as a snapshot has it."""
    return Wire().look(BEGIN, eni1=changes).enis[0]


@pytest.fixture
def names():
    """Of one recorder."""
    return Names()


@pytest.fixture
def ring(names):
    """Of an ENI that nothing is known of yet."""
    return EniRing(names, BEGIN)


class TestNames:
    """Small numbers for workloads."""

    def test_a_name_has_one_number_until_nobody_holds_it(self, names):
        """The same workload by another way is another name."""
        api = workload(1)
        first = names.hold(api, "direct")
        assert names.hold(api, "direct") == first
        assert names.hold(api, "cache") != first
        assert names.named(first) == (api, "direct")
        names.release(first)
        assert (names.named(first), len(names)) == ((api, "direct"), 2)
        names.release(first)
        assert len(names) == 1

    def test_a_number_that_is_free_is_given_again(self, names):
        """And stands for the new name alone; nobody else's number changes."""
        held = [names.hold(workload(n), "direct") for n in range(10)]
        for number in (held[3], held[7]):
            names.release(number)
        given = [names.hold(workload(n), "direct") for n in (70, 30, 40)]
        assert set(given[:2]) == {held[3], held[7]}
        assert given[2] not in held
        assert [names.named(n)[0] for n in given] == [workload(n) for n in (70, 30, 40)]
        kept = [n for n in held if n not in given]
        assert [names.named(n)[0].workload for n in kept] == [
            f"web-{n}" for n in range(10) if n not in {3, 7}
        ]

    def test_churn_leaves_nothing_behind(self, names):
        """A hundred thousand workloads later, what is held is what is there."""
        rng, held = random.Random(5), []
        for n in range(100_000):
            held.append((names.hold(workload(n), "direct"), n))
            if len(held) > 200:
                number, was = held.pop(rng.randrange(len(held)))
                assert names.named(number)[0] == workload(was)
                names.release(number)
        assert len(names) == len({number for number, _ in held}) == 200
        assert max(number for number, _ in held) <= 200

    def test_it_ends_at_what_two_bytes_can_say(self, names):
        """One more gets no number, until another one's is free."""
        numbers = {names.hold(workload(n), "direct") for n in range(MOST_NAMES)}
        assert (len(numbers), max(numbers)) == (MOST_NAMES, MOST_NAMES - 1)
        assert names.hold(workload(-1), "direct") is None
        assert names.hold(workload(5), "direct") is not None
        assert len(names) == MOST_NAMES
        names.release(17)
        assert names.hold(workload(-1), "direct") == 17
        assert names.hold(workload(-2), "direct") is None


class TestSlots:
    """Ten minutes of slots."""

    def test_a_slot_without_a_packet_is_nothing_where_it_is_known_and_unknown_before(self, ring):
        """What the kernel's ring did not reach back to is never zero."""
        ring.take_slots([Slot(BEGIN + 3, 7, 2)], BEGIN + 2, BEGIN + 6)
        assert ring.slots(BEGIN - 2, BEGIN + 8, dns=False) == (
            None, None, None, None, 0, 7, 0, 0, None, None,
        )  # fmt: skip
        assert ring.slots(BEGIN + 3, BEGIN + 5, dns=True) == (2, 0)

    def test_what_was_taken_stays_whatever_is_told_later(self, ring):
        """The kernel's ring is read ten times over: the first look at a slot is the whole slot."""
        ring.take_slots([Slot(BEGIN, 5, 5)], BEGIN, BEGIN + 1)
        ring.take_slots([Slot(BEGIN, 9, 9), Slot(BEGIN + 1, 2, 0)], BEGIN, BEGIN + 2)
        ring.take_slots([Slot(BEGIN, 1, 1), Slot(BEGIN + 9, 1, 1)], BEGIN, BEGIN + 1)
        assert ring.slots(BEGIN, BEGIN + 4, dns=False) == (5, 2, None, None)

    def test_a_slot_holds_so_many_and_no_more(self, ring):
        """A flood says its most; what cannot have been is not known."""
        counts = [65_533, 65_534, 65_535, 2**40, -1]
        slots = [Slot(BEGIN + at, n, 1) for at, n in enumerate(counts)]
        ring.take_slots(slots, BEGIN, BEGIN + 5)
        assert ring.slots(BEGIN, BEGIN + 5, dns=False) == (65_533, 65_534, 65_534, 65_534, None)
        assert ring.slots(BEGIN, BEGIN + 5, dns=True) == (1,) * 5

    @pytest.mark.parametrize("gap", [1, 60, KEPT_SLOTS - 1, KEPT_SLOTS, 3 * KEPT_SLOTS + 7])
    def test_silence_is_not_what_stood_there_ten_minutes_ago(self, ring, gap):
        """Round and round, a place in memory is many slots."""
        for now in range(BEGIN, BEGIN + KEPT_SLOTS, 10):
            ring.take_slots([Slot(now + n, 3, 3) for n in range(10)], now, now + 10)
        now = ring.sent_at + 1 + gap
        ring.take_slots((), 0, now)
        known = ring.slots(now - KEPT_SLOTS, now, dns=False)
        assert known == ((3,) * KEPT_SLOTS + (0,) * gap)[-KEPT_SLOTS:]
        assert ring.slots(now - KEPT_SLOTS - 1, now - KEPT_SLOTS, dns=False) == (None,)
        assert ring.slots(now, now + 2, dns=True) == (None, None)


class TestSeconds:
    """What a snapshot says besides."""

    @pytest.mark.parametrize("dropped", [None, 0, 2**63 - 1])
    @pytest.mark.parametrize("state", STATES)
    def test_it_comes_out_as_it_went_in(self, ring, state, dropped):
        """To a thousandth of a packet a second; classes never seen are absent."""
        rows = tuple(row(workload(n), 90.5 - n, 2**40 + n) for n in range(4))
        classes = {name: Count(at * 2**32, at * 1.125) for at, name in enumerate(CLASSES)}
        allowances = None if dropped is None else {LINKLOCAL_DROPS: dropped}
        ring.take_second(
            usage(state=state, workloads=rows, classes=classes, allowances=allowances), BEGIN + 70
        )
        [second] = ring.seconds(BEGIN + 60, BEGIN + 70)
        assert (second.at, second.state, second.dropped) == (10, state, dropped)
        assert second.classes == {name: classes[name] for name in CLASSES[1:]}
        assert [(top.workload, top.via, top.packets, top.pps, top.share) for top in second.top] == [
            (workload(n), "direct", 2**40 + n, 90.5 - n, 0.5) for n in range(4)
        ]

    def test_the_busiest_and_no_silent_one(self, ring):
        """Five, of those that sent in this second."""
        rows = [row(workload(n), float(n % 2)) for n in range(2 * TOP + 4)]
        ring.take_second(usage(workloads=tuple(rows)), BEGIN)
        [second] = ring.seconds(BEGIN, BEGIN)
        assert [top.workload for top in second.top] == [workload(n) for n in range(1, 2 * TOP, 2)]

    def test_only_those_asked_for_and_none_older_than_the_slots(self, ring, names):
        """And the names that only older ones held are forgotten."""
        for n in range(0, KEPT_SLOTS + 100, 10):
            ring.take_second(usage(workloads=(row(workload(n)),)), BEGIN + n)
        seconds = list(ring.seconds(0, 2 * BEGIN))
        assert len(seconds) == len(names) == KEPT_SLOTS // 10 + 1
        assert [s.at for s in ring.seconds(BEGIN + 5000, BEGIN + 5020)] == [0, 10, 20]
        ring.drop_before(2**63)
        assert len(names) == 0

    def test_what_an_impostor_says_fits(self, ring):
        """`eni53 record` asks whoever answers: an unknown class, numbers past all bounds."""
        wild = Count(2**64, 1e300)
        rows = (row(workload(1), 1e300, 2**64),)
        ring.take_second(
            usage(classes={"resolver": wild, "\x1b": wild, "imds": Count(1, 1.0)}, workloads=rows),
            BEGIN,
        )
        [second] = ring.seconds(BEGIN, BEGIN)
        assert second.classes["resolver"] == Count(2**64 - 1, 2.0**63)
        assert set(second.classes) == {"resolver", "imds"}
        assert (second.top[0].packets, second.top[0].pps) == (2**64 - 1, 2.0**63)

    def test_without_a_number_left_a_row_is_left_out(self, ring, names):
        """Sixty thousand names later the slots still count."""
        for n in range(MOST_NAMES - 1):
            names.hold(workload(n), "cache")
        ring.take_second(usage(workloads=(row(workload(-1)), row(workload(-2)))), BEGIN)
        [second] = ring.seconds(BEGIN, BEGIN)
        assert [top.workload for top in second.top] == [workload(-1)]
