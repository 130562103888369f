"""From a recording back to what the agent said: the same numbers, and nothing made up."""

import random
import secrets
import time
from dataclasses import replace

import pytest
from eni53.config import load
from eni53.culprits import Culprits
from eni53.findings import DropWatch, eni_findings
from eni53.flight.recorder import Recorder
from eni53.flight.recording import Second, Top
from eni53.flight.recording_json import dumps, loads
from eni53.flight.replay import Frames
from eni53.inventory.cgroups import CgroupTree
from eni53.inventory.workloads import Workloads
from eni53.kernel.layout import SLOT_NS
from eni53.model import CLASSES, OTHER, Count, Eni, Snapshot, Workload
from eni53.pipeline import Pipeline
from eni53.rates import RING_SLOTS
from eni53.sample import Slot

from tests.fixtures.flights import BEGIN, an_eni, drops, recorded, recording
from tests.fixtures.samples import Kernel, container, counters, task
from tests.fixtures.snapshots import API, NOON_S

SEED = secrets.randbits(32)
FIRST, SECOND = Eni("eni-1", "02:00:00:00:00:01", "ens5", "host", 2), an_eni("eni-2")
SECOND = replace(SECOND, ifindex=3)
TASKS = 8
PLACES = {"eni-1": (2, 0), "eni-2": (3, 0)}


class Node:
    """The agent's own pipeline, over a kernel that counts by slot, and a recorder beside it."""

    def __init__(self, basis):
        self.kernel, self.workloads = Kernel(), Workloads()
        self.kernel.overflow = {place: {} for place in PLACES.values()}
        self.slots = {place: {} for place in PLACES.values()}
        for n in range(TASKS):
            self.workloads.add(container(f"c{n}", task(f"web-{n}"), netns=50 + n, nsid=n))
            self.workloads.veth_appeared(100 + n, n)
            self.kernel.origin(100 + n, 0, tag=n + 1)
        config = load(None, {}, {"limit.basis": basis})
        started_ns = BEGIN * SLOT_NS
        self.pipeline = Pipeline(config, self.workloads, CgroupTree(None), started_ns)
        self.pipeline.add_eni(FIRST)
        self.drops, self.culprits = DropWatch(), Culprits()
        self.recorder, self.told = Recorder(), {}

    def send(self, label, number, packets, who, name="resolver"):
        """Packets of one class from one task in one slot."""
        place = PLACES[label]
        self.kernel.send(packets, tag=who + 1, ingress=100 + who, eni=place, cell=(name, "udp"))
        ring = self.slots[place]
        before = ring.get(number % RING_SLOTS)
        old = before if before and before.number == number else Slot(number, 0, 0)
        ring[number % RING_SLOTS] = Slot(
            number,
            old.linklocal + packets * (name != "dns_other"),
            old.dns + packets * (name in {"resolver", "dns_other"}),
        )

    def look(self, now):
        """A tick of the agent's, in the middle of slot *now*."""
        sample = replace(
            self.kernel.sample((now + 0.5) * SLOT_NS / 1e9),
            enis={place: counters(tuple(ring.values())) for place, ring in self.slots.items()},
        )
        _, enis = self.pipeline.update(sample, range(100, 100 + TASKS), since_start=False,
                                       last=False)  # fmt: skip
        self.drops.update(enis, now / 10)
        self.culprits.update(enis, now)
        found = tuple(eni_findings(enis, self.drops, self.culprits))
        snapshot = Snapshot("node-1", NOON_S + (now - BEGIN) / 10, 1.0, enis, found, slot=now)
        self.recorder.update(snapshot)
        self.told[now] = snapshot


def storm(basis, seed):
    """Two minutes of a node: a calm ENI with drops, and one that goes over its limit."""
    rng, node, now = random.Random(seed), Node(basis), BEGIN
    node.look(now)
    dropped = 40
    while now < BEGIN + 1200:
        if now > BEGIN + 300 and not node.slots[PLACES["eni-2"]]:
            node.pipeline.add_eni(SECOND)
            node.send("eni-2", now, 1, 0)
        length = rng.choice([10, 10, 10, 10, 1, 2, 7, 31, 58])
        for number in range(now, now + length):
            hot = 600 <= number - BEGIN < 700
            for who in range(TASKS):
                if rng.random() < 0.7:
                    packets = rng.randint(1, 120 if hot else 12 - who)
                    name = rng.choice(["resolver", "resolver", "resolver", "imds"])
                    node.send("eni-1", number, packets, who, name)
            if node.slots[PLACES["eni-2"]] and rng.random() < 0.3:
                node.send("eni-2", number, 2, rng.randrange(2), rng.choice(CLASSES))
        now += length
        dropped += rng.choice([0, 0, 0, 7])
        node.pipeline.allowances = {3: drops(dropped)["allowances"]}
        node.look(now)
    return node, now


