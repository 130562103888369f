"""Counters of the few names that are exported: whole, apart by ENI, and nobody else's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eni53.kernel.question_hash import question_hash
from eni53.name_counts import TYPES, NameCounts
from eni53.sample import EniCounters, Sample, SenderKey

SEED = 0x5EED
A, AAAA = TYPES["A"], TYPES["AAAA"]
HOST, TASK = (2, 0), (2**31 + 1, 0)


def sample(*enis: tuple[int, int], **asked: dict[int, int]) -> Sample:
    """What was asked for since the last one, by senders of which each has one of *enis*."""
    counters = EniCounters((), {}, {}, (), 0.0)
    senders = {
        SenderKey(*place, 0, 0, number, "resolver", "udp"): names
        for number, (place, names) in enumerate(zip(enis, asked.values(), strict=True))
    }
    return replace(Sample(0, {}, {}, dict.fromkeys(enis, counters), {}, {}), asked=senders)


def test_what_is_on_the_list_is_added_up_and_nothing_else() -> None:
    """Over samples and senders, by type; an ENI that goes takes its counters with it."""
    counts = NameCounts(["db.example.com"], SEED)
    db, db6 = question_hash("db.example.com", A, SEED), question_hash("db.example.com", AAAA, SEED)
    other = question_hash("other.example.com", A, SEED)
    counts.update(sample(HOST, TASK, one={db: 3, other: 9}, two={db: 1}))
    counts.update(sample(HOST, HOST, one={db: 2, db6: 5}, two={db: 4}))
    assert counts.of_eni(HOST) == {("db.example.com", "A"): 9, ("db.example.com", "AAAA"): 5}
    assert counts.of_eni(TASK) == {("db.example.com", "A"): 1}
    counts.forget_eni(HOST)
    assert counts.of_eni(HOST) == {}


def test_of_an_eni_that_is_not_there() -> None:
    """Its number may be another's soon."""
    counts = NameCounts(["db.example.com"], SEED)
    gone = sample(HOST, one={question_hash("db.example.com", A, SEED): 3})
    counts.update(replace(gone, enis={}))
    assert counts.of_eni(HOST) == {}


@pytest.mark.parametrize("names", [[], ["other.example.com"]])
def test_without_it_on_the_list(names: list[str]) -> None:
    """Nothing is counted."""
    counts = NameCounts(names, SEED)
    counts.update(sample(HOST, one={question_hash("db.example.com", A, SEED): 3}))
    assert counts.of_eni(HOST) == {}
