"""Clients on other nodes: what a cache here sends for them is theirs, and nothing else is."""

from __future__ import annotations

import ipaddress
import random
from collections import Counter

import pytest
from eni53.kernel.layout import REMOTE_BIT, TASK_DEV

from . import frames as f
from .asking import CACHE4, CACHE6, IDS, RESOLVER4, RESOLVER6, Asking, client, to
from .kernel import Kernel
from .oracle import Askers

A, B, C = client(1), client(2), client(3)
A6 = "2001:db8:7::1"
QUERY = f.dns_query("Www.Example.com")
ANSWER = f.dns_answer("www.example.com")


def test_a_client_is_charged_for_its_question(asking: Asking) -> None:
    """Another id, another port, other letters: the row names the client, and it has an address."""
    asking.ask(QUERY, A)
    asking.forward(f.dns_query("wWW.eXAMPLE.COM", identity=99))
    sample = asking.kernel.maps.read()
    ((key, packets),) = sample.senders.items()
    assert (1, asking.kernel.dev, "resolver", "udp") == (
        packets,
        key.dev,
        key.packet_class,
        key.protocol,
    )
    assert {key.asker} == set(sample.remotes)
    assert A == sample.remotes[key.asker].address
    assert REMOTE_BIT < key.asker <= REMOTE_BIT + IDS
    assert 0 <= sample.taken_at_ns - sample.remotes[key.asker].asked_ns < 60e9


@pytest.mark.parametrize("remote", [A6, "2001:db8:7::2", "fd00::1"])
def test_ipv6(asking: Asking, remote: str) -> None:
    """Asked over IPv6, forwarded over IPv6."""
    asking.ask(QUERY, remote, CACHE6)
    asking.forward(QUERY, CACHE6)
    assert {remote: 1} == asking.charged()


def test_any_server_is_a_resolver_to_a_cache(asking: Asking) -> None:
    """It may ask further on: that is another class, and the client's as well."""
    asking.ask(QUERY, A)
    asking.forward(QUERY, resolver="9.9.9.9")
    assert {A: 1} == asking.charged()
    assert {"dns_other"} == {key.packet_class for key in asking.kernel.maps.read().senders}


def test_a_retransmission_is_the_clients_too(asking: Asking) -> None:
    """Within the five seconds every query for it is; after them none."""
    asking.ask(QUERY, A)
    for _ in range(3):
        asking.forward(QUERY)
        asking.grow_older(1.5)
    assert {A: 3} == asking.charged()
    asking.grow_older(1.0)
    asking.forward(QUERY)
    assert {A: 3, "": 1} == asking.charged()


def test_who_asks_again_at_the_end_is_waited_for(asking: Asking) -> None:
    """What was in the cache until then is asked for only now."""
    asking.ask(QUERY, A)
    asking.grow_older(4.0)
    asking.ask(QUERY, B)
    asking.grow_older(4.0)
    asking.forward(QUERY)
    assert {A: 1} == asking.charged()


@pytest.mark.parametrize("last", [True, False])
def test_an_old_question_is_nobodys(asking: Asking, last: bool) -> None:
    """Also when another client has asked for something else since."""
    asking.ask(QUERY, A)
    asking.grow_older(4.0, last=last)
    asking.forward(QUERY)
    assert {A: 1} == asking.charged()
    asking.grow_older(1.1, last=last)
    asking.forward(QUERY)
    assert {A: 1, "": 1} == asking.charged()


@pytest.mark.parametrize(
    "forwarded",
    [
        f.dns_query("www.example.com", kind=28),
        f.dns_query("www.example.org"),
        f.dns_query("ww.example.com"),
        f.dns_query("www.example.com.cluster.local"),
        f.dns_query("example.com"),
        ANSWER,
        b"www.example.com",
        b"",
    ],
    ids=["type", "sibling", "shorter", "longer", "parent", "answer", "text", "nothing"],
)
def test_another_question_is_the_caches_own(asking: Asking, forwarded: bytes) -> None:
    """Another type, another name, no question at all; the asked one is waited for still."""
    asking.ask(QUERY, A)
    asking.forward(forwarded)
    assert {"": 1} == asking.charged()
    asking.forward(QUERY)
    assert {"": 1, A: 1} == asking.charged()


@pytest.mark.parametrize("sender", ["10.0.1.8", "10.0.1.10", "10.0.2.9", "11.0.1.9", CACHE6])
def test_another_address_is_not_the_cache(asking: Asking, sender: str) -> None:
    """A neighbour that happens to want the same name is not charged to the client."""
    asking.ask(QUERY, A)
    asking.forward(QUERY, sender)
    assert {"": 1} == asking.charged()
    asking.forward(QUERY)
    assert {"": 1, A: 1} == asking.charged()


@pytest.mark.parametrize("place", range(16))
def test_another_ipv6_address_is_not_the_cache(asking: Asking, place: int) -> None:
    """All of its 128 bits are the address."""
    octets = bytearray(bytes.fromhex("20010db8000000010002000300040009"))
    octets[place] ^= 1
    neighbour = ":".join(octets[at : at + 2].hex() for at in range(0, 16, 2))
    asking.ask(QUERY, A6, "2001:db8:0:1:2:3:4:9")
    asking.forward(QUERY, neighbour)
    assert {"": 1} == asking.charged()


