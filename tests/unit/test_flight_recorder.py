"""Ten minutes of every ENI: each slot exact or unknown, however late and rarely it is looked at."""

import gc
import random
import secrets
import tracemalloc
from itertools import count, pairwise

import pytest
from eni53.flight.recorder import MAX_ENIS, Recorder
from eni53.flight.rings import KEPT_SLOTS
from eni53.model import Count, Workload
from eni53.rates import RING_SLOTS

from tests.fixtures.flights import BEGIN, EXCEEDED, Wire, row, slots_of
from tests.fixtures.snapshots import NOON_S

SEED = secrets.randbits(32)
REACH = RING_SLOTS - 2
"""Slots that a look can see whole: the one in progress and the next may have the others' place."""


@pytest.fixture
def recorder():
    """One that has seen nothing."""
    return Recorder()


def pattern(rng):
    """Packets of one slot: (link-local, DNS)."""
    kind = rng.random()
    if kind < 0.4:
        return 0, 0
    return (rng.randrange(200), rng.randrange(200)) if kind < 0.95 else (rng.randrange(30_000), 0)


def walk(rng, recorder, wire, ticks):
    """Let the ENIs send at random while the recorder looks every so many slots; the end."""
    now = BEGIN
    recorder.update(wire.look(now))
    for length in ticks:
        for number in range(now, now + length + 1):
            for label in wire.sent:
                packets = pattern(rng)
                # The slot in progress has begun: what it holds by now is not all of it.
                if any(packets) and (number < now + length or rng.random() < 0.5):
                    wire.send(label, number, *packets)
        now += length
        recorder.update(wire.look(now))
    return now


class TestExact:
    """Nothing is lost and nothing is made up."""

    @pytest.mark.parametrize("longest", [1, 10, 60])
    def test_every_slot_over_more_than_ten_minutes(self, recorder, longest):
        """Random packets, random looks 0.1 to 6 s apart: each slot and so their sum."""
        print(f"seed {SEED}")
        rng = random.Random(SEED)
        wire = Wire("eni-1", "eni-2")
        lengths = iter(lambda: rng.randint(1, longest), 0)
        ticks, left = [], KEPT_SLOTS + 1500
        while left > 0:
            ticks.append(next(lengths))
            left -= ticks[-1]
        end = walk(rng, recorder, wire, ticks)
        cut = recorder.cut(end - KEPT_SLOTS, end)
        for label in wire.sent:
            for dns in (False, True):
                truth = wire.truth(label, end - KEPT_SLOTS, end, dns=dns)
                assert slots_of(cut, label, dns=dns) == truth
                assert sum(truth) > 100_000
        older = recorder.cut(end - KEPT_SLOTS - 50, end - KEPT_SLOTS)
        assert {*slots_of(older, "eni-1")} == {None}

    def test_before_the_first_look_and_after_the_last_nothing_is_known(self, recorder):
        """The first look says what was; whether all of it, nobody knows."""
        wire = Wire()
        for number in range(BEGIN - 40, BEGIN + 10):
            wire.send("eni-1", number, 4)
        for now in (BEGIN, BEGIN + 10):
            recorder.update(wire.look(now))
        cut = recorder.cut(BEGIN - 30, BEGIN + 15)
        assert slots_of(cut, "eni-1") == (None,) * 30 + (4,) * 10 + (None,) * 5

    @pytest.mark.parametrize("late", [61, 62, 63, 64, 65, 70, 128, 200, KEPT_SLOTS + 300])
    def test_a_look_that_comes_too_late_leaves_unknown_what_is_overwritten(self, recorder, late):
        """Of an ENI that sends all the time just that; the slots around it are exact."""
        wire = Wire()
        recorder.update(wire.look(BEGIN))
        for number in range(BEGIN, BEGIN + late + 21):
            wire.send("eni-1", number, 1 + number % 5)
            if number in {BEGIN + 10, BEGIN + 10 + late, BEGIN + 20 + late}:
                recorder.update(wire.look(number))
        lost = max(0, late - (RING_SLOTS - 1))
        cut = recorder.cut(BEGIN + late + 20 - KEPT_SLOTS, BEGIN + late + 20)
        truth = wire.truth("eni-1", BEGIN, BEGIN + late + 20)
        known = (*truth[:10], *[None] * lost, *truth[10 + lost :])
        assert slots_of(cut, "eni-1") == ((None,) * KEPT_SLOTS + known)[-KEPT_SLOTS:]

    def test_what_is_known_is_never_wrong(self, recorder):
        """Random looks, some far too late: unknown only where the kernel's ring had gone by."""
        print(f"seed {SEED}")
        rng = random.Random(SEED)
        wire = Wire("eni-1", "eni-2", "eni-3")
        ticks = [rng.choice([1, 5, 10, 10, 10, 60, 64, 90, 190]) for _ in range(150)]
        end = walk(rng, recorder, wire, ticks)
        looks = [BEGIN + sum(ticks[:n]) for n in range(len(ticks) + 1)]
        may_be_unknown = {
            number for before, now in pairwise(looks) for number in range(before, now - REACH)
        }
        first = max(BEGIN, end - KEPT_SLOTS)
        for label in wire.sent:
            known = slots_of(recorder.cut(first, end), label)
            wrong = [
                first + at
                for at, (found, sent) in enumerate(
                    zip(known, wire.truth(label, first, end), strict=True)
                )
                if found != sent and (found is not None or first + at not in may_be_unknown)
            ]
            assert wrong == []
            assert None in known

    def test_a_snapshot_that_is_not_newer_is_passed_over(self, recorder):
        """`record` asks oftener than there is news; one that tells no slot says nothing."""
        wire = Wire()
        assert recorder.slot is None
        recorder.update(wire.look(BEGIN, eni1={"packets": 5}))
        wire.send("eni-1", BEGIN + 2, 9)
        recorder.update(wire.look(BEGIN + 5))
        for now in (BEGIN + 5, BEGIN + 4, BEGIN):
            recorder.update(wire.look(now, eni1=EXCEEDED))
        for slot in (None, 2**63, 2**64):
            object.__setattr__(snapshot := wire.look(BEGIN + 9), "slot", slot)
            recorder.update(snapshot)
        assert recorder.slot == BEGIN + 5
        cut = recorder.cut(BEGIN, BEGIN + 10)
        assert slots_of(cut, "eni-1") == (0, 0, 9, 0, 0, *[None] * 5)
        assert [(s.at, s.state) for s in cut.enis[0].seconds] == [(0, "ok"), (5, "ok")]


