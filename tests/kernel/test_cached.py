"""What a cache on the node would hold: which queries it would have spared the ENI, and TTLs."""

from __future__ import annotations

import itertools
import random
import struct
import time
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from eni53.kernel import bpf, layout
from eni53.sample import Answer, EniCounters

from . import frames as f
from . import oracle
from .kernel import Kernel
from .queries import CLIENT4, CLIENT6, RESOLVER4, RESOLVER6, clear, fresh

ELSEWHERE = "10.0.9.9"
_PLACE, _WAYS = layout.CACHED.packer, layout.SETTINGS["CACHED_WAYS"]
SOA = "ns.{0} root.{0} 1 3600 600 86400 {1}"


@pytest.fixture
def table(bench: Kernel) -> Iterator[Kernel]:
    """Nothing was asked yet, and nobody waits afterwards."""
    bench.forget()
    clear(bench)
    change(bench, lambda *_: (0,) * 8)
    yield bench
    clear(bench)


def change(kernel: Kernel, to: object) -> None:
    """Put what *to* makes of each place that is in use in its stead."""
    table, size = kernel.loaded.maps["cached"], _PLACE.size * _WAYS
    for keys, values in bpf.map_items(table, 4, size, layout.SETTINGS["CACHED_SETS"]):
        for at in range(len(keys) // 4):
            places = list(_PLACE.iter_unpack(values[at * size : (at + 1) * size]))
            if any(place[0] for place in places):
                packed = b"".join(_PLACE.pack(*(to(*p) if p[0] else p)) for p in places)  # type: ignore[operator]
                bpf.map_update(table, bytes(keys[at * 4 : at * 4 + 4]), packed)


def later(kernel: Kernel, seconds: float) -> None:
    """So much time goes by for all that is held."""
    ns = int(seconds * 1e9)
    change(kernel, lambda key, until, asked, paid, *rest: (
        key, max(0, until - ns), asked - ns, paid - ns if paid > 1001 else paid, *rest,
    ))  # fmt: skip


def spared(kernel: Kernel, vlan: int = 0) -> float:
    """Queries to the resolver that a cache would have answered."""
    return counters(kernel, vlan).cacheable["resolver"]


def ask(kernel: Kernel, name: str = "a.example.com", kind: str = "A", *,
        identity: int | None = None, port: int = 41000, to: str = RESOLVER4, vlan: int = 0
        ) -> dns.message.Message:  # fmt: skip
    """A query goes out; returned for its answer to be made of."""
    query = dns.message.make_query(name, kind, id=fresh() if identity is None else identity)
    send(kernel, "eni_egress", query.to_wire(), 53, port, to, vlan)
    return query


def answer(kernel: Kernel, query: dns.message.Message, *sections: list[dns.rrset.RRset],
           rcode: int = 0, origin: str = RESOLVER4, port: int = 41000, vlan: int = 0,
           truncated: bool = False) -> None:  # fmt: skip
    """Its answer comes in: answers, then authorities."""
    response = dns.message.make_response(query)
    response.set_rcode(rcode)  # type: ignore[arg-type]
    if truncated:
        response.flags |= dns.flags.TC
    for held, records in zip((response.answer, response.authority), sections, strict=False):
        held.extend(records)
    send(kernel, "eni_ingress", response.to_wire(origin=dns.name.root), port, 53, origin, vlan)


def send(kernel: Kernel, program: str, payload: bytes, to: int, port: int, peer: str,
         vlan: int = 0) -> None:  # fmt: skip
    """One packet between a client here and *peer*."""
    client = CLIENT6 if ":" in peer else CLIENT4
    ends = (peer, client) if program == "eni_egress" else (client, peer)
    make = f.ipv6 if ":" in peer else f.ipv4
    tags = [(f.VLAN, vlan)] if vlan else []
    kernel.run(program, make(f.udp(to, port, payload), f.UDP, *ends, tags=tags))


def a(ttl: int, name: str = "a.example.com") -> list[dns.rrset.RRset]:
    """An address for it."""
    return [dns.rrset.from_text(name, ttl, "IN", "A", "192.0.2.1")]


def soa(ttl: int, minimum: int, zone: str = "example.com.") -> list[dns.rrset.RRset]:
    """What says for how long a name is not there."""
    inside = zone if zone != "." else ""
    return [dns.rrset.from_text(zone, ttl, "IN", "SOA", SOA.format(inside, minimum))]


def counters(kernel: Kernel, vlan: int = 0) -> EniCounters:
    """What the agent reads of an ENI."""
    return kernel.maps.read().enis[kernel.dev, vlan]


def held(kernel: Kernel, vlan: int = 0) -> Answer | None:
    """What the agent reads of the one name that was asked for."""
    sample = kernel.maps.read()
    [question] = {question for asked in sample.asked.values() for question in asked}
    return sample.answer_of((kernel.dev, vlan), question)


@pytest.mark.parametrize("to", [RESOLVER4, RESOLVER6])
def test_within_its_ttl_a_cache_would_have_answered(table: Kernel, to: str) -> None:
    """All but one query a TTL, and that costs as its time goes by; what is asked once costs one."""

    def again(wanted: float) -> None:
        answer(table, ask(table, to=to), a(5), origin=to)
        assert spared(table) == pytest.approx(wanted, abs=0.05)

    again(0)
    again(2)  # it is asked for more than once: what the first one cost comes back
    again(3)
    later(table, 2.5)
    again(3.5)
    later(table, 2.6)
    again(3.5)  # a cache would have asked; half a TTL is still to pay for
    again(5)
    later(table, 5.1)
    again(5)  # once a TTL: nothing is spared
    later(table, 5.1)
    again(5)
    later(table, 500)
    again(5)
    again(6)
    assert counters(table).cacheable["dns_other"] == 0


def test_of_what_is_hot_no_time_is_lost(table: Kernel) -> None:
    """Each query pays for far less than a thousandth of the TTL; all of them pay for all of it."""
    answer(table, ask(table), a(100))
    begin = time.monotonic()
    for _ in range(1000):
        later(table, 0.01)
        ask(table)
    went_by = 10 + time.monotonic() - begin
    assert spared(table) == pytest.approx(1001 - went_by / 100, abs=0.01)


@pytest.mark.parametrize("bad", ["no answer", "TTL 0", "a failure"])
def test_what_is_fetched_in_vain_at_each_lapse(table: Kernel, bad: str) -> None:
    """Of six queries a TTL a cache would send two: one in vain, one that it pays for by time."""
    for _ in range(10):
        query = ask(table)
        if bad != "no answer":
            answer(table, query, *([a(0)] if bad == "TTL 0" else []), rcode=2 * (bad != "TTL 0"))
        for _ in range(5):
            answer(table, ask(table), a(5))
        later(table, 5.1)
    ask(table)
    assert spared(table) == pytest.approx(10 * 4 + 1, abs=0.1)  # it owes its last time still
    answer(table, ask(table), a(5))
    ask(table)
    assert spared(table) == pytest.approx(10 * 4 + 2, abs=0.1)  # paid; of this one's time none is


def test_what_is_asked_for_in_vain(table: Kernel) -> None:
    """Or with an answer that nobody may keep: each query would go out, before and afterwards."""
    for _ in range(3):
        ask(table)
    for _ in range(3):
        answer(table, ask(table), a(0))
    assert spared(table) == 0
    answer(table, ask(table), a(5))
    ask(table)
    assert spared(table) == pytest.approx(2, abs=0.01)
    later(table, 5.1)
    for _ in range(3):
        ask(table)
    answer(table, ask(table), a(0))
    for _ in range(3):
        answer(table, ask(table), a(0))
    assert spared(table) == pytest.approx(2, abs=0.01)
    answer(table, ask(table), a(5))
    ask(table)
    assert spared(table) == pytest.approx(3, abs=0.02)  # of the first five seconds all is paid


def test_only_what_a_cache_would_have_fetched_counts(table: Kernel) -> None:
    """The resolver's own TTL runs down: answers that a cache would not have asked for do not."""
    answer(table, ask(table), a(60))
    later(table, 50)
    answer(table, ask(table), a(10))
    assert held(table) == Answer(60, "NOERROR")
    later(table, 11)
    answer(table, ask(table), a(60))
    assert held(table) == Answer(60, "NOERROR")
    assert spared(table) == pytest.approx(2 - 50 / 60, abs=0.05)
    ask(table)
    assert spared(table) == pytest.approx(4 - 60 / 60, abs=0.05)


def test_type_and_name_are_apart_and_case_is_not(table: Kernel) -> None:
    """As a cache keeps them; and so are ENIs, for each has a cache of its own in this."""
    answer(table, ask(table), a(60))
    ask(table, kind="AAAA")
    ask(table, "b.example.com")
    ask(table, vlan=12)
    assert spared(table) == 0
    ask(table, "A.eXample.COM")
    assert spared(table) == pytest.approx(2, abs=0.01)
    assert spared(table, 12) == 0


def test_other_servers_are_apart(table: Kernel) -> None:
    """Their class is not what the limit counts."""
    answer(table, ask(table, to="10.0.9.1"), a(60), origin="10.0.9.1")
    ask(table, to="10.0.9.1")
    wanted = {"resolver": 0.0, "dns_other": 2.0}
    assert counters(table).cacheable == pytest.approx(wanted, abs=0.01)


def test_a_branch_eni(table: Kernel) -> None:
    """Query and answer carry its tag; one that was met by this very query too."""
    for _ in range(3):
        answer(table, ask(table, vlan=13), a(60), vlan=13)
    assert held(table, 13) == Answer(60, "NOERROR")
    assert spared(table, 13) == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize(
    ("sections", "rcode", "wanted"),
    [
        (([],), 0, None),  # nothing, and nothing that says for how long
        ((a(0),), 0, 0),
        ((a(2**31 - 1),), 0, 604800),
        (([], soa(300, 60)), 3, 60),
        (([], soa(30, 60)), 3, 30),
        (([], soa(300, 60)), 0, 60),
        (([], soa(900, 70, ".")), 3, 70),
        (([dns.rrset.from_text("a.example.com", 20, "IN", "CNAME", "b.example.com")],
          soa(300, 60)), 0, 20),
        (([*a(77), dns.rrset.from_text("b.example.com", 30, "IN", "A", "192.0.2.9")],), 0, 30),
        ((a(60), [dns.rrset.from_text("example.com", 5, "IN", "NS", "ns.example.com")]), 0, 60),
    ],
)  # fmt: skip
def test_the_ttl_of_an_answer(
    table: Kernel, sections: tuple[list[dns.rrset.RRset], ...], rcode: int, wanted: int | None
) -> None:
    """The shortest of the answers; of what is not there, the SOA's or its minimum (RFC 2308)."""
    answer(table, ask(table), *sections, rcode=rcode)
    assert held(table) == Answer(wanted, "NXDOMAIN" if rcode else "NOERROR")
    ask(table)
    assert spared(table) == pytest.approx(2 if wanted else 0, abs=0.01)


@pytest.mark.parametrize("rcode", [1, 2, 4, 5, 9])
def test_failures_are_not_kept(table: Kernel, rcode: int) -> None:
    """Whatever TTL they come with."""
    answer(table, ask(table), a(60), rcode=rcode)
    seen = held(table)
    assert seen is not None
    assert seen.ttl_s is None
    assert seen.rcode == {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}.get(
        rcode, f"RCODE{rcode}"
    )
    ask(table)
    assert counters(table).cacheable["resolver"] == 0


def test_an_answer_that_did_not_fit(table: Kernel) -> None:
    """It is counted, and not kept: the question comes again over TCP."""
    answer(table, ask(table), a(60), truncated=True)
    ask(table)
    seen = counters(table)
    assert (seen.truncated, seen.cacheable["resolver"]) == (1, 0)


def test_ttls_of_many_answers(table: Kernel) -> None:
    """Made by dnspython, with the compression it chooses, and read by it again."""
    dice = random.Random(53)
    zones = ["example.com.", "eu-west-1.compute.internal.", "x.", "a.b.c.d.e.f.example.org."]
    for number in range(400):
        zone = dice.choice(zones)
        name = f"n{number}.{zone}"
        query = ask(table, name)
        chain = [name, *(f"t{at}.{dice.choice(zones)}" for at in range(dice.randrange(4)))]
        records = [
            dns.rrset.from_text(owner, dice.randrange(1, 5000), "IN", "CNAME", target)
            for owner, target in itertools.pairwise(chain)
        ]
        exists = dice.random() < 0.6
        authority = soa(dice.randrange(1, 5000), dice.randrange(1, 5000), zone)
        if exists:
            addresses = [f"192.0.2.{at}" for at in range(1, dice.randrange(2, 9))]
            records.append(
                dns.rrset.from_text(chain[-1], dice.randrange(1, 5000), "IN", "A", *addresses)
            )
            authority = []
        ttls = [record.ttl for record in records]
        ttls += [min(record.ttl, record[0].minimum) for record in authority]
        rcode = 0 if exists else dice.choice([0, 3])
        answer(table, query, records, authority, rcode=rcode)
        seen = held(table)
        assert seen is not None, name
        assert seen.ttl_s == min(ttls), name


def test_answers_that_make_no_sense(table: Kernel) -> None:
    """Cut short, bent at random, names that point to themselves: no TTL that nobody gave."""
    dice = random.Random(7)
    query = ask(table)
    response = dns.message.make_response(query)
    response.answer.extend(a(60))
    whole = response.to_wire(origin=dns.name.root)
    for length in range(len(whole)):
        query = ask(table)
        cut = struct.pack("!H", query.id) + whole[2:length]
        send(table, "eni_ingress", cut, 41000, 53, RESOLVER4)
        seen = held(table)
        assert seen is None or seen.ttl_s is None or length >= len(whole) - 4, length
        change(table, lambda *_: (0,) * 8)
    for _ in range(2000):
        query = ask(table)
        bent = bytearray(struct.pack("!H", query.id) + whole[2:])
        for _ in range(dice.randrange(1, 6)):
            bent[dice.randrange(2, len(bent))] = dice.randrange(256)
        send(table, "eni_ingress", bytes(bent), 41000, 53, RESOLVER4)
    counts = struct.pack("!HHHHHH", 0, 0x8180, 1, 65535, 65535, 0)
    query = ask(table)
    loop = struct.pack("!H", query.id) + counts[2:] + whole[12:31] + b"\xc0\x1f" * 200
    send(table, "eni_ingress", loop, 41000, 53, RESOLVER4)
    assert counters(table).slots


def test_the_same_query_again(table: Kernel) -> None:
    """From the same port, or, as glibc does, with the same id from another; each time."""
    ask(table, identity=9)
    ask(table, identity=9)
    ask(table, identity=9, port=42000)
    assert counters(table).retransmitted == 2
    answer(table, ask(table, identity=9, port=42000), a(60), port=42000)
    assert counters(table).retransmitted == 3


def test_what_is_not_the_same_again(table: Kernel) -> None:
    """Another id, another name under the same id, one that has its answer, one of long ago."""
    ask(table, identity=9)
    ask(table, identity=10, port=42000)
    ask(table, "b.example.com", identity=10, port=43000)
    ask(table, "b.example.com", "AAAA", identity=10, port=43000)
    answer(table, ask(table, "c.example.com", identity=5), a(60, "c.example.com"))
    ask(table, "c.example.com", identity=5, port=42000)
    ask(table, "d.example.com", identity=6)
    later(table, 16)
    ask(table, "d.example.com", identity=6, port=42000)
    assert counters(table).retransmitted == 0


def test_an_answer_from_elsewhere(table: Kernel) -> None:
    """While somebody waits for it; not a stray one, and not once it has been answered."""
    query = ask(table)
    answer(table, query, a(60), origin=ELSEWHERE)
    assert counters(table).elsewhere == 1
    stray = dns.message.make_query("b.example.com", "A", id=query.id)
    answer(table, stray, a(60), origin=ELSEWHERE)
    other = dns.message.make_query("a.example.com", "A", id=query.id ^ 1)
    answer(table, other, a(60), origin=ELSEWHERE)
    answer(table, query, a(60))
    answer(table, query, a(60), origin=ELSEWHERE)
    assert counters(table).elsewhere == 1


def test_without_names(table: Kernel) -> None:
    """Nothing is known of what a cache would do; what needs no name is counted on."""
    table.maps.set_resolvers(oracle.RESOLVERS, names=False)
    try:
        for _ in range(2):
            answer(table, ask(table, identity=77), a(60))
        for _ in range(2):
            ask(table, identity=78)
    finally:
        table.maps.set_resolvers(oracle.RESOLVERS)
    seen = counters(table)
    assert (seen.cacheable["resolver"], seen.retransmitted) == (0, 1)


def test_who_was_asked_for_longest_ago_gives_way(table: Kernel) -> None:
    """More names than there are places: hot ones stay, and nothing is counted that was lost."""
    hot = [f"hot{n}.example.com" for n in range(50)]
    for name in hot:
        answer(table, ask(table, name), a(600, name))
    before = spared(table)
    places = layout.SETTINGS["CACHED_SETS"] * _WAYS
    asked = 0
    for number in range(2 * places):
        ask(table, f"x{number}.example.com")
        if number % 500 == 0:
            asked += len(hot)
            for name in hot:
                answer(table, ask(table, name), a(600, name))
    assert 0.97 * asked <= spared(table) - before <= asked + len(hot)
