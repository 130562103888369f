"""The ring of slots: every packet is in one, under the number of the moment it was sent in."""

from __future__ import annotations

import struct
import time

from eni53.kernel import bpf, layout
from eni53.sample import Slot

from . import frames as f
from .kernel import Kernel

QUERY = f.ipv4(f.udp(), f.UDP, "10.0.0.2")
OTHER_DNS = f.ipv4(f.udp(), f.UDP, "9.9.9.9")
METADATA = f.ipv4(f.tcp(80), f.TCP, "169.254.169.254")

_KEY = layout.ENI_KEY.packer
_SLOT = struct.Struct("=5Q")
_SLOTS_AT = layout.ENI.packer.size - layout.SLOTS * _SLOT.size


def slots(kernel: Kernel) -> tuple[Slot, ...]:
    """The slots of the ENI, as the agent reads them."""
    return kernel.maps.read().enis[kernel.dev, 0].slots


def raw(kernel: Kernel) -> bytearray:
    """The ENI's value, as it stands in the map."""
    value = bpf.map_lookup(
        kernel.loaded.maps["enis"], _KEY.pack(kernel.dev, 0), layout.ENI.packer.size
    )
    assert value is not None
    return bytearray(value)


def write(kernel: Kernel, value: bytes) -> None:
    """Put a crafted value in its place."""
    bpf.map_update(kernel.loaded.maps["enis"], _KEY.pack(kernel.dev, 0), bytes(value))


def now_number() -> int:
    """The number of the slot that is being filled."""
    return time.monotonic_ns() // layout.SLOT_NS


def calm_slot() -> int:
    """The number of a slot that has just begun: what follows at once will be in it."""
    number = now_number()
    while now_number() == number:
        time.sleep(0.001)
    return now_number()


def test_a_slot_has_the_number_of_its_moment(bench: Kernel) -> None:
    """A reader knows when packets were sent by the number alone, on the clock it has itself."""
    bench.forget()
    earliest = now_number()
    bench.run("eni_egress", QUERY)
    latest = now_number()
    (slot,) = slots(bench)
    assert earliest <= slot.number <= latest
    assert (1, 1) == (slot.linklocal, slot.dns)


def test_each_basis_has_its_own_classes(bench: Kernel) -> None:
    """The resolver is on both bases, other DNS on one, the other services on the other."""
    bench.forget()
    for frame, times in ((QUERY, 3), (OTHER_DNS, 5), (METADATA, 7)):
        for _ in range(times):
            bench.run("eni_egress", frame)
    found = slots(bench)
    assert sum(slot.linklocal for slot in found) == 3 + 7
    assert sum(slot.dns for slot in found) == 3 + 5


def test_the_slots_of_a_run_add_up_to_its_packets(bench: Kernel) -> None:
    """Over a second and a half of sending no packet falls between two slots."""
    bench.forget()
    sent, stop = 0, time.monotonic() + 1.5
    earliest = now_number()
    while time.monotonic() < stop:
        before = now_number()
        bench.run("eni_egress", QUERY, gso_segs=3)
        sent += 3
        if sent == 3:
            first = now_number()
    latest = now_number()
    sample = bench.maps.read()
    found = sample.enis[bench.dev, 0].slots
    assert sent == sum(slot.linklocal for slot in found) == sum(slot.dns for slot in found)
    assert sent == sum(sample.senders.values())
    numbers = [slot.number for slot in found]
    assert sorted(set(numbers)) == numbers
    assert earliest <= numbers[0] <= first
    assert before <= numbers[-1] <= latest


def test_a_slot_that_comes_round_again_starts_at_its_base(bench: Kernel) -> None:
    """6.4 seconds on, a place holds another moment: what it counted before is not in it."""
    bench.forget()
    number = calm_slot()
    place = _SLOTS_AT + number % layout.SLOTS * _SLOT.size
    value = raw(bench)
    _SLOT.pack_into(value, place, number - layout.SLOTS, 1000, 400, 900, 500)
    write(bench, value)
    before = slots(bench)
    for frame in (QUERY, QUERY, OTHER_DNS):
        bench.run("eni_egress", frame)
    after = slots(bench)

    assert (Slot(number - layout.SLOTS, 600, 400),) == before
    assert (Slot(number, 2, 3),) == after
    assert (number, 1002, 1000, 903, 900) == _SLOT.unpack_from(raw(bench), place)


def test_old_slots_stay_until_their_place_is_needed(bench: Kernel) -> None:
    """A reader that comes up to 6.4 s late finds every slot, with the number it had."""
    bench.forget()
    number = calm_slot()
    value = raw(bench)
    for age in range(1, layout.SLOTS):
        at = _SLOTS_AT + (number - age) % layout.SLOTS * _SLOT.size
        _SLOT.pack_into(value, at, number - age, age, 0, 0, 0)
    write(bench, value)
    bench.run("eni_egress", QUERY)
    found = slots(bench)
    wanted = [Slot(number - age, age, 0) for age in range(layout.SLOTS - 1, 0, -1)]
    assert [*wanted, Slot(number, 1, 1)] == list(found)


def test_raw_counts_only_rise(bench: Kernel) -> None:
    """Whatever a slot is reused for, the sum of all that was ever counted in it stays true."""
    bench.forget()
    value = raw(bench)
    for place in range(layout.SLOTS):  # every slot is old
        _SLOT.pack_into(value, _SLOTS_AT + place * _SLOT.size, 1 + place, 10, 0, 10, 0)
    write(bench, value)
    for _ in range(50):
        bench.run("eni_egress", QUERY)
        time.sleep(0.005)
    counted = [
        _SLOT.unpack_from(raw(bench), _SLOTS_AT + place * _SLOT.size)
        for place in range(layout.SLOTS)
    ]
    assert 10 * layout.SLOTS + 50 == sum(linklocal for _, linklocal, _, _, _ in counted)
    assert 50 == sum(slot.linklocal for slot in slots(bench) if slot.number > layout.SLOTS)


def test_adding_a_known_eni_again_keeps_its_counts(bench: Kernel) -> None:
    """The agent adds what it finds at every look; that resets nothing."""
    bench.forget()
    bench.run("eni_egress", QUERY)
    bench.maps.add_eni(bench.dev)
    assert 1 == sum(slot.linklocal for slot in slots(bench))
