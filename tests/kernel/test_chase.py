"""What an alias stands for: a cache that asks for it does so for whoever asked for the alias."""

from __future__ import annotations

import itertools
import random
import struct
import time
from dataclasses import dataclass

import dns.message
import dns.name
import dns.rrset
import pytest

from . import frames as f
from .asking import CACHE4, CACHE6, RESOLVER4, RESOLVER6, Asking, client, to
from .kernel import NEXT

GATEWAY, NODE, TASK = "172.17.0.1", "10.0.1.9", "172.17.0.5"
ALIAS, TARGET = "www.example.com", "d1.cdn.example.com"
A, CNAME, AAAA = 1, 5, 28
_identities = itertools.count(1000)


def labels(*parts: str) -> bytes:
    """A name without its end."""
    return b"".join(bytes([len(part)]) + part.encode() for part in parts)


def name(text: str) -> bytes:
    """A whole name, nothing of it elsewhere."""
    return labels(*text.split(".")) + b"\0"


def jump(to_offset: int) -> bytes:
    """The rest of a name, from there in the message."""
    return struct.pack("!H", 0xC000 | to_offset)


QUESTION = 12  # where its name begins
EXAMPLE = QUESTION + len(labels("www"))  # example.com in it
RECORD = QUESTION + len(f.question(ALIAS))  # where the first record begins
AFTER = RECORD + 14  # behind a record whose name and target are jumps
OWNER = jump(QUESTION)


def record(target: bytes, kind: int = CNAME, owner: bytes = OWNER, of: int = 1) -> bytes:
    """A record of an answer."""
    return owner + struct.pack("!HHIH", kind, of, 60, len(target)) + target


@dataclass
class Chasing:
    """A task has asked a cache, and what the cache sends goes to and fro."""

    asking: Asking
    tag: int = 0

    def ask(self, question: str = ALIAS, kind: int = A) -> None:
        """The task asks the cache."""
        if not self.asking.kernel.maps.read().origins:
            self.asking.kernel.maps.free_tags([1])  # the one that was taken the last time
        payload = f.dns_query(question, kind=kind)
        assert NEXT == self.asking.kernel.run("workload_ingress", to(GATEWAY, TASK, payload))
        [origin] = self.asking.kernel.maps.read().origins.values()
        self.tag = origin.tag

    def forward(
        self,
        question: str = ALIAS,
        kind: int = A,
        cache: str = NODE,
        resolver: str = RESOLVER4,
        identity: int | None = None,
    ) -> int:
        """The cache asks upstream; the id of its query."""
        identity = identity or next(_identities)
        payload = f.dns_query(question, identity, kind)
        assert NEXT == self.asking.kernel.run("eni_egress", to(resolver, cache, payload, 40001))
        return identity

    def answer(
        self,
        identity: int,
        *records: bytes,
        question: bytes = f.question(ALIAS),
        counts: tuple[int, int] | None = None,
        cache: str = NODE,
        resolver: str = RESOLVER4,
        cut: int | None = None,
    ) -> None:
        """What comes back, or the first *cut* bytes of it."""
        number = counts or (1, len(records))
        payload = struct.pack("!HHHHHH", identity, 0x8180, *number, 0, 0) + question
        payload = (payload + b"".join(records))[:cut]
        make = f.ipv6 if ":" in resolver else f.ipv4
        frame = make(f.udp(40001, 53, payload), f.UDP, cache, resolver)
        assert NEXT == self.asking.kernel.run("eni_ingress", frame)

    def charged(self) -> dict[int, int]:
        """Packets by asker; 0: the cache's own."""
        found: dict[int, int] = {}
        for key, packets in self.asking.kernel.maps.read().senders.items():
            found[key.asker] = found.get(key.asker, 0) + packets
        return found

    def follows(self, *records: bytes, target: str = TARGET, **how: object) -> bool:
        """Whether what the cache asks after such an answer is the task's."""
        while True:
            self.asking.forget()
            begin = time.monotonic()
            self.ask()
            self.answer(self.forward(), *records, **how)  # type: ignore[arg-type]
            assert self.charged() == {self.tag: 1}
            self.forward(target)
            if time.monotonic() - begin < 0.4:  # else the cache was too slow, and again
                break
        found = self.charged()
        assert found in ({self.tag: 2}, {self.tag: 1, 0: 1})
        return found == {self.tag: 2}


