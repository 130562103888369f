"""The number of a name cannot be aimed at: an unknown seed decides what a change does."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from eni53.kernel.question_hash import mix_name, question_hash

_SEEDS = 400


@pytest.mark.parametrize("change", [1 << 63, 1 << 63 | 1 << 31, 1 << 31, 1 << 34, 1, 0x20, 3 << 62])
def test_no_change_does_the_same_under_every_seed(change: int) -> None:
    """Or the next word of a name could undo it, and the name have another's number."""
    rng = random.Random(change)
    seeds = [rng.getrandbits(64) for _ in range(_SEEDS)]
    done = Counter(mix_name(seed, 0x6C6F67696E2E6261) ^ mix_name(seed, 0x6C6F67696E2E6261 ^ change)
                   for seed in seeds)  # fmt: skip
    assert done.most_common(1)[0][1] <= 2


def test_the_seed_decides() -> None:
    """And so do name and type; nothing else."""
    numbers = {
        question_hash(name, kind, seed)
        for name in ("a.example.com", "b.example.com", "example.com")
        for kind in (1, 28)
        for seed in (0, 1, 2**64 - 1)
    }
    assert len(numbers) == 18
    assert question_hash("A.Example.com", 1, 7) == question_hash("a.example.com", 1, 7)
