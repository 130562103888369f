"""The busiest of many names, put in order when somebody looks: at most snapshots nobody does."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import overload

from .model import NameRate, Snapshot
from .sample import Answer, Question

MOST_NAMES = 500
"""Of an ENI, to whoever asks for more than are shown."""

Looks = list[tuple[Mapping[int, int], Mapping[int, int]]]
"""By hash of name and type: what was asked for in the window, and what some of it stood at before.

In as many pieces as there are senders; what a later one stood at has the earlier ones in it.
"""


def with_names(snapshot: Snapshot, most: int) -> Snapshot:
    """*snapshot* with up to *most* names of each ENI, as far as it has them."""
    enis = (
        replace(usage, names=usage.names.busiest(most))
        if isinstance(usage.names, TopNames)
        else usage
        for usage in snapshot.enis
    )
    return replace(snapshot, enis=tuple(enis))


class TopNames(Sequence[NameRate]):
    """Busiest first; equals by name.

    Args:
        looks: What was asked for. Nobody changes it any more.
        reads: How names read; one that has not been told yet is left out.
        answer_of: What came back for a question, by its hash: as of when somebody looks.
        most: How many are shown.
        window_s: Seconds that the window covers.
    """

    __slots__ = ("_answer_of", "_looks", "_made", "_most", "_reads", "_window_s")

    def __init__(
        self,
        looks: Looks,
        reads: Mapping[int, Question],
        answer_of: Callable[[int], Answer | None],
        most: int,
        window_s: float,
    ) -> None:
        self._looks = looks
        self._reads = reads
        self._answer_of = answer_of
        self._most = most
        self._window_s = window_s
        self._made: tuple[NameRate, ...] | None = None

    @property
    def _rates(self) -> tuple[NameRate, ...]:
        if self._made is None:
            self._made = self.busiest(self._most)
        return self._made

    def busiest(self, most: int) -> tuple[NameRate, ...]:
        """As many as *most*, however many are shown."""
        recent: dict[int, int] = {}
        total: dict[int, int] = {}
        for asked, earlier in self._looks:
            for question, queries in asked.items():
                recent[question] = recent.get(question, 0) + queries
                total[question] = earlier.get(question, 0) + queries
        told = (
            (-lately, -total[question], read.name, read.type, question)
            for question, lately in recent.items()
            if (read := self._reads.get(question)) is not None and read.name
        )
        return tuple(
            NameRate(name, kind, -lately / self._window_s, -packets, self._answer_of(question))
            for lately, packets, name, kind, question in heapq.nsmallest(most, told)
        )

    @overload
    def __getitem__(self, at: int) -> NameRate: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[NameRate, ...]: ...
    def __getitem__(self, at: int | slice) -> NameRate | tuple[NameRate, ...]:
        """As a tuple's."""
        return self._rates[at]

    def __len__(self) -> int:
        """How many are shown."""
        return len(self._rates)

    def __iter__(self) -> Iterator[NameRate]:
        """As a tuple's."""
        return iter(self._rates)

    def __eq__(self, other: object) -> bool:
        """Whether the same names are shown."""
        return isinstance(other, tuple | TopNames) and self._rates == tuple(other)

    def __hash__(self) -> int:
        """As a tuple's."""
        return hash(self._rates)
