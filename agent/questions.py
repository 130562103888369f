"""Who asks for which names, and how often: charged as the ledger charges packets. No clock, no I/O.

Counts by name are exact, but not for ever: what nobody asked for lately gives way. They never add
up to more than the ledger's; what is missing was TCP, no query at all, or had no room.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .attribution import Ladder
from .ledger import GRACE_S, Account, EniId
from .model import Answer, AskedKey, NameRate, Question, Sample

TOP_OF_WORKLOAD = 5
TOP_OF_ENI = 10
IDLE_S = 60.0


@dataclass(slots=True)
class _Name:
    """Queries for one name by one account: since it is known, and lately."""

    queries: int = 0
    recent: int = 0
    active_at_s: float = 0.0


class Questions:
    """The names of all ENIs of one node.

    Args:
        most: Names kept at a time, each by who asks for it.

    Attributes:
        kept: How many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: dict[EniId, dict[Account, dict[int, _Name]]] = {}
        self.kept = 0
        self._waiting: dict[AskedKey, tuple[int, float]] = {}
        self._reads: Mapping[int, Question] = {}
        self._answer_of: Callable[[EniId, int], Answer | None] = lambda _eni, _question: None
        self._active: list[_Name] = []

    def update(
        self, sample: Sample, ladder: Ladder, now_s: float, grace_s: float = GRACE_S
    ) -> None:
        """Charge what was asked for since the last sample.

        Args:
            sample: The counters.
            ladder: Over the inventory as it is now.
            now_s: Monotonic seconds.
            grace_s: How long a query may wait for its sender's name; 0 for the last update.
        """
        for name in self._active:
            name.recent = 0
        self._active.clear()
        for key in [*sample.asked, *(k for k in self._waiting if k not in sample.asked)]:
            before, since_s = self._waiting.pop(key, (0, now_s))
            place = (key.sender.dev, key.sender.vlan)
            if place not in sample.enis:
                continue  # gone, and its number may be another's soon
            queries = before + sample.asked.get(key, 0)
            verdict = ladder.judge(key.sender)
            owner = verdict.owner
            if owner is None:
                if now_s - since_s < grace_s:
                    self._waiting[key] = (queries, since_s)
                    continue
                owner = ladder.settle(key.sender)
            self._charge(place, (owner.workload, verdict.via), key.hash, queries, now_s)
        if self.kept > self._most:
            self._forget(now_s)
        self._reads = sample.questions
        self._answer_of = sample.answer_of

    def forget_eni(self, eni: EniId) -> None:
        """An interface is gone, with what was asked for through it."""
        accounts = self._names.pop(eni, {})
        self.kept -= sum(map(len, accounts.values()))

    def of_eni(self, eni: EniId, window_s: float, *, since_start: bool) -> tuple[NameRate, ...]:
        """What was asked for most through an ENI, by whomever."""
        recent: dict[int, int] = {}
        total: dict[int, int] = {}
        for names in self._names.get(eni, {}).values():
            for question, name in names.items():
                total[question] = total.get(question, 0) + name.queries
                lately = name.queries if since_start else name.recent
                if lately:
                    recent[question] = recent.get(question, 0) + lately
        together = {question: (n, total[question]) for question, n in recent.items()}
        return self._top(eni, together, TOP_OF_ENI, window_s)

    def of_account(
        self, eni: EniId, account: Account, window_s: float, *, since_start: bool
    ) -> tuple[NameRate, ...]:
        """What a workload asked for most through an ENI."""
        names = {
            question: (name.queries if since_start else name.recent, name.queries)
            for question, name in self._names.get(eni, {}).get(account, {}).items()
            if since_start or name.recent
        }
        return self._top(eni, names, TOP_OF_WORKLOAD, window_s)

    def _top(
        self, eni: EniId, names: dict[int, tuple[int, int]], most: int, window_s: float
    ) -> tuple[NameRate, ...]:
        """The busiest of *names* (queries in the window, and since known), busiest first.

        A name that has not been told yet is left out. Only the few that are shown are made: of a
        thousand names a second, most are asked for once.
        """
        told = (
            (-recent, -total, read.name, read.type, question)
            for question, (recent, total) in names.items()
            if (read := self._reads.get(question)) is not None and read.name
        )
        return tuple(
            NameRate(name, kind, -recent / window_s, -total, self._answer_of(eni, question))
            for recent, total, name, kind, question in heapq.nsmallest(most, told)
        )

    def _charge(
        self, eni: EniId, account: Account, question: int, queries: int, now_s: float
    ) -> None:
        names = self._names.setdefault(eni, {}).setdefault(account, {})
        name = names.get(question)
        if name is None:
            name = names[question] = _Name()
            self.kept += 1
        name.queries += queries
        name.recent += queries
        name.active_at_s = now_s
        self._active.append(name)

    def _forget(self, now_s: float) -> None:
        """Make room: the names idle for longest, then the rarest of the latest look."""
        every = [
            (name.active_at_s, name.queries, eni, account, question)
            for eni, accounts in self._names.items()
            for account, names in accounts.items()
            for question, name in names.items()
        ]
        every.sort(key=lambda entry: entry[:2])
        idle = sum(entry[0] < now_s - IDLE_S for entry in every)
        for _, _, eni, account, question in every[: max(idle, self.kept - self._most)]:
            names = self._names[eni][account]
            del names[question]
            self.kept -= 1
            if not names:
                del self._names[eni][account]
