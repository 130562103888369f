"""Who asks for which names, and how often: charged as the ledger charges packets. No clock, no I/O.

Counts by name are exact, but not for ever: what nobody asked for lately gives way. They never add
up to more than the ledger's; what is missing was TCP, no query at all, or had no room.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from .attribution import Ladder
from .ledger import GRACE_S, Account, EniId
from .model import NameRate
from .sample import Answer, Question, Sample, SenderKey
from .top_names import Looks, TopNames

TOP_OF_WORKLOAD = 5
TOP_OF_ENI = 10
IDLE_S = 60.0


_Last = tuple[float, int]
"""When a name was asked for last, in monotonic seconds, and its queries since it is known."""


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
        self._names: dict[EniId, dict[Account, dict[int, _Last]]] = {}
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
        self.kept -= sum(map(len, self._names.pop(eni, {}).values()))
        self._totals.pop(eni, None)
        self._recent.pop(eni, None)
        self._recent_totals.pop(eni, None)
        for sender in [k for k in self._waiting if (k.dev, k.vlan) == eni]:
            del self._waiting[sender]

    def of_eni(self, eni: EniId, window_s: float, *, since_start: bool) -> Sequence[NameRate]:
        """What was asked for most through an ENI, by whomever."""
        if since_start:
            looks = _only(dict(self._totals.get(eni, {})))
        else:
            looks = self._recent_totals.get(eni, [])
        return self._top(eni, looks, TOP_OF_ENI, window_s)

    def of_account(
        self, eni: EniId, account: Account, window_s: float, *, since_start: bool
    ) -> Sequence[NameRate]:
        """What a workload asked for most through an ENI."""
        if since_start:
            names = self._names.get(eni, {}).get(account, {})
            looks = _only({question: queries for question, (_, queries) in names.items()})
        else:
            looks = self._recent.get(eni, {}).get(account, [])
        return self._top(eni, looks, TOP_OF_WORKLOAD, window_s)

    def _top(self, eni: EniId, looks: Looks, most: int, window_s: float) -> Sequence[NameRate]:
        answer_of = partial(self._answer_of, eni)
        return TopNames(looks, self._reads, answer_of, most, window_s) if looks else ()

    def _charge(self, eni: EniId, account: Account, asked: Mapping[int, int], now_s: float) -> None:
        names = self._names.setdefault(eni, {}).setdefault(account, {})
        earlier = {question: names[question][1] for question in names.keys() & asked.keys()}
        names.update({q: (now_s, earlier.get(q, 0) + n) for q, n in asked.items()})
        self.kept += len(asked) - len(earlier)
        self._recent.setdefault(eni, {}).setdefault(account, []).append((asked, earlier))

        # The same for the ENI: most names are new, and are not looked at one by one.
        totals = self._totals.setdefault(eni, {})
        earlier = {question: totals[question] for question in totals.keys() & asked.keys()}
        totals.update(asked)
        for question, queries in earlier.items():
            totals[question] += queries
        self._recent_totals.setdefault(eni, []).append((asked, earlier))

    def _forget(self, now_s: float) -> None:
        """Make room: the names idle for longest, then the rarest of the latest look."""
        alike: Counter[_Last] = Counter()
        for names in self._every():
            alike.update(names.values())
        surplus = self.kept - self._most
        bound = (math.inf, 0)
        for last, number in sorted(alike.items()):
            if last[0] >= now_s - IDLE_S and number > surplus:
                bound = last  # of those that are alike in this, only some
                break
            surplus -= number
        for eni, accounts in self._names.items():
            for names in accounts.values():
                gone = [question for question, last in names.items() if last < bound]
                if surplus > 0:
                    some = [q for q, last in names.items() if last == bound][:surplus]
                    gone += some
                    surplus -= len(some)
                self._drop(self._totals[eni], names, gone)
            for account in [account for account, names in accounts.items() if not names]:
                del accounts[account]

    def _drop(self, totals: dict[int, int], names: dict[int, _Last], gone: list[int]) -> None:
        for question in gone:
            _, queries = names.pop(question)
            totals[question] -= queries
            if not totals[question]:
                del totals[question]
        self.kept -= len(gone)

    def _every(self) -> Iterator[dict[int, _Last]]:
        for accounts in self._names.values():
            yield from accounts.values()


def _only(counts: dict[int, int]) -> Looks:
    """As if all of it had been asked for now."""
    return [(counts, {})] if counts else []


def _together(before: Mapping[int, int], now: Mapping[int, int]) -> Mapping[int, int]:
    """What waited, and what came since."""
    if not before or not now:
        return now or before
    both = dict(before)
    for question, queries in now.items():
        both[question] = both.get(question, 0) + queries
    return both
