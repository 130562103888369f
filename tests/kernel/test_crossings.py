"""A window that reaches a level wakes the agent: once, at once, and for the right packets."""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from eni53.kernel import bpf, layout
from eni53.kernel.layout import SLOT_NS, TASK_DEV
from eni53.kernel.levels import Crossing, Watch
from eni53.kernel.limits import Limits
from eni53.kernel.ring import Ring

from . import frames as f
from .kernel import Kernel
from .test_window import METADATA, OTHER_DNS, QUERY, calm_slot, now_number

WINDOW = layout.SETTINGS["WINDOW_SLOTS"]
ROOM = layout.SETTINGS["CROSSINGS_PAGES"] * Ring.PAGE
PARTS = (0.7, 0.9)
NEVER = 2**64 - 1
OTHER = 1  # the loopback device: besides the bench's own, frames can be run on it
_RECORD = 8 + layout.CROSSING.packer.size
_ENI = layout.ENI.packer


def field(name: str) -> int:
    """Where a field of the ENI's value begins."""
    return next(at for found, at, _ in layout.ENI.offsets() if found == name)


@pytest.fixture
def watch(bench: Kernel) -> Iterator[Watch]:
    """A limit of 100 for everybody; the ENI and the ring are empty."""
    watch = Watch(bench.loaded, bench.maps, PARTS, 100, "linklocal")
    bench.forget()
    watch.read()
    yield watch
    watch.close()
    bench.maps.set_limit(None, (NEVER,) * 3, "linklocal")


def send(kernel: Kernel, frame: bytes, times: int, **fields: int) -> None:
    """Packets, as fast as test runs go."""
    for _ in range(times):
        kernel.run("eni_egress", frame, **fields)


def packets(crossings: Sequence[Crossing]) -> list[int]:
    """How full the window was at each."""
    return [crossing.packets for crossing in crossings]


def value(kernel: Kernel, vlan: int = 0) -> bytearray:
    """The ENI's value, as it stands in the map."""
    key = layout.ENI_KEY.packer.pack(kernel.dev, vlan)
    found = bpf.map_lookup(kernel.loaded.maps["enis"], key, _ENI.size)
    assert found is not None
    return bytearray(found)


def write(kernel: Kernel, changed: bytes) -> None:
    """Put a crafted value in its place."""
    key = layout.ENI_KEY.packer.pack(kernel.dev, 0)
    bpf.map_update(kernel.loaded.maps["enis"], key, bytes(changed))


def test_a_burst_tells_each_level_once(bench: Kernel, watch: Watch) -> None:
    """At the very packet that reaches it, with that packet's time; the limit itself is allowed."""
    calm_slot()
    before_ns = time.monotonic_ns()
    send(bench, QUERY, 150)
    after_ns = time.monotonic_ns()
    found = watch.read()
    assert packets(found) == [70, 90, 101]
    assert {crossing.place for crossing in found} == {(bench.dev, 0)}
    times = [crossing.at_ns for crossing in found]
    assert [before_ns, *times, after_ns] == sorted([before_ns, *times, after_ns])


def test_no_level_is_reached_by_fewer(bench: Kernel, watch: Watch) -> None:
    """One packet less than a level wakes nobody."""
    calm_slot()
    send(bench, QUERY, 69)
    assert watch.read() == []
    send(bench, QUERY, 1)
    assert packets(watch.read()) == [70]


def test_one_packet_over_all_levels_tells_the_highest(bench: Kernel, watch: Watch) -> None:
    """A GSO packet of many segments jumps; what is below is known from it."""
    bench.run("eni_egress", QUERY, gso_segs=500)
    assert packets(watch.read()) == [500]


