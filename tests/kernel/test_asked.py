"""Counts by name: exact, by who asks, readable, bounded, whatever stands on port 53."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import dns.message
import dns.rdatatype
import pytest
from eni53.kernel import layout
from eni53.kernel.question_hash import question_hash
from eni53.kernel.told import read_question
from eni53.name_counts import TYPES
from eni53.sample import Question, Sample

from . import frames as f
from .kernel import Kernel
from .oracle import RESOLVERS

RESOLVER = next(address for address in RESOLVERS if ":" not in address)
ROOM = layout.SETTINGS["MAX_ASKED"]


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A set of programs that nobody else counts with."""
    kernel = Kernel.load()
    kernel.maps.add_eni(kernel.dev)
    yield kernel
    kernel.maps.close()


def query(name: str, kind: str = "A", *, edns: bool = False, number: int = 1) -> bytes:
    """A query as dnspython makes it."""
    made = dns.message.make_query(name, kind, use_edns=edns)
    made.id = number
    return made.to_wire()


def send(kernel: Kernel, payload: bytes, **fields: int) -> None:
    """One packet to the resolver through the ENI."""
    kernel.run("eni_egress", f.ipv4(f.udp(payload=payload), f.UDP, RESOLVER), **fields)


def counted(kernel: Kernel) -> Counter[tuple[str, str]]:
    """Queries since the last look, by name and type."""
    sample = kernel.maps.read()
    found: Counter[tuple[str, str]] = Counter()
    for hashed, queries in by_name(sample):
        question = sample.questions[hashed]
        found[question.name, question.type] += queries
    return found


def by_name(sample: Sample) -> list[tuple[int, int]]:
    """(hash, queries), by whomever."""
    return [pair for names in sample.asked.values() for pair in names.items()]


def test_each_name_and_type_is_counted_as_it_was_sent(kernel: Kernel) -> None:
    """Random names in random case, with EDNS and without, against what was sent."""
    dice = random.Random("asked")
    sent: Counter[tuple[str, str]] = Counter()
    for number in range(3000):
        name = f"host-{dice.randrange(40)}.svc.example.com"
        kind = dice.choice(("A", "AAAA", "SRV", "HTTPS"))
        loud = "".join(c.upper() if dice.random() < 0.5 else c for c in name)
        send(kernel, query(loud, kind, edns=dice.random() < 0.5, number=number & 0xFFFF))
        sent[name, kind] += 1

    assert counted(kernel) == sent
    assert counted(kernel) == {}, "nothing was asked since"
    send(kernel, query("again.example.com"))
    assert counted(kernel) == {("again.example.com", "A"): 1}


def test_the_hash_of_a_name_can_be_made_beforehand(kernel: Kernel) -> None:
    """Of any length (a whole number of words too), in any case, of every type that is exported."""
    dice = random.Random("hashes")
    for number in range(300):
        labels = [
            "".join(dice.choices("abcxyz0189-_", k=dice.randrange(1, 40)))
            for _ in range(dice.randrange(1, 6))
        ]
        name, (kind, wire) = ".".join(labels), dice.choice(list(TYPES.items()))
        send(kernel, query(name.upper(), kind, number=number))
        assert by_name(kernel.maps.read()) == [
            (question_hash(name, wire, kernel.loaded.seed), 1)
        ], name


def test_who_asks_is_kept_apart(kernel: Kernel) -> None:
    """The same name by two veths is two rows, each with its sender."""
    for ingress, queries in ((7, 3), (8, 5)):
        for number in range(queries):
            send(kernel, query("one.example.com", number=number), ingress_ifindex=ingress)
    sample = kernel.maps.read()

    asked = {sender.ingress: list(names.values()) for sender, names in sample.asked.items()}
    assert asked == {7: [3], 8: [5]}
    assert {q.name for q in sample.questions.values()} == {"one.example.com"}


