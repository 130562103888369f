"""Answers at the ENI: rcodes, and how long they took."""

from __future__ import annotations

import ipaddress
import struct
import time

import pytest
from eni53.kernel import layout

from . import frames as f
from .kernel import Kernel
from .queries import CLIENT4, CLIENT6, RESOLVER4, RESOLVER6, ask, fresh, grow_older, reply


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
    one, two, three = (fresh() for _ in range(3))
    for identity in (one, two, two):
        ask(bench, identity)
    for identity in (one, two, two, three):
        reply(bench, identity)
    eni = bench.maps.read().enis[bench.dev, 0]
    assert eni.responses == {0: 4}
    assert sum(eni.response_buckets) == 2
    assert 0 < eni.response_sum_s < 2


def test_the_latency_of_ipv6_needs_the_whole_address(bench: Kernel) -> None:
    """Clients that differ in the last bits, servers in their subnet: each has its own answers."""
    bench.forget()
    identity = fresh()
    query = f.udp(53, 41000, f.dns_query(identity=identity))
    bench.run("eni_egress", f.ipv6(query, f.UDP, RESOLVER6, CLIENT6))
    answer = f.udp(41000, 53, f.dns_answer(identity=identity))
    bench.run("eni_ingress", f.ipv6(answer, f.UDP, CLIENT6[:-1] + "2", RESOLVER6))
    net = ipaddress.IPv6Address(int(ipaddress.IPv6Address(RESOLVER6)) ^ 1 << 64)
    bench.run("eni_ingress", f.ipv6(answer, f.UDP, CLIENT6, str(net)))
    assert sum(bench.maps.read().enis[bench.dev, 0].response_buckets) == 0
    bench.run("eni_ingress", f.ipv6(answer, f.UDP, CLIENT6, RESOLVER6))
    assert sum(bench.maps.read().enis[bench.dev, 0].response_buckets) == 1


def test_a_retransmission_counts_from_the_first_try(bench: Kernel) -> None:
    """Who asks again after a second and then is answered has waited a second."""
    bench.forget()
    identity = fresh()
    ask(bench, identity)
    grow_older(bench, 1.0)
    ask(bench, identity)
    reply(bench, identity)
    assert 1.0 <= bench.maps.read().enis[bench.dev, 0].response_sum_s < 3.0


def test_a_query_nobody_answered_does_not_age_a_later_one(bench: Kernel) -> None:
    """Ports and ids come round again: the next query that has both starts its own clock."""
    bench.forget()
    identity = fresh()
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
    since = time.monotonic()
    slots = layout.SETTINGS["QUERY_SETS"] * layout.SETTINGS["QUERY_WAYS"]
    head = f.ipv4(f.udp(53, 41000, f.dns_query()), f.UDP, RESOLVER4, CLIENT4)
    for number in range(slots):
        source, identity = 2000 + number // 60000, number % 60000
        frame = head[:34] + struct.pack("!H", source) + head[36:42] + struct.pack("!H", identity)
        bench.run("eni_egress", frame + head[44:])
        if number % 16384 == 16383:  # else the first are given up on before the last are there
            since, age_s = time.monotonic(), time.monotonic() - since
            grow_older(bench, -age_s)
    evicted = bench.maps.read().stats["query_evicted"] - before
    # Balls in bins: of 4 n thrown at n bins that hold four each, 19.5 % find theirs full.
    assert slots * 0.185 < evicted < slots * 0.205
