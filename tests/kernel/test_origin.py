"""Tags: who gets one, what becomes of packets when there is none, and when one comes back."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from eni53.kernel import bpf, layout
from eni53.kernel.tags import QUIET_S, TagPool
from eni53.sample import SenderKey

from . import frames as f
from .kernel import Kernel
from .netns import Namespace, inside, own_cgroup

QUERY = f.ipv4(f.udp(), f.UDP, "10.0.0.2")
TAGS = layout.SETTINGS["ORIGIN_IDS"]
Veths = tuple[Kernel, list[int]]


@pytest.fixture(scope="module")
def spare() -> Iterator[Veths]:
    """Programs of their own, since tags and tables are used up here; and three veths."""
    kernel = Kernel.load()
    space = Namespace("veths")
    try:
        for number in range(3):
            space.ip("link", "add", f"v{number}", "type", "veth", "peer", "name", f"p{number}")
        veths = [space.ifindex(f"v{number}") for number in range(3)]
        kernel.dev = veths[0]
        with inside(space.name):
            yield kernel, veths
    finally:
        space.remove()
        kernel.loaded.close()


def next_tag(kernel: Kernel, veth: int) -> int:
    """The tag that a veth nobody has seen gets; it is forgotten again, and the tag with it."""
    kernel.run("workload_ingress", QUERY, ifindex=veth)
    key = layout.ORIGIN_KEY.packer.pack(own_cgroup(), veth, 0)
    value = bpf.map_lookup(kernel.loaded.maps["origins"], key, layout.ORIGIN.packer.size)
    assert value is not None
    kernel.maps.forget_origin(veth, own_cgroup())
    return int(layout.ORIGIN.packer.unpack(value)[-2])


def without_tags(kernel: Kernel) -> None:
    """Take every free tag out of circulation, and forget who has one."""
    kernel.forget()
    while next_tag(kernel, kernel.dev):
        pass


def rise(kernel: Kernel, before: dict[str, int]) -> dict[str, int]:
    """Which events were noted since."""
    after = kernel.maps.read().stats
    return {name: after[name] - n for name, n in before.items() if after[name] != n}


def test_each_veth_gets_a_tag_on_first_sight_and_keeps_it(spare: Veths) -> None:
    """Tags come from the queue in its order; the second packet changes nothing but the count."""
    kernel, veths = spare
    without_tags(kernel)
    kernel.maps.free_tags([501, 502, 503])
    for _ in range(4):
        for veth in veths:
            kernel.run("workload_ingress", QUERY, ifindex=veth)
    origins = kernel.maps.read().origins
    assert [501, 502, 503] == [origins[veth, own_cgroup()].tag for veth in veths]
    assert [{"resolver": 4}] * 3 == [origin.sent for origin in origins.values()]


def test_without_a_free_tag_packets_are_counted_all_the_same(spare: Veths) -> None:
    """The queue is empty: the origin has tag 0, its packets have their count, once it is noted."""
    kernel, veths = spare
    without_tags(kernel)
    before = kernel.maps.read().stats
    for _ in range(5):
        kernel.run("workload_ingress", QUERY, ifindex=veths[1])
    (origin,) = kernel.maps.read().origins.values()
    assert (veths[1], 0, {"resolver": 5}) == (origin.ifindex, origin.tag, origin.sent)
    assert {"origin_exhausted": 1} == rise(kernel, before)


def test_a_full_table_of_origins_costs_no_tag(spare: Veths) -> None:
    """No room for another pair: that is noted for each packet, and its tag is free for the next."""
    kernel, veths = spare
    without_tags(kernel)
    room = layout.SETTINGS["MAX_ORIGINS"]
    blank = bytes(layout.ORIGIN.packer.size)
    table = kernel.loaded.maps["origins"]
    keys = [layout.ORIGIN_KEY.packer.pack(number, 1 << 30, 0) for number in range(room)]
    for key in keys:
        bpf.map_update(table, key, blank)
    kernel.maps.free_tags([77])
    before = kernel.maps.read().stats
    for _ in range(3):
        kernel.run("workload_ingress", QUERY, ifindex=veths[2])
    assert {"origin_full": 3} == rise(kernel, before)
    bpf.map_delete(table, keys[0])
    kernel.run("workload_ingress", QUERY, ifindex=veths[2])
    assert 77 == kernel.maps.read().origins[veths[2], own_cgroup()].tag
    kernel.forget()


def test_a_full_table_of_senders_counts_in_the_overflow(spare: Veths) -> None:
    """Rows of the count run out: the ENI's total and window stay exact, names alone are lost."""
    kernel, _ = spare
    kernel.forget()
    table = kernel.loaded.maps["senders"]
    pack = layout.SENDER_KEY.packer.pack
    for number in range(layout.SETTINGS["MAX_SENDERS"]):
        bpf.map_update(table, pack(number, 1 << 30, 0, 0, 0, 0, 0, 0), bytes(8))
    before = kernel.maps.read().stats
    for frame, times in ((QUERY, 3), (f.ipv6(f.tcp(), f.TCP, "2620:fe::fe"), 2)):
        for _ in range(times):
            kernel.run("eni_egress", frame, gso_segs=2)
    sample = kernel.maps.read()
    eni = sample.enis[kernel.dev, 0]
    assert {("resolver", "udp"): 6, ("dns_other", "tcp"): 4} == eni.overflow
    assert (6, 10) == (sum(s.linklocal for s in eni.slots), sum(s.dns for s in eni.slots))
    assert {"sender_full": 5} == rise(kernel, before)
    kernel.forget()