class TestComeAndGo:
    """ENIs that were not there all the time."""

    def test_one_that_appears_later_is_known_from_the_look_before(self, recorder):
        """It was not there then, so none of its packets were missed."""
        wire = Wire()
        for now in range(BEGIN, BEGIN + 100, 10):
            wire.send("eni-1", now)
            recorder.update(wire.look(now))
        wire.come("eni-2")
        wire.send("eni-2", BEGIN + 97, 3)
        recorder.update(wire.look(BEGIN + 100))
        cut = recorder.cut(BEGIN, BEGIN + 100)
        assert slots_of(cut, "eni-2") == (None,) * 90 + (0,) * 7 + (3, 0, 0)

    def test_one_that_wakes_up_had_been_silent(self, recorder):
        """It takes no room before its first packet, and its silence is known all the same."""
        wire = Wire("eni-1", "eni-2")
        for now in range(BEGIN, BEGIN + KEPT_SLOTS + 300, 60):
            wire.send("eni-1", now)
            recorder.update(wire.look(now))
        assert [one.eni.label for one in recorder.cut(now, now).enis] == ["eni-1"]
        wire.send("eni-2", now + 8, 2, 2)
        recorder.update(wire.look(now + 10))
        found = slots_of(recorder.cut(now + 10 - KEPT_SLOTS, now + 10), "eni-2")
        assert found == (0,) * (KEPT_SLOTS - 2) + (2, 0)

    def test_one_that_wakes_up_while_nobody_looks_is_unknown_only_there(self, recorder):
        """Until the look before it had sent nothing, however late the next one is."""
        wire = Wire()
        for now in (BEGIN, BEGIN + 10, BEGIN + 300):
            recorder.update(wire.look(now))
        for number in range(BEGIN + 320, BEGIN + 421):
            wire.send("eni-1", number)
        recorder.update(wire.look(BEGIN + 420))
        found = slots_of(recorder.cut(BEGIN, BEGIN + 420), "eni-1")
        assert found == (0,) * 300 + (None,) * 57 + (1,) * 63

    def test_an_idle_one_is_nothing_and_never_what_it_was(self, recorder):
        """Its last packets still stand in the kernel's ring an hour later."""
        wire = Wire()
        wire.send("eni-1", BEGIN + 5, 40)
        for now in range(BEGIN, BEGIN + 2 * KEPT_SLOTS, 60):
            recorder.update(wire.look(now))
        known = slots_of(recorder.cut(now - KEPT_SLOTS, now), "eni-1")
        assert set(known) == {0}

    def test_one_that_goes_and_comes_back_is_unknown_in_between(self, recorder):
        """With it went what its ring held since the last look."""
        wire = Wire("eni-1", "eni-2")
        for now in range(BEGIN, BEGIN + 50, 10):
            wire.send("eni-1", now + 1, 6)
            recorder.update(wire.look(now + 10))
        wire.send("eni-1", BEGIN + 52, 9)
        wire.go("eni-1")
        recorder.update(wire.look(BEGIN + 60))
        wire.come("eni-1")
        wire.send("eni-1", BEGIN + 75, 2)
        recorder.update(wire.look(BEGIN + 80))
        known = slots_of(recorder.cut(BEGIN + 40, BEGIN + 80), "eni-1")
        assert known == (0, 6, *[0] * 8, *[None] * 10, *[0] * 15, 2, *[0] * 4)

    def test_one_that_came_back_before_anybody_looked_is_unknown_as_well(self, recorder):
        """Its count fell: where it is not seen, nobody knows what went with the old ring."""
        wire = Wire()
        recorder.update(wire.look(BEGIN))
        for number in range(BEGIN, BEGIN + 20):
            wire.send("eni-1", number)
        recorder.update(wire.look(BEGIN + 10))
        wire.go("eni-1")
        wire.come("eni-1")
        wire.send("eni-1", BEGIN + 26, 4)
        recorder.update(wire.look(BEGIN + 30))
        recorder.update(wire.look(BEGIN + 40))
        known = slots_of(recorder.cut(BEGIN, BEGIN + 40), "eni-1")
        assert known == (1,) * 10 + (None,) * 16 + (4,) + (None,) * 3 + (0,) * 10

    def test_one_that_is_gone_for_long_is_forgotten(self, recorder):
        """As long as it is within the ten minutes it is in a file, then no more."""
        wire = Wire("eni-1", "eni-2")
        rows = {"workloads": (row(Workload("pod", "shop", "web-1")),)}
        for now in range(BEGIN, BEGIN + 2 * KEPT_SLOTS, 10):
            if now == BEGIN + 100:
                wire.go("eni-1")
            for label in wire.look(now).enis:
                wire.send(label.eni.label, now, 1)
            recorder.update(wire.look(now + 5, eni1=rows))
            first = now + 5 - KEPT_SLOTS
            there = {one.eni.label for one in recorder.cut(first, first + 5).enis}
            assert ("eni-1" in there) == (now <= BEGIN + 90 + KEPT_SLOTS)
            assert len(recorder._names) == ("eni-1" in there)
            if now > BEGIN + 100:
                assert [e.eni.label for e in recorder.cut(now, now + 5).enis] == ["eni-2"]