def test_a_level_that_is_held_is_told_once_a_second(bench: Kernel, watch: Watch) -> None:
    """For as long as it lasts, and no oftener: waking must not become the load."""
    begin_ns = time.monotonic_ns()
    while time.monotonic_ns() - begin_ns < 2_500_000_000:
        send(bench, QUERY, 40)
        time.sleep(0.02)
    at_slots = [crossing.at_ns // SLOT_NS for crossing in watch.read() if crossing.packets > 100]
    assert 2 <= len(at_slots) <= 3
    assert all(b - a >= WINDOW for a, b in itertools.pairwise(at_slots))


def test_the_sum_is_that_of_the_window(bench: Kernel, watch: Watch) -> None:
    """Sends over 1.6 s: a crossing has the packets of its slot and of the nine before it, so the
    oldest are forgotten as the window slides.
    """
    begin_ns = time.monotonic_ns()
    while time.monotonic_ns() - begin_ns < 1_600_000_000:
        send(bench, METADATA, 10)
        time.sleep(0.013)
    found = watch.read()
    ring = {slot.number: slot.linklocal for slot in bench.maps.read().enis[bench.dev, 0].slots}
    assert found
    for crossing in found:
        last = crossing.at_ns // SLOT_NS
        whole = sum(ring.get(number, 0) for number in range(last - WINDOW + 1, last + 1))
        earlier = whole - ring[last]
        assert earlier < crossing.packets <= whole
    # The level that was told again a second later: its window does not hold all that was sent.
    assert max(packets(found)) < sum(ring.values())


def test_what_is_older_than_a_second_is_forgotten(bench: Kernel, watch: Watch) -> None:
    """60 and 60 more than a second apart are never 120."""
    calm_slot()
    send(bench, QUERY, 60)
    time.sleep(1.15)
    send(bench, QUERY, 60)
    assert watch.read() == []
    send(bench, QUERY, 10)
    assert packets(watch.read()) == [70]


def test_a_window_reaches_over_slots(bench: Kernel, watch: Watch) -> None:
    """60 and 60 in neighbouring slots are 120, though neither slot has reached anything."""
    number = calm_slot()
    send(bench, QUERY, 60)
    while now_number() < number + 2:
        time.sleep(0.001)
    assert watch.read() == []
    send(bench, QUERY, 60)
    assert packets(watch.read()) == [70, 90, 101]


@pytest.mark.parametrize(
    ("basis", "counted", "other"),
    [("linklocal", METADATA, OTHER_DNS), ("dns", OTHER_DNS, METADATA)],
)
def test_each_basis_has_its_own_packets(
    bench: Kernel, basis: str, counted: bytes, other: bytes
) -> None:
    """What AWS limits, or all of port 53; the resolver is in both."""
    watch = Watch(bench.loaded, bench.maps, PARTS, 100, basis)
    try:
        bench.forget()
        watch.read()
        calm_slot()
        send(bench, other, 200)
        assert watch.read() == []
        send(bench, counted, 40)
        send(bench, QUERY, 30)
        assert packets(watch.read()) == [70]
    finally:
        watch.close()
        bench.maps.set_limit(None, (NEVER,) * 3, "linklocal")


def test_an_eni_whose_limit_is_known_later(bench: Kernel, watch: Watch) -> None:
    """Woken for at the default until then, at its own from then on, and what it counted stays."""
    bench.maps.add_eni(OTHER)
    calm_slot()
    send(bench, QUERY, 60)
    assert watch.read() == []
    watch.follow({(bench.dev, 0): 40})
    send(bench, QUERY, 1)
    assert packets(watch.read()) == [61]
    assert sum(slot.linklocal for slot in bench.maps.read().enis[bench.dev, 0].slots) == 61
    send(bench, QUERY, 80, ifindex=OTHER)
    assert [(c.place, c.packets) for c in watch.read()] == [((OTHER, 0), 70)]
    bench.maps.remove_eni(OTHER)


def test_the_next_eni_of_a_device_has_the_default_again(bench: Kernel, watch: Watch) -> None:
    """Its predecessor's limit is not its own, though its place is the same."""
    watch.follow({(bench.dev, 0): 40})
    bench.maps.remove_eni(bench.dev)
    bench.maps.add_eni(bench.dev)
    calm_slot()
    send(bench, QUERY, 80)
    assert packets(watch.read()) == [70]
    watch.follow({(bench.dev, 0): 40})
    send(bench, QUERY, 1)
    assert packets(watch.read()) == [81]


def test_a_task_eni_has_a_limit_of_its_own(bench: Kernel, watch: Watch, in_task: Kernel) -> None:
    """By the key it is counted under."""
    watch.follow({(in_task.dev, 0): 40})
    calm_slot()
    for _ in range(60):
        in_task.run("task_egress", QUERY)
    assert [(c.place, c.packets) for c in watch.read()] == [
        ((TASK_DEV, 0), fewest) for fewest in (28, 36, 41)
    ]


def test_a_branch_eni_has_a_limit_of_its_own(bench: Kernel, watch: Watch) -> None:
    """From its first packet, if it was known; one that the kernel met by itself has the default."""
    bench.maps.remove_eni(bench.dev)
    bench.maps.add_eni(bench.dev, trunk=True)
    bench.maps.add_eni(bench.dev, 7)
    branches = {(bench.dev, vlan): 40 for vlan in (7, 8)}
    watch.follow(branches)
    calm_slot()
    for vlan in (7, 8):
        tagged = f.ipv4(f.udp(), f.UDP, "10.0.0.2", tags=[(f.VLAN, vlan)])
        send(bench, tagged, 80)
        watch.follow(branches)
    found = [(crossing.place, crossing.packets) for crossing in watch.read()]
    of_seven = [((bench.dev, 7), fewest) for fewest in (28, 36, 41)]
    assert found == [*of_seven, ((bench.dev, 8), 70)]


def test_more_enis_than_there_is_room_for(bench: Kernel, watch: Watch) -> None:
    """The last has the default, rather than somebody else's; room that is free again is used."""
    room = layout.SETTINGS["MAX_ENIS"]
    limits = Limits(bench.loaded.maps["limits"], room)
    assert {limits.add((dev, 0)) for dev in range(room + 5)} == set(range(room))
    limits.forget(3)
    assert limits.add((room + 9, 0)) > 0
    assert limits.add((room + 10, 0)) == 0


@pytest.mark.parametrize("parts", [(0.7, 0.9), (0.55, 0.57), (0.07, 0.29)])
def test_a_level_is_woken_for_where_its_state_begins(
    bench: Kernel, watch: Watch, parts: tuple[float, float]
) -> None:
    """Not one packet later: 0.55 * 100 is a little over 55."""
    for limit_pps in (*range(1, 200), 1000, 1024, 99_999, 1_000_000):
        own = Watch(bench.loaded, bench.maps, parts, limit_pps, "linklocal")
        own.close()
        raw = bpf.map_lookup(bench.loaded.maps["limits"], bytes(4), layout.LIMIT.packer.size)
        assert raw is not None
        *levels, _on_dns, _zero = layout.LIMIT.packer.unpack(raw)
        for part, packets in zip(parts, levels, strict=False):
            assert packets / limit_pps >= part > (packets - 1) / limit_pps
        assert levels[2] == limit_pps + 1


def test_a_processor_that_was_held_up_counts_nothing_twice(bench: Kernel, watch: Watch) -> None:
    """Its slot is over, another has opened the next: the sum before that has its packets already.
    It tells nothing, and spoils nothing.
    """
    far = now_number() + 1000  # the slot that another has opened; however slow this test is
    ahead = value(bench)
    struct.pack_into("=Q", ahead, field("before"), far)
    struct.pack_into("=Q", ahead, field("before_linklocal"), 60)
    write(bench, ahead)
    send(bench, QUERY, 65)  # 65 in their own slots, and 60 before another, are not 125
    assert watch.read() == []
    assert struct.unpack_from("=Q", value(bench), field("before")) == (far,)
    assert struct.unpack_from("=Q", value(bench), field("before_linklocal")) == (60,)


def spur(bench: Kernel, times: int) -> None:
    """Make *times* crossings: each level may be told anew."""
    blank = bytes(_ENI.size)
    for _ in range(times):
        write(bench, blank)
        bench.run("eni_egress", QUERY, gso_segs=80)


def test_thousands_of_records_go_round_the_ring(bench: Kernel, watch: Watch) -> None:
    """A reader that keeps up gets each, over the end of the buffer and over again."""
    turns = 5 * ROOM // _RECORD
    got = 0
    for _ in range(turns // 100):
        spur(bench, 100)
        found = watch.read()
        assert packets(found) == [80] * 100
        got += len(found)
    assert got * _RECORD > 4 * ROOM
    assert watch.read() == []


def test_a_reader_that_is_late_loses_the_newest_and_nothing_else(
    bench: Kernel, watch: Watch
) -> None:
    """The kernel drops what finds no room; what is there is whole, and afterwards all is well."""
    fits = ROOM // _RECORD
    spur(bench, 2 * fits)
    found = watch.read()
    assert fits - 2 <= len(found) <= fits
    assert set(packets(found)) == {80}
    assert [c.at_ns for c in found] == sorted(c.at_ns for c in found)
    spur(bench, 3)
    assert packets(watch.read()) == [80] * 3


def test_it_stops_at_a_record_that_is_being_written() -> None:
    """And goes on from there when it is whole; one that was given up is passed over."""
    page = mmap.PAGESIZE
    fd = os.memfd_create("ring")
    try:
        os.truncate(fd, 4 * page)  # reader's page, writer's page, and the data, twice in a row
        whole = mmap.mmap(fd, 4 * page)
        ring = Ring(fd, page)

        def put(at: int, length: int, text: bytes) -> None:
            for lap in (0, page):
                there = 2 * page + lap + at
                if there + 8 + len(text) <= 4 * page:
                    struct.pack_into(f"=II{len(text)}s", whole, there, length, 0, text)

        def written(at: int) -> None:
            struct.pack_into("@Q", whole, page, at)

        def read_to() -> int:
            return struct.unpack_from("@Q", whole, 0)[0]

        put(0, 5, b"first")
        put(16, 1 << 31 | 6, b"second")
        put(32, 5, b"third")
        written(48)
        assert list(ring.read()) == [b"first"]
        assert (read_to(), list(ring.read())) == (16, [])
        put(16, 6, b"second")
        assert list(ring.read()) == [b"second", b"third"]
        put(48, 1 << 30 | 4, b"gone")
        put(64, 4, b"last")
        written(80)
        assert list(ring.read()) == [b"last"]
        assert (read_to(), list(ring.read())) == (80, [])
        ring.close()
        whole.close()
    finally:
        os.close(fd)


def test_reading_while_the_kernel_writes(bench: Kernel, watch: Watch) -> None:
    """Records that arrive during the read are whole, each once, in order."""
    found: list[Crossing] = []

    def write_all() -> None:
        for turn in range(20):
            give_up = time.monotonic() + 10
            while len(found) < turn * 100 - 200 and time.monotonic() < give_up:
                time.sleep(0.001)  # never more behind than there is room for
            spur(bench, 100)

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)  # the oftener the two take turns, the oftener they meet
    try:
        writer = threading.Thread(target=write_all)
        writer.start()
        while writer.is_alive():
            found += watch.read()
        writer.join()
    finally:
        sys.setswitchinterval(interval_s)
    found += watch.read()
    assert set(packets(found)) == {80}
    times = [crossing.at_ns for crossing in found]
    assert times == sorted(set(times))
    assert len(found) == 2000
