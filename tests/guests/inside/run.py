"""``python -m tests.guests.inside.run [PYTEST ARGUMENTS]``: in a guest, all that is to be shown.

Writes one JSON object a line to the file that ENI53_REPORT names.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

from . import instructions, selection
from .recorder import Recorder

# An emulated processor is a twentieth of a real one: a limit that catches only what hangs.
_TIMEOUT_S = 600


def report(**told: Any) -> None:
    """One line for those outside."""
    place = os.environ.get("ENI53_REPORT")
    if place:
        with Path(place).open("a") as out:
            out.write(json.dumps(told) + "\n")


def kernel_version() -> tuple[int, int]:
    """Of the kernel that runs, such as (6, 1)."""
    major, minor = platform.release().split(".")[:2]
    return int(major), int(minor)


def main(argv: list[str]) -> int:
    """Run; pytest's exit code."""
    try:
        found = instructions.count()
    except Exception as error:
        report(failed=f"loading: {error}")
        raise
    report(instructions=found)
    print(f"{platform.release()}: verified instructions {found}", flush=True)
    version = kernel_version()
    usual = selection.CHOICES[os.environ.get("GUEST_TESTS", "usual")]
    arguments = ["-q", "-p", "no:cacheprovider", f"--timeout={_TIMEOUT_S}"]
    arguments += selection.arguments(version, usual, argv)
    recorder = Recorder(lambda test, why: report(failed=f"{test}: {why}"))
    status = int(pytest.main(arguments, plugins=[recorder]))
    report(counts=recorder.counts, notes=selection.notes(version))
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
