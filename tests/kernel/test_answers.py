"""Answers at the ENI: rcodes, and how long they took."""

from __future__ import annotations

import itertools
import struct
import time

import pytest
from eni53.kernel import bpf, layout

from . import frames as f
from .kernel import Kernel

RESOLVER4, RESOLVER6 = "10.0.0.2", "fd00:ec2::253"
CLIENT4, CLIENT6 = "10.77.0.1", "2001:db8:77::1"
_identities = itertools.count(100)
_QUERY = struct.Struct("=QQ")


def ask(kernel: Kernel, identity: int, source: int = 41000) -> None:
    """A query goes out."""
    carried = f.udp(53, source, f.dns_query(identity=identity))
    kernel.run("eni_egress", f.ipv4(carried, f.UDP, RESOLVER4, CLIENT4))


def reply(kernel: Kernel, identity: int, source: int = 41000) -> None:
    """Its answer comes back."""
    carried = f.udp(source, 53, f.dns_answer(identity=identity))
    kernel.run("eni_ingress", f.ipv4(carried, f.UDP, CLIENT4, RESOLVER4))


def grow_older(kernel: Kernel, seconds: float) -> None:
    """All queries that wait were sent that much earlier."""
    table = kernel.loaded.maps["queries"]
    for place in range(layout.SETTINGS["QUERY_SLOTS"]):
        key = struct.pack("=I", place)
        value = bpf.map_lookup(table, key, _QUERY.size)
        assert value is not None
        fingerprint, sent_ns = _QUERY.unpack(value)
        if fingerprint:
            bpf.map_update(table, key, _QUERY.pack(fingerprint, sent_ns - int(seconds * 1e9)))


@pytest.mark.parametrize("rcode", range(16))
def test_answers_are_counted_by_rcode(bench: Kernel, rcode: int) -> None:
    """An answer over UDP from port 53 counts once under its rcode, on the branch ENI it is for."""
    carried = f.udp(40000, 53, f.dns_answer(rcode=rcode))
    batch = [
        f.ipv4(carried, f.UDP, "10.0.0.1", RESOLVER4),
        f.ipv6(carried, f.UDP, "2001:db8::9", RESOLVER6, tags=[(f.VLAN, 11)]),
        f.ipv4(carried, f.UDP, "10.0.0.1", RESOLVER4, tags=[(f.VLAN, 99)]),
        f.ipv4(f.udp(40000, 53, f.dns_query()), f.UDP, "10.0.0.1", RESOLVER4),
    ]
    seen = bench.observe("eni_ingress", batch, [11])
    wanted = {("answer", str(rcode), "udp", 0): 1, ("answer", str(rcode), "udp", 11): 1}
    assert wanted == dict(seen)


def test_an_answer_has_the_latency_of_its_query(bench: Kernel) -> None:
    """Only the answer to a query that went out has a latency, and only the first such answer."""
    bench.forget()
    one, two, three = (next(_identities) for _ in range(3))
    for identity in (one, two, two):
        ask(bench, identity)
    for identity in (one, two, two, three):
        reply(bench, identity)
    eni = bench.maps.read().enis[bench.dev, 0]
    assert eni.responses == {0: 4}
    assert sum(eni.response_buckets) == 2
    assert 0 < eni.response_sum_s < 2


def test_the_latency_of_ipv6_needs_the_whole_address(bench: Kernel) -> None:
    """Two clients that differ in the last bits only do not have each other's answers."""
    bench.forget()
    identity = next(_identities)
    query = f.udp(53, 41000, f.dns_query(identity=identity))
    bench.run("eni_egress", f.ipv6(query, f.UDP, RESOLVER6, CLIENT6))
    answer = f.udp(41000, 53, f.dns_answer(identity=identity))
    bench.run("eni_ingress", f.ipv6(answer, f.UDP, CLIENT6[:-1] + "2", RESOLVER6))
    assert sum(bench.maps.read().enis[bench.dev, 0].response_buckets) == 0
    bench.run("eni_ingress", f.ipv6(answer, f.UDP, CLIENT6, RESOLVER6))
    assert sum(bench.maps.read().enis[bench.dev, 0].response_buckets) == 1


def test_a_retransmission_counts_from_the_first_try(bench: Kernel) -> None:
    """Who asks again after a second and then is answered has waited a second."""
    bench.forget()
    identity = next(_identities)
    ask(bench, identity)
    grow_older(bench, 1.0)
    ask(bench, identity)
    reply(bench, identity)
    assert 1.0 <= bench.maps.read().enis[bench.dev, 0].response_sum_s < 3.0


def test_a_query_nobody_answered_does_not_age_a_later_one(bench: Kernel) -> None:
    """Ports and ids come round again: the next query that has both starts its own clock."""
    bench.forget()
    identity = next(_identities)
    ask(bench, identity)
    grow_older(bench, 600.0)
    ask(bench, identity)
    reply(bench, identity)
    eni = bench.maps.read().enis[bench.dev, 0]
    assert sum(eni.response_buckets) == 1
    assert eni.response_sum_s < 2.0


def test_a_lost_place_is_noted(bench: Kernel) -> None:
    """More queries than places wait: the ones pushed out are counted, so latency gaps explain."""
    bench.forget()
    before = bench.maps.read().stats["query_evicted"]
    started = time.monotonic()
    slots = layout.SETTINGS["QUERY_SLOTS"]
    head = f.ipv4(f.udp(53, 41000, f.dns_query()), f.UDP, RESOLVER4, CLIENT4)
    for number in range(slots):
        source, identity = 2000 + number // 60000, number % 60000
        frame = head[:34] + struct.pack("!H", source) + head[36:42] + struct.pack("!H", identity)
        bench.run("eni_egress", frame + head[44:])
    evicted = bench.maps.read().stats["query_evicted"] - before
    assert time.monotonic() - started < 5, "too slow to fill the table before queries are given up"
    # Balls in bins: of n thrown at n places, 1/e find their place taken.
    assert slots * 0.33 < evicted