def test_only_queries_over_udp_ask(asking: Asking) -> None:
    """Answers, TCP, other ports and later fragments inbound: nobody has asked."""
    kernel = asking.kernel
    for frame in (
        to(CACHE4, A, ANSWER),
        to(CACHE4, A, QUERY, port=53, to_port=5353),
        f.ipv4(f.tcp(payload=QUERY), f.TCP, CACHE4, A),
        f.ipv4(f.udp(payload=QUERY), f.UDP, CACHE4, A, offset=1),
        f.ipv4(f.udp(payload=QUERY)[:20], f.UDP, CACHE4, A),
    ):
        kernel.run("eni_ingress", frame)
    assert {} == kernel.maps.read().remotes
    asking.forward(QUERY)
    assert {"": 1} == asking.charged()


def test_only_queries_over_udp_are_forwarded(asking: Asking) -> None:
    """Over TCP there is a stream, not a question: the cache's own."""
    asking.ask(QUERY, A)
    asking.kernel.run(
        "eni_egress", f.ipv4(f.tcp(payload=bytes(8) + QUERY), f.TCP, RESOLVER4, CACHE4)
    )
    asking.kernel.run("eni_egress", to("169.254.169.254", CACHE4, QUERY, to_port=123))
    assert {"": 2} == asking.charged()


def test_two_clients_are_charged_in_turn(asking: Asking) -> None:
    """The first that waits; once it is served, who asks then. One that is too late gets nothing."""
    asking.ask(QUERY, A)
    asking.ask(QUERY, B)
    asking.forward(QUERY)
    asking.forward(QUERY)
    assert {A: 2} == asking.charged()
    asking.ask(QUERY, B)
    asking.ask(QUERY, C)
    asking.forward(QUERY)
    assert {A: 2, B: 1} == asking.charged()


def test_who_waits_too_long_makes_room(asking: Asking) -> None:
    """A question that was not served in its five seconds is the next client's."""
    asking.ask(QUERY, A)
    asking.grow_older(4.0)
    asking.ask(QUERY, B)
    asking.grow_older(1.1)
    asking.ask(QUERY, C)
    asking.forward(QUERY)
    assert {C: 1} == asking.charged()


def test_a_cache_may_have_more_than_one_eni(asking: Asking) -> None:
    """Asked by one ENI, forwarded by another, in a task's namespace or the node's."""
    maps = asking.kernel.maps
    maps.add_eni(TASK_DEV)
    maps.add_eni(1)
    for number, (inbound, outbound) in enumerate((("eni", "task"), ("task", "eni"))):
        payload = f.dns_query(f"n{number}.example")
        asking.kernel.run(f"{inbound}_ingress", to(CACHE4, A, payload))
        asking.kernel.run(f"{outbound}_egress", to(RESOLVER4, CACHE4, payload), ifindex=1)
    assert {A: 2} == asking.charged()
    assert {TASK_DEV, 1} == {key.dev for key in maps.read().senders}


def test_the_source_of_a_forwarded_query_is_not_counted_twice(asking: Asking) -> None:
    """What a client is charged with must not be credited to the cache's address as well."""
    kernel, source = asking.kernel, "10.0.1.200"
    for name in ("asked.example", "own.example"):
        frame = to(RESOLVER4, source, f.dns_query(name))
        if name == "asked.example":
            asking.ask(f.dns_query(name), A, source)
        kernel.run("eni_egress", frame, ingress_ifindex=4242)
    assert [1] == [n for key, n in kernel.maps.read().sources.items() if key[2] == source]
    assert {A: 1, "": 1} == asking.charged()


def test_an_answer_to_port_53_is_an_answer(bench: Kernel) -> None:
    """Some resolvers ask from port 53: what comes back is for them and no question."""
    frames = [to(CACHE4, RESOLVER4, f.dns_answer(rcode=3), port=53, to_port=53)]
    frames.append(to(CACHE6, RESOLVER6, f.dns_answer(rcode=3), port=53, to_port=53))
    assert {("answer", "3", "udp", 0): 2} == bench.observe("eni_ingress", frames)


@pytest.mark.parametrize("seed", range(4))
def test_a_busy_cache(asking: Asking, seed: int) -> None:
    """Few clients, caches and names in any order, some of it noise: charged as the oracle says."""
    dice, oracle = random.Random(seed), Askers()
    wanted = Counter[str]()
    names = ["a.example", "A.Example", "b.example", "c", ""]
    caches = [CACHE4, "10.0.1.10", CACHE6]
    for _ in range(3000):
        payload = f.dns_query(dice.choice(names), kind=dice.choice((1, 1, 28)))
        payload += dice.choice((b"", bytes(11)))
        if dice.random() < 0.1:
            payload = f.dns_answer(dice.choice(names))
        cache = dice.choice(caches)
        client_ = dice.choice([A, B, C] if cache != CACHE6 else [A6, "2001:db8:7::2"])
        if dice.random() < 0.5:
            frame = to(cache, client_, payload)
            oracle.inbound(frame)
            asking.kernel.run("eni_ingress", frame)
        else:
            frame = to(RESOLVER6 if cache == CACHE6 else RESOLVER4, cache, payload)
            wanted[_text(oracle.outbound(frame))] += 1
            asking.kernel.run("eni_egress", frame)
    assert wanted == asking.charged()
    assert len(wanted) == 6


def _text(address: bytes | None) -> str:
    return str(ipaddress.ip_address(address)) if address else ""