def test_what_is_no_query_is_not_counted_by_name(kernel: Kernel) -> None:
    """Answers, TCP, half a header, names without end: counted as packets, and not as names."""
    answer = dns.message.make_response(dns.message.make_query("x.example.com", "A")).to_wire()
    endless = query("x.example.com")[:12] + bytes([63]) * 500
    for payload in (answer, b"", b"\0" * 11, query("x.example.com")[:20], endless):
        send(kernel, payload)
    kernel.run("eni_egress", f.ipv4(f.tcp(payload=query("x.example.com")), f.TCP, RESOLVER))
    sample = kernel.maps.read()

    assert sample.asked == {}
    assert sum(sample.senders.values()) == 6


def test_hostile_names_break_nothing_and_read_clean(kernel: Kernel) -> None:
    """Escape sequences, dots in labels, 255 bytes, loops of pointers, random bytes."""
    head = query("x.")[:12]
    labels = [b"\x1b[2J\x07", b"a.b", "ü".encode(), b"\\", b" ", b"\x7f\xff"]
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    longest = b"".join(bytes([61]) + bytes([97 + at]) * 61 for at in range(4)) + b"\x05bbbbb\0"
    loop = b"\xc0\x0c\0"
    for name in (wire, longest, loop, b"\0"):
        send(kernel, head + name + b"\0\x01\0\x01")
    dice = random.Random("hostile")
    for _ in range(500):
        send(kernel, head + dice.randbytes(dice.randrange(1, 300)))
    names = {question.name for question in kernel.maps.read().questions.values()}

    assert r"\027\0912j\007.a\046b.\195\188.\092.\032.\127\255" in names
    assert ".".join(chr(97 + at) * 61 for at in range(4)) + ".bbbbb" in names
    assert "." in names
    assert all(name.isascii() and name.isprintable() and " " not in name for name in names)
    assert max(map(len, names)) <= 4 * 256


def test_a_flood_of_names_takes_the_free_room_and_gives_it_back(kernel: Kernel) -> None:
    """Names in use keep their place and stay exact; what had no room is counted as such."""
    for round_ in range(3):
        for number in range(ROOM):
            send(kernel, query(f"r{round_}-{number}.flood.example.com"))
            if number % 16 == 0:
                send(kernel, query("steady.example.com"))
        sample = kernel.maps.read()
        steady = sum(
            queries
            for hashed, queries in by_name(sample)
            if sample.questions.get(hashed, Question("", "")).name == "steady.example.com"
        )
        named = sum(queries for _, queries in by_name(sample))
        assert steady == ROOM // 16
        assert sum(sample.senders.values()) == (round_ + 1) * (ROOM + ROOM // 16)
        assert named <= ROOM + ROOM // 16
        kernel.maps.read()  # nobody asks for them any more: they give way
        assert kernel.maps.entries["asked"][0] <= ROOM

    total = 3 * (ROOM + ROOM // 16)
    full = kernel.maps.read().stats["asked_full"]
    assert 0 < full < total
    assert len(kernel.maps.read().questions) <= 2 * ROOM


def test_names_are_told_again_when_there_was_no_room(kernel: Kernel) -> None:
    """More names at once than the ring holds: each is told with one of its next queries."""
    names = [f"n{number}.example.com" for number in range(1000)]
    for _ in range(8):
        for name in names:
            send(kernel, query(name))
        sample = kernel.maps.read()
        told = {question.name for question in sample.questions.values()}
        if set(names) <= told:
            break
    assert set(names) <= told


def test_counting_names_can_be_turned_off(kernel: Kernel) -> None:
    """[names] enabled = false: not a name, and every packet."""
    kernel.maps.set_resolvers(RESOLVERS, names=False)
    send(kernel, query("secret.example.com"))
    sample = kernel.maps.read()

    assert (sample.asked, sample.questions) == ({}, {})
    assert sum(sample.senders.values()) == 1


def test_reading_agrees_with_dnspython() -> None:
    """Ordinary names of every type, as dnspython writes them in lower case."""
    for kind in ("A", "AAAA", "SRV", "PTR", "TXT", "HTTPS", "TYPE65280"):
        for name in ("example.com", "_sip._tcp.example.com", "*.x.y", "10.in-addr.arpa"):
            wire = dns.message.make_query(name, kind).to_wire()[12:]
            number = dns.rdatatype.from_text(kind)
            assert read_question(wire, number) == Question(name, kind)
