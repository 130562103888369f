"""`make demo` does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
import time


def test_demo_runs_and_warns_before_the_first_drop() -> None:
    """Under a minute, five lines of summary, counts that agree, a warning before the first drop,
    and a lab that is gone.
    """
    begun_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.demo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    took_s = time.monotonic() - begun_s
    assert done.returncode == 0, done.stderr
    summary = done.stdout.strip().splitlines()[-5:]
    sent, seen, counted = map(int, re.findall(r"(?:sent +|counted )(\d+)", summary[0]))

    assert [line.split()[0] for line in summary] == ["sent", "who", "peak", "lost", "warned"]
    assert (seen, counted) == (sent, sent), summary[0]
    assert "ecs_task batch-import:42/" in summary[1]
    assert float(re.findall(r"warned +([\d.]+) s before", summary[4])[0]) > 0
    assert took_s < 60
    assert "EXCEEDED" in done.stdout