@pytest.fixture
def chasing(asking: Asking) -> Chasing:
    """Nobody has asked yet."""
    return Chasing(asking)


@pytest.mark.parametrize(
    "records",
    [
        (record(name(TARGET)),),
        (record(name(TARGET.upper())),),
        (record(labels("d1", "cdn") + jump(EXAMPLE)),),
        (record(labels("D1", "cDn") + jump(EXAMPLE)),),
        (record(name(TARGET), owner=name(ALIAS)),),
        (record(name(TARGET), owner=labels("www") + jump(EXAMPLE)),),
        (record(name(TARGET)), record(b"\1\2\3\4", A, name(TARGET))),
        (record(name(TARGET)), record(name("end.example.com"), CNAME, name(TARGET))),
        # The first name in the message is a jump to what is behind it, and so on.
        (record(jump(AFTER)), labels("d1") + jump(AFTER + 5), labels("cdn") + jump(EXAMPLE)),
    ],
    ids=["plain", "upper", "compressed", "both", "plain owner", "owner partly", "whole chain",
         "two aliases", "jumps"],
)  # fmt: skip
def test_the_target_is_the_askers_too(chasing: Chasing, records: tuple[bytes, ...]) -> None:
    """However it is written. And nothing else is."""
    assert chasing.follows(*records)
    assert not chasing.follows(*records, target="cdn.example.com")
    assert not chasing.follows(*records, target="end.example.com")


@pytest.mark.parametrize(
    ("records", "how"),
    [
        ((), {}),
        ((record(b"\1\2\3\4", A),), {}),
        ((record(name(TARGET), 39),), {}),
        ((record(b"\1\2\3\4", A), record(name(TARGET))), {}),
        ((record(name(TARGET), of=3),), {}),
        ((record(name(TARGET)),), {"counts": (1, 0)}),
        ((record(name(TARGET)),), {"counts": (0, 1)}),
        ((record(name(TARGET)),), {"counts": (2, 1)}),
        ((record(name(TARGET)),), {"question": f.question(ALIAS, CNAME)}),
        ((record(name(TARGET)),), {"question": f.question(ALIAS, AAAA)}),
        ((record(jump(RECORD + 12)),), {}),
        ((record(labels("d1") + jump(RECORD + 12)),), {}),
        ((record(jump(RECORD + 14) + jump(RECORD + 12)),), {}),
        ((record(jump(0x3FFF)),), {}),
        ((record(labels("d1", "cdn") + b"\x40" + b"x" * 64 + b"\0"),), {}),
        ((record(b"\xbf" + b"x" * 191 + b"\0"),), {}),
        ((record(b"\0"),), {"target": ""}),
        ((record(name(TARGET), owner=b"\x3f" + b"x" * 10),), {}),
    ],
    ids=["no record", "address", "DNAME", "not the first", "another class", "none counted",
         "no question", "two questions", "of the alias itself", "another type", "itself",
         "round and round", "two jumps", "beyond", "64", "191", "root", "owner too long"],
)  # fmt: skip
def test_no_alias_or_none_that_can_be_read(
    chasing: Chasing, records: tuple[bytes, ...], how: dict[str, object]
) -> None:
    """The query that comes next is the cache's own."""
    assert not chasing.follows(*records, **how)


@pytest.mark.parametrize("target", [name(TARGET), labels("d1", "cdn") + jump(EXAMPLE)])
def test_an_answer_that_ends_early(chasing: Chasing, target: bytes) -> None:
    """At each byte: only the whole one tells the target."""
    size = RECORD + len(record(target))
    whole = [cut for cut in range(2, size + 1) if chasing.follows(record(target), cut=cut)]
    assert whole == [size]


