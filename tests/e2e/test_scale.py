"""`make scale`, small: twenty simulated nodes, one real Prometheus, the questions of the fleet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.bench import simulated
from tests.bench.scale import BEGIN, END, exposed

ROOT = Path(__file__).resolve().parents[2]
NODES = 20


def test_twenty_nodes() -> None:
    """Every node scraped whole, the rules evaluated, the hot ENI found, nothing left running."""
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.bench.scale", "--json", "--nodes", str(NODES),
            "--interval", "2", "--seconds", "10",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    each = exposed(simulated.USUAL)
    assert found["up"] == NODES
    assert abs(found["node_series"] - each) < each * 0.2
    assert found["series"] > NODES * each
    assert (
        found["samples_per_s"] > NODES * each / 2 * 0.3
    )  # of every second scrape, on a busy machine
    assert found["resident_mib"] > 10
    assert 0 < found["recorded_s"] < 30
    assert 0 < found["rules_s"] < 30
    assert found["hottest"] == ["eni-00000000000000000"]


def test_the_page_has_a_place_for_what_is_measured() -> None:
    """What `make scale` replaces."""
    text = (ROOT / "docs/scale.md").read_text()
    assert text.index(BEGIN) < text.index(END)
    assert f"| 30 workloads, 2 ENIs | {exposed(simulated.USUAL):,} |" in text