def test_a_full_table_of_enis_is_noted(spare: Veths) -> None:
    """A branch ENI that finds no room is counted with its trunk, and somebody is told so."""
    kernel, _ = spare
    kernel.forget(range(1, layout.SETTINGS["MAX_ENIS"]))
    before = kernel.maps.read().stats
    for vlan in (1, 255, 256, 257):
        kernel.run("eni_egress", f.ipv4(f.udp(), f.UDP, "10.0.0.2", tags=[(f.VLAN, vlan)]))
    counted = {key.vlan: count for key, count in kernel.maps.read().senders.items()}
    assert {0: 2, 1: 1, 255: 1} == counted
    assert {"eni_full": 2} == rise(kernel, before)
    kernel.forget()


def test_sources_are_kept_for_packets_nobody_owns(spare: Veths) -> None:
    """Forwarded without a tag from no veth of ours: the source address, in both families."""
    kernel, veths = spare
    kernel.forget()
    kernel.maps.add_veth(veths[2])
    for frame in (QUERY, f.ipv6(f.udp(), f.UDP, "fd00:ec2::253")):
        for ingress in (0, veths[1], veths[2]):
            kernel.run("eni_egress", frame, ingress_ifindex=ingress)
    kernel.maps.remove_veth(veths[2])
    sample = kernel.maps.read()
    assert {
        (kernel.dev, 0, "10.0.1.9", "resolver", "udp"): 1,
        (kernel.dev, 0, "2001:db8::9", "resolver", "udp"): 1,
    } == sample.sources
    by_ingress = {(key.ingress, key.cgroup_id): n for key, n in sample.senders.items()}
    assert {(0, own_cgroup()): 2, (veths[1], 0): 2, (veths[2], 0): 2} == by_ingress


class Pool:
    """A tag pool with everything it told others, on one dead veth's origin with two rows."""

    def __init__(self, kernel: Kernel, veth: int) -> None:
        self.kernel, self.veth = kernel, veth
        without_tags(kernel)
        self.forgotten: list[SenderKey] = []
        self.pool = TagPool(kernel.maps, self.forgotten.append, lambda _: True)
        kernel.run("workload_ingress", QUERY, ifindex=veth)
        self.tag = kernel.maps.read().origins[veth, own_cgroup()].tag
        self.rows = []
        for protocol in (0, 1):
            key = layout.SENDER_KEY.packer.pack(0, kernel.dev, veth, 0, self.tag, 0, protocol, 0)
            self.rows.append(key)
            self.count(key, 3)

    def count(self, key: bytes, packets: int) -> None:
        """A row of the count, as packets with the tag leave it at the ENI."""
        bpf.map_update(self.kernel.loaded.maps["senders"], key, struct.pack("=Q", packets))

    def collect(self, now_s: float, *, alive: bool = False, settled: bool = True) -> set[int]:
        """One look, at a moment of our choice."""
        veths = {self.veth} if alive else set()
        return self.pool.collect(
            self.kernel.maps.read(), veths, {self.kernel.dev}, lambda _: settled, now_s
        )

    @property
    def remembered(self) -> tuple[int, int]:
        """How many origins and rows there are."""
        sample = self.kernel.maps.read()
        return len(sample.origins), len(sample.senders)