def test_a_name_as_long_as_they_get(chasing: Chasing) -> None:
    """255 bytes; of one more, made of jumps, nobody asks."""
    parts = ["a" * 63, "b" * 63, "c" * 63, "d" * 61]
    longest = ".".join(parts)
    assert len(name(longest)) == 255
    assert chasing.follows(record(name(longest)), target=longest)
    target = labels(*parts[:3], "d" * 59) + labels("x")
    assert len(target) == 254
    assert not chasing.follows(record(target + jump(EXAMPLE)), target=longest)
    many = ["x"] * 31
    assert chasing.follows(record(name(".".join(many))), target=".".join(many))
    assert not chasing.follows(record(name(".".join([*many, "x"]))), target=".".join([*many, "x"]))


def test_a_shorter_name_after_a_longer_one(chasing: Chasing) -> None:
    """They are read into the same place."""
    for target in ("a-rather-long-name.of.many.labels.example.com", TARGET, "x.io", "a"):
        assert chasing.follows(record(name(target)), target=target)


def test_the_type_is_that_of_the_question(chasing: Chasing) -> None:
    """The addresses of one family are wanted, not those of the other."""
    chasing.ask(kind=AAAA)
    identity = chasing.forward(kind=AAAA)
    chasing.answer(identity, record(name(TARGET)), question=f.question(ALIAS, AAAA))
    chasing.forward(TARGET, A)
    assert chasing.charged() == {chasing.tag: 1, 0: 1}
    chasing.forward(TARGET, AAAA)
    assert chasing.charged() == {chasing.tag: 2, 0: 1}


def test_who_asks_for_an_alias_wants_no_more(chasing: Chasing) -> None:
    """Its type is CNAME: nothing is chased."""
    chasing.ask(kind=CNAME)
    identity = chasing.forward(kind=CNAME)
    chasing.answer(identity, record(name(TARGET)), question=f.question(ALIAS, CNAME))
    chasing.forward(TARGET, CNAME)
    assert chasing.charged() == {chasing.tag: 1, 0: 1}


def test_the_next_query_in_the_same_place_is_nobodys(chasing: Chasing) -> None:
    """Port and id come back: who the last one was sent for does not."""
    chasing.ask()
    identity = chasing.forward()
    chasing.answer(identity)
    chasing.forward("own.example.com", identity=identity)
    chasing.answer(identity, record(name(TARGET)), question=f.question("own.example.com"))
    chasing.forward(TARGET)
    assert chasing.charged() == {chasing.tag: 1, 0: 2}


def test_an_alias_of_an_alias(chasing: Chasing) -> None:
    """Each is asked for by a query of its own, once; the retry is the cache's."""
    chasing.ask()
    chasing.answer(chasing.forward(), record(name(TARGET)))
    second = chasing.forward(TARGET)
    chasing.answer(second, record(name("end.test")), question=f.question(TARGET))
    chasing.forward("end.test")
    assert chasing.charged() == {chasing.tag: 3}
    chasing.forward("end.test")
    assert chasing.charged() == {chasing.tag: 3, 0: 1}


def test_only_the_answer_to_a_query_that_was_sent_for_somebody(chasing: Chasing) -> None:
    """What the cache asks for itself has targets of its own; an answer to no query has none."""
    chasing.answer(chasing.forward(), record(name(TARGET)))
    chasing.forward(TARGET)
    assert chasing.charged() == {0: 2}
    chasing.ask()
    identity = chasing.forward()
    chasing.answer(identity + 1, record(name(TARGET)))
    chasing.forward(TARGET)
    assert chasing.charged() == {0: 3, chasing.tag: 1}
    chasing.answer(identity, record(name(TARGET)))
    chasing.forward(TARGET)
    assert chasing.charged() == {0: 3, chasing.tag: 2}
    chasing.answer(identity, record(name(TARGET)))  # once more: nobody waits for it
    chasing.forward(TARGET)
    assert chasing.charged() == {0: 4, chasing.tag: 2}