@pytest.fixture(scope="module", params=["linklocal", "dns"])
def played(request):
    """The node, and the frames of a recording of all of it that was a file meanwhile."""
    print(f"seed {SEED}")
    node, now = storm(request.param, SEED)
    frames = Frames(loads(dumps(node.recorder.cut(BEGIN, now))))
    pairs = [
        (node.told[BEGIN + shown.slot], shown)
        for shown in map(frames.frame, range(len(frames)))
    ]  # fmt: skip
    return frames, pairs


def usages(pairs):
    """Each ENI as it was told and as it is shown."""
    for told, shown in pairs:
        before = {usage.eni.label: usage for usage in told.enis}
        for usage in shown.enis:
            yield before[usage.eni.label], usage


class TestAsItWas:
    """Every frame is the snapshot that was told, as far as a recording holds it."""

    def test_nothing_is_missing(self, played):
        """Every look that was kept and had a whole second behind it, of both ENIs."""
        frames, pairs = played
        assert len(frames) > 40
        assert {len(shown.enis) for _, shown in pairs} == {1, 2}
        assert [shown.time_s for _, shown in pairs] == list(frames.times_s)
        assert all(abs(told.time_s - shown.time_s) < 0.1 for told, shown in pairs)
        assert {shown.node for _, shown in pairs} == {"node-1"}
        assert {s.state for told, shown in pairs for s in shown.enis} >= {"ok", "exceeded"}

    def test_windows_peaks_and_history(self, played):
        """To the packet: they are made anew from the slots."""
        for told, shown in usages(played[1]):
            assert shown.window_pps == told.window_pps
            assert shown.peak_pps == told.peak_pps
            assert shown.utilization == told.utilization
            assert shown.history_pps == told.history_pps

    def test_states_limits_and_classes(self, played):
        """As they were told; a class that was never seen is there with nothing."""
        for told, shown in usages(played[1]):
            assert (shown.state, shown.limit_pps, shown.basis, shown.packets) == (
                told.state, told.limit_pps, told.basis, told.packets,
            )  # fmt: skip
            assert {c: n.packets for c, n in shown.classes.items()} == {
                c: n.packets for c, n in told.classes.items()
            }
            for name, count in told.classes.items():
                assert shown.classes[name].pps == pytest.approx(count.pps, abs=0.002)

    def test_the_busiest_and_the_rest(self, played):
        """Five rows as they were, and one for all others: their sums are those of the ENI."""
        five = 0
        for told, shown in usages(played[1]):
            top = [row for row in told.workloads if row.pps][:5]
            assert [(r.workload, r.via, r.packets) for r in shown.workloads[: len(top)]] == [
                (r.workload, r.via, r.packets) for r in top
            ]
            for before, row in zip(top, shown.workloads, strict=False):
                assert row.pps == pytest.approx(before.pps, abs=0.002)
                assert row.share == pytest.approx(before.share, abs=2e-6)
            others = told.workloads[len(top) :]
            five += len(others) > 1
            assert len(shown.workloads) == len(top) + bool(others)
            assert sum(row.packets for row in shown.workloads) == told.packets
            if others:
                rest = shown.workloads[-1]
                assert rest.workload == OTHER
                assert rest.pps == pytest.approx(sum(r.pps for r in others), abs=0.02)
                assert rest.share == pytest.approx(sum(r.share for r in others), abs=2e-5)
        assert five > 10

    def test_findings(self, played):
        """Over the limit and what the driver dropped, in the same words.

        The workload that is named is of the five; who sends more on the basis may not be, where
        others send more in all.
        """
        codes, same = set(), 0
        for told, shown in played[1]:
            there = {usage.eni.label for usage in shown.enis}
            wanted = [f for f in told.findings if f.code != "growing" and f.eni in there]
            assert [(f.code, f.severity, f.eni) for f in shown.findings] == [
                (f.code, f.severity, f.eni) for f in wanted
            ]
            for before, after in zip(wanted, shown.findings, strict=True):
                # How long a recording looks back is its own affair.
                was, shows = (f.summary.partition(" in the last ")[0] for f in (before, after))
                assert shows.partition(";")[0] == was.partition(";")[0]
                assert after.workload != "other"
                same += shows == was
                codes.add(after.code)
        assert codes >= {"over-limit", "driver-drops"}
        assert same > 20

    def test_the_worst_is_the_fullest_second(self, played):
        """On the ENI's basis."""
        frames, pairs = played
        heights = [
            max(usage.window_pps[usage.basis] / usage.limit_pps for usage in shown.enis)
            for _, shown in pairs
        ]
        assert heights[frames.worst()] == max(heights) > 1


