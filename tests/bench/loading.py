"""What compiling and verifying take, and how far from its limit the verifier stays."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from .page import Aim, Section

TIMES = 5
VERIFIER_GIVES_UP = 1_000_000
"""Instructions that the kernel follows in one program, at most."""


def measure() -> list[dict[str, Any]]:
    """What the child said, each time."""
    argv = [sys.executable, "-m", "tests.bench.compiling"]
    return [
        json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
        for _ in range(TIMES)
    ]


def section() -> Section:
    """The section, measured now."""
    runs = measure()

    def best(name: str) -> str:
        used, clock = (min(run["spent"][name][i] for run in runs) * 1000 for i in (0, 1))
        return f"{used:.0f} / {clock:.0f}"

    programs: dict[str, tuple[int, int | None]] = runs[0]["programs"]
    followed = [verified for _, verified in programs.values() if verified is not None]
    return Section(
        title="Compiling and loading",
        text=(
            f"In the child process, best of {TIMES}: milliseconds of processor time / by the clock."
        ),
        header=["step", "ms", "instructions", "followed by the verifier"],
        rows=[
            ["import BCC", best("import BCC"), "", ""],
            ["compile", best("compile"), "", ""],
            *(
                [f"verify `{name}`", best(name), f"{instructions:,}",
                 "-" if verified is None else f"{verified:,}"]
                for name, (instructions, verified) in programs.items()
            ),
        ],
        notes=[
            f"The verifier gives up at {VERIFIER_GIVES_UP:,} instructions followed in one program;"
            " older kernels follow more of them than newer ones.",
            f"The child holds {max(run['peak_kib'] for run in runs) / 1024:.0f} MiB, for the second"
            " that it lives. It starts before the agent imports its own modules.",
        ],
        aims=[
            Aim("most instructions that the verifier follows in a program", most, 250_000, "")
            for most in [max(followed, default=0)] if most
        ],
    )  # fmt: skip