def test_the_target_is_asked_for_at_once_or_not_at_all(chasing: Chasing) -> None:
    """Half a second later it is something else."""
    chasing.ask()
    chasing.answer(chasing.forward(), record(name(TARGET)))
    chasing.asking.grow_older(0.6)
    chasing.forward(TARGET)
    assert chasing.charged() == {chasing.tag: 1, 0: 1}


def test_whoever_waits_for_the_target_already_stays(chasing: Chasing) -> None:
    """A client on another node asked for it first; the doubt is counted."""
    chasing.ask()
    identity = chasing.forward()
    chasing.asking.ask(f.dns_query(TARGET), client(1), NODE)
    before = chasing.asking.kernel.maps.read().stats["ask_ambiguous"]
    chasing.answer(identity, record(name(TARGET)))
    chasing.forward(TARGET)
    sample = chasing.asking.kernel.maps.read()
    assert sample.stats["ask_ambiguous"] == before + 1
    [remote] = [number for number, one in sample.remotes.items() if one.address == client(1)]
    assert chasing.charged() == {chasing.tag: 1, remote: 1}


def test_who_asks_for_the_target_by_name_comes_first(chasing: Chasing) -> None:
    """The cache does not chase, and another wants that name; of two aliases the first one stays."""
    chasing.ask()
    chasing.answer(chasing.forward(), record(name(TARGET)))
    chasing.asking.ask(f.dns_query(TARGET), client(1), NODE)
    chasing.forward(TARGET)
    [remote] = chasing.asking.kernel.maps.read().remotes
    assert chasing.charged() == {chasing.tag: 1, remote: 1}

    chasing.asking.ask(f.dns_query("other.example.com"), client(1), NODE)
    other, first = chasing.forward("other.example.com"), f.question("other.example.com")
    chasing.ask()
    identity = chasing.forward()
    chasing.answer(other, record(name("x.test")), question=first)
    chasing.answer(identity, record(name("x.test")))
    chasing.forward("x.test")
    assert chasing.charged() == {chasing.tag: 2, remote: 3}


@pytest.mark.parametrize(
    ("cache", "neighbour", "resolver", "who"),
    [
        (CACHE4, "10.0.1.10", RESOLVER4, client(1)),
        (CACHE6, "2001:db8::a", RESOLVER6, "2001:db8:7::1"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_a_client_on_another_node(
    chasing: Chasing, cache: str, neighbour: str, resolver: str, who: str
) -> None:
    """Its alias too is chased by the address that it asked, and by no other."""
    chasing.asking.ask(f.dns_query(ALIAS), who, cache)
    identity = chasing.forward(cache=cache, resolver=resolver)
    chasing.answer(identity, record(name(TARGET)), cache=cache, resolver=resolver)
    chasing.forward(TARGET, cache=neighbour, resolver=resolver)
    assert chasing.asking.charged() == {who: 1, "": 1}
    chasing.forward(TARGET, cache=cache, resolver=resolver)
    assert chasing.asking.charged() == {who: 2, "": 1}


@pytest.mark.parametrize("seed", range(3))
def test_as_another_library_writes_them(chasing: Chasing, seed: int) -> None:
    """Names at random, compressed by dnspython wherever it can."""
    dice = random.Random(seed)
    words = ["a", "Cdn", "example", "COM", "x" * 20, "d-1", "eu-west-1"]
    for _ in range(40):
        alias = ".".join(dice.choices(words, k=dice.randint(1, 6)))
        target = ".".join(dice.choices(words, k=dice.randint(1, 6)))
        chasing.asking.forget()
        chasing.ask(alias)
        identity = chasing.forward(alias)
        query = dns.message.make_query(f"{alias}.", "A", id=identity)
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text(f"{alias}.", 60, "IN", "CNAME", f"{target}."))
        reply.answer.append(dns.rrset.from_text(f"{target}.", 60, "IN", "A", "192.0.2.1"))
        wire = reply.to_wire()
        chasing.answer(identity, wire[12:], question=b"", counts=(1, 2))
        chasing.forward(target.swapcase())
        assert chasing.charged() == {chasing.tag: 2}, (alias, target)
