"""Reads what load tools report: the lab's sender and dnsperf."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

from .shell import LabError


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """The sender's report. For tcp and imds, *sent* counts requests, not packets.

    Attributes:
        failed: Not sent at all (datagrams), or no proper answer (requests).
        seconds: From the first packet to the end of the wait for answers.
    """

    mode: str
    sent: int
    answered: int
    failed: int
    seconds: float


def parse_sent(stdout: str) -> Sent:
    """The report in the last line of *stdout*."""
    try:
        return Sent(**json.loads(stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError) as error:
        raise LabError(f"the sender left no report: {stdout!r}") from error


@dataclasses.dataclass(frozen=True, slots=True)
class Dnsperf:
    """dnsperf's report: queries, and queries per second."""

    sent: int
    completed: int
    lost: int
    qps: float


def write_queries(path: Path, count: int = 10_000) -> None:
    """A query file for dnsperf: *count* names, all of which the lab's resolver answers."""
    path.write_text("".join(f"q{n}.lab.test A\n" for n in range(count)))


def dnsperf_argv(queries: str, to: str, *, rate: int | None, seconds: float) -> list[str]:
    """One client, one thread. *rate* is queries per second; None is as fast as answers return."""
    argv = ["/usr/bin/dnsperf", "-d", queries, "-s", to, "-l", f"{seconds:g}", "-c", "1", "-T", "1"]
    return argv + ([] if rate is None else ["-Q", str(rate)])


def parse_dnsperf(stdout: str) -> Dnsperf:
    """The statistics at the end of *stdout*."""

    def number(label: str) -> float:
        found = re.search(rf"{label}:\s+([0-9.]+)", stdout)
        if found is None:
            raise LabError(f"dnsperf reported no {label}:\n{stdout}")
        return float(found[1])

    return Dnsperf(
        sent=int(number("Queries sent")),
        completed=int(number("Queries completed")),
        lost=int(number("Queries lost")),
        qps=number("Queries per second"),
    )
