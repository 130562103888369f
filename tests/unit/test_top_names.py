"""The busiest names: put in order when looked at, and only then made readable."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from eni53.kernel import layout
from eni53.kernel.senders import SenderKeys
from eni53.kernel.told import Told
from eni53.model import NameRate
from eni53.sample import Question, SenderKey
from eni53.top_names import TopNames, with_names

from tests.fixtures import snapshots

READS = {at: Question(f"n{at}", "A") for at in range(9)}


def unseen(_question: int) -> None:
    """No answer was seen."""


class Watched(Mapping[int, Question]):
    """What names read, and how often somebody asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __getitem__(self, key: int) -> Question:
        self.asked += 1
        return READS[key]

    def __iter__(self) -> Iterator[int]:
        return iter(READS)

    def __len__(self) -> int:
        return len(READS)


def test_nothing_is_read_until_somebody_looks_and_then_once() -> None:
    """A snapshot that nobody asks for costs no names."""
    reads = Watched()
    names = TopNames([({1: 4, 2: 6}, {1: 10})], reads, unseen, 5, 2.0)
    assert reads.asked == 0

    assert names == (NameRate("n2", "A", 3.0, 6), NameRate("n1", "A", 2.0, 14))
    assert (len(names), names[0].name, [n.name for n in names]) == (2, "n2", ["n2", "n1"])
    assert reads.asked == 2
    assert hash(names) == hash(tuple(names))


def test_what_several_senders_asked_for_is_added_up() -> None:
    """What a later one stood at has the earlier ones in it."""
    looks = [({1: 2, 3: 1}, {1: 10}), ({1: 5}, {1: 12}), ({3: 4, 99: 7}, {3: 1})]
    names = TopNames(looks, READS, unseen, 5, 1.0)

    assert names == (NameRate("n1", "A", 7.0, 17), NameRate("n3", "A", 5.0, 5)), "99 is not told"
    assert TopNames(looks, READS, unseen, 1, 1.0) == (NameRate("n1", "A", 7.0, 17),)
    assert TopNames(looks, READS, unseen, 1, 1.0) != names


def told(number: int, name: str, kind: int = 1) -> bytes:
    """A record of the ring buffer."""
    wire = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1"
    return layout.TOLD_NAME.packer.pack(number, len(wire), socket.htons(kind), 0, wire)


def test_what_was_told_is_read_and_forgotten() -> None:
    """By its hash; what is of no use any more goes, and may be told again."""
    table = Told()
    table.take([told(7, "API.example.com"), told(8, "x.y", 28)])
    assert table[7] is table[7] == Question("api.example.com", "A")
    assert table.get(9) is None
    assert dict(table) == {7: table[7], 8: Question("x.y", "AAAA")}

    table.keep({8})
    assert (7 in table, list(table), len(table)) == (False, [8], 1)
    table.take([told(7, "again")])
    assert table[7] == Question("again", "A")


def test_a_sender_has_the_same_key_at_each_look() -> None:
    """For as long as it is there: then it is forgotten."""
    packed = layout.SENDER_KEY.packer.pack(5, 2, 11, 100, 3, 0, 0, 1)
    keys = SenderKeys()
    seen = []
    for _ in range(2):
        keys.begin()
        seen += [keys.of(packed), keys.of(packed)]
    keys.begin()
    keys.begin()
    after = keys.of(packed)

    assert seen[0] == SenderKey(2, 100, 3, 11, 5, "resolver", "tcp", 0)
    assert all(key is seen[0] for key in seen)
    assert after == seen[0]
    assert after is not seen[0]
    assert hash(after) == hash(seen[0])


@pytest.mark.parametrize("at", range(1, 8))
def test_who_asked_is_laid_out_as_a_senders_key_is(at: int) -> None:
    """`Asked` takes the part behind the hash for one; its zero is the protocol, udp."""
    assert layout.ASKED_KEY.fields[at] == layout.SENDER_KEY.fields[at - 1]
    assert layout.ASKED_KEY.fields[8][1] == layout.SENDER_KEY.fields[7][1]


def test_whoever_asks_may_have_more_than_are_shown() -> None:
    """As many as there are; a snapshot from elsewhere has what it was sent."""
    names = TopNames([({at: 9 - at for at in range(9)}, {})], READS, unseen, 2, 1.0)
    snapshot = snapshots.near_limit()
    [eni] = with_names(replace(snapshot, enis=(replace(snapshot.enis[0], names=names),)), 7).enis
    assert [name.name for name in eni.names] == [f"n{at}" for at in range(7)]
    assert len(names) == 2
    assert with_names(snapshot, 7) == snapshot