class TestManyEnis:
    """More than there is room for."""

    def test_the_one_that_was_silent_longest_makes_room(self, recorder):
        """It is back with its next packet, and what it sent meanwhile is not known."""
        labels = [f"eni-{n}" for n in range(MAX_ENIS + 1)]
        wire = Wire(*labels)
        recorder.update(wire.look(BEGIN))
        for at, label in enumerate(labels[:-1]):
            wire.send(label, BEGIN + 1 + at // 8, 2)
        recorder.update(wire.look(BEGIN + 20))
        wire.send(labels[0], BEGIN + 21, 2)
        wire.send(labels[-1], BEGIN + 22, 7)
        recorder.update(wire.look(BEGIN + 30))
        there = {one.eni.label for one in recorder.cut(BEGIN, BEGIN + 30).enis}
        assert {*labels} - there == {labels[1]}
        known = slots_of(recorder.cut(BEGIN, BEGIN + 30), labels[-1])
        assert known == (0,) * 22 + (7,) + (0,) * 7

        wire.send(labels[1], BEGIN + 35, 3)
        recorder.update(wire.look(BEGIN + 40))
        known = slots_of(recorder.cut(BEGIN, BEGIN + 40), labels[1])
        assert known == (None,) * 20 + (0,) * 15 + (3,) + (0,) * 4
        assert len(recorder.cut(BEGIN, BEGIN + 40).enis) == MAX_ENIS

    def test_who_made_room_and_is_back_later_is_unknown_meanwhile(self, recorder):
        """All that is known of it is what the kernel's ring still holds."""
        labels = [f"eni-{n}" for n in range(MAX_ENIS + 1)]
        wire = Wire(*labels)
        wire.send(labels[0], BEGIN)
        for now in range(BEGIN + 10, BEGIN + 310, 10):
            for label in labels[1:] if now < BEGIN + 300 else labels[:1]:
                wire.send(label, now - 5)
            recorder.update(wire.look(now))
        known = slots_of(recorder.cut(BEGIN, BEGIN + 300), labels[0])
        assert known[:238] == (None,) * 238
        assert known[-REACH:] == (*[0] * 57, 1, *[0] * 4)

    def test_silent_ones_do_not_drive_out_those_that_send(self, recorder):
        """An ENI that sent something an hour ago has no claim on the room of one that sends."""
        busy = [f"eni-{n}" for n in range(MAX_ENIS)]
        wire = Wire(*busy, *[f"idle-{n}" for n in range(40)])
        for label in wire.sent:
            wire.send(label, BEGIN)
        for now in range(BEGIN, BEGIN + 1500, 10):
            for at, label in enumerate(busy):
                if at % 8 == now // 10 % 8:  # each every eight seconds
                    wire.send(label, now)
            recorder.update(wire.look(now + 10))
        cut = recorder.cut(BEGIN + 200, now)
        assert {one.eni.label for one in cut.enis} == {*busy}
        for label in busy:
            assert slots_of(cut, label) == wire.truth(label, BEGIN + 200, now)

    def test_two_that_send_without_end_do_not_take_turns(self, recorder):
        """One of sixty-five has no room; the memory of the others is whole."""
        labels = [f"eni-{n}" for n in range(MAX_ENIS + 1)]
        wire = Wire(*labels)
        for now in range(BEGIN, BEGIN + 500, 10):
            for label in labels:
                wire.send(label, now + 3)
            recorder.update(wire.look(now + 10))
        cut = recorder.cut(BEGIN + 10, now)
        assert len(cut.enis) == MAX_ENIS
        assert all(None not in one.linklocal for one in cut.enis)

    def test_who_makes_room_leaves_no_name_behind(self, recorder):
        """ENIs of tasks come and go all day, each with a workload of its own."""
        labels = [f"eni-{n}" for n in range(MAX_ENIS + 30)]
        wire = Wire(*labels)
        for at, now in enumerate(range(BEGIN, BEGIN + 3000, 10)):
            wire.send(labels[at % len(labels)], now)
            rows = {
                f"eni{n}": {"workloads": (row(Workload("pod", "shop", f"web-{n}")),)}
                for n in range(len(labels))
            }
            recorder.update(wire.look(now + 10, **rows))
        assert len(recorder._names) == MAX_ENIS


class TestSeconds:
    """What is kept besides the slots."""

    def test_looks_out_of_turn_are_thinned_out_but_for_what_got_worse(self, recorder):
        """Ten a second come while a level is crossed; the one that crossed is what counts."""
        wire = Wire("eni-1", "eni-2")
        for label in wire.sent:
            wire.send(label, BEGIN)
        for now in range(BEGIN + 1, BEGIN + 40):
            worse = {"eni2": EXCEEDED} if 13 <= now - BEGIN < 30 else {}
            recorder.update(wire.look(now, **worse))
        cut = recorder.cut(BEGIN, BEGIN + 39)
        ats = [[second.at for second in one.seconds] for one in cut.enis]
        assert ats == [[1, 6, 11, 13, 18, 23, 28, 33, 38]] * 2
        states = [second.state for one in cut.enis for second in one.seconds]
        assert states == ["ok"] * 12 + ["exceeded"] * 4 + ["ok"] * 2
        assert slots_of(cut, "eni-1") == (None, *[0] * 38)

    def test_the_first_look_at_an_eni_is_always_kept(self, recorder):
        """Else it would be in no file that is written there and then."""
        wire = Wire("eni-1", "eni-2")
        recorder.update(wire.look(BEGIN))
        wire.send("eni-2", BEGIN)
        recorder.update(wire.look(BEGIN + 1))
        [one] = recorder.cut(BEGIN, BEGIN + 1).enis
        assert (one.eni.label, [second.at for second in one.seconds]) == ("eni-2", [1])

    def test_a_cut_says_what_it_is_of(self, recorder):
        """Node, time of its begin, moment, and the busiest ENI on its basis first."""
        wire = Wire("eni-1", "eni-2", "eni-3", "eni-4")
        recorder.update(wire.look(BEGIN))
        for label, linklocal, dns in (("eni-1", 2, 9), ("eni-2", 7, 0), ("eni-3", 99, 1)):
            wire.send(label, BEGIN + 5, linklocal, dns)
        recorder.update(wire.look(BEGIN + 10, eni3={"basis": "dns"}))
        cut = recorder.cut(BEGIN - 20, BEGIN + 8, "exceeded", "eni-2", BEGIN + 7)
        assert [one.eni.label for one in cut.enis] == ["eni-2", "eni-1", "eni-3"]
        assert (cut.node, cut.reason, cut.eni) == ("node-1", "exceeded", "eni-2")
        assert (cut.slots, cut.moment) == (28, 27)
        assert cut.begin_s == pytest.approx(NOON_S - 2, abs=0.001)
        assert all(len(one.linklocal) == len(one.dns) == 28 for one in cut.enis)

    def test_slots_that_make_no_sense_still_have_a_time(self, recorder):
        """Whoever answers at the agent's port may count its slots as it likes."""
        wire = Wire()
        wire.send("eni-1", BEGIN)
        for now in (BEGIN, 2**62):
            recorder.update(wire.look(now))
            object.__setattr__(recorder, "_time_s", NOON_S)
        assert recorder.cut(BEGIN, BEGIN + 100).begin_s == 0.0


def crowd(numbers, size):
    """Rows of so many workloads that were not there before."""
    names = (f"web-{n % 9}:7/{n:032x}" for n, _ in zip(numbers, range(size), strict=False))
    return [row(Workload("ecs_task", "prod", name, "app"), 30.25) for name in names]


def test_what_fifteen_busy_enis_cost():
    """Twelve minutes, twelve workloads on each ENI, a fifth of them new every ten seconds."""
    rng, numbers = random.Random(3), count()
    wire = Wire(*[f"eni-{n}" for n in range(15)])
    classes = {name: Count(1000, 20.5) for name in ("resolver", "dns_other", "imds")}
    running = {label: crowd(numbers, 12) for label in wire.sent}
    gc.collect()
    tracemalloc.start()
    try:
        recorder = Recorder()
        for now in range(BEGIN, BEGIN + 7200, 10):
            changes = {}
            for label, tasks in running.items():
                if rng.random() < 0.24:
                    tasks[rng.randrange(12)] = crowd(numbers, 1)[0]
                for number in (now, now + 5):
                    wire.send(label, number, 60, 50)
                rows = {"workloads": tuple(rng.sample(tasks, 6)), "classes": classes}
                changes[label.replace("-", "")] = rows
            recorder.update(wire.look(now + 10, **changes))
            for sent in wire.sent.values():
                sent.clear()
        del changes, rows, running, tasks
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
        names = len(recorder._names)
        del recorder
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    mib = (grown - left) / 2**20
    print(f"{mib:.2f} MiB for 15 busy ENIs, {names} workloads")
    assert 1.5 < mib < 5


def test_a_cut_of_some_has_the_busiest_and_the_one_it_is_for():
    """The others are left out whole."""
    wire = Wire(*[f"eni-{n}" for n in range(5)])
    recorder = Recorder()
    recorder.update(wire.look(BEGIN))
    for number in range(BEGIN, BEGIN + 20):
        for n, label in enumerate(wire.sent):
            wire.send(label, number, n + 1, 0)
    recorder.update(wire.look(BEGIN + 20))
    cut = recorder.cut(BEGIN, BEGIN + 20, "exceeded", "eni-0", BEGIN + 10, 2)

    assert [one.eni.label for one in cut.enis] == ["eni-4", "eni-3", "eni-0"]
    assert all(one.seconds for one in cut.enis)