def one_eni(slots, *seconds, basis="linklocal", label="eni-1"):
    """An ENI with these slots, looked at in these seconds."""
    eni = replace(recorded(label), linklocal=tuple(slots), dns=tuple(slots), basis=basis)
    return replace(eni, seconds=seconds)


def look(at, *top, dropped=None, **classes):
    """A second."""
    return Second(at, "ok", dropped, classes, top)


def frames_of(*enis, **changes):
    """The frames of a recording of these ENIs."""
    told = recording(*enis, slots=len(enis[0].linklocal), **changes)
    frames = Frames(told)
    return [frames.frame(at) for at in range(len(frames))]


class TestNothingMadeUp:
    """What a recording does not hold."""

    def test_a_second_with_an_unknown_slot_is_left_out(self):
        """One unknown slot takes ten windows with it; history ends before it."""
        slots = [3] * 20 + [None] + [5] * 39
        shown = frames_of(one_eni(slots, *[look(at) for at in range(1, 61)]))
        assert [frame.slot for frame in shown] == [*range(10, 21), *range(31, 61)]
        assert shown[0].enis[0].history_pps == (30.0,)
        assert shown[10].enis[0].history_pps == (30.0, 30.0)
        assert shown[-1].enis[0].history_pps == (50.0, 50.0, 50.0)
        assert shown[-1].enis[0].peak_pps == {"linklocal": 50.0, "dns": 50.0}
        assert [slot.number for slot in shown[11].enis[0].slots] == [*range(20), *range(21, 31)]

    def test_slots_are_those_of_the_kernels_ring_that_hold_anything(self):
        """As in a snapshot: the one in progress is not among them."""
        [frame] = frames_of(one_eni([n % 3 for n in range(100)], look(90)))
        assert frame.enis[0].slots == tuple(
            Slot(n, n % 3, n % 3) for n in range(90 - RING_SLOTS + 1, 90) if n % 3
        )

    def test_unknown_on_one_basis_is_unknown(self):
        """Neither is shown without the other."""
        eni = one_eni([1] * 20, look(20))
        assert frames_of(replace(eni, dns=(*[1] * 15, None, *[1] * 4))) == []
        assert frames_of(replace(eni, linklocal=(*[1] * 15, None, *[1] * 4))) == []

    def test_an_eni_is_in_the_frames_in_which_it_is_known(self):
        """And in none before its first look, whatever its slots say."""
        always = one_eni([1] * 40, *[look(at) for at in range(0, 41, 10)])
        later = one_eni([None] * 15 + [2] * 25, look(30), look(40), label="eni-2")
        early = one_eni([2] * 12 + [None] * 28, look(10), label="eni-3")
        late = one_eni([2] * 40, look(35), label="eni-4")
        shown = frames_of(always, later, early, late)
        assert [(f.slot, [u.eni.label for u in f.enis]) for f in shown] == [
            (10, ["eni-1", "eni-3"]),
            (20, ["eni-1"]),
            (30, ["eni-1", "eni-2"]),
            (35, ["eni-1", "eni-2", "eni-4"]),
            (40, ["eni-1", "eni-2", "eni-4"]),
        ]

    def test_slots_and_no_look_or_looks_and_no_slot_are_nothing(self):
        """There is nothing to show, and no error either."""
        assert frames_of(one_eni([1] * 40)) == []
        assert frames_of(one_eni([None] * 40, look(20))) == []
        assert len(Frames(replace(recording(), enis=()))) == 0

    def test_peaks_reach_back_a_minute(self):
        """And a window that began before the minute counts, as it did live."""
        slots = [9] * 10 + [0] * 600
        shown = frames_of(one_eni(slots, look(609), look(610)), one_eni([1] * 610, label="eni-2"))
        assert [frame.enis[0].peak_pps["linklocal"] for frame in shown] == [90.0, 90.0]
        slots = [9] * 10 + [0] * 620
        [frame] = frames_of(one_eni(slots, look(620)))
        assert frame.enis[0].peak_pps["linklocal"] == 0.0

    def test_the_rest_has_no_share_where_nothing_is_on_the_basis(self):
        """All of it went to other resolvers: no share of the limit for anybody."""
        top = Top(API, "direct", 60, 6.0, 0.0)
        second = look(20, top, dns_other=Count(100, 10.0))
        [frame] = frames_of(one_eni([0] * 20, second))
        [first, rest] = frame.enis[0].workloads
        assert (first.share, rest.share, rest.pps, rest.packets) == (0.0, 0.0, 4.0, 40)

    def test_what_is_summed_up_already_is_in_the_rest(self):
        """One row for all others, not two of one name."""
        rows = (Top(OTHER, "direct", 30, 3.0, 0.3), Top(API, "direct", 20, 2.0, 0.2))
        [frame] = frames_of(one_eni([1] * 20, look(20, *rows, resolver=Count(100, 10.0))))
        shown = [(r.workload, r.packets, r.pps, r.share) for r in frame.enis[0].workloads]
        assert shown == [(API, 20, 2.0, 0.2), (OTHER, 80, 8.0, 0.8)]

    def test_rows_that_say_more_than_all_leave_no_rest(self):
        """Nothing below zero, whoever wrote the file."""
        rows = (Top(API, "direct", 99, 99.0, 0.9), Top(Workload("pod"), "direct", 1, 99.0, 0.9))
        [frame] = frames_of(one_eni([1] * 20, look(20, *rows, resolver=Count(100, 10.0))))
        assert len(frame.enis[0].workloads) == 2
        [frame] = frames_of(one_eni([1] * 20, look(20, *rows, resolver=Count(101, 10.0))))
        rest = frame.enis[0].workloads[-1]
        assert (rest.packets, rest.pps, rest.share) == (1, 0.0, 0.0)
        [frame] = frames_of(one_eni([1] * 20, look(20, *rows, resolver=Count(101, 999.0))))
        assert frame.enis[0].workloads[-1].share == 0.0

    def test_drops_are_those_since_the_recording_began(self):
        """A driver that is reset or silent in between takes nothing back."""
        counts = [5, 5, 9, None, 2, 3]
        looks = [look(10 * at + 10, dropped=count) for at, count in enumerate(counts)]
        shown = frames_of(one_eni([1] * 60, *looks))
        told = [
            next((f.evidence["linklocal_allowance_exceeded"] for f in frame.findings), 0)
            for frame in shown
        ]
        assert told == [0, 0, 4, 4, 4, 5]
        assert [frame.enis[0].allowances for frame in shown[2:4]] == [
            drops(9)["allowances"], None,
        ]  # fmt: skip

    def test_the_worst_is_of_the_eni_it_was_made_for(self):
        """Also where another one was higher, while this one was not known."""
        ours = one_eni([1] * 20 + [8] * 10 + [None] * 10, *[look(at) for at in (20, 30, 40)])
        other = one_eni([99] * 40, *[look(at) for at in (20, 30, 40)], label="eni-2")
        whole = recording(ours, other, eni="eni-1")
        for eni, slot in (("eni-1", 30), ("eni-2", 20), (None, 20), ("eni-9", 20)):
            frames = Frames(replace(whole, eni=eni))
            assert frames.frame(frames.worst()).slot == slot


def test_ten_minutes_of_fifteen_enis_are_played_at_once():
    """It takes a moment to open, and no time to wind: each frame is made when it is shown."""
    classes = {name: Count(10**6, 20.5) for name in CLASSES}
    rows = tuple(Top(task(f"web-{n}"), "direct", 10**5, 20.25, 0.125) for n in range(5))
    seconds = tuple(Second(at, "ok", 7, classes, rows) for at in range(0, 6001, 10))
    enis = [
        replace(one_eni([20 + n] * 6000, *seconds), eni=an_eni(f"eni-{n}")) for n in range(15)
    ]  # fmt: skip
    text = dumps(recording(*enis, slots=6000))
    began_s = time.process_time()
    frames = Frames(loads(text))
    worst = frames.frame(frames.worst())
    opened_s = time.process_time() - began_s
    assert (len(frames), len(worst.enis)) == (600, 15)
    for at in range(0, 600, 20):
        frames.frame(at)
    per_frame_s = (time.process_time() - began_s - opened_s) / 30
    print(f"{len(text) >> 20} MiB opened in {opened_s:.2f} s, {per_frame_s * 1000:.1f} ms a frame")
    assert opened_s < 3
    assert per_frame_s < 0.1
