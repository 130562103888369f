"""What the manifests ask of a node is what docs/benchmarks.md measured."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.chart import pod_spec

ROOT = Path(__file__).parents[2]
BENCHMARKS = (ROOT / "docs/benchmarks.md").read_text()


def part(title: str) -> str:
    """One section of the page."""
    return BENCHMARKS.split(f"\n## {title}\n")[1].split("\n## ")[0]


def chart() -> tuple[float, float]:
    """Memory requested and allowed, MiB."""
    resources = pod_spec()["containers"][0]["resources"]
    mib = [resources[key]["memory"] for key in ("requests", "limits")]
    assert all(value.endswith("Mi") for value in mib)
    return float(mib[0][:-2]), float(mib[1][:-2])


def ecs() -> tuple[float, float]:
    """Memory reserved and allowed, MiB."""
    task = json.loads((ROOT / "deploy/ecs/task-definition.json").read_text())
    container = task["containerDefinitions"][0]
    return float(container["memoryReservation"]), float(container["memory"])


def unit() -> tuple[float, float]:
    """A unit reserves nothing."""
    text = (ROOT / "deploy/systemd/eni53.service").read_text()
    found = re.search(r"^MemoryMax=(\d+)M$", text, re.MULTILINE)
    assert found is not None
    return float("inf"), float(found[1])


@pytest.mark.parametrize("manifest", [chart, ecs, unit])
def test_memory_is_enough_and_not_twice_too_much(
    manifest: Callable[[], tuple[float, float]],
) -> None:
    """The request holds the resident agent and its maps; the limit the compiler besides."""
    section = part("Memory")
    resident = max(float(row) for row in re.findall(r"\| ([\d.]+) \|$", section, re.MULTILINE))
    found = re.search(r"maps take ([\d.]+) MiB", section)
    compiling = re.search(r"The child holds (\d+) MiB", BENCHMARKS)
    assert found is not None and compiling is not None
    stays = resident + float(found[1])

    requested, allowed = manifest()
    assert stays <= requested
    assert stays + float(compiling[1]) <= allowed <= 2 * (stays + float(compiling[1]))


def test_the_processor_asked_for_is_what_it_takes() -> None:
    """10m is one per cent of a core; no limit, which would stretch the compiler's second."""
    resources = pod_spec()["containers"][0]["resources"]
    rows = re.findall(r"^\| busy[^|]*\| ([\d.]+) \|", part("Processor"), re.MULTILINE)
    busy = max(float(percent) for percent in rows)
    requested = float(resources["requests"]["cpu"].removesuffix("m")) / 10
    assert busy <= requested <= 2 * busy
    assert "cpu" not in resources["limits"]
