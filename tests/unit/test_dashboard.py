"""The Grafana dashboard: whole, readable, and about metrics that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from eni53.sinks.metrics import SnapshotCollector

from tests.fixtures.snapshots import near_limit

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
DRAWN = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def expressions() -> list[str]:
    """Every query, of panels and of variables."""
    asked = [target["expr"] for panel in DRAWN for target in panel["targets"]]
    return asked + [v["definition"] for v in VARIABLES.values() if v["type"] == "query"]


def test_the_document_is_one_that_grafana_imports() -> None:
    """Fields of the dashboard JSON model, and what a provisioned file must and must not have."""
    assert DASHBOARD["id"] is None  # an id of somebody's own database would clash
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", DASHBOARD["uid"])
    assert DASHBOARD["title"] == "eni53"
    assert 36 <= DASHBOARD["schemaVersion"] <= 41
    assert set(DASHBOARD["time"]) == {"from", "to"}
    assert all(isinstance(tag, str) for tag in DASHBOARD["tags"])
    assert "__inputs" not in DASHBOARD
    for name, variable in VARIABLES.items():
        assert variable["type"] in {"datasource", "query"}
        assert re.fullmatch(r"\w+", name)
        if variable["type"] == "query":
            assert variable["datasource"] == SOURCE
            assert variable["query"]["query"] == variable["definition"]
            assert variable["allValue"] == ".*"  # or all names would stand in one regex


def test_the_four_levels_are_there() -> None:
    """Fleet, node, ENI, workload, in this order."""
    titles = [panel["title"].split(":")[0] for panel in PANELS if panel["type"] == "row"]
    assert titles[:4] == ["Fleet", "Node", "ENI", "Workload"]


def test_panels_have_places_of_their_own() -> None:
    """Unique ids; within 24 columns; no two on one cell."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        assert min(at["x"], at["y"]) >= 0
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert cells, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("panel", DRAWN, ids=lambda panel: panel["title"])
def test_panel(panel: dict[str, Any]) -> None:
    """A type that Grafana has, a title, a description, a unit, and queries told apart."""
    assert panel["type"] in {"stat", "timeseries", "table"}
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["datasource"] == SOURCE
    defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
    units = [
        item["value"] for one in overrides for item in one["properties"] if item["id"] == "unit"
    ]
    assert [*units, defaults.get("unit")][0] in {"pps", "percentunit", "short", "s", "reqps"}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        assert target["datasource"] == SOURCE
        assert target["instant"] != target["range"]
        assert target["instant"] == (panel["type"] != "timeseries")
        labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        grouped = re.search(r"by \(([\w, ]+)\)", target["expr"])
        if grouped:  # a legend of a label that was summed away is blank
            assert labels <= set(grouped[1].split(", ")), target["expr"]


@pytest.mark.parametrize("expression", expressions())
def test_query_is_about_metrics_and_variables_that_exist(expression: str) -> None:
    """A renamed metric or variable would leave a panel empty for ever."""
    exported = {"up"}
    for family in SnapshotCollector(near_limit).collect():
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        exported |= {family.name + end for end in ends.get(family.type, ("",))}
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text()
    exported |= set(re.findall(r"- record: (\S+)", rules))
    used = set(re.findall(r"[\w:]*eni53_[\w:]+|\bup\b", expression))
    assert used
    assert used - exported == set()
    variables = set(re.findall(r"\$(\w+)", expression)) - {"__rate_interval"}
    assert variables <= set(VARIABLES)
    assert not re.search(r'[^~]"\$', expression)  # several chosen values are a regex
