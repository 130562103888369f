"""A pytest plugin that keeps what the table is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest


@dataclass(eq=False)  # or pytest cannot keep it in a set
class Recorder:
    """Outcomes of one run.

    Attributes:
        tell: Told at once of each test that failed, and why: the guest may not reach its end.
        counts: Number of tests by outcome.
    """

    tell: Callable[[str, str], None]
    counts: Counter[str] = field(default_factory=Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has one outcome: its call's, unless it did not come to that."""
        if report.when == "call" and report.passed:
            self.counts["passed"] += 1
        elif report.failed:
            self._failed(report)
        elif report.skipped:
            self.counts["skipped"] += 1

    def _failed(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        self.counts["failed"] += 1
        words = [line for line in report.longreprtext.splitlines() if line.startswith("E  ")]
        self.tell(report.nodeid, words[0][1:].strip()[:300] if words else "")

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Tests that were not asked for."""
        self.counts["not asked for"] += len(items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported is a failure too."""
        if report.failed:
            self._failed(report)