@pytest.fixture
def pool(spare: Veths) -> Pool:
    """See `Pool`."""
    kernel, veths = spare
    return Pool(kernel, veths[1])


def test_a_living_veth_keeps_its_tag_however_quiet(pool: Pool) -> None:
    """Silence alone frees nothing."""
    for now_s in (0.0, 100.0, 1000.0):
        assert set() == pool.collect(now_s, alive=True)
    assert (1, 2) == pool.remembered


def test_a_tag_comes_back_after_quiet_and_after_its_rows(pool: Pool) -> None:
    """Gone and silent for 5 s: rows and origin are removed, told, and the tag goes round again."""
    for now_s in (10.0, 10.0 + QUIET_S - 0.01):
        assert set() == pool.collect(now_s)
        assert (1, 2) == pool.remembered
    assert {pool.veth} == pool.collect(10.0 + QUIET_S)
    assert (0, 0) == pool.remembered
    assert 2 == len(pool.forgotten)
    assert {pool.tag} == {key.origin for key in pool.forgotten}
    tags = [next_tag(pool.kernel, pool.veth) for _ in range(TAGS)]
    assert pool.tag == tags[-1], "a tag that is free longest is the first to be given"
    assert list(range(1, TAGS + 1)) == sorted(tags)


@pytest.mark.parametrize("where", ["veth", "eni"])
def test_a_late_packet_starts_the_quiet_anew(pool: Pool, where: str) -> None:
    """A packet still under way with the tag must find it taken."""
    pool.collect(10.0)
    if where == "veth":
        pool.kernel.run("workload_ingress", QUERY, ifindex=pool.veth)
    else:
        pool.count(pool.rows[0], 4)
    assert set() == pool.collect(14.0)
    assert set() == pool.collect(18.9)
    assert {pool.veth} == pool.collect(19.0)


def test_what_a_cache_sent_for_it_keeps_the_tag_too(pool: Pool) -> None:
    """Rows of somebody else's, charged to the tag: quiet first, and gone with it."""
    row = layout.SENDER_KEY.packer.pack(9, pool.kernel.dev, 0, 0, 0, pool.tag, 0, 0)
    pool.count(row, 1)
    pool.collect(10.0)
    pool.count(row, 2)
    assert set() == pool.collect(14.0)
    assert set() == pool.collect(18.9)
    assert {pool.veth} == pool.collect(19.0)
    assert (0, 0) == pool.remembered
    assert [pool.tag] == [key.asker for key in pool.forgotten if not key.origin]


def test_unsettled_rows_keep_the_tag(pool: Pool) -> None:
    """While a row still waits for its owner's name, nothing of it may go."""
    for now_s in (10.0, 20.0, 40.0):
        assert set() == pool.collect(now_s, settled=False)
    assert (1, 2) == pool.remembered
    assert {pool.veth} == pool.collect(41.0)


def test_a_tag_that_is_in_use_again_is_never_given_twice(pool: Pool) -> None:
    """All tags but one are free: handing them all out gives 8190 different ones."""
    tags = [next_tag(pool.kernel, pool.kernel.dev) for _ in range(TAGS)]
    assert 0 == tags[-1]
    assert sorted({*range(1, TAGS + 1)} - {pool.tag}) == sorted(tags[:-1])


def test_veths_that_are_gone_are_remembered_only_for_their_rows(pool: Pool) -> None:
    """A node makes ten thousand containers a day, each with an index of its own."""
    for number in range(300):
        pool.pool.collect(
            pool.kernel.maps.read(), {10_000 + number}, {pool.kernel.dev}, lambda _: True,
            1000.0 * (number + 1),
        )  # fmt: skip
    assert len(pool.pool._were_veths) <= 2


def test_rows_of_a_branch_that_is_gone_go_too(pool: Pool) -> None:
    """Its trunk lives on, and the next branch brings rows of its own."""
    kernel, vlan = pool.kernel, 11
    kernel.maps.add_eni(kernel.dev, trunk=True)
    for number in (vlan, vlan + 1):
        kernel.run("eni_egress", f.ipv4(f.udp(), f.UDP, "10.0.0.2", tags=[(f.VLAN, number)]))
    kernel.maps.remove_branch(kernel.dev, vlan)
    for now_s in (100.0, 200.0, 300.0):
        pool.collect(now_s, alive=True)
    assert {key.vlan for key in kernel.maps.read().senders} == {0, vlan + 1}
