"""Who asks for which names, and how often: charged as the ledger charges packets. No clock, no I/O.

Counts by name are exact, but not for ever: what nobody asked for lately gives way. They never add
up to more than the ledger's; what is missing was TCP, no query at all, or had no room.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from .attribution import Ladder
from .ledger import GRACE_S, Account, EniId
from .model import Answer, NameRate, Question, Sample, SenderKey
from .top_names import Looks, TopNames

TOP_OF_WORKLOAD = 5
TOP_OF_ENI = 10
IDLE_S = 60.0


@dataclass(slots=True)
class _Asker:
    """What one account asks for through one ENI: queries since a name is known, and the last."""

    queries: dict[int, int] = field(default_factory=dict)
    active_at_s: dict[int, float] = field(default_factory=dict)


class Questions:
    """The names of all ENIs of one node. Of a name there is only the hash, but where it is shown.

    Whole dictionaries are added up here, and not name by name: there may be thousands a second.

    Args:
        most: Names kept at a time, each by who asks for it.

    Attributes:
        kept: How many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._askers: dict[EniId, dict[Account, _Asker]] = {}
        self._totals: dict[EniId, dict[int, int]] = {}  # of what is kept, by whomever
        # Of the last update alone. Snapshots hold on to these, so each update makes new ones.
        self._recent: dict[EniId, dict[Account, Looks]] = {}
        self._recent_totals: dict[EniId, Looks] = {}
        self._waiting: dict[SenderKey, tuple[Mapping[int, int], float]] = {}
        self._reads: Mapping[int, Question] = {}
        self._answer_of: Callable[[EniId, int], Answer | None] = lambda _eni, _question: None
        self.kept = 0

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
        askers = self._askers.pop(eni, {})
        self.kept -= sum(len(asker.queries) for asker in askers.values())
        self._totals.pop(eni, None)
        self._recent.pop(eni, None)
        self._recent_totals.pop(eni, None)

    def of_eni(self, eni: EniId, window_s: float, *, since_start: bool) -> Sequence[NameRate]:
        """What was asked for most through an ENI, by whomever."""
        if since_start:
            looks = _only(self._totals.get(eni, {}))
        else:
            looks = self._recent_totals.get(eni, [])
        return self._top(eni, looks, TOP_OF_ENI, window_s)

    def of_account(
        self, eni: EniId, account: Account, window_s: float, *, since_start: bool
    ) -> Sequence[NameRate]:
        """What a workload asked for most through an ENI."""
        if since_start:
            asker = self._askers.get(eni, {}).get(account)
            looks = _only(asker.queries) if asker is not None else []
        else:
            looks = self._recent.get(eni, {}).get(account, [])
        return self._top(eni, looks, TOP_OF_WORKLOAD, window_s)

    def _top(self, eni: EniId, looks: Looks, most: int, window_s: float) -> Sequence[NameRate]:
        answer_of = partial(self._answer_of, eni)
        return TopNames(looks, self._reads, answer_of, most, window_s) if looks else ()

    def _charge(self, eni: EniId, account: Account, asked: Mapping[int, int], now_s: float) -> None:
        askers = self._askers.setdefault(eni, {})
        asker = askers.get(account)
        if asker is None:
            asker = askers[account] = _Asker()
        earlier = _add(asker.queries, asked)
        asker.active_at_s.update(dict.fromkeys(asked, now_s))
        self.kept += len(asked) - len(earlier)
        self._recent.setdefault(eni, {}).setdefault(account, []).append((asked, earlier))
        earlier = _add(self._totals.setdefault(eni, {}), asked)
        self._recent_totals.setdefault(eni, []).append((asked, earlier))

    def _forget(self, now_s: float) -> None:
        """Make room: the names idle for longest, then the rarest of the latest look."""
        at_a_time: Counter[float] = Counter()
        for _, asker in self._every():
            at_a_time.update(asker.active_at_s.values())
        surplus = self.kept - self._most
        since_s = min(at_a_time)
        for since_s, names in sorted(at_a_time.items()):
            if since_s >= now_s - IDLE_S and names > surplus:
                break  # of this look only some
            surplus -= names
        idle = [
            (eni, asker, [q for q, at_s in asker.active_at_s.items() if at_s < since_s])
            for eni, asker in self._every()
        ]
        for eni, asker, questions in idle:
            self._drop(eni, asker, questions)
        if surplus > 0:
            self._drop_rarest(surplus, since_s)
        for askers in self._askers.values():
            for account in [account for account, asker in askers.items() if not asker.queries]:
                del askers[account]

    def _drop_rarest(self, most: int, at_s: float) -> None:
        """Of the names last asked for at *at_s*."""
        rarest = heapq.nsmallest(
            most,
            (
                (asker.queries[question], number, question)
                for number, (_, asker) in enumerate(self._every())
                for question, active_at_s in asker.active_at_s.items()
                if active_at_s == at_s
            ),
        )
        every = list(self._every())
        for _, number, question in rarest:
            self._drop(*every[number], [question])

    def _drop(self, eni: EniId, asker: _Asker, questions: list[int]) -> None:
        totals = self._totals[eni]
        for question in questions:
            queries = asker.queries.pop(question)
            del asker.active_at_s[question]
            totals[question] -= queries
            if not totals[question]:
                del totals[question]
        self.kept -= len(questions)

    def _every(self) -> Iterator[tuple[EniId, _Asker]]:
        for eni, askers in self._askers.items():
            for asker in askers.values():
                yield eni, asker


def _add(counts: dict[int, int], asked: Mapping[int, int]) -> dict[int, int]:
    """Add *asked* to *counts*; returns those of them that were there before, as they stood."""
    earlier = {question: counts[question] for question in counts.keys() & asked.keys()}
    counts.update(asked)
    for question, queries in earlier.items():
        counts[question] += queries
    return earlier


def _only(counts: dict[int, int]) -> Looks:
    """As if all of it had been asked for now."""
    return [(dict(counts), {})] if counts else []


def _together(before: Mapping[int, int], now: Mapping[int, int]) -> Mapping[int, int]:
    """What waited, and what came since."""
    if not before or not now:
        return now or before
    both = dict(before)
    for question, queries in now.items():
        both[question] = both.get(question, 0) + queries
    return both
