"""What is printed at the end: one row a kernel, and what failed on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from .machine import Result


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel's outcome.

    Attributes:
        name: Of the line.
        release: Of the kernel; "" when there is none.
        ok: Whether all that was tried went well, or there was nothing to try.
        seconds: From power on to power off.
        tests: What pytest counted, in words.
        instructions: Verified instructions by program.
        notes: Lines for below the table.
    """

    name: str
    release: str
    ok: bool
    seconds: float = 0.0
    tests: str = ""
    instructions: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, release: str, result: Result) -> Self:
        """The row of a guest that ran to its end."""
        told = {key: value for report in result.reports for key, value in report.items()}
        counts = told.get("counts", {})
        tests = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        verified = told.get("instructions", {})
        notes = [f"{name}: {note}" for note in told.get("notes", [])]
        failed = (report["failed"] for report in result.reports if "failed" in report)
        notes += [f"{name}: failed: {test}" for test in failed]
        return cls(
            name,
            release,
            result.status == 0,
            result.seconds,
            tests or f"exit {result.status}",
            ", ".join(f"{program} {number}" for program, number in verified.items()),
            tuple(notes),
        )

    @classmethod
    def broken(cls, name: str, release: str, why: str) -> Self:
        """The row of one that did not get so far."""
        return cls(name, release, ok=False, tests="broken", notes=(f"{name}: {why}",))

    @classmethod
    def left_out(cls, name: str, why: str) -> Self:
        """The row of a kernel that is no longer served."""
        return cls(name, "", ok=True, tests="left out", notes=(f"{name}: left out: {why}",))


def table(rows: Sequence[Row]) -> str:
    """All rows under a heading, and their notes."""
    cells = [("kernel", "release", "seconds", "tests", "verified instructions")]
    for row in rows:
        seconds = f"{row.seconds:.1f}" if row.seconds else "-"
        cells.append((row.name, row.release or "-", seconds, row.tests, row.instructions or "-"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join(["", *lines, *(note for row in rows for note in row.notes)])
