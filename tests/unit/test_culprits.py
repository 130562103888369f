"""Who is named beside a peak: who sent it, and not who sends a little all the time."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from eni53.culprits import Culprits
from eni53.findings import DropWatch, eni_findings
from eni53.model import BASIS_CLASSES, Count, Workload, WorkloadUsage

from tests.fixtures.alerts import usage

BURSTER, INNOCENT = (Workload("container", "", name) for name in ("burster", "innocent"))


def look(sent, slots=10, basis="linklocal"):
    """An ENI whose workloads sent these packets to the resolver within *slots*."""
    total, seconds = sum(sent.values()), slots / 10
    rows = tuple(
        WorkloadUsage(who, "direct", n, n / seconds, n / total if total else 0.0, {})
        for who, n in sent.items()
    )
    classes = {"resolver": Count(total, total / seconds), "dns_other": Count(7, 0.0)}
    return replace(usage("critical"), basis=basis, classes=classes, workloads=rows)


def test_a_burst_that_is_over():
    """It is named as long as its second is the busiest of the last minute, and no longer."""
    culprits = Culprits()
    named = {}
    for second in range(120):
        sent = {BURSTER: 970 if second == 2 else 0, INNOCENT: 5 + (second > 100)}
        one = look(sent)
        culprits.update([one], 10 * second)
        (finding,) = eni_findings([one], DropWatch(), culprits)
        named[second] = finding.workload, finding.evidence["top_share"]
    assert {named[second] for second in range(2, 63)} == {("burster", 0.995)}
    assert {named[second] for second in range(64, 120)} == {("innocent", 1.0)}


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_burst_that_was_looked_at_in_parts(slots):
    """Out of turn looks are short: a workload's tenth of a second is not a second's worth."""
    culprits, now = Culprits(), 0
    for _ in range(20):  # one second of the burst
        now += slots
        culprits.update([look({BURSTER: 90 * slots, INNOCENT: 10 * slots}, slots)], now)
    for number in range(30):  # in a short look alone it sends more than the burst did
        now += slots
        sent = {BURSTER: 0, INNOCENT: 95 * slots if number == 4 else 1}
        culprits.update([look(sent, slots)], now)
    assert culprits.of("eni-1") == (BURSTER, pytest.approx(0.9))


def test_a_look_that_took_long():
    """Ten seconds' worth in one look is ten times less in each."""
    culprits = Culprits()
    for slot in range(0, 50, 10):
        culprits.update([look({BURSTER: 400})], slot)
    culprits.update([look({INNOCENT: 2000}, 100)], 140)
    assert culprits.of("eni-1") == (BURSTER, 1.0)


def test_only_what_the_limit_counts():
    """Shares are of the basis; packets that it does not count make no second busy."""
    culprits = Culprits()
    for slot, resolver, other in ((0, 50, 0), (10, 10, 900)):
        one = look({BURSTER if slot else INNOCENT: resolver})
        counts = {"resolver": Count(0, resolver), "dns_other": Count(0, other)}
        assert "dns_other" not in BASIS_CLASSES["linklocal"]
        culprits.update([replace(one, classes=counts)], slot)
    assert culprits.of("eni-1") == (INNOCENT, 1.0)


def test_nobody():
    """Of an ENI that is not known, or is quiet, nobody is named."""
    culprits = Culprits()
    assert culprits.of("eni-1") is None
    culprits.update([look({BURSTER: 0})], 0)
    assert culprits.of("eni-1") is None
    culprits.update([look({BURSTER: 5})], 10)
    assert culprits.of("eni-1") is not None
    culprits.update([], 20)
    assert culprits.of("eni-1") is None
    assert not culprits._looks


def test_against_counting_by_hand():
    """Looks of any length: who sent most in the busiest run of them that ended within a second."""
    rng = random.Random(53)
    people = [Workload("container", "", f"w{n}") for n in range(4)]
    for _ in range(200):
        culprits, looks, now = Culprits(), [], 0
        for _ in range(rng.randrange(2, 40)):
            slots = rng.choice([1, 2, 5, 10, 10, 10, 13]) if looks else 10
            sent = Counter({who: rng.randrange(100) * slots for who in people})
            looks.append((now, now := now + slots, sent))
            culprits.update([look(sent, slots)], now)
        runs = []
        for _, end, _ in looks:
            run = [one for one in looks if end - 10 < one[1] <= end]
            who = sum((sent for *_, sent in run), Counter())
            runs.append((who.total() / max(10, end - run[0][0]), who))
        _, who = max(runs, key=lambda run: run[0])
        found = culprits.of("eni-1")
        assert found is not None
        assert who[found[0]] == max(who.values())
        assert found[1] == pytest.approx(max(who.values()) / who.total())
