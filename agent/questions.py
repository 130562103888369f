"""Who asks for which names, and how often: charged as the ledger charges packets. No clock, no I/O.

Counts by name are exact, but not for ever: what nobody asked for lately gives way. They never add
up to more than the ledger's; what is missing was TCP, no query at all, or had no room.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter

from .attribution import Ladder
from .ledger import GRACE_S, Account, EniId
from .model import Answer, NameRate, Question, Sample, SenderKey
from .top_names import Asked, TopNames

TOP_OF_WORKLOAD = 5
TOP_OF_ENI = 10
IDLE_S = 60.0
_NEVER = (0, 0)


@dataclass(slots=True, eq=False)
class _Name:
    """Queries for one name by one account, since it is known."""

    eni: EniId
    account: Account
    question: int
    queries: int = 0
    active_at_s: float = 0.0


class Questions:
    """The names of all ENIs of one node.

    Args:
        most: Names kept at a time, each by who asks for it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: dict[EniId, dict[Account, dict[int, _Name]]] = {}
        self._totals: dict[EniId, dict[int, int]] = {}  # the same, by whomever
        self._by_age: dict[_Name, None] = {}  # who was asked for last stands last
        # Of the last update alone. Snapshots hold on to these, so each update makes new ones.
        self._recent: dict[EniId, dict[Account, Asked]] = {}
        self._recent_totals: dict[EniId, Asked] = {}
        self._waiting: dict[SenderKey, tuple[Mapping[int, int], float]] = {}
        self._reads: Mapping[int, Question] = {}
        self._answer_of: Callable[[EniId, int], Answer | None] = lambda _eni, _question: None

    @property
    def kept(self) -> int:
        """How many names there are."""
        return len(self._by_age)

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
        self._recent, self._recent_totals = {}, {}
        for sender in [*sample.asked, *(k for k in self._waiting if k not in sample.asked)]:
            before, since_s = self._waiting.pop(sender, ({}, now_s))
            place = (sender.dev, sender.vlan)
            if place not in sample.enis:
                continue  # gone, and its number may be another's soon
            asked = _together(before, sample.asked.get(sender, {}))
            verdict = ladder.judge(sender)
            owner = verdict.owner
            if owner is None:
                if now_s - since_s < grace_s:
                    self._waiting[sender] = (asked, since_s)
                    continue
                owner = ladder.settle(sender)
            self._charge(place, (owner.workload, verdict.via), asked, now_s)
        if self.kept > self._most:
            self._forget(now_s)
        self._reads = sample.questions
        self._answer_of = sample.answer_of

    def forget_eni(self, eni: EniId) -> None:
        """An interface is gone, with what was asked for through it."""
        for names in self._names.pop(eni, {}).values():
            for name in names.values():
                del self._by_age[name]
        self._totals.pop(eni, None)
        self._recent.pop(eni, None)
        self._recent_totals.pop(eni, None)

    def of_eni(self, eni: EniId, window_s: float, *, since_start: bool) -> Sequence[NameRate]:
        """What was asked for most through an ENI, by whomever."""
        if since_start:
            asked = {question: (n, n) for question, n in self._totals.get(eni, {}).items()}
        else:
            asked = self._recent_totals.get(eni, {})
        return self._top(eni, asked, TOP_OF_ENI, window_s)

    def of_account(
        self, eni: EniId, account: Account, window_s: float, *, since_start: bool
    ) -> Sequence[NameRate]:
        """What a workload asked for most through an ENI."""
        if since_start:
            names = self._names.get(eni, {}).get(account, {})
            asked = {question: (n.queries, n.queries) for question, n in names.items()}
        else:
            asked = self._recent.get(eni, {}).get(account, {})
        return self._top(eni, asked, TOP_OF_WORKLOAD, window_s)

    def _top(self, eni: EniId, asked: Asked, most: int, window_s: float) -> Sequence[NameRate]:
        answer_of = partial(self._answer_of, eni)
        return TopNames(asked, self._reads, answer_of, most, window_s) if asked else ()

    def _charge(self, eni: EniId, account: Account, asked: Mapping[int, int], now_s: float) -> None:
        names = self._names.setdefault(eni, {}).setdefault(account, {})
        totals = self._totals.setdefault(eni, {})
        recent = self._recent.setdefault(eni, {}).setdefault(account, {})
        recent_totals = self._recent_totals.setdefault(eni, {})
        for question, queries in asked.items():
            name = names.get(question)
            if name is None:
                name = names[question] = _Name(eni, account, question)
            else:
                del self._by_age[name]
            self._by_age[name] = None
            name.queries += queries
            name.active_at_s = now_s
            recent[question] = recent.get(question, _NEVER)[0] + queries, name.queries
            total = totals[question] = totals.get(question, 0) + queries
            recent_totals[question] = recent_totals.get(question, _NEVER)[0] + queries, total

    def _forget(self, now_s: float) -> None:
        """Make room: the names idle for longest, then the rarest of the latest look."""
        by_look = groupby(list(self._by_age), key=attrgetter("active_at_s"))
        for active_at_s, group in by_look:
            surplus = self.kept - self._most
            is_idle = active_at_s < now_s - IDLE_S
            if surplus <= 0 and not is_idle:
                return
            names = list(group)
            if len(names) > surplus and not is_idle:
                names = heapq.nsmallest(surplus, names, key=attrgetter("queries"))
            for name in names:
                self._drop(name)

    def _drop(self, name: _Name) -> None:
        accounts, totals = self._names[name.eni], self._totals[name.eni]
        names = accounts[name.account]
        del self._by_age[name], names[name.question]
        if not names:
            del accounts[name.account]
        totals[name.question] -= name.queries
        if not totals[name.question]:
            del totals[name.question]


def _together(before: Mapping[int, int], now: Mapping[int, int]) -> Mapping[int, int]:
    """What waited, and what came since."""
    if not before or not now:
        return now or before
    both = dict(before)
    for question, queries in now.items():
        both[question] = both.get(question, 0) + queries
    return both
