"""Queries for the few names that are exported, exact and for as long as the ENI is there. Pure.

Apart from `questions`, which forgets what is rare: a counter of Prometheus may not fall. The hash
of each name is made beforehand, so no other name is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .kernel.question_hash import question_hash
from .sample import Sample

TYPES = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33,
    "HTTPS": 65,
}  # fmt: skip
"""Types that are counted, by their number: each is a series, so not whatever somebody sends."""


class NameCounts:
    """The counters of all ENIs.

    Args:
        names: Lower case, without the last dot.
        seed: Of the kernel's hashes.
    """

    def __init__(self, names: Iterable[str], seed: int) -> None:
        self._wanted = {
            question_hash(name, number, seed): (name, kind)
            for name in names
            for kind, number in TYPES.items()
        }
        self._counts: dict[tuple[int, int], dict[tuple[str, str], int]] = {}

    def update(self, sample: Sample) -> None:
        """Add what was asked for since the last sample."""
        if not self._wanted:
            return
        for sender, asked in sample.asked.items():
            place = (sender.dev, sender.vlan)
            if place not in sample.enis:
                continue  # gone, and its number may be another's soon
            for question in self._wanted.keys() & asked.keys():
                counts = self._counts.setdefault(place, {})
                key = self._wanted[question]
                counts[key] = counts.get(key, 0) + asked[question]

    def forget_eni(self, place: tuple[int, int]) -> None:
        """An interface is gone, with its counters."""
        self._counts.pop(place, None)

    def of_eni(self, place: tuple[int, int]) -> Mapping[tuple[str, str], int]:
        """Queries since attach by (name, type); those that there were."""
        return dict(self._counts.get(place, {}))
