"""CloudWatch's embedded metric format: log lines that CloudWatch Logs makes metrics of."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from ..alerts import drops
from ..errors import SourceError
from ..model import Alert, EniUsage, Snapshot
from ..text import clean

EVERY_S = 60.0
_NAMESPACE = "eni53"
_UNITS = {
    "PeakPps": "Count/Second",
    "UtilizationPercent": "Percent",
    "LimitPps": "Count/Second",
    "LinkLocalDropped": "Count",
}


class EmfLines:
    """Which lines are due: one of each ENI every minute, and of those whose alerts changed.

    Pure; the clock is the caller's.
    """

    def __init__(self) -> None:
        self._next_s: float | None = None
        self._dropped: Mapping[str, int] = {}

    def update(self, snapshot: Snapshot, changed: Iterable[Alert], now_s: float) -> tuple[str, ...]:
        """The lines for this snapshot, without line ends.

        Args:
            snapshot: As it is now.
            changed: What was raised or cleared with it.
            now_s: Monotonic seconds.
        """
        transitions = defaultdict(list)
        for alert in changed:
            transitions[alert.eni.label].append(f"{alert.severity} {alert.transition}")
        every = self._next_s is None or now_s >= self._next_s
        if every:
            self._next_s = now_s + EVERY_S
        return tuple(self._lines(snapshot, transitions, every=every))

    def _lines(
        self, snapshot: Snapshot, transitions: Mapping[str, list[str]], *, every: bool
    ) -> Iterator[str]:
        dropped = {}
        for usage in snapshot.enis:
            label = usage.eni.label
            before, now = self._dropped.get(label), drops(usage)
            if every or label in transitions:
                # A difference, so that CloudWatch's Sum says how many; a count that fell was reset.
                rise = None if before is None or now is None else max(0, now - before)
                yield emf_line(snapshot, usage, rise, transitions.get(label, ()))
                before = before if now is None else now
            elif before is None:
                before = now  # the driver answers for the first time
            if before is not None:
                dropped[label] = before
        self._dropped = dropped


def emf_line(
    snapshot: Snapshot, usage: EniUsage, dropped: int | None, transitions: Iterable[str] = ()
) -> str:
    """One ENI as one line.

    Args:
        snapshot: Whose time and node it is.
        usage: The ENI.
        dropped: Link-local packets that AWS dropped since the line before; None: not known.
        transitions: What was raised or cleared, in words.
    """
    peak = usage.peak_pps[usage.basis]
    values: dict[str, float] = {
        "PeakPps": round(peak, 3),
        "UtilizationPercent": round(100 * peak / usage.limit_pps, 3),
        "LimitPps": usage.limit_pps,
    }
    if dropped is not None:
        values["LinkLocalDropped"] = dropped
    line: dict[str, object] = {
        "_aws": {
            "Timestamp": round(snapshot.time_s * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": _NAMESPACE,
                    "Dimensions": [["node", "eni"]],
                    "Metrics": [{"Name": name, "Unit": _UNITS[name]} for name in values],
                }
            ],
        },
        "node": _dimension(snapshot.node),
        "eni": _dimension(usage.eni.label),
        **values,
        "interface": clean(usage.eni.interface),
        "basis": usage.basis,
        "state": usage.state,
    }
    if transitions:
        line["transitions"] = list(transitions)
    return json.dumps(line, allow_nan=False)


def _dimension(value: str) -> str:
    """CloudWatch takes printable ASCII there, and not nothing."""
    return clean(value).encode("ascii", "backslashreplace").decode() or "unknown"


class Lines:
    """Writes lines to a descriptor; where its reader is slow, it alone waits.

    Args:
        fd: Standard output.
    """

    name = "emf"
    together = True

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, items: tuple[str, ...]) -> None:
        """Write them.

        Raises:
            SourceError: Nobody reads there any more.
        """
        # Not by sys.stdout: its lock, held by a thread that hangs, would end the exit in an abort.
        left = memoryview("".join(f"{line}\n" for line in items).encode())
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            raise SourceError(f"standard output: {error.strerror}") from error
