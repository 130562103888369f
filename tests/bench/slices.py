"""Slices of test runs, and what a program costs above an empty one."""

from __future__ import annotations

import itertools
import random
import statistics
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from eni53.kernel import bpf

ROUNDS, SLICES = 11, 7
DEV = 1
_CONTEXT_WORDS, _MARK, _INGRESS, _IFINDEX = 48, 2, 9, 10


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds above the empty program: of the best slices, and in the median of rounds."""

    best: float
    median: float

    def __str__(self) -> str:
        return f"{self.best:.0f} / {self.median:.0f}"

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.best + other.best, self.median + other.median)


class Times:
    """Slices by what ran, and by round."""

    def __init__(self) -> None:
        self._rounds: defaultdict[str, list[list[float]]] = defaultdict(list)
        self._round = 0

    def begin_round(self) -> None:
        """What follows belongs to a new round."""
        self._round += 1

    def add(self, name: str, ns: float) -> None:
        """One slice of *name*."""
        rounds = self._rounds[name]
        while len(rounds) < self._round:
            rounds.append([])
        rounds[-1].append(ns)

    def forget(self) -> None:
        """Nothing so far counts."""
        self._rounds.clear()
        self._round = 0

    def cost(self, name: str, empty: str) -> Cost:
        """*name* above *empty*."""
        ours, floor = self._rounds[name], self._rounds[empty]
        pairs = zip(ours, floor, strict=True)
        differences = [statistics.fmean(a) - statistics.fmean(b) for a, b in pairs]
        best = min(itertools.chain(*ours)) - min(itertools.chain(*floor))
        return Cost(best, statistics.median(differences))

    def best(self, name: str) -> float:
        """The fastest slice itself."""
        return min(itertools.chain(*self._rounds[name]))


Slice = Callable[[Times], None]


def context(mark: int = 0, ingress: int = 0) -> bytes:
    """A ``struct __sk_buff`` for a test run on `DEV`."""
    words = [0] * _CONTEXT_WORDS
    words[_MARK], words[_INGRESS], words[_IFINDEX] = mark, ingress, DEV
    return struct.pack(f"={_CONTEXT_WORDS}I", *words)


def run(program: int, frame: bytes, runs: int, mark: int = 0, ingress: int = 0) -> float:
    """Nanoseconds a run, of *runs* in a row."""
    return bpf.test_run(program, frame, runs, context(mark, ingress))[1]


def measure(slices: Iterable[Slice]) -> Times:
    """All slices of all rounds, shuffled, so that the machine's drift falls on all alike."""
    times = Times()
    once = list(slices)
    order = once * SLICES
    times.begin_round()
    for each in once:
        each(times)  # warm: origins made, caches filled
    times.forget()
    for _ in range(ROUNDS):
        times.begin_round()
        random.shuffle(order)
        for each in order:
            each(times)
    return times
